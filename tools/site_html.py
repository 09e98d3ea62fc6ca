"""What a rendered page still lacks, added to its HTML: formulas, pictures as files, anchors, links of names, room to scroll."""
import base64
import html
import posixpath
import re
import struct
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from latex2mathml.converter import convert

LONGEST_WORD = 38  # characters of inline code that are never broken over two lines
LONGEST_PATH = 16  # characters of a path or a dotted name that are not broken in a table on a phone
LONGEST_CELL = 60  # characters of a table's cell that a phone may break into many short lines
WIDEST_PICTURE = 620  # pixels of CSS; a wider picture is not shrunk to the width of a phone, where its words could not be read
FUNCTIONS = {"max", "min", "log", "ln", "exp"}
SCRIPTS = ("msub", "msup", "msubsup", "munder", "mover", "munderover")
UNITS = r"(?:%|[kMGT]i?B\b|GB/s|ms\b|nats\b)"


def parse(text: str) -> BeautifulSoup:
    "A tree of HTML."
    return BeautifulSoup(text, "html.parser")


def relative(target: str, page: str) -> str:
    "The link from one page of the site to another, with its anchor."
    path, hash_, anchor = target.partition("#")
    return (posixpath.relpath(path, posixpath.dirname(page) or ".") if path != page else "" if hash_ else posixpath.basename(page)) + hash_ + anchor


# formulas

def mathml(tex: str, display: bool) -> str:
    "A formula as MathML, which browsers draw themselves; its TeX goes along for copying."
    math = parse(convert(tex, display="block" if display else "inline")).math
    for operator in math.find_all("mo"):
        if operator.text.isalpha() and len(operator.text) > 1:  # operatorname, max: names of functions, which take no space before a bracket
            operator.name = "mi"
        if operator.text == "¯":
            operator.string = "\u203e"  # an overline, which is as wide as what is below it
        if operator.text == "∞":
            operator.name = "mi"
    for name in math.find_all("mi"):
        whole = name.parent if name.parent.name in SCRIPTS and name.find_previous_sibling() is None else name  # with its index
        after = whole.find_next_sibling()
        if name.text in FUNCTIONS and after is not None and after.text not in "(⌈":
            whole.insert_after(parse('<mspace width="0.167em"></mspace>'))
    math["alttext"] = tex
    return str(math)


def draw_formulas(main: Tag) -> bool:
    "Replace each formula by its MathML; whether there is any."
    formulas = main.select("span.math")
    for span in formulas:
        display = "display" in span["class"]
        tex = re.sub(r"^\\[(\[]|\\[)\]]$", "", span.text.strip())
        formula = parse(f'<span class="formula{" display" if display else ""}">{mathml(tex, display)}</span>').span
        span.replace_with(formula)
        if not display:
            keep_together(formula)
    return bool(formulas)


def keep_together(formula: Tag) -> None:
    "No line ends between a formula and what touches it: a bracket, a comma, the end of `t-th`."
    before, after = formula.previous_sibling, formula.next_sibling
    left = re.search(r"\S{1,8}\Z", before) if isinstance(before, NavigableString) else None
    right = re.match(r"\S{1,8}", after) if isinstance(after, NavigableString) else None
    if left:
        before.replace_with(before[:left.start()])
        formula.insert(0, left[0])
    if right:
        after.replace_with(after[right.end():])
        formula.append(right[0])
    if after is None and formula.parent.name in ("strong", "em"):  # what touches it stands outside
        formula.insert_after("\u2060")


# pictures

def size_of_png(data: bytes) -> tuple[int, int]:
    "Width and height at which a PNG picture is shown, in the pixels of CSS: those of its file, at the density that it says."
    width, height = struct.unpack(">II", data[16:24])
    at = data.find(b"pHYs")
    density = struct.unpack(">I", data[at + 4:at + 8])[0] * 0.0254 / 96 if at > 0 else 1.0
    return round(width / density), round(height / density)


def place_pictures(main: Tag, page: str, out: Path) -> None:
    "Pictures that a notebook holds become files; each says its size, so that nothing moves when it arrives."
    lesson = posixpath.splitext(page)[0]
    for n, img in enumerate(main.find_all("img")):
        source = img.get("src", "")
        if source.endswith(".svg") and "://" not in source:
            draw_inline(img, out / posixpath.normpath(posixpath.join(posixpath.dirname(page), source)))
            continue
        if source.startswith("data:image/png;base64,"):
            data = base64.b64decode(source.partition(",")[2])
            cell = img.find_parent(class_="cell")
            name = f"figures/{lesson}/{cell['id'] if cell else 'figure'}{'' if cell and len(cell.find_all('img')) == 1 else f'-{n}'}.png"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
            img["src"] = relative(name, page)
        else:
            file = out / posixpath.normpath(posixpath.join(posixpath.dirname(page), source))
            data = file.read_bytes() if file.suffix == ".png" and file.exists() else b""
        if data:
            width, height = size_of_png(data)
            img["width"], img["height"] = str(width), str(height)
            if width > WIDEST_PICTURE:
                img["class"], img["style"] = ["panorama"], f"--width: {width}px"
        if n:
            img["loading"] = "lazy"
        frame = img.find_parent("figure") or img.parent
        frame["class"] = [*frame.get("class", []), "picture"]


def draw_inline(img: Tag, file: Path) -> None:
    "A drawing stands in the page itself and takes the colours of the site, which the reader chooses."
    drawing = parse(file.read_text(encoding="utf-8"))
    drawing.find(id="palette").decompose()
    frame = img.find_parent("figure") or img.parent
    frame["class"] = [*frame.get("class", []), "picture", "drawing"]
    img.replace_with(drawing)


# code

def mark_cells(main: Tag, module: str, source: str, public: dict[str, str]) -> None:
    "A cell that the package is made of says so, and can be linked to by the names that it defines."
    for cell in main.select("div.cell"):
        block = cell.select_one("code.sourceCode")
        if not cell.find(True):
            cell.decompose()
            continue
        if block is None or not module or block.text.strip() not in source:
            continue
        names = re.findall(r"^(?:class|def) (\w+)", block.text, re.MULTILINE)
        if not names:
            continue
        anchor = next((f"#{n}" for n in names if n in public), "")
        cell["class"] = [*cell["class"], "exported"]
        label = parse(f'<p class="origin">{"".join(f"""<span id="def-{n}"></span>""" for n in names)}'
                      f'<a href="reference/{module}.html{anchor}">annotated_mpnet.{module}</a></p>')
        cell.insert(0, label)


def tidy_code(main: Tag) -> None:
    "One element for each block of code; the copy button is added by the page's script, where it works."
    for scaffold in main.select("div.code-copy-outer-scaffold"):
        for button in scaffold.find_all("button"):
            button.decompose()
        scaffold["class"] = ["code"]
    for pre in main.find_all("pre"):
        if pre.find_parent(class_="code") is None and pre.find_parent(class_="cell-output") is None:
            pre.wrap(element("div", "code"))
        if "text" in pre.get("class", []):  # messages: each line begins at the margin and goes on indented
            lines = html.escape(pre.text.rstrip("\n"), quote=False).splitlines(keepends=True)
            unbroken = [re.sub(r"--[\w-]+", r'<span class="word">\g<0></span>', line) for line in lines]
            pre.code.clear()
            pre.code.append(parse("".join(f'<span class="line">{line}</span>' for line in unbroken)))


def element(name: str, cls: str) -> Tag:
    "A new element with a class."
    return parse(f'<{name} class="{cls}"></{name}>').find(name)


# words

def keep_numbers(main: Tag) -> None:
    "No line ends between a number and its unit, or between `lesson` and its number."
    for text in main.find_all(string=True):
        if type(text) is NavigableString and text.find_parent(["pre", "code", "math", "script", "style"]) is None:
            kept = re.sub(rf"(?<=\d) (?={UNITS})|(?<=\b[Ll]esson) (?=\d)", "\u00a0", text)
            if kept != text:
                text.replace_with(kept)


def break_code(code: Tag) -> None:
    "Where a line may end in inline code: between the words of a command, and in long words after a dot, a slash or an underscore."
    text = code.text
    if len(text.strip()) <= LONGEST_WORD:
        code["class"] = ["word"]
        if len(text) > LONGEST_PATH and re.fullmatch(r"[\w./ ]+", text) and code.find_parent("td") is not None:
            code.clear()
            code.append(parse(re.sub(r"(?<=/)(?=\w)|(?<=\.)(?=\w{4,})(?!ipynb|json|yaml)", "<wbr>", text)))
        return
    words = re.split(r"( +)", text)
    code.clear()
    for word in words:
        inside = html.escape(word, quote=False)
        if len(word) > LONGEST_WORD:
            code.append(parse(re.sub(r"(?<=[./_,=])(?=\w)", "<wbr>", inside)))
        else:
            code.append(parse(f'<span class="word">{inside}</span>') if word.strip() else word)


# tables, anchors, goals

def frame_tables(main: Tag) -> None:
    "Every table lies in a frame within which it can be scrolled; a row of arguments has an anchor, and its cells their titles."
    for table in main.find_all("table"):
        if not (table.parent.get("class") or []) == ["sd-table"]:
            table.wrap(element("div", "sd-table"))
        table.parent["class"] = ["table"]
        titles = [th.text.strip() for th in table.select("thead th")]
        if titles[:1] in (["Argument"], ["Field"]) and len(titles) == 4:
            table["class"], table["role"] = ["arguments"], "table"  # laid out as a grid, which takes the roles away
            for tag, role in (("tr", "row"), ("td", "cell"), ("th", "columnheader"), ("tbody", "rowgroup"), ("thead", "rowgroup")):
                for part in table.find_all(tag):
                    part["role"] = role
            for row in table.select("tbody tr"):
                if (anchor := row.find("a", id=True)) is not None:
                    row["id"] = anchor["id"]
                    anchor.decompose()
                for title, cell in zip(titles, row.find_all("td")):
                    cell["data-title"] = title
        else:
            table["class"] = []
            for row in table.select("tbody tr"):
                for cell in row.find_all("td"):
                    if len(cell.text) > LONGEST_CELL:
                        cell["class"] = ["long"]


def link_headings(main: Tag) -> None:
    "Each heading carries its anchor and a link to itself."
    for heading in main.find_all(["h2", "h3", "h4"]):
        section = heading.find_parent("section")
        if section is None or not section.get("id"):
            continue
        heading.attrs = {}
        heading.append(parse(f'<a class="anchor" href="#{section["id"]}" aria-label="Link to {html.escape(heading.text.strip(), quote=True)}">#</a>'))


def frame_goals(main: Tag) -> None:
    "What stands before a lesson's first code or section (goals, what to know first, time) in a frame of its own."
    first = next((p for p in main.find_all("p", recursive=False) if p.text.startswith("What you will")), None)
    if first is None:
        return
    frame = element("div", "goals")
    first.insert_before(frame)
    while (after := frame.find_next_sibling()) is not None and after.name in ("p", "ol", "ul"):
        frame.append(after.extract())


def fold_solutions(main: Tag) -> None:
    "What a folded solution prints is folded with it: it gives the answer away."
    for details in main.select("div.cell > details.code-fold"):
        for output in details.find_next_siblings(class_="cell-output"):
            details.append(output.extract())


# names in backticks

def link_names(main: Tag, page: str, module: str, names: dict[str, dict[str, str]], arguments: set[str]) -> None:
    "Link each public name and each argument of the command that stands in backticks to where it is described."
    owners: dict[str, list[str]] = {}
    for owner, own in names.items():
        for name in own:
            owners.setdefault(name, []).append(owner)
    for code in main.find_all("code"):
        text = code.text.strip()
        if code.find_parent("pre") is None:
            break_code(code)
        if code.find_parent(["a", "pre", "h1", "h2", "h3", "summary"]) is not None:
            continue
        target = argument_target(text, arguments) or name_target(text, module, owners)
        if target:
            code.wrap(parse(f'<a class="name" href="{relative(target, page)}"></a>').a)


def argument_target(text: str, arguments: set[str]) -> str | None:
    "Where an argument such as `--lr` or `--lr 1e-3` is described."
    match = re.match(r"--(?:no-)?([a-z][a-z0-9_-]*)(?![\w-])", text)
    found = match and (match[0][2:].replace("_", "-"), match[1].replace("_", "-"))
    name = next((n for n in found or () if n in arguments), None)
    return f"docs/configuration.html#{name}" if name else None


def name_target(text: str, module: str, owners: dict[str, list[str]]) -> str | None:
    "Where a public name is described: first the one of the page's own module, else the only one of that name."
    text = re.sub(r"\([^()]*\)$", "", text)
    dotted = re.fullmatch(r"annotated_mpnet\.(\w+)(?:\.([\w.]+))?", text)
    if dotted and any(dotted[1] in o for o in owners.values()):
        return f"reference/{dotted[1]}.html" + (f"#{dotted[2]}" if dotted[2] in owners else "")
    if text not in owners:
        return None
    owner = module if module in owners[text] else owners[text][0] if len(owners[text]) == 1 else None
    return f"reference/{owner}.html#{text}" if owner else None
