"""A run that nobody can lose: two starts in one folder, a first save that would fail, signals,
errors at any point of the loop, and a run that is replaced. In this process, on a tiny model."""
import errno
import logging
import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers_ranks import Group
from helpers_runs import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import same

from annotated_mpnet import data, lock, model, pieces, sealed, tracking, trainer, update
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.checkpoints import interval_checkpoints, read_checkpoint
from annotated_mpnet.configuration import UserError
from annotated_mpnet.interruption import Stopped
from annotated_mpnet.lock import locked
from annotated_mpnet.start import prepare

TINY = ("--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 "
        "--encoder-attention-heads 2 --max-tokens 24 --dropout 0.1 --batch-size 4 "
        "--update-freq 2 --lr 1e-2 --seed 3 --buffer-size 64 --precision float32").split()
PACE = ("--total-updates 8 --logging-steps 2 --eval-interval-steps 3 --checkpoint-interval 4 "
        "--save-optimizer-state").split()
TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
WORDS = "the task is to put a small run back together after it fell apart in the night".split()
TEXTS = [" ".join(WORDS[n * k % len(WORDS)] for k in range(1, 6 + n % 9)) for n in range(40)]


def run(folder: Path, *more: str, callback=None) -> tuple[dict, dict]:
    "A run on 34 documents: its result, and what the callback was given by update."
    told = {}

    def note(update, metrics):
        told[update] = metrics["train/loss"]
        if callback:
            callback(update, metrics)

    argv = [*TINY, *PACE, *TOKENIZER, "--checkpoint-dir", str(folder), *more]
    try:
        return trainer.pretrain(parse_args(argv), TEXTS[6:], TEXTS[:6], callback=note), told
    except BaseException as error:
        error.told = told
        raise


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The run that nothing happens to: its folder, and what the callback was given."
    folder = tmp_path_factory.mktemp("whole")
    _, told = run(folder)
    return SimpleNamespace(folder=folder, told=told)


def equals(folder: Path, whole) -> None:
    "What a run left is bit-identical to what the run left that nothing happened to."
    for name in ("final", "best"):
        files = [read_checkpoint(at / f"{name}_checkpoint.pt") for at in (folder, whole.folder)]
        same(*files, name)
    assert not list(folder.glob(".*")) and not list(folder.glob("replaced-*"))


# Whatever ends it


class Boom(Exception):
    "What nobody has foreseen."


PLACES = [(trainer, "fetch"), (trainer, "gradient"), (trainer, "accumulate"),
          (trainer, "clip_gradient"), (trainer, "learning_rate"), (trainer, "all_finite"),
          (trainer, "due_now"), (trainer, "tell_first"), (trainer, "learn"), (trainer, "update"),
          (trainer, "tell"), (trainer, "log"), (trainer, "validate"), (pieces, "measure"),
          (pieces, "evaluate"), (pieces, "save"), (trainer, "save_interval"),
          (pieces, "state_of"), (pieces, "prune"), (trainer, "finish"), (pieces, "means"),
          (pieces, "counts_of"), (sealed, "write_sealed"), (sealed, "sync_folder"),
          (model.MPNetForPretraining, "loss"), (model.MPNetForPretraining, "token_losses"),
          (tracking.Tracker, "advance"), (tracking.Tracker, "log"), (tracking.Tracker, "flush"),
          (data.Shuffled, "text_of"), (torch.optim.AdamW, "step"), (torch, "stack")]


def broken(place: tuple, call: int, after: bool, error: BaseException):
    "Make one call of a function fail, before or after it has done its work; a list of its calls."
    owner, name = place
    original, calls = getattr(owner, name), []

    def fails(*given, **more):
        calls.append(name)
        if len(calls) == call and not after:
            raise error
        found = original(*given, **more)
        if len(calls) == call:
            raise error
        return found

    patch = pytest.MonkeyPatch()
    patch.setattr(owner, name, fails)
    return patch, calls


@settings(max_examples=25)
@given(place=st.sampled_from(PLACES), call=st.integers(1, 12), after=st.booleans(),
       kind=st.sampled_from([Boom, UserError, MemoryError, OSError, SystemExit]))
def test_an_error_anywhere_leaves_the_state(place, call, after, kind, whole, tmp_path_factory):
    "The error itself comes out, and what is left resumes bit-identically after the last update."
    if place[1] == "step":
        after = False  # between its last instruction and the next there is no point of the loop
    folder = tmp_path_factory.mktemp("broken") / "run"
    patch, calls = broken(place, call, after, kind("what nobody foresaw"))
    try:
        _, told = run(folder)
        assert len(calls) < call
    except (kind, UserError) as error:  # a failed write is a UserError
        told = error.told
        assert "what nobody foresaw" in str(error)
    finally:
        patch.undo()
    if told:
        newest = read_checkpoint(interval_checkpoints(folder)[0])
        assert newest["update"] >= max(told) and newest["state"]["optimizer"]["state"]
    _, rest = run(folder, *["--resume"] * bool(told))
    assert told | rest == whole.told and all(update >= max(told, default=0) for update in rest)
    equals(folder, whole)


def test_the_error_names_the_checkpoint(tmp_path, monkeypatch, caplog):
    "A user error in its own line, another one in a line of its own; the type stays what it was."
    for kind, where in ((UserError, "error"), (Boom, "log")):
        folder = tmp_path / kind.__name__
        patch, _ = broken((trainer, "clip_gradient"), 4, False, kind("it went wrong"))
        caplog.clear()
        with pytest.raises(kind) as caught:
            run(folder)
        patch.undo()
        line = str(caught.value) if where == "error" else caplog.messages[-1]
        assert f"{folder}/checkpoint3.pt holds the run's whole state" in line and "\n" not in line
        assert interval_checkpoints(folder) == [folder / "checkpoint3.pt"]


def test_before_the_first_update_nothing_is_left(tmp_path, caplog):
    patch, _ = broken((trainer, "clip_gradient"), 1, False, Boom())
    with pytest.raises(Boom):
        run(tmp_path / "run")
    patch.undo()
    assert list(tmp_path.iterdir()) == [] and caplog.messages == []


def test_a_run_that_diverges_leaves_no_checkpoint_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "MANY", 3)
    monkeypatch.setattr(trainer, "all_finite", lambda numbers: numbers[0] * 0)
    with pytest.raises(UserError, match="3|4 updates in a row.*go back to"):
        run(tmp_path / "run", "--checkpoint-interval", "-1")
    assert interval_checkpoints(tmp_path / "run") == []


def test_a_state_that_cannot_be_saved_is_said(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sealed, "write_sealed", full)
    patch, _ = broken((trainer, "clip_gradient"), 3, False, Boom())
    with pytest.raises(Boom):
        run(tmp_path / "run", "--eval-interval-steps", "100")
    patch.undo()
    assert "its state could not be saved" in caplog.messages[-1] and "full" in caplog.messages[-1]


def test_a_dead_worker(whole, tmp_path):
    "It is killed at update 3, as by a system without memory."
    def kill(update, metrics):
        for child in multiprocessing.active_children() if update == 3 else ():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(UserError) as error:
        run(tmp_path / "run", "--num-workers", "1", callback=kill)
    newest = interval_checkpoints(tmp_path / "run")[0]
    line = str(error.value)
    assert "--num-workers: worker (pid" in line and f"{newest} holds" in line
    assert read_checkpoint(newest)["update"] >= 3
    run(tmp_path / "run", "--resume")
    equals(tmp_path / "run", whole)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_file_that_vanishes(workers, tmp_path):
    "With workers the error comes from another process; it is one line all the same."
    (tmp_path / "texts").mkdir()
    for n in range(3):
        (tmp_path / f"texts/{n}.txt").write_text("\n".join(TEXTS[n::3]))
    (tmp_path / "valid.txt").write_text("\n".join(TEXTS[:6]))
    texts = [str(tmp_path / name) for name in ("texts", "valid.txt", "valid.txt")]
    source = sum(zip(("--train-dir", "--valid-file", "--test-file"), texts), ())
    argv = [*TINY, *PACE, *TOKENIZER, *source, "--checkpoint-dir", str(tmp_path / "run"),
            "--total-updates", "40", "--buffer-size", "8", "--num-workers", workers]

    def vanish(update, metrics):
        if update == 3:
            (tmp_path / "texts/1.txt").rename(tmp_path / "away.txt")

    with pytest.raises((UserError, OSError)) as error:
        trainer.pretrain(parse_args(argv), callback=vanish)
    assert "texts/1.txt" in str(error.value) and "Traceback" not in str(error.value)
    left = read_checkpoint(interval_checkpoints(tmp_path / "run")[0])
    assert left["update"] >= 3 and left["state"]["optimizer"]["state"]


# Signals


def at(name: str, owner, call: int, signum: int):
    "Send this process a signal in the midst of a call."
    original, calls = getattr(owner, name), []

    def signalled(*given, **more):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signum)
        return original(*given, **more)

    patch = pytest.MonkeyPatch()
    patch.setattr(owner, name, signalled)
    return patch, calls


@pytest.mark.parametrize("name, call, done, calls_in_all", [
    ("loss", 1, 0, 1),          # the first micro-batch of the first update: nothing was done
    ("loss", 9, 4, 9),          # the first micro-batch of the fifth
    ("loss", 10, 5, 10),        # the second: nothing is left of it to abandon
    ("mask_shown", 1, 3, 1),    # the first batch of the first evaluation, of two
])
def test_a_signal_breaks_off_what_can_be_undone(name, call, done, calls_in_all, whole, tmp_path,
                                                capfd):
    folder, owner = tmp_path / "run", model.MPNetForPretraining if name == "loss" else update
    patch, calls = at(name, owner, call, signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        run(folder)
    patch.undo()
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "SIGINT" in said[0] and "second Ctrl-C" in said[0]
    assert len(calls) == calls_in_all
    if done == 0:
        assert stopped.value.path is None and "nothing is lost" in str(stopped.value)
        assert not folder.exists()
    else:
        assert stopped.value.path == folder / f"checkpoint{done}.pt"
    run(folder, *["--resume"] * (done > 0))
    equals(folder, whole)


def test_an_evaluation_that_was_broken_off_is_done_first(whole, tmp_path):
    patch, _ = at("mask_shown", update, 3, signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "run")
    patch.undo()
    left = read_checkpoint(stopped.value.path)
    assert left["update"] == 6 and left["state"]["todo"] == ["validate"]
    best = read_checkpoint(tmp_path / "run/best_checkpoint.pt")
    assert left["state"]["best_loss"] == best["state"]["best_loss"]
    run(tmp_path / "run", "--resume")
    equals(tmp_path / "run", whole)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP")
@pytest.mark.parametrize("ignored", [False, True], ids=["terminal", "nohup"])
def test_a_closed_terminal(ignored, whole, tmp_path):
    def hang_up(update, metrics):
        if update == 2:
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        run(tmp_path / "run", callback=hang_up)
        assert ignored
    except Stopped as stopped:
        assert not ignored and stopped.signum == signal.SIGHUP
        assert stopped.path == tmp_path / "run/checkpoint2.pt"
        run(tmp_path / "run", "--resume")
    finally:
        signal.signal(signal.SIGHUP, before)
    equals(tmp_path / "run", whole)


# Two runs in one folder


@pytest.mark.parametrize("more", [[], ["--resume"], ["--overwrite"]])
def test_a_second_start_is_refused(more, whole, tmp_path, monkeypatch):
    "While the first one trains; it is not disturbed, and its folder is free afterwards."
    folder, lines = tmp_path / "run", []
    monkeypatch.setattr(lock, "_PATIENCE", 0)

    def second(update, metrics):
        if update in (1, 5):  # with and without a checkpoint in the folder
            with pytest.raises(UserError) as error:
                run(folder, *more)
            lines.append(str(error.value))

    run(folder, callback=second)
    assert len(lines) == 2
    for line in lines:
        assert f"in use: process {os.getpid()} on " in line and "\n" not in line
    equals(folder, whole)
    with locked(folder):
        pass


def test_a_start_that_was_prepared_before_another_run_is_refused(tmp_path):
    argv = [*TINY, *PACE, *TOKENIZER, "--checkpoint-dir", str(tmp_path / "run")]
    first, second = (prepare(parse_args(argv), TEXTS[6:], TEXTS[:6]) for _ in range(2))
    trainer.train(first)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="another run has changed .*; start again"):
        trainer.train(second)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def hold(folder: Path, ready) -> None:
    "In a process of its own: hold a folder, with a child that outlives it."
    with locked(folder):
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        child.start()
        ready.send(child.pid)
        signal.pause()


def test_a_lock_dies_with_its_process(tmp_path):
    "Even though a child lives on, which was forked while it was held."
    here, there = multiprocessing.Pipe()
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, there))
    holder.start()
    child = here.recv()
    with pytest.raises(UserError, match=f"in use: process {holder.pid} on {socket.gethostname()}"):
        with locked(tmp_path):
            pass
    holder.kill()
    holder.join()
    os.kill(child, 0)
    with locked(tmp_path):
        lock.refuse_if_live(tmp_path / "elsewhere")
    os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_a_lock_is_not_shown(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(b"process 1 on \x1b[2Jhost\n")
        with pytest.raises(UserError, match="in use: another process trains in it"):
            lock.refuse_if_live(tmp_path)
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="can't be written"):
        with locked(tmp_path):
            pass
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_file_system_without_locks_is_said(whole, tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", none)
    run(tmp_path / "run")
    assert sum("can't be locked (No locks available)" in line for line in caplog.messages) == 1
    equals(tmp_path / "run", whole)


# What would fail at the first save


def never_begun(folder: Path, says: str, *more: str) -> None:
    "A run is refused in one line before its first update, and leaves nothing."
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        run(folder, *more)
    line = str(error.value)
    assert says in line and "\n" not in line and error.value.told == {}
    assert sorted(folder.parent.rglob("*")) == before


def test_too_little_room(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=16_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    never_begun(tmp_path / "run", "the disk has 16 MB left")


def test_a_limit_on_the_size_of_files(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        never_begun(tmp_path / "run", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name, flag", [("run", "--checkpoint-dir"),
                                        ("logs", "--tensorboard-log-dir")])
@pytest.mark.parametrize("call, says", [("mkdir", "can't be made"), ("fsync", "can't")])
def test_a_folder_that_takes_nothing(name, flag, call, says, tmp_path, monkeypatch):
    "Permissions, a broken disk or a lost server: what the system says is said."
    owner = {"mkdir": Path, "fsync": os}[call]
    original = getattr(owner, call)

    def refuses(at, *given, **more):
        where = str(at) if call == "mkdir" else os.readlink(f"/proc/self/fd/{at}")
        if f"/{name}" in where:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(at, *given, **more)

    monkeypatch.setattr(owner, call, refuses)
    with pytest.raises(UserError, match=f"{flag} .*{says}.*: Input/output error"):
        run(tmp_path / "run", "--tensorboard-log-dir", str(tmp_path / "logs"))
    assert not (tmp_path / "run").exists()


def test_no_folder_for_temporary_files_is_needed(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    run(tmp_path / "run")
    equals(tmp_path / "run", whole)


# A run that replaces another


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.pt")}


def killed(folder: Path, update: int) -> None:
    "A run with --overwrite that ends without a word."
    def kill(done, metrics):
        if done == update:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, "--overwrite", "--seed", "4", callback=kill)


def test_the_older_run_stays_until_there_is_a_checkpoint(whole, tmp_path):
    folder = tmp_path / "run"
    run(folder)
    old = files_of(folder)
    aside = {f"replaced-1/{name}": content for name, content in old.items()}
    killed(folder, 2)  # before its first checkpoint
    assert files_of(folder) == aside
    with pytest.raises(UserError, match="nothing to resume .* is in .*replaced-1"):
        run(folder, "--resume")
    killed(folder, 2)  # again
    assert files_of(folder) == aside
    killed(folder, 4)  # after the evaluation at 3, which saves the best
    left = files_of(folder)
    assert list(left) == ["best_checkpoint.pt"] and not list(folder.glob("replaced-*"))
    run(folder, "--overwrite")
    equals(folder, whole)


def test_it_is_untouched_by_a_run_that_never_begins(tmp_path):
    folder = tmp_path / "run"
    run(folder)
    old = files_of(folder)
    patch, _ = broken((trainer, "clip_gradient"), 1, False, Boom())
    with pytest.raises(Boom):
        run(folder, "--overwrite")
    patch.undo()
    assert files_of(folder) == old


def test_what_others_put_aside_is_not_deleted(tmp_path):
    folder = tmp_path / "run"
    run(folder)
    (folder / "replaced-1").mkdir(parents=True)
    (folder / "replaced-1/notes.txt").write_text("of the user")
    run(folder, "--overwrite")
    assert [path.name for path in (folder / "replaced-1").iterdir()] == ["notes.txt"]
    assert not (folder / "replaced-2").exists()


# A schedule that changes


def test_a_longer_run_says_where_the_learning_rate_goes(tmp_path, caplog):
    caplog.set_level(logging.INFO, "annotated_mpnet")
    run(tmp_path / "run")
    caplog.clear()
    run(tmp_path / "run", "--resume", "--total-updates", "16")
    line, = [line for line in caplog.messages if "schedule has changed" in line]
    assert "--total-updates 8, now 16" in line and "--lr" in line
    assert "goes from 0, as it was planned, to 0.005;" in line  # 1e-2 * (16 - 8) / 16
    caplog.clear()
    run(tmp_path / "run", "--resume", "--total-updates", "16")
    assert not [line for line in caplog.messages if "schedule" in line]


# Several ranks

LATE = """
import time
from annotated_mpnet import watch
explain = watch.explain
if os.environ["RANK"] == "1": watch.explain = lambda *x: (time.sleep(2.5), explain(*x))[1]
"""


def test_ranks_that_differ_are_refused(tmp_path):
    argv = ["--demo", *TINY, "--checkpoint-dir", "run"]
    group = Group(argv, tmp_path, patch="""
from annotated_mpnet import cli
original = cli.parse_args
if os.environ["RANK"] == "1": cli.parse_args = lambda argv: original([*argv, "--lr", "5e-4"])
""" + LATE)
    assert group.finish() == [2, 2]
    line, = [line for line in group.said().splitlines() if line.startswith("pretrain-mpnet: ")]
    assert "the ranks differ in --lr: 0.01 on rank 0; 0.0005 on rank 1" in line
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


@pytest.mark.parametrize("patch", ["", LATE], ids=["at once", "one late"])
def test_two_ranks_beside_a_run_are_refused(tmp_path, patch):
    "In one line, also where a rank gets to it when rank 0, and the board with it, is gone."
    argv = ["--demo", *TINY, "--checkpoint-dir", "run"]
    with locked(tmp_path / "run"):
        group = Group(argv, tmp_path, patch=patch)
        assert group.finish() == [2, 2]
        said = group.said().splitlines()
        line, = [line for line in said if line.startswith("pretrain-mpnet: ")]
        assert f"in use: process {os.getpid()} on {socket.gethostname()}" in line


def test_the_torture_chamber_opens(capsys):
    "The longer command begins; what it does takes an hour (`make torture`)."
    import torture
    assert torture.main(["--minutes", "0"]) == 0
    assert "0 lives in 0 starts, 0 checkpoints read and whole" in capsys.readouterr().out
