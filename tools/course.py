"""What the course counts and writes of its lessons itself, and the students' edition of them.

    python tools/course.py                  write reading times and paths, hide what is folded
    python tools/course.py students FOLDER  the lessons without their solutions

The tags of a lesson's cells: `start` (where an exercise begins), `solution`, `check` (which runs
against one's own answer), and `hide-input` (exported plumbing, which is folded; the metadata
`summary` says what it is, since an option in the cell would get into the package).
"""
import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

import lessons
import readme

WORDS_A_MINUTE, LINES_A_MINUTE = 220, 12
LONGEST = 25  # minutes of one lesson
# What one reads in an afternoon, in this order; all other lessons follow in the order of files.
CORE = ("00", "02b", "03", "04", "05", "05c", "06", "06c", "14")
EXPERIMENTS = "3"  # with what the numbers of lessons begin that ask a question
TIME = re.compile(r"(\*\*Time:\*\* )\d+( minutes to read[^.]*\.)(?: \*\*Path:\*\* [^.]*\.)?")
ROLES = ("start", "solution", "check")


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def only_imports(source: str) -> bool:
    "Whether a cell does nothing but import, where a reader may skip it."
    try:
        body = ast.parse(readme.cell_options(source)[2]).body
    except SyntaxError:
        return False
    plumbing = ("if TYPE_CHECKING:", "logger = logging.getLogger(")
    return bool(body) and all(isinstance(s, ast.Import | ast.ImportFrom)
                              or ast.unparse(s).startswith(plumbing) for s in body)


def fold(cell) -> str | None:
    "The line that stands for a folded cell of code; nothing where it stands in the open."
    options = readme.cell_options(cell.source)[0]
    if options.get("code-fold"):
        return options.get("code-summary", "Code")
    if only_imports(cell.source):
        return "Imports"
    return cell.metadata.get("summary", "Code") if "hide-input" in tags(cell) else None


def skipped(cell) -> bool:
    "Whether a cell of code is not shown at all."
    options, directives, code = readme.cell_options(cell.source)
    hidden = directives & readme.HIDING or options.get("include") is False
    return bool(hidden) or options.get("echo") is False or not code


def lesson_part(cells: list) -> list:
    "The cells of a lesson without its exercises; a cell that begins them is cut there."
    part, inside = [], False
    for cell in cells:
        if cell.cell_type == "code":
            part += [] if inside else [cell]
            continue
        for text in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            if text.startswith("## "):
                inside = text.startswith("## Exercises")
            if not inside:
                part.append(nbformat.v4.new_markdown_cell(text))
    return part


def minutes(cells: list) -> int:
    "To read a lesson: its words and its shown lines, without exercises and what is folded."
    words = lines = 0
    for cell in lesson_part(cells):
        if cell.cell_type == "markdown":
            text = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
            words += len(text.split())
        elif not skipped(cell) and fold(cell) is None:
            code = readme.cell_options(cell.source)[2]
            lines += sum(bool(line.strip()) for line in code.split("\n"))
    return round(words / WORDS_A_MINUTE + lines / LINES_A_MINUTE)


def number(path: Path) -> str:
    return path.name.split("_")[0]


def in_order() -> list[Path]:
    "The lessons as one reads them: the core, then the others."
    paths = {number(path): path for path in sorted(lessons.NBS.glob("[0-9]*.ipynb"))}
    core = [paths.pop(n) for n in CORE if n in paths]
    return core + list(paths.values())


def path_of(lesson: str) -> str:
    "In words, to which of the paths a lesson belongs."
    if lesson in CORE:
        return f"core, {CORE.index(lesson) + 1} of {len(CORE)}"
    return "experiments" if lesson.startswith(EXPERIMENTS) else "engineering"


def complete(nb, lesson: str) -> None:
    "Write into a lesson its reading time and path, and hide in Jupyter what the site folds."
    said = rf"\g<1>{minutes(nb.cells)}\2 **Path:** {path_of(lesson)}."
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = TIME.sub(said, cell.source)
        elif cell.cell_type == "code":
            hidden = {}
            if fold(cell) is not None:
                hidden["source_hidden"] = True
            if "solution" in tags(cell):
                hidden = {"source_hidden": True, "outputs_hidden": True}
            cell.metadata.pop("jupyter", None)
            if hidden:
                cell.metadata["jupyter"] = hidden


def stale() -> Iterator[tuple[Path, nbformat.NotebookNode]]:
    "The lessons that `complete` changes, as they should be."
    for path in in_order():
        nb = nbformat.read(path, as_version=4)
        before = nbformat.writes(nb)
        complete(nb, number(path))
        if nbformat.writes(nb) != before:
            yield path, nb


def write() -> None:
    "`complete` all lessons."
    for path, nb in stale():
        nbformat.write(nb, path)
        print(f"wrote {path.name}")


def without_solutions(nb) -> None:
    "Leave the cells to start from and the checks, with no output that gives an answer."
    nb.cells = [cell for cell in nb.cells if "solution" not in tags(cell)]
    for cell in nb.cells:
        if tags(cell) & set(ROLES):
            cell.outputs = []


def students(folder: Path) -> None:
    "`make students`: the lessons to be handed out."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in in_order():
        nb = nbformat.read(path, as_version=4)
        without_solutions(nb)
        nbformat.write(nb, folder / path.name)
    print(f"wrote {len(in_order())} lessons without solutions to {folder.name}")


def report() -> None:
    "Print the reading times."
    total = 0
    for path in in_order():
        counted = minutes(nbformat.read(path, as_version=4).cells)
        total += counted
        mark = "  over the limit" if counted > LONGEST else ""
        print(f"{path.stem:36} {path_of(number(path)):14} {counted:3}{mark}")
    print(f"{total // 60} hours and {total % 60} minutes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["students"]:
        students(Path(sys.argv[2]))
    elif sys.argv[1:] == ["times"]:
        report()
    else:
        write()
