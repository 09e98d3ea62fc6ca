"""The project itself: a package that stands alone, lessons in order, notebooks fit to be read."""
import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import alone
import house
import in_step
import lessons
import nbformat
import pytest
import readme
import release_notes
import yaml
from helpers_runs import HANGS
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "annotated_mpnet"
MODULES = sorted(p for p in (ROOT / PACKAGE).glob("*.py") if not p.name.startswith("_"))
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
# what the requirements always bring along
COME_WITH = set(  # with the packages that are required
    "numpy yaml tokenizers safetensors huggingface_hub pyarrow packaging fsspec".split())
LONGEST_FUNCTION = 60
LONGEST_MODULE, LONGEST_CLASS = 350, 100
LONGEST_CELL, WIDEST_LINE = 60, 100
SOLVED = "#| code-fold: true\n#| code-summary: Solution\nx = 1"


def setting(name: str) -> list[str]:
    "The words of one value of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"][name].split()


def project(requirement: str) -> str:
    "The name in a requirement such as `torch>=2.6`, in its canonical form."
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imports(module: Path) -> list[tuple[str, bool]]:
    "Every module that a file imports, and whether it does so as soon as it is imported itself."
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(name.name, node in tree.body) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = f"{PACKAGE}.{node.module}" if node.level else node.module
            found.append((name, node in tree.body))
    return found


def lesson_numbers() -> dict[str, str]:
    "The lesson's number of each module, such as 06 and, after it, 06b, by what notebooks export."
    numbers = {}
    exported = re.compile(r"^#\| *default_exp +(\w+)", re.MULTILINE)
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        sources = [c.source for c in cells if c.cell_type == "code"]
        names = [m[1] for s in sources if (m := exported.search(s))]
        numbers |= {name: path.name.split("_")[0] for name in names}
    return numbers


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_imports_only_what_the_package_requires(module):
    required = {project(r).replace("-", "_") for r in setting("requirements")}
    always = required | COME_WITH | {PACKAGE} | sys.stdlib_module_names
    optional = {project(r) for r in setting("wandb_requirements")}
    for name, at_once in imports(module):
        top = name.split(".")[0]
        assert top in (always if at_once else always | optional), f"{module.name} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_imports_point_to_earlier_lessons(module):
    numbers = lesson_numbers()
    own = [name.split(".")[1] for name, _ in imports(module) if name.startswith(f"{PACKAGE}.")]
    assert module.stem in numbers, f"no notebook exports {module.name}"
    for name in own:
        earlier = numbers[name] < numbers[module.stem]
        assert earlier, f"{module.name} imports {name}, which is a later lesson"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_functions_fit_on_a_screen(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{module.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_rooms_and_what_is_in_them_have_a_size_that_one_can_read(module):
    source = module.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_MODULE, module.name
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    long = [c.name for c in classes if c.end_lineno - c.lineno >= LONGEST_CLASS]
    assert set(long) <= {"PretrainConfig"}  # a field for each argument


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_cells_have_a_size_that_one_can_read(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        lines = cell.source.splitlines() if cell.cell_type == "code" else []
        code = [line for line in lines if "%pip" not in line and not line.startswith("#|")]
        wide = [line for line in code if len(line) > WIDEST_LINE]
        assert not wide, f"{notebook.name}, cell {cell.id}: {wide[0]}"
        assert len(lines) <= LONGEST_CELL or "class PretrainConfig:" in cell.source, cell.id


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_saved_outputs_are_fit_to_be_read(notebook):
    assert in_step.notebook_problems(notebook) == []


def printed(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def result(kind: str, text: str) -> dict:
    return {"output_type": "execute_result", "data": {kind: text}}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
FIGURE = {"output_type": "display_data", "data": {"image/png": ""}}
PLOT = "#| fig-cap: A line.\nplt.show()"


@pytest.mark.parametrize("source, outputs, problem", [
    ("print(1)", [], "not saved"),
    ("x", [printed("saved in /home/me/x.pt")], "path of one machine"),
    ("x", [printed("UserWarning: careful")], "a warning"),
    ("x", [printed("50 %", "stderr")], "stderr"),
    ("x", [ERROR], "an error"),
    ("x", [result("text/plain", "<f at 0x7f0123456789>")], "address in memory"),
    ("x", [printed("begun on 2026-03-01")], "a date"),
    (PLOT, [FIGURE], "fig-alt"),
    (PLOT, [FIGURE], "without label"),
    ("ax.set(ylabel='loss')", [FIGURE], "horizontal axis has no label"),
    ("ax.set(xlabel='update')", [FIGURE], "vertical axis has no label"),
    ("HTML(x)", [result("text/html", "<figure></figure>")], "without aria-label"),
])
def test_unfit_outputs_are_found(source, outputs, problem):
    found = in_step.cell_problems(source, outputs)
    assert any(problem in f for f in found), found


def text(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source)


def code(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source)


def tagged(tag: str, source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": [tag]})


def exercise(n: int, kind: str, *roles: str, **changed: str) -> list[nbformat.NotebookNode]:
    "The cells of an exercise, some of them with another source."
    sources = {"start": "x = ...", "solution": SOLVED, "check": "assert x == 1"} | changed
    first = text(f"{'## Exercises' if n == 1 else ''}\n\n**{n}. {kind}.** Do it.")
    return [first, *(tagged(role, sources[role]) for role in roles or sources)]


PREDICT, CHANGE = "Predict, then run", "Change one thing"
FIRST, SECOND = exercise(1, PREDICT), exercise(2, CHANGE)


@pytest.mark.parametrize("cells, problem", [
    ([], "two at least"),
    ([*FIRST, *exercise(3, CHANGE)], "not numbered"),
    ([*FIRST, *exercise(2, "Two")], "exercise 2 is of no kind"),
    ([*FIRST, *exercise(2, CHANGE, "start", "check")], "exercise 2 isn't three cells"),
    ([*FIRST, *exercise(2, CHANGE, "solution", "start", "check")], "exercise 2 isn't three cells"),
    ([*FIRST, *SECOND, code("y = 1")], "exercise 2 isn't three cells"),
    ([*FIRST, *exercise(2, CHANGE, solution="x = 1")], "exercise 2 has no folded solution"),
    ([*FIRST, *exercise(2, CHANGE, solution="#| eval: false\n" + SOLVED)], "2 is not run"),
    ([*FIRST, *exercise(2, CHANGE, check="#| notest\nassert x == 1")], "2 is not run"),
    ([*FIRST, *exercise(2, CHANGE, start="x = 0")], "exercise 2 has no place"),
    ([*FIRST, *exercise(2, CHANGE, check="print(x)")], "the check of exercise 2 asserts nothing"),
])
def test_unsolved_exercises_are_found(cells, problem):
    found = in_step.exercise_problems(cells)
    assert any(problem in f for f in found), found


def test_solved_exercises_pass():
    rest = [text("## Questions\n\n**1.** Not an exercise."), code("#| hide\nx")]
    assert in_step.exercise_problems([*FIRST, *SECOND, *rest]) == []


def test_a_lesson_that_says_too_little_is_found(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# A lesson\n\n> For a test.")]
    path = tmp_path / "99_short.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    found = "\n".join(in_step.notebook_problems(path))
    parts = ("first, time, goals", "exercises", "questions", "what to read next", "glossary")
    assert all(what in found for what in parts), found


def test_fit_outputs_pass():
    paths = [printed("either/or, 3/4, ~/run, ./checkpoints/best_checkpoint.pt")]
    assert in_step.cell_problems("print(x)", paths) == []
    assert in_step.cell_problems("#| eval: false\nprint(x)", []) == []


def test_a_module_edited_by_hand_is_found(tmp_path, monkeypatch):
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("nbs", PACKAGE):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(in_step, "ROOT", tmp_path)
    edited, left_over = tmp_path / PACKAGE / MODULES[0].name, tmp_path / PACKAGE / "left_over.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "\nedited = True\n", encoding="utf-8")
    left_over.touch()
    found = in_step.exported_and_clean()
    wrong = {f"{PACKAGE}/{p.name}" for p in (edited, left_over)}
    assert wrong <= {f.split()[0] for f in found}, found


# The papers at the root

def targets() -> set[str]:
    "What can be said after `make`."
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("name", [
    "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "README.md", "docs/contributing.md"])
def test_papers_name_commands_and_files_that_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets()
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", readme.FENCED.sub("", text))
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    scripts = re.findall(r"\b(?:tools|tests)/\w+\.py", text)
    assert missing + [script for script in scripts if not (ROOT / script).exists()] == []


def test_contributing_names_every_step_of_a_change():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {"test", "notebooks", "docs"} <= set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE))
    assert "nbdev_install_hooks" in text
    attributes = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert "*.ipynb merge=nbdev-merge" in attributes


def test_workflows_call_what_exists():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        called = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
        assert set(re.findall(r"\bmake ([a-z][\w-]*)", called)) <= targets(), path.name
        scripts = re.findall(r"\btools/\w+\.py", called)
        assert [s for s in scripts if not (ROOT / s).exists()] == [], path.name


def test_issue_forms_have_the_parts_that_the_host_asks_for():
    files = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    forms = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in files if p.stem != "config"]
    assert [form["name"] for form in forms] == ["A fault", "A question or a wish"]
    for form in forms:
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert form["description"] and len({f["id"] for f in fields}) == len(fields)
        assert all(f["attributes"]["label"] for f in fields)
        assert fields[0]["validations"]["required"] is True


def test_citation_agrees_with_the_settings():
    cited = release_notes.citation()
    assert cited["version"] == release_notes.settings_version() == setting("version")[0]
    assert cited["repository-code"] == setting("git_url")[0]
    assert cited["license"] == setting("license")[0].upper()
    paper, = cited["references"]
    assert [a["family-names"] for a in paper["authors"]] == ["Song", "Tan", "Qin", "Lu", "Liu"]
    assert paper["year"] == 2020


@pytest.fixture
def releasable(tmp_path) -> Path:
    "A folder in which version 1.2.0 can be released."
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nversion = 1.2.0\n")
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\ndate-released: 2026-05-01\n")
    changes = "# Changelog\n\n## [1.2.0] - 2026-05-01\n\n- New.\n\n## [1.1.0] - 2026-01-01\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    return tmp_path


def test_release_takes_its_notes_from_the_changelog(releasable):
    assert release_notes.problems("v1.2.0", releasable) == []
    assert release_notes.changes("1.2.0", releasable) == ("2026-05-01", "- New.")


@pytest.mark.parametrize("file, old, new, problem", [
    ("settings.ini", "1.2.0", "1.3.0", "the tag is v1.2.0, settings.ini has version 1.3.0"),
    ("CITATION.cff", "1.2.0", "1.1.0", "CITATION.cff has version 1.1.0, settings.ini 1.2.0"),
    ("CITATION.cff", "2026-05-01", "2026-05-02",
     "CHANGELOG.md has the date 2026-05-01, CITATION.cff no `date-released: 2026-05-01`"),
    ("CHANGELOG.md", "1.2.0] - 2026-05-01", "1.2.0] - unreleased",
     "CHANGELOG.md has no `## [1.2.0] - ` with a date"),
])
def test_release_refuses_what_disagrees(releasable, file, old, new, problem):
    path = releasable / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert problem in release_notes.problems("v1.2.0", releasable)


# The picture of the rooms

def test_house_shows_every_module_and_every_import():
    rooms, between = house.read()
    assert sorted(m for room in rooms.values() for m in room.modules) == [m.stem for m in MODULES]
    assert all(lower <= upper for upper, lower in between), "an import points upwards"
    assert list(rooms) == sorted(rooms)
    own = [{name for name, _ in imports(m) if name.startswith(f"{PACKAGE}.")} for m in MODULES]
    picture = house.picture()
    shown = re.findall(r'class="middle(?: on)?">(\d+)<', picture)
    assert sum(map(int, shown)) == sum(map(len, own)) == between.total()
    assert '<title id="house-title">' in picture and '<desc id="house-desc">' in picture


def test_a_new_import_changes_the_house(tmp_path):
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=skipped)
    assert house.picture(tmp_path) == house.PICTURE.read_text(encoding="utf-8")
    with (tmp_path / PACKAGE / "cli.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom .objectives import OBJECTIVES\n")
    assert house.read(tmp_path)[1]["13", "00"] == 1
    assert house.picture(tmp_path) != house.PICTURE.read_text(encoding="utf-8")


def test_a_page_of_the_architecture_that_is_stale_is_found(monkeypatch):
    assert in_step.architecture_current() == []
    changed = lessons.read_all()
    next(lesson for lesson in changed if lesson.number == "05").purpose = "Something else."
    monkeypatch.setattr(lessons, "read_all", lambda: changed)
    found, = in_step.architecture_current()
    assert found.startswith("docs/architecture.md is not what the package says")


def test_constraints_pin_every_requirement():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {project(line) for line in lines if "==" in line}
    kinds = ("", "dev_", "notebooks_", "corpus_", "wandb_")
    asked = {project(r) for kind in kinds for r in setting(f"{kind}requirements")}
    assert asked <= pinned, f"tools/freeze.py is due for {asked - pinned}"
    local = [line for line in lines if "+" in line]
    assert not local, "a local version cannot be installed elsewhere"


def test_every_requirement_has_a_bound_that_was_tried():
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if "==" in line)
    for need in map(Requirement, setting("requirements")):
        bounds = [b.version for b in need.specifier if b.operator == ">="]
        others = {b.operator for b in need.specifier} - {">=", "!="}
        assert len(bounds) == 1 and not others, f"{need} has no lower bound, or more than that"
        assert Version(tried[need.name]) == Version(bounds[0]), f"{need}, not {tried[need.name]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    "The wheel, built from the package alone: no notebooks, no tests."
    return alone.wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(n for n in archive.namelist() if n.endswith("/METADATA"))
        text = archive.read(info).decode()
        commands = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
        assert {n.split("/")[0] for n in archive.namelist()} == {PACKAGE, info.split("/")[0]}
        files = archive.namelist()
        assert f"{PACKAGE}/py.typed" in files  # others' type checkers read our annotations
    extras = re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE)
    assert set(extras) == {"dev", "tests", "notebooks", "corpus", "wandb"}
    always = {project(r) for r in re.findall(r"^Requires-Dist: ([^;\n]+)$", text, re.MULTILINE)}
    assert always == {project(r) for r in setting("requirements")}
    assert all(name in commands for name in ("pretrain-mpnet", "convert-to-hf", "prepare-corpus"))


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory, wheel) -> Path:
    "A new environment with the wheel and what the wheel requires."
    return alone.environment(tmp_path_factory.mktemp("bare"), wheel)


PROBE = f"""
import importlib.util, {PACKAGE}
absent = ["nbdev", "fastcore", "matplotlib", "pytest", "wandb"]
print({PACKAGE}.__file__, *map(importlib.util.find_spec, absent))
"""


def test_wheel_alone_runs_the_demo(bare_environment, tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["HF_HOME"] = str(tmp_path / "hub")
    there = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    seen = subprocess.run([bare_environment, "-c", PROBE], **there, check=True).stdout
    package, *absent = seen.split()
    assert Path(package).is_relative_to(bare_environment.parents[1]), seen
    assert absent == ["None"] * 5, seen
    command = [bare_environment.parent / "pretrain-mpnet", "--demo", "--total-updates", "3"]
    done = subprocess.run(command, **there, timeout=HANGS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.rglob("final_checkpoint.pt")), done.stdout
