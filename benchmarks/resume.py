"""Resuming deep in a stream: from the saved position, and by replaying the stream up to there.

    python benchmarks/resume.py [--short]

Both times, in CPU seconds, begin with opening the stream in a process that has it not open yet and
end with the first batch. Replaying is taken at its kindest: no document on the way is tokenized.
"""
import json
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from common import SHORT, report

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import Batches, load_data
from annotated_mpnet.order import Block
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import demo_tokenizer, embedded_corpus

DOCUMENTS = 20_000 if SHORT else 200_000
BLOCK = DOCUMENTS // 20
PLACES = (0.01, 0.5, 0.99)
FILES = {"4 Parquet files": 4, "16 JSON Lines files": 16}


def write(folder: Path) -> None:
    "The same documents in both formats."
    texts = [f"{i} {text}" for i, text in enumerate(islice(cycle(embedded_corpus()), DOCUMENTS))]
    for name, n in FILES.items():
        (folder / name).mkdir()
        for i in range(n):
            part = texts[i * len(texts) // n:(i + 1) * len(texts) // n]
            if n == 4:
                file = folder / name / f"{i:02}.parquet"
                table = pyarrow.table({"text": part})
                pyarrow.parquet.write_table(table, file, row_group_size=1000)
            else:
                lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
                (folder / name / f"{i:02}.jsonl").write_text(lines)


def open_batches(folder: Path) -> Batches: # micro-batches of 16
    "A loader as a new process makes it; the block is that of the defaults."
    config = PretrainConfig(dataset_name=str(folder), min_text_length=0,
                            buffer_size=BLOCK, eval_samples=DOCUMENTS // 400)
    source = load_data(config, 128)[0]
    collator = MaskedPermutedCollator(demo_tokenizer())
    return Batches(source, demo_tokenizer(), collator, 16, 128, update_freq=8)


def states_at(folder: Path) -> dict[float, dict]: # share of the stream -> the loader's state there
    "A state is the beginning of a block, and how far in it the run had come: to its middle."
    batches = open_batches(folder)
    blocks = [(block.start, len(block.numbers)) for block in batches.source.blocks(0)]
    states = {}
    for place in PLACES:
        before = [block for block in blocks if block[0]["row"] <= place * DOCUMENTS]
        start, size = before[-1]
        middle = len(batches.chunks(size)) // 2
        position = {"block": start, "chunk": middle, "update": 1}
        states[place] = batches.state_dict() | position
    return states


def from_state(folder: Path, state: dict) -> float: # CPU seconds
    "Until the first batch after a resume."
    begun = time.process_time()
    batches = open_batches(folder)
    assert batches.load_state_dict(state) == []
    next(iter(batches))
    return time.process_time() - begun


def from_the_beginning(folder: Path, state: dict) -> float: # CPU seconds
    "Until the first batch after replaying all that comes before the position."
    begun = time.process_time()
    batches = open_batches(folder)
    stream, at = batches.source, state["block"]
    passed = at["row"] - stream.head["row"]
    rows = islice(stream.rows(dict(stream.head)), passed, passed + stream.block)
    texts = [text for _, text in rows]
    sizes = np.array(list(map(len, texts)))
    next(batches.updates(0, Block(at, list(range(len(texts))), sizes, texts), state["chunk"]))
    return time.process_time() - begun


WAYS = (from_state, from_the_beginning)


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
            found = {(place, way): [] for place in PLACES for way in WAYS}
            for _ in range(3 if SHORT else 5):
                for (place, way), seconds in found.items():
                    seconds.append(way(Path(folder) / name, states[place]))
            for place in PLACES:
                ours, again = (median(found[place, way]) for way in WAYS)
                ratio = f"{again / ours:.1f}x"
                rows.append([f"{name}, at {place:.0%}", f"{ours:.2f}", f"{again:.2f}", ratio])
    what = f"{DOCUMENTS:,} documents, blocks of {BLOCK:,}"
    report(f"CPU seconds to the first batch after a resume; {what}",
           ["", "from the position", "by reading again", "ratio"], rows)


if __name__ == "__main__":
    main()
