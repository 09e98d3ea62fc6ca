"""Runs of the command as processes of their own, to be killed.

They are forked from one process that has imported everything.
"""
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "annotated_mpnet" / "course" / "interop"
PRELOAD = [
    "annotated_mpnet.cli", "annotated_mpnet.trainer", "annotated_mpnet.data",
    "datasets", "pyarrow.parquet", "torch.utils.tensorboard",
    "torch._dynamo",  # an optimizer imports it: two thirds of what a short run costs
    "transformers.models.auto.tokenization_auto", "transformers.models.bert.tokenization_bert",
]
HANGS = 600  # seconds after which what should have ended is taken to hang; no test measures time
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(PRELOAD)


def command(argv: list[str], folder: str, log: str, patch: str, errors: str = "") -> None:
    "The command, in a forked process; its output goes to a file, or to two. `patch` runs first."
    with open(log, "a", buffering=1) as file, open(errors or log, "a", buffering=1) as other:
        os.dup2(file.fileno(), 1)
        os.dup2(other.fileno(), 2)
    os.chdir(folder)
    import torch
    torch.set_num_threads(1)
    # For the workers: as where the command is started by hand.
    multiprocessing.set_start_method("fork", force=True)
    from annotated_mpnet.cli import main
    exec(patch, {})
    sys.exit(main(argv))


class Run:
    "One start of the command."
    def __init__(self, argv: list[str], folder: Path, patch: str = ""):
        self.follow(folder)
        self.start(command, argv, patch)

    def follow(self, folder: Path) -> None:
        "Where it runs, and what it says from now on."
        self.folder = folder
        self.log = folder / "log.txt"            # earlier starts have written before
        self.begun = self.log.stat().st_size if self.log.exists() else 0

    def start(self, target, argv: list[str], *more) -> None:
        args = (argv, str(self.folder), str(self.log), *more)
        self.process = context.Process(target=target, args=args, daemon=False)
        self.process.start()

    def send(self, signum: int) -> None:
        try:
            os.kill(self.process.pid, signum)
        except ProcessLookupError:
            pass

    def wait_for(self, happened, timeout: float = HANGS) -> bool:
        "Until something has happened; False if the run ended before."
        until = time.time() + timeout
        while not happened():
            if not self.process.is_alive():
                return bool(happened())
            assert time.time() < until, self.said()
            time.sleep(0.0005)
        return True

    def finish(self, timeout: float = HANGS) -> int:
        "The exit code, as a shell shows it."
        self.process.join(timeout)
        if self.process.is_alive():
            self.send(signal.SIGKILL)
            raise AssertionError(f"the run did not end in {timeout} s:\n{self.said()}")
        code = self.process.exitcode
        return code if code >= 0 else 128 - code

    def said(self) -> str:
        return self.log.read_bytes()[self.begun:].decode() if self.log.exists() else ""


def ended(argv: list[str], logs: Path, target, *given) -> subprocess.CompletedProcess:
    "What `subprocess.run` would give of a forked function, which gets two files for what it says."
    out, errors = logs / "out.txt", logs / "errors.txt"
    out.write_text(""), errors.write_text("")
    args = (argv, *given, str(out), str(errors))
    process = context.Process(target=target, args=args, daemon=False)
    process.start()
    process.join(HANGS)
    assert process.exitcode is not None, f"the process did not end in {HANGS} s"
    return subprocess.CompletedProcess(argv, process.exitcode, out.read_text(), errors.read_text())


def command_apart(argv: list[str], folder: str, out: str, errors: str) -> None:
    command(argv, folder, out, "", errors)


def completed(argv: list[str], folder: Path, logs: Path) -> subprocess.CompletedProcess:
    "The command, run to its end; the files of what it says are elsewhere."
    return ended(argv, logs, command_apart, str(folder))


def program(argv: list[str], code: str, folder: str, env: dict, out: str, errors: str) -> None:
    "What `python -c` does with a program."
    with open(out, "a") as file, open(errors, "a") as other, open(os.devnull) as nothing:
        for theirs, ours in enumerate((nothing, file, other)):
            os.dup2(ours.fileno(), theirs)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *argv]
    sys.path.insert(0, "")
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def python(code: str, *argv: str, cwd: Path, env: dict, logs: Path) -> subprocess.CompletedProcess:
    "A program of Python's `-c`, run to its end, without its imports anew."
    return ended(list(argv), logs, program, code, str(cwd), dict(env))


def finished(argv: list[str], folder: Path, patch: str = "") -> str:
    "Run to the end, which must be a good one; what it said."
    run = Run(argv, folder, patch)
    code = run.finish()
    assert code == 0, f"it ended with {code}: {run.said()}"
    return run.said()


def failed(argv: list[str], folder: Path, patch: str = "", code: int = 2) -> str:
    "Run to an end that is not a good one; its last line."
    run = Run(argv, folder, patch)
    assert run.finish() == code, run.said()
    lines = run.said().splitlines()
    assert not any("Traceback" in line for line in lines), run.said()
    return lines[-1]
