"""The site's reference: each module of the package as a Markdown page, read and never imported.

Signatures, docstrings and the comment beside each parameter are what the notebooks export. A
public name is one of `__all__`, and its page and anchor are in `names()`, by which the site links
it wherever it is named in backticks.
"""
import ast
import io
import re
import textwrap
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "annotated_mpnet"
LONGEST_VALUE = 24  # lines of a constant that are shown
LONGEST_CALL = 60  # characters of a signature on one line
COLUMNS = ["Type", "Default", "Meaning"]  # of an argument or a field
OVERVIEW = """\
---
title: The package
description: Every public name of the package, module by module, in the order of the lessons.
---

The [arguments of the command](../docs/configuration.md) have a page of their own. \
A name in backticks, anywhere on this site, leads here.
"""


def lessons() -> dict[str, Path]:
    "The notebook that each module is exported from."
    found = {}
    for path in sorted(PACKAGE.glob("[!_]*.py")):
        source = re.search(r"File to edit: \.\./(\S+)\.", path.read_text(encoding="utf-8"))
        found[path.stem] = ROOT / source[1]
    return dict(sorted(found.items(), key=lambda item: item[1].name))


def public(tree: ast.Module) -> list[tuple[str, ast.stmt]]:
    "The names of `__all__` and the statements that define them, in the order of the source."
    wanted = next((ast.literal_eval(s.value) for s in tree.body if "__all__" in defined(s)), [])
    wanted = {name for name in wanted if name != "logger"}
    return [(name, s) for s in tree.body for name in defined(s) if name in wanted]


def defined(statement: ast.stmt) -> list[str]:
    "The names that a statement defines."
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return []
    parts = [part for target in targets
             for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def source_of(module: str) -> str:
    "The text of a module."
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


def methods(cls: ast.ClassDef) -> list[ast.FunctionDef]:
    "The public methods of a class, and `__call__` and `__iter__`, that say what they do."
    return [m for m in cls.body if isinstance(m, ast.FunctionDef) and ast.get_docstring(m)
            and (not m.name.startswith("_") or m.name in ("__call__", "__iter__"))]


def names() -> dict[str, dict[str, str]]:
    "For each module, its public names (a method as `Class.method`) and their anchors on its page."
    found = {}
    for module in lessons():
        own = {}
        for name, statement in public(ast.parse(source_of(module))):
            own[name] = name
            if isinstance(statement, ast.ClassDef):
                own |= {f"{name}.{m.name}": f"{name}.{m.name}" for m in methods(statement)}
        found[module] = own
    return found


def comments(source: str) -> dict[int, str]:
    "The comment that ends each line of the source."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def arguments(function: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None, str]]:
    "Each argument of a function but `self`, its default, and the stars before its name."
    a = function.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    found = [(arg, default, "") for arg, default in zip(plain, defaults)]
    found += [(a.vararg, None, "*")] if a.vararg else []
    found += [(arg, default, "") for arg, default in zip(a.kwonlyargs, a.kw_defaults)]
    found += [(a.kwarg, None, "**")] if a.kwarg else []
    return [f for f in found if f[0].arg not in ("self", "cls")]


def signature(function: ast.FunctionDef, name: str) -> str:
    "The call of a function with types and defaults, on one line or one for each argument."
    bare = any(d.id == "property" for d in function.decorator_list if isinstance(d, ast.Name))
    if bare:
        return name
    parts = []
    for arg, default, stars in arguments(function):
        kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
        equals = " = " if kind else "="
        value = f"{equals}{ast.unparse(default)}" if default else ""
        parts.append(f"{stars}{arg.arg}{kind}{value}")
    if function.args.kwonlyargs and not function.args.vararg:
        parts.insert(len(parts) - len(function.args.kwonlyargs) - bool(function.args.kwarg), "*")
    end = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= LONGEST_CALL or not parts:
        return line
    return f"{name}(\n    " + ",\n    ".join(parts) + f",\n){end}"


def prose(text: str) -> str:
    "Words of a docstring or a comment as Markdown, with the arguments of the command as code."
    def shown(part: str) -> str:
        if part.startswith("`"):
            return part
        return f"`{part}`" if re.match("--[a-z]", part) else escaped(part)

    return "".join(map(shown, re.split(r"(`[^`]*`|(?<![\w-])--[a-z][\w-]*)", text)))


def escaped(text: str) -> str:
    "Text in which no character means anything to Markdown."
    return re.sub(r"[\\<>$~^*@|\[\]{}_]|--", lambda m: "".join(f"\\{c}" for c in m[0]), text)


def code(text: str) -> str:
    "Python code as a cell of a Markdown table."
    return f"`{text}`".replace("|", "\\|") if text else ""


def of_one_argument(comment: str, names: list[str]) -> tuple[dict[str, str], str]:
    """What the comment beside a definition of one line says of an argument, and what is left of it.

    It says it as `n: of ...`, or as `of ...` where there is one argument.
    """
    argument, _, meaning = comment.partition(": ")
    if argument in names and meaning:
        return {argument: meaning}, ""
    if len(names) == 1 and comment.startswith("of "):
        meaning, _, gives = comment.partition(" -> ")
        return {names[0]: meaning}, gives
    return {}, comment


def table(function: ast.FunctionDef, said: dict[int, str]) -> str:
    "The arguments of a function with the comment beside each, and what it returns."
    args = arguments(function)
    ends = [(default or arg).end_lineno for arg, default, _ in args]
    given = function.returns
    if given is not None and ast.unparse(given) == "None":
        given = None
    on_one_line = said.get(function.lineno, "") if ends and function.lineno == max(ends) else ""
    own, on_one_line = of_one_argument(on_one_line, [arg.arg for arg, *_ in args])
    of_returned = on_one_line and (given or on_one_line.startswith("->"))
    rows = []
    for (arg, default, stars), end in zip(args, ends):
        shared = ends.count(end) > 1 and end == function.lineno
        beside = "" if shared or of_returned or own else said.get(end, "")
        rows.append([code(stars + arg.arg), unparsed(arg.annotation), unparsed(default),
                     own.get(arg.arg, beside)])
    if given:
        meaning = on_one_line if own else said.get(given.end_lineno, "")
        rows.append(["*returns*", unparsed(given), "", meaning])
    elif on_one_line.startswith("->"):
        rows.append(["*returns*", "", "", on_one_line[2:].strip()])
    return markdown_table("Argument", rows)


def unparsed(node: ast.expr | None) -> str:
    "An expression as code; empty where there is none."
    return code(ast.unparse(node)) if node else ""


def markdown_table(of: str, rows: list[list[str]]) -> str:
    "A table of arguments or fields in Markdown; empty where none has a meaning."
    if not any(meaning for *_, meaning in rows):
        return ""
    cells = [[of, *COLUMNS], ["---"] * 4, *([*row[:3], prose(row[3])] for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def fields_table(cls: ast.ClassDef, said: dict[int, str]) -> str:
    "The fields of a dataclass with the comment beside each."
    annotated = [s for s in cls.body if isinstance(s, ast.AnnAssign)]
    fields = [f for f in annotated if isinstance(f.target, ast.Name)]
    return markdown_table("Field", [[code(f.target.id), unparsed(f.annotation), unparsed(f.value),
                                     said.get(f.end_lineno, "")] for f in fields])


def entry(function: ast.FunctionDef,
          title: str, # its name; a method as `Class.method`
          level: int, # of its heading
          said: dict[int, str], # the comment of each line
          source: str, # links to where it is defined
         ) -> list[str]:
    "A function or method: heading, signature, what it does, its arguments."
    return [f"{'#' * level} {escaped(title)} {{#{title}}}\n",
            f"```python\n{signature(function, title)}\n```\n",
            prose(ast.get_docstring(function) or "") + "\n",
            table(function, said),
            source]


def class_entry(cls: ast.ClassDef, said: dict[int, str], source: str) -> list[str]:
    "A class: what it is made with, its fields or arguments, and its public methods."
    functions = (m for m in cls.body if isinstance(m, ast.FunctionDef))
    made = next((m for m in functions if m.name == "__init__"), None)
    bases = ", ".join(ast.unparse(b) for b in cls.bases)
    plain = f"class {cls.name}({bases})" if bases else f"class {cls.name}"
    head = signature(made, cls.name) if made else plain
    pieces = [f"## {escaped(cls.name)} {{#{cls.name}}}\n",
              f"```python\n{head}\n```\n",
              prose(ast.get_docstring(cls) or "") + "\n",
              table(made, said) if made else fields_table(cls, said)]
    if cls.name == "PretrainConfig":
        pieces.append("Its fields, with meaning and default, are the "
                      "[arguments of the command](../docs/configuration.md).\n")
    pieces.append(source)
    for method in methods(cls):
        pieces += entry(method, f"{cls.name}.{method.name}", 3, said, "")
    return pieces


def constant_entry(name: str, statement: ast.stmt, lines: list[str], source: str) -> list[str]:
    "A constant, as it is written."
    text = textwrap.dedent("\n".join(lines[statement.lineno - 1:statement.end_lineno]))
    names, value = defined(statement), statement.value
    if len(names) > 1 and isinstance(value, ast.Tuple) and len(value.elts) == len(names):
        text = f"{name} = {ast.unparse(value.elts[names.index(name)])}"
    shown = text.split("\n")
    if len(shown) > LONGEST_VALUE:
        shown = [*shown[:LONGEST_VALUE], "..."]
    lines_shown = "\n".join(shown)
    return [f"## {escaped(name)} {{#{name}}}\n", f"```python\n{lines_shown}\n```\n", source]


def module_page(module: str, title: str, lesson: str, repository: str) -> str:
    "The reference page of one module, in Markdown."
    source = source_of(module)
    tree, said, lines = ast.parse(source), comments(source), source.splitlines()
    summary = ast.get_docstring(tree) or ""
    order = list(lessons()).index(module) + 1
    pieces = [f"---\ntitle: {module}\norder: {order}\ndescription: >-\n  {summary}\n---\n",
              f"Module `annotated_mpnet.{module}`, "
              f"built and explained in [{title}](../{lesson}).\n"]
    for name, statement in public(tree):
        links = f"[source]({repository}/annotated_mpnet/{module}.py#L{statement.lineno})"
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            links += f" · [in the lesson](../{lesson}#def-{name})"
        links = f"::: {{.source}}\n{links}\n:::\n"
        if isinstance(statement, ast.FunctionDef):
            pieces += entry(statement, name, 2, said, links)
        elif isinstance(statement, ast.ClassDef):
            pieces += class_entry(statement, said, links)
        else:
            pieces += constant_entry(name, statement, lines, links)
    return "\n".join(p for p in pieces if p)


def index_page(titles: dict[str, str]) -> str:
    "The overview: every module with its public names."
    pieces = [OVERVIEW]
    for module, own in names().items():
        summary = ast.get_docstring(ast.parse(source_of(module))) or ""
        links = ", ".join(f"[`{name}`]({module}.md#{anchor})"
                          for name, anchor in own.items() if "." not in name)
        lesson = f"[{titles[module]}](../{lessons()[module].name})"
        pieces += [f"## [{escaped(module)}]({module}.md) {{#{module}}}\n",
                   f"{prose(summary)} ({lesson})\n",
                   f"::: {{.names}}\n{links}\n:::\n"]
    return "\n".join(pieces)
