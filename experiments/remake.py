"""Remake the stored results of a lesson: the long experiments of lessons 20 and 30 to 34.

    python experiments/remake.py 31                      all that are missing
    python experiments/remake.py 31 pretrain mpnet 1     this one, whether it is there or not
    python experiments/remake.py 31 --list               what there is, and what is missing

The code is the lesson's own: its cells that begin with `#| experiment: true` are run, in order,
and then `experiment`, which one of them defines, is called for each entry of the list
`EXPERIMENTS`. What it gives is a line of annotated_mpnet/course/31.jsonl, with the versions that
it was made with. Models that only the experiments need lie in runs/, which git ignores.
"""
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")    # sums are made in the same order on every machine

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
NBS, COURSE, MARK = ROOT / "nbs", ROOT / "annotated_mpnet" / "course", "#| experiment: true"


def lesson_cells(number: str) -> dict:
    "Run the marked cells of a lesson; the names that they define."
    path = next(NBS.glob(f"{number}_*.ipynb"), None)
    if path is None:
        sys.exit(f"no notebook in nbs/ begins with {number}_")
    names = {"__name__": "experiment"}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith(MARK):
            exec(compile(cell.source, f"{path.name}, cell {cell.id}", "exec"), names)
    if "experiment" not in names:
        sys.exit(f"{path.name} has no stored experiments")
    return names


def stored(number: str) -> dict[tuple, dict]:
    "The lines of a lesson's file, by their arguments."
    path = COURSE / f"{number}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {tuple(line["args"]): line for line in map(json.loads, lines)}


def remake(number: str, args: tuple, experiment) -> None:
    "Run one experiment, and put its line into the file in place of an older one."
    begun = time.time()
    result = experiment(*args)
    packages = {name: version(name) for name in ("torch", "transformers")}
    made_with = {"python": platform.python_version(), **packages}
    lines = stored(number) | {args: {"args": list(args), **result, "made_with": made_with}}
    text = "".join(json.dumps(lines[key]) + "\n" for key in sorted(lines, key=str))
    path = COURSE / f"{number}.jsonl"
    path.with_suffix(".part").write_text(text, encoding="utf-8")
    path.with_suffix(".part").replace(path)      # whole or absent
    print(f"{number} {' '.join(map(str, args))}: {time.time() - begun:.0f} s", flush=True)


def main(number: str, *words: str) -> None:
    "Run what was asked for."
    os.chdir(NBS)                                # where a notebook runs
    names = lesson_cells(number)
    known = {tuple(map(str, args)): tuple(args) for args in names["EXPERIMENTS"]}
    there = stored(number)
    if words == ("--list",):
        for args in known.values():
            print("there  " if args in there else "missing", number, *args)
        return
    if words and words not in known:
        sys.exit(f"no experiment {' '.join(words)}; --list shows them")
    missing = [args for args in known.values() if args not in there]
    for args in [known[words]] if words else missing:
        remake(number, args, names["experiment"])


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    main(*sys.argv[1:])
