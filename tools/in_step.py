"""Do the notebooks and what comes from them say the same? Nothing is changed: files are made in a copy and compared.

Holds in a fresh clone and amid uncommitted work alike, since contents are compared, not the state of git. One line for
each difference, with what mends it; exit code 1 where there is one.
"""
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

import architecture_page
import house
import lessons
import readme
import teachers_page

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PACKAGE = "annotated_mpnet"
MEND = "run `make notebooks`"
SPOILT = {  # what no saved output may hold
    "a path of one machine": re.compile(r"(?<![\w./~-])/(?:work|root|tmp|home|Users|private|var|opt)/\w"),
    "a warning": re.compile(r"\b\w*Warning\b: "),
    "a traceback": re.compile(r"Traceback \(most recent call last\)"),
    "a time of day": re.compile(r"\b\d\d:\d\d:\d\d\b"),
    "a date": re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b"),
    "an address in memory": re.compile(r"\bat 0x[0-9a-f]{6,}"),
}
NAMED = {  # what shows that the axes of a figure are named, or that there are none; bars over a list carry their names
    "horizontal": re.compile(r"xlabel|xticks=|xticklabels|set_xticks\([^)]*,|\.bar\(list\(|axis\(.off.\)"),
    "vertical": re.compile(r"ylabel|yticks=|yticklabels|set_yticks\([^)]*,|\.barh\(list\(|axis\(.off.\)"),
}


def differences(made: Path, here: Path, pattern: str) -> list[str]:
    "The names matching `pattern` that are missing, left over or different between two folders."
    names = sorted({p.relative_to(folder).as_posix() for folder in (made, here) for p in folder.glob(pattern)})
    return [n for n in names if not ((made / n).exists() and (here / n).exists() and (made / n).read_bytes() == (here / n).read_bytes())]


def tool(name: str, folder: Path) -> list[str]:
    "Run one of nbdev's commands in `folder`; what it said where it failed."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    done = subprocess.run([BIN / name], cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return [] if done.returncode == 0 else [f"{name} failed: {done.stderr.strip()}"]


def exported_and_clean() -> list[str]:
    "The package is exactly what the notebooks export, and cleaning the notebooks changes nothing."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("settings.ini", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        (copy / "nbs").mkdir()
        for path in (ROOT / "nbs").glob("*.ipynb"):
            shutil.copy(path, copy / "nbs")
        problems = tool("nbdev_export", copy) + tool("nbdev_clean", copy)
        if problems:
            return problems
        problems = [f"{n} is not what the notebooks export: {MEND}" for n in differences(copy, ROOT, f"{PACKAGE}/**/*.py")]
        problems += [f"{n} is not what nbdev writes: {MEND}" for n in differences(copy, ROOT, "pyproject.toml")]
        return problems + [f"{n} is not clean: {MEND}" for n in differences(copy, ROOT, "nbs/*.ipynb")]


def prints(source: str) -> bool:
    "Whether a cell surely has an output: a `print` or `plt.show` stands in it outside of any function, loop or condition."
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell in another language, or with a magic command
        return False
    calls = [s.value for s in statements if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    return any(ast.unparse(c.func) in ("print", "plt.show", "display") for c in calls)


def output_text(output: dict) -> str:
    "The text of one saved output."
    return "\n".join([output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))])


def figure_problems(options: dict, code: str, outputs: list[dict]) -> list[str]:
    "What the figures among the outputs of one cell lack; `code` includes the functions that it calls."
    problems = []
    if any("image/png" in o.get("data", {}) for o in outputs):
        problems += [f"a figure without {k}" for k in ("label", "fig-cap", "fig-alt") if not options.get(k)]
        problems += [f"a figure whose {axis} axis has no label" for axis, pattern in NAMED.items() if not pattern.search(code)]
    for page in (o["data"]["text/html"] for o in outputs if "<figure" in o.get("data", {}).get("text/html", "")):
        problems += [f"a figure in HTML without {what}" for what in ("<figcaption", "aria-label") if what not in page]
    return problems


def cell_problems(source: str, outputs: list[dict], functions: dict[str, str] | None = None) -> list[str]:
    "What is wrong with the saved outputs of one code cell; `functions` are those that the notebook has defined by then."
    options, _, code = readme.cell_options(source)
    if options.get("eval") is False:
        return []
    problems = []
    if prints(code) and not outputs:
        problems.append("its output is not saved")
    if any(o["output_type"] == "error" for o in outputs):
        problems.append("an error is saved")
    if any(o.get("name") == "stderr" for o in outputs):
        problems.append("something on stderr is saved")
    problems += figure_problems(options, code + "".join(body for name, body in (functions or {}).items() if f"{name}(" in code), outputs)
    text = "\n".join(map(output_text, outputs))
    return problems + [f"an output holds {what}: {m[0]!r}" for what, pattern in SPOILT.items() if (m := pattern.search(text))]


def functions_of(source: str) -> dict[str, str]:
    "The functions that a cell defines, by name."
    try:
        return {node.name: ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    except SyntaxError:
        return {}


def exercise_problems(cells: list) -> list[str]:
    "What is wrong with the exercises of a lesson: each has a folded solution, which `make test` runs and which asserts something."
    found, problems = lessons.exercises(cells), []
    if len(found) < 2:
        problems.append("a lesson has exercises, two at least")
    if [int(re.match(r"\*\*(\d+)", text)[1]) for text, _ in found] != list(range(1, len(found) + 1)):
        problems.append("the exercises are not numbered 1, 2, 3")
    for n, (_, solution) in enumerate(found, 1):
        options = [readme.cell_options(c.source)[:2] for c in solution]
        if not solution or any(o.get("code-fold") is not True or o.get("code-summary") != "Solution" for o, directives in options if not directives):
            problems.append(f"exercise {n} has no folded solution")
        if any(o.get("eval") is False or "notest" in directives for o, directives in options):
            problems.append(f"the solution of exercise {n} is not run")
        if not re.search(r"^\s*assert |assert_|test_\w+\(", "\n".join(c.source for c in solution), re.MULTILINE):
            problems.append(f"the solution of exercise {n} asserts nothing")
    return problems


def lesson_problems(path: Path, cells: list) -> list[str]:
    "What a lesson does not say of itself, and what is wrong with its exercises and questions."
    problems = exercise_problems(cells)
    try:
        lessons.read(path)
    except ValueError as error:
        problems.append(str(error))
    first = lessons.first_code(cells)
    if first is None or first.source != lessons.install_cell():
        problems.append("a lesson's first code is that of tools/lessons.py, which installs the package where it is missing")
    prose = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    _, _, questions = prose.partition("\n## Questions")
    if questions.count("<details>") < 2 or questions.count("<details>") != questions.count("</details>"):
        problems.append("a lesson ends with questions, two at least, whose answers are folded (<details>)")
    if not re.search(r"^## What to read next", prose, re.MULTILINE):
        problems.append("a lesson says what to read next")
    if "](../docs/glossary.md" not in prose:
        problems.append("a lesson links to the glossary, docs/glossary.md")
    return problems


def notebook_problems(path: Path) -> list[str]:
    "What is wrong with the title, the exercises and the saved outputs of one notebook."
    nb = nbformat.read(path, as_version=4)
    cells = [c for c in nb.cells if c.cell_type == "code"]
    problems = [] if any(c.outputs for c in cells) or not cells else [f"{path.name} was saved without outputs: {MEND}"]
    if not nb.cells or not re.fullmatch(r"# .+\n+(> .+\n?)+", nb.cells[0].source):
        problems.append(f"{path.name}: the first cell must hold the title and `> one sentence` only; the site drops the rest of it")
    if path.name[0].isdigit():
        problems += [f"{path.name}: {p}" for p in lesson_problems(path, nb.cells)]
    functions: dict[str, str] = {}
    for cell in cells:
        functions |= functions_of(readme.cell_options(cell.source)[2])
        problems += [f"{path.name}, cell {cell.id}: {p}" for p in cell_problems(cell.source, cell.outputs, functions)]
    return problems


def outputs_saved() -> list[str]:
    "Every notebook holds the outputs of a whole run, fit to be read by anyone."
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    return [p for path in paths for p in notebook_problems(path)] if paths else ["there is no notebook in nbs/"]


def readme_current() -> list[str]:
    "README.md and its pictures come from nbs/index.ipynb, and every file that it links to is there."
    files = readme.generate()
    left_over = {p.relative_to(ROOT).as_posix() for p in (ROOT / readme.IMAGES).glob("*")} - set(files)
    stale = [n for n, content in files.items() if not (ROOT / n).exists() or (ROOT / n).read_bytes() != content]
    links = re.findall(r'(?:\]\(|(?:src|href)=")(?![a-z]+:|#)([^)\s"#]+)', readme.FENCED.sub("", files["README.md"].decode()))
    return [f"{n} does not come from nbs/index.ipynb: {MEND}" for n in [*stale, *sorted(left_over)]] + [
        f"README.md links to {link}, which is not there" for link in links if not (ROOT / link).exists()]


def configuration_current() -> list[str]:
    "docs/configuration.md is what the package says of its arguments."
    import configuration_page  # here, since it imports the package, which may be what is broken

    page = configuration_page.PAGE
    if page.exists() and page.read_text(encoding="utf-8") == configuration_page.docs_table():
        return []
    return [f"docs/configuration.md is not what lessons 01 and 01c say: {MEND}"]


def teachers_current() -> list[str]:
    "docs/teachers.md says what the lessons say of themselves, and the pages for teachers, contributors and words link to what is there."
    stale = [] if teachers_page.PAGE.read_text(encoding="utf-8") == teachers_page.page() else [f"docs/teachers.md is not what the lessons say: {MEND}"]
    pages = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("teachers.md", "glossary.md", "contributing.md")}
    links = [(name, link) for name, text in pages.items() for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", readme.FENCED.sub("", text))]
    anchors = set(re.findall(r'<a id="([^"]+)">', pages["glossary.md"]))
    return stale + [f"docs/{name} links to {link}, which is not there" for name, link in links
                    if not (link[1:] in anchors if link.startswith("#") else (ROOT / "docs" / link.split("#")[0]).exists())]


def architecture_current() -> list[str]:
    "docs/architecture.md names the modules with what their lessons say, and its picture shows their imports."
    made = {architecture_page.PAGE: architecture_page.page(), house.PICTURE: house.picture()}
    stale = [p for p, text in made.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    return [f"{p.relative_to(house.ROOT)} is not what the package says: {MEND}" for p in stale]


CHECKS = (exported_and_clean, outputs_saved, readme_current, configuration_current, teachers_current,
          architecture_current)


def main() -> int:
    "Run every check; 1 where one finds something."
    failed = 0
    for check in CHECKS:
        try:
            problems = check()
        except Exception as error:  # a check that can't run has failed, and the others still tell what they find
            problems = [f"{type(error).__name__}: {error}"]
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '}  {check.__doc__}", *problems, sep="\n      ", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
