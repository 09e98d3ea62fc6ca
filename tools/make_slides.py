"""`make slides`: slides of lessons 00 to 06 and a sheet of all figures, in _slides.

    python tools/make_slides.py            lessons 00 to 06
    python tools/make_slides.py 07 12      others

They come from the notebooks as they are saved. A slide shows a section's tables, lists, formulas,
code and figures, and the beginning of each paragraph; the whole text is in the speaker's notes
(press S). Nothing is fetched: reveal.js lies beside the slides, formulas become MathML.
"""
import html
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import latex2mathml.converter
import nbformat
from nbconvert.filters import markdown2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import lessons
import readme

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"
OUT = ROOT / "_slides"
TAUGHT = ("00", "01", "02", "03", "04", "05", "06")
LINES_A_SLIDE = 17.5   # of text; code is lower; of a longer cell the first lines are shown
LINES_OF_OUTPUT = 12
SPOKEN = 200           # characters of a paragraph that a slide shows, at least its first sentence
NOT_SHOWN = {"hide", "default_exp"}
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)\$", re.DOTALL)
BLOCK = re.compile(r"<details>.*?</details>|```.*?```|(?:(?!\n\n|<details>).)+", re.DOTALL)
VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'


@dataclass
class Slide:
    "What one slide shows, and what its speaker reads."
    heading: str
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: float = 0.0

    def html(self) -> str:
        notes = f'<aside class="notes">{"".join(self.notes)}</aside>' if self.notes else ""
        return f"<section><h2>{self.heading}</h2>{''.join(self.parts)}{notes}</section>"


def formula(tex: str, display: bool) -> str:
    "A formula as MathML."
    text = latex2mathml.converter.convert(tex, display="block" if display else "inline")
    return f'<span class="formula">{text}</span>' if display else text


def to_html(markdown: str) -> str:
    "Markdown as HTML, its formulas as MathML, its links as seen from _slides."
    formulas: list[str] = []

    def set_aside(match: re.Match) -> str:
        formulas.append(formula(match[1] or match[2], bool(match[1])))
        return f"FORMULA{len(formulas) - 1}END"

    # A dollar in code is a dollar.
    parts = re.split(r"(```.*?```|`[^`\n]+`)", markdown, flags=re.DOTALL)
    parts[::2] = [FORMULA.sub(set_aside, part) for part in parts[::2]]
    text = re.sub(r"\]\((?=[\w-]+\.ipynb)", "](../nbs/", "".join(parts))
    return re.sub(r"FORMULA(\d+)END", lambda m: formulas[int(m[1])], markdown2html(text))


def shorten(paragraph: str) -> str:
    "The first sentences of a paragraph of prose; anything else whole."
    if re.match(r"[|>#$]|[-*] |\d+\. |```|<", paragraph) or len(paragraph) <= SPOKEN:
        return paragraph
    said = ""
    for sentence in re.split(r"(?<=[.?!:])\s+(?=[A-Z*`(])", paragraph):
        if len(said) >= SPOKEN // 3 and len(said) + len(sentence) > SPOKEN:
            break
        said = f"{said} {sentence}".strip()
    return said


def lines_of(markdown: str) -> float:
    "About how many lines a piece of Markdown takes."
    if markdown.startswith("$$"):
        return 2.5
    return sum(1 + len(line) // 95 for line in markdown.splitlines()) + 0.6


def height_of(lines: list[str]) -> float:
    "The height of code or of an output, in lines of text; a long line of code is wrapped."
    return 0.67 * sum(1 + len(line) // 115 for line in lines) + 1


def code_html(code: str, limit: float = LINES_A_SLIDE) -> tuple[str, float]:
    "Code in colours, and its height; what is too long ends with a line that says so."
    lines = code.strip().splitlines()
    kept = [line for n, line in enumerate(lines, 1) if height_of(lines[:n]) <= limit]
    if len(kept) < len(lines):
        lines = [*kept[:-1], f"# ... {len(lines) - len(kept) + 1} more lines in the lesson"]
    formatter = HtmlFormatter(nowrap=False, cssclass="code")
    return highlight("\n".join(lines), PythonLexer(), formatter), height_of(lines)


def output_html(output: dict) -> tuple[str, float]:
    "One output that isn't a figure."
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    lines = text.rstrip().splitlines()
    if len(lines) > LINES_OF_OUTPUT:
        lines = [*lines[:LINES_OF_OUTPUT - 1], "..."]
    return f'<pre class="output">{html.escape(chr(10).join(lines))}</pre>', height_of(lines)


def figure_html(figure: lessons.Figure) -> str:
    "A figure and its caption."
    return (f'<figure><img src="{figure.source}" alt="{html.escape(figure.alt)}">'
            f"<figcaption>{to_html(figure.caption)}</figcaption></figure>")


def inline_html(markdown: str) -> str:
    "A line of Markdown as HTML, not as a paragraph."
    return to_html(markdown).strip().removeprefix("<p>").removesuffix("</p>")


class Deck:
    "Slides, filled one after another."

    def __init__(self):
        self.slides: list[Slide] = []

    def begin(self, heading: str) -> None:
        self.slides.append(Slide(heading))

    def add(self, part: str, lines: float) -> None:
        "Put something on the slide, or on a new one with the same heading where there is no room."
        filled = self.slides[-1].lines
        if filled and filled + lines > LINES_A_SLIDE:
            self.begin(self.slides[-1].heading)
        self.slides[-1].parts.append(part)
        self.slides[-1].lines += lines

    def add_markdown(self, source: str) -> None:
        for part in re.split(r"^(?=#{2,4} )", source, flags=re.MULTILINE):
            if heading := re.match(r"#+ (.+)\n*", part):
                self.begin(inline_html(heading[1]))
                part = part[heading.end():]
            blocks = BLOCK.findall(part.strip())
            for block in filter(None, map(str.strip, blocks)):
                if re.match(r"\*\*\d+\.", block):  # an exercise has a slide of its own
                    self.begin(self.slides[-1].heading)
                shown = shorten(block)
                lines = 1.5 if block.startswith("<details>") else lines_of(shown)
                self.add(to_html(shown), lines)
                if shown != block:
                    self.slides[-1].notes.append(to_html(block))

    def add_code(self, cell) -> None:
        options, directives, code = readme.cell_options(cell.source)
        if directives & NOT_SHOWN or options.get("include") is False:
            return
        pages = [o.get("data", {}).get("text/html", "") for o in cell.outputs]
        figures = [page for page in pages if "<figure" in page]
        pictures = [*map(figure_html, lessons.figures([cell])), *figures]
        for picture in pictures:  # the picture instead of the code that draws it
            self.add(picture, LINES_A_SLIDE)
        imports = (re.match(r"\s*(import|from)\b|\s*$", line) for line in code.splitlines())
        if pictures or all(imports):
            return
        shown, lines = code_html(code)
        outputs = [output_html(o) for o in cell.outputs]
        whole = shown + "".join(output for output, _ in outputs)
        if options.get("code-fold"):
            summary = options.get("code-summary", "Code")
            self.add(f"<details><summary>{summary}</summary>{whole}</details>", 2)
            return
        total = lines + sum(height for _, height in outputs)
        if total <= LINES_A_SLIDE:  # together, where a slide has room for both
            self.add(whole, total)
            return
        for part, height in [(shown, lines), *outputs]:
            self.add(part, height)


def slides_of(lesson: lessons.Lesson) -> list[str]:
    "The slides of a lesson, as HTML."
    title = html.escape(lesson.title)
    goals = "".join(f"<li>{inline_html(goal)}</li>" for goal in lesson.goals)
    know_first = to_html(f"Know first: {lesson.first}")
    first = [
        f"<section><h1>{title}</h1><p>{to_html(lesson.purpose)}</p>"
        f"<p>Lesson {lesson.number} of annotated-mpnet</p></section>",
        f"<section><h2>What you will be able to do</h2><ol>{goals}</ol>{know_first}</section>",
    ]
    deck = Deck()
    deck.begin(title)
    cells = nbformat.read(lesson.path, as_version=4).cells
    sections = (i for i, c in enumerate(cells)
                if c.cell_type == "markdown" and c.source.startswith("## "))
    for cell in cells[next(sections):]:
        if cell.cell_type == "markdown" and "data-explorer" not in cell.source:  # the site's alone
            deck.add_markdown(cell.source)
        elif cell.cell_type == "code":
            deck.add_code(cell)
    return first + [slide.html() for slide in deck.slides if slide.parts]


def page(title: str, body: str, head: str = "") -> str:
    "A page whose `body` begins with the rest of that tag: its attributes and `>`."
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{VIEWPORT}'
            f"<title>{html.escape(title)}</title>{head}"
            f'<link rel="stylesheet" href="slides.css"></head>\n<body{body}</body></html>\n')


def deck_page(lesson: lessons.Lesson) -> str:
    "The slides of one lesson as a page."
    colours = HtmlFormatter(cssclass="code", style="xcode").get_style_defs(".code")
    head = f'<link rel="stylesheet" href="reveal/reveal.css"><style>{colours}</style>'
    start = ("Reveal.initialize({width: 1280, height: 720, margin: 0.03, center: false, "
             "hash: true, slideNumber: 'c/t', transition: 'none', plugins: [RevealNotes]});")
    slides = "\n".join(slides_of(lesson))
    scripts = ('<script src="reveal/reveal.js"></script><script src="reveal/notes.js"></script>'
               f"<script>{start}</script>")
    body = f'><div class="reveal"><div class="slides">\n{slides}\n</div></div>\n{scripts}'
    return page(f"{lesson.number} {lesson.title}", body, head)


def figure_sheet() -> str:
    "Every figure of the course, with its caption, to be printed."
    parts = ["<h1>The figures of annotated-mpnet</h1>"]
    for lesson in lessons.read_all():
        if lesson.figures:
            parts.append(f"<h2>{lesson.number} {html.escape(lesson.title)}</h2>")
            parts += map(figure_html, lesson.figures)
    return page("The figures of annotated-mpnet", f' class="sheet">\n{chr(10).join(parts)}\n')


def main(numbers: list[str]) -> int:
    "Make the slides of some lessons, the sheet of figures, and a page that lists them."
    known = {lesson.number: lesson for lesson in lessons.read_all()}
    if unknown := [n for n in numbers if n not in known]:
        sys.exit(f"there is no lesson {', '.join(unknown)}; there are {', '.join(known)}")
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ASSETS / "reveal", OUT / "reveal")
    shutil.copy(ASSETS / "slides.css", OUT)
    made = [known[n] for n in numbers or TAUGHT]
    for lesson in made:
        (OUT / f"{lesson.path.stem}.html").write_text(deck_page(lesson), encoding="utf-8")
    (OUT / "figures.html").write_text(figure_sheet(), encoding="utf-8")
    links = (f'<a href="{lesson.path.stem}.html">{lesson.number} {html.escape(lesson.title)}</a>'
             for lesson in made)
    items = "".join(f"<li>{link}</li>" for link in links)
    figures = '<p><a href="figures.html">All figures, to be printed</a></p>'
    listing = f' class="sheet"><h1>Slides</h1><ul>{items}</ul>{figures}'
    index = page("Slides of annotated-mpnet", listing)
    (OUT / "index.html").write_text(index, encoding="utf-8")
    print(f"{len(made)} lessons; open _slides/index.html "
          "(arrow keys to turn, S for the speaker's notes, ?print-pdf to print)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
