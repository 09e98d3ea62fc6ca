"""What a lesson says of itself: goals, time, exercises, figures; for pages, slides and checks."""
import base64
import re
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import nbformat

import readme

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
# A lesson that was downloaded alone, or opened in Colab or Kaggle, gets what it needs from its
# first cell. Not by the name alone: another program has it on PyPI.
INSTALL = """\
#| code-fold: true
#| code-summary: "Setup: installs the package where it is missing"
from importlib.util import find_spec

if find_spec("annotated_mpnet") is None:
    print("Installing annotated-mpnet and what its lessons need (a minute or two)")
    %pip install --quiet "annotated-mpnet[notebooks] @ git+{git_url}@{branch}\""""
# How a lesson says these things at its top.
SAID = {
    "title": re.compile(r"^# (.+)$", re.MULTILINE),
    "purpose": re.compile(r"^> (.+)$", re.MULTILINE),
    "first": re.compile(r"\*\*Know first:\*\*\s*(.+?)(?=\*\*Time|\n\n|\Z)", re.DOTALL),
    "time": re.compile(r"\*\*Time:\*\*\s*(\d+ minutes to read[^.]*)\."),
    "goals": re.compile(r"\*\*What you will be able to do\.\*\*.*?\n\n"
                        r"((?:(?:\d\.|-) .+\n?(?:  .+\n?)*)+)"),
}


@dataclass
class Figure:
    "One saved picture."
    label: str
    caption: str
    alt: str
    source: str # of an <img>: the picture itself


@dataclass
class Lesson:
    "A notebook whose name begins with a number."
    path: Path
    number: str  # as in its name: 06b
    title: str
    purpose: str # the sentence below the title
    goals: list[str]
    first: str   # what to know first
    time: str    # of reading and running, in words
    exercises: list[str]
    figures: list[Figure]

    @property
    def minutes(self) -> int:
        "Minutes to read it."
        return int(re.match(r"\d+", self.time)[0])


def exercises(cells: list) -> list[tuple[str, list]]:
    "The text of each exercise, and the code cells that follow it."
    found, inside = [], False
    for cell in cells:
        if cell.cell_type == "code" and inside and found:
            found[-1][1].append(cell)
        if cell.cell_type != "markdown":
            continue
        for part in re.split(r"^(?=## |\*\*\d+\.)", cell.source, flags=re.MULTILINE):
            if part.startswith("## "):
                inside = part.startswith("## Exercises")
            elif inside and re.match(r"\*\*\d+\.", part):
                found.append((part.strip(), []))
    return found


def figures(cells: list) -> list[Figure]:
    "The saved pictures with a caption."
    found = []
    for cell in cells:
        options = readme.cell_options(cell.source)[0] if cell.cell_type == "code" else {}
        said = [options.get(key, "") for key in ("label", "fig-cap", "fig-alt")]
        if options.get("include") is False:
            continue
        for kind, data in (p for output in cell.get("outputs", []) for p in pictures(output)):
            found.append(Figure(*said, f"data:{kind};base64,{data}"))
    return found


def pictures(output) -> list[tuple[str, str]]:
    "Kind and data, in base64, of the pictures in one saved output."
    data, found = output.get("data", {}), []
    if "image/png" in data:
        found.append(("image/png", data["image/png"].strip()))
    if "image/svg+xml" in data:
        drawn = data["image/svg+xml"].encode("utf-8")
        found.append(("image/svg+xml", base64.b64encode(drawn).decode()))
    return found


def install_cell() -> str:
    "The first code of every lesson, with the address of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return INSTALL.format(**{key: config["DEFAULT"][key] for key in ("git_url", "branch")})


def first_code(cells: list):
    "The first cell of code that does something: not one that names the module."
    code = (c for c in cells if c.cell_type == "code")
    return next((c for c in code if readme.cell_options(c.source)[2]), None)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def read(path: Path) -> Lesson:
    "What the lesson in `path` says of itself; a ValueError where it doesn't."
    cells = nbformat.read(path, as_version=4).cells
    top = "\n\n".join(c.source for c in cells[:5] if c.cell_type == "markdown")
    found = {name: pattern.search(top) for name, pattern in SAID.items()}
    missing = ", ".join(name for name, match in found.items() if not match)
    if missing:
        raise ValueError(f"{path.name} does not say its {missing} as the other lessons do")
    said = {name: match[1] for name, match in found.items()}
    goals = re.split(r"^(?:\d\.|-) ", said["goals"], flags=re.MULTILINE)
    return Lesson(
        path,
        number=path.name.split("_")[0],
        title=said["title"],
        purpose=said["purpose"],
        goals=[one_line(goal).rstrip(";.") for goal in goals if goal.strip()],
        first=one_line(said["first"]),
        time=one_line(said["time"]),
        exercises=[one_line(text) for text, _ in exercises(cells)],
        figures=figures(cells),
    )


def read_all() -> list[Lesson]:
    "Every lesson, in the order of the course."
    return [read(path) for path in sorted(NBS.glob("[0-9]*.ipynb"))]
