"""Lesson 07 beyond its notebook: stopped anywhere and resumed exactly, faults, and bad input."""
import gzip
import io
import itertools
import json
import logging
import multiprocessing
import operator
import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers_runs import HANGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotated_mpnet import chunks, streams
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.rules import check
from annotated_mpnet.data import Batches, Shuffled, StreamLost, load_data
from annotated_mpnet.documents import LineFiles, line_begins
from annotated_mpnet.order import permutation_of, places_of, shuffled
from annotated_mpnet.packing import pack, pack_texts
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.streams import Stream
from annotated_mpnet.tokenization import wrap_vocabulary

N, HELD, BLOCK = 100, 7, 24      # documents, of which 7 and 7 are held out
UPDATES = 40                     # 86 to train on: 15 updates of 6 a cycle
FIRST = 2 * HELD                 # the first document to train on
WORDS = "the task is sentence classification it returns a value of no kind and all that".split()
some = settings(deadline=None, derandomize=True, max_examples=100,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
DOCUMENTS = [f"doc{i}" for i in range(200)]
MARKERS = range(4, 204)          # ids of doc0, doc1, ...


@cache
def tokenizer():
    "Each document has a token of its own, at its beginning: one can see which are in a batch."
    return wrap_vocabulary([*SPECIAL, *DOCUMENTS, *WORDS, ".", "!", "<mask>"])


def text(i):
    "Document i: one to five sentences."
    rng = random.Random(i)
    sentences = [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) + rng.choice(".!")
                 for _ in range(rng.randint(1, 5))]
    return f"doc{i} " + " ".join(sentences)


TEXTS = [text(i) for i in range(N)]


def put_parquet(path, texts, group=10):
    "A shard with a few row groups."
    table = pa.table({"text": texts, "length": [len(t) for t in texts]})
    pq.write_table(table, path, row_group_size=group)


def put_jsonl(path, texts, open=gzip.open):
    "Lines of JSON, compressed or not."
    with open(path, "wt") as file:
        file.writelines(json.dumps({"text": t}) + "\n" for t in texts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "The same documents as text files and as streams of each kind."
    root = tmp_path_factory.mktemp("data")
    for name in ("files", "parquet", "jsonl", "text", "one", "held"):
        (root / name).mkdir()
    # A shard is larger than a block, another one smaller.
    parts = [TEXTS[:31], TEXTS[31:35], TEXTS[35:70], TEXTS[70:]]
    for i, part in enumerate(parts):
        put_parquet(root / "parquet" / f"part{i}.parquet", part)
        put_jsonl(root / "jsonl" / f"part{i}.jsonl.gz", part)
        (root / "text" / f"part{i}.txt").write_text("\n".join(part) + "\n")
    put_parquet(root / "one" / "only.parquet", TEXTS, group=1000)
    for i in range(3):
        lines = "\n\n".join(TEXTS[FIRST + i:][::3])
        (root / "files" / f"{i}.txt").write_text(lines + "\n" * i)
    (root / "held" / "valid.txt").write_text("\n".join(TEXTS[:HELD]))
    (root / "held" / "test.txt").write_text("\n".join(TEXTS[HELD:FIRST]))
    return root


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    "So that chunks, blocks and cycles all end within a few updates; forked workers inherit it."
    monkeypatch.setattr(chunks, "CHUNK", 8)
    monkeypatch.setattr(chunks, "EACH", 1)  # so that there are as many lanes as samples
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)


@pytest.fixture
def said():
    "The warnings of the package."
    messages, level = [], streams.logger.level
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    streams.logger.addHandler(handler)
    streams.logger.setLevel(logging.WARNING)
    yield messages
    streams.logger.removeHandler(handler)
    streams.logger.setLevel(level)


def load(folders, kind, global_batch=6, **changes): # as `load_data`
    "Documents to train on, to validate on and to test on."
    if kind == "files":
        held = folders / "held"
        where = {"train_dir": str(folders / "files"), "valid_file": str(held / "valid.txt"),
                 "test_file": str(held / "test.txt")}
    else:
        where = {"dataset_name": str(folders / kind), "eval_samples": HELD, "min_text_length": 0}
    config = PretrainConfig(**where | {"buffer_size": BLOCK, "seed": 3} | changes)
    return load_data(config, global_batch)


def load_stream(folder, buffer_size=10, **changes): # as `load_data`
    "A stream of which 2 and 2 texts are held out."
    small = {"eval_samples": 2, "min_text_length": 0, "buffer_size": buffer_size}
    return load_data(PretrainConfig(dataset_name=str(folder), **small | changes))


def batches_of(source, batch_size=3, update_freq=2, **more): # Batches
    "Updates of six samples."
    given = {"collator": MaskedPermutedCollator(tokenizer(), seed=3), "max_tokens": 24, "seed": 3}
    return Batches(source, tokenizer(), batch_size=batch_size, update_freq=update_freq,
                   **given | more)


def make(folders, kind, **more):
    "Batches from new objects, as a new process would make them."
    return batches_of(load(folders, kind)[0], **more)


def documents(updates): # sorted numbers of the documents, as often as they occur
    "Found in the tensors themselves: a document's own token stands in its first row."
    found = []
    for update in updates:
        for batch in update:
            n_tokens = batch["input_ids"].shape[1] - 2 * batch["pred_size"]
            ids = batch["input_ids"][:, :n_tokens].flatten().tolist()
            found += [i - MARKERS[0] for i in ids if i in MARKERS]
    return sorted(found)


def content(texts): # Counter of token ids, special tokens left out
    "All tokens of some texts."
    return Counter(i for t in texts for i in tokenizer()(t, add_special_tokens=False)["input_ids"])


def assert_same(found, wanted):
    "Updates, tensor by tensor."
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert x.keys() == y.keys()
            for name in x:
                same = torch.equal if torch.is_tensor(x[name]) else operator.eq
                assert same(x[name], y[name]), name


def stored(state): # the state, twice read back
    "Through JSON, and through the file format of checkpoints."
    buffer = io.BytesIO()
    torch.save(json.loads(json.dumps(state)), buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=True)
    assert again == state
    return again


def run(batches, n): # n updates, the state after each
    "Go on from where `batches` stands."
    running = iter(batches)
    pairs = [(next(running), batches.state_dict()) for _ in range(n)]
    return [update for update, _ in pairs], [state for _, state in pairs]


REFERENCE = {}


def reference(folders, kind, packing): # updates, states
    "The uninterrupted run, over more than two cycles."
    key = folders, kind, packing
    if key not in REFERENCE:
        REFERENCE[key] = run(make(folders, kind, packing=packing), UPDATES)
    return REFERENCE[key]


# Stopped and gone on

KINDS = ["files", "parquet", "jsonl", "text"]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_twice_anywhere_it_goes_on_exactly(folders, kind, packing):
    "Six pairs of stopping points."
    updates, states = reference(folders, kind, packing)
    cycles = [state["cycle"] for state in states]
    assert cycles[-1] >= (1 if packing else 2)
    pieces = {(state["cycle"], json.dumps(state["block"]), state["chunk"]) for state in states}
    assert len(pieces) > (6 if packing else 10)
    last = cycles.index(1) - 1                      # the last update of the first cycle
    rng = random.Random(f"{kind} {packing}")
    stops = [rng.sample(range(1, UPDATES - 6), 2) for _ in range(3)]
    stops += [(last, last + 2), (last + 1, last + 3), (1, last + 1)]
    for first, second in map(sorted, stops):
        batches = make(folders, kind, packing=packing)
        assert batches.load_state_dict(stored(states[first - 1])) == []
        assert batches.state_dict() == states[first - 1]
        found, after = run(batches, second - first)
        assert_same(found, updates[first:second])
        assert after[-1] == states[second - 1]
        again = make(folders, kind, packing=packing)
        again.load_state_dict(stored(after[-1]))
        n = UPDATES - second if second == first + 2 else 5
        assert_same(run(again, n)[0], updates[second:second + n])


@pytest.mark.parametrize("kind, packing, workers", [
    ("files", False, 1), ("files", True, 3), ("parquet", False, 3), ("parquet", True, 1),
    ("jsonl", False, 3), ("text", False, 1)])
def test_workers_change_nothing(folders, kind, packing, workers):
    updates, states = reference(folders, kind, packing)
    found, after = run(make(folders, kind, packing=packing, num_workers=workers), UPDATES)
    assert_same(found, updates)
    assert after == states
    for stop in random.Random(f"{kind} {workers}").sample(range(1, UPDATES - 8), 2):
        batches = make(folders, kind, packing=packing, num_workers=workers)
        assert batches.load_state_dict(stored(states[stop - 1])) == []
        found, after = run(batches, 8)
        assert_same(found, updates[stop:stop + 8])
        assert after == states[stop:stop + 8]
    other = make(folders, kind, packing=packing)    # what workers left is taken up without them
    assert other.load_state_dict(stored(after[-1])) == []
    assert_same([next(iter(other))], updates[stop + 8:stop + 9])


@pytest.mark.parametrize("kind", ["files", "jsonl"])
def test_workers_that_inherit_nothing(folders, kind, monkeypatch):
    "As macOS and Python 3.14 start processes: all that a worker needs is sent to it."
    monkeypatch.undo()  # nothing is patched there
    wanted, states = run(make(folders, kind), 3)
    multiprocessing.set_start_method("forkserver", force=True)
    found, after = run(make(folders, kind, num_workers=1), 3)
    assert_same(found, wanted)
    assert after == states


def test_a_batch_does_not_depend_on_its_neighbours(folders):
    updates, states = reference(folders, "files", False)
    contents = {json.dumps([b["input_ids"].tolist() for b in update]) for update in updates}
    assert len(contents) == UPDATES
    other = batches_of(Shuffled(load(folders, "files")[0].texts, seed=4, block=BLOCK))
    assert documents(run(other, 15)[0]) == documents(updates[:15]) == list(range(FIRST, N))
    assert documents(run(other, 1)[0]) != documents(updates[:1])


def test_the_state_is_small(folders):
    for kind in KINDS:
        _, states = reference(folders, kind, False)
        assert all(len(json.dumps(state)) < 900 for state in states)


# Each sample once

@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_cycle_has_each_training_document_once(folders, kind, packing):
    updates, states = reference(folders, kind, packing)
    for cycle in range(states[-1]["cycle"]):        # those that were gone through to their end
        part = [update for update, state in zip(updates, states) if state["cycle"] == cycle]
        assert documents(part) == list(range(FIRST, N)) # none of the first 14, which are held out
        if packing: continue
        sizes = [sum(len(batch["targets"]) for batch in update) for update in part]
        assert sorted(sizes) == [2] + 14 * [6]


def test_each_block_chunk_and_cycle_has_an_order_of_its_own(folders, monkeypatch):
    asked = []

    def noted(original, n, *given, **named):
        asked.append((given, *named.items()))
        return original(n, *given, **named)

    monkeypatch.setattr(chunks, "places_of", partial(noted, places_of))
    monkeypatch.setattr(streams, "permutation_of", partial(noted, permutation_of))
    updates, states = run(make(folders, "parquet"), 31)
    assert states[-1]["cycle"] == 2
    assert len(asked) == len(set(asked)) > 2 * (4 + 7)   # 4 blocks, 7 chunks in each cycle
    monkeypatch.undo()
    for kind in ("files", "parquet"):
        source = load(folders, kind)[0]
        blocks = [block.numbers for cycle in (0, 1) for block in source.blocks(cycle)]
        orders = {tuple(np.argsort(numbers)) for numbers in blocks if len(numbers) == BLOCK}
        assert len(orders) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_texts_are_never_trained_on(folders, kind):
    source, valid, test = load(folders, kind)
    assert list(valid) == TEXTS[:HELD] and list(test) == TEXTS[HELD:FIRST]
    for cycle in (0, 1, 5):
        blocks = list(source.blocks(cycle))
        assert sorted(t for block in blocks for t in block.texts) == sorted(TEXTS[FIRST:])
        numbers = sorted(i for block in blocks for i in block.numbers)
        assert numbers == (list(range(N - FIRST)) if kind == "files" else list(range(FIRST, N)))
        assert [len(block.numbers) for block in blocks] == [24, 24, 24, 14]


@pytest.mark.parametrize("kind", ["files", "parquet"])
def test_packing_loses_no_token_and_no_row_crosses_a_block(folders, kind):
    source = load(folders, kind)[0]
    batches = batches_of(source, packing=True, max_tokens=13, collator=lambda examples: examples)
    ids = []
    for block in source.blocks(0):
        updates = batches.updates(0, block, 0)
        rows = [row for _, update in updates for batch in update for row in batch]
        assert Counter(i for row in rows for i in row["input_ids"] if i > 3) == content(block.texts)
        ids += [row["sample_id"] for row in rows]
        assert {i >> 20 for i in ids} <= set(range(N))
        assert max(len(row["input_ids"]) for row in rows) <= 13
    assert len(set(ids)) == len(ids) > N


def test_too_long_documents_are_cut_and_short_ones_passed_over(folders):
    source, valid, test = load(folders, "parquet", min_text_length=60)
    long = [t for t in TEXTS if len(t) >= 60]
    assert valid == long[:HELD] and test == long[HELD:FIRST]
    for cycle in (0, 1):
        found = [t for block in source.blocks(cycle) for t in block.texts]
        assert sorted(found) == sorted(long[FIRST:])
    updates, states = run(batches_of(source, max_tokens=8), 20)
    masks = [batch["attention_mask"] for update in updates for batch in update]
    assert max(int(mask.sum(1).max()) for mask in masks) == 8 + 2   # tokens, masks twice
    again = batches_of(load(folders, "parquet", min_text_length=60)[0], max_tokens=8)
    again.load_state_dict(states[6])
    assert_same(run(again, 13)[0], updates[7:])


def test_evaluation_takes_each_sample_once(folders):
    valid = load(folders, "files")[1]
    for ranks in (1, 2, 3):
        parts = []
        for rank in range(ranks):
            source = Shuffled(valid, shuffle=False)
            batches = batches_of(source, update_freq=1, rank=rank, world_size=ranks)
            parts.append(list(batches.one_epoch()))
        assert documents(parts) == list(range(HELD))


def test_what_has_nothing_to_predict_is_counted_and_left_out(said):
    texts = [TEXTS[i] if i % 3 else "€ £" for i in range(30)] # neither sign is in the vocabulary
    updates, states = run(batches_of(Shuffled(texts, block=12)), 10)
    assert documents(updates[:5]) == [i for i in range(30) if i % 3]
    assert states[4]["skipped"] == 10 and states[9]["skipped"] == 20
    for texts, workers, says in ((["€"] * 9, 0, "nothing to predict"),
                                 ([], 0, "no text to train on"),
                                 ([], 2, "no text to train on")):
        with pytest.raises(UserError, match=says):
            run(batches_of(Shuffled(texts, block=6), num_workers=workers), 1)


# Ranks

# Batch size, update frequency, ranks: always 12 samples.
SPLITS = [(12, 1, 1), (4, 3, 1), (6, 1, 2), (3, 2, 2), (4, 1, 3), (2, 2, 3)]


def ranks(folders, kind, split, state=None, n=20, **more): # updates, states of each rank
    "The ranks of a run; an update has the micro-batches of each."
    size, freq, world = split
    made = []
    for rank in range(world):
        source = load(folders, kind, global_batch=12)[0]
        made.append(batches_of(source, size, freq, rank=rank, world_size=world, **more))
        if state:
            assert made[-1].load_state_dict(stored(state)) == []
    return together(made, n)


def together(made, n): # Batches of all ranks -> n updates, states of each rank
    "As the trainer's `fetch` does: ranks whose next update is a later one wait."
    running, updates, states = list(map(iter, made)), [], [[] for _ in made]
    for _ in range(n):
        given = list(map(next, running))
        places = [batches.place for batches in made]
        first = min(places)
        for rank, batches in enumerate(made):
            if places[rank] != first:
                batches.wait(first)
                given[rank] = []
            states[rank].append(batches.state_dict())
        updates.append(given)
    for one in running:
        one.close()
    return updates, states


def shared(state): # what all ranks agree on
    "How much was cut off is known of each rank's own documents."
    return {name: x for name, x in state.items() if name not in ("characters", "cut_off")}


def samples(update): # sorted rows of real tokens
    "What the micro-batches of an update hold, on all ranks."
    found = []
    for batch in itertools.chain(*update):
        rows = zip(batch["input_ids"], batch["positions"], batch["attention_mask"].bool())
        found += [tuple(ids[real].tolist() + places[real].tolist()) for ids, places, real in rows]
    return sorted(found)


@pytest.mark.parametrize("kind, packing", [("files", False), ("parquet", False), ("parquet", True)])
def test_an_update_has_the_same_samples_on_any_number_of_ranks(folders, kind, packing):
    whole, (states,) = ranks(folders, kind, SPLITS[0], packing=packing)
    wanted = [samples(update) for update in whole]
    first = [sum(update, []) for update, s in zip(whole, states) if s["cycle"] == 0]
    assert documents(first) == list(range(FIRST, N))
    for split in SPLITS[1:]:
        updates, found = ranks(folders, kind, split, packing=packing)
        assert [samples(update) for update in updates] == wanted
        assert all(list(map(shared, s)) == list(map(shared, states)) for s in found)
        for update in updates:   # no micro-batch is too large, and full updates are shared evenly
            sizes = [len(batch["targets"]) for part in update for batch in part]
            assert max(sizes) <= split[0] and len(sizes) <= split[1] * split[2]
            if sum(sizes) == 12:
                assert len({sum(len(b["targets"]) for b in part) for part in update}) == 1


def test_gone_on_with_on_another_number_of_ranks(folders):
    whole, (states,) = ranks(folders, "parquet", SPLITS[0])
    at = states[4]
    for stop, split in zip((5, 9, 13), (SPLITS[2], SPLITS[5], SPLITS[1])):
        updates, found = ranks(folders, "parquet", split, state=at, n=4)
        wanted = whole[stop:stop + 4]
        assert [samples(update) for update in updates] == [samples(update) for update in wanted]
        at = found[-1][-1]                          # of the last rank
        assert shared(at) == shared(states[stop + 3])


def test_ranks_with_workers(folders):
    plain, states = ranks(folders, "parquet", SPLITS[2], n=10)
    found, after = ranks(folders, "parquet", SPLITS[2], n=10, num_workers=2)
    assert after == states
    for a, b in zip(plain, found):
        assert_same(a, b)


def test_one_shard_for_many(folders):
    wanted = documents(run(make(folders, "one"), 15)[0])
    assert wanted == list(range(FIRST, N))
    assert documents(run(make(folders, "one", num_workers=3), 15)[0]) == wanted
    updates, _ = ranks(folders, "one", SPLITS[4], n=8)
    assert documents([sum(update, []) for update in updates]) == wanted


def test_more_ranks_and_workers_than_samples():
    texts = TEXTS[:2]
    made = [batches_of(Shuffled(texts, block=6), batch_size=2, update_freq=1, rank=rank,
                       world_size=3, num_workers=3) for rank in range(3)]
    updates, _ = together(made, 4)                  # two samples an update, three ranks
    for ranks in updates:
        assert sorted(sum(len(b["targets"]) for b in update) for update in ranks) == [0, 0, 2]


# Gone on with under other arguments

OTHERS = {
    "global_batch": dict(batch_size=4, update_freq=1),
    "buffer_size": dict(block=36),
    "smaller buffer_size": dict(block=12),
    "max_tokens": dict(max_tokens=12),
    "packing": dict(packing=True),
}


@pytest.mark.parametrize("kind", ["files", "parquet"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments_begin_the_block_again(folders, kind, name):
    updates, states = reference(folders, kind, False)
    more = dict(OTHERS[name])
    block = more.pop("block", BLOCK)
    for stop in (2, 5, 9, 14):
        source = load(folders, kind, global_batch=1, buffer_size=block)[0]
        batches = batches_of(source, **more)
        said, = batches.load_state_dict(stored(states[stop - 1]))
        assert name.split()[-1] in said and "24 documents" in said and "\n" not in said
        running, after = iter(batches), []
        while True:
            update = next(running)
            if batches.position["cycle"] > 0: break
            after.append(update)
        seen = Counter(documents(updates[:stop]) + documents(after))
        assert set(seen) == set(range(FIRST, N))    # nothing is missed
        twice = [i for i, n in seen.items() if n > 1]
        assert max(seen.values()) <= 2 and len(twice) <= BLOCK
        given_before = 6 * stop - (6 * stop - 1) // BLOCK * BLOCK   # by the begun block
        assert sum(seen[i] - 1 for i in seen) == given_before


def test_another_seed_and_other_data_are_said(folders):
    state = reference(folders, "files", False)[1][7]
    batches = make(folders, "files")
    batches.seed = 4
    said, = batches.load_state_dict(stored(state))
    assert "--seed was 3 and is now 4" in said and batches.position["cycle"] == state["cycle"]
    other = make(folders, "parquet")
    said, = other.load_state_dict(stored(state))
    assert "86 lines" in said and "parquet" in said and "from their beginning" in said
    assert documents(run(other, 15)[0]) == list(range(FIRST, N))
    fewer = batches_of(load(folders, "parquet", eval_samples=5)[0])
    assert "7 held out" in fewer.load_state_dict(reference(folders, "parquet", False)[1][7])[0]


# Packing

# For each document, the length of each sentence.
shapes = st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=10)


@given(shapes, st.integers(3, 16))
@some
def test_pack(lengths, max_tokens):
    ids = iter(range(10, 10_000))
    texts = [[[next(ids) for _ in range(n)] for n in document] for document in lengths]
    document_of = {i: d for d, document in enumerate(texts) for s in document for i in s}
    sentence_of = {i: s for document in texts for s in document for i in s}
    rows = list(pack(texts, max_tokens, 0, 2))
    # Nothing lost, nothing twice, in order.
    assert [i for _, row in rows for i in row if i > 2] == list(document_of)
    for first, row in rows:
        assert 3 <= len(row) <= max_tokens and row[0] == 0 and row[-1] == 2 and 0 not in row[1:]
        assert first == document_of[row[1]]
        inside = row[1:-1]
        for a, b in zip(inside, inside[1:]):     # an end token exactly where a document ends
            if a > 2 and b > 2:
                assert document_of[a] == document_of[b]
            else:
                assert (a == 2) != (b == 2)
    for (_, row), (_, following) in zip(rows, rows[1:]):
        end, begin = row[-2], following[1]
        sentence = sentence_of[begin]
        if sentence_of[end] is sentence:
            assert len(sentence) > max_tokens - 2    # cut, since it is longer than a row
        used = row if document_of[end] != document_of[begin] else row[:-1]
        left = len(sentence) - sentence.index(begin)
        assert len(used) + min(left, max_tokens - 2) >= max_tokens   # it would not have fitted


@given(st.lists(st.text("ab.!? \n", max_size=60), max_size=5), st.integers(3, 12))
@some
def test_pack_texts(texts, max_tokens):
    letters = wrap_vocabulary([*SPECIAL, "a", "b", "##a", "##b", ".", "!", "?", "<mask>"])
    rows = list(pack_texts(letters, texts, max_tokens))
    alone = [letters(t, add_special_tokens=False)["input_ids"] for t in texts]
    assert [i for _, row in rows for i in row if i not in (0, 2)] == sum(alone, [])


def test_pack_breaks_between_sentences():
    texts = ["The task is a kind. It returns all!", "A value."]
    rows = [tokenizer().decode(row) for _, row in pack_texts(tokenizer(), texts, 9)]
    assert rows == ["<s> the task is a kind. </s>", "<s> it returns all! </s>",
                    "<s> a value. </s>"]


# Order

@given(st.integers(1, 2000), st.integers(0, 2 ** 63 - 1), st.integers(0, 10 ** 6))
@some
def test_shuffled_is_a_permutation(n, seed, cycle):
    order = shuffled(np.arange(n), n, seed, cycle)
    assert np.array_equal(np.sort(order), np.arange(n))
    some = np.arange(n)[::7]
    assert np.array_equal(shuffled(some, n, seed, cycle), order[::7])   # place by place
    assert int(shuffled(n - 1, n, seed, cycle)) == order[-1]
    if n > 20:
        for other in ((seed, cycle + 1), (seed ^ 1, cycle)):
            assert not np.array_equal(order, shuffled(np.arange(n), n, *other))


@pytest.mark.parametrize("n", [2 ** 20 + 1, 2 ** 31 - 1, 5_000_000_000, 2 ** 40 - 1, 2 ** 40])
def test_shuffled_of_very_many(n):
    rng = np.random.default_rng(0)
    ends = [np.arange(1000), n - 1 - np.arange(1000)]
    places = np.unique(np.concatenate([rng.integers(0, n, 20_000), *ends]))
    order = shuffled(places, n, 1, 0)
    assert order.min() >= 0 and order.max() < n and len(np.unique(order)) == len(places)
    tenth = np.bincount(order * 10 // n, minlength=10) / len(places)
    assert abs(tenth - 0.1).max() < 0.01
    neighbours = np.corrcoef(order[:1000], order[1:1001])[0, 1]
    assert abs(neighbours) < 0.15                    # they are independent


def test_shuffled_is_even():
    def chi_square(counts):
        return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    for n in (5, 10, 33):
        orders = np.stack([shuffled(np.arange(n), n, seed, seed % 3) for seed in range(1500)])
        for place in (0, n // 2, n - 1):
            counts = np.bincount(orders[:, place], minlength=n)
            assert chi_square(counts) < n + 6 * (2 * n) ** 0.5
        first_two = orders[:, 0] * n + orders[:, 1]
        pairs = np.bincount(first_two, minlength=n * n)
        pairs = np.delete(pairs, np.arange(n) * (n + 1))
        assert chi_square(pairs) < len(pairs) + 6 * (2 * len(pairs)) ** 0.5
        in_place = (orders == np.arange(n)).sum(1)
        assert 0.8 < in_place.mean() < 1.2           # on average, one stays in its place


def test_permutations_for_different_purposes_differ():
    keys = itertools.product((0, 1), (0, 1), (1, 2), (0, 1, 2 ** 40))
    orders = [permutation_of(50, *key).tolist() for key in keys]    # seed, cycle, purpose, number
    assert len({tuple(order) for order in orders}) == len(orders) == 24
    assert all(sorted(order) == list(range(50)) for order in orders)


# Files

parts = ["a", "word", "é", "漢", "😀", " ", "\t", "\r", "\n", "\n", "\r\n", "\v", " \n \n"]
pieces = st.lists(st.sampled_from(parts), max_size=30)


@given(st.lists(pieces, min_size=1, max_size=3), st.integers(1, 9))
@some
def test_lines_are_those_of_a_naive_reading(tmp_path, files, chunk):
    wanted, paths = [], []
    for i, parts in enumerate(files):
        paths.append(tmp_path / f"{i}.txt")
        paths[-1].write_bytes("".join(parts).encode())
        wanted += [line.strip() for line in "".join(parts).split("\n") if line.strip()]
        assert np.array_equal(line_begins(paths[-1], chunk), line_begins(paths[-1]))
    lines = LineFiles(paths)
    assert len(lines) == len(wanted) and list(lines) == wanted
    with pytest.raises(IndexError):
        lines[len(wanted)]


def test_line_begins_over_many_pieces(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" \n".join("漢" * i for i in range(200)))
    lengths = [3 * i + 2 for i in range(1, 199)] + [3 * 199]
    for chunk in (1, 2, 3, 64, 1 << 22):
        assert np.diff(line_begins(path, chunk)).tolist() == lengths


def refused(call, *parts): # the message
    "A UserError in one line, which names what it should."
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 700
    for part in parts:
        assert str(part) in message, message
    return message


@pytest.mark.parametrize("content, words", [
    (b"fine\ncaf\xe9 au lait\n", ["not UTF-8", "bad.txt", "convert"]),
    (b"nul\0byte\n", ["not UTF-8"]),
    ("utf 16".encode("utf-16"), ["not UTF-8"]),
    ("cut: é".encode()[:-1], ["not UTF-8", "middle of a letter"]),
    (b"short\n" + b"x" * 50_000_000, ["line 2", "50,000,001 bytes", "one document on a line"]),
])
def test_bad_files(tmp_path, content, words):
    (tmp_path / "good.txt").write_text("fine\n")
    (tmp_path / "bad.txt").write_bytes(content)
    good = str(tmp_path / "good.txt")
    where = dict(train_dir=str(tmp_path), valid_file=good, test_file=good, max_broken_share=0.0)
    refused(lambda: load_data(PretrainConfig(**where)), *words)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.txt").write_text("fine")
    where |= dict(train_dir=str(tmp_path / "train"), test_file=str(tmp_path / "bad.txt"))
    refused(lambda: load_data(PretrainConfig(**where)), "bad.txt", *words[:1])


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "good.txt").write_text("fine\n")
    (tmp_path / "empty.txt").write_text(" \r\n\n")
    for name in ("nothing", "blank", "train"):
        (tmp_path / name).mkdir()
    (tmp_path / "nothing" / "a.text").write_text("another suffix")
    (tmp_path / "blank" / "a.txt").write_text("\n \n")
    (tmp_path / "train" / "a.txt").write_text("fine")
    def attempt(train="train", valid="good.txt", test="good.txt"):
        where = {"train_dir": train, "valid_file": valid, "test_file": test}
        config = PretrainConfig(**{name: str(tmp_path / path) for name, path in where.items()})
        return lambda: load_data(config)
    attempt()()
    refused(attempt(train="missing"), "--train-dir", "missing", "not a folder")
    refused(attempt(train="good.txt"), "--train-dir", "good.txt", "not a folder")
    refused(attempt(train="nothing"), "no .txt file", "--dataset-name")
    refused(attempt(train="blank"), "no text")
    refused(attempt(valid="missing.txt"), "--valid-file", "missing.txt")
    refused(attempt(test="train"), "--test-file", "not a file")
    refused(attempt(test="empty.txt"), "--test-file", "empty.txt", "no text")


def test_arguments_that_contradict(said):
    for argv in (["--train-dir", "x"], ["--train-dir", "x", "--valid-file", "y"],
                 ["--test-file", "y"]):
        message = refused(lambda: check(parse_args(argv)), *argv[::2])
        assert all(name in message for name in ("--train-dir", "--valid-file", "--test-file"))
    both = "--dataset-name a/b --train-dir x --valid-file y --tokenizer-name demo".split()
    config = check(parse_args(both))
    assert (config.dataset_name, config.train_dir, config.valid_file) == ("a/b", None, None)
    assert any("--train-dir" in line and "--valid-file" in line and "a/b" in line for line in said)
    assert check(parse_args([])).dataset_name == "HuggingFaceFW/fineweb-edu"


# Streams that can't be used

def stream(folder, **changes):
    "A call that opens a stream and reads it to its end."
    def call():
        source, *_ = load_stream(folder, max_broken_share=0.0, **changes)
        return sorted(i for block in source.blocks(0) for i in block.numbers)
    return call


def test_streams_that_cannot_be_opened(folders, tmp_path, monkeypatch):
    naps = []
    monkeypatch.setattr(streams, "time", SimpleNamespace(sleep=naps.append))
    refused(stream("no/such"), "no/such", "can't be reached", "--train-dir")
    refused(stream(tmp_path / "gone"), "gone")
    refused(stream(tmp_path), "--dataset-name", "any data files")
    refused(stream(folders / "parquet", text_field="words"), "--text-field words", "text, length")
    refused(stream(folders / "jsonl", text_field="words"), "--text-field words", "it has text")
    not_text = stream(folders / "parquet", text_field="length")
    refused(not_text, "--text-field length", "int, not text")
    refused(stream(folders / "parquet", dataset_config_name="other"), "other", "default")
    refused(stream(folders / "parquet", eval_samples=51), "49 texts", "--eval-samples")
    refused(stream(folders / "parquet", eval_samples=50), "nothing left", "50 --eval-samples")
    too_short = stream(folders / "parquet", min_text_length=10_000)
    refused(too_short, "0 texts of 10000 characters", "--min-text-length")
    put_jsonl(tmp_path / "test.jsonl", TEXTS, open)
    refused(stream(tmp_path), "train", "test")      # there is no part to train on
    (tmp_path / "test.jsonl").rename(tmp_path / "train.jsonl")
    assert stream(tmp_path)() == list(range(4, N))
    for content in ("", "\n"):
        (tmp_path / "train.jsonl").write_text(content)
        refused(stream(tmp_path), str(tmp_path))
    (tmp_path / "train.jsonl").unlink()
    put_parquet(tmp_path / "train.parquet", [])
    assert naps == []            # none of these is taken for a network that may come back
    refused(stream(tmp_path))


@pytest.mark.parametrize("content, words", [
    (b'{"text": "cut off', ["broken.jsonl", "JSON"]),
    (b'{"text": "fine"}\n{"text": "cut off', ["broken.jsonl", "JSON"]),
    (b'{"text": "caf\xe9"}\n', ["broken.jsonl"]),
    (b'{"text": ["a", "list"]}\n', []),
])
@pytest.mark.parametrize("first", [True, False])
def test_broken_lines_of_json(tmp_path, content, words, first):
    put_jsonl(tmp_path / ("z.jsonl" if first else "a.jsonl"), TEXTS[:20], open)
    (tmp_path / "broken.jsonl").write_bytes(content)
    refused(stream(tmp_path), *words)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_text_that_is_not_utf_8(tmp_path, at):
    for i in range(4):
        lines = "\n".join(TEXTS[20 * i:][:20]).encode()
        (tmp_path / f"{i}.txt").write_bytes(lines + (b"\ncaf\xe9\n" if i == at else b""))
    refused(stream(tmp_path), f"{at}.txt", "utf-8")
    if at == 3: # met in the middle of training: what came before stays trained on
        source, *_ = load_stream(tmp_path, 12, max_broken_share=0.0)
        running = iter(batches_of(source, num_workers=1))
        with pytest.raises(UserError, match="3.txt"):
            list(running)


def test_texts_that_are_missing_or_too_long(tmp_path):
    missing = itertools.cycle([{"other": 1}, {"text": None}])
    rows = [{"text": t} if i % 4 else next(missing) for i, t in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert stream(tmp_path, min_text_length=1)() == [i for i in range(N) if i % 4][4:]
    rows = [*rows[1:20], {"text": "a" * 11_000_000}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refused(stream(tmp_path), "row 19", "11,000,000 characters")


def put_four_shards(folder):
    for i in range(4):
        put_parquet(folder / f"{i}.parquet", TEXTS[25 * i:25 * i + 25])


@pytest.mark.parametrize("damage", [lambda raw: b"garbage", lambda raw: raw[:len(raw) // 2]])
@pytest.mark.parametrize("which", [0, 2])
def test_a_broken_parquet_shard_is_named_and_skipped_if_asked(tmp_path, said, damage, which):
    put_four_shards(tmp_path)
    bad = tmp_path / f"{which}.parquet"
    bad.write_bytes(damage(bad.read_bytes()))
    refused(stream(tmp_path), f"{which}.parquet", "--skip-broken-shards")
    good = [t for i, t in enumerate(TEXTS) if i // 25 != which]
    def batches():
        return batches_of(load_stream(tmp_path, 12, skip_broken_shards=True)[0])
    updates, states = run(batches(), 26)
    assert any(f"{which}.parquet" in line for line in said)
    assert documents(updates[:12]) == [i for i in range(N) if TEXTS[i] in good[4:]]
    for stop in (3, 7, 11, 12, 20):                 # exact, too
        again = batches()
        again.load_state_dict(stored(states[stop - 1]))
        assert_same(run(again, 4)[0], updates[stop:stop + 4])


# In the middle, and in the description at the end.
@pytest.mark.parametrize("begin, end", [(100, 200), (-300, -200)])
@pytest.mark.parametrize("which", [0, 2])
def test_damage_inside_a_parquet_file_is_no_network_fault(tmp_path, monkeypatch, begin, end, which):
    put_four_shards(tmp_path)
    raw = bytearray((tmp_path / f"{which}.parquet").read_bytes())
    raw[begin:end] = bytes(100)
    (tmp_path / f"{which}.parquet").write_bytes(raw)
    monkeypatch.setattr(streams, "time", None)         # no pause
    refused(stream(tmp_path), f"{which}.parquet", "broken" if begin < 0 else "repair")


# The network

class Flaky:
    "A stream that loses the connection at some rows, so many times each."
    def __init__(self, faults):
        self.faults, self.at = faults, 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]

    def __iter__(self):
        while self.at < N:
            if self.faults.get(self.at, 0):
                self.faults[self.at] -= 1
                raise ConnectionError("the line\nis dead")
            self.at += 1
            yield {"text": TEXTS[self.at - 1]}


def flaky(faults, **more): # Batches
    "Of a stream that loses the connection at some rows, so many times each."
    stream = Stream(Flaky(faults), name="the stream", seed=3, block=BLOCK)
    return batches_of(stream, **more)


def test_a_stream_that_breaks_off_is_taken_up(monkeypatch, said):
    naps = []
    monkeypatch.setattr(streams, "time", SimpleNamespace(sleep=naps.append))
    wanted, states = run(flaky({}), 36)
    assert not said
    found, after = run(flaky({0: 1, 5: 3, 23: 1, 24: 2, 99: 1}), 36)
    assert_same(found, wanted)
    assert after == states
    assert naps == [1, 1, 2, 4, 1, 1, 2, 1]         # growing, and anew after each success
    assert len(said) == len(naps)
    assert all("the stream broke off after row" in line and "in" in line for line in said)
    assert not any("\n" in line for line in said)
    assert "row 5 (ConnectionError: the line is dead); trying again in 4 s" in said[3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_stays_away_ends_the_run_and_can_be_gone_on_with(monkeypatch, workers):
    naps = []
    monkeypatch.setattr(streams, "time", SimpleNamespace(sleep=naps.append))
    wanted, states = run(flaky({}), 20)
    batches = flaky({60: 99}, num_workers=workers)
    found = []
    with pytest.raises(StreamLost) as caught:
        for update in batches:
            found.append(update)
    message = str(caught.value)
    assert "the stream" in message and "row 60" in message
    assert "--resume" in message and "\n" not in message
    assert workers or naps == list(streams.PAUSES)  # the workers pause in their own processes
    assert_same(found, wanted[:8])                  # two blocks of 24
    assert batches.state_dict() == states[7]
    again = flaky({})
    assert again.load_state_dict(stored(batches.state_dict())) == []
    assert_same(run(again, 12)[0], wanted[8:])


HUB = """
import os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

class Nothing(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.send_header("Content-Length", "2")
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"{}")
    do_HEAD = do_GET
    def log_message(self, *args): pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from annotated_mpnet import tokenization
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.data import load_data
import datasets
session, asked = tokenization.get_session(), []
def get(url, timeout):
    asked.append(timeout)
    return session.get(url, timeout=timeout)
tokenization.get_session = lambda: SimpleNamespace(get=get)
for _ in range(2):
    try:
        load_data(PretrainConfig(dataset_name="no/such"))
    except UserError as error:
        print(asked, error)
    asked.clear()
    server.shutdown()
    server.server_close()
"""


def test_the_hub_without_the_dataset_and_without_an_answer(tmp_path):
    env = os.environ | {"HF_HOME": str(tmp_path)}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, "-c", HUB], env=env, capture_output=True, text=True,
                          timeout=HANGS)
    assert done.returncode == 0, done.stderr
    absent, silent = done.stdout.splitlines()
    assert "no/such" in absent and "doesn't exist" in absent
    assert "no/such" in silent and "can't be reached" in silent and "--train-dir" in silent
    # One question each, with a limit of 3 seconds, before a library asks again and again.
    assert absent.startswith("[3] ") and silent.startswith("[3] ")
