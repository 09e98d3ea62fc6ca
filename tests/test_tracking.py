"""A run's numbers: shown, written, and read back in TensorBoard's and W&B's own formats."""
import io
import json
import multiprocessing
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers_runs import HANGS, python
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from annotated_mpnet import tracking
from annotated_mpnet.attention import dense_bias
from annotated_mpnet.configuration import ModelConfig, PretrainConfig, UserError
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import train_tokenizer
from annotated_mpnet.tracking import Tracker, peak_flops, read_scalars, update_flops

TRAIN = {
    "train/loss": 7.338, "train/accuracy": 0.045, "train/learning_rate": 8e-4,
    "train/grad_norm": 1.144, "train/tokens_per_second": 18188.2, "train/data_wait": 0.012,
    "train/mfu": 0.41, "train/padding": 0.034,
}
VALID = {"valid/loss": 5.723, "valid/accuracy": 0.155, "valid/mask_loss": 6.069}


PLAIN = {"force_jupyter": False, "highlight": False, "soft_wrap": True}


def plain(file: io.StringIO) -> Console:
    return Console(file=file, force_terminal=False, **PLAIN)


def terminal(file: io.StringIO, width: int = 100) -> Console:
    return Console(file=file, force_terminal=True, width=width, color_system=None, **PLAIN)


def quiet_tracker(config: PretrainConfig, start: int = 0) -> Tracker:
    "One whose console nobody reads."
    return Tracker(config, start, console=plain(io.StringIO()))


# TensorBoard. The child logs at every update, in each process with another value, and "saves" at
# every fifth.


def checkpoint(folder: Path) -> int:
    path = folder / "checkpoint"
    return int(path.read_text()) if path.exists() else 0


def train(folder: Path,
          attempt: int,       # its number is in each value
          total: int,         # updates
          start: int,         # the update after which it begins
          kill_at: int = 0,   # the update at which it kills itself
          pause: float = 0.0, # seconds between two updates
         ) -> None:
    "A loop that logs; the value says which process wrote it."
    config = PretrainConfig(total_updates=total, tensorboard_log_dir=str(folder / "logs"))
    with quiet_tracker(config, start) as tracker:
        for update in range(start + 1, total + 1):
            time.sleep(pause)
            tracker.log(update, {"train/loss": attempt + update / 1000})
            if update % 10 == 0:
                tracker.log(update, {"valid/loss": attempt + update / 1000})
            if update % 5 == 0:
                tracker.flush()
                (folder / "new").write_text(str(update))
                (folder / "new").rename(folder / "checkpoint")
            if update == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def children():
    "A way to start processes that needn't import everything again."
    context = multiprocessing.get_context("forkserver")
    names = ("model", "permutation", "tokenization", "tracking")
    ours = [f"annotated_mpnet.{name}" for name in names]
    theirs = ["pytest", "torch.utils.tensorboard", "torch.utils.flop_counter"]
    context.set_forkserver_preload(theirs + ours)
    return context


def run_child(folder: Path,
              attempt: int,
              total: int,
              start: int | None = None, # None: from the checkpoint
              kill_at: int = 0,         # the update at which it is killed inside
              kill_after: float = 0,    # seconds after which it is killed from outside
              pause: float = 0.0,
             ) -> int: # its exit code
    "One process of `train`."
    start = checkpoint(folder) if start is None else start
    child = children().Process(target=train, args=(folder, attempt, total, start, kill_at, pause))
    child.start()
    if kill_after:
        # The clock of the kill starts with the first record.
        while not any((folder / "logs").glob(f"*.{child.pid}.*")) and child.is_alive():
            time.sleep(0.01)
        time.sleep(kill_after)
        child.kill()
    child.join(HANGS)
    return child.exitcode


def steps(folder: Path, name: str = "train/loss") -> list[int]:
    return [step for step, _ in read_scalars(folder / "logs")[name]]


def writers(folder: Path) -> list[int]: # the process whose number stands at each update
    return [int(value) for _, value in read_scalars(folder / "logs")["train/loss"]]


def tear(folder: Path, how: int) -> None:
    "Leave half a record at the end of the newest file, as a kill inside a write does."
    newest = max((folder / "logs").iterdir(), key=lambda path: path.name)
    record = newest.read_bytes()
    first = 16 + struct.unpack("<Q", record[:8])[0]
    junk = record[:first - 4] + b"junk"
    newest.write_bytes(record + [b"", record[:5], record[:11], record[:first - 6], junk][how])


def test_killed_twice_and_taken_up_from_an_earlier_checkpoint(tmp_path):
    assert run_child(tmp_path, 1, 40, kill_at=18) == -signal.SIGKILL
    assert steps(tmp_path) == list(range(1, 19))  # three lines behind the checkpoint of update 15
    assert run_child(tmp_path, 2, 40, kill_at=33) == -signal.SIGKILL
    assert writers(tmp_path) == [1] * 15 + [2] * 18
    # back to an old checkpoint: all behind it is gone
    assert run_child(tmp_path, 3, 40, start=5, kill_at=7) == -signal.SIGKILL
    assert writers(tmp_path) == [1] * 5 + [3] * 2 and steps(tmp_path, "valid/loss") == []
    assert run_child(tmp_path, 4, 40, start=5) == 0
    assert steps(tmp_path) == list(range(1, 41)) and writers(tmp_path) == [1] * 5 + [4] * 35
    assert steps(tmp_path, "valid/loss") == [10, 20, 30, 40]


def test_killed_at_random_moments_with_torn_records(tmp_path):
    dice = random.Random(0)
    for attempt in range(1, 5):
        if checkpoint(tmp_path) == 200:
            break
        code = run_child(tmp_path, attempt, 200, kill_after=dice.uniform(0.05, 0.5), pause=0.01)
        assert code in (0, -signal.SIGKILL)
        tear(tmp_path, attempt)
        found = steps(tmp_path)
        assert found == list(range(1, len(found) + 1)) and len(found) >= checkpoint(tmp_path)
    assert run_child(tmp_path, 9, 200) == 0
    assert steps(tmp_path) == list(range(1, 201))
    assert steps(tmp_path, "valid/loss") == list(range(10, 201, 10))
    # never an older process's number after a newer one's
    assert writers(tmp_path) == sorted(writers(tmp_path))


def test_many_resumes_within_a_second_keep_their_order(tmp_path):
    for attempt, start in enumerate([0, 5, 10], 1):
        train(tmp_path, attempt, start + 7, start)
    assert writers(tmp_path) == [1] * 5 + [2] * 5 + [3] * 7
    stamps = [path.name.split(".")[3] for path in (tmp_path / "logs").iterdir()]
    assert len(set(stamps)) == 3  # readers go by the names


def test_a_new_run_in_an_old_folder_hides_the_old_one(tmp_path):
    train(tmp_path, 1, 12, 0)
    train(tmp_path, 2, 4, 0)
    assert writers(tmp_path) == [2] * 4 and steps(tmp_path, "valid/loss") == []


def test_what_was_logged_at_the_checkpoint_is_not_logged_again(tmp_path):
    config = PretrainConfig(total_updates=3, tensorboard_log_dir=str(tmp_path / "logs"))
    for _ in range(2): # a finished run, taken up again, tests its best model again
        with quiet_tracker(config, checkpoint(tmp_path)) as tracker:
            if not checkpoint(tmp_path):
                tracker.log(3, {"train/loss": 1.0})
            (tmp_path / "checkpoint").write_text("3")
            tracker.log(3, {"test/loss": 2.0})
    assert read_scalars(tmp_path / "logs") == {"train/loss": [(3, 1.0)], "test/loss": [(3, 2.0)]}


def test_a_clock_set_back_is_said(tmp_path, caplog):
    (tmp_path / f"events.out.tfevents.{int(time.time()) + 3600}.host.1.0").write_bytes(b"")
    tracking.open_tensorboard(str(tmp_path)).close()
    assert "in the future" in caplog.text


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "logs").write_text("notes")
    config = PretrainConfig(tensorboard_log_dir=str(tmp_path / "logs"))
    with pytest.raises(UserError, match="--tensorboard-log-dir .*logs"):
        with quiet_tracker(config): pass
    assert (tmp_path / "logs").read_text() == "notes"


def test_a_broken_recorder_does_not_end_the_run(tmp_path, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = PretrainConfig(total_updates=2, tensorboard_log_dir=str(tmp_path))
    with Tracker(config, console=plain(shown := io.StringIO())) as tracker:
        tracker.writer.add_scalar = full
        tracker.log(1, {"train/loss": 1.0})
        tracker.flush()
        tracker.log(2, {"train/loss": 1.0})
    assert caplog.text.count("continues without it") == 1 and "TensorBoard failed" in caplog.text
    assert shown.getvalue().count("train/loss") == 2


# The console


def test_plain_lines():
    config = PretrainConfig(total_updates=100)
    with Tracker(config, console=plain(shown := io.StringIO())) as tracker:
        tracker.say("17 [million] :parameters:")
        tracker.advance(1)
        tracker.log(1, TRAIN)
        tracker.log(100, VALID)
    said, train_line, valid_line = shown.getvalue().splitlines()
    assert said == "17 [million] :parameters:"
    assert re.fullmatch(
        r"      1  train/loss 7\.338  train/accuracy 0\.045  train/learning_rate 8\.00e-04  "
        r"train/grad_norm 1\.144  train/tokens_per_second 18,188  train/data_wait 0\.012  "
        r"train/mfu 0\.410  train/padding 0\.034  left \d+:\d\d", train_line)
    assert valid_line == (
        "    100  valid/loss 5.723  valid/accuracy 0.155  valid/mask_loss 6.069  left 0:00")


def test_time_left_counts_this_process_alone(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(tracking.time, "perf_counter", lambda: clock[0])
    config = PretrainConfig(total_updates=1000)
    with Tracker(config, start_update=900, console=plain(shown := io.StringIO())) as tracker:
        tracker.log(900, VALID)  # nothing is known yet
        clock[0] += 60
        tracker.log(910, VALID)  # 10 updates a minute, 90 to go
        tracker.log(1000, VALID)
    left = [line.split("left ")[1] for line in shown.getvalue().splitlines()]
    assert left == ["-:--", "9:00", "0:00"]


@pytest.mark.parametrize("width", [80, 100])
def test_a_table_on_a_terminal(width):
    config, console = PretrainConfig(total_updates=1000), terminal(shown := io.StringIO(), width)
    with Tracker(config, start_update=400, console=console) as tracker:
        tracker.advance(425)
        for update in (425, 450):
            tracker.log(update, TRAIN)
        tracker.log(450, VALID)
        tracker.log(475, TRAIN)
    control = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\r")
    lines = [control.sub("", line) for line in shown.getvalue().splitlines()]
    assert any("training" in line and "425/1000" in line and "left: " in line for line in lines)
    rows = [line for line in lines if re.match(r" {4}4\d\d  ", line)]
    heads = [line for line in lines if line.startswith(" update ")]
    assert len(rows) == 4 and len(heads) == 3  # shown again when the columns change, and only then
    assert all(len(line) <= 80 for line in rows + heads)
    assert rows[0].split() == "425 7.338 0.045 8.00e-04 1.144 18,188 0.012 0.410 0.034".split()
    ends = lambda line: [match.end() for match in re.finditer(r"\S+", line)]
    assert ends(rows[0]) == ends(rows[1]) == ends(rows[3]) == ends(heads[0])  # aligned
    header = lines[lines.index(heads[0]) - 3:lines.index(heads[0]) + 1]
    columns = [(start, end) for start, end in zip([0, *ends(heads[0])], ends(heads[0]))]
    # the full names, read downwards
    assert ["".join(line[a:b].strip() for line in header) for a, b in columns] == ["update", *TRAIN]


def test_quiet_shows_and_writes_nothing(tmp_path, capsys):
    config = PretrainConfig(total_updates=2, wandb=True, wandb_watch=True)
    config.tensorboard_log_dir = str(tmp_path / "logs")
    config.checkpoint_dir = str(tmp_path / "run")
    with Tracker(config, wandb_id="abc", quiet=True) as tracker:
        tracker.say("hello")
        tracker.advance(1)
        tracker.log(1, TRAIN)
        tracker.flush()
        tracker.watch(torch.nn.Linear(1, 1))
        assert tracker.wandb_id == "abc"
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


# Weights & Biases


def wandb_records(path: Path): # of a .wandb file
    "Its records: LevelDB's log format behind seven bytes of header."
    from wandb.proto.wandb_internal_pb2 import Record
    data, at, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue  # too little left of the block for a record's head
        size, kind = struct.unpack("<HB", data[at + 4:at + 7])
        parts.append(data[at + 7:at + 7 + size])
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(b"".join(parts))
            parts = []   # a whole record, or the last part of one


def wandb_history(folder: Path) -> list[dict]: # rows of all files, in the order of their folders
    rows = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(path):
            if record.WhichOneof("record_type") == "history":
                name = lambda item: item.key or "/".join(item.nested_key)
                items = record.history.item
                rows.append({name(item): json.loads(item.value_json) for item in items})
    return rows


WANDB_CHILD = """
import os, signal, sys, time
from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.tracking import Tracker
start, wandb_id = int(sys.argv[1]), sys.argv[2] or None
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
names = {"checkpoint_dir": "run", "wandb_name": "night"}
config = PretrainConfig(total_updates=40, wandb=True, resume=start > 0, **names)
with Tracker(config, start, wandb_id) as tracker:
    for update in range(start + 1, 41):
        tracker.log(update, {"train/loss": 10 / update})
        if update % 10 == 0: tracker.log(update, {"valid/loss": 20 / update})
        if update == 20 and not start:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        if stop: break
open("state", "w").write(f"{update} {tracker.wandb_id}")
sys.exit(143 if stop else 0)
"""


WATCHED = WANDB_CHILD.replace(
    "wandb=True,", "wandb=True, wandb_watch=True, logging_steps=10, update_freq=1,"
).replace("    for update", """
    import torch
    model = torch.nn.Linear(2, 1)
    tracker.watch(model)
    for update""").replace("        tracker.log(update", """
        model(torch.ones(1, 2)).sum().backward()
        tracker.log(update""", 1)


def wandb_child(folder: Path,
                start: int = 0,          # the update after which it begins
                wandb_id: str = "",
                code: str = WANDB_CHILD,
                **environment: str,      # variables
               ) -> subprocess.CompletedProcess:
    "A process of its own, without a key, and offline unless something else is asked for."
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    clean |= {"WANDB_MODE": "offline", "HOME": str(folder)}
    clean |= {f"WANDB_{kind.upper()}_DIR": str(folder / kind) for kind in ("config", "cache")}
    return python(code, str(start), wandb_id, cwd=folder, env=clean | environment, logs=folder)


def test_wandb_stopped_by_sigterm_and_taken_up_by_id(tmp_path):
    pytest.importorskip("wandb")
    first = wandb_child(tmp_path)
    assert first.returncode == 143, first.stderr
    update, run_id = (tmp_path / "state").read_text().split()
    assert update == "20" and run_id != "None"
    second = wandb_child(tmp_path, 20, run_id, WATCHED)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "state").read_text() == f"40 {run_id}"
    for done in (first, second):
        assert done.stderr == "" and "wandb" not in done.stdout   # it keeps to itself
    folders = [path.name for path in sorted((tmp_path / "run/wandb").glob("offline-run-*"))]
    # a folder for each process, one run
    assert len(folders) == 2 and all(name.endswith(run_id) for name in folders)
    rows = wandb_history(tmp_path / "run")
    for name, at in [("train/loss", range(1, 41)), ("valid/loss", range(10, 41, 10))]:
        assert [row["_step"] for row in rows if name in row] == list(at)
    assert any("gradients/weight" in name for row in rows for name in row)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses == pytest.approx([10 / u for u in range(1, 41)])
    paths = (tmp_path / "run").rglob("*.wandb")
    records = (record for path in paths for record in wandb_records(path))
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.project, run.display_name, run.run_id) == ("annotated-mpnet", "night", run_id)
    assert {item.key: item.value_json for item in run.config.update}["total_updates"] == "40"


ONLY_ENTER = """
import sys
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.tracking import Tracker
try:
    with Tracker(PretrainConfig(wandb=True, checkpoint_dir="run")): pass
except UserError as error: sys.exit(f"error: {error}")
"""


QUICK = """
import wandb
class Quick(wandb.Settings):
    def __init__(self, **given):
        if 'init_timeout' in given: given['init_timeout'] = 4
        super().__init__(**given)
wandb.Settings = Quick
"""


@pytest.mark.parametrize("environment, says", [
    (dict(WANDB_MODE="online"),
     "No API key configured; run `wandb login`, or set WANDB_MODE=offline"),
    (dict(WANDB_MODE="online", WANDB_API_KEY="short"), "API key must have"),
    (dict(WANDB_MODE="sometimes"), "'offline'"),
    # a service that can't be reached: the timeout is shortened here, in earnest it is half a minute
    (dict(WANDB_MODE="online", WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://127.0.0.1:9"),
     "connection refused"),
], ids=["no key", "bad key", "bad mode", "no service"])
def test_wandb_not_ready_is_one_line(tmp_path, environment, says):
    pytest.importorskip("wandb")
    done = wandb_child(tmp_path, code=QUICK + ONLY_ENTER, **environment)
    assert done.returncode == 1 and done.stderr.startswith("error: --wandb: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr and done.stdout == ""


def test_wandb_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = PretrainConfig(wandb=True, checkpoint_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="pip install wandb"):
        with quiet_tracker(config): pass
    assert list(tmp_path.iterdir()) == []


class FakeRun:
    "What the tracker uses of wandb.Run."
    def __init__(self):
        self.id, self.rows, self.watched, self.code = "made-up", [], [], None
    def log(self, metrics, step):
        self.rows.append((step, metrics))
    def watch(self, model, **how):
        self.watched.append((model, how))
    def finish(self, exit_code):
        self.code = exit_code


@pytest.mark.parametrize("watch", [False, True])
def test_wandb_calls(monkeypatch, watch):
    run, asked = FakeRun(), []

    def open_wandb(config, run_id):
        asked.append(run_id)
        return run

    monkeypatch.setattr(tracking, "open_wandb", open_wandb)
    often = {"total_updates": 9, "logging_steps": 5, "update_freq": 4}
    config = PretrainConfig(wandb=True, wandb_watch=watch, wandb_id="by-hand", **often)
    given = {"wandb_id": "of the checkpoint", "console": plain(io.StringIO())}
    with pytest.raises(ZeroDivisionError):
        with Tracker(config, 3, **given) as tracker:
            assert asked == ["by-hand"] and tracker.wandb_id == "made-up"  # the command line's wins
            tracker.watch(model := torch.nn.Linear(1, 1))
            tracker.log(5, TRAIN)
            raise ZeroDivisionError
    assert run.rows == [(5, TRAIN)] and run.code == 1
    # hooks count micro-batches
    assert run.watched == ([(model, dict(log="gradients", log_freq=20))] if watch else [])


# MFU


SENTENCE = "the task is sentence classification"


@pytest.fixture(scope="module")
def tokenizer():
    sentences = [SENTENCE, "a model sees the positions of all words of a sentence"]
    return train_tokenizer(sentences * 3, 200)


@pytest.mark.parametrize("objective, return_mlm", [
    ("mpnet", False), ("mpnet", True), ("plm", False), ("mlm", False)])
@pytest.mark.parametrize("layers, prenorm, checkpointing", [
    (1, False, False), (3, True, False), (2, False, True)])
def test_the_count_is_the_flop_counters(
    tokenizer, objective, return_mlm, layers, prenorm, checkpointing,
):
    sizes = {"encoder_embed_dim": 32, "encoder_ffn_dim": 48, "encoder_attention_heads": 2}
    config = ModelConfig(
        len(tokenizer), objective=objective, encoder_layers=layers, normalize_before=prenorm,
        max_positions=64, **sizes)
    model = MPNetForPretraining(config).train()
    texts = [SENTENCE, "the positions of all words of a sentence of the task " * 2]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    samples = [{"input_ids": x, "sample_id": i} for i, x in enumerate(ids)]
    batch = MaskedPermutedCollator(tokenizer, objective)(samples)
    # the fast path computes the scores twice; once is useful
    model.mpnet.gradient_checkpointing, model.mpnet.bias = checkpointing, dense_bias
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.loss(batch, return_mlm)
    with FlopCounterMode(display=False) as both:
        model.loss(batch, return_mlm)[0].backward()
    predicted = int((batch["targets"] != -100).sum())
    assert predicted < batch["targets"].numel() # some slots are empty
    shape = batch["input_ids"].shape
    counted = update_flops(config, *shape, batch["pred_size"], predicted, return_mlm)
    assert counted == 3 * forward.get_total_flops()
    if not checkpointing:
        assert counted == both.get_total_flops()
    else:
        assert both.get_total_flops() > counted # what is computed twice is useful once


KNOWN = {
    "NVIDIA A100-SXM4-80GB": 312, "NVIDIA A100-PCIE-40GB": 312, "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H200": 989,
    "NVIDIA L4": 121, "NVIDIA L40S": 362, "NVIDIA A10": 125,
    "NVIDIA GeForce RTX 4090": 165, "NVIDIA GeForce RTX 3090": 71,
}
UNKNOWN = [
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 NVL", "NVIDIA A10G", "NVIDIA L40", "Tesla T4",
    "NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla V100-SXM2-16GB",
    "cpu", "",
]


@pytest.mark.parametrize("name, tera", [*KNOWN.items(), *((name, None) for name in UNKNOWN)])
def test_peaks(name, tera):
    assert peak_flops(name) == (tera and tera * 1e12)
