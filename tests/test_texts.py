"""The texts of a run where they are broken, change, are not read, or are cut off."""
import gzip
import json
import logging
import os
import pickle
import random
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers_runs import FIXTURES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annotated_mpnet import chunks, documents, files, packing, streams
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.broken import Limit, Unread
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.data import Batches, Shuffled, StreamLost, agree_on_texts, load_data
from annotated_mpnet.documents import LineFiles
from annotated_mpnet.files import Unreadable, find_texts, not_read, unpacked
from annotated_mpnet.packing import pack_texts
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.start import prepare
from annotated_mpnet.streams import Stream
from annotated_mpnet.tokenization import wrap_vocabulary
from annotated_mpnet.trainer import pretrain

in_a_folder = [HealthCheck.function_scoped_fixture]
some = settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=in_a_folder)
WORDS = "the task is sentence classification it returns a value of no kind".split()
BAD = {  # a line that can't be read, and what is said of it
    "cut off": (b'{"text": "cut o', "no JSON"),
    "half of a letter": (b'{"text": "an emoji: \\ud83d"}', "half of a letter"),
    "no UTF-8": (b'{"text": "caf\xe9"}', "utf-8"),
    "a number": (b'{"text": 5}', "int, not text"),
    "a list": (b'{"text": ["a"]}', "list, not text"),
    "no object": (b'"the task"', "no JSON object"),
}


@cache
def tokenizer():
    words = [*(f"doc{i}" for i in range(200)), *WORDS, "."]
    return wrap_vocabulary(["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"])


def text(i: int) -> str:
    "Document i, which begins with a token of its own."
    rng = random.Random(i)
    return f"doc{i} " + " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))


TEXTS = [text(i) for i in range(100)]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    "Chunks that end within a few updates; a cache of its own for what is unpacked."
    monkeypatch.setattr(chunks, "CHUNK", 8)
    monkeypatch.setattr(files.constants, "HF_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))


@pytest.fixture
def said():
    "What the package logs, debugging aside."
    messages, handler, level = [], logging.Handler(), streams.logger.level
    handler.emit = lambda record: messages.append((record.levelname, record.getMessage()))
    streams.logger.addHandler(handler)
    streams.logger.setLevel(logging.INFO)
    yield messages
    streams.logger.removeHandler(handler)
    streams.logger.setLevel(level)


def put_lines(path: Path, texts: list[str], bad: dict[int, bytes] | None = None) -> None:
    "JSON Lines, with some lines put in before those of the given numbers."
    lines = []
    for i, t in enumerate(texts):
        lines += [bad[i]] if bad and i in bad else []
        lines.append(json.dumps({"text": t}).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")


def opened(folder: Path, **changes) -> Stream:
    "The stream of a folder, two texts held out twice."
    usual = {"eval_samples": 2, "min_text_length": 0, "buffer_size": 12, "seed": 3}
    return load_data(PretrainConfig(dataset_name=str(folder), **usual | changes))[0]


def lines_in(folder: Path, **changes) -> Shuffled:
    "The text files of a folder."
    held = folder.parent / "held.txt"
    held.write_text("the task\n")
    usual = {"valid_file": str(held), "test_file": str(held), "buffer_size": 12, "seed": 3}
    return load_data(PretrainConfig(train_dir=str(folder), **usual, **changes))[0]


def batches_of(source, **more) -> Batches:
    "Updates of six samples."
    usual = {"batch_size": 3, "max_tokens": 16, "update_freq": 2, "seed": 3}
    return Batches(source, tokenizer(), MaskedPermutedCollator(tokenizer(), seed=3), **usual | more)


def epoch(source) -> list[str]:
    "All texts of an epoch, in order."
    found = [t for block in source.blocks(0) for t in block.texts]
    return sorted(found, key=lambda t: int(t.split()[0][3:]))


def read(block) -> tuple:
    "All that is in a block, as plain data."
    return block.start, block.numbers, block.sizes.tolist(), list(block.texts)


def plain(batch: dict) -> dict:
    "A batch as lists."
    return {name: x.tolist() if hasattr(x, "tolist") else x for name, x in batch.items()}


def run(batches: Batches, n: int) -> tuple[list, list[dict]]:
    "Updates, and the state after each."
    running = iter(batches)
    pairs = [([plain(b) for b in next(running)], batches.state_dict()) for _ in range(n)]
    return [update for update, _ in pairs], [state for _, state in pairs]


def refused(call, *parts: str, kind=UserError) -> str:
    "An error of one line that names what it should."
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    assert all(part in message for part in parts), message
    return message


# Broken records and files of a stream

@given(st.dictionaries(st.integers(0, 29), st.sampled_from(sorted(BAD)), max_size=9))
@example({4: "a list", 5: "half of a letter"})
@example({4: "a number"})
@example({0: "a list"})
@settings(some, max_examples=12)
def test_broken_lines_of_json_are_skipped_and_counted(tmp_path, bad):
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    (tmp_path / "data").mkdir()
    lines = {i: BAD[kind][0] for i, kind in bad.items()}
    put_lines(tmp_path / "data/a.jsonl", TEXTS[:30], lines)
    put_lines(tmp_path / "data/b.jsonl", TEXTS[30:40])
    stream = opened(tmp_path / "data")
    whole = list(stream.blocks(0))
    found = [t for block in whole for t in block.texts]
    # where types are mixed, `datasets` may drop the half letter itself
    repaired = found.count("an emoji: ")
    # nothing is lost, nothing comes twice
    assert sorted(found) == sorted(TEXTS[4:40] + ["an emoji: "] * repaired)
    assert (stream.unread.broken + repaired, stream.unread.broken_files) == (len(bad), 0)
    # what is skipped is a row, too
    assert stream.unread.records == 40 + len(bad)
    numbers = [n for block in whole for n in block.numbers]
    assert max(numbers) < 40 + len(bad) and len(set(numbers)) == 36 + repaired
    # any block can be read on its own, and counts alike
    for block in whole:
        again = opened(tmp_path / "data")
        first = next(again.blocks(0, json.loads(json.dumps(block.start))))
        assert read(first) == read(block)
    assert all(any(what in problem for _, what in BAD.values()) for problem in stream.unread.said)


@given(st.lists(st.sampled_from([b"fine", b"caf\xe9", b"", b"two\rlines", b"\xc3"]), max_size=12))
@some
def test_broken_lines_of_text_are_skipped_and_counted(tmp_path, middle):
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    (tmp_path / "data").mkdir()
    lines = [t.encode() for t in TEXTS[:10]] + middle + [t.encode() for t in TEXTS[10:14]]
    (tmp_path / "data/a.txt").write_bytes(b"\n".join(lines))
    stream = opened(tmp_path / "data", min_text_length=1)
    found = [t for _, t in stream.rows(dict(stream.head))]
    wanted = [line for raw in lines for line in raw.split(b"\r")]
    bad = [line for line in wanted if line in (b"caf\xe9", b"\xc3")]
    assert found == [line.decode() for line in wanted if line and line not in bad][4:]
    assert stream.unread.broken == len(bad)


@pytest.mark.parametrize("kind, workers", [("jsonl", 0), ("jsonl", 2), ("files", 0), ("files", 2)])
def test_resumed_exactly_beside_broken_records(tmp_path, kind, workers):
    folder = tmp_path / "data"
    folder.mkdir()
    if kind == "jsonl":
        put_lines(folder / "a.jsonl", TEXTS[:50], dict.fromkeys((9, 17, 33), BAD["cut off"][0]))
        put_lines(folder / "b.jsonl", TEXTS[50:])
    else:
        lines = [t.encode() + b"\ncaf\xe9" * (i % 30 == 9) for i, t in enumerate(TEXTS)]
        (folder / "a.txt").write_bytes(b"\n".join(lines))
    read = opened if kind == "jsonl" else lines_in
    made = lambda **more: batches_of(read(folder), **more)
    updates, states = run(made(), 40)
    assert states[-1]["cycle"] == 2
    if workers:
        found, after = run(made(num_workers=workers), 40)
        assert (found, after) == (updates, states)
    for stop in (1, 4, 15, 22):
        batches = made(num_workers=workers and 1)
        assert batches.load_state_dict(json.loads(json.dumps(states[stop - 1]))) == []
        found, after = run(batches, 8)
        assert found == updates[stop:stop + 8] and after == states[stop:stop + 8]
    ranks = [run(made(rank=r, world_size=2, update_freq=1), 30) for r in range(2)]
    own = {"characters": 0, "cut_off": 0}  # of each rank's documents
    assert all([b | own for b in after] == [b | own for b in states[:30]] for _, after in ranks)
    targets = lambda update: sorted(sorted({*row} - {-100}) for x in update for row in x["targets"])
    halves = [targets(a + b) for a, b in zip(*(updates for updates, _ in ranks))]
    assert halves == [targets(update) for update in updates[:30]]


def test_a_stream_that_travels_reads_and_counts_alike(tmp_path):
    put_lines(tmp_path / "a.jsonl", TEXTS, dict.fromkeys((9, 50), BAD["a number"][0]))
    stream = opened(tmp_path)
    blocks, unread = list(map(read, stream.blocks(0))), stream.unread
    again = pickle.loads(pickle.dumps(stream))
    assert list(map(read, again.blocks(0))) == blocks and again.unread == unread
    assert unread.broken == len(unread.said) == 2  # each is named once, in any epoch


def test_a_share_above_the_bound_ends_the_run_and_it_resumes_with_a_larger_one(tmp_path):
    bad = dict.fromkeys(range(50, 90, 3), BAD["a number"][0])
    put_lines(tmp_path / "a.jsonl", TEXTS, bad)
    whole, states = run(batches_of(opened(tmp_path, max_broken_share=0.5)), 20)
    wanted = r"11 of \d+ records .*more than --max-broken-share 0.01 allows.*int, not text"
    for workers in (0, 1):
        batches = batches_of(opened(tmp_path), num_workers=workers)
        found = []
        with pytest.raises(StreamLost, match=wanted) as caught:
            for update in batches:
                found.append(update)
        assert "\n" not in str(caught.value) and "raise --max-broken-share" in str(caught.value)
        assert batches.state_dict() == states[len(found) - 1] and 0 < len(found) < 16
    again = batches_of(opened(tmp_path, max_broken_share=0.5))
    assert again.load_state_dict(batches.state_dict()) == []
    assert run(again, 5)[0] == whole[len(found):len(found) + 5]
    strict = opened(tmp_path, max_broken_share=0.0)
    refused(lambda: epoch(strict), "1 of 51 records", kind=StreamLost)


@pytest.mark.parametrize("share, records, broken, allowed", [
    (0.01, 10, 10, True),
    (0.01, 1000, 11, False),
    (0.01, 1100, 11, True),
    (0.0, 10 ** 6, 1, False),
    (0.0, 10, 0, True),
    (1.0, 20, 20, True),
])
def test_how_much_may_be_broken(share, records, broken, allowed):
    unread = lambda **more: Unread(records, broken, **more)
    assert Limit(share).allows(unread()) == allowed
    assert Limit(share).allows(unread(files=7, broken_files=1)) == (allowed and share > 0.5)
    assert Limit(share, files=False).allows(unread(files=7, broken_files=7)) == allowed


def test_warnings_are_few_and_only_of_the_first_rank(tmp_path, said):
    bad = dict.fromkeys(range(10, 90, 4), BAD["cut off"][0])
    put_lines(tmp_path / "a.jsonl", TEXTS, bad)
    batches = batches_of(opened(tmp_path, max_broken_share=0.5), num_workers=1)
    # three epochs
    run(batches, 40)
    warnings = [message for level, message in said if level == "WARNING"]
    assert len(warnings) == 6 and len(set(warnings)) == 6
    *five, last = warnings
    assert all("a.jsonl, line" in line and "no JSON" in line for line in five)
    assert "train/broken" in last
    share = batches.unread.share
    assert batches.shares() == {"train/broken": share} and 0.1 < share < 0.2
    said.clear()
    run(batches_of(opened(tmp_path, max_broken_share=0.5), rank=1, world_size=2, update_freq=1), 4)
    assert not said


@pytest.mark.parametrize("suffix, damage", [
    ("jsonl.gz", lambda raw: raw[:len(raw) // 2]),
    ("jsonl.gz", lambda raw: b"garbage"),
    ("jsonl", lambda raw: b"\x00\x01garbage"),
    ("txt", lambda raw: bytes(range(128, 256))),
])
def test_a_file_that_cannot_be_read_counts_as_one(tmp_path, monkeypatch, suffix, damage):
    # no pause: a local file is no network
    monkeypatch.setattr(streams, "time", None)
    line = (lambda t: t) if suffix == "txt" else (lambda t: json.dumps({"text": t}))
    pack = gzip.compress if suffix.endswith("gz") else bytes
    for i in range(4):
        lines = "\n".join(map(line, TEXTS[25 * i:25 * i + 25]))
        (tmp_path / f"{i}.{suffix}").write_bytes(pack(lines.encode()))
    bad = tmp_path / f"2.{suffix}"
    bad.write_bytes(damage(bad.read_bytes()))
    wanted = ("1 of 4 files", f"2.{suffix}", "--max-broken-share 0.01")
    refused(lambda: epoch(opened(tmp_path)), *wanted)
    stream = opened(tmp_path, max_broken_share=0.3)
    found = epoch(stream)
    assert [t for t in found if t not in TEXTS[50:75]] == TEXTS[4:50] + TEXTS[75:]
    assert (stream.unread.broken, stream.unread.broken_files, stream.unread.files) == (0, 1, 4)
    assert epoch(opened(tmp_path, skip_broken_shards=True)) == found


def test_a_damaged_row_group_is_skipped_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "time", None)
    path = tmp_path / "a.parquet"
    how = {"row_group_size": 10, "compression": "zstd", "use_dictionary": False}
    pq.write_table(pa.table({"text": TEXTS, "n": range(100)}), path, **how)
    column = pq.read_metadata(path).row_group(6).column(0)
    raw = bytearray(path.read_bytes())
    start, size = column.data_page_offset, column.total_compressed_size
    raw[start:start + size] = bytes(size)
    path.write_bytes(raw)
    stream = opened(tmp_path, max_broken_share=0.1)
    assert epoch(stream) == TEXTS[4:60] + TEXTS[70:]
    assert (stream.unread.broken_files, stream.unread.files) == (1, 10)
    refused(lambda: epoch(opened(tmp_path)), "1 of 10 files", "a.parquet")


def test_bytes_in_a_column_of_texts_that_are_no_letters(tmp_path):
    raw = [t.encode() for t in TEXTS]
    raw[7] = raw[50] = b"doc5 caf\xe9"
    binary = pa.array(raw, pa.binary())
    column = pa.StringArray.from_buffers(len(raw), binary.buffers()[1], binary.buffers()[2])
    table = pa.table({"n": range(100), "text": column})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    stream = opened(tmp_path)
    assert epoch(stream) == [t for i, t in enumerate(TEXTS) if i not in (7, 50)][4:]
    first = stream.unread.said[0]
    assert stream.unread.broken == 2 and "a.parquet" in first and "utf-8" in first


def test_a_long_text_is_cut_or_packed_whole(tmp_path, monkeypatch):
    long = "x" * 11_000_000
    put_lines(tmp_path / "a.jsonl", [*TEXTS[:8], long, *TEXTS[8:20]])
    batches = batches_of(opened(tmp_path, seed=3))
    run(batches, 3)
    assert batches.position["characters"] > 11_000_000 and batches.shares()["train/cut"] > 0.99
    refused(lambda: epoch(opened(tmp_path, max_broken_share=0.0)), "row 8", "11,000,000 characters")
    monkeypatch.setattr(packing, "_PIECE", 50)
    endless = " ".join(WORDS * 20)
    rows = [i for _, row in pack_texts(tokenizer(), [endless], 16) for i in row[1:-1]]
    whole = tokenizer()(endless, add_special_tokens=False)["input_ids"]
    # a word may be cut where a piece ends, and nothing is lost
    assert len(rows) >= len(whole) and set(whole) <= set(rows)


# Broken lines of files

parts = [b"word", "é漢😀".encode(), b"\xe9", b"\0", b" ", b"\n", b"\n", b"\r\n", b"\xf0\x9f"]
pieces = st.lists(st.sampled_from(parts), max_size=30)


def is_text(line: bytes) -> bool:
    try:
        return b"\0" not in line and bool(line.decode() or True)
    except UnicodeDecodeError:
        return False


@given(st.lists(pieces, min_size=1, max_size=3), st.integers(4, 20))
@settings(some, max_examples=100)
def test_lines_are_those_that_a_naive_reading_can_read(tmp_path, contents, longest):
    paths, wanted, broken, broken_files = [], "", 0, 0
    for i, parts in enumerate(contents):
        paths.append(tmp_path / f"{i}.txt")
        paths[-1].write_bytes(b"".join(parts))
        lines = [line for line in b"".join(parts).split(b"\n") if line.strip()]
        good = [line.decode() for line in lines if is_text(line)]
        wanted += "".join(good)
        broken += (len(lines) - len(good)) * bool(good)
        broken_files += bool(lines) and not good
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST", longest)
        found = LineFiles(paths, Limit(1.0))
        # lines are cut between letters, and none is lost
        assert "".join("".join(found).split()) == "".join(wanted.split())
        assert all(len(line.encode()) <= longest for line in found)
    assert (found.unread.broken, found.unread.broken_files) == (broken, broken_files)


def test_files_with_broken_lines(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text("\n".join(TEXTS[30 * i:30 * i + 30]))
    lines = [b"caf\xe9", *(t.encode() for t in TEXTS[30:60]), b"a zero: \0"]
    (folder / "1.txt").write_bytes(b"\n".join(lines))
    source = lines_in(folder)
    assert epoch(source) == TEXTS[:90] and source.unread.broken == 2
    assert "1.txt, line 1 " in source.unread.said[0] and "1.txt, line 32 " in source.unread.said[1]
    refused(lambda: lines_in(folder, max_broken_share=0.0), "1.txt", "line 1", "not UTF-8")
    (folder / "2.txt").write_bytes(bytes(range(128, 256)) * 100)
    refused(lambda: lines_in(folder), "1 of 3 files", "2.txt")
    assert epoch(lines_in(folder, max_broken_share=0.4)) == TEXTS[:60]
    (folder / "1.txt").write_bytes(b"\n".join(t.encode() + b"\n\xe9" for t in TEXTS[:11]))
    refused(lambda: lines_in(folder), "11 of 52 records")


# The same texts

def put_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(3):
        (folder / f"{i}.txt").write_text("\n".join(TEXTS[30 * i:30 * i + 30]) + "\n")
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more/3.txt").write_text("\n".join(TEXTS[90:]) + "\n")


def change(path: Path, old: bytes, new: bytes) -> None:
    "As many bytes as before."
    assert len(old) == len(new) and path.read_bytes().count(old)
    path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize("kind", ["files", "stream"])
def test_other_texts_of_the_same_size_are_refused(tmp_path, kind):
    folder = tmp_path / "texts"
    put_files(folder)
    if kind == "stream":
        shutil.rmtree(folder)
        folder.mkdir()
        for i in range(2):
            put_lines(folder / f"{i}.jsonl", TEXTS[50 * i:50 * i + 50])
    made = lambda: batches_of(lines_in(folder) if kind == "files" else opened(folder))
    first, *_ = sorted(folder.iterdir())
    state = json.loads(json.dumps(run(made(), 5)[1][-1]))
    assert made().load_state_dict(state) == []
    os.utime(first, (0, 0))
    warnings = made().load_state_dict(state)
    assert len(warnings) == (kind == "stream")
    assert all("other times" in line or "modification times" in line for line in warnings)
    change(first, b"doc3 ", b"doc0 ")
    refused(lambda: made().load_state_dict(state), "another content", "restore them")
    # an older checkpoint
    del state["facts"]["files"]
    assert made().load_state_dict(state) == []
    change(first, b"doc0 ", b"doc3 ")
    state = json.loads(json.dumps(run(made(), 5)[1][-1]))
    first.rename(first.with_name("9" + first.name))
    warning, = made().load_state_dict(state)
    assert "from their beginning" in warning and "\n" not in warning


@pytest.mark.parametrize("what", ["cut short", "longer", "replaced", "gone", "touched", "restored"])
@pytest.mark.parametrize("kind", ["files", "jsonl", "parquet"])
def test_files_that_change_while_they_are_read(tmp_path, monkeypatch, kind, what):
    monkeypatch.setattr(streams, "time", None)
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(4):
        part = TEXTS[25 * i:25 * i + 25]
        if kind == "files":
            (folder / f"{i}.txt").write_text("\n".join(part))
        elif kind == "jsonl":
            put_lines(folder / f"{i}.jsonl", part)
        else:
            pq.write_table(pa.table({"text": part}), folder / f"{i}.parquet")
    source = lines_in(folder) if kind == "files" else opened(folder)
    running = source.blocks(0)
    next(running)
    path = sorted(folder.iterdir())[3]
    raw = path.read_bytes()
    if what == "cut short":
        path.write_bytes(raw[:len(raw) // 2])
    elif what == "longer":
        path.write_bytes(raw + raw)
    elif what == "replaced":
        path.write_bytes(raw[::-1])
    elif what == "gone":
        path.unlink()
    else:
        os.utime(path, (1, 1))
    if what in ("touched", "restored"):
        left = len(TEXTS) - 12 - (0 if kind == "files" else 4)
        assert sum(len(list(block.texts)) for block in running) == left
    else:
        with pytest.raises(StreamLost) as caught:
            list(map(read, running))
        message = str(caught.value)
        assert path.name in message and "\n" not in message and "to resume" in message


class Two:
    "What two ranks tell each other, when the second has other texts."
    def __init__(self, others):
        self.others, self.calls = others, 0

    def collect(self, mine):
        self.calls += 1
        names = [x.name if hasattr(x, "name") else f"{len(x):,} documents" for x in self.others]
        facts = [f._replace(time=0) for x in self.others for f in getattr(x, "facts", [])]
        return [mine, (names, files.identity(facts)) if self.calls == 1 else facts]


def test_ranks_with_other_texts(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    put_files(a)
    shutil.copytree(a, b)
    one = lines_in(a)
    held = ["the task"]
    assert agree_on_texts([one, None, held], Two([lines_in(b), held])) is None
    def disagree(mine, other, named):
        refused(lambda: agree_on_texts([mine], Two([other])), "rank 1", named)
    change(b / "2.txt", b"doc60", b"doc61")
    disagree(one, lines_in(b), "2.txt")
    (b / "more/4.txt").write_text("one more")
    disagree(one, lines_in(b), "2.txt")
    nine = Shuffled(TEXTS[:9])
    disagree(lines_in(a), nine, "0.txt")
    disagree(Shuffled(TEXTS), nine, "9 documents")


RUN = (
    "--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 --encoder-attention-heads 2"
    " --max-tokens 24 --batch-size 4 --update-freq 1 --lr 1e-2 --seed 3 --buffer-size 20"
    " --precision float32 --total-updates 12 --save-optimizer-state --checkpoint-interval 100"
    f" --logging-steps 1 --tokenizer-name {FIXTURES / 'tokenizer'}"
    " --train-dir texts --valid-file held.txt --test-file held.txt").split()


def test_a_file_that_is_cut_short_ends_a_run_with_its_state_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put_files(tmp_path / "texts")
    Path("held.txt").write_text("\n".join(TEXTS[:8]))
    whole = pretrain(parse_args([*RUN, "--checkpoint-dir", "whole"]))
    size = sum(path.stat().st_size for path in Path("texts").rglob("*.txt"))
    read = f"training on 100 lines of {size:,} bytes in 0.txt, 1.txt, 2.txt and 1 more"
    assert capsys.readouterr().out.splitlines()[1] == read
    path, kept = Path("texts/0.txt"), Path("texts/0.txt").read_bytes()
    def cut(update, metrics):
        if update == 2:
            path.write_bytes(kept[:100])
    argv = [*RUN, "--checkpoint-dir", "run"]
    wanted = ("0.txt has changed", "holds the run's whole state")
    message = refused(lambda: pretrain(parse_args(argv), callback=cut), *wanted)
    assert "checkpoint" in message and list(Path("run").glob("checkpoint*.pt"))
    path.write_bytes(kept)
    again = pretrain(parse_args([*argv, "--resume"]))
    keep = lambda result: {n: x for n, x in result.items() if n.startswith(("valid", "test"))}
    assert keep(again) == keep(whole) and len(keep(whole)) == 6


# What is read

def test_what_a_folder_holds(tmp_path):
    folder = tmp_path / "texts"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "run").mkdir()
    good = ["b.txt", "d.Txt.ZST", "deep/A.TXT", "deep/er/c.txt.gz"]
    unwanted = [".git/no.txt", "run/no.txt", "held.txt", "readme.md", "txt", "e.txt.xz"]
    for name in good + unwanted:
        (folder / name).write_bytes(b"")
    (folder / "deep/er/up").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "dangling.txt").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.txt")
    held = [folder / "held.txt", folder / "run", folder, tmp_path / "missing"]
    texts, others = find_texts(folder, held)
    inside = lambda path: str(path.relative_to(folder))
    assert [inside(path) for path in texts] == good
    assert {inside(path): reason for path, reason in others.items()} == {
        ".git": "hidden folder",
        "run": "held out, or of the run",
        "held.txt": "held out, or of the run",
        "readme.md": "not .txt",
        "txt": "not .txt",
        "e.txt.xz": "not .txt",
        "deep/er/up": "folder read before",
        "itself": "dangling link",
        "dangling.txt": "dangling link",
        "pipe.txt": "no regular file",
    }
    line = not_read(others)
    assert "\n" not in line and "not .txt: e.txt.xz, readme.md, txt" in line
    many = dict.fromkeys([Path(f"{i}.md") for i in range(5)], "not .txt")
    assert not_read(many) == "not .txt: 0.md, 1.md, 2.md and 2 more"


def compressed(path: Path, content: bytes) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(content)


def test_compressed_files_and_folders_are_read_like_plain_ones(tmp_path):
    put_files(tmp_path / "plain")
    put_files(tmp_path / "packed")
    for name, ending in (("0.txt", ".gz"), ("1.txt", ".zst"), ("more/3.txt", ".gz")):
        path = tmp_path / "packed" / name
        compressed(path.with_name(path.name + ending), path.read_bytes())
        path.unlink()
    plain, packed = lines_in(tmp_path / "plain"), lines_in(tmp_path / "packed")
    assert list(plain.texts) == list(packed.texts) == TEXTS
    assert run(batches_of(plain), 8)[0] == run(batches_of(packed), 8)[0]
    cache = Path(files.constants.HF_HOME, "annotated-mpnet")
    times = lambda: {path: path.stat().st_mtime_ns for path in cache.glob("*.txt")}
    made = times()
    names = [path.name for path in made]
    assert len(made) == 3
    assert sorted(path.name for path in cache.iterdir()) == sorted(["lock", *names])
    lines_in(tmp_path / "packed")
    # unpacked once
    assert times() == made
    compressed(tmp_path / "packed/0.txt.gz", b"another text\n")
    assert "another text" in list(lines_in(tmp_path / "packed").texts)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_that_cannot_be_unpacked(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(files, "FLOOR", 1000)
    put_files(tmp_path / "texts")
    path = tmp_path / f"texts/4.txt{suffix}"
    compressed(path, bytes(1_000_000))
    with pytest.raises(Unreadable, match="more than 100 times its size"):
        unpacked(path)
    refused(lambda: lines_in(tmp_path / "texts"), "1 of 5 files", path.name, "100 times")
    assert list(lines_in(tmp_path / "texts", max_broken_share=0.2).texts) == TEXTS
    for damaged in (b"garbage", path.read_bytes()[:-9]):
        path.write_bytes(damaged)
        refused(lambda: lines_in(tmp_path / "texts"), path.name)
    # nothing is left lying
    cache = Path(files.constants.HF_HOME, "annotated-mpnet")
    assert [p.name for p in cache.iterdir()] == ["lock"]
    monkeypatch.setattr(files.constants, "HF_HOME", str(tmp_path / "texts/0.txt"))
    refused(lambda: lines_in(tmp_path / "texts"), path.name, "HF_HOME")


def test_a_run_says_what_it_does_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_files(tmp_path / "texts")
    Path("texts/notes.md").write_text("About these texts")
    Path("texts/held.txt").write_text("\n".join(TEXTS[:8]))
    argv = [word if word != "held.txt" else "texts/held.txt" for word in RUN]
    remarks = {line: level for level, line in prepare(parse_args(argv)).remarks}
    reasons = "held out, or of the run: held.txt; not .txt: notes.md"
    assert remarks[f"texts also holds what is not read: {reasons}"] == logging.INFO


# What is cut off

@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(3, 24), st.booleans())
@some
def test_the_share_that_is_cut_off(lengths, max_tokens, packed):
    words = lambda i, n: " ".join(random.Random(i).choices(WORDS, k=n))
    texts = [words(i, n) + " " * (i % 3) for i, n in enumerate(lengths)]
    there = off = 0
    # a word is a token here
    for t in texts:
        split, there = t.split(), there + len(t)
        kept = " ".join(split[:max_tokens - 2])
        off += len(t) - len(kept) if len(split) > max_tokens - 2 else 0
    sizes = {"batch_size": 4, "max_tokens": max_tokens}
    plan = chunks.Updates(tokenizer(), lambda examples: examples, packing=packed, **sizes)
    block, found = next(Shuffled(texts).blocks(0)), np.zeros(2, dtype=int)
    for chunk in plan.chunks(len(texts)):
        list(plan.updates(0, block, chunk))
        found += plan.cut
    assert tuple(found) == ((0, 0) if packed else (there, off))


def test_the_share_is_logged_hinted_at_once_and_resumed(said):
    texts = [" ".join([f"doc{i}", *WORDS * (i % 4)]) for i in range(60)]
    made = lambda **more: batches_of(Shuffled(texts, seed=3, block=20), **more)
    batches = made()
    _, states = run(batches, 25)
    hints = [message for level, message in said if level == "INFO"]
    hint = hints[0]
    assert len(hints) == 1 and "--packing" in hint and "--max-tokens 16" in hint and "%" in hint
    assert states[-1]["cycle"] == 2 and 0.4 < batches.shares()["train/cut"] < 0.7
    total = sum(map(len, texts))
    assert [s["characters"] for s in states if s["cycle"] == 1][-1] == 2 * total
    assert run(made(num_workers=2), 25)[1] == states
    for stop in (2, 11, 12, 17):
        again = made()
        again.load_state_dict(states[stop - 1])
        said.clear()
        assert run(again, 6)[1] == states[stop:stop + 6] and not said
    old = {name: x for name, x in states[10].items() if name not in ("characters", "cut_off")}
    again = made()
    assert again.load_state_dict(old) == [] and again.position["characters"] == 0
    short = batches_of(Shuffled(["the task is a value"] * 20, block=20))
    run(short, 3)
    assert short.shares() == {} and made(packing=True).shares() == {}


# A path is a path

@pytest.mark.parametrize("name", ["csv", "json", "text", "parquet", "arrow", "pandas"])
def test_a_folder_with_the_name_of_a_reader_is_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in ("other.jsonl", "other.csv", "other.txt"):
        (tmp_path / other).write_text('{"text": "not this"}\n')
    refused(lambda: opened(Path(name)), name, "reader")
    (tmp_path / name).mkdir()
    put_lines(tmp_path / name / "a.jsonl", TEXTS[:20])
    stream = opened(Path(name))
    assert epoch(stream) == TEXTS[4:20]
    wanted = "column text, from 0 characters on, 1 files, 2 held out twice"
    assert stream.name == f"{name}, {wanted}"


def test_a_file_is_a_dataset_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_lines(tmp_path / "a.jsonl", TEXTS[:20])
    put_lines(tmp_path / "b.jsonl", TEXTS[20:40])
    assert epoch(opened(Path("a.jsonl"))) == TEXTS[4:20]
    (tmp_path / "c.md").write_text("# Notes")
    (tmp_path / "d.csv").write_text("text")
    assert opened(tmp_path).others == "c.md, d.csv"
