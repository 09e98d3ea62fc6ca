"""From texts to batches: tokenizing alone, and the whole loader with 0 and 2 workers; how much of a batch is padding.

    python benchmarks/pipeline.py [--short]

Documents of about 300 words, at most 512 tokens, from files and from a stream of 4 Parquet files. A token counts once (without
mask copies, without padding). The loader's time begins before its workers are started and ends with the cycle.
"""
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from common import SHORT, long_documents, medians, report

import datasets
import pyarrow
import pyarrow.parquet
import torch

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import Batches, Shuffled, load_data
from annotated_mpnet.documents import LineFiles
from annotated_mpnet.packing import pack_texts
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import demo_tokenizer, tokenize

DOCUMENTS, LENGTH, BLOCK = 4096 if SHORT else 8192, 512, 10240


def write(folder: Path) -> None:
    "The same documents as a text file and as four Parquet files."
    texts = [f"{i} {text}" for i, text in enumerate(islice(cycle(long_documents()), DOCUMENTS))]
    for name in ("files", "stream"): (folder / name).mkdir()
    (folder / "files" / "train.txt").write_text("\n".join(texts))
    for i in range(4): pyarrow.parquet.write_table(pyarrow.table({"text": texts[i::4]}), folder / "stream" / f"{i}.parquet", row_group_size=1000)


def one_cycle(folder: Path, kind: str, batch_size: int, packing: bool, workers: int) -> tuple[float, int, int]: # seconds, tokens, places
    "Every batch of a cycle, thrown away; a place is a token or padding."
    if kind == "files": source = Shuffled(LineFiles([folder / "files" / "train.txt"]), block=BLOCK)
    else: source = load_data(PretrainConfig(dataset_name=str(folder / "stream"), buffer_size=BLOCK, eval_samples=1, min_text_length=0))[0]
    collator = MaskedPermutedCollator(demo_tokenizer())
    batches = Batches(source, demo_tokenizer(), collator, batch_size, LENGTH, packing=packing, num_workers=workers)
    tokens = places = 0
    begun, running = time.perf_counter(), iter(batches)
    while batches.position["cycle"] == 0:
        now = time.perf_counter()
        for batch in next(running):
            tokens += batch["n_tokens"]
            places += batch["targets"].shape[0] * (batch["input_ids"].shape[1] - 2 * batch["pred_size"])
    running.close()
    return now - begun, tokens, places


def main():
    "Tokenizing, then every combination."
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    tokenizer, texts = demo_tokenizer(), long_documents()
    counts = {"cut at 512": sum(map(len, tokenize(tokenizer, texts, LENGTH))), "packed in rows of 512": sum(len(r) for _, r in pack_texts(tokenizer, texts, LENGTH))}
    seconds = medians({"cut at 512": lambda: tokenize(tokenizer, texts, LENGTH), "packed in rows of 512": lambda: list(pack_texts(tokenizer, texts, LENGTH))},
                      3 if SHORT else 9)
    plain = counts["cut at 512"] / seconds["cut at 512"]
    report(f"Tokenizing {len(texts)} documents of about 300 words, one core", ["", "million tokens/s", "ratio"],
           [[name, f"{counts[name] / s / 1e6:.2f}", f"{counts[name] / s / plain:.2f}x"] for name, s in seconds.items()])
    cases = [(kind, size, packing, workers) for kind in ("files", "stream") for size in (16, 128) for packing in (False, True) for workers in (0, 2)
             if not SHORT or (size == 16 and not (packing and kind == "stream"))]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        found = {case: [] for case in cases}
        for _ in range(1 if SHORT else 3):
            for case in cases: found[case].append(one_cycle(Path(folder), *case))
    speed = {case: median(tokens / s for s, tokens, _ in runs) for case, runs in found.items()}
    report(f"The loader, {DOCUMENTS:,} documents of about 300 words, at most {LENGTH} tokens",
           ["source, batch, packing", "padding", "0 workers, million tokens/s", "2 workers", "ratio", "0 workers beside tokenizing alone"],
           [[f"{kind}, {size}, {'packed' if packing else 'cut'}", f"{1 - found[case][0][1] / found[case][0][2]:.1%}", f"{speed[case] / 1e6:.2f}",
             f"{speed[kind, size, packing, 2] / 1e6:.2f}", f"{speed[kind, size, packing, 2] / speed[case]:.2f}x", f"{speed[case] / plain:.2f}x"]
            for case in cases for kind, size, packing, workers in [case] if not workers])


if __name__ == "__main__": main()
