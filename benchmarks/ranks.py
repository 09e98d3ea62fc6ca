"""What a rank's own data cost it as one of 1, 8, 64 and 512 that share an update.

    python benchmarks/ranks.py [--short]

Documents of about 300 words, at most 512 tokens, from a list, from a text file, from a stream of 4
Parquet files and from a prepared corpus; each is cut, or all are packed. An update has 4,096
samples, whatever the number of ranks. A rank's own tokens (without mask copies, without padding)
are divided by the CPU seconds that its process took for them: to find out which are its own, to
read, tokenize, sort, mask and collate them. Opening a source doesn't count; comparing the pages of
a prepared corpus, once each, does. Before that, the ranks' shares of each update are put together,
and must be what one rank alone has.
"""
import tempfile
import time
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median

from common import SHORT, long_documents, open_prepared, report, write_documents

import datasets
import numpy as np
import torch

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import Batches, Shuffled, load_data
from annotated_mpnet.documents import LineFiles
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import demo_tokenizer

GLOBAL, LENGTH = 4096, 512
DOCUMENTS = GLOBAL if SHORT else 3 * GLOBAL
RANKS = (1, 8, 64) if SHORT else (1, 8, 64, 512)
SOURCES = ("list", "file", "stream", "prepared")


def documents() -> list[str]: # each of them another one
    return [f"{i} {text}" for i, text in enumerate(islice(cycle(long_documents()), DOCUMENTS))]


def open_source(folder: Path, kind: str):
    "The documents, in one block."
    if kind == "list":
        return Shuffled(documents(), block=3 * GLOBAL)
    if kind == "file":
        return Shuffled(LineFiles([folder / "files" / "train.txt"]), block=3 * GLOBAL)
    if kind == "prepared":
        source = open_prepared(folder / "prepared" / "corpus", 3 * GLOBAL)
        source.texts[0]  # a shard is opened when it is first read
        return source
    config = PretrainConfig(dataset_name=str(folder / "stream"), buffer_size=3 * GLOBAL,
                            eval_samples=1, min_text_length=0)
    return load_data(config)[0]


def rank_of(ranks: int, rank: int, source, packing: bool, collator, samples=GLOBAL) -> Batches:
    "A rank's batches: micro-batches of 32, or smaller ones where an update has few for a rank."
    mine = samples // ranks
    size = min(32, mine)
    return Batches(source, demo_tokenizer(), collator, size, LENGTH, update_freq=mine // size,
                   packing=packing, rank=rank, world_size=ranks)


def tokens_per_second(folder: Path, kind: str, packing: bool, ranks: int) -> float: # CPU seconds
    "The own tokens of a rank in the middle, over an epoch."
    source = open_source(folder, kind)
    collator = MaskedPermutedCollator(demo_tokenizer())
    batches = rank_of(ranks, ranks // 2, source, packing, collator)
    begun = time.process_time()
    tokens = sum(batch["n_tokens"] for batch in batches.one_epoch())
    return tokens / (time.process_time() - begun)


def samples_of(micro: list) -> list[tuple]: # of batches that are still samples
    return [(s["sample_id"], *np.asarray(s["input_ids"]).tolist()) for part in micro for s in part]


def updates_of(packing: bool, ranks: int) -> dict[tuple, list]: # by place
    "The samples of each update, of all ranks together, sorted: of a part of the documents."
    found: dict[tuple, list] = {}
    for rank in range(ranks):
        source = Shuffled(documents()[:GLOBAL], block=GLOBAL)
        batches = rank_of(ranks, rank, source, packing, lambda samples: samples, GLOBAL // 4)
        for block in source.blocks(0):
            for chunk in batches.chunks(len(block.numbers)):
                for place, micro in batches.updates(0, block, chunk):
                    update = found.setdefault((block.start, chunk, place), [])
                    update += samples_of(micro)
    return {place: sorted(samples) for place, samples in found.items() if samples}


def main():
    "Equal first, then fast."
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_documents(folder, documents())
        for packing in (False, True):
            alone = updates_of(packing, 1)
            for ranks in RANKS[1:3]:
                assert updates_of(packing, ranks) == alone, (packing, ranks)
                how = "packed" if packing else "cut"
                print(f"{len(alone)} updates, {how}: {ranks} ranks have what one has")
        cases = list(product(SOURCES, (False, True)))
        found = {(*case, ranks): [] for case in cases for ranks in RANKS}
        for turn in range(1 if SHORT else 3):
            for case, speeds in found.items():
                if not turn or case[-1] > 1:  # alone it takes long enough to be sure
                    speeds.append(tokens_per_second(folder, *case))
    rows = []
    for kind, packing in cases:
        speeds = [median(found[kind, packing, ranks]) for ranks in RANKS]
        shares = [f"{speed / 1e3:,.0f} ({speed / speeds[0]:.2f})" for speed in speeds]
        rows.append([f"{kind}, {'packed' if packing else 'cut'}", *shares])
    report(f"A rank's own tokens per CPU second, in thousands (beside one rank alone); "
           f"{DOCUMENTS:,} documents of about 300 words, updates of {GLOBAL:,} samples",
           ["", *(f"1 of {ranks}" for ranks in RANKS)], rows)


if __name__ == "__main__":
    main()
