"""Stopped at any instant and resumed bit by bit: after SIGKILL, signals, full disks, torn files.

    MURDERS=50 pytest tests/test_resume.py -k murder      kills each kind of run 50 times, not 5
"""
import io
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers_runs import FIXTURES, Run, failed, finished

from annotated_mpnet.checkpoints import interval_checkpoints, load_model, read_checkpoint
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.configuration import UserError
from annotated_mpnet.tokenization import embedded_corpus
from annotated_mpnet.tracking import read_scalars
from annotated_mpnet.interruption import Stopped
from annotated_mpnet.trainer import pretrain

MURDERS = int(os.environ.get("MURDERS", 5))
MODEL = """
    --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 --encoder-attention-heads 2
    --max-tokens 24 --dropout 0.1 --batch-size 4 --update-freq 2 --lr 1e-2 --seed 3
    --buffer-size 64 --precision float32
""".split()
STATE = """
    --save-optimizer-state --checkpoint-interval 5 --checkpoint-dir run --tensorboard-log-dir logs
""".split()
OFTEN = "--total-updates 60 --eval-interval-steps 15 --logging-steps 4".split()
TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
FILES = "--train-dir texts --valid-file valid.txt --test-file test.txt".split()
STREAM = "--dataset-name stream --eval-samples 8 --min-text-length 0".split()
RESUME = "--resume --checkpoint-dir run".split()
OTHERWISE_EQUAL = """
    train/tokens_per_second train/data_wait
    resume resume_checkpoint checkpoint_dir overwrite num_workers
""".split()


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    "The same 150 passages as two text files and as four Parquet files."
    import pyarrow as pa
    import pyarrow.parquet as pq
    folder, passages = tmp_path_factory.mktemp("texts"), embedded_corpus()[:150]
    (folder / "texts").mkdir()
    (folder / "stream").mkdir()
    for i in range(2):
        (folder / f"texts/{i}.txt").write_text("\n".join(passages[20 + i:130:2]))
    for name in ("valid.txt", "test.txt"):
        (folder / name).write_text("\n".join(passages[-12:]))
    for i in range(4):
        table = pa.table({"text": passages[38 * i:38 * (i + 1)]})
        pq.write_table(table, folder / f"stream/{i}.parquet", row_group_size=10)
    return folder


@pytest.fixture
def place(tmp_path, texts) -> Path:
    "An empty folder to run in, with the texts in it."
    for path in texts.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def arguments(source: list[str], *more: str) -> list[str]:
    return [*MODEL, *STATE, *OFTEN, *TOKENIZER, *source, *more]


def with_value(argv: list[str], flag: str, value: str) -> list[str]:
    "The same arguments, but for one value."
    at = argv.index(flag) + 1
    return [*argv[:at], value, *argv[at + 1:]]


def contents(folder: Path) -> dict[str, bytes]:
    "The files of a folder."
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def final(folder: Path, run: str = "run") -> dict:
    "The last checkpoint of a run."
    return read_checkpoint(folder / f"{run}/final_checkpoint.pt")


def saved(folder: Path) -> list[str]:
    "The interval checkpoints of a run, the newest first."
    return [path.name for path in interval_checkpoints(folder / "run")]


def same(a, b, where="") -> None:
    "Everything in two checkpoints is equal to the bit, but for durations."
    assert type(a) is type(b), where
    if torch.is_tensor(a):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for name in a:
            if name not in OTHERWISE_EQUAL:
                same(a[name], b[name], f"{where}/{name}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}/{i}")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


def curves(folder: Path) -> dict[str, list]:
    "What TensorBoard shows of a run, but for durations."
    found = read_scalars(folder / "logs")
    durations = [name for name in found if "per_second" in name or "wait" in name]
    return {name: line for name, line in found.items() if name not in durations}


def same_run(a: Path, b: Path, other_arguments_until: int = 0) -> None:
    "Two folders hold the same run; what was saved under other arguments has the same weights."
    same(final(a), final(b), "final")
    best = [read_checkpoint(folder / "run/best_checkpoint.pt") for folder in (a, b)]
    if best[0]["update"] <= other_arguments_until:
        for content in best:
            content.pop("config", None)
            content.pop("state", None)
    same(*best, "best")
    there, here = curves(a), curves(b)
    assert there == here
    assert [step for step, _ in here["train/loss"]] == list(range(4, 61, 4))
    assert [step for step, _ in here["valid/loss"]] == list(range(15, 61, 15))
    assert len(here["test/loss"]) == 1


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory, texts):
    "The same runs, never stopped; made when they are first asked for."
    made = {}

    def get(name: str, argv: list[str]) -> Path:
        if name not in made:
            made[name] = folder = tmp_path_factory.mktemp(name)
            for path in texts.iterdir():
                (folder / path.name).symlink_to(path)
            finished(argv, folder)
        return made[name]
    return get


def last_saved(folder: Path) -> int:
    "The number of the newest interval checkpoint, 0 where there is none."
    return max((int(path.stem[10:]) for path in interval_checkpoints(folder / "run")), default=0)


# SIGKILL


WAITS = """
import signal, sys
from pathlib import Path
def wait(code=0):
    "At its end the run waits to be killed: every kill hits a process, however fast the machine."
    Path("ended").write_text(str(code))
    while True: signal.pause()
sys.exit = wait
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["files", "stream"])
def test_murder(source, workers, place, left_alone):
    "Killed at random moments, every second time while writing a checkpoint, and resumed each time."
    argv = arguments(FILES if source == "files" else STREAM)
    whole = left_alone(source, argv)  # the number of workers must make no difference
    chance, argv = random.Random(f"{source}{workers}"), [*argv, "--num-workers", str(workers)]
    ended, in_a_write = place / "ended", 0
    for number in range(MURDERS):
        if ended.exists():  # the last one came to its end before it was killed: begin again
            assert ended.read_text() == "0"
            same_run(whole, place)
            for path in (ended, *(place / "run").iterdir(), *(place / "logs").iterdir()):
                path.unlink()
        before = last_saved(place)
        run = Run([*argv, "--resume"] if before else [*argv, "--overwrite"], place, WAITS)
        if number % 2:
            target = chance.choice(["checkpoint*", "best*", "*"])
            writing = lambda: list((place / "run").glob(f".{target}.tmp"))
            alive = run.wait_for(lambda: ended.exists() or writing())
        else:
            alive = run.wait_for(lambda: ended.exists() or last_saved(place) > before)
            time.sleep(chance.random() * 0.15)
        run.send(signal.SIGKILL)
        assert alive and run.finish() == 137, run.said()
        in_a_write += bool(list((place / "run").glob(".*.tmp")))
    finished([*argv, "--resume"] if last_saved(place) else [*argv, "--overwrite"], place)
    same_run(whole, place)
    left_over = list((place / "run").glob(".*.tmp"))
    assert not left_over, "the leavings of killed writes are cleared away"
    print(f"{source}, {workers} workers: {MURDERS} kills, {in_a_write} of them inside a write")


# SIGTERM and Ctrl-C


SLOW = """
import os, signal, time
from annotated_mpnet import model, sealed, trainer
def stop_in(module, name, count):
    "Send this process a signal in the midst of the `count`-th call of a function."
    original, calls = getattr(module, name), []
    def slow(*arguments, **more):
        calls.append(1)
        if len(calls) == count: os.kill(os.getpid(), signal.{signal})
        return original(*arguments, **more)
    setattr(module, name, slow)
stop_in({module}, {name!r}, {count})
"""


def at_micro_batch(count: int, signum: str) -> str: # code to run first
    "Send a signal in the midst of a micro-batch."
    module = "model.MPNetForPretraining"
    return SLOW.format(signal=signum, module=module, name="loss", count=count)


@pytest.mark.parametrize("what, module, name, count", [
    # two micro-batches an update: in the first of the 16th
    ("an accumulation", "model.MPNetForPretraining", "loss", 31),
    ("an evaluation", "model.MPNetForPretraining", "token_losses", 39),
    ("a write", "sealed", "sync_folder", 2),
])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals(what, module, name, count, signum, place, left_alone):
    argv = arguments(FILES)
    # it is saved on a signal whatever the flags say
    without = [word for word in argv if word not in ("--save-optimizer-state",)]
    without = with_value(without, "--checkpoint-interval", "-1")
    stop = SLOW.format(signal=signum.name, module=module, name=name, count=count)
    run = Run(without, place, stop)
    assert run.finish() == 128 + signum, run.said()
    path, = interval_checkpoints(place / "run")
    last = run.said().splitlines()[-1]
    assert signum.name in last and path.name in last and "--resume" in last
    assert "Traceback" not in run.said()
    stopped = read_checkpoint(path)
    assert "optimizer" in stopped["state"]
    finished([*argv, "--resume"], place)
    same_run(left_alone("files", argv), place, other_arguments_until=stopped["update"])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_of_a_run(signum, place, left_alone):
    "As terminals and clusters send them: workers get it, too, and leave it to the main process."
    argv = arguments(FILES)
    run = Run([*argv, "--num-workers", "2"], place, "import os\nos.setsid()")
    assert run.wait_for(lambda: last_saved(place) >= 15)
    os.killpg(run.process.pid, signum)
    assert run.finish() == 128 + signum, run.said()
    with pytest.raises(ProcessLookupError):  # nobody is left
        os.killpg(run.process.pid, 0)
    finished([*argv, "--resume"], place)
    same_run(left_alone("files", argv), place)


def test_workers_end_with_a_process_that_forgot_them(place):
    "Batches that are not closed must not hold up the end of the program."
    finished(arguments(FILES), place, """
import sys
from annotated_mpnet import cli, data, permutation, tokenization
tokenizer = tokenization.load_tokenizer(TOKENIZER, 24)
texts = data.Shuffled(["a text", "another text"] * 50)
collate = permutation.MaskedPermutedCollator(tokenizer)
batches = data.Batches(texts, tokenizer, collate, 2, 24, num_workers=1)
sys.kept = iter(batches)
next(sys.kept)
cli.main = lambda argv: 0
""".replace("TOKENIZER", repr(TOKENIZER[1])))  # which fails where the run doesn't end


def test_a_second_ctrl_c_ends_at_once(place):
    patch = at_micro_batch(20, "SIGINT") + """
import threading
from pathlib import Path
def hang(*_, **__):
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    time.sleep(60)
    Path('slept').touch()
trainer.save_interval = hang
"""
    argv = with_value(arguments(FILES), "--checkpoint-interval", "-1")
    assert "stopped by Ctrl-C" in failed(argv, place, patch, code=130)
    assert not (place / "slept").exists()


def test_a_stop_is_not_pruned_before_there_is_a_newer_one(place):
    argv = with_value(arguments(FILES, "--keep-checkpoints", "1"), "--checkpoint-interval", "20")
    run = Run(argv, place, at_micro_batch(50, "SIGTERM"))
    assert run.finish() == 143
    assert last_saved(place) == 25
    # nothing deleted before the next save
    keep_all = "from annotated_mpnet import pieces\npieces.prune = lambda *_, **__: None"
    finished([*argv, "--resume"], place, keep_all)
    assert set(saved(place)) == {f"checkpoint{n}.pt" for n in (20, 25, 40, 60)}


# Checkpoints that can't be used


def test_torn_checkpoints_are_passed_over(place, left_alone):
    argv = arguments(FILES)
    run = Run(argv, place, at_micro_batch(62, "SIGKILL"))
    assert run.finish() == 137
    newest = interval_checkpoints(place / "run")
    assert newest[0].name == "checkpoint30.pt"
    newest[0].write_bytes(newest[0].read_bytes()[:-100])
    newest[1].write_bytes(b"")
    said = finished([*argv, "--resume"], place)
    assert said.count("WARNING: skipped") == 2 and "checkpoint30.pt" in said
    assert "resumed after update 20" in said
    same_run(left_alone("files", argv), place)


def test_code_and_foreign_keys_end_in_a_line(place, tmp_path):
    argv = arguments(FILES, "--resume")
    (place / "run").mkdir()

    class Plant:
        def __reduce__(self): return os.system, (f"touch {place}/it-ran",)

    torch.save({"model": Plant()}, place / "run/checkpoint10.pt")
    assert "--trust-checkpoint" in failed(argv, place) and not (place / "it-ran").exists()
    torch.save({"weights": torch.ones(2)}, place / "run/checkpoint10.pt")
    assert "checkpoint10.pt" in failed(argv, place)
    (place / "run/checkpoint10.pt").unlink()
    assert "nothing to resume" in failed(argv, place)
    assert not (place / "it-ran").exists()


# A full disk


FULL = """
import errno, os
from annotated_mpnet import sealed
original = sealed.HashingWriter.__init__
class Full:
    "A file on a disk that has room for so many bytes more."
    def __init__(self, file): self.file, self.left = file, {limit}
    def write(self, data):
        self.left -= len(bytes(data))
        if self.left < 0: raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)
def __init__(self, file): original(self, Full(file) if "{name}" in file.name else file)
sealed.HashingWriter.__init__ = __init__
"""


@pytest.mark.parametrize("limit", [0, 5_000, 60_000])
def test_a_full_disk(limit, place, left_alone):
    argv = arguments(FILES)
    last = failed(argv, place, FULL.format(name="checkpoint20.pt", limit=limit))
    assert "checkpoint20.pt" in last and "No space left on device" in last and "untouched" in last
    assert last_saved(place) == 15 and load_model(place / "run/checkpoint15.pt")
    assert not list((place / "run").glob(".*"))
    finished([*argv, "--resume"], place)
    same_run(left_alone("files", argv), place)


# Going on under other conditions


def test_a_finished_run_can_be_extended(place):
    argv = with_value(arguments(FILES), "--total-updates", "18")
    finished(argv, place)
    assert last_saved(place) == 18  # the last update, though 18 is no multiple of 5
    # everything else comes from the checkpoint
    said = finished([*RESUME, "--total-updates", "22"], place)
    assert "resumed after update 18" in said and final(place)["update"] == 22
    config = final(place)["config"]
    assert (config["lr"], config["batch_size"], config["warmup_updates"]) == (1e-2, 4, 1)
    assert config["save_optimizer_state"] is True
    assert "may grow, not shrink" in failed([*RESUME, "--total-updates", "20"], place)
    before = io.BytesIO((place / "run/final_checkpoint.pt").read_bytes())
    finished(RESUME, place)  # nothing is left to do
    same(final(place), torch.load(before, weights_only=True))


@pytest.mark.parametrize("more, says", [
    (["--encoder-layers", "3"], "--encoder-layers 3 contradicts"),
    (["--encoder-layers", "12"], "--encoder-layers 12 contradicts"),  # the default, but given
    (["-prenorm"], "--normalize-before on contradicts"),
    (["--max-tokens", "48"], "--max-tokens 48 is more than the 24 positions"),
    (["--tokenizer-name", "demo"], "has another vocabulary than the tokenizer"),
    (["--resume-checkpoint", "nowhere.pt"], "nowhere.pt does not exist"),
    (["--checkpoint-dir", "full"], "already holds"),
])
def test_refused(more, says, place, left_alone):
    argv = with_value(arguments(FILES), "--total-updates", "10")
    shutil.copytree(left_alone("ten", argv) / "run", place / "run")
    (place / "full").mkdir()
    (place / "full/best_checkpoint.pt").write_bytes(b"weeks of work")
    more = ["--resume-checkpoint", "run/checkpoint10.pt", *more] if "full" in more else more
    before = contents(place / "run")
    assert says in failed([*RESUME, *more], place)
    assert before == contents(place / "run")


def test_weights_alone_begin_at_update_0_and_lose_nothing(place):
    argv = [word for word in arguments(FILES) if word != "--save-optimizer-state"]
    argv = with_value(argv, "--total-updates", "10")
    finished(argv, place)
    before = contents(place / "run")
    from_10 = [*argv, "--resume", "--resume-checkpoint", "run/checkpoint10.pt"]
    said = finished([*from_10, "--checkpoint-dir", "other"], place)
    assert "only the weights are taken" in said and "update 0" in said and "earlier" not in said
    first, old = (read_checkpoint(place / name / "checkpoint5.pt") for name in ("other", "run"))
    assert first["update"] == 5
    assert not torch.equal(first["model"]["lm_head.bias"], old["model"]["lm_head.bias"])
    said = finished([*argv, "--resume"], place)  # in its own folder: what was there is kept aside
    assert "run/earlier-1" in said and contents(place / "run/earlier-1") == before
    same(final(place), final(place, "other"))
    (place / "full").mkdir()
    (place / "full/best_checkpoint.pt").write_bytes(b"weeks of work")  # of another run
    assert "already holds" in failed([*from_10, "--checkpoint-dir", "full"], place)


def test_going_back_keeps_the_other_history_aside(place, left_alone):
    argv = arguments(FILES)
    finished(argv, place)
    before = contents(place / "run")
    for n in (5, 10, 15, 20):
        before.pop(f"checkpoint{n}.pt", None)
    resume_from = [*argv, "--resume", "--resume-checkpoint"]
    said = finished([*resume_from, "run/checkpoint20.pt"], place)
    assert "resumed after update 20" in said and "run/earlier-1" in said
    aside = contents(place / "run/earlier-1")
    assert aside == before
    assert {"checkpoint60.pt", "final_checkpoint.pt", "best_checkpoint.pt"} <= aside.keys()
    same_run(left_alone("files", argv), place)
    assert "earlier" not in finished([*resume_from, "run/checkpoint60.pt"], place)


def test_overwrite_leaves_nothing_of_the_old_run(place):
    finished(with_value(arguments(FILES), "--total-updates", "20"), place)
    argv = with_value(arguments(FILES), "--total-updates", "10")
    assert "already holds" in failed(argv, place)
    finished([*argv, "--overwrite"], place)
    assert saved(place) == ["checkpoint10.pt", "checkpoint5.pt"]


@pytest.mark.parametrize("keep, left", [("-1", [20, 15, 10, 5]), ("0", []), ("2", [20, 15])])
def test_keep_checkpoints(keep, left, place):
    argv = arguments(FILES, "--keep-checkpoints", keep)
    finished(with_value(argv, "--total-updates", "20"), place)
    assert saved(place) == [f"checkpoint{n}.pt" for n in left]
    assert all((place / f"run/{name}_checkpoint.pt").exists() for name in ("best", "final"))


def test_a_longer_context_as_planned(place):
    "16 tokens with 32 positions planned, then 32 (the footnote of the configuration reference)."
    argv = arguments(FILES, "--max-tokens", "16", "--max-positions", "32", "--total-updates", "10")
    said = finished(argv, place)
    assert "32 positions for texts of up to 16 tokens" in said
    finished([*RESUME, "--max-tokens", "32", "--total-updates", "20"], place)
    last = final(place)
    assert last["config"]["max_tokens"] == 32 and last["model_config"]["max_positions"] == 32
    assert last["update"] == 20


def test_a_changed_batch_is_said(place):
    finished(with_value(arguments(FILES), "--total-updates", "10"), place)
    said = finished([*RESUME, "--batch-size", "8", "--total-updates", "12"], place)
    reordered = "WARNING: the order of the data has changed (buffer_size"
    assert reordered in said or "global_batch 8, now 16" in said
    same_batch = "--batch-size 16 --update-freq 1 --num-workers 1 --total-updates 14".split()
    assert "WARNING" not in finished([*RESUME, *same_batch], place)
    (place / "more").mkdir()
    (place / "more/a.txt").write_text("another text\n" * 50)
    other_files = "--train-dir more --valid-file valid.txt --test-file test.txt".split()
    said = finished([*RESUME, *other_files, "--total-updates", "16"], place)
    assert "the training data were" in said


def test_a_stream_that_breaks_off_leaves_a_checkpoint(place, left_alone):
    argv = arguments(STREAM)
    patch = """
from annotated_mpnet import streams
streams.PAUSES = (0, 0)
original, count = streams.Stream._whole, [0]
def whole(self, first, texts):
    count[0] += len(texts)
    if count[0] > 300: raise ConnectionError("the line is dead")
    return original(self, first, texts)
streams.Stream._whole = whole
"""
    last = failed(argv, place, patch)
    assert "broke off" in last and "the line is dead" in last and "checkpoint" in last
    assert last_saved(place) > 0
    finished([*argv, "--resume"], place)
    same_run(left_alone("stream", argv), place)


# Numbers that are lost


LOSE = """
from annotated_mpnet import trainer
original = trainer.accumulate
count = [0]
def accumulate(*arguments):
    loss, right, n = original(*arguments)
    count[0] += 1
    if {when}: loss = loss * float("nan")
    return loss, right, n
trainer.accumulate = accumulate
"""


def test_a_lost_update_is_skipped_and_said(place, left_alone):
    argv = arguments(FILES)
    said = finished(argv, place, LOSE.format(when="count[0] in (6, 7)"))
    lost = ("update 8: 2 updates since the last line had a loss or gradient that is not finite; "
            "they were skipped")
    assert lost in said
    last = final(place)
    assert all(x.isfinite().all() for x in last["model"].values()) and last["update"] == 60
    assert float(next(iter(last["state"]["optimizer"]["state"].values()))["step"]) == 58


def test_many_lost_updates_end_the_run(place):
    last = failed(arguments(FILES), place, LOSE.format(when="count[0] > 16"))
    assert "20 updates in a row had no finite gradient" in last and "checkpoint35.pt" in last
    weights = read_checkpoint(place / "run/checkpoint35.pt")["model"]
    assert all(x.isfinite().all() for x in weights.values())


# From Python


def test_pretrain_from_python(tmp_path):
    sentences = embedded_corpus()[:40]
    argv = [*MODEL, *TOKENIZER, "--total-updates", "6", "--save-optimizer-state"]
    config = parse_args([*argv, "--checkpoint-dir", str(tmp_path / "run")])

    def stop(update, metrics):
        if update == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        pretrain(config, train=sentences, valid=sentences[:4], callback=stop)
    assert stopped.value.path.name == "checkpoint3.pt"
    config.resume, config.given = True, config.given | {"resume"}
    result = pretrain(config, train=sentences, valid=sentences[:4])
    config = parse_args([*argv, "--checkpoint-dir", str(tmp_path / "other")])
    again = pretrain(config, train=sentences, valid=sentences[:4])
    assert result["valid/loss"] == again["valid/loss"]
    assert result["train/loss"] == again["train/loss"]
    same(read_checkpoint(result["final_checkpoint"]), read_checkpoint(again["final_checkpoint"]))
    with pytest.raises(UserError, match="both train and valid"):
        pretrain(config, train=sentences)


def test_the_state_is_plain_data(place):
    argv = with_value(arguments(STREAM), "--total-updates", "5")
    finished(argv, place)
    state = read_checkpoint(place / "run/checkpoint5.pt")["state"]
    assert len(json.dumps(state["data"])) < 2000
