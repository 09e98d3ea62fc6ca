"""`make test`: three steps, each timed; any that fails makes the whole fail, and the others still run.

    python tools/run_tests.py                 all three
    python tools/run_tests.py tests           one of them: in-step, notebooks, tests
"""
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKERS = min(2, os.cpu_count() or 1)
SECONDS_A_NOTEBOOK = 300  # a lesson takes under a minute; this ends one that hangs
# Nothing is fetched while testing, nor taken from what the user fetched before.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline", "TOKENIZERS_PARALLELISM": "false"}
ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(*command: str, **options) -> subprocess.CompletedProcess:
    "Run a command at the root, with no input and no network."
    options["env"] = os.environ | OFFLINE | options.pop("env", {})
    return subprocess.run([str(c) for c in command], cwd=ROOT, stdin=subprocess.DEVNULL, **options)


def in_step() -> bool:
    "Package, notebooks, README.md and docs/configuration.md say the same."
    return run(sys.executable, "tools/in_step.py").returncode == 0


def test_notebook(path: Path) -> bool:
    "One notebook runs from top to bottom, in a process of its own: it can't lean on what another left behind."
    started = time.time()
    try:
        done = run(BIN / "nbdev_test", "--path", path, env=ONE_CORE, capture_output=True, text=True, timeout=SECONDS_A_NOTEBOOK)
        passed, said = done.returncode == 0 and "Success." in done.stdout, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        passed, said = False, f"stopped after {SECONDS_A_NOTEBOOK} s"
    print(f"{'pass' if passed else 'FAIL'}  {path.name:<32} {time.time() - started:4.0f} s" + ("" if passed else f"\n{said}"), flush=True)
    return passed


def notebooks() -> bool:
    "Every notebook runs from top to bottom, and its asserts hold (nbdev_test)."
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(test_notebook, sorted((ROOT / "nbs").glob("[!_.]*.ipynb"))))
    return bool(results) and all(results)


def tests() -> bool:
    "What a notebook can't test well (pytest)."
    return run(sys.executable, "-m", "pytest", "-q", "--durations=5", "tests").returncode == 0


def main(names: list[str]) -> int:
    "Run the steps; 1 where one failed."
    steps = {f.__name__.replace("_", "-"): f for f in (in_step, notebooks, tests)}
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        OFFLINE["HF_HOME"] = cache
        for name in names or steps:
            print(f"\n== {name}: {steps[name].__doc__}", flush=True)
            started = time.time()
            results[name] = steps[name](), time.time() - started
    print()
    for name, (passed, seconds) in results.items():
        print(f"{'pass' if passed else 'FAIL'}  {name:<12} {seconds:5.0f} s")
    failed = sum(not passed for passed, _ in results.values())
    print(f"steps: {len(results) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
