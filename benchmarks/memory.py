"""Peak memory of reading and of training, over a small and a large text file.

    python benchmarks/memory.py [--short]

Each figure is the peak resident memory of a process of its own, above what it takes after its imports.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from common import SHORT, long_documents, report

CHILD = os.environ.get("ANNOTATED_MPNET_MEMORY")    # set in the processes that are measured: what to do, and with which folder
SMALL, LARGE = 20_000_000, 200_000_000 if SHORT else 2_000_000_000
BATCHES = 100 if SHORT else 200
TASKS = {"index": "index the lines", "load": f"{BATCHES} batches of 16, of at most 512 tokens", "train": "train a tiny model, 20 updates"}


def write(folder: Path, size: int) -> None:
    "A text file of so many bytes, and small ones to validate and test on."
    (folder / "train").mkdir(parents=True)
    texts, written, number = long_documents(), 0, 0
    with (folder / "train" / "a.txt").open("w") as file:
        while written < size: written, number = written + file.write(f"{number} {texts[number % len(texts)]}\n"), number + 1
    (folder / "held.txt").write_text("\n".join(texts[:32]))


def peak() -> int: # bytes
    "The most memory that this process has had."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def child(task: str, folder: str) -> None:
    "Do one thing and print what it took; loading begins with the index, so that process prints both."
    import torch
    from annotated_mpnet import trainer
    from annotated_mpnet.configuration import PretrainConfig
    from annotated_mpnet.data import Batches, load_data
    from annotated_mpnet.permutation import MaskedPermutedCollator
    from annotated_mpnet.tokenization import demo_tokenizer
    torch.set_num_threads(1)
    tokenizer, before = demo_tokenizer(), peak()
    held = str(Path(folder) / "held.txt")
    config = PretrainConfig(train_dir=str(Path(folder) / "train"), valid_file=held, test_file=held, tokenizer_name="demo", encoder_layers=1,
                            encoder_embed_dim=32, encoder_ffn_dim=32, encoder_attention_heads=2, max_tokens=64, update_freq=1, total_updates=20,
                            checkpoint_dir=str(Path(folder) / "checkpoints"), overwrite=True)
    taken = {}
    if task == "train": trainer.pretrain(config)
    else:
        source = load_data(config)[0]
        taken["index"] = peak() - before
        for _ in islice(Batches(source, tokenizer, MaskedPermutedCollator(tokenizer), 16, 512), BATCHES): pass
    print("\n" + json.dumps(taken | {task: peak() - before}))


def main():
    "Each task over each file."
    found = {}
    with tempfile.TemporaryDirectory() as root:
        for size in (SMALL, LARGE):
            folder = Path(root) / str(size)
            write(folder, size)
            for task in ("load", "train"):
                env = os.environ | {"ANNOTATED_MPNET_MEMORY": f"{task} {folder}"}
                done = subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=env, capture_output=True, text=True)
                if done.returncode: print(f"{TASKS[task]}: failed: {done.stderr.strip().splitlines()[-1]}")
                else: found |= {(name, size): taken for name, taken in json.loads(done.stdout.splitlines()[-1]).items()}
    mb = lambda size: f"{size / 1e6:,.0f} MB"
    report("Peak memory above that after the imports", ["", f"{mb(SMALL)} file", f"{mb(LARGE)} file", "difference", "difference beside the larger file"],
           [[TASKS[task], mb(found[task, SMALL]), mb(found[task, LARGE]), mb(found[task, LARGE] - found[task, SMALL]),
             f"{(found[task, LARGE] - found[task, SMALL]) / (LARGE - SMALL):.1%}"] for task in TASKS if (task, SMALL) in found and (task, LARGE) in found])


if __name__ == "__main__":
    if CHILD: child(*CHILD.split(" ", 1))
    else: main()
