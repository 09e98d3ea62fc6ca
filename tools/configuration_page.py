"""Write docs/configuration.md, the reference of every argument, from the package itself."""
import re
from dataclasses import Field
from pathlib import Path

from annotated_mpnet.configuration import (
    ACTIVATION_MEANINGS, DEMO_DEFAULTS, flag, groups, kind, names, show)
from annotated_mpnet.rules import RULES_BETWEEN

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
INTRO = """\
# Configuration

Every argument of `pretrain-mpnet`. An underscore may stand for any dash inside a name, \
`--no-name` turns a `bool` off again, and every name without its leading dashes is a key of the \
YAML file that `--config` reads. *Addition* marks what this project adds to the usual arguments \
of MPNet pretraining.

This page is made by `python tools/configuration_page.py` from the dataclass of lesson 01 and \
the rules of lesson 01c.
"""
PARENT = {"HuggingFace Streaming (default)": "Data Source", "Local Files": "Data Source"}
EXAMPLES = {  # title -> why, and the commands
    "MPNet-base": (
        "The model of the paper. These are the defaults, written out.",
        "pretrain-mpnet --encoder-layers 12 --encoder-attention-heads 12 \\\n"
        "    --encoder-embed-dim 768 --encoder-ffn-dim 3072"),
    "Less memory": (
        "Half the micro-batch and twice as many of them: the update is the same. "
        "Recomputing activations saves more.",
        "pretrain-mpnet --batch-size 8 --update-freq 16 --gradient-checkpointing"),
    "A run that can be resumed": (
        "Save all that is needed to resume; then resume, from the newest checkpoint or from one "
        "that you name.",
        "pretrain-mpnet --save-optimizer-state --checkpoint-interval 2500\n"
        "pretrain-mpnet --save-optimizer-state --checkpoint-interval 2500 --resume\n"
        "pretrain-mpnet --save-optimizer-state --checkpoint-interval 2500 \\\n"
        "    --resume --resume-checkpoint ./checkpoints/checkpoint2500.pt"),
    "Everything logged": (
        "Metrics every ten updates, to TensorBoard's files and to Weights & Biases.",
        "pretrain-mpnet --tensorboard-log-dir ./logs --wandb --wandb-project my-project "
        "--logging-steps 10"),
    "Files of your own": (
        "One document on a line; a tokenizer from a folder needs no network.",
        "pretrain-mpnet --train-dir ./texts --valid-file valid.txt --test-file test.txt \\\n"
        "    --tokenizer-name ./tokenizer"),
}


def as_code(text: str) -> str:
    "Markdown in which the names of arguments are set as code."
    return re.sub(r"(?<![\w`-])(--[a-z][a-z0-9-]*)", r"`\1`", text)


def table(heads: list[str], rows: list[list[str]]) -> str:
    "A table in Markdown."
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def table_row(f: Field) -> list[str]:
    "Names, type, default and meaning of one argument; the anchor is its name."
    meta = f.metadata
    meaning = as_code(meta["help"])
    if meta["choices"]:
        meaning += "; one of " + ", ".join(f"`{choice}`" for choice in meta["choices"])
    if meta["rule"]:
        meaning += f"; {meta['rule']}"
    mark = " *Addition.*" if meta["added"] else ""
    title = ", ".join(f"`{name}`" for name in names(f))
    return [f'{title} <a id="{flag(f.name)[2:]}"></a>', f"`{kind(f).__name__}`",
            f"`{show(f.default)}`", f"{meaning[0].upper()}{meaning[1:]}.{mark}"]


def heading(title: str, level: int = 2) -> str:
    "A heading with an anchor that is the same on every site: args-local-files."
    anchor = "-".join(re.findall(r"[a-z0-9]+", title.lower()))
    return f'<a id="args-{anchor}"></a>\n\n{"#" * level} {title}\n'


def argument_tables() -> list[str]:
    "Each group of arguments as a table under its heading."
    pieces, parent = [], None
    for title, members in groups().items():
        above = PARENT.get(title)
        if above and above != parent:
            pieces.append(heading(above))
        parent = above
        pieces.append(heading(title, 3 if parent else 2))
        heads = ["Argument", "Type", "Default", "Meaning"]
        pieces.append(table(heads, [table_row(f) for f in members]))
        if title == "Model Architecture":
            meanings = [[f"`{name}`", meaning] for name, meaning in ACTIVATION_MEANINGS.items()]
            pieces.append(table(["Activation", "What it computes"], meanings))
    return pieces


def docs_table() -> str:
    "The whole page, docs/configuration.md."
    demo = [[f"`{flag(name)}`", f"`{show(value)}`"] for name, value in DEMO_DEFAULTS.items()]
    rules = "".join(f"- {as_code(rule.text)}\n" for rule in RULES_BETWEEN)
    pieces = [INTRO, *argument_tables(),
              heading("Defaults of the demo"), table(["Argument", "Default"], demo),
              heading("Rules between arguments"), rules,
              heading("Commands to start from")]
    for title, (why, commands) in EXAMPLES.items():
        pieces.append(f"### {title}\n\n{why}\n\n```bash\n{commands}\n```\n")
    return "\n".join(pieces)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(docs_table(), encoding="utf-8")
    print("wrote docs/configuration.md")
