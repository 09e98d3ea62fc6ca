"""Stopped at any instant and taken up again, to the bit: by SIGKILL, by signals, by full disks, by torn files.

    MURDERS=50 pytest tests/test_resume.py -k murder      kills each kind of run fifty times instead of five
"""
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
MODEL = ("--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 --encoder-attention-heads 2 --max-tokens 24 --dropout 0.1 "
         "--batch-size 4 --update-freq 2 --lr 1e-2 --seed 3 --buffer-size 64 --precision float32").split()
STATE = "--save-optimizer-state --checkpoint-interval 5 --checkpoint-dir run --tensorboard-log-dir logs".split()
OFTEN = "--total-updates 60 --eval-interval-steps 15 --logging-steps 4".split()
TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
FILES = "--train-dir texts --valid-file valid.txt --test-file test.txt".split()
STREAM = "--dataset-name stream --eval-samples 8 --min-text-length 0".split()


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
        pq.write_table(pa.table({"text": passages[38 * i:38 * (i + 1)]}), folder / f"stream/{i}.parquet", row_group_size=10)
    return folder


@pytest.fixture
def place(tmp_path, texts) -> Path:
    "An empty folder to run in, with the texts in it."
    for path in texts.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def arguments(source: list[str], *more: str) -> list[str]:
    return [*MODEL, *STATE, *OFTEN, *TOKENIZER, *source, *more]


def same(a, b, where="") -> None:
    "Everything in two checkpoints is equal to the bit, but for durations."
    assert type(a) is type(b), where
    if torch.is_tensor(a):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for name in a:
            if name not in ("train/tokens_per_second", "train/data_wait", "resume", "resume_checkpoint", "checkpoint_dir", "overwrite", "num_workers"):
                same(a[name], b[name], f"{where}/{name}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}/{i}")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


def curves(folder: Path) -> dict[str, list]:
    "What TensorBoard shows of a run, but for durations."
    return {name: line for name, line in read_scalars(folder / "logs").items() if "per_second" not in name and "wait" not in name}


def same_run(a: Path, b: Path, other_arguments_until: int = 0) -> None:
    "Two folders hold the same run: weights, optimizer, place in the data, losses, curves. What one saved under other arguments has the same weights."
    for name in ("final", "best"):
        contents = [read_checkpoint(folder / f"run/{name}_checkpoint.pt") for folder in (a, b)]
        if name == "best" and contents[0]["update"] <= other_arguments_until:
            contents = [{key: value for key, value in content.items() if key not in ("config", "state")} for content in contents]
        same(*contents, name)
    there, here = curves(a), curves(b)
    assert there == here
    assert [step for step, _ in here["train/loss"]] == list(range(4, 61, 4))
    assert [step for step, _ in here["valid/loss"]] == list(range(15, 61, 15)) and len(here["test/loss"]) == 1


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
    "At its end the run waits to be killed, so that every kill hits a process however fast the machine is."
    Path("ended").write_text(str(code))
    while True: signal.pause()
sys.exit = wait
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["files", "stream"])
def test_murder(source, workers, place, left_alone):
    "Killed at random moments, every second time inside the writing of a checkpoint, and taken up each time."
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
            alive = run.wait_for(lambda: ended.exists() or list((place / "run").glob(f".{target}.tmp")))
        else:
            alive = run.wait_for(lambda: ended.exists() or last_saved(place) > before)
            time.sleep(chance.random() * 0.15)
        run.send(signal.SIGKILL)
        assert alive and run.finish() == 137, run.said()
        in_a_write += bool(list((place / "run").glob(".*.tmp")))
    finished([*argv, "--resume"] if last_saved(place) else [*argv, "--overwrite"], place)
    same_run(whole, place)
    assert not list((place / "run").glob(".*.tmp")), "the leavings of killed writes are cleared away"
    print(f"{source}, {workers} workers: {MURDERS} kills, {in_a_write} of them with a checkpoint half written; equal to the bit")


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
    without[without.index("--checkpoint-interval") + 1] = "-1"
    run = Run(without, place, SLOW.format(signal=signum.name, module=module, name=name, count=count))
    assert run.finish() == 128 + signum, run.said()
    path, = interval_checkpoints(place / "run")
    last = run.said().splitlines()[-1]
    assert signum.name in last and path.name in last and "--resume" in last and "Traceback" not in run.said()
    stopped = read_checkpoint(path)
    assert "optimizer" in stopped["state"]
    finished([*argv, "--resume"], place)
    same_run(left_alone("files", argv), place, other_arguments_until=stopped["update"])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_of_a_run(signum, place, left_alone):
    "As a terminal and a cluster send them: the workers, too, get the signal, and leave it to the main process."
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
tokenizer = tokenization.load_tokenizer(%r, 24)
batches = data.Batches(data.Shuffled(["a text", "another text"] * 50), tokenizer, permutation.MaskedPermutedCollator(tokenizer), 2, 24, num_workers=1)
sys.kept = iter(batches)
next(sys.kept)
cli.main = lambda argv: 0
""" % TOKENIZER[1])  # which fails where the run doesn't end


def test_a_second_ctrl_c_ends_at_once(place):
    patch = SLOW.format(signal="SIGINT", module="model.MPNetForPretraining", name="loss", count=20) + """
import threading
from pathlib import Path
def hang(*_, **__):
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    time.sleep(60)
    Path('slept').touch()
trainer.save_interval = hang
"""
    argv = arguments(FILES)
    argv[argv.index("--checkpoint-interval") + 1] = "-1"
    assert "stopped by Ctrl-C" in failed(argv, place, patch, code=130)
    assert not (place / "slept").exists()


def test_a_stop_is_not_pruned_before_there_is_a_newer_one(place):
    argv = arguments(FILES, "--keep-checkpoints", "1")
    argv[argv.index("--checkpoint-interval") + 1] = "20"
    run = Run(argv, place, SLOW.format(signal="SIGTERM", module="model.MPNetForPretraining", name="loss", count=50))
    assert run.finish() == 143
    assert last_saved(place) == 25
    # nothing deleted before the next save
    finished([*argv, "--resume"], place, "from annotated_mpnet import trainer\ntrainer.prune = lambda *_, **__: None")
    assert {path.name for path in interval_checkpoints(place / "run")} == {f"checkpoint{n}.pt" for n in (20, 25, 40, 60)}


# Checkpoints that can't be used


def test_torn_checkpoints_are_passed_over(place, left_alone):
    argv = arguments(FILES)
    run = Run(argv, place, SLOW.format(signal="SIGKILL", module="model.MPNetForPretraining", name="loss", count=62))
    assert run.finish() == 137
    newest = interval_checkpoints(place / "run")
    assert newest[0].name == "checkpoint30.pt"
    newest[0].write_bytes(newest[0].read_bytes()[:-100])
    newest[1].write_bytes(b"")
    said = finished([*argv, "--resume"], place)
    assert said.count("WARNING: passed over") == 2 and "checkpoint30.pt" in said and "going on after update 20" in said
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
    assert last_saved(place) == 15 and load_model(place / "run/checkpoint15.pt") and not list((place / "run").glob(".*"))
    finished([*argv, "--resume"], place)
    same_run(left_alone("files", argv), place)


# Going on under other conditions


def test_a_finished_run_can_be_extended(place):
    argv = arguments(FILES)
    argv[argv.index("--total-updates") + 1] = "18"
    finished(argv, place)
    assert last_saved(place) == 18  # the last update, though 18 is no multiple of 5
    # everything else comes from the checkpoint
    said = finished(["--resume", "--checkpoint-dir", "run", "--total-updates", "22"], place)
    assert "going on after update 18" in said and read_checkpoint(place / "run/final_checkpoint.pt")["update"] == 22
    config = read_checkpoint(place / "run/final_checkpoint.pt")["config"]
    assert (config["lr"], config["batch_size"], config["warmup_updates"], config["save_optimizer_state"]) == (1e-2, 4, 1, True)
    assert "may grow, not shrink" in failed(["--resume", "--checkpoint-dir", "run", "--total-updates", "20"], place)
    before = {path: path.read_bytes() for path in (place / "run").iterdir()}
    finished(["--resume", "--checkpoint-dir", "run"], place)  # nothing is left to do
    same(read_checkpoint(place / "run/final_checkpoint.pt"), torch.load(__import__("io").BytesIO(before[place / "run/final_checkpoint.pt"]), weights_only=True))


@pytest.mark.parametrize("more, says", [
    (["--encoder-layers", "3"], "--encoder-layers 3 contradicts"),
    (["--encoder-layers", "12"], "--encoder-layers 12 contradicts"),  # the default, but given
    (["-prenorm"], "--normalize-before on contradicts"),
    (["--max-tokens", "48"], "--max-tokens 48 is more than the 24 positions"),
    (["--tokenizer-name", "demo"], "the tokenizer has"),
    (["--resume-checkpoint", "nowhere.pt"], "nowhere.pt does not exist"),
    (["--checkpoint-dir", "full"], "already holds"),
])
def test_refused(more, says, place, left_alone):
    argv = arguments(FILES)
    argv[argv.index("--total-updates") + 1] = "10"
    shutil.copytree(left_alone("ten", argv) / "run", place / "run")
    (place / "full").mkdir()
    (place / "full/best_checkpoint.pt").write_bytes(b"weeks of work")
    more = ["--resume-checkpoint", "run/checkpoint10.pt", *more] if "full" in more else more
    before = {path: path.read_bytes() for path in (place / "run").iterdir()}
    assert says in failed([*more[:0], "--resume", "--checkpoint-dir", "run", *more], place)
    assert before == {path: path.read_bytes() for path in (place / "run").iterdir()}


def test_weights_alone_begin_at_update_0_and_lose_nothing(place):
    argv = [word for word in arguments(FILES) if word != "--save-optimizer-state"]
    argv[argv.index("--total-updates") + 1] = "10"
    finished(argv, place)
    before = {path.name: path.read_bytes() for path in (place / "run").iterdir()}
    said = finished([*argv, "--resume", "--resume-checkpoint", "run/checkpoint10.pt", "--checkpoint-dir", "other"], place)
    assert "only the weights are taken" in said and "update 0" in said and "earlier" not in said
    first = read_checkpoint(place / "other/checkpoint5.pt")
    assert first["update"] == 5 and not torch.equal(first["model"]["lm_head.bias"], read_checkpoint(place / "run/checkpoint5.pt")["model"]["lm_head.bias"])
    said = finished([*argv, "--resume"], place)  # in its own folder: what was there is kept aside
    assert "run/earlier-1" in said and {path.name: path.read_bytes() for path in (place / "run/earlier-1").iterdir()} == before
    same(read_checkpoint(place / "run/final_checkpoint.pt"), read_checkpoint(place / "other/final_checkpoint.pt"))
    (place / "full").mkdir()
    (place / "full/best_checkpoint.pt").write_bytes(b"weeks of work")  # of another run
    assert "already holds" in failed([*argv, "--resume", "--resume-checkpoint", "run/checkpoint10.pt", "--checkpoint-dir", "full"], place)


def test_going_back_keeps_the_other_history_aside(place, left_alone):
    argv = arguments(FILES)
    finished(argv, place)
    before = {path.name: path.read_bytes() for path in (place / "run").iterdir() if path.stem[10:] not in ("5", "10", "15", "20")}
    said = finished([*argv, "--resume", "--resume-checkpoint", "run/checkpoint20.pt"], place)
    assert "going on after update 20" in said and "run/earlier-1" in said
    aside = {path.name: path.read_bytes() for path in (place / "run/earlier-1").iterdir()}
    assert aside == before and {"checkpoint60.pt", "final_checkpoint.pt", "best_checkpoint.pt"} <= aside.keys()
    same_run(left_alone("files", argv), place)
    assert "earlier" not in finished([*argv, "--resume", "--resume-checkpoint", "run/checkpoint60.pt"], place)


def test_overwrite_leaves_nothing_of_the_old_run(place):
    argv = arguments(FILES)
    argv[argv.index("--total-updates") + 1] = "20"
    finished(argv, place)
    argv[argv.index("--total-updates") + 1] = "10"
    assert "already holds" in failed(argv, place)
    finished([*argv, "--overwrite"], place)
    assert [path.name for path in interval_checkpoints(place / "run")] == ["checkpoint10.pt", "checkpoint5.pt"]


@pytest.mark.parametrize("keep, left", [("-1", [20, 15, 10, 5]), ("0", []), ("2", [20, 15])])
def test_keep_checkpoints(keep, left, place):
    argv = arguments(FILES, "--keep-checkpoints", keep)
    argv[argv.index("--total-updates") + 1] = "20"
    finished(argv, place)
    assert [path.name for path in interval_checkpoints(place / "run")] == [f"checkpoint{n}.pt" for n in left]
    assert all((place / f"run/{name}_checkpoint.pt").exists() for name in ("best", "final"))


def test_a_longer_context_as_planned(place):
    "Train at 16 positions with 32 planned, then go on at 32 (the footnote of the configuration reference)."
    argv = arguments(FILES, "--max-tokens", "16", "--max-positions", "32", "--total-updates", "10")
    said = finished(argv, place)
    assert "32 positions for texts of up to 16 tokens" in said
    finished(["--resume", "--checkpoint-dir", "run", "--max-tokens", "32", "--total-updates", "20"], place)
    final = read_checkpoint(place / "run/final_checkpoint.pt")
    assert final["config"]["max_tokens"] == 32 and final["model_config"]["max_positions"] == 32 and final["update"] == 20


def test_a_changed_batch_is_said(place):
    argv = arguments(FILES)
    argv[argv.index("--total-updates") + 1] = "10"
    finished(argv, place)
    said = finished(["--resume", "--checkpoint-dir", "run", "--batch-size", "8", "--total-updates", "12"], place)
    assert "WARNING: the order of the data has changed (buffer_size" in said or "global_batch 8, now 16" in said
    assert "WARNING" not in finished(["--resume", "--checkpoint-dir", "run", "--batch-size", "16", "--update-freq", "1", "--num-workers", "1",
                                      "--total-updates", "14"], place)
    (place / "more").mkdir()
    (place / "more/a.txt").write_text("another text\n" * 50)
    said = finished("--resume --checkpoint-dir run --train-dir more --valid-file valid.txt --test-file test.txt --total-updates 16".split(), place)
    assert "the training data were" in said


def test_a_stream_that_breaks_off_leaves_a_checkpoint(place, left_alone):
    argv = arguments(STREAM)
    patch = """
from annotated_mpnet import streams
streams.PAUSES = (0, 0)
original, count = streams.Stream.text_of, [0]
def text_of(self, example, row):
    count[0] += 1
    if count[0] > 300: raise ConnectionError("the line is dead")
    return original(self, example, row)
streams.Stream.text_of = text_of
"""
    last = failed(argv, place, patch)
    assert "broke off" in last and "the line is dead" in last and "checkpoint" in last and last_saved(place) > 0
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
    assert "update 8: 2 updates since the last line had a loss or gradient that is not finite; they were left out" in said
    final = read_checkpoint(place / "run/final_checkpoint.pt")
    assert all(x.isfinite().all() for x in final["model"].values()) and final["update"] == 60
    assert float(next(iter(final["state"]["optimizer"]["state"].values()))["step"]) == 58


def test_many_lost_updates_end_the_run(place):
    last = failed(arguments(FILES), place, LOSE.format(when="count[0] > 16"))
    assert "20 updates in a row had no finite gradient" in last and "checkpoint35.pt" in last
    assert all(x.isfinite().all() for x in read_checkpoint(place / "run/checkpoint35.pt")["model"].values())


# From Python


def test_pretrain_from_python(tmp_path):
    sentences = embedded_corpus()[:40]
    config = parse_args([*MODEL, *TOKENIZER, "--total-updates", "6", "--checkpoint-dir", str(tmp_path / "run"), "--save-optimizer-state"])

    def stop(update, metrics):
        if update == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        pretrain(config, train=sentences, valid=sentences[:4], callback=stop)
    assert stopped.value.path.name == "checkpoint3.pt"
    config.resume, config.given = True, config.given | {"resume"}
    result = pretrain(config, train=sentences, valid=sentences[:4])
    config = parse_args([*MODEL, *TOKENIZER, "--total-updates", "6", "--checkpoint-dir", str(tmp_path / "other"), "--save-optimizer-state"])
    again = pretrain(config, train=sentences, valid=sentences[:4])
    assert result["valid/loss"] == again["valid/loss"] and result["train/loss"] == again["train/loss"]
    same(read_checkpoint(result["final_checkpoint"]), read_checkpoint(again["final_checkpoint"]))
    with pytest.raises(UserError, match="both train and valid"):
        pretrain(config, train=sentences)


def test_the_state_is_plain_data(place):
    argv = arguments(STREAM)
    argv[argv.index("--total-updates") + 1] = "5"
    finished(argv, place)
    state = read_checkpoint(place / "run/checkpoint5.pt")["state"]
    assert len(json.dumps(state["data"])) < 2000
