"""How the code reads, in figures: line lengths, the longest of each part, exported names.

    python tools/code_figures.py                   of this project: package, notebooks, tests, tools
    python tools/code_figures.py FOLDER ...        of other folders
"""
import ast
import re
import sys
from pathlib import Path
from statistics import median

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "annotated_mpnet"


def written(lines: list[str]) -> list[str]:
    "Lines that are not blank."
    return [line for line in lines if line.strip()]


def longest(trees: dict[str, ast.Module], kinds: tuple) -> str:
    "The longest definition of some kinds, and its lines."
    spans = [(node.end_lineno - node.lineno + 1, f"{name}.{node.name}")
             for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, kinds)]
    lines, name = max(spans, default=(0, ""))
    return f"{name} {lines}"


def figures(title: str, files: list[Path]) -> None:
    "Print those of some files."
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    lengths = [len(line) for text in texts.values() for line in written(text.splitlines())]
    trees = {name: ast.parse(text) for name, text in texts.items()}
    over = [sum(n > limit for n in lengths) / len(lengths) for limit in (100, 120)]
    modules = [(len(text.splitlines()), name) for name, text in texts.items()]
    print(f"{title}: {len(lengths)} lines, over 100 columns {over[0]:.1%}, over 120 {over[1]:.1%}, "
          f"median {median(lengths):.0f}")
    print(f"    longest function: {longest(trees, (ast.FunctionDef, ast.AsyncFunctionDef))}")
    print(f"    longest class:    {longest(trees, (ast.ClassDef,))}")
    print(f"    longest file:     {max(modules)[1]} {max(modules)[0]}")


def cells() -> None:
    "Print those of the notebooks' code."
    found, lengths = [], []
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                lines = [x for x in written(cell.source.splitlines()) if not x.startswith("#|")]
                lengths += map(len, lines)
                found.append((len(cell.source.splitlines()), f"{path.stem} {cell.id}"))
    over = sum(n > 100 for n in lengths) / len(lengths)
    print(f"notebooks: {len(lengths)} lines of code, over 100 columns {over:.1%}, "
          f"longest cell {max(found)[1]} {max(found)[0]}")


def names(files: list[Path]) -> None:
    "Print how many names are exported, and how many another module uses."
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    exported, used = 0, 0
    for path, text in texts.items():
        listed = re.search(r"^__all__ = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
        mine = ast.literal_eval(listed[1]) if listed else []
        others = "\n".join(other for name, other in texts.items() if name != path)
        exported += len(mine)
        used += sum(bool(re.search(rf"\b{name}\b", others)) for name in mine)
    print(f"exported names: {exported}, of which another module has {used}")


def main(folders: list[str]) -> None:
    "The figures of each folder; without one, those of this project."
    if folders:
        for folder in folders:
            figures(folder, sorted(Path(folder).rglob("*.py")))
        return
    package = sorted(p for p in PACKAGE.glob("*.py") if not p.name.startswith("_"))
    figures("package", package)
    cells()
    for folder in ("tests", "tools", "benchmarks", "experiments"):
        figures(folder, sorted((ROOT / folder).glob("*.py")))
    names(package)


if __name__ == "__main__":
    main(sys.argv[1:])
