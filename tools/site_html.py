"""What a rendered page lacks: formulas, pictures as files, anchors, links, room to scroll."""
import base64
import html
import posixpath
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from latex2mathml.converter import convert

LONGEST_WORD = 38  # characters of inline code that are never broken over two lines
LONGEST_PATH = 16  # characters of a path or a dotted name that are not broken in a table on a phone
LONGEST_CELL = 60  # characters of a table's cell that a phone may break into many short lines
WIDEST_PICTURE = 620  # pixels of CSS; a wider one is not shrunk for a phone: its words must be read
FUNCTIONS = {"max", "min", "log", "ln", "exp"}
SCRIPTS = ("msub", "msup", "msubsup", "munder", "mover", "munderover")
ROLES = {"tr": "row", "td": "cell", "th": "columnheader", "tbody": "rowgroup", "thead": "rowgroup"}
UNTOUCHED = {"pre", "code", "math", "script", "style"}
UNITS = r"(?:%|[kMGT]i?B\b|GB/s|ms\b|nats\b)"


def parse(text: str) -> BeautifulSoup:
    "A tree of HTML."
    return BeautifulSoup(text, "html.parser")


def relative(target: str, page: str) -> str:
    "The link from one page of the site to another, with its anchor."
    path, hash_, anchor = target.partition("#")
    if path != page:
        link = posixpath.relpath(path, posixpath.dirname(page) or ".")
    else:
        link = "" if hash_ else posixpath.basename(page)
    return link + hash_ + anchor


# formulas

def mathml(tex: str, display: bool) -> str:
    "A formula as MathML, which browsers draw themselves; its TeX goes along for copying."
    math = parse(convert(tex, display="block" if display else "inline")).math
    for operator in math.find_all("mo"):
        if operator.text.isalpha() and len(operator.text) > 1:
            operator.name = "mi"  # a function, such as max: no space before its bracket
        if operator.text == "¯":
            operator.string = "\u203e"  # an overline, which is as wide as what is below it
        if operator.text == "∞":
            operator.name = "mi"
    for name in math.find_all("mi"):
        indexed = name.parent.name in SCRIPTS and name.find_previous_sibling() is None
        after = (name.parent if indexed else name).find_next_sibling()
        if name.text in FUNCTIONS and after is not None and after.text not in "(⌈":
            after.insert_before(parse('<mspace width="0.167em"></mspace>'))
    math["alttext"] = tex
    return str(math)


def draw_formulas(main: Tag) -> bool:
    "Replace each formula by its MathML; whether there is any."
    formulas = main.select("span.math")
    for span in formulas:
        display = "display" in span["class"]
        tex = re.sub(r"^\\[(\[]|\\[)\]]$", "", span.text.strip())
        kind = "formula display" if display else "formula"
        formula = parse(f'<span class="{kind}">{mathml(tex, display)}</span>').span
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
    "Width and height of a PNG picture in the pixels of CSS, by the density that its file says."
    width, height = struct.unpack(">II", data[16:24])
    at = data.find(b"pHYs")
    density = struct.unpack(">I", data[at + 4:at + 8])[0] * 0.0254 / 96 if at > 0 else 1.0
    return round(width / density), round(height / density)


def place_pictures(main: Tag, page: str, out: Path) -> None:
    "Make files of a notebook's pictures, and give each its size: nothing moves when it arrives."
    lesson = posixpath.splitext(page)[0]
    for n, img in enumerate(main.find_all("img")):
        source = img.get("src", "")
        if source.endswith(".svg") and "://" not in source:
            path = posixpath.join(posixpath.dirname(page), source)
            draw_inline(img, out / posixpath.normpath(path))
            continue
        if source.startswith("data:image/png;base64,"):
            data = base64.b64decode(source.partition(",")[2])
            cell = img.find_parent(class_="cell")
            alone = cell is not None and len(cell.find_all("img")) == 1
            label = cell["id"] if cell else "figure"
            name = f"figures/{lesson}/{label}{'' if alone else f'-{n}'}.png"
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
    for drawing in main.select(".cell-output-display svg"):
        take_colours(drawing)
    for caption in main.select("figcaption"):  # which smalldocs takes as plain text
        text = re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", caption.decode_contents())
        caption.clear()
        caption.append(parse(text))


def draw_inline(img: Tag, file: Path) -> None:
    "A drawing stands in the page itself."
    drawing = parse(file.read_text(encoding="utf-8")).svg
    img.replace_with(drawing)
    take_colours(drawing)


def take_colours(drawing: Tag) -> None:
    "A drawing in a page takes the site's colours, which the reader chooses, and says its text."
    drawing.find(id="palette").decompose()
    if alt := drawing.attrs.pop("alt", ""):
        drawing.desc.string = alt
    frame = drawing.find_parent("figure") or drawing.parent
    small = ["small"] if int(drawing["width"]) < WIDEST_PICTURE else []
    frame["class"] = [*frame.get("class", []), "picture", "drawing", *small]


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
        anchors = "".join(f'<span id="def-{n}"></span>' for n in names)
        link = f'<a href="reference/{module}.html{anchor}">annotated_mpnet.{module}</a>'
        cell.insert(0, parse(f'<p class="origin">{anchors}{link}</p>'))


def tidy_code(main: Tag) -> None:
    "One element for each block of code; the page's script adds the copy button, where it works."
    for scaffold in main.select("div.code-copy-outer-scaffold"):
        for button in scaffold.find_all("button"):
            button.decompose()
        scaffold["class"] = ["code"]
    for pre in main.find_all("pre"):
        if pre.find_parent(class_="code") is None and pre.find_parent(class_="cell-output") is None:
            pre.wrap(element("div", "code"))
        if "text" in pre.get("class", []):
            frame_lines(pre)


def frame_lines(pre: Tag) -> None:
    "A message: each of its lines begins at the margin and goes on indented, arguments unbroken."
    lines = html.escape(pre.text.rstrip("\n"), quote=False).splitlines(keepends=True)
    unbroken = [re.sub(r"--[\w-]+", r'<span class="word">\g<0></span>', line) for line in lines]
    pre.code.clear()
    pre.code.append(parse("".join(f'<span class="line">{line}</span>' for line in unbroken)))


def element(name: str, cls: str) -> Tag:
    "A new element with a class."
    return parse(f'<{name} class="{cls}"></{name}>').find(name)


# words

def prose_of(element: Tag) -> Iterator[NavigableString]:
    "The texts within an element that are neither code nor a formula."
    for part in element.children:
        if not isinstance(part, Tag):
            yield part
        elif part.name not in UNTOUCHED:
            yield from prose_of(part)


def keep_numbers(main: Tag) -> None:
    "No line ends between a number and its unit, or between `lesson` and its number."
    for text in list(prose_of(main)):
        if type(text) is NavigableString:
            kept = re.sub(rf"(?<=\d) (?={UNITS})|(?<=\b[Ll]esson) (?=\d)", "\u00a0", text)
            if kept != text:
                text.replace_with(kept)


def break_code(code: Tag) -> None:
    "Let inline code break between the words of a command, and in long words after a mark."
    text = code.text
    if len(text.strip()) <= LONGEST_WORD:
        code["class"] = ["word"]
        path = len(text) > LONGEST_PATH and re.fullmatch(r"[\w./ ]+", text)
        if path and code.find_parent("td") is not None:
            places = r"(?<=/)(?=\w)|(?<=\.)(?=\w{4,})(?!ipynb|json|yaml)"
            code.clear()
            code.append(parse(re.sub(places, "<wbr>", text)))
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

def mark_arguments(table: Tag, titles: list[str]) -> None:
    "A table of arguments: its rows have anchors, its cells the titles of their columns."
    # It is laid out as a grid, which takes the roles away.
    table["class"], table["role"] = ["arguments"], "table"
    for tag, role in ROLES.items():
        for part in table.find_all(tag):
            part["role"] = role
    for row in table.select("tbody tr"):
        if (anchor := row.find("a", id=True)) is not None:
            row["id"] = anchor["id"]
            anchor.decompose()
        for title, cell in zip(titles, row.find_all("td")):
            cell["data-title"] = title


def frame_tables(main: Tag) -> None:
    "Put every table into a frame within which it can be scrolled."
    for table in main.find_all("table"):
        if not (table.parent.get("class") or []) == ["sd-table"]:
            table.wrap(element("div", "sd-table"))
        table.parent["class"] = ["table"]
        titles = [th.text.strip() for th in table.select("thead th")]
        if titles[:1] in (["Argument"], ["Field"]) and len(titles) == 4:
            mark_arguments(table, titles)
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
        label = html.escape(f"Link to {heading.text.strip()}", quote=True)
        anchor = f'<a class="anchor" href="#{section["id"]}" aria-label="{label}">#</a>'
        heading.append(parse(anchor))


def frame_goals(main: Tag) -> None:
    "A frame around what a lesson begins with: goals, what to know first, time."
    paragraphs = main.find_all("p", recursive=False)
    first = next((p for p in paragraphs if p.text.startswith("What you will")), None)
    if first is None:
        return
    frame = element("div", "goals")
    first.insert_before(frame)
    while (after := frame.find_next_sibling()) is not None and after.name in ("p", "ol", "ul"):
        frame.append(after.extract())


def fold_solutions(main: Tag) -> None:
    "What a folded solution prints is folded with it: it gives the answer away."
    for details in main.select("div.cell > details.code-fold"):
        if details.summary.text.strip() != "Solution":
            continue  # what a folded figure shows is what it is for
        for output in details.find_next_siblings(class_="cell-output"):
            details.append(output.extract())


# names in backticks

def link_names(main: Tag, # of the page
               page: str, # its address
               module: str, # that it is about, or nothing
               names: dict[str, dict[str, str]], # `site_reference.names()`
               arguments: set[str], # of the command
              ) -> None:
    "Link each public name and each argument in backticks to where it is described."
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
    "Where a public name is described: that of the page's own module, else the only one."
    text = re.sub(r"\([^()]*\)$", "", text)
    dotted = re.fullmatch(r"annotated_mpnet\.(\w+)(?:\.([\w.]+))?", text)
    if dotted and any(dotted[1] in o for o in owners.values()):
        return f"reference/{dotted[1]}.html" + (f"#{dotted[2]}" if dotted[2] in owners else "")
    having = owners.get(text, [])
    if module not in having and len(having) != 1:
        return None
    owner = module if module in having else having[0]
    return f"reference/{owner}.html#{text}"
