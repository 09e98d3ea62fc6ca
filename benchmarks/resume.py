"""Taking up a place deep in a stream: from the saved position, and by reading the stream again from its beginning.

    python benchmarks/resume.py [--short]

Both times begin with opening the stream in a process that has it not open yet and end with the first batch. Reading again is
taken at its kindest: no document on the way is tokenized.
"""
import json
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from common import SHORT, report

import datasets
import pyarrow
import pyarrow.parquet
import torch

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import Batches, load_data
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import demo_tokenizer, embedded_corpus

DOCUMENTS = 20_000 if SHORT else 200_000
PLACES = (0.01, 0.5, 0.99)
FILES = {"4 Parquet files": 4, "16 JSON Lines files": 16}


def write(folder: Path) -> None:
    "The same documents in both formats."
    texts = [f"{i} {text}" for i, text in enumerate(islice(cycle(embedded_corpus()), DOCUMENTS))]
    for name, n in FILES.items():
        (folder / name).mkdir()
        for i in range(n):
            part = texts[i * len(texts) // n:(i + 1) * len(texts) // n]
            if n == 4: pyarrow.parquet.write_table(pyarrow.table({"text": part}), folder / name / f"{i:02}.parquet", row_group_size=1000)
            else: (folder / name / f"{i:02}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))


def open_batches(folder: Path) -> Batches: # micro-batches of 16
    "A loader as a new process makes it; the block is that of the defaults."
    config = PretrainConfig(dataset_name=str(folder), min_text_length=0, buffer_size=DOCUMENTS // 20, eval_samples=DOCUMENTS // 400)
    return Batches(load_data(config, 128)[0], demo_tokenizer(), MaskedPermutedCollator(demo_tokenizer()), 16, 128, update_freq=8)


def states_at(folder: Path) -> dict[float, dict]: # share of the stream -> the loader's state there
    "A state is the beginning of a block, and how far in the block the run had come: here in its middle."
    batches = open_batches(folder)
    blocks = [(start, len(numbers)) for start, numbers, _ in batches.source.blocks(0)]
    states = {}
    for place in PLACES:
        start, size = next((start, size) for start, size in reversed(blocks) if start["row"] <= place * DOCUMENTS)
        states[place] = batches.state_dict() | {"block": start, "chunk": len(list(batches.chunks(size))) // 2, "update": 1}
    return states


def from_state(folder: Path, state: dict) -> float: # seconds
    "Until the first batch after taking up a position."
    begun = time.perf_counter()
    batches = open_batches(folder)
    assert batches.load_state_dict(state) == []
    next(iter(batches))
    return time.perf_counter() - begun


def from_the_beginning(folder: Path, state: dict) -> float: # seconds
    "Until the first batch after reading all that comes before the position once more."
    begun = time.perf_counter()
    batches = open_batches(folder)
    stream, at = batches.source, state["block"]
    passed = at["row"] - stream.head["row"]
    texts = [text for _, text in islice(stream.rows(dict(stream.head)), passed, passed + stream.block)]
    part = list(batches.chunks(len(texts)))[state["chunk"]]
    next(batches.updates(0, at, state["chunk"], list(range(len(texts)))[part], texts[part]))
    return time.perf_counter() - begun


def main():
    "Both ways, at three places, for both formats."
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    demo_tokenizer()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for name in FILES:
            states = states_at(Path(folder) / name)
            found = {(place, way): [] for place in PLACES for way in (from_state, from_the_beginning)}
            for _ in range(3 if SHORT else 5):
                for place, way in found: found[place, way].append(way(Path(folder) / name, states[place]))
            for place in PLACES:
                ours, again = (median(found[place, way]) for way in (from_state, from_the_beginning))
                rows.append([f"{name}, at {place:.0%}", f"{ours:.2f}", f"{again:.2f}", f"{again / ours:.1f}x"])
    report(f"Seconds to the first batch after a resume; {DOCUMENTS:,} documents, blocks of {DOCUMENTS // 20:,}",
           ["", "from the position", "by reading again", "ratio"], rows)


if __name__ == "__main__": main()
