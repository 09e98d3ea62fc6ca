"""`make torture`: for an hour, runs are ended in every way that we know of, and resumed.

    python tools/torture.py --minutes 10 --seed 3

A life is one run in one folder, from its first update to its last. On its way it is tormented
again and again: killed, interrupted, robbed of a file, of its disk, of its console or of a worker,
met by a second start, failed by a function. After each torment every checkpoint in the folder must
be whole, and at the end the life must be bit-identical to one that nothing happened to. Exit
code 1 where one is not; its folder is kept.
"""
import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                    "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ.setdefault(name, value)

# after the environment that they read
from helpers_ranks import Group  # noqa: E402
from helpers_runs import FIXTURES, Run  # noqa: E402
from test_resume import same  # noqa: E402

from annotated_mpnet.checkpoints import interval_checkpoints, read_checkpoint  # noqa: E402
from annotated_mpnet.configuration import UserError  # noqa: E402
from annotated_mpnet.run_folder import run_files  # noqa: E402
from annotated_mpnet.tokenization import embedded_corpus  # noqa: E402

MODEL = ("--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 "
         "--encoder-attention-heads 2 --max-tokens 24 --dropout 0.1 --batch-size 4 "
         "--update-freq 2 --lr 1e-2 --seed 3 --buffer-size 64 --precision float32 "
         "--total-updates 60 --eval-interval-steps 15 --logging-steps 4 --save-optimizer-state "
         "--checkpoint-interval 5 --checkpoint-dir run --tensorboard-log-dir logs").split()
TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
SOURCES = {
    "files": "--train-dir texts --valid-file valid.txt --test-file test.txt".split(),
    "stream": "--dataset-name stream --eval-samples 8 --min-text-length 0".split(),
}
PLACES = ("gradient", "fetch", "learn", "tell", "log", "validate", "measure", "save",
          "save_interval", "state_of", "tell_first", "clip_gradient", "accumulate")
FAIL = """
from annotated_mpnet import trainer
original, calls = trainer.{place}, []
def fails(*given, **more):
    calls.append(1)
    if len(calls) == {call}: raise {kind}("what nobody foresaw")
    return original(*given, **more)
if os.environ.get("RANK", "0") == "{rank}": trainer.{place} = fails
"""
HEAD = """
import threading
out, end = os.pipe()
os.dup2(end, 1)
def head():
    with os.fdopen(out) as file:
        for _ in range({lines}): file.readline()
threading.Thread(target=head, daemon=True).start()
"""
ALWAYS = "import os\nos.setsid()\n"


def write_texts(folder: Path) -> None:
    "The same passages as text files and as a stream in which some records hold no text."
    import json
    passages = embedded_corpus()[:150]
    for name in ("texts", "stream"):
        (folder / name).mkdir()
    for i in range(2):
        (folder / f"texts/{i}.txt").write_text("\n".join(passages[20 + i:130:2]))
    for name in ("valid.txt", "test.txt"):
        (folder / name).write_text("\n".join(passages[-12:]))
    for i in range(4):
        rows = [{"text": text} for text in passages[38 * i:38 * (i + 1)]]
        rows[3:3] = [{"text": None}, {"text": ""}]  # bad records
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"stream/{i}.jsonl").write_text(lines)


class Started:
    "One start of the command, on one rank or on several."
    def __init__(self, argv: list[str], folder: Path, ranks: int, patch: str = ""):
        whole = ALWAYS + patch
        group = Group(argv, folder, ranks, whole) if ranks > 1 else None
        self.runs = group.runs if group else [Run(argv, folder, whole)]
        self.said = self.runs[0].said

    def alive(self) -> bool:
        return any(run.process.is_alive() for run in self.runs)

    def send(self, signum: int, to: list[Run] | None = None) -> None:
        "A signal to processes and to all of their workers, as a terminal and a cluster send it."
        for run in to or self.runs:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(run.process.pid, signum)

    def finish(self) -> list[int]: # exit codes
        try:
            return [run.finish(120) for run in self.runs]
        finally:
            for run in self.runs:
                self.send(signal.SIGKILL, [run])


@dataclass
class Life:
    "One run in one folder."
    folder: Path
    source: str
    ranks: int
    workers: int
    chance: random.Random
    starts: int = 0
    codes: Counter = field(default_factory=Counter)

    def argv(self) -> list[str]:
        argv = [*MODEL, *TOKENIZER, *SOURCES[self.source], "--num-workers", str(self.workers)]
        return [*argv, "--resume"] if run_files(self.folder / "run") else argv

    def start(self, patch: str = "") -> Started:
        self.starts += 1
        return Started(self.argv(), self.folder, self.ranks, patch)

    def newest(self) -> int:
        found = interval_checkpoints(self.folder / "run")
        return int(found[0].stem[10:]) if found else 0

    def wait(self, started: Started, early: bool = True) -> None:
        "Until a random moment: while it starts, or after it has saved something."
        patience = self.chance.choice([0.3, 60]) if early else 60
        before, until = self.newest(), time.time() + patience
        while started.alive() and self.newest() == before and time.time() < until:
            time.sleep(0.002)
        time.sleep(self.chance.random() * 0.2)

    def over(self) -> bool:
        return (self.folder / "run/final_checkpoint.pt").exists()


# Torments: each starts the run, does its worst, and sees it end


def signalled(signum: int):
    def torment(life: Life) -> list[int]:
        started = life.start()
        life.wait(started)
        started.send(signum)
        return started.finish()
    return torment


def one_rank_killed(life: Life) -> list[int]:
    started = life.start()
    life.wait(started, early=False)  # a rank that waits for one that never comes is patient
    started.send(signal.SIGKILL, [life.chance.choice(started.runs)])
    return started.finish()


def closed_console(life: Life) -> list[int]:
    return life.start(HEAD.format(lines=life.chance.randint(0, 4))).finish()


def full_disk(life: Life) -> list[int]:
    "From some moment on no file can grow beyond a size that no checkpoint fits in."
    started = life.start()
    life.wait(started)
    for run in started.runs:
        with suppress(ProcessLookupError):
            resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (60_000, 60_000))
    return started.finish()


def vanished_file(life: Life) -> list[int]:
    "While it trains: gone before that, it would be another run on other texts."
    started = life.start()
    life.wait(started, early=False)
    name = {"files": "texts/1.txt", "stream": "stream/2.jsonl"}[life.source]
    (life.folder / name).rename(life.folder / "away")
    codes = started.finish()
    (life.folder / "away").rename(life.folder / name)
    return codes


def killed_worker(life: Life) -> list[int]:
    started = life.start()
    life.wait(started)
    pid = life.chance.choice(started.runs).process.pid
    with suppress(OSError, IndexError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(life.chance.choice(children)), signal.SIGKILL)
    return started.finish()


def second_start(life: Life) -> list[int]:
    "Of two starts, at once or one after the other, only one trains at a time."
    first = life.start()
    if life.chance.random() < 0.5:
        life.wait(first)
    more = life.chance.choice([[], ["--resume"], ["--overwrite"]])
    argv = [word for word in life.argv() if word != "--resume"]
    second = Started([*argv, *more], life.folder, 1)
    codes = second.finish()
    if codes == [0] and first.alive() and not life.over():
        raise AssertionError("two runs trained in one folder")
    return codes + first.finish()


def failing_function(life: Life) -> list[int]:
    patch = FAIL.format(place=life.chance.choice(PLACES), call=life.chance.randint(1, 20),
                        kind=life.chance.choice(["ValueError", "MemoryError", "OSError"]),
                        rank=life.chance.randrange(life.ranks))
    return life.start(patch).finish()


def torments(life: Life) -> dict:
    "Those that fit to a life, by name."
    found = {"SIGKILL": signalled(signal.SIGKILL), "SIGTERM": signalled(signal.SIGTERM),
             "SIGINT": signalled(signal.SIGINT), "SIGHUP": signalled(signal.SIGHUP),
             "closed console": closed_console, "full disk": full_disk,
             "vanished file": vanished_file, "failing function": failing_function}
    if life.ranks > 1:
        found["one rank killed"] = one_rank_killed
    else:
        found["second start"] = second_start
    return found | ({"killed worker": killed_worker} if life.workers else {})


# What must hold


def all_whole(life: Life) -> int: # checkpoints that were read
    "Every checkpoint in the folder is whole."
    files = run_files(life.folder / "run")
    for path in files:
        read_checkpoint(path)
    return len(files)


def curves(folder: Path) -> dict:
    from annotated_mpnet.tracking import read_scalars
    timed = ("per_second", "wait")
    return {name: line for name, line in read_scalars(folder / "logs").items()
            if not any(word in name for word in timed)}


def compare(life: Life, whole: Path) -> None:
    "A life is bit-identical to one that nothing happened to."
    for name in ("final", "best"):
        files = [read_checkpoint(at / f"run/{name}_checkpoint.pt") for at in (life.folder, whole)]
        same(*files, name)
    assert curves(life.folder) == curves(whole), "curves"
    left = [path.name for path in (life.folder / "run").iterdir() if path.name.startswith(".")]
    assert not left, f"left over: {left}"


class Torture:
    "Lives, one after the other, until the time is over."
    def __init__(self, place: Path, seed: int):
        self.place, self.chance = place, random.Random(seed)
        self.counts, self.ends = Counter(), Counter()
        self.wholes: dict[tuple, Path] = {}
        self.failures: list[str] = []

    def folder(self, name: str) -> Path:
        "A folder to run in, with the texts in it."
        made = self.place / name
        made.mkdir()
        for path in (self.place / "given").iterdir():
            (made / path.name).symlink_to(path)
        if (made / "texts").exists():  # files may be taken away here
            for name in ("texts", "stream"):
                (made / name).unlink()
                shutil.copytree(self.place / "given" / name, made / name)
        return made

    def whole(self, source: str, ranks: int) -> Path:
        "The life that nothing happens to; the number of workers makes no difference."
        if (source, ranks) not in self.wholes:
            life = Life(self.folder(f"whole-{source}-{ranks}"), source, ranks, 0, self.chance)
            started = life.start()
            codes = started.finish()
            assert codes == [0] * ranks, started.said()
            self.wholes[source, ranks] = life.folder
        return self.wholes[source, ranks]

    def live(self, number: int, until: float) -> bool: # whether it came to its end
        "One life."
        source, ranks = self.chance.choice(list(SOURCES)), self.chance.choice([1, 2])
        life = Life(self.folder(f"life-{number}"), source, ranks, self.chance.choice([0, 2]),
                    self.chance)
        whole = self.whole(source, ranks)
        while not life.over():
            if time.time() > until:
                return False
            name, torment = self.chance.choice(list(torments(life).items()))
            codes = torment(life)
            self.counts[name] += 1
            self.ends[name] += any(codes)
            self.counts["checkpoints read"] += all_whole(life)
        codes = life.start().finish()  # a run that ended while it was tormented, once more
        assert codes == [0] * ranks, f"exit codes {codes}"
        compare(life, whole)
        self.counts["starts"] += life.starts
        shutil.rmtree(life.folder)
        return True

    def run(self, minutes: float) -> None:
        until = time.time() + 60 * minutes
        while time.time() < until:
            number = self.counts["lives"] + len(self.failures)
            try:
                self.counts["lives"] += self.live(number, until)
            except (AssertionError, UserError) as error:  # a torn checkpoint is a UserError
                words = " ".join(str(error).split())[:300]
                self.failures.append(f"life-{number}: {words}")
                print(self.failures[-1], flush=True)

    def table(self) -> None:
        print(f"\n{'torment':<20} {'times':>6} {'ended the run':>14}")
        for name, times in sorted(self.counts.items()):
            if name in self.ends:
                print(f"{name:<20} {times:>6} {self.ends[name]:>14}")
        counts = self.counts
        print(f"\n{counts['lives']} lives in {counts['starts']} starts, "
              f"{counts['checkpoints read']} checkpoints read and whole; "
              f"{counts['lives']} bit-identical, {len(self.failures)} not")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is left to chance")
    asked = parser.parse_args(argv)
    place = Path(tempfile.mkdtemp(prefix="torture-"))
    (place / "given").mkdir()
    write_texts(place / "given")
    torture = Torture(place, asked.seed)
    try:
        torture.run(asked.minutes)
    finally:
        torture.table()
    if torture.failures:
        print(f"what is left of them: {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
