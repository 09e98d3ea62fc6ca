"""The site's reference: each module of the package as a Markdown page, read from its source and never imported.

Signatures, docstrings and the comment beside each parameter are what the notebooks export. A public name is one of
`__all__`, and its page and anchor are in `names()`, by which the site links it wherever it is named in backticks.
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
    return [(name, s) for s in tree.body for name in defined(s) if name in wanted and name != "logger"]


def defined(statement: ast.stmt) -> list[str]:
    "The names that a statement defines."
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target] if isinstance(statement, ast.AnnAssign) else []
    return [name.id for target in targets for name in (target.elts if isinstance(target, ast.Tuple) else [target]) if isinstance(name, ast.Name)]


def methods(cls: ast.ClassDef) -> list[ast.FunctionDef]:
    "The public methods of a class, and `__call__` and `__iter__`, that say what they do."
    return [m for m in cls.body if isinstance(m, ast.FunctionDef) and ast.get_docstring(m)
            and (not m.name.startswith("_") or m.name in ("__call__", "__iter__"))]


def names() -> dict[str, dict[str, str]]:
    "For each module, its public names (a method as `Class.method`) and their anchors on its page."
    found = {}
    for module in lessons():
        own = {}
        for name, statement in public(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
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
        value = f" = {ast.unparse(default)}" if default and kind else f"={ast.unparse(default)}" if default else ""
        parts.append(f"{stars}{arg.arg}{kind}{value}")
    if function.args.kwonlyargs and not function.args.vararg:
        parts.insert(len(parts) - len(function.args.kwonlyargs) - bool(function.args.kwarg), "*")
    end = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{name}({', '.join(parts)}){end}"
    return line if len(line) <= LONGEST_CALL or not parts else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){end}"


def prose(text: str) -> str:
    "Words of a docstring or a comment as Markdown: what isn't in backticks stands for itself, an argument of the command is code."
    parts = re.split(r"(`[^`]*`)", text)
    named = [part for p in parts for part in ([p] if p.startswith("`") else re.split(r"((?<![\w-])--[a-z][\w-]*)", p))]
    return "".join(p if p.startswith("`") else f"`{p}`" if re.match("--[a-z]", p) else escaped(p) for p in named)


def escaped(text: str) -> str:
    "Text in which no character means anything to Markdown."
    return re.sub(r"[\\<>$~^*@|\[\]{}_]|--", lambda m: "".join(f"\\{c}" for c in m[0]), text)


def code(text: str) -> str:
    "Python code as a cell of a Markdown table."
    return f"`{text}`".replace("|", "\\|") if text else ""


def of_one_argument(comment: str, names: list[str]) -> tuple[dict[str, str], str]:
    "What the comment beside a definition of one line says of an argument (`n: of ...`, or `of ...` where there is one), and what is left of it."
    if named := re.match(rf"({'|'.join(map(re.escape, names))}): (.+)", comment) if names and comment else None:
        return {named[1]: named[2]}, ""
    if len(names) == 1 and comment.startswith("of "):
        meaning, _, gives = comment.partition(" -> ")
        return {names[0]: meaning}, gives
    return {}, comment


def table(function: ast.FunctionDef, said: dict[int, str]) -> str:
    "The arguments of a function with the comment beside each, and what it returns."
    ends = [(default or arg).end_lineno for arg, default, _ in arguments(function)]
    given = function.returns if function.returns is not None and ast.unparse(function.returns) != "None" else None
    on_one_line = said.get(function.lineno, "") if ends and function.lineno == max(ends) else ""
    own, on_one_line = of_one_argument(on_one_line, [arg.arg for arg, *_ in arguments(function)])
    rows = []
    for (arg, default, stars), end in zip(arguments(function), ends):
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        shared = ends.count(end) > 1 and end == function.lineno or on_one_line and (given or on_one_line.startswith("->"))
        meaning = own.get(arg.arg, "" if shared or own else said.get(end, ""))
        rows.append((code(stars + arg.arg), code(kind), code(ast.unparse(default)) if default else "", meaning))
    if given:
        rows.append(("*returns*", code(ast.unparse(given)), "", on_one_line if own else said.get(given.end_lineno, "")))
    elif on_one_line.startswith("->"):
        rows.append(("*returns*", "", "", on_one_line[2:].strip()))
    if not any(meaning for *_, meaning in rows):
        return ""
    cells = ["| " + " | ".join((*row[:3], prose(row[3]))) + " |" for row in rows]
    return "\n".join(["| Argument | Type | Default | Meaning |", "| --- | --- | --- | --- |", *cells]) + "\n"


def fields_table(cls: ast.ClassDef, said: dict[int, str]) -> str:
    "The fields of a dataclass with the comment beside each."
    fields = [s for s in cls.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    if not fields or not any(said.get(f.end_lineno) for f in fields):
        return ""
    rows = [(code(f.target.id), code(ast.unparse(f.annotation)), code(ast.unparse(f.value)) if f.value else "", prose(said.get(f.end_lineno, ""))) for f in fields]
    return "\n".join(["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |", *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def entry(function: ast.FunctionDef, title: str, level: int, said: dict[int, str], source: str) -> list[str]:
    "A function or method: heading, signature, what it does, its arguments."
    doc = ast.get_docstring(function) or ""
    return [f"{'#' * level} {escaped(title)} {{#{title}}}\n", f"```python\n{signature(function, title)}\n```\n", prose(doc) + "\n", table(function, said), source]


def class_entry(cls: ast.ClassDef, said: dict[int, str], source: str) -> list[str]:
    "A class: what it is made with, its fields or arguments, and its public methods."
    made = next((m for m in cls.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    bases = ", ".join(ast.unparse(b) for b in cls.bases)
    head = signature(made, cls.name) if made else f"class {cls.name}" + (f"({bases})" if bases else "")
    pieces = [f"## {escaped(cls.name)} {{#{cls.name}}}\n", f"```python\n{head}\n```\n", prose(ast.get_docstring(cls) or "") + "\n"]
    pieces += [table(made, said) if made else fields_table(cls, said)]
    if cls.name == "PretrainConfig":
        pieces += ["Its fields, with meaning and default, are the [arguments of the command](../docs/configuration.md).\n"]
    pieces += [source]
    for method in methods(cls):
        pieces += entry(method, f"{cls.name}.{method.name}", 3, said, "")
    return pieces


def constant_entry(name: str, statement: ast.stmt, lines: list[str], source: str) -> list[str]:
    "A constant, as it is written."
    text = textwrap.dedent("\n".join(lines[statement.lineno - 1:statement.end_lineno]))
    names = defined(statement)
    if len(names) > 1 and isinstance(statement.value, ast.Tuple) and len(statement.value.elts) == len(names):
        text = f"{name} = {ast.unparse(statement.value.elts[names.index(name)])}"
    shown = text.split("\n")
    if len(shown) > LONGEST_VALUE:
        shown = [*shown[:LONGEST_VALUE], "..."]
    return [f"## {escaped(name)} {{#{name}}}\n", "```python\n" + "\n".join(shown) + "\n```\n", source]


def module_page(module: str, title: str, lesson: str, repository: str) -> str:
    "The reference page of one module, in Markdown."
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    tree, said, lines = ast.parse(source), comments(source), source.splitlines()
    summary = ast.get_docstring(tree) or ""
    order = list(lessons()).index(module) + 1
    pieces = [f"---\ntitle: {module}\norder: {order}\ndescription: >-\n  {summary}\n---\n",
              f"Module `annotated_mpnet.{module}`, built and explained in [{title}](../{lesson}).\n"]
    for name, statement in public(tree):
        links = f"[source]({repository}/annotated_mpnet/{module}.py#L{statement.lineno})"
        if not isinstance(statement, ast.Assign):
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
    pieces = ["---\ntitle: The package\ndescription: Every public name of the package, module by module, in the order of the lessons.\n---\n",
              "The [arguments of the command](../docs/configuration.md) have a page of their own. A name in backticks, anywhere on this site, leads here.\n"]
    for module, own in names().items():
        summary = ast.get_docstring(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))) or ""
        links = ", ".join(f"[`{name}`]({module}.md#{anchor})" for name, anchor in own.items() if "." not in name)
        pieces += [f"## [{escaped(module)}]({module}.md) {{#{module}}}\n", f"{prose(summary)} ([{titles[module]}](../{lessons()[module].name}))\n", f"::: {{.names}}\n{links}\n:::\n"]
    return "\n".join(pieces)
