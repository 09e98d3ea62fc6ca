"""Many ranks: the sums of one, the same samples on any number, an end for all when one is lost.

    RANK_MURDERS=20 pytest tests/test_ranks.py -k murder      kills twenty times instead of three
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from helpers_ranks import RECORD, Group, Launched, finished, free_port, samples
from helpers_runs import FIXTURES, Run, failed
from helpers_runs import finished as finished_alone
from test_resume import same

from annotated_mpnet import watch
from annotated_mpnet.checkpoints import interval_checkpoints, load_model, read_checkpoint
from annotated_mpnet.tokenization import embedded_corpus
from annotated_mpnet.tracking import read_scalars

MURDERS = int(os.environ.get("RANK_MURDERS", 3))
MODEL = f"""
    --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 --encoder-attention-heads 2
    --max-tokens 24 --lr 1e-3 --seed 3 --buffer-size 64 --update-freq 2 --precision float32
    --checkpoint-dir run --save-optimizer-state --checkpoint-interval 5 --eval-interval-steps 20
    --tokenizer-name {FIXTURES}/tokenizer
""".split()
FILES = "--train-dir texts --valid-file valid.txt --test-file test.txt".split()
STREAM = "--dataset-name stream --eval-samples 8 --min-text-length 0".split()
NO_DROPOUT = "--dropout 0 --attention-dropout 0 --activation-dropout 0".split()


@pytest.fixture
def place(tmp_path) -> Path:
    "A folder with 110 uneven documents as text files, and as one Parquet file with one row group."
    import pyarrow as pa
    import pyarrow.parquet as pq
    passages = embedded_corpus()[:136]
    passages = [" ".join(text.split()[:3 + 7 * i % 17]) for i, text in enumerate(passages)]
    for name in ("texts", "stream"):
        (tmp_path / name).mkdir()
    for i in range(2):
        (tmp_path / f"texts/{i}.txt").write_text("\n".join(passages[26 + i::2]))
    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text("\n".join(passages[:13]))
    pq.write_table(pa.table({"text": passages[10:]}), tmp_path / "stream/0.parquet")
    return tmp_path


def folder(place: Path, name: str) -> Path:
    "Another folder to run in, with the same texts."
    (place / name).mkdir()
    for path in ("texts", "stream", "valid.txt", "test.txt"):
        (place / name / path).symlink_to(place / path)
    return place / name


def final(folder: Path) -> dict:
    "The last checkpoint of a run."
    return read_checkpoint(folder / "run/final_checkpoint.pt")


def same_end(a: Path, b: Path) -> None:
    "Two runs end with the same checkpoint."
    same(final(a), final(b))


def close(a: dict, b: dict, tolerance: float = 1e-5) -> None:
    "Nearly the same weights: 9e-7 was seen, where the gradient is 0 but for rounding, else 1e-7."
    for name, x in a["model"].items():
        assert (x - b["model"][name]).abs().max() <= tolerance, name


CURVES = "train/loss train/accuracy train/grad_norm valid/loss valid/accuracy test/loss".split()


def test_two_ranks_do_what_one_does_with_twice_the_batch(place):
    "DDP and FSDP, over 50 updates of 2 micro-batches with uneven lengths."
    logged = "--total-updates 50 --logging-steps 1 --tensorboard-log-dir logs".split()
    argv = [*MODEL, *FILES, *NO_DROPOUT, *logged]
    one, ddp, fsdp = (folder(place, name) for name in ("one", "ddp", "fsdp"))
    finished_alone([*argv, "--batch-size", "16"], one, RECORD)
    finished([*argv, "--batch-size", "8"], ddp, patch=RECORD)
    said = finished([*argv, "--batch-size", "8", "--fsdp"], fsdp, patch=RECORD)
    assert "2 ranks of cpu (FSDP)" in said and said.count("best checkpoint:") == 1
    assert len(samples(one)) == 50 and samples(one) == samples(ddp) == samples(fsdp)
    curves = read_scalars(one / "logs")
    for path in (ddp, fsdp):
        close(final(one), final(path))
        curve = read_scalars(path / "logs")
        for name in CURVES:
            assert [step for step, _ in curve[name]] == [step for step, _ in curves[name]]
            for (_, x), (_, y) in zip(curve[name], curves[name]):
                assert abs(x - y) <= 1e-5, name
    folders = interval_checkpoints(fsdp / "run")
    assert [path.name for path in folders] == [f"checkpoint{n}" for n in range(50, 0, -5)]
    # what the ranks wrote each is what they put together
    same(read_checkpoint(folders[0])["model"], final(fsdp)["model"])
    assert load_model(folders[0])
    state = read_checkpoint(ddp / "run/checkpoint50.pt")["state"]
    assert state["random"].keys() == {"cpu", "others"}


STOP = """
import os, signal
from annotated_mpnet import trainer
before_stopping = trainer.learn
def stopping(run, batches, counts):
    step = before_stopping(run, batches, counts)
    if run.update in {at} and run.ranks.rank == run.ranks.size - 1:
        os.kill(os.getpid(), signal.{signum})
    return step
trainer.learn = stopping
"""


def test_other_numbers_of_ranks_get_the_same_samples(place):
    "A global batch of 12: on 2 ranks, then on 1, then on 3, from shards to a file and back."
    argv = [*MODEL, *FILES, "--total-updates", "30"]
    alone, moved = folder(place, "alone"), folder(place, "moved")
    finished_alone([*argv, "--batch-size", "6"], alone, RECORD)
    stop = RECORD + STOP.format(at=[8], signum="SIGTERM")
    group = Group([*argv, "--batch-size", "3", "--fsdp"], moved, 2, stop)
    assert group.finish() == [143, 143], group.said()
    assert group.said().count("stopped by SIGTERM after update 8") == 1, group.said()
    saved = [path.name for path in interval_checkpoints(moved / "run")]
    assert saved == ["checkpoint8", "checkpoint5"]
    resume = ["--resume", "--checkpoint-dir", "run"]
    stop = RECORD + STOP.format(at=[19], signum="SIGINT")
    run = Run([*resume, "--batch-size", "6"], moved, stop)
    assert run.finish() == 130, run.said()
    assert "saved by 2 rank(s), and 1 resume it" in run.said()
    assert "dropout draws other numbers" in run.said() and "WARNING" not in run.said()
    # from a file into shards
    said = finished([*resume, "--batch-size", "2", "--fsdp"], moved, 3, RECORD)
    assert "saved by 1 rank(s), and 3 resume it" in said and "resumed after update 19" in said
    assert "WARNING" not in said
    assert list(samples(alone)) == list(range(1, 31)) and samples(moved) == samples(alone)


def test_ranks_whose_packed_lanes_end_at_different_times(place):
    "Six lanes of a row each: of an update that only some lanes have a row for, others have none."
    lanes = "from annotated_mpnet import chunks\nchunks.EACH = 1\n"
    argv = [*MODEL, *FILES, "--packing", "--total-updates", "20"]
    argv[argv.index("--buffer-size") + 1] = "16"
    alone, moved = folder(place, "alone"), folder(place, "moved")
    finished_alone([*argv, "--batch-size", "3"], alone, lanes + RECORD)
    stop = lanes + RECORD + STOP.format(at=[7], signum="SIGTERM")
    group = Group([*argv, "--batch-size", "1"], moved, 3, stop)
    assert group.finish() == [143] * 3, group.said()
    resume = ["--resume", "--checkpoint-dir", "run", "--batch-size", "3"]
    Run(resume, moved, lanes + RECORD + STOP.format(at=[13], signum="SIGTERM")).finish()
    finished([*resume[:-1], "1"], moved, 3, lanes + RECORD)
    assert list(samples(alone)) == list(range(1, 21)) and samples(moved) == samples(alone)
    sizes = {len(names) for names in samples(alone).values()}
    assert 6 in sizes and min(sizes) < 3  # fewer than there are ranks


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_stream_with_fewer_shards_than_ranks(workers, place):
    "110 documents, blocks of 64 and a rest, 3 ranks: each sample once a cycle over all ranks."
    sizes = ["--batch-size", "3", "--total-updates", "16", "--num-workers", workers]
    finished([*MODEL, *STREAM, *sizes], place, 3, RECORD)
    seen = Counter(tuple(name) for names in samples(place).values() for name in names)
    cycles = Counter()
    assert set(seen.values()) == {1}
    for cycle, _ in seen:
        cycles[cycle] += 1
    assert cycles[0] == cycles[1] == 110, cycles


def test_stopped_and_resumed_in_shards(place):
    "SIGTERM to one of two ranks: a whole folder, a bitwise reproduced rest; a torn one is skipped."
    argv = [*MODEL, *FILES, "--batch-size", "4", "--total-updates", "20", "--fsdp"]
    whole, stopped = folder(place, "whole"), folder(place, "stopped")
    finished(argv, whole)
    stop = STOP.format(at=[13], signum="SIGTERM")
    assert Group(argv, stopped, 2, stop).finish() == [143, 143]
    newest = stopped / "run/checkpoint13"
    content = read_checkpoint(newest)
    assert content["update"] == 13 and "optimizer" in content["state"]
    assert not list((stopped / "run").glob(".*"))
    shard = newest / "__1_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    (stopped / "run/.checkpoint15.999999999.tmp").mkdir()  # of a killed process
    said = finished([*argv, "--resume", "--keep-checkpoints", "2"], stopped)
    assert said.count("skipped") == 1 and "__1_0.distcp" in said
    assert "resumed after update 10" in said
    same(final(stopped)["model"], final(whole)["model"])
    names = [path.name for path in (stopped / "run").iterdir() if path.is_dir()]
    kept = [name for name in names if "earlier" not in name]
    assert sorted(kept) == ["checkpoint15", "checkpoint20"]
    assert "start with torchrun" in failed([*argv, "--overwrite"], stopped)
    refused = failed([*argv, "--overwrite", "--compile"], stopped)
    assert "--compile does not go with --fsdp" in refused


ON_ONE = """
import os, signal, time
from annotated_mpnet import trainer, watch
watch.SILENT, watch.STUCK = 6, 9 # seconds: long enough for a busy machine
before, calls = trainer.accumulate, [0]
def accumulate(*arguments):
    calls[0] += 1
    numbers = before(*arguments)
    if calls[0] == 7 and os.environ["RANK"] == "1": {do}
    return numbers
trainer.accumulate = accumulate
"""


def test_a_number_lost_on_one_rank_is_lost_for_all(place):
    argv = [*MODEL, *FILES, "--batch-size", "4", "--total-updates", "20"]
    lose = ON_ONE.format(do="numbers = (numbers[0] * float('nan'), *numbers[1:])")
    said = finished(argv, place, patch=lose + """
from annotated_mpnet import pieces
end = trainer.save
def save(run, name, *more):
    with open(f"weights-{os.environ['RANK']}", "a") as file:
        print(name, float(sum(p.double().sum() for p in run.model.parameters())), file=file)
    return end(run, name, *more)
trainer.save = pieces.save = save
""")
    lost = "1 updates since the last line had a loss or gradient that is not finite"
    assert said.count(lost) == 1
    content = final(place)
    assert all(x.isfinite().all() for x in content["model"].values())
    assert float(next(iter(content["state"]["optimizer"]["state"].values()))["step"]) == 19
    assert (place / "weights-0").read_text() == (place / "weights-1").read_text() != ""


@pytest.mark.parametrize("do, says", [
    ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 of 2 died without a word"),
    ("os.kill(os.getpid(), signal.SIGSTOP)", "rank 1 of 2 gave no sign of life"),
    ("time.sleep(6000)", "rank 1 of 2 made no progress"),
    ("raise OSError(28, 'No space left on device')", "No space left on device"),
])
def test_a_rank_that_is_lost_ends_all(do, says, place):
    argv = [*MODEL, *FILES, "--batch-size", "4", "--total-updates", "2000"]
    group = Group(argv, place, patch=ON_ONE.format(do=do))
    assert group.runs[0].finish() == 2, group.said()
    if "STOP" in do:
        group.runs[1].process.kill()
    else:
        group.finish()
    said = group.said()
    ours = [line for line in said.splitlines() if line.startswith("pretrain-mpnet: ")]
    lines = [line for line in ours if "error" in line.lower()]
    assert len(lines) == 1 and says in lines[0] and "Traceback" not in said, said
    # The first rank saves by itself; who waits for one that hangs can't.
    alone = "died" in says or "space" in says
    named = "" if "space" in says else f"go back to run/checkpoint{6 if alone else 5}.pt"
    assert named in lines[0] and ("checkpoint" in lines[0]) == bool(named)
    if alone:
        saved = read_checkpoint(place / "run/checkpoint6.pt")
        assert saved["update"] == 6 and len(saved["state"]["random"]["others"]) == 1
    assert read_checkpoint(place / "run/checkpoint5.pt")["update"] == 5
    assert not list((place / "run").glob(".*.tmp"))


def test_a_lost_rank_ends_all_within_a_minute():
    "Of which torchrun takes 30 s until it kills a rank that doesn't react."
    assert watch.SILENT + 4 * watch.BEAT + 30 < 60 and watch.STUCK + 4 * watch.BEAT < 60


def last_saved(place: Path) -> int:
    names = [path.name for path in interval_checkpoints(place / "run")]
    return max((int(name[10:].removesuffix(".pt")) for name in names), default=0)


LEAVING = """
import time
from pathlib import Path
from annotated_mpnet.watch import join_ranks
class Stop(Exception): together = True
before = set()
def threads():
    "Numbers of the threads that are new; PyTorch 2.9 gives Gloo's no name."
    # One that was waited for may stand here a moment longer: it has the flag 4, PF_EXITING,
    # or is gone when its file is read.
    found = set()
    for path in Path("/proc/self/task").iterdir():
        try: rest = (path / "stat").read_text().rsplit(")", 1)[1]
        except OSError: continue
        if not int(rest.split()[6]) & 4: found.add(path.name)
    return found - before
def gone():
    "Whether they end, within seconds."
    for _ in range(100):
        if not threads(): return True
        time.sleep(0.1)
    return False
def work(ranks, error=None):
    group = ranks.group
    assert len(threads()) > 2
    if error: raise error
before = threads()
with join_ranks() as ranks: work(ranks)
assert gone(), threads()
try:
    with join_ranks() as again: work(again, Stop())
except Stop as error: kept = error
assert gone() and kept.__traceback__, threads()
"""


def test_no_thread_of_a_group_outlives_it():
    "One that frees a tensor while Python ends would take a run that is done with it (SIGABRT)."
    port = str(free_port())
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", LEAVING]
    done = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def strike(launcher: Launched, kind: str, chance: random.Random) -> None:
    "SIGTERM to the launcher, or SIGKILL to one or all of its ranks."
    if kind == "launcher":
        launcher.send(signal.SIGTERM)
        return
    ranks = launcher.ranks()
    if kind == "one" and ranks:
        ranks = chance.sample(ranks, 1)
    for pid in ranks:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_murder(place):
    "SIGKILL to one rank or to all, SIGTERM to the launcher, at random moments; resumed each time."
    argv = [*MODEL, *FILES, *"--batch-size 4 --total-updates 150 --keep-checkpoints 3".split()]
    left_alone, chance, kinds = folder(place, "alone"), random.Random(7), []
    finished(argv, left_alone)
    while len(kinds) < MURDERS:
        before, kind = last_saved(place), ("one", "launcher", "all")[len(kinds) % 3]
        launcher = Launched([*argv, "--resume"] if before else argv, place)
        launcher.wait_for(lambda: last_saved(place) > before)
        time.sleep(chance.random() / 4)
        strike(launcher, kind, chance)
        code = launcher.finish()
        if (place / "run/final_checkpoint.pt").exists():  # it was faster: begin again
            shutil.rmtree(place / "run")
            continue
        assert code, launcher.said()
        if kind == "launcher":
            stops = launcher.said().count("pretrain-mpnet: stopped by SIGTERM")
            assert stops == 1, launcher.said()
        kinds.append(kind)
    finished([*argv, "--resume"], place)
    same_end(place, left_alone)


def test_torchrun_starts_again(place):
    "A run with --overwrite whose rank dies resumes its own newest checkpoint, never another run's."
    argv = [*MODEL, *FILES, "--batch-size", "4", "--total-updates", "20"]
    alone = folder(place, "alone")
    finished(argv, alone)
    (place / "run").mkdir()
    shutil.copy(alone / "run/checkpoint20.pt", place / "run/checkpoint999.pt")  # of another run
    refused = Launched(argv, place, "--max-restarts", "1")
    assert refused.finish() and "already holds checkpoint999.pt" in refused.said()
    assert [path.name for path in (place / "run").iterdir()] == ["checkpoint999.pt"]
    die = STOP.format(at=[12], signum="SIGKILL")
    die = die.replace("if run", "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and run")
    again = Launched([*argv, "--overwrite"], place, "--max-restarts", "1", patch=die)
    assert again.finish() == 0, again.said()
    restarted = "restart 1 by torchrun: resuming from run/checkpoint12.pt"
    assert restarted in again.said(), again.said()
    same_end(place, alone)
    assert not (place / "run/checkpoint999.pt").exists()
