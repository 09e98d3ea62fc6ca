"""Prepared corpora: bytes that no kill changes, damage that is noticed, the rows of the texts."""
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from annotated_mpnet import prepare_corpus, preparing
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.data import fixed, load_data, make_batches
from annotated_mpnet.files import digest_of
from annotated_mpnet.order import Shuffled
from annotated_mpnet.packing import sentence_ids
from annotated_mpnet.prepare_corpus import manifest_of, sources_of
from annotated_mpnet.prepared import (
    MANIFEST, SPLITS, ShardFacts, open_corpus, part_name, read_manifest, to_json)
from annotated_mpnet.preparing import Preparation, Shelf, begin_part, begins_anew, tokens_of
from annotated_mpnet.rules import DECIDED, check
from annotated_mpnet.run_folder import locked
from annotated_mpnet.shards import Tokens, checksums, encode, ragged
from annotated_mpnet.trainer import pretrain
from annotated_mpnet.wordpiece import wrap_vocabulary

N, HELD, SHARD = 120, 6, 400  # documents; held out, twice; ids in a shard
KILLS, FLIPS, STOPS = (  # how often; more of each: KILLS=50 FLIPS=500 STOPS=30 pytest ...
    int(os.environ.get(name, n)) for name, n in (("KILLS", 6), ("FLIPS", 50), ("STOPS", 8)))
WORDS = "the task is sentence classification it returns a value of no kind".split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
some = settings(deadline=None, derandomize=True, max_examples=60)


def text(i: int) -> str:
    "Document i: one to five sentences, the first word its own."
    rng = random.Random(i)
    parts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) + rng.choice(".!")
             for _ in range(rng.randint(1, 5))]
    return f"doc{i} " + " ".join(parts)


TEXTS = [text(i) for i in range(N)]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return wrap_vocabulary([*SPECIAL, *(f"doc{i}" for i in range(N)), *WORDS, ".", "!", "<mask>"])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "The texts as files, and as a stream."
    folder = tmp_path_factory.mktemp("texts")
    (folder / "files").mkdir()
    for name, texts in {"files/a": TEXTS[12:70], "files/b": TEXTS[70:], "valid": TEXTS[:6],
                        "test": TEXTS[6:12]}.items():
        (folder / f"{name}.txt").write_text("\n".join(texts))
    (folder / "stream").mkdir()
    for i in range(3):
        part = pa.table({"text": TEXTS[40 * i:40 * i + 40]})
        pq.write_table(part, folder / "stream" / f"{i}.parquet", row_group_size=15)
    tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def config_of(place: Path, kind: str) -> PretrainConfig: # kind: files or stream
    if kind == "stream":
        stream = str(place / kind)
        found = PretrainConfig(dataset_name=stream, eval_samples=HELD, min_text_length=20)
    else:
        found = PretrainConfig(train_dir=str(place / kind), valid_file=str(place / "valid.txt"),
                               test_file=str(place / "test.txt"))
    return check(found)


def prepare(config: PretrainConfig, folder: Path, part=1, parts=1, workers=0, tell=lambda *_: None):
    "A part, in small shards."
    sources = sources_of(config, folder)
    manifest = manifest_of(config, sources, tokenizer(), part, parts)
    here = folder / part_name(part, parts)
    manifest = begin_part(here, tokenizer(), manifest)
    return Preparation(here, manifest, tokenizer(), workers, SHARD).run(sources, tell)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")}


@pytest.fixture(scope="module")
def made(place) -> dict[str, Path]:
    "A corpus of each kind of source."
    for kind in ("files", "stream"):
        prepare(config_of(place, kind), place / "made" / kind)
    return {kind: place / "made" / kind for kind in ("files", "stream")}


# What is kept of a text


@cache
def other(kind: str) -> PreTrainedTokenizerFast:
    "Tokenizers to which a space or a line end matters."
    size = dict(vocab_size=300, show_progress=False, special_tokens=[*SPECIAL, "<mask>"])
    if kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        size |= {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
        trainer = trainers.BpeTrainer(**size)
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.normalizer = normalizers.NFKC()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **size)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token="<mask>")


letters = st.text(st.sampled_from("a bc.!?\n\r\t,\u00a0é\u0301ß字<mask>\x1f "), max_size=40)
pieces = st.lists(st.sampled_from([*WORDS, " ", ".", ". ", "!\n", "\n\n", "<mask>"]), max_size=20)
documents = st.lists(letters | pieces.map("".join), max_size=4)


@pytest.mark.parametrize("kind", ["words", "bytes", "pieces"])
@given(texts=documents)
@some
def test_ids_are_those_of_the_text_and_of_its_sentences(kind, texts):
    by = tokenizer() if kind == "words" else other(kind)
    assert begins_anew(by) == (kind == "words")
    tokens = tokens_of(by, np.uint16, texts, [len(x) for x in texts])
    whole = [by(x, add_special_tokens=False)["input_ids"] for x in texts]
    assert [tokens.ids.row(i).tolist() for i in range(len(texts))] == whole
    for i, sentences in enumerate(sentence_ids(by, texts)):
        ids, ends = tokens.by_sentence(i)
        assert ends.tolist() == np.cumsum([len(x) for x in sentences]).tolist()
        assert ids[:sum(map(len, sentences))].tolist() == sum(sentences, [])


@given(lengths=st.lists(st.integers(0, 90), max_size=30), cut=st.lists(st.integers(0, 30)))
@some
def test_shards_end_where_they_end_however_documents_come(lengths, cut):
    lists = ragged([list(range(n)) for n in lengths], np.uint16)
    none = ragged([[]] * len(lengths), np.uint16)
    all_of_it = Tokens(lists, none, none, np.zeros(len(lengths), np.uint32))

    def shards(borders):
        shelf, found = Shelf(100), []
        for begin, end in zip([0, *borders], [*borders, len(lengths)]):
            found += shelf.add(all_of_it.part(begin, end))
        return [tokens.ids.lengths.tolist() for tokens in [*found, *shelf.rest()]]

    found = shards(sorted(min(i, len(lengths)) for i in cut))
    assert found == shards([]) and sum(found, []) == lengths
    assert all(sum(some) + 8 * len(some) >= 100 for some in found[:-1])


# Killed, in parts, in several processes


@pytest.mark.parametrize("kind, failing, step", [("files", "fsync", 5), ("stream", "replace", 2)])
def test_whatever_write_fails_the_corpus_is_the_same(place, made, tmp_path, kind, failing, step,
                                                     monkeypatch):
    config, whole, really = config_of(place, kind), contents(made[kind]), getattr(os, failing)
    for n in range(0, 1000, step):
        left = iter(range(n))

        def fail(*words, left=left):
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            return really(*words)

        monkeypatch.setattr(os, failing, fail)
        try:
            prepare(config, tmp_path / f"{n}")
            break
        except UserError as error:
            assert "No space left" in str(error) and "\n" not in str(error)
        finally:
            monkeypatch.undo()
        prepare(config, tmp_path / f"{n}")
        assert contents(tmp_path / f"{n}") == whole
    assert n > len(whole)


def test_killed_at_any_moment(place, made, tmp_path):
    config, rng, kills = config_of(place, "stream"), random.Random(0), 0
    folder = tmp_path / "first"

    def slow(*_):
        time.sleep(0.01)

    while True:
        workers = kills % 5 // 4  # processes of its own now and then
        work = multiprocessing.get_context("fork").Process(
            target=prepare, args=(config, folder), kwargs={"tell": slow, "workers": workers})
        work.start()
        work.join(rng.uniform(0.02, 0.8) if kills < KILLS else None)
        if work.exitcode is None:
            os.kill(work.pid, signal.SIGKILL)
            work.join()
            kills += 1
            continue
        assert work.exitcode == 0 and contents(folder) == contents(made["stream"])
        if kills == KILLS:
            break
        folder = tmp_path / f"{kills}"  # it ended before it was killed: another one
    print(f"{kills} kills, {len(list(tmp_path.iterdir()))} corpora")


@pytest.mark.parametrize("kind", ["files", "stream"])
def test_processes_change_nothing_and_parts_are_the_whole(place, made, tmp_path, kind):
    config = config_of(place, kind)
    prepare(config, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(made[kind])
    for part in (2, 3, 1):
        prepare(config, tmp_path / "three", part, 3)
    one, three = open_corpus(made[kind]), open_corpus(tmp_path / "three")
    for split in SPLITS:
        a, b = getattr(one, split), getattr(three, split)
        assert [ids.tolist() for ids in a] == [ids.tolist() for ids in b]
        numbers = random.Random(1).choices(range(len(a)), k=50)
        assert a.sizes[numbers].tolist() == b.sizes[numbers].tolist()
        for i in numbers:
            assert all(map(np.array_equal, a.by_sentence(i), b.by_sentence(i)))


def test_what_is_held_out_is_what_training_holds_out(place, made):
    for kind, folder in made.items():
        corpus = open_corpus(folder)
        _, *held = load_data(config_of(place, kind))
        for split, texts in zip((corpus.valid, corpus.test), held):
            ids = [tokenizer()(x, add_special_tokens=False)["input_ids"] for x in texts]
            assert [found.tolist() for found in split] == ids


def test_counts(place, tmp_path):
    folder = tmp_path / "stream"
    folder.mkdir()
    rows = ["tiny", *TEXTS[:60], "short", "half \\ud83d and twenty letters", *TEXTS[60:]]
    lines = [json.dumps({"text": x}).replace("\\\\", "\\") for x in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    config = check(PretrainConfig(dataset_name=str(folder), eval_samples=HELD, min_text_length=8))
    found = prepare(config, tmp_path / "corpus")
    assert found.counts["broken"] == 1 and found.counts["short"] == 2
    assert sum(facts.documents for facts in found.train) == sum(found.lengths) == N - 2 * HELD
    ids = [ids for split in [open_corpus(tmp_path / "corpus").train] for ids in split]
    assert found.lengths[4] == sum(8 <= len(x) < 16 for x in ids)


# Damage and lies


def read_all(folder: Path) -> None:
    "Every document of a corpus, and its tokenizer."
    corpus = open_corpus(folder)
    for split in SPLITS:
        documents = getattr(corpus, split)
        for i in range(len(documents)):
            documents.by_sentence(i)
        for shard in documents.opened.values():  # padding, too
            shard.pages.check(0, shard.pages.buffer.size)


def test_a_changed_byte_is_noticed(made, tmp_path):
    folder, rng = tmp_path / "corpus", random.Random(0)
    shutil.copytree(made["stream"], folder)
    names, whole = list(contents(folder)), contents(folder)
    read_all(folder)
    for n in range(FLIPS):
        name = names[n % len(names)]
        data = bytearray(whole[name])
        data[rng.randrange(len(data))] ^= rng.choice([1, 4, 32, 128])
        (folder / name).write_bytes(data)
        with pytest.raises(UserError) as found:
            read_all(folder)
        assert "\n" not in str(found.value)
        (folder / name).write_bytes(whole[name])
    read_all(folder)


def forged(folder: Path, **changes) -> None:
    "Another manifest with a right checksum."
    at = folder / part_name(1, 1)
    (at / MANIFEST).write_bytes(to_json(read_manifest(at)._replace(**changes)))


@pytest.mark.parametrize("changes, said", [
    (dict(vocabulary=0), "part 1 of 1"), (dict(vocabulary=2**54), "within bounds"),
    (dict(part=2), "part 2 of 1"), (dict(parts=2), "by its manifest"), (dict(part=True), "bounds"),
    (dict(position={}), "not finished"), (dict(format="annotated-mpnet corpus 9"), "format"),
    (dict(tokenizer={"../x": "0"}), "tokenizer has the name"), (dict(source=5), "no str"),
    (dict(tokenizer={"tokenizer.json": "0" * 16}), "bytes have changed"),
    (dict(train=[ShardFacts("/etc/passwd", 1, 1, 1, "")]), "has the name"),
    (dict(train=[ShardFacts("train-00000.arrow", 9, 10**15, 1, "")]), "it has"),
    (dict(train=[]), "bounds|no document|position|nothing"),
    (dict(vocabulary=100_000), "no shard of a corpus"), (dict(lengths=[-1]), "within bounds"),
])
def test_a_lie_in_the_manifest_is_a_line(made, tmp_path, changes, said):
    folder = tmp_path / "corpus"
    shutil.copytree(made["files"], folder)
    forged(folder, **changes)
    if changes == {"train": []}:  # a corpus without documents, which training refuses
        assert not len(open_corpus(folder).train)
        return
    with pytest.raises(UserError, match=said) as found:
        read_all(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("offsets", [[0, 5, 3], [0, 2, 10**6], [1, 2, 4], [0, 4, -1]])
def test_a_shard_that_lies_is_a_line(made, tmp_path, offsets):
    folder, at = tmp_path / "corpus", tmp_path / "corpus" / part_name(1, 1)
    shutil.copytree(made["files"], folder)
    right, wrong = (np.array(x, np.int32).tobytes() for x in ([0, 1, 4], offsets))
    lists = [ragged(x, np.uint16) for x in ([[1], [2, 3, 4]], [[1], [3]], [[], []])]
    sizes = np.array([7, 7], np.uint32)
    data = bytes(encode(Tokens(lists[0], ragged([[1], [3]], np.uint32), lists[2], sizes)))
    assert data.count(right) == 1
    data = pa.py_buffer(data.replace(right, wrong))
    sums = checksums(data).tobytes()
    (at / "train-00000.arrow").write_bytes(data)
    (at / "train-00000.sums").write_bytes(sums)
    facts = ShardFacts("train-00000.arrow", data.size, 2, 4, digest_of([sums]))
    forged(folder, train=[facts])
    with pytest.raises(UserError, match="not as it was written"):
        read_all(folder)


def test_missing_mixed_and_unfinished_parts(place, made, tmp_path):
    config = config_of(place, "files")
    for part in (1, 2):
        prepare(config, tmp_path / "a", part, 3)
    with pytest.raises(UserError, match="lacks part 3 of 3"):
        open_corpus(tmp_path / "a")
    prepare(config_of(place, "stream"), tmp_path / "a", 3, 3)
    with pytest.raises(UserError, match="another source"):
        open_corpus(tmp_path / "a")
    shutil.copytree(made["files"] / "part-1-of-1", tmp_path / "a" / "part-1-of-1")
    with pytest.raises(UserError, match="of 1 and of 3 parts"):
        open_corpus(tmp_path / "a")
    forged_part = tmp_path / "b"
    shutil.copytree(made["files"], forged_part)
    forged(forged_part, position={"split": "train", "start": None, "before": 0})
    with pytest.raises(UserError, match="not finished"):
        load_data(check(PretrainConfig(dataset_name=str(forged_part))))


# Training


def rows_of(batches) -> list[tuple]: # of an epoch, sorted
    "What is in the rows, before it is permuted."
    found = []
    for batch in batches.one_epoch():
        n = batch["input_ids"].shape[1] - 2 * batch["pred_size"]
        for ids, places, mask in zip(*(batch[name] for name in (
                "input_ids", "positions", "attention_mask"))):
            known = {int(p): int(t) for p, t, m in zip(places[:n], ids[:n], mask[:n]) if m}
            found.append(tuple(known[p] for p in sorted(known)))
    return sorted(found)


@pytest.mark.parametrize("kind", ["files", "stream"])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("length", [12, 64])
def test_rows_are_those_of_the_texts(place, made, kind, packing, length):
    words = ["--max-tokens", str(length), "--batch-size", "4", "--update-freq", "1",
             "--buffer-size", "1000", *["--packing"] * packing]
    raw, plain = config_of(place, kind), check(parse_args(words))
    ids = check(parse_args([*words, "--dataset-name", str(made[kind])]))
    source = load_data(raw)[0]
    if kind == "stream":  # in the order of a sequence
        source = Shuffled([x for block in source.blocks(0) for _, x in sorted(
            zip(block.numbers, block.texts))], plain.seed, 1000)
    else:
        source = Shuffled(source.texts, plain.seed, 1000)
    expected = rows_of(make_batches(plain, source, tokenizer(), True))
    found = rows_of(make_batches(ids, load_data(ids)[0], tokenizer(), True))
    assert found == expected and found


def batches_of(place, folder, packing: bool, rank: int, size: int, workers: int):
    "Batches of the files, or of the corpus that was made of them."
    words = ["--max-tokens", "24", "--batch-size", "3", "--update-freq", "1", "--buffer-size", "30",
             "--num-workers", str(workers), *["--packing"] * packing]
    given = ["--dataset-name", str(folder)] if folder else [
        "--train-dir", str(place / "files"), "--valid-file", str(place / "valid.txt"),
        "--test-file", str(place / "test.txt")]
    config = check(parse_args([*words, *given]))
    ranks = SimpleNamespace(rank=rank, size=size)
    return make_batches(config, load_data(config, 3 * size)[0], tokenizer(), True, ranks)


def taken(batches, n: int) -> list: # updates, as what can be compared
    with closing(iter(batches)) as updates:
        return [[{name: np.asarray(x).tolist() for name, x in batch.items()} for batch in update]
                for update in islice(updates, n)]


def test_batches_are_those_of_the_texts_wherever_a_run_is_stopped(place, made):
    rng, known = random.Random(0), {}
    for n in range(STOPS):
        packing, size, workers = n % 2 > 0, 1 + n % 4, (0, 1, 3)[n % 3]
        many, rank = 60 // size, rng.randrange(size)
        case = (packing, rank, size)
        if case not in known:
            known[case] = taken(batches_of(place, None, *case, 0), many)
        stop = rng.randrange(many)
        batches = batches_of(place, made["files"], *case, workers)
        assert taken(batches, stop) == known[case][:stop]
        resumed = batches_of(place, made["files"], *case, (1, 0)[n % 2])
        assert resumed.load_state_dict(batches.state_dict()) == []
        rest = min(6, many - stop)
        assert taken(resumed, rest) == known[case][stop:stop + rest]


def test_what_was_decided_is_refused(made):
    folder = str(made["files"])
    values = {"text_field": "body", "min_text_length": "1", "eval_samples": "5",
              "max_broken_share": "0.5", "dataset_config_name": "x"}
    for name in DECIDED:
        words = ["--" + name.replace("_", "-"), *filter(None, [values.get(name)])]
        with pytest.raises(UserError, match=f"{words[0]} was decided"):
            check(parse_args(["--dataset-name", folder, *words]))
    assert check(parse_args(["--dataset-name", folder])).tokenizer_name.startswith(folder)


def test_another_vocabulary_is_refused(place, made):
    config = check(parse_args(["--dataset-name", str(made["files"])]))
    source, valid, _ = load_data(config)
    for texts, train in ((source, True), (fixed(valid), False)):
        with pytest.raises(UserError, match="another tokenizer"):
            make_batches(config, texts, other("bytes"), train)


# The command


def command(capsys, *words: str) -> tuple[int, str, str]:
    code = prepare_corpus.main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_the_command(place, tmp_path, capsys):
    output = tmp_path / "corpus"
    words = ["--train-dir", place / "files", "--valid-file", place / "valid.txt", "--test_file",
             place / "test.txt", "--tokenizer-name", place / "tokenizer", "--output", output]
    code, out, err = command(capsys, *words, "--part", "1/2")
    assert (code, err) == (0, "") and "lacks part 2 of 2" in out
    code, out, err = command(capsys, *words, "--part", "2/2")
    assert (code, err) == (0, "") and "| train | 108 |" in out
    assert (output / "README.md").read_text() in out.replace("\n\n\n", "\n\n") + "\n"
    before = contents(output)
    assert command(capsys, *words, "--part", "2/2")[0] == 0 and contents(output) == before
    for more, said in [
            (["--part", "2/2", "--document-per-file"], "was begun with another"),
            (["--part", "0/2"], "--part takes"), (["--part", "x"], "--part takes"),
            (["--dataset-name", output], "is prepared already"), (["--lr", "1"], "unrecognized"),
            (["--num-workers", "-1"], "0 or more")]:
        code, out, err = command(capsys, *words, *more)
        assert code == 2 and said in err and err.count("\n") == 1, err
    at = output / part_name(1, 2)
    kept = (at / MANIFEST).read_bytes()
    (at / MANIFEST).write_bytes(to_json(read_manifest(at)._replace(position={"split": "x"})))
    code, out, err = command(capsys, *words, "--part", "1/2")
    assert code == 2 and "doesn't say where to go on" in err and err.count("\n") == 1
    (at / MANIFEST).write_bytes(kept)
    with locked(output / part_name(1, 2)):
        code, out, err = command(capsys, *words, "--part", "1/2")
    assert code == 2 and "in use" in err and "writes into it" in err and err.count("\n") == 1
    assert contents(output) == before


def test_a_signal_is_a_line(place, tmp_path, capsys, monkeypatch):
    def run(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Preparation, "run", run)
    code, out, err = command(
        capsys, "--dataset-name", place / "stream", "--eval-samples", "3", "--tokenizer-name",
        place / "tokenizer", "--output", tmp_path / "corpus")
    assert code == 143 and err.count("\n") == 1
    assert "stopped by SIGTERM" in err and "goes on with it" in err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_lost_process_is_a_line(place, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "BLOCK", 4)

    def lose(*_):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    config = config_of(place, "files")
    with pytest.raises(UserError, match="--num-workers 2: a process was lost"):
        prepare(config, tmp_path / "corpus", workers=2, tell=lose)
    prepare(config, tmp_path / "corpus")
    assert len(open_corpus(tmp_path / "corpus").train) == N - 2 * HELD


def test_texts_beside_the_corpus_are_not_read(place, tmp_path, capsys):
    shutil.copytree(place / "files", tmp_path / "files")
    words = ["--train-dir", tmp_path / "files", "--valid-file", place / "valid.txt",
             "--test-file", place / "test.txt", "--tokenizer-name", place / "tokenizer",
             "--output", tmp_path / "files" / "corpus"]
    (tmp_path / "files" / "corpus").mkdir()
    (tmp_path / "files" / "corpus" / "old.txt").write_text("a note")
    for _ in range(2):
        code, out, err = command(capsys, *words)
        assert code == 0 and "| train | 108 |" in out


def test_a_run_from_it_is_resumed(made, tmp_path):
    words = ["--dataset-name", str(made["stream"]), "--encoder-layers", "1",
             "--encoder-embed-dim", "16", "--encoder-ffn-dim", "16", "--encoder-attention-heads",
             "2", "--max-tokens", "32", "--batch-size", "4", "--update-freq", "1",
             "--save-optimizer-state", "--buffer-size", "16", "--packing"]

    def run(folder: str, *more: str) -> dict:
        config = parse_args([*words, "--checkpoint-dir", str(tmp_path / folder), *more])
        return pretrain(config)

    whole = run("whole", "--total-updates", "12", "--warmup-updates", "2")
    run("parts", "--total-updates", "12", "--warmup-updates", "2", "--checkpoint-interval", "5")
    for name in ("best_checkpoint.pt", "final_checkpoint.pt", "checkpoint10.pt"):
        (tmp_path / "parts" / name).unlink()
    again = run("parts", "--resume")
    assert again["test/loss"] == whole["test/loss"]
