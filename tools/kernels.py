"""Run notebooks in Jupyter, each from top to bottom in an empty folder, and leaving it so.

    python tools/kernels.py LANES NOTEBOOK...     LANES of them side by side

Where processes can be forked safely (Linux), what all lessons import is imported once, and each
notebook runs in a fork: imports are half of what a short lesson costs.
"""
import copy
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 300  # this ends a notebook that hangs
CPU_BUDGET = 60  # seconds of one AVX2 core that a lesson may take; more is reported, no failure
UNSOLVED = "raises-exception"
ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there each cell has the limit
FORKS = sys.platform == "linux"
IMPORTS = ("ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib.pyplot",
           "matplotlib_inline.backend_inline", "nbclient", "torch.distributed", "torch.utils.data",
           "torch._dynamo", "datasets", "transformers.models.mpnet.modeling_mpnet")


class Forked:
    "A forked process, with the methods of `subprocess.Popen` that Jupyter calls."
    stdin = stdout = stderr = code = None

    def __init__(self, work, *given):
        self.pid = os.fork()
        if not self.pid:
            try:
                work(*given)
            finally:
                os._exit(0)
        os.setpgid(self.pid, self.pid)  # Jupyter sends its signals to the group

    def poll(self) -> int | None: # the exit code
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        return self.code

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)


def kernel(command: list[str], env: dict[str, str]) -> None:
    "What the command `python -m ipykernel_launcher ...` does."
    import asyncio

    from ipykernel import kernelapp
    signal.set_wakeup_fd(-1)  # the parent's; its handlers and its loop are none of ours either
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, ALARM):
        signal.signal(signum, signal.SIG_DFL)
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(asyncio.new_event_loop())
    os.environ.update(env)
    kernelapp.launch_new_instance(command[3:], parent_handle=os.getppid())  # it ends with that


def with_unsolved_checks(cells: list) -> Iterator:
    "The check of an exercise comes before its solution, too, where it must fail."
    for n, cell in enumerate(cells):
        if "solution" in cell.metadata.get("tags", ()):
            check = copy.deepcopy(cells[n + 1])
            check.metadata["tags"] = [UNSOLVED]  # nbclient goes on after its error
            yield check
        yield cell


def execute(notebook: Path, folder: str) -> None:
    "Run a notebook; an error where a cell has one."
    import nbformat
    from jupyter_client.provisioning import local_provisioner
    from nbclient import NotebookClient
    if FORKS:
        local_provisioner.launch_kernel = lambda command, env, **_: Forked(kernel, command, env)
    nb = nbformat.read(notebook, as_version=4)
    nb.cells = list(with_unsolved_checks(nb.cells))
    client = NotebookClient(nb, kernel_name="python3", extra_arguments=["--log-level=ERROR"],
                            timeout=None if ALARM else SECONDS,
                            resources={"metadata": {"path": folder}})
    client.execute()
    for cell in nb.cells:
        if UNSOLVED in cell.metadata.get("tags", ()):
            kinds = [output.output_type for output in cell.outputs]
            assert "error" in kinds, f"passes where nothing was filled in:\n{cell.source}"


def hangs(*_) -> None: # as a signal handler is called
    raise TimeoutError(f"stopped after {SECONDS} s")


def outcome(notebook: Path, folder: str) -> str: # of `execute`, in words; nothing: all is well
    "Run a notebook that may hang, in a folder."
    if ALARM:
        signal.signal(ALARM, hangs)
        signal.alarm(SECONDS)
    try:
        execute(notebook, folder)
        return ""
    except Exception as error:
        return str(error) or type(error).__name__
    finally:
        if ALARM:
            signal.alarm(0)


def run(notebook: Path, pipe: Connection) -> None: # takes its name, what is wrong, seconds of CPU
    "In a process of its own: run a notebook, and see what it has left behind."
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copy(notebook, place)
        if notebook.stem == "index":  # it lists its neighbours, and is no lesson
            place = notebook.parent
        os.chdir(place)
        said = outcome(notebook, str(place))
        left = {p.name for p in Path(folder).iterdir()} - {notebook.name}
        os.chdir(notebook.parent)
    if left:
        said += f"\nit left behind: {', '.join(sorted(left))}"
    pipe.send((notebook.name, said, sum(os.times()[:4])))  # its own time and its children's


def side_by_side(lanes: int, notebooks: list[Path]) -> Iterator[tuple[str, str, float]]:
    "What `run` tells of each, as they end."
    context = multiprocessing.get_context("fork" if FORKS else "spawn")
    waiting, running = list(notebooks), {}
    while waiting or running:
        while waiting and len(running) < lanes:
            pipe, theirs = context.Pipe(duplex=False)
            running[pipe] = waiting.pop(0)
            context.Process(target=run, args=(running[pipe], theirs)).start()
            theirs.close()
        for pipe in connection.wait(list(running)):
            notebook = running.pop(pipe)
            try:
                yield pipe.recv()
            except EOFError:
                yield notebook.name, "its process died without a word", 0


def main(lanes: int, notebooks: list[Path]) -> int:
    "Run them and say how it went; 1 where one failed."
    for name in IMPORTS if FORKS else ():
        import_module(name)
    results = []
    for name, said, seconds in side_by_side(lanes, notebooks):
        line = f"{'FAIL' if said else 'pass'}  {name:<34} {seconds:4.0f} s of CPU"
        print(f"{line}\n{said}" if said else line, flush=True)
        results.append((name, said, seconds))
    print(f"all notebooks: {sum(seconds for *_, seconds in results):.0f} s of CPU")
    dear = [f"{name} {seconds:.0f} s" for name, _, seconds in results if seconds > CPU_BUDGET]
    if dear:
        print(f"over the budget of {CPU_BUDGET} s of CPU: {', '.join(dear)}")
    return int(not results or any(said for _, said, _ in results))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), [Path(name).resolve() for name in sys.argv[2:]]))
