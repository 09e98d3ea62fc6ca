"""The course as a whole: its times and paths, exercises that can fail, the field's words."""
import re
import subprocess
import sys

import course
import kernels
import lessons
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

LESSONS = course.in_order()
NEXT = re.compile(r"^## What to read next\n+.*?\]\(([\w-]+\.ipynb)\)", re.MULTILINE | re.DOTALL)
# The words of the field instead of ours: what a lesson's prose does not say, and what it says.
WORDS = {
    r"(?:take|takes|taken|took) up": "resume",
    r"to the bit": "bit-identical",
    r"by heart": "memorize",
    r"(?:is|are|was) told": "is logged, prints, reports",
    r"passed over": "skipped",
    r"mend(?:s|ed|ing)?": "fix",
    r"computing of": "compute",
    r"pupils?": "no metaphor",
    r"a foul": "no metaphor",
    r"cycles?": "epoch",
}
CODE = re.compile(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$|```.*?```", re.DOTALL)


def read(path):
    return nbformat.read(path, as_version=4)


def prose(path) -> str:
    return "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def name(path) -> str:
    return path.stem


def test_words_and_shown_lines_are_counted_without_exercises_and_folded_cells():
    cells = [
        new_markdown_cell("word " * 440),
        new_code_cell("x = 1\n\n" * 24),
        new_code_cell("#| code-fold: true\n" + "x = 1\n" * 240),
        new_code_cell("#| hide\n" + "x = 1\n" * 240),
        new_code_cell("import os\nimport sys"),
        new_code_cell("y = 2\n" * 240, metadata={"tags": ["hide-input"]}),
        new_markdown_cell("## Exercises\n\n" + "word " * 2200),
        new_code_cell("x = 1\n" * 240),
        new_markdown_cell("## Questions\n\n" + "word " * 218),
    ]
    assert course.minutes(cells) == 2 + 2 + 1


@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_a_lesson_takes_at_most_25_minutes(path):
    assert course.minutes(read(path).cells) <= course.LONGEST


def test_the_core_is_read_in_an_afternoon():
    core = LESSONS[:len(course.CORE)]
    assert tuple(map(course.number, core)) == course.CORE
    assert sum(course.minutes(read(path).cells) for path in core) < 180


def test_what_to_read_next_is_one_path_without_loops():
    said = [NEXT.search(prose(path)) for path in LESSONS]
    wrong = [f"{path.name} leads to {match and match[1]}, not to {after.name}"
             for path, match, after in zip(LESSONS, said, LESSONS[1:])
             if match is None or match[1] != after.name]
    assert not wrong, "\n".join(wrong)


IMPORT = re.compile(r"^\s*from annotated_mpnet\.(\w+) import", re.MULTILINE)


def module_of(path) -> str | None:
    "The module that a lesson exports."
    sources = [cell.source for cell in read(path).cells]
    return next((s.split()[2] for s in sources if s.startswith("#| default_exp ")), None)


def test_no_name_comes_before_its_lesson():
    "But in lesson 00, which says so, and in the check of an answer."
    by_file = sorted(LESSONS)
    lesson_of = {module: path for path in by_file if (module := module_of(path))}
    early = [f"{path.name}, cell {cell.id}: {module} is of {lesson_of[module].name}"
             for path in by_file[1:] for cell in read(path).cells
             if cell.cell_type == "code" and "check" not in course.tags(cell)
             for module in IMPORT.findall(cell.source)
             if module in lesson_of and lesson_of[module].name > path.name]
    assert not early, "\n".join(early)


@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_the_problem_comes_before_any_import_in_the_open(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.MULTILINE):
            return
        if cell.cell_type == "code" and not course.skipped(cell):
            assert course.fold(cell) is not None, cell.source


@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_a_lesson_ends_with_a_summary(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.MULTILINE)
    assert headings[-2:] == ["Summary", "What to read next"]


@pytest.mark.parametrize("words", WORDS)
def test_prose_has_the_words_of_the_field(words):
    found = []
    for path in LESSONS:
        text = CODE.sub("", prose(path))
        for match in re.finditer(rf"\b{words}\b", text, re.IGNORECASE):
            around = text[max(0, match.start() - 40):match.end() + 40]
            found.append(f"{path.name}: {' '.join(around.split())}")
    assert not found, f"{WORDS[words]}:\n" + "\n".join(found)


EXERCISE = [
    new_markdown_cell("## Exercises\n\n**1. Predict, then run.** How much is two and two?"),
    new_code_cell("answer = ...", metadata={"tags": ["start"]}),
    new_code_cell("answer = 4", metadata={"tags": ["solution"]}),
    new_code_cell("assert answer == 2 + 2, 'count again'", metadata={"tags": ["check"]}),
]


def changed(at: int, source: str) -> list:
    "The exercise with another source of one cell."
    cells = [cell.copy() for cell in EXERCISE]
    cells[at].source = source
    return cells


@pytest.mark.parametrize("cells, problem", [
    (EXERCISE, ""),
    (changed(3, "assert True"), "passes where nothing was filled in"),
    (changed(3, "assert answer == 5, 'count again'"), "count again"),
])
def test_a_check_fails_without_an_answer_and_passes_with_the_solution(tmp_path, cells, problem):
    path = tmp_path / "99_exercise.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    said = subprocess.run([sys.executable, kernels.__file__, "1", path], capture_output=True,
                          text=True)
    assert (problem in said.stdout) and said.returncode == bool(problem), said.stdout


def test_the_students_edition_has_no_solutions(tmp_path, capsys):
    course.students(tmp_path / "students")
    assert "without solutions" in capsys.readouterr().out
    for path in LESSONS:
        ours, theirs = read(path).cells, read(tmp_path / "students" / path.name).cells
        solutions = [c.source for c in ours if "solution" in course.tags(c)]
        assert len(solutions) == len(lessons.exercises(ours))
        assert len(theirs) == len(ours) - len(solutions)
        for cell in theirs:
            assert cell.source not in solutions
            assert not (course.tags(cell) and cell.get("outputs"))
