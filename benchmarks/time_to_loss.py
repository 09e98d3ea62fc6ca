"""Time to a loss: whole commands that train on the same texts, judged by the same evaluation.

    [PEER='COMMAND'] python benchmarks/time_to_loss.py [--short]

Ours, ours as MLM, ours with the textbook's attention, and transformers' Trainer with
`MPNetForMaskedLM` train the demo's model on the embedded corpus: same tokenizer, batch, schedule,
number of updates. Our first weights are spread wider the narrower a model is; transformers' are
spread by 0.02 unless told otherwise, so it stands here as it is, and with our spread.

A peer is a command line; in it stand {texts}, a folder of .txt files with one document on a line,
{valid}, {test}, such files, {tokenizer}, a folder, {updates}, {interval}, and {out}, where it
leaves a checkpoint after each {interval} updates: a folder that transformers reads or a .pt file
that lesson 09's `load_model` reads, with the number of updates in its name.

Time is CPU seconds of the command and its children, from its start to the checkpoint, on one
thread; commands run one after the other. The evaluation is the same for all: of held-out texts, a
fixed 15 % of the tokens are hidden by <mask>, and the loss is that of the hidden ones, each
predicted without knowing the others. That is what MLM is trained for. MPNet is trained to
predict with a part of the others known, so its own validation loss is lower than this one.

`--short` makes 40 updates of each. Without it, the curves are drawn in docs/images.
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import SHORT, report

import numpy as np
import psutil
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from annotated_mpnet.checkpoints import load_model
from annotated_mpnet.configuration import DEMO_DEFAULTS
from annotated_mpnet.documents import split_corpus
from annotated_mpnet.tokenization import demo_tokenizer, tokenize

UPDATES, INTERVAL = (40, 20) if SHORT else (1000, 50)
LOSSES = (6.25, 6.0, 5.9)  # nats
HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs/images/time_to_loss.png"
SHAPE = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in DEMO_DEFAULTS.items()
                 if name not in ("tokenizer_name", "total_updates", "eval_interval_steps",
                                 "checkpoint_dir"))
OURS = ("--train-dir {texts} --valid-file {valid} --test-file {test} --tokenizer-name {tokenizer} "
        "--checkpoint-dir {out} --total-updates {updates} --checkpoint-interval {interval} "
        "--keep-checkpoints -1 --eval-interval-steps 1000000 --no-whole-word-mask "
        f"--tensorboard-log-dir {{out}}/logs {SHAPE}")
PYTHON, WIDTH = shlex.quote(sys.executable), DEMO_DEFAULTS["encoder_embed_dim"]
THEIRS = (f"{PYTHON} {shlex.quote(str(HERE / 'transformers_mlm.py'))} "
          "{texts} {tokenizer} {out} {updates} {interval}")
COMMANDS = {
    "ours": f"{PYTHON} -m annotated_mpnet.cli {OURS}",
    "ours, MLM": f"{PYTHON} -m annotated_mpnet.cli {OURS} --objective mlm",
    "textbook": f"{PYTHON} {shlex.quote(str(HERE / 'textbook.py'))} {OURS}",
    "transformers MLM": f"{THEIRS} 0.02",
    "transformers MLM, our spread": f"{THEIRS} {0.02 * (768 / WIDTH)**0.5:.4f}",
} | ({"peer": os.environ["PEER"]} if "PEER" in os.environ else {})
CHECKPOINT = re.compile(r"[a-z_]+-?(\d+)(\.pt)?")


def write_texts(place: Path) -> dict[str, str]: # what a template names -> its path
    "The embedded corpus and its tokenizer, as files."
    (place / "texts").mkdir()
    names = ("texts/train.txt", "valid.txt", "test.txt")
    for name, part in zip(names, split_corpus()):
        lines = "".join(" ".join(text.split()) + "\n" for text in part)
        (place / name).write_text(lines, encoding="utf-8")
    demo_tokenizer().save_pretrained(place / "tokenizer")
    return {"texts": str(place / "texts"), "valid": str(place / "valid.txt"),
            "test": str(place / "test.txt"), "tokenizer": str(place / "tokenizer")}


def cpu_seconds(process: psutil.Process) -> float:
    "What a process and its children have used so far."
    try:
        family = [process, *process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:4]) for one in family)
    except psutil.Error:    # one of them has ended: the next look finds it in its parent's times
        return 0.0


def watched(command: str, # without placeholders
            out: Path,    # the folder that its checkpoints appear in
           ) -> dict[Path, float]: # checkpoint -> CPU seconds when it was first seen
    "Run a command to its end, and look often what is there."
    process, seen, used = subprocess.Popen(
        shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), {}, 0.0
    asked = psutil.Process(process.pid)
    while True:
        ended = process.poll() is not None
        used = max(used, 0.0 if ended else cpu_seconds(asked))
        there = out.iterdir() if out.exists() else ()
        for path in there:
            if CHECKPOINT.fullmatch(path.name):
                seen.setdefault(path, used)
        if ended:
            break
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{command}\nended with {process.returncode}: {process.stderr.read()[-2000:]}")
    return seen


def hidden_texts(tokenizer: PreTrainedTokenizerFast, # the one of all
                 texts: list[str],                   # held out
                ) -> list[dict[str, torch.Tensor]]:  # batches of 64
    "Token ids with a fixed 15 % hidden, the attention mask, where, and what was there."
    rng, batches = np.random.default_rng(0), []
    rows = sorted(tokenize(tokenizer, texts, DEMO_DEFAULTS["max_tokens"]), key=len)
    for i in range(0, len(rows), 64):
        some = tokenizer.pad({"input_ids": rows[i:i + 64]}, return_tensors="pt")
        ids, mask = some["input_ids"], some["attention_mask"]
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        at = torch.from_numpy(rng.random(ids.shape) < 0.15) & ~special
        batches.append({"input_ids": ids.masked_fill(at, tokenizer.mask_token_id),
                        "attention_mask": mask, "at": at, "targets": ids[at]})
    return batches


@torch.no_grad()
def loss_of(path: Path,          # a checkpoint
            batches: list[dict], # of `hidden_texts`
           ) -> float: # nats per hidden token
    "The mean loss at the masks."
    if path.is_dir():
        theirs = AutoModelForMaskedLM.from_pretrained(path).eval()
        def predict(ids, mask, at):
            return theirs(input_ids=ids, attention_mask=mask).logits[at]
    else:
        ours = load_model(path)
        def predict(ids, mask, at):
            return ours.logits(ours.encode(ids, mask)[at])[:, :ours.config.vocab_size]
    total, n = 0.0, 0
    for batch in batches:
        logits = predict(batch["input_ids"], batch["attention_mask"], batch["at"])
        total += float(cross_entropy(logits.float(), batch["targets"], reduction="sum"))
        n += len(batch["targets"])
    return total / n


def seconds_to(loss: float, # nats
               curve: list[tuple[int, float, float]], # update, CPU seconds, loss
              ) -> float: # inf: it was not reached
    "When a curve first gets down to a loss; between two checkpoints it is a line."
    for (_, s0, before), (_, s1, after) in zip(curve, curve[1:]):
        if after <= loss < before:
            return s0 + (s1 - s0) * (before - loss) / (before - after)
    return curve[0][1] if curve and curve[0][2] <= loss else float("inf")


def draw(curves: dict[str, list[tuple]]) -> None:
    "Loss over CPU seconds, and over updates."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update(matplotlib.rc_params_from_file(
        HERE.parent / "nbs/matplotlibrc", use_default_template=False))
    plt.rcParams["svg.hashsalt"] = "time_to_loss"   # the same file for the same curves
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True, layout="constrained")
    for (name, curve), style in zip(curves.items(), ("-", "-.", "--", ":", (0, (1, 3)), "-")):
        updates, seconds, losses = zip(*curve)
        for ax, x in zip(axes, (seconds, updates)):
            ax.plot(x, losses, linestyle=style, label=name)
    axes[0].set(xlabel="CPU seconds of the whole command", ylabel="loss at masks (nats)", xlim=0)
    axes[1].set(xlabel="updates", xlim=0)
    axes[0].legend()
    fig.savefig(FIGURE, dpi=192, metadata={"Software": None})


def main() -> None:
    "Run all, evaluate all, print and draw."
    disable_progress_bar()
    batches = hidden_texts(demo_tokenizer(), [*split_corpus()[1], *split_corpus()[2]])
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        known = write_texts(Path(folder))
        for name, template in COMMANDS.items():
            out = Path(folder) / f"out{len(curves)}"
            fill = partial(template.format, updates=UPDATES, interval=INTERVAL, out=out)
            seen = watched(fill(**known), out)
            number = {path: int(CHECKPOINT.fullmatch(path.name)[1]) for path in seen}
            curves[name] = [(number[path], seconds, loss_of(path, batches))
                            for path, seconds in sorted(seen.items(), key=lambda x: number[x[0]])]
    ours = {loss: seconds_to(loss, curves["ours"]) for loss in LOSSES}
    rows = []
    for name, curve in curves.items():
        times = [(seconds_to(loss, curve), ours[loss]) for loss in LOSSES]
        cells = [f"{s:.1f} ({s / o:.2f}x)" if s < float("inf") > o else "" for s, o in times]
        last, seconds, end = curve[-1]
        rows.append([name, *cells, f"{1000 * (seconds - curve[0][1]) / (last - curve[0][0]):.1f}",
                     f"{seconds:.1f}", f"{end:.3f}"])
    report(f"CPU seconds of whole commands to a loss at masks; {UPDATES} updates of "
           f"{DEMO_DEFAULTS['batch_size']} texts, the demo's model; in brackets, of ours",
           ["", *(f"to {loss} nats" for loss in LOSSES), "ms an update", "s in all", "loss"], rows)
    if not SHORT:
        draw(curves)
        print(f"\ndrawn in {FIGURE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
