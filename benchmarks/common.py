"""What the benchmarks share: machine, medians over alternating repeats, texts, tables."""
import contextlib
import io
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1") # nothing is fetched
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")       # one core, one number
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHORT = "--short" in sys.argv[1:]
if unknown := [word for word in sys.argv[1:] if word != "--short"]:
    sys.exit(f"unknown argument {unknown[0]}; there is only --short")


def machine() -> str: # one line
    "Processor, cores and versions."
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    names = ("torch", "numpy", "tokenizers", "datasets")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}"


def medians(calls: dict[str, Callable[[], object]], # what to time, by name
            repeats: int,                           # how often each
            warm_up: bool = True,                   # call each once before
            clock: Callable[[], float] = time.perf_counter, # seconds
           ) -> dict[str, float]:                   # seconds
    "The median time of each call; they take turns, so that a busy moment hits all alike."
    if warm_up:
        for call in calls.values():
            call()
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = clock()
            call()
            seconds[name].append(clock() - begun)
    return {name: median(values) for name, values in seconds.items()}


def table(head: list[str], rows: list[list]) -> str: # Markdown
    "A table; numbers stand on the right."
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    first, *widths = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row: list[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths)]
        return f"| {' | '.join([row[0].ljust(first), *numbers])} |"

    rule = ["-" * first, *("-" * (width - 1) + ":" for width in widths)]
    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))


def report(what: str, head: list[str], rows: list[list], below: str = "") -> None:
    "Print a measurement: what it is, where it was taken, and the table."
    where = f"{machine()}; short" if SHORT else machine()
    parts = [f"\n{what}", where, table(head, rows)]
    if below:
        parts.append(below)
    print("\n\n".join(parts), flush=True)


@cache
def long_documents() -> list[str]: # 100 to 500 words each, about 300 on average
    "Passages of the embedded corpus, joined into documents of the length of a web page."
    from annotated_mpnet.tokenization import embedded_corpus
    rng, documents, passages = random.Random(0), [], []
    wanted = rng.randint(100, 480)
    for passage in embedded_corpus():
        passages.append(passage)
        if sum(len(p.split()) for p in passages) >= wanted:
            documents.append(" ".join(passages))
            passages, wanted = [], rng.randint(100, 480)
    return documents


def prepare(folder: Path,         # empty; gets texts and corpus
            texts: Iterable[str], # one line each
           ) -> Path: # of the corpus
    "Texts, prepared by the command."
    from annotated_mpnet.prepare_corpus import main
    from annotated_mpnet.tokenization import demo_tokenizer
    (folder / "files").mkdir(parents=True)
    with (folder / "files" / "train.txt").open("w") as file:
        file.writelines(text + "\n" for text in texts)
    (folder / "held.txt").write_text("\n".join(long_documents()[:2]))
    demo_tokenizer().save_pretrained(folder / "tokenizer")
    words = {"--train-dir": "files", "--valid-file": "held.txt", "--test-file": "held.txt",
             "--tokenizer-name": "tokenizer", "--output": "corpus"}
    argv = [word for name, at in words.items() for word in (name, str(folder / at))]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(argv) == 0
    return folder / "corpus"


def write_documents(folder: Path,     # empty
                    texts: list[str], # one line each
                   ) -> None:
    "The same documents as a text file, as four Parquet files, and prepared."
    import pyarrow
    import pyarrow.parquet
    for name in ("files", "stream"):
        (folder / name).mkdir()
    (folder / "files" / "train.txt").write_text("\n".join(texts))
    for i in range(4):
        part, file = pyarrow.table({"text": texts[i::4]}), folder / "stream" / f"{i}.parquet"
        pyarrow.parquet.write_table(part, file, row_group_size=1000)
    prepare(folder / "prepared", texts)


def open_prepared(folder: Path, # of `prepare`
                  block: int,   # documents in a block
                 ): # as the trainer reads it
    "The training documents of a corpus."
    from annotated_mpnet.data import FromIds, Numbered
    from annotated_mpnet.prepared import open_corpus
    from annotated_mpnet.tokenization import demo_tokenizer
    corpus = open_corpus(folder).train
    source = Numbered(corpus, block=block)
    source.encoding = FromIds(corpus, demo_tokenizer())
    return source
