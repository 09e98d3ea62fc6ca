"""`make test`: three steps, each timed; any that fails makes the whole fail, and the others still run.

1. in step: package, notebooks, README.md and docs/configuration.md say the same (tools/in_step.py)
2. notebooks: every notebook runs from top to bottom (nbdev_test)
3. tests: what a notebook can't test well (pytest tests)
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKERS = min(2, os.cpu_count() or 1)
STEPS = {
    "in step": [sys.executable, "tools/in_step.py"],
    "notebooks": [str(BIN / "nbdev_test"), "--n_workers", str(WORKERS), "--do_print", "--timing"],
    "tests": [sys.executable, "-m", "pytest", "-q", "--durations=5", "tests"],
}
# Nothing is fetched while testing, nor taken from what the user fetched before; two notebooks at a time, one core each.
OFFLINE = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "TOKENIZERS_PARALLELISM": "false"}
ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def run(name: str, cache: str) -> tuple[bool, float]:
    "Run one step with its output passed on: whether it passed, and its seconds."
    print(f"\n== {name} " + "=" * (72 - len(name)), flush=True)
    env = os.environ | OFFLINE | {"HF_HOME": cache} | (ONE_CORE if name == "notebooks" else {})
    started = time.time()
    code = subprocess.run(STEPS[name], cwd=ROOT, env=env, stdin=subprocess.DEVNULL).returncode
    return code == 0, time.time() - started


def main() -> int:
    "Run the steps named on the command line, by default all; 1 where one failed."
    with tempfile.TemporaryDirectory() as cache:
        results = {name: run(name, cache) for name in sys.argv[1:] or STEPS}
    print()
    for name, (passed, seconds) in results.items():
        print(f"{'pass' if passed else 'FAIL'}  {name:<12} {seconds:6.0f} s")
    failed = sum(not passed for passed, _ in results.values())
    print(f"steps: {len(results) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
