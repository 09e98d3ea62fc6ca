"""Do the notebooks and what comes from them say the same? Files are made in a copy and compared.

Holds in a fresh clone and amid uncommitted work alike, since contents are compared, not the state
of git. One line for each difference, with what fixes it; exit code 1 where there is one.
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
import course
import house
import lessons
import readme
import teachers_page

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PACKAGE = "annotated_mpnet"
MEND = "run `make notebooks`"
SPOILT = {  # what no saved output may hold
    "a path of one machine": re.compile(
        r"(?<![\w./~-])/(?:work|root|tmp|home|Users|private|var|opt)/\w"),
    "a warning": re.compile(r"\b\w*Warning\b: "),
    "a traceback": re.compile(r"Traceback \(most recent call last\)"),
    "a time of day": re.compile(r"\b\d\d:\d\d:\d\d\b"),
    "a date": re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b"),
    "an address in memory": re.compile(r"\bat 0x[0-9a-f]{6,}"),
}
# What shows that an axis of a figure is named, or that there is none; bars over a list carry their
# names.
NAMED = {
    "horizontal": re.compile(
        r"xlabel|xticks=|xticklabels|set_xticks\([^)]*,|\.bar\(list\(|axis\(.off.\)"),
    "vertical": re.compile(
        r"ylabel|yticks=|yticklabels|set_yticks\([^)]*,|\.barh\(list\(|axis\(.off.\)"),
}
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")  # of Markdown, to a place in the project
README_LINK = re.compile(r'(?:\]\(|(?:src|href)=")(?![a-z]+:|#)([^)\s"#]+)')
KINDS = ("Predict, then run", "Change one thing", "Open ended")  # of exercises
ASSERTS = re.compile(r"^\s*assert |assert_|test_\w+\(", re.MULTILINE)


def differences(made: Path, here: Path, pattern: str) -> list[str]:
    "The names matching `pattern` that are missing, left over or different between two folders."
    def content(path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    names = sorted({p.relative_to(folder).as_posix()
                    for folder in (made, here) for p in folder.glob(pattern)})
    return [n for n in names if content(made / n) != content(here / n)]


def tool(name: str, folder: Path) -> list[str]:
    "Run one of nbdev's commands in `folder`; what it said where it failed."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    done = subprocess.run([BIN / name], cwd=folder, env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
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
        wanted = {
            f"{PACKAGE}/**/*.py": "is not what the notebooks export",
            "pyproject.toml": "is not what nbdev writes",
            "nbs/*.ipynb": "is not clean",
        }
        return [f"{name} {problem}: {MEND}" for pattern, problem in wanted.items()
                for name in differences(copy, ROOT, pattern)]


def prints(source: str) -> bool:
    "Whether a cell surely has an output: it prints outside of any function, loop or condition."
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell in another language, or with a magic command
        return False
    values = [s.value for s in statements if isinstance(s, ast.Expr)]
    called = [ast.unparse(v.func) for v in values if isinstance(v, ast.Call)]
    return any(name in ("print", "plt.show", "display") for name in called)


def output_text(output: dict) -> str:
    "The text of one saved output."
    texts = [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join([output.get("text", ""), *texts])


def figure_problems(options: dict, code: str, outputs: list[dict]) -> list[str]:
    "What the figures of one cell lack; `code` includes the functions that it calls."
    problems = []
    kinds = {kind for output in outputs for kind, _ in lessons.pictures(output)}
    if kinds and options.get("include") is not False:
        lacking = [k for k in ("label", "fig-cap", "fig-alt") if not options.get(k)]
        problems += [f"a figure without {k}" for k in lacking]
    if "image/png" in kinds:
        unnamed = [axis for axis, pattern in NAMED.items() if not pattern.search(code)]
        problems += [f"a figure whose {axis} axis has no label" for axis in unnamed]
    pages = [o.get("data", {}).get("text/html", "") for o in outputs]
    for page in (p for p in pages if "<figure" in p):
        lacking = [what for what in ("<figcaption", "aria-label") if what not in page]
        problems += [f"a figure in HTML without {what}" for what in lacking]
    return problems


def cell_problems(source: str, # of a code cell
                  outputs: list[dict], # as they are saved
                  functions: dict[str, str] | None = None, # that the notebook has defined by then
                 ) -> list[str]:
    "What is wrong with the saved outputs of one code cell."
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
    called = [body for name, body in (functions or {}).items() if f"{name}(" in code]
    problems += figure_problems(options, code + "".join(called), outputs)
    text = "\n".join(map(output_text, outputs))
    found = {what: pattern.search(text) for what, pattern in SPOILT.items()}
    return problems + [f"an output holds {what}: {m[0]!r}" for what, m in found.items() if m]


def functions_of(source: str) -> dict[str, str]:
    "The functions that a cell defines, by name."
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return {}
    return {node.name: ast.unparse(node) for node in nodes if isinstance(node, ast.FunctionDef)}


def folded(options: dict) -> bool:
    "Whether a code cell with these options is shown as a folded solution."
    return options.get("code-fold") is True and options.get("code-summary") == "Solution"


def one_exercise_problems(n: int, text: str, cells: list) -> list[str]:
    "What is wrong with one exercise: its kind, its three cells, and what they hold."
    problems = []
    if not re.match(rf"\*\*\d\. ({'|'.join(KINDS)})\.\*\*", text):
        problems.append(f"exercise {n} is of no kind: {', '.join(KINDS)}")
    roles = [role for cell in cells for role in course.ROLES if role in course.tags(cell)]
    if roles != list(course.ROLES) or len(cells) != len(roles):
        return [*problems, f"exercise {n} isn't three cells: to start from, solution, check"]
    start, solution, check = cells
    for role, cell in zip(roles, cells):
        options, directives, _ = readme.cell_options(cell.source)
        if options.get("eval") is False or "notest" in directives:
            problems.append(f"the {role} of exercise {n} is not run")
    if not folded(readme.cell_options(solution.source)[0]):
        problems.append(f"exercise {n} has no folded solution")
    if "..." not in start.source:
        problems.append(f"exercise {n} has no place (...) to fill in")
    if not ASSERTS.search(check.source):
        problems.append(f"the check of exercise {n} asserts nothing")
    return problems


def exercise_problems(cells: list) -> list[str]:
    "What is wrong with a lesson's exercises."
    found, problems = lessons.exercises(cells), []
    if len(found) < 2:
        problems.append("a lesson has exercises, two at least")
    numbers = [int(re.match(r"\*\*(\d+)", text)[1]) for text, _ in found]
    if numbers != list(range(1, len(found) + 1)):
        problems.append("the exercises are not numbered 1, 2, 3")
    for n, (text, code) in enumerate(found, 1):
        problems += one_exercise_problems(n, text, code)
    return problems


def summary_problems(prose: str) -> list[str]:
    "A lesson ends with its summary, five lines, and with what to read next."
    found = re.search(r"^## Summary\n\n(.*?)(?=\n## |\Z)", prose, re.DOTALL | re.MULTILINE)
    lines = found[1].strip().split("\n") if found else []
    if len(lines) == 5 and all(line.startswith("- ") for line in lines):
        return []
    return ["a lesson ends with a summary of five lines that begin with `- `"]


def lesson_problems(path: Path, cells: list) -> list[str]:
    "What a lesson does not say of itself, and what is wrong with its exercises and questions."
    problems = exercise_problems(cells)
    try:
        lessons.read(path)
    except ValueError as error:
        problems.append(str(error))
    first = lessons.first_code(cells)
    if first is None or first.source != lessons.install_cell():
        problems.append("a lesson's first code is that of tools/lessons.py, "
                        "which installs the package where it is missing")
    prose = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    _, _, questions = prose.partition("\n## Questions")
    answers = questions.count("<details>")
    if answers < 2 or answers != questions.count("</details>"):
        problems.append("a lesson ends with questions, two at least, "
                        "whose answers are folded (<details>)")
    problems += summary_problems(prose)
    if not re.search(r"^## What to read next", prose, re.MULTILINE):
        problems.append("a lesson says what to read next")
    if "](../docs/glossary.md" not in prose:
        problems.append("a lesson links to the glossary, docs/glossary.md")
    return problems


def notebook_problems(path: Path) -> list[str]:
    "What is wrong with the title, the exercises and the saved outputs of one notebook."
    nb = nbformat.read(path, as_version=4)
    cells = [c for c in nb.cells if c.cell_type == "code"]
    problems = []
    if cells and not any(c.outputs for c in cells):
        problems.append(f"{path.name} was saved without outputs: {MEND}")
    if not nb.cells or not re.fullmatch(r"# .+\n+(> .+\n?)+", nb.cells[0].source):
        problems.append(f"{path.name}: the first cell must hold the title and `> one sentence` "
                        "only; the site drops the rest of it")
    if path.name[0].isdigit():
        problems += [f"{path.name}: {p}" for p in lesson_problems(path, nb.cells)]
    functions: dict[str, str] = {}
    for cell in cells:
        functions |= functions_of(readme.cell_options(cell.source)[2])
        found = cell_problems(cell.source, cell.outputs, functions)
        problems += [f"{path.name}, cell {cell.id}: {p}" for p in found]
    return problems


def outputs_saved() -> list[str]:
    "Every notebook holds the outputs of a whole run, fit to be read by anyone."
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    if not paths:
        return ["there is no notebook in nbs/"]
    return [p for path in paths for p in notebook_problems(path)]


def course_current() -> list[str]:
    "Reading times, paths and hidden cells of the lessons are what tools/course.py writes."
    return [f"{path.name}: its reading time, path or hidden cells: {MEND}"
            for path, _ in course.stale()]


def readme_current() -> list[str]:
    "README.md and its pictures come from nbs/index.ipynb, and whatever it links to is there."
    files = readme.generate()
    pictures = {p.relative_to(ROOT).as_posix() for p in (ROOT / readme.IMAGES).glob("*")}
    left_over = sorted(pictures - set(files))
    stale = [n for n, content in files.items()
             if not (ROOT / n).exists() or (ROOT / n).read_bytes() != content]
    links = README_LINK.findall(readme.FENCED.sub("", files["README.md"].decode()))
    missing = [link for link in links if not (ROOT / link).exists()]
    return [*(f"{n} does not come from nbs/index.ipynb: {MEND}" for n in stale + left_over),
            *(f"README.md links to {link}, which is not there" for link in missing)]


def configuration_current() -> list[str]:
    "docs/configuration.md is what the package says of its arguments."
    import configuration_page  # here, since it imports the package, which may be what is broken

    page = configuration_page.PAGE
    if page.exists() and page.read_text(encoding="utf-8") == configuration_page.docs_table():
        return []
    return [f"docs/configuration.md is not what lessons 01 and 01c say: {MEND}"]


def teachers_current() -> list[str]:
    "docs/teachers.md is what the lessons say, and the links of three pages lead to what is there."
    docs, problems = ROOT / "docs", []
    if teachers_page.PAGE.read_text(encoding="utf-8") != teachers_page.page():
        problems.append(f"docs/teachers.md is not what the lessons say: {MEND}")
    names = ("teachers.md", "glossary.md", "contributing.md")
    pages = {name: (docs / name).read_text(encoding="utf-8") for name in names}
    anchors = set(re.findall(r'<a id="([^"]+)">', pages["glossary.md"]))
    for name, text in pages.items():
        for link in LINK.findall(readme.FENCED.sub("", text)):
            file, _, anchor = link.partition("#")
            there = (docs / file).exists() if file else anchor in anchors
            if not there:
                problems.append(f"docs/{name} links to {link}, which is not there")
    return problems


def architecture_current() -> list[str]:
    "docs/architecture.md and its picture say what the package's lessons and imports say."
    made = {architecture_page.PAGE: architecture_page.page(), house.PICTURE: house.picture()}
    stale = [p for p, text in made.items()
             if not p.exists() or p.read_text(encoding="utf-8") != text]
    return [f"{p.relative_to(house.ROOT)} is not what the package says: {MEND}" for p in stale]


def pictures_current() -> list[str]:
    "The pictures that travel with the package are what the package draws."
    import pictures  # here, since it imports the package, which may be what is broken

    return [f"{path.relative_to(ROOT)} is not what tools/pictures.py draws: {MEND}"
            for path, text in pictures.all_of_them().items()
            if not path.exists() or path.read_text(encoding="utf-8") != text]


CHECKS = (exported_and_clean, outputs_saved, course_current, readme_current, configuration_current,
          teachers_current, architecture_current, pictures_current)


def main() -> int:
    "Run every check; 1 where one finds something."
    failed = 0
    for check in CHECKS:
        try:
            problems = check()
        except Exception as error:  # a check that can't run has failed, and the others still run
            problems = [f"{type(error).__name__}: {error}"]
        failed += bool(problems)
        verdict = f"{'FAIL' if problems else 'ok  '}  {check.__doc__}"
        print(verdict, *problems, sep="\n      ", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
