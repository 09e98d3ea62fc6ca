"""Peak memory of reading and of training, over a small and a large text file.

    python benchmarks/memory.py [--short]

Each figure is the peak resident memory of a process of its own, above that after its imports.
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

# Set in the processes that are measured: what to do, and with which folder.
CHILD = os.environ.get("ANNOTATED_MPNET_MEMORY")
SMALL, LARGE = 20_000_000, 200_000_000 if SHORT else 2_000_000_000
BATCHES = 100 if SHORT else 200
TASKS = {
    "index": "index the lines",
    "load": f"{BATCHES} batches of 16, of at most 512 tokens",
    "train": "train a tiny model, 20 updates",
}
MODEL = dict(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_dim=32, encoder_attention_heads=2)
RUN = dict(max_tokens=64, update_freq=1, total_updates=20, overwrite=True)


def write(folder: Path, size: int) -> None:
    "A text file of so many bytes, and small ones to validate and test on."
    (folder / "train").mkdir(parents=True)
    texts, written, number = long_documents(), 0, 0
    with (folder / "train" / "a.txt").open("w") as file:
        while written < size:
            written += file.write(f"{number} {texts[number % len(texts)]}\n")
            number += 1
    (folder / "held.txt").write_text("\n".join(texts[:32]))


def peak() -> int: # bytes
    "The most memory that this process has had."
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def child(task: str, name: str) -> None:
    "Do one thing and print what it took; loading begins with the index: its process prints both."
    import torch
    from annotated_mpnet import trainer
    from annotated_mpnet.configuration import PretrainConfig
    from annotated_mpnet.data import Batches, load_data
    from annotated_mpnet.permutation import MaskedPermutedCollator
    from annotated_mpnet.tokenization import demo_tokenizer
    torch.set_num_threads(1)
    tokenizer, before = demo_tokenizer(), peak()
    folder = Path(name)
    held = str(folder / "held.txt")
    files = dict(train_dir=str(folder / "train"), valid_file=held, test_file=held,
                 checkpoint_dir=str(folder / "checkpoints"))
    config = PretrainConfig(tokenizer_name="demo", **files, **MODEL, **RUN)
    taken = {}
    if task == "train":
        trainer.pretrain(config)
    else:
        source = load_data(config)[0]
        taken["index"] = peak() - before
        batches = Batches(source, tokenizer, MaskedPermutedCollator(tokenizer), 16, 512)
        for _ in islice(batches, BATCHES):
            pass
    print("\n" + json.dumps(taken | {task: peak() - before}))


def measured(task: str, folder: Path) -> dict[str, int]: # bytes, by task
    "What a process of its own took; a message and nothing where it failed."
    env = os.environ | {"ANNOTATED_MPNET_MEMORY": f"{task} {folder}"}
    command = [sys.executable, __file__, *sys.argv[1:]]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        print(f"{TASKS[task]}: failed: {done.stderr.strip().splitlines()[-1]}")
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def main():
    "Each task over each file."
    found = {}
    with tempfile.TemporaryDirectory() as root:
        for size in (SMALL, LARGE):
            folder = Path(root) / str(size)
            write(folder, size)
            for task in ("load", "train"):
                found |= {(name, size): n for name, n in measured(task, folder).items()}
    rows = []
    for task, words in TASKS.items():
        small, large = found.get((task, SMALL)), found.get((task, LARGE))
        if small is not None and large is not None:
            more = large - small
            rows.append([words, mb(small), mb(large), mb(more), f"{more / (LARGE - SMALL):.1%}"])
    files = [f"{mb(size)} file" for size in (SMALL, LARGE)]
    report("Peak memory above that after the imports",
           ["", *files, "difference", "difference beside the larger file"], rows)


if __name__ == "__main__":
    if CHILD:
        child(*CHILD.split(" ", 1))
    else:
        main()
