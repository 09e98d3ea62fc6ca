"""Prepared corpora: Arrow beside a plain array file, the loader beside raw text, memory.

    python benchmarks/prepared.py [--short]

Documents of about 300 words. CPU seconds of this process alone, each way in turns. A token counts
once, without mask copies and padding.
"""
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import SHORT, long_documents, medians, open_prepared, prepare, report

import numpy as np
import torch

from annotated_mpnet.data import Batches, Shuffled
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.prepared import open_corpus
from annotated_mpnet.tokenization import demo_tokenizer

DOCUMENTS, LENGTH, BATCH, REPEATS = (2048, 512, 64, 3) if SHORT else (20_000, 512, 64, 5)


def cpu(calls: dict[str, Callable[[], object]]) -> dict[str, float]: # median CPU seconds
    return medians(calls, REPEATS, warm_up=False, clock=time.process_time)


def texts(n: int): # made of the same documents, each with a number
    documents = long_documents()
    return (f"{i} {documents[i % len(documents)]}" for i in range(n))


def access(folder: Path) -> None:
    "One document after the other, in random order, from Arrow and from a plain array file."
    corpus = open_corpus(folder).train
    offsets = np.cumsum([0, *(len(ids) for ids in corpus)])
    np.concatenate(list(corpus)).tofile(folder / "plain.bin")
    plain = np.memmap(folder / "plain.bin", dtype=np.uint16, mode="r")
    numbers = np.random.default_rng(0).integers(len(corpus), size=20_000).tolist()
    first = open_corpus(folder).train
    calls = {
        "Arrow, its pages compared before": lambda: [int(corpus[i][-1]) for i in numbers],
        "a plain array file": lambda: [int(plain[offsets[i]:offsets[i + 1]][-1]) for i in numbers],
        "Arrow, the sizes of 20,000 at once": lambda: corpus.sizes[numbers]}
    begun = time.process_time()
    [first[i] for i in numbers]
    once = time.process_time() - begun
    seconds = cpu(calls)
    seconds["Arrow, opened and each page compared first"] = once
    base = seconds["a plain array file"]
    report(f"A document of {len(corpus):,} ({corpus.tokens / 1e6:.1f} million tokens)",
           ["", "microseconds", "ratio"],
           [[name, f"{1e6 * s / len(numbers):.2f}", f"{s / base:.2f}x"]
            for name, s in seconds.items()])


def loader(folder: Path) -> None:
    "Batches of an epoch, from text and from ids, and the collator alone."
    tokenizer = demo_tokenizer()
    collator = MaskedPermutedCollator(tokenizer)
    numbered = open_prepared(folder, 10_240)
    corpus, n = numbered.texts, min(len(numbered.texts), 4096)
    raw = Shuffled(list(texts(n)), block=10_240)
    tokens: dict[str, int] = {}

    def run(name: str, source, packing: bool):
        batches = Batches(source, tokenizer, collator, BATCH, LENGTH, packing=packing)
        tokens[name] = sum(batch["n_tokens"] for batch in batches.one_epoch() if batch)

    def rows_alone(name: str, packing: bool):
        rows = [row for _, row in zip(range(2048), packed if packing else cut)]
        parts = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
        tokens[name] = sum(collator(part)["n_tokens"] for part in parts)

    numbers = list(range(n))
    ids, _ = numbered.encoding.cut(sorted(numbers, key=lambda i: len(corpus[i])), LENGTH)
    cut = [{"input_ids": x, "sample_id": i, "cycle": 0} for i, x in enumerate(ids)]
    packed = [{"input_ids": x, "sample_id": i, "cycle": 0}
              for i, (_, x) in enumerate(numbered.encoding.packed(numbers, LENGTH))]
    calls = {}
    for packing, how in ((False, "cut"), (True, "packed")):
        for kind, source in (("text", raw), ("ids", numbered)):
            name = f"{how}, from {kind}"
            calls[name] = lambda name=name, source=source, packing=packing: run(
                name, source, packing)
        name = f"{how}, the collator alone"
        calls[name] = lambda name=name, packing=packing: rows_alone(name, packing)
    seconds = cpu(calls)
    speed = {name: tokens[name] / s for name, s in seconds.items()}
    report(f"Batches of {BATCH} rows of up to {LENGTH} tokens, collated, one core",
           ["", "million tokens/s", "of text", "cores for a million tokens/s"],
           [[name, f"{s / 1e6:.2f}", f"{s / speed[name.split(',')[0] + ', from text']:.1f}x",
             f"{1e6 / s:.2f}"] for name, s in speed.items()])


def child(folder: str, n: int) -> None:
    "Prepare n documents; print the peak of what it took."
    prepare(Path(folder), texts(n))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def reading(folder: str) -> None:
    "Read all of a corpus in random order; print its tokens, and the memory of this process."
    corpus = open_corpus(Path(folder, "corpus")).train
    for i in np.random.default_rng(0).permutation(len(corpus)).tolist():
        corpus[i]
    status = Path("/proc/self/status").read_text().split("\n")
    own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    print(corpus.tokens, own / 1024)


def memory() -> None:
    "The peak of a preparation, and the memory of a process that has read all of a corpus."
    def run(call: str) -> list[float]: # what it printed
        done = subprocess.run([sys.executable, "-c", f"import prepared; prepared.{call}"],
                              text=True, capture_output=True, check=True,
                              cwd=Path(__file__).parent)
        return [float(word) for word in done.stdout.split()]

    rows = []
    for n in (1000, 10_000) if SHORT else (50_000, 150_000):
        with tempfile.TemporaryDirectory() as folder:
            peak, = run(f"child({folder!r}, {n})")
            tokens, own = run(f"reading({folder!r})")
        rows.append([f"{tokens / 1e6:.1f} million tokens", f"{peak:.0f}", f"{own:.0f}"])
    report("Memory of a preparation without workers, and of a process that has read all of it",
           ["", "peak, MB", "own memory of the reader, MB"], rows)


def main():
    "All of it."
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = prepare(Path(place), texts(DOCUMENTS))
        access(folder)
        loader(folder)
    memory()


if __name__ == "__main__":
    main()
