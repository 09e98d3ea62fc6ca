"""Checkpoints under attack: full disks, kills, cuts, flipped bits, planted code; what is kept."""
import argparse
import errno
import hashlib
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_runs import python

from annotated_mpnet import checkpoints, reading, sealed
from annotated_mpnet.checkpoints import (
    FORMAT, TornCheckpoint, choose_checkpoint, find_checkpoint, interval_checkpoints,
    load_checkpoint_tokenizer, load_model, prune, read_checkpoint, save_checkpoint)
from annotated_mpnet.configuration import ModelConfig, PretrainConfig, UserError
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.optimization import make_optimizer
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.sealed import SEAL_BYTES, remove_leftovers, tensor_bytes, write_whole
from annotated_mpnet.tokenization import demo_tokenizer

CONFIG = PretrainConfig(encoder_layers=1, encoder_embed_dim=16, encoder_ffn_dim=16,
                        encoder_attention_heads=2, max_tokens=16)
WEIGHT = torch.arange(12.0).view(3, 4)
TINY = {"format": FORMAT, "update": 3, "model": {"weight": WEIGHT}, "text": "the task"}
READERS = (read_checkpoint, load_model, load_checkpoint_tokenizer)


def one_line(error) -> str: # pytest's exception information -> its message
    "The message of a `UserError`; it must be one line."
    text = str(error.value)
    assert text and "\n" not in text and len(text) < 500
    return text


def left_in(folder): return sorted(path.name for path in Path(folder).iterdir())


def trained():
    "A tiny model after an update, with its optimizer."
    torch.manual_seed(0)
    tokenizer = demo_tokenizer()
    sizes = ModelConfig.from_pretrain(CONFIG, len(tokenizer), tokenizer.pad_token_id)
    model = MPNetForPretraining(sizes)
    optimizer = make_optimizer(model, CONFIG)
    ids = tokenizer("the task is sentence classification")["input_ids"]
    batch = MaskedPermutedCollator(tokenizer)([{"input_ids": ids}])
    model.loss(batch)[0].backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory): # a checkpoint with the whole state; tests only read it
    model, optimizer = trained()
    facts = {"data": "a list", "seed": 1, "buffer_size": 8, "global_batch": 4, "max_tokens": 16,
             "packing": False}
    position = {"cycle": 1, "block": 8, "chunk": 0, "update": 1, "skipped": 0, "facts": facts}
    state = {"optimizer": optimizer.state_dict(), "data": position, "best_loss": 2.5, "lost": 0,
             "steps": torch.zeros(0), "wandb_id": None, "random": {"cpu": torch.get_rng_state()}}
    path = tmp_path_factory.mktemp("saved") / "checkpoint7.pt"
    save_checkpoint(path, model, demo_tokenizer(), CONFIG, 7, {"train/loss": 3.25}, state)
    return SimpleNamespace(path=path, model=model, optimizer=optimizer, state=state)


# --- what is in the file, and who can open it ---

def test_whole_state_comes_back_to_the_bit(saved):
    content = read_checkpoint(saved.path)
    assert list(content) == ["format", "model_config", "config", "tokenizer", "update", "metrics",
                             "model", "state"]
    assert content["update"] == 7 and content["metrics"] == {"train/loss": 3.25}
    assert PretrainConfig(**content["config"]) == CONFIG
    weights = saved.model.state_dict()
    assert list(content["model"]) == list(weights)
    assert all(torch.equal(x, weights[name]) for name, x in content["model"].items())
    state = content["state"]
    assert torch.equal(state["random"]["cpu"], saved.state["random"]["cpu"])
    assert state["data"] == saved.state["data"]
    assert state["best_loss"] == 2.5 and state["wandb_id"] is None
    optimizer = make_optimizer(MPNetForPretraining(saved.model.config), CONFIG)
    optimizer.load_state_dict(state["optimizer"])
    found = optimizer.state_dict()["state"].values()
    wanted = saved.optimizer.state_dict()["state"].values()
    for mine, its in zip(found, wanted, strict=True):
        assert all(torch.equal(mine[name], its[name]) for name in its)


def test_each_tensor_is_stored_once(saved):
    "Tied weights, and the copies that the optimizer shares with nobody: three times the weights."
    weights = sum(4 * p.numel() for p in saved.model.parameters())
    texts = sum(len(text) for text in read_checkpoint(saved.path)["tokenizer"].values())
    assert 3 * weights + texts < saved.path.stat().st_size < 3 * weights + texts + 80_000


@pytest.mark.parametrize("options", [{}, {"weights_only": True}, {"mmap": True}])
def test_other_programs_open_it(saved, options):
    content = torch.load(saved.path, **options)
    weights = saved.model.state_dict()
    assert all(torch.equal(content["model"][name], x) for name, x in weights.items())


def test_seal_is_the_checksum_of_a_proper_zip(saved):
    "Checked by hand: the comment holds SHA-256 of the file as it was with an empty comment."
    data = saved.path.read_bytes()
    with zipfile.ZipFile(saved.path) as archive:
        comment = archive.comment.decode()
        assert archive.testzip() is None
    assert data.endswith(len(comment).to_bytes(2, "little") + comment.encode())
    sealed_bytes = data[:-len(comment) - 2] + b"\0\0"
    assert comment == "annotated-mpnet sha256 " + hashlib.sha256(sealed_bytes).hexdigest()


def test_model_and_tokenizer_come_back(saved):
    model, tokenizer = load_model(saved.path), load_checkpoint_tokenizer(saved.path)
    assert not model.training and model.config == saved.model.config
    demo = demo_tokenizer()
    texts = ("the task is sentence classification", "", "Zażółć gęślą jaźń 😀", "<mask> of <s>")
    for text in texts:
        assert tokenizer(text)["input_ids"] == demo(text)["input_ids"]
    assert tokenizer.all_special_ids == demo.all_special_ids and len(tokenizer) == len(demo)
    ids = torch.tensor([tokenizer("the task")["input_ids"]])
    assert torch.equal(model.encode(ids), saved.model.eval().encode(ids))


def test_saving_leaves_random_numbers_and_the_model_alone(saved, tmp_path):
    before, mode = torch.get_rng_state(), saved.model.training
    save_checkpoint(tmp_path / "a.pt", saved.model, demo_tokenizer(), CONFIG, 7, {})
    assert torch.equal(before, torch.get_rng_state()) and saved.model.training == mode
    assert "state" not in read_checkpoint(tmp_path / "a.pt")


def test_tokenizer_files_are_made_once(saved, tmp_path):
    class Counts:
        calls = 0
        def save_pretrained(self, folder):
            self.calls += 1
            demo_tokenizer().save_pretrained(folder)
    first, second = Counts(), Counts()
    for tokenizer in (first, first, first, second):
        save_checkpoint(tmp_path / "a.pt", saved.model, tokenizer, CONFIG, 7, {})
    assert (first.calls, second.calls) == (1, 1)


ODD = [np.float64(1), np.arange(3), Path("x"), {1, 2}, torch.float32, CONFIG, len, b"bytes",
       argparse.Namespace()]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("wrap", [lambda x: {"x": x}, lambda x: {"state": {"data": [1, (2, x)]}}])
def test_what_could_not_be_read_again_is_not_written(tmp_path, odd, wrap):
    with pytest.raises(TypeError, match=type(odd).__name__):
        write_whole(tmp_path / "a.pt", wrap(odd))
    assert left_in(tmp_path) == []


def test_odd_keys_are_refused(tmp_path):
    with pytest.raises(TypeError, match="a key of content"):
        write_whole(tmp_path / "a.pt", {np.int64(3): 1})


def test_tensor_bytes():
    table = torch.ones(10, 10)
    inside = {"d": (torch.ones(3, dtype=torch.bfloat16), torch.ones(0))}
    assert tensor_bytes({"a": table, "b": [table.T, table[0]], "c": inside}) == 406


# --- a disk that fails ---

@pytest.fixture
def earlier(tmp_path): # a folder with an earlier file of the same name and one of another
    write_whole(tmp_path / "checkpoint1.pt", TINY)
    write_whole(tmp_path / "best_checkpoint.pt", TINY | {"update": 1})
    return tmp_path


def fails_cleanly(folder, content=TINY, says="No space left on device"):
    "A write of best_checkpoint.pt ends in one line, and all that was there is there and loads."
    path = folder / "best_checkpoint.pt"
    kept = [name for name in left_in(folder) if not name.startswith(".")]
    before = {name: (folder / name).read_bytes() for name in kept}
    with pytest.raises(UserError) as error:
        write_whole(path, content)
    text = one_line(error)
    assert f"could not write {path}: " in text
    assert "earlier checkpoints are untouched" in text and says in text
    assert {name: (folder / name).read_bytes() for name in left_in(folder)} == before
    assert read_checkpoint(path)["update"] == 1
    assert read_checkpoint(folder / "checkpoint1.pt")["update"] == 3


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk:
    "A file that has no room for some of its writes, counted from 0."
    def __init__(self, file, fails):
        self.file, self.fails, self.calls = file, fails, 0

    def write(self, data):
        self.calls += 1
        if self.fails(self.calls - 1):
            full()
        return self.file.write(data)


def test_full_disk_at_every_write(earlier, monkeypatch):
    "Once, and from there on; torch.save hides some of these errors behind its own."
    files, original = [], sealed.HashingWriter
    def disk(fails): # the next files that are written fail so
        def writer(file):
            files.append(FullDisk(file, fails))
            return original(files[-1])
        monkeypatch.setattr(sealed, "HashingWriter", writer)
    disk(lambda call: False)
    write_whole(earlier / "counted.pt", TINY)
    calls = files[0].calls
    assert calls > 20
    for at in range(calls):
        for fails in (lambda call: call == at, lambda call: call >= at):
            disk(fails)
            fails_cleanly(earlier)


@pytest.mark.parametrize("size", [0, 100_000])
def test_full_disk_at_byte_positions(earlier, size):
    "Really: the system lets no file grow beyond a limit, in its midst and in the seal at its end."
    content = TINY | {"more": torch.ones(size)}
    write_whole(earlier / "whole.pt", content)
    whole = (earlier / "whole.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (earlier / "whole.pt").unlink()
    draw = random.Random(size)
    ends = [0, 1, whole - SEAL_BYTES, whole - SEAL_BYTES + 2, whole - 1]
    for limit in ends + [draw.randrange(whole) for _ in range(25)]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            fails_cleanly(earlier, content, os.strerror(errno.EFBIG))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_whole(earlier / "whole.pt", content)


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_full_device(earlier, size):
    "Really: /dev/full says that there is no space left, whatever is written to it."
    (earlier / f".best_checkpoint.pt.{os.getpid()}.tmp").symlink_to("/dev/full")
    fails_cleanly(earlier, TINY | {"more": torch.ones(size)})


def test_errors_after_the_writes(earlier, monkeypatch):
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            fails_cleanly(earlier)


def test_folder_that_cannot_be_synced(earlier, monkeypatch):
    "The file is renamed already, and whole. That a file system doesn't sync folders is no error."
    path, real = earlier / "best_checkpoint.pt", os.fsync
    for number in (errno.EINVAL, errno.ENOSPC):
        calls = []
        def second_fails(handle):
            calls.append(handle)
            if len(calls) == 2: raise OSError(number, os.strerror(number))
            real(handle)
        monkeypatch.setattr(os, "fsync", second_fails)
        if number == errno.EINVAL:
            write_whole(path, TINY)
        else:
            with pytest.raises(UserError, match="No space left"):
                write_whole(path, TINY)
        assert len(calls) == 2 and read_checkpoint(path)["update"] == 3
        assert left_in(earlier) == ["best_checkpoint.pt", "checkpoint1.pt"]


def test_room_is_looked_for_first(earlier, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=20_000_000))
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("nothing is written"))
    content = TINY | {"more": torch.ones(1_000_000)}
    fails_cleanly(earlier, content, "it needs 21 MB and the disk has 20 MB left")


def test_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").write_text("here a folder should be")
    (tmp_path / "folder.pt").mkdir()
    missing = tmp_path / "none" / "a.pt"
    for path in (tmp_path / "file" / "a.pt", missing, tmp_path / "folder.pt"):
        with pytest.raises(UserError) as error:
            write_whole(path, TINY)
        assert f"could not write {path}: " in one_line(error)
    assert left_in(tmp_path) == ["file", "folder.pt"]
    assert left_in(tmp_path / "folder.pt") == []


@pytest.mark.parametrize("at", [0, 1, 5, 20])
def test_interrupt_and_mistakes_are_not_taken_for_a_full_disk(earlier, monkeypatch, at):
    path, original = earlier / "best_checkpoint.pt", sealed.HashingWriter
    before = path.read_bytes()
    for kind in (KeyboardInterrupt, ZeroDivisionError):
        def fails(call):
            if call == at: raise kind
        monkeypatch.setattr(sealed, "HashingWriter", lambda file: original(FullDisk(file, fails)))
        with pytest.raises(kind):
            write_whole(path, TINY)
    assert left_in(earlier) == ["best_checkpoint.pt", "checkpoint1.pt"]
    assert path.read_bytes() == before


# --- a process that is killed ---

MURDER = """
import os, random, signal, sys, time, torch
from pathlib import Path
from annotated_mpnet.checkpoints import read_checkpoint
from annotated_mpnet.sealed import remove_leftovers, write_whole
torch.set_num_threads(1)
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(0)
path = folder / "checkpoint.pt"
version, leftovers, seen = 0, 0, set()
def content(version):
    weights = [torch.full((20_000,), float(version)) for _ in range(10)]
    return {"version": version, "weights": weights}
def age():
    return path.stat().st_ino, path.stat().st_mtime_ns
write_whole(path, content(0))
for number in range(kills):
    child = os.fork()
    if not child:
        while True:
            version += 1
            write_whole(path, content(version))
    if number % 3 == 0: # at any moment
        time.sleep(draw.random() * 0.03)
    elif number % 3 == 1: # some time after a write has got through
        first = age()
        while age() == first:
            time.sleep(0.0002)
        time.sleep(draw.random() * 0.03)
    else: # inside a write: once it is stopped, nothing moves any more
        while True:
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
            if len(os.listdir(folder)) > 1:
                break
            os.kill(child, signal.SIGCONT)
            time.sleep(draw.random() * 0.003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = read_checkpoint(path)
    whole = all((w == found["version"]).all() for w in found["weights"])
    assert whole and found["version"] >= version, found["version"]
    version = found["version"]
    seen.add(version)
    leftovers += len(list(folder.iterdir())) - 1
    remove_leftovers(folder)
    assert os.listdir(folder) == ["checkpoint.pt"], os.listdir(folder)
print(leftovers, len(seen))
"""


def test_killed_while_writing(tmp_path):
    "Replaced without end by a process that is killed: always whole, never older than before."
    place = tmp_path / "place"
    place.mkdir()
    done = python(MURDER, str(place), "60", cwd=tmp_path, env=os.environ, logs=tmp_path)
    assert done.returncode == 0, done.stderr
    leftovers, versions = map(int, done.stdout.split())
    often = "a third of the kills hit a write, before another third a write gets through"
    assert leftovers >= 20 and versions >= 20, often


def test_leftovers(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f".checkpoint5.pt.{dead.pid}.tmp", f".best_checkpoint.pt.{os.getpid()}.tmp"]
    stays = [
        f".checkpoint5.pt.{os.getppid()}.tmp", ".checkpoint5.pt.1.tmp", ".checkpoint5.pt.x.tmp",
        f"checkpoint5.pt.{dead.pid}.tmp", f".notes.txt.{dead.pid}.tmp", "checkpoint5.pt",
        f".checkpoint5.pt.{dead.pid}.tmp.bak", ".checkpoint5.pt.99999999999999999999.tmp",
    ]
    for name in gone + stays:
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert left_in(tmp_path) == sorted(stays)
    remove_leftovers(tmp_path / "nowhere")


# --- files that are not as they were written ---

def test_every_cut_and_many_flips_are_noticed(tmp_path):
    path, draw = tmp_path / "checkpoint3.pt", random.Random(0)
    write_whole(path, TINY)
    whole = path.read_bytes()
    assert read_checkpoint(path)["update"] == 3
    cut = [whole[:length] for length in range(len(whole))]
    begun_late = [whole[start:] for start in range(1, len(whole), 40)]
    bad = cut + begun_late + [whole + b"\0", whole * 2]
    for _ in range(800):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        bad.append(bytes(flipped))
    for begin in range(-SEAL_BYTES - 30, 0):   # the seal and what stands before it, each bit of it
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[begin] ^= 1 << bit
            bad.append(bytes(flipped))
    for _ in range(100):                       # a block of zeros, as after a power failure
        begin, length = draw.randrange(len(whole)), 1 + draw.randrange(600)
        blank = whole[:begin] + bytes(len(whole[begin:begin + length])) + whole[begin + length:]
        if blank != whole:
            bad.append(blank)
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(TornCheckpoint) as error:
            read_checkpoint(path)
        assert f"{path} is damaged: " in one_line(error)


def test_real_checkpoint_cut_and_flipped(saved, tmp_path):
    "The same with a real one, through each function that reads."
    whole, path, draw = saved.path.read_bytes(), tmp_path / "checkpoint9.pt", random.Random(1)
    for _ in range(40):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        for data in (bytes(flipped), whole[:draw.randrange(len(whole))]):
            path.write_bytes(data)
            for read in READERS:
                with pytest.raises(TornCheckpoint):
                    read(path)
    with pytest.raises(TornCheckpoint):
        read_checkpoint(path, trust_checkpoint=True)


@pytest.mark.parametrize("data", [
    b"", b"\0" * 5000, b"some text\n" * 9, b'{"update": 3}', b"\x80\x04\x95", b"PK\x03\x04"])
def test_what_was_never_a_checkpoint(tmp_path, data):
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(TornCheckpoint) as error:
        read_checkpoint(tmp_path / "a.pt")
    assert ("empty" if not data else "cut off, or no checkpoint at all") in one_line(error)


def test_garbage_never_crashes(tmp_path):
    path, draw = tmp_path / "a.pt", random.Random(2)
    write_whole(path, TINY)
    whole = path.read_bytes()
    for _ in range(500):
        part = whole[:draw.randrange(len(whole))]
        rest = whole[-draw.randrange(len(whole)):]
        begin = draw.choice([b"", b"PK\3\4", b"\x80\2", b"\x80\4", part, rest])
        path.write_bytes(begin + draw.randbytes(draw.randrange(200)))
        with pytest.raises(UserError) as error:
            read_checkpoint(path)
        one_line(error)


def test_no_file(tmp_path):
    for path, what in ((tmp_path / "none.pt", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError) as error:
            read_checkpoint(path)
        assert not isinstance(error.value, TornCheckpoint)
        assert f"{path} {what}; give a checkpoint file" in one_line(error)


def test_formats(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"format": "annotated-mpnet 1", "update": 5}, path)     # the first files had no seal
    assert read_checkpoint(path)["update"] == 5
    torch.save({"format": FORMAT, "update": 5}, path)                  # ours, but its seal is gone
    with pytest.raises(TornCheckpoint, match="checksum is lost"):
        read_checkpoint(path)
    for newer in ("annotated-mpnet 3", "annotated-mpnet 12", "annotated-mpnet"):
        write_whole(path, {"format": newer})
        with pytest.raises(UserError, match="update annotated-mpnet") as error:
            read_checkpoint(path)
        assert not isinstance(error.value, TornCheckpoint) and newer in one_line(error)
    for theirs in ({"format": "pt", "x": 1}, {"format": 3}, {"weights": torch.ones(2)}):
        torch.save(theirs, path)
        assert read_checkpoint(path).keys() == theirs.keys()
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="it holds a list"):
        read_checkpoint(path)


def test_disk_that_cannot_be_read(saved, monkeypatch):
    def fails(_): raise OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(reading, "seal_is_right", fails)
    with pytest.raises(UserError, match="could not read .*Input/output error") as error:
        read_checkpoint(saved.path)
    assert not isinstance(error.value, TornCheckpoint)


# --- code in a file ---

class Plant:
    "An object whose pickle makes a file when it is read."
    def __init__(self, marker):
        self.marker = str(marker)
    def __reduce__(self): return os.mkdir, (self.marker,)


def planted_files(folder, marker):
    "Each kind of file that can hold a pickle."
    inside = {"format": FORMAT, "state": [Plant(marker)], "model": {"weight": torch.ones(2)}}
    for place, content in {"alone": Plant(marker), "inside": inside}.items():
        for protocol in range(6):
            path = folder / f"{place}-raw-{protocol}.pt"
            path.write_bytes(pickle.dumps(content, protocol))
            yield path
            for zipped in (True, False):
                path = folder / f"{place}-{'zip' if zipped else 'legacy'}-{protocol}.pt"
                torch.save(content, path, pickle_protocol=protocol,
                           _use_new_zipfile_serialization=zipped)
                yield path
    planted = {"format": FORMAT, "model": Plant(marker)}
    sealed.write_sealed(folder / "sealed.pt", planted)                 # by one who knows how
    yield folder / "sealed.pt"


def test_planted_code_never_runs(tmp_path):
    marker, run = tmp_path / "this ran", tmp_path / "run"
    run.mkdir()
    paths = list(planted_files(tmp_path, marker))
    assert len(paths) == 37
    write_whole(run / "checkpoint1.pt", TINY)
    for path in paths:
        (run / "checkpoint2.pt").write_bytes(path.read_bytes())
        for read in (*READERS, lambda _: choose_checkpoint(run)):
            with pytest.raises(UserError) as error:
                read(path)
            text = one_line(error)
            assert not isinstance(error.value, TornCheckpoint), path.name
            assert "asks for posix.mkdir" in text and "--trust-checkpoint" in text, path.name
        assert not marker.exists()
    pickle.loads(paths[0].read_bytes())
    assert marker.is_dir()                     # it would have run


def test_the_global_that_is_named_is_rather_not_pytorchs(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"weight": torch.ones(2), "then": Plant("x")}, 4))
    with pytest.raises(UserError, match="asks for posix.mkdir"):
        read_checkpoint(tmp_path / "a.pt")


def test_trusted_files_are_opened(tmp_path):
    "What fairseq writes: tensors beside an object of a class."
    path, marker = tmp_path / "a.pt", tmp_path / "this ran"
    torch.save({"args": argparse.Namespace(layers=3), "model": {"w": torch.ones(2)}}, path)
    with pytest.raises(UserError, match="asks for argparse.Namespace"):
        read_checkpoint(path)
    assert read_checkpoint(path, trust_checkpoint=True)["args"].layers == 3
    torch.save({"model": Plant(marker)}, path)
    read_checkpoint(path, trust_checkpoint=True)
    assert marker.is_dir()                     # which is what the word trust means


def test_names_in_a_file_cannot_mock_the_terminal(tmp_path):
    "A global whose name has line breaks and control characters is not printed."
    for name in ("evil\nsecond line", "\x1b[2J", "a b"):
        names = [b"\x8c" + bytes([len(x)]) + x.encode() for x in ("os", name)]
        (tmp_path / "a.pt").write_bytes(b"\x80\x04" + b"".join(names) + b"\x93.")
        with pytest.raises(UserError) as error:
            read_checkpoint(tmp_path / "a.pt")
        assert one_line(error).isprintable()


def test_tokenizer_in_a_file_is_read_in_its_own_folder(saved, tmp_path):
    "A file name that points elsewhere is refused, and code that is brought is not run."
    content = read_checkpoint(saved.path)
    outside = tmp_path / "outside.json"
    for name in (str(outside), "../outside.json"):
        files = content["tokenizer"] | {name: "{}"}
        write_whole(tmp_path / "a.pt", content | {"tokenizer": files})
        with pytest.raises(UserError, match="a key of it.tokenizer"):
            load_checkpoint_tokenizer(tmp_path / "a.pt")
        assert left_in(tmp_path) == ["a.pt"]
    settings = json.loads(content["tokenizer"]["tokenizer_config.json"])
    marker = tmp_path / "this ran"
    settings |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    evil = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n"
    files = {"tokenizer_config.json": json.dumps(settings), "evil.py": evil}
    write_whole(tmp_path / "a.pt", content | {"tokenizer": content["tokenizer"] | files})
    try:
        load_checkpoint_tokenizer(tmp_path / "a.pt")
    except UserError as error:
        assert "\n" not in str(error)
    assert not marker.exists()


def test_files_without_a_tokenizer(tmp_path):
    for content in ({"weights": torch.ones(2)}, {"format": FORMAT},
                    {"format": FORMAT, "tokenizer": None}):
        write_whole(tmp_path / "a.pt", content)
        with pytest.raises(UserError, match="holds no tokenizer") as error:
            load_checkpoint_tokenizer(tmp_path / "a.pt")
        one_line(error)
    for files in ({}, {"tokenizer.json": "{"}, {"tokenizer.json": 3}, {3: "x"}, {"..": "x"}):
        write_whole(tmp_path / "a.pt", {"format": FORMAT, "tokenizer": files})
        says = "tokenizer in .* can't be read|it.tokenizer"
        with pytest.raises(UserError, match=says) as error:
            load_checkpoint_tokenizer(tmp_path / "a.pt")
        one_line(error)


# --- models that don't fit ---

def test_wrong_weights_in_our_own_file(saved, tmp_path):
    content, path = read_checkpoint(saved.path), tmp_path / "a.pt"
    model = content["model"]
    name = "mpnet.encoder.layer.0.attention.attn.q.weight"
    assert name in model
    heads = content["model_config"] | {"encoder_attention_heads": 3}
    other_shape = f"{name}, has shape (3,) and should have (16, 16)"
    cases = {
        "in 1 entries": {"model": {k: v for k, v in model.items() if k != name}},
        other_shape: {"model": model | {name: torch.ones(3)}},
        "extra, has shape (2,) and should have none": {"model": model | {"extra": torch.ones(2)}},
        f"it.model[{name}] is 'text'": {"model": model | {name: "text"}},
        "it.model is None": {"model": None},
        "it.model_config lacks vocab_size": {"model_config": {"depth": 3}},
        "unexpected keyword": {"model_config": content["model_config"] | {"depth": 3}},
        "heads": {"model_config": heads},
    }
    for says, change in cases.items():
        write_whole(path, content | change)
        with pytest.raises(UserError) as error:
            load_model(path)
        assert str(path) in one_line(error) and says in str(error.value)
    for missing in ("model", "model_config"):
        write_whole(path, {k: v for k, v in content.items() if k != missing})
        with pytest.raises(UserError, match=f"it lacks {missing};|does not describe a model"):
            load_model(path)


def test_foreign_weights_go_through_their_table(saved, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save({"theirs": saved.model.state_dict()}, path)
    with pytest.raises(UserError) as error:
        load_model(path)
    assert str(path) in one_line(error)
    config, weights = saved.model.config, saved.model.state_dict()
    monkeypatch.setattr(checkpoints, "convert", lambda content: (config, content["theirs"]))
    found = load_model(path).state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in found.items())


# --- which one ---

def test_order_is_by_number(tmp_path):
    for name in ("checkpoint9.pt", "checkpoint10.pt", "checkpoint100.pt", "checkpoint0.pt",
                 "checkpoint.pt", "checkpoint-1.pt", "checkpoint07.pt", "checkpoint1.pt.tmp",
                 "xcheckpoint1.pt", "checkpoint1e3.pt", "checkpoint٣.pt", "Checkpoint5.pt",
                 ".checkpoint8.pt.1.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoint999.pt").mkdir()
    found = [path.name for path in interval_checkpoints(tmp_path)]
    assert found == [f"checkpoint{n}.pt" for n in (100, 10, 9, 0)]


OTHERS = ("best_checkpoint.pt", "final_checkpoint.pt")
CHOOSE_ANOTHER = "start without --resume, or give --resume-checkpoint"


def make_run(folder, *names):
    for name in names:
        write_whole(folder / name, {"format": FORMAT, "name": name})


def test_newest_whole_one_is_chosen(tmp_path, caplog):
    make_run(tmp_path, *[f"checkpoint{n}.pt" for n in (8, 9, 10, 11)], *OTHERS)
    torn = [lambda data: data[:-500], lambda data: b"",
            lambda data: data.replace(b"checkpoint9", b"checkpoint8")]
    expected = ["checkpoint11.pt", "checkpoint10.pt", "checkpoint9.pt", "checkpoint8.pt"]
    for i, name in enumerate(expected):
        caplog.clear()
        path, content = choose_checkpoint(tmp_path)
        assert path.name == content["name"] == name
        assert [record.levelname for record in caplog.records] == ["WARNING"] * i
        for record, passed in zip(caplog.records, expected):
            assert str(tmp_path / passed) in record.getMessage()
        path.write_bytes(torn[i % 3](path.read_bytes()))
    assert choose_checkpoint(tmp_path)[0].name == "best_checkpoint.pt"
    best = tmp_path / "best_checkpoint.pt"
    best.write_bytes(best.read_bytes()[:-500])
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=CHOOSE_ANOTHER) as error:
            choose_checkpoint(folder)
        assert str(folder) in one_line(error)


def test_foreign_file_is_not_passed_over(tmp_path):
    make_run(tmp_path, "checkpoint8.pt")
    torch.save({"model_states": {"w": torch.ones(2)}}, tmp_path / "checkpoint9.pt")
    with pytest.raises(UserError, match="checkpoint9.pt is of another program") as error:
        choose_checkpoint(tmp_path)
    assert not isinstance(error.value, TornCheckpoint) and one_line(error)


@pytest.mark.parametrize("keep, protect, stay", [
    (-1, [], [10, 9, 8, 2]), (0, [], []), (1, [], [10]), (2, [], [10, 9]), (9, [], [10, 9, 8, 2]),
    (0, [9], [9]), (1, [2], [10, 2]), (2, [10, 77], [10, 9])])
def test_pruning(tmp_path, monkeypatch, keep, protect, stay):
    make_run(tmp_path, *[f"checkpoint{n}.pt" for n in (8, 9, 10, 2)], *OTHERS)
    monkeypatch.chdir(tmp_path)                # a protected path may be written another way
    prune(tmp_path, keep, [Path(f"../{tmp_path.name}/checkpoint{n}.pt") for n in protect])
    assert [p.name for p in interval_checkpoints(tmp_path)] == [f"checkpoint{n}.pt" for n in stay]
    assert {"best_checkpoint.pt", "final_checkpoint.pt"} <= set(left_in(tmp_path))


def test_pruning_that_fails_is_a_warning(tmp_path, caplog, monkeypatch):
    make_run(tmp_path, "checkpoint1.pt")
    def fails(*_, **__): raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", fails)
    prune(tmp_path, 0)
    assert "could not delete" in caplog.text and "Read-only" in caplog.text


def test_folder_in_place_of_a_file(saved, tmp_path):
    with pytest.raises(UserError, match="a folder without a checkpoint"):
        load_model(tmp_path)
    # Each goes before the earlier ones.
    for name in ("checkpoint9.pt", "checkpoint10.pt", "final_checkpoint.pt", "best_checkpoint.pt"):
        (tmp_path / name).write_bytes(saved.path.read_bytes())
        assert find_checkpoint(tmp_path) == tmp_path / name
        assert find_checkpoint(saved.path) == saved.path
    assert load_model(tmp_path).config == saved.model.config
    assert len(load_checkpoint_tokenizer(tmp_path)) == len(demo_tokenizer())


def test_configuration_in_the_file_is_the_run_s(saved, tmp_path):
    changed = replace(CONFIG, lr=0.5, wandb_id="abc")
    save_checkpoint(tmp_path / "a.pt", saved.model, demo_tokenizer(), changed, 7, {})
    config = PretrainConfig(**read_checkpoint(tmp_path / "a.pt")["config"])
    assert (config.lr, config.wandb_id) == (0.5, "abc")
