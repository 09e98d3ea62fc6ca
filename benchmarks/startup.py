"""How long a command takes to begin: `--help`, and the first update, beside its imports alone.

    python benchmarks/startup.py [--short]

Each is a process of its own; all take turns. The model is 4 layers of width 256, with 16 sequences
of 128 tokens in an update.
"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import SHORT, long_documents, report

COMMAND = [sys.executable, "-m", "annotated_mpnet.cli"]
SMALL = (
    "--encoder-layers 4 --encoder-embed-dim 256 --encoder-ffn-dim 1024 --encoder-attention-heads 4 "
    "--tokenizer-name demo --max-tokens 128 --batch-size 16 --update-freq 1 --total-updates 100 "
    "--logging-steps 1 --train-dir texts --valid-file held-out.txt --test-file held-out.txt"
).split()
IMPORTS = "import torch, transformers, datasets"
HELP, FIRST = "pretrain-mpnet --help", "first update of the small model"


def seconds_of(command: list[str], folder: Path) -> float:
    "From start to end."
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def first_update(folder: Path, run: int) -> float: # seconds
    "From the start of the command until it shows its first update; then it is killed."
    begun = time.perf_counter()
    folders = ["--checkpoint-dir", f"run{run}", "--tensorboard-log-dir", f"logs{run}"]
    with subprocess.Popen([*COMMAND, *SMALL, *folders], cwd=folder, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "train/loss" in line:
                break
        else:
            sys.exit("the command ended before its first update:\n" + "".join(lines))
        process.kill()
    return time.perf_counter() - begun


def main() -> None:
    "Print the table."
    with tempfile.TemporaryDirectory() as place:
        folder, texts = Path(place), long_documents()
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_text("\n".join(texts))
        (folder / "held-out.txt").write_text("\n".join(texts[:16]))
        times = {HELP: [], IMPORTS: [], FIRST: []}
        for run in range(3 if SHORT else 7):
            times[HELP].append(seconds_of([*COMMAND, "--help"], folder))
            times[IMPORTS].append(seconds_of([sys.executable, "-c", IMPORTS], folder))
            times[FIRST].append(first_update(folder, run))
    rows = []
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[IMPORTS])]
        rows.append([name, f"{median(seconds):.2f}", f"{median(ratios):.2f}x"])
    report("From the start of a process", ["", "seconds", "of the imports"], rows)


if __name__ == "__main__":
    main()
