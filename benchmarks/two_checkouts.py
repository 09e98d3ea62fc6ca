"""Is an update slower than it was? Two checkouts of this repository train the demo in turns.

    python benchmarks/two_checkouts.py OLD NEW     folders, as of `git worktree add OLD COMMIT`

Each trains ten updates, and waits while the other does; CPU seconds of one thread, float32. What
else the machine does meanwhile hits neighbouring turns alike, so that their ratio says more than
the seconds of two whole runs.
"""
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from statistics import median, quantiles

UPDATES, WARM_UP, TURN = 1000, 40, 10
TRAIN = f"""
import sys, time, torch
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.trainer import pretrain
begun = None
def wait(update, metrics):
    global begun
    if update >= {WARM_UP} and update % {TURN} == 0:
        print("turn", time.process_time() - begun if begun else 0, flush=True)
        sys.stdin.readline()
        begun = time.process_time()
torch.set_num_threads(1)
words = "--demo --precision float32 --total-updates {UPDATES} --eval-interval-steps {UPDATES}"
pretrain(parse_args([*words.split(), "--checkpoint-dir", sys.argv[1]]), callback=wait)
"""


def turns(checkout: str, place: str) -> Iterator[float]: # seconds of CPU; the first is none
    "Train the demo of a checkout, ten updates whenever the next number is asked for."
    env = os.environ | {"PYTHONPATH": checkout, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", TRAIN, place], cwd=checkout, env=env,
                               text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        for line in process.stdout:
            if line.startswith("turn "):
                yield float(line.split()[1])
                print(file=process.stdin, flush=True)
    finally:
        process.kill()


def main(old: str, new: str) -> None:
    "Print what the ratios of neighbouring turns are."
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        runs = [turns(path, f"{folder}/{n}") for n, path in enumerate((old, new))]
        for run in runs:
            next(run)
        for first in [0, 1] * ((UPDATES - WARM_UP) // TURN // 2):  # each goes first as often
            both = [next(runs[first]), next(runs[1 - first])]
            pairs.append(both[::-1] if first else both)
        for run in runs:
            run.close()
    ratios = [b / a for a, b in pairs]
    low, middle, high = quantiles(ratios, n=4)
    seconds = [median(column) / TURN * 1000 for column in zip(*pairs)]
    print(f"{len(ratios)} pairs of {TURN} updates: new / old {middle:.3f} in the median, half of "
          f"them from {low:.3f} to {high:.3f}; {seconds[0]:.1f} and {seconds[1]:.1f} ms of CPU an "
          "update")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(os.path.abspath, sys.argv[1:]))
