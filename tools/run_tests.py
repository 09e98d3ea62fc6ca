"""`make test`: four steps, each timed; one that fails makes the whole fail, the others still run.

Steps that keep a single core busy run side by side.

    python tools/run_tests.py                           all four
    python tools/run_tests.py tests                     one of them: in-step, lint, notebooks, tests
    python tools/run_tests.py --cpu avx2 --threads 2    as on another machine
"""
import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import IO

import alone

ROOT = Path(__file__).resolve().parents[1]
LANES = min(8, os.cpu_count() or 1)  # notebooks, or tests, side by side
# Nothing is fetched while testing, nor taken from what the user fetched before.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "TOKENIZERS_PARALLELISM": "false",
}
# The instruction sets that PyTorch's own kernels, oneDNN and MKL may use, in rising order.
CAPS = {
    "default": ("default", "SSE41", "SSE4_2"),
    "avx2": ("avx2", "AVX2", "AVX2"),
    "avx512": ("avx512", "AVX512_CORE", "AVX512"),
}
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def best_set() -> str:
    "The highest of `CAPS` that this processor has."
    probe = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    env = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True)
    return done.stdout.strip()


def machine(cpu: str | None, threads: int) -> dict[str, str]:
    "The environment that makes this machine like another one."
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if cpu is None:
        return env
    rising = list(CAPS)
    here = best_set()
    if cpu != "default" and (here not in CAPS or rising.index(here) < rising.index(cpu)):
        sys.exit(f"this processor has no {cpu}: PyTorch's best here is {here}; give --cpu default")
    return env | dict(zip(SWITCHES, CAPS[cpu]))


def run(out: IO[str] | None, env: dict[str, str], *command: object) -> bool:
    "Whether a command at the root succeeds, with no input; what it says goes to a file, if given."
    streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out and subprocess.STDOUT}
    command = [str(c) for c in command]
    return subprocess.run(command, cwd=ROOT, env=env, **streams).returncode == 0


def in_step(env: dict[str, str], out: IO[str] | None) -> bool:
    "Package, notebooks, README.md and docs/configuration.md say the same."
    return run(out, env, sys.executable, "tools/in_step.py")


def lint(env: dict[str, str], out: IO[str] | None) -> bool:
    "Ruff finds no mistake, and mypy no annotation of the package that isn't true (pyproject.toml)."
    clean = run(out, env, sys.executable, "-m", "ruff", "check", "--output-format", "concise")
    typed = run(out, env, sys.executable, "-m", "mypy")
    if not (clean and typed):
        print("change the line; one of annotated_mpnet/ in its notebook, then run `make notebooks`",
              file=out, flush=True)
    return clean and typed


def notebooks(env: dict[str, str], out: IO[str] | None) -> bool:
    "Every notebook runs in Jupyter, alone in an empty folder, with the wheel and what it requires."
    paths = sorted((ROOT / "nbs").glob("[!_.]*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        python = alone.environment(place / "venv", alone.wheel(place), ("notebooks",))
        env = {name: value for name, value in env.items() if name != "PYTHONPATH"}
        return run(out, env, python, "tools/kernels.py", LANES, *paths)


def tests(env: dict[str, str], out: IO[str] | None) -> bool:
    "What a notebook can't test well (pytest)."
    options = ("-q", "-n", LANES, "--durations=5")
    return run(out, env, sys.executable, "-m", "pytest", *options, "tests")


STEPS = {"in-step": in_step, "lint": lint, "notebooks": notebooks, "tests": tests}
ONE_CORE = ("in-step", "lint")


def timed(name: str, env: dict[str, str], out: IO[str] | None = None) -> tuple[bool, float]:
    "Run a step: whether it passed, and its seconds."
    print(f"\n== {name}: {STEPS[name].__doc__}", file=out, flush=True)
    started = time.time()
    return STEPS[name](env, out), time.time() - started


def kept_apart(name: str, env: dict[str, str]) -> tuple[bool, float]:
    "The same beside another step: what it says is printed when it has ended."
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        result = timed(name, env, out)
        out.seek(0)
        print(out.read(), end="", flush=True)
    return result


def arguments(argv: list[str]) -> argparse.Namespace:
    "What the command line asks for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    named = {"nargs": "*", "choices": [*STEPS, []], "metavar": "STEP"}
    parser.add_argument("steps", **named, help=f"of {', '.join(STEPS)}; default: all")
    parser.add_argument("--cpu", choices=CAPS, help="the highest instruction set to use")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    "Run the steps; 1 where one failed."
    asked = arguments(argv)
    env = os.environ | OFFLINE | machine(asked.cpu, asked.threads)
    results = {}
    print(f"Python {platform.python_version()}, {asked.cpu or 'every'} instruction set, "
          f"{asked.threads} thread{'s' * (asked.threads > 1)} a process, {LANES} side by side")
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(LANES) as pool:
        env |= {"HF_HOME": cache}
        for small, names in groupby(asked.steps or STEPS, ONE_CORE.__contains__):
            names = list(names)
            if small:
                ended = pool.map(kept_apart, names, [env] * len(names))
                results |= dict(zip(names, ended))
            else:
                results |= {name: timed(name, env) for name in names}
    print()
    for name, (passed, seconds) in results.items():
        print(f"{'pass' if passed else 'FAIL'}  {name:<12} {seconds:5.0f} s")
    failed = sum(not passed for passed, _ in results.values())
    print(f"steps: {len(results) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
