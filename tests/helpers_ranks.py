"""Runs of the command on several ranks: as torchrun starts them, or forked."""
import json
import os
import socket
from pathlib import Path

from helpers_runs import HANGS, Run

RECORD = """
import json, os
from annotated_mpnet import permutation, trainer
collate, learn = permutation.MaskedPermutedCollator.__call__, trainer.learn
def with_names(self, examples):
    names = [[e.get("cycle", 0), e.get("sample_id", 0)] for e in examples]
    return collate(self, examples) | {"samples": names}
def recorded(run, batches, counts):
    step = learn(run, batches, counts)
    with open(f"samples-{run.ranks.rank}.jsonl", "a") as file:
        names = sum((batch.get("samples", []) for batch in batches), [])
        print(json.dumps([run.update, names]), file=file)
    return step
permutation.MaskedPermutedCollator.__call__, trainer.learn = with_names, recorded
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Group:
    "One start of the command on several forked ranks, with the environment that torchrun gives."
    def __init__(self, argv: list[str], folder: Path, size: int = 2, patch: str = ""):
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.runs = []
        for rank in map(str, range(size)):
            own = meet | {"WORLD_SIZE": str(size), "RANK": rank, "LOCAL_RANK": rank}
            self.runs.append(Run(argv, folder, f"import os\nos.environ.update({own})\n{patch}"))
        self.said = self.runs[0].said            # they share a log

    def finish(self, timeout: float = HANGS) -> list[int]: # the exit code of each rank
        try:
            return [run.finish(timeout) for run in self.runs]
        finally:
            for run in self.runs:
                run.process.kill()


def finished(argv: list[str], folder: Path, size: int = 2, patch: str = "") -> str:
    "Run to the end, which must be a good one on every rank; what they said."
    group = Group(argv, folder, size, patch)
    assert group.finish() == [0] * size, group.said()
    return group.said()


def launch(argv: list[str], folder: str, log: str) -> None:
    "What `torchrun` does, in a forked process, with its output in a file."
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    from torch.distributed.run import main
    main(argv)


class Launched(Run):
    "The command as a user starts it on two ranks, each a new process; only the launcher is forked."
    def __init__(self,
                 argv: list[str],  # of the command
                 folder: Path,     # to run in
                 *more: str,       # arguments of the launcher
                 patch: str = "",  # code to run first
                ):
        self.follow(folder)
        script = folder / "command.py"
        imports = "import sys\nfrom annotated_mpnet.cli import main\n"
        script.write_text(f"{imports}{patch}\nsys.exit(main())\n")
        words = ["--standalone", "--nproc-per-node", "2", *more, str(script), *argv]
        self.start(launch, words)

    def ranks(self) -> list[int]:
        "The processes that the launcher has started and that still run."
        try:
            tasks = list(Path(f"/proc/{self.process.pid}/task").iterdir())
            return [int(pid) for path in tasks for pid in (path / "children").read_text().split()]
        except FileNotFoundError:               # it has ended meanwhile
            return []


def samples(folder: Path) -> dict[int, list]: # update -> sorted cycle and number of its samples
    "What RECORD has written, of all ranks; of an update done twice, each rank's last counts."
    found = {}
    for path in folder.glob("samples-*.jsonl"):
        for update, names in map(json.loads, path.read_text().splitlines()):
            mine = found.setdefault(update, {})
            mine[path.name] = names
    return {update: sorted(sum(parts.values(), [])) for update, parts in sorted(found.items())}
