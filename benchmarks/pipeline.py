"""From texts to batches: tokenizing alone, the loader with 0 and 2 workers, the share of padding.

    python benchmarks/pipeline.py [--short]

Documents of about 300 words, at most 512 tokens, from files, from a stream of 4 Parquet files and
from a prepared corpus. A token counts once (without mask copies, without padding). Without workers
CPU seconds are counted, so that other programs on the machine disturb little; what two workers
bring is measured by the clock, and only worth something on a quiet machine. Both begin before the
workers are started and end with the epoch. A GPU that learns a million tokens a second needs so
many cores for its data as the table says.
"""
import tempfile
import time
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median

from common import SHORT, long_documents, medians, open_prepared, report, write_documents

import datasets
import torch

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import Batches, Shuffled, load_data
from annotated_mpnet.documents import LineFiles
from annotated_mpnet.packing import pack_texts
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import demo_tokenizer, tokenize

DOCUMENTS, LENGTH, BLOCK = 4096 if SHORT else 8192, 512, 10240


def documents() -> list[str]: # each of them another one
    return [f"{i} {text}" for i, text in enumerate(islice(cycle(long_documents()), DOCUMENTS))]


def open_source(folder: Path, kind: str):
    "The documents, as the trainer reads them."
    if kind == "files":
        return Shuffled(LineFiles([folder / "files" / "train.txt"]), block=BLOCK)
    if kind == "prepared":
        return open_prepared(folder / "prepared" / "corpus", BLOCK)
    config = PretrainConfig(dataset_name=str(folder / "stream"), buffer_size=BLOCK,
                            eval_samples=1, min_text_length=0)
    return load_data(config)[0]


def one_epoch(folder: Path,
              kind: str, # of source: files, stream or prepared
              batch_size: int,
              packing: bool,
              workers: int,
              by_clock: bool, # seconds of the clock, not of the processor
             ) -> tuple[float, int, int]: # seconds, tokens, positions
    "Every batch of an epoch, thrown away; at a position is a token or padding."
    collator = MaskedPermutedCollator(demo_tokenizer())
    batches = Batches(open_source(folder, kind), demo_tokenizer(), collator, batch_size, LENGTH,
                      packing=packing, num_workers=workers)
    tokens = positions = 0
    clock = time.perf_counter if by_clock else time.process_time
    begun, running = clock(), iter(batches)
    while batches.position["cycle"] == 0:
        now = clock()
        for batch in next(running):
            tokens += batch["n_tokens"]
            length = batch["input_ids"].shape[1] - 2 * batch["pred_size"]
            positions += batch["targets"].shape[0] * length
    running.close()
    return now - begun, tokens, positions


def tokenizing() -> float: # tokens a second, cut at 512
    "Measure tokenizing alone."
    tokenizer, texts = demo_tokenizer(), long_documents()
    calls = {
        "cut at 512": lambda: tokenize(tokenizer, texts, LENGTH),
        "packed in rows of 512": lambda: [ids for _, ids in pack_texts(tokenizer, texts, LENGTH)],
    }
    counts = {name: sum(map(len, call())) for name, call in calls.items()}
    seconds = medians(calls, 3 if SHORT else 9, clock=time.process_time)
    speed = {name: counts[name] / s for name, s in seconds.items()}
    plain = speed["cut at 512"]
    report(f"Tokenizing {len(texts)} documents of about 300 words, one core",
           ["", "million tokens per CPU second", "ratio"],
           [[name, f"{s / 1e6:.2f}", f"{s / plain:.2f}x"] for name, s in speed.items()])
    return plain


def main():
    "Tokenizing, then every combination."
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    plain = tokenizing()
    cases = list(product(("files", "stream", "prepared"), (16, 128), (False, True)))
    if SHORT:
        cases = [("files", 16, False), ("files", 16, True), ("stream", 16, False),
                 ("prepared", 16, False), ("prepared", 16, True)]
    with tempfile.TemporaryDirectory() as folder:
        write_documents(Path(folder), documents())
        ways = ((0, False), (0, True), (2, True))
        found = {(*case, *way): [] for case in cases for way in ways}
        for _ in range(3):
            for case, runs in found.items():
                runs.append(one_epoch(Path(folder), *case))
    speed = {case: median(tokens / s for s, tokens, _ in runs) for case, runs in found.items()}
    rows = []
    for kind, size, packing in cases:
        alone, by_clock, two = (speed[kind, size, packing, *way] for way in ways)
        _, tokens, positions = found[kind, size, packing, 0, False][0]
        rows.append([f"{kind}, {size}, {'packed' if packing else 'cut'}",
                     f"{1 - tokens / positions:.1%}", f"{alone / 1e6:.2f}",
                     f"{alone / plain:.2f}x", f"{1e6 / alone:.2f}", f"{two / by_clock:.2f}x"])
    report(f"The loader, {DOCUMENTS:,} documents of about 300 words, at most {LENGTH} tokens",
           ["source, batch, packing", "padding", "million tokens per CPU second",
            "beside tokenizing alone", "cores for a million tokens/s", "2 workers"], rows)


if __name__ == "__main__":
    main()
