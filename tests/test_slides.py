"""`make slides`: slides and the sheet of figures come whole from the notebooks; no network."""
import re
import subprocess
import sys
from pathlib import Path

import lessons
import make_slides
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEIGHT = 720
PROGRAM = """
import pathlib, sys
sys.path.insert(0, "tools")
import make_slides
make_slides.OUT = pathlib.Path(sys.argv[1])
sys.exit(make_slides.main([]))
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    "The folder with the slides of lessons 00 to 06."
    out = tmp_path_factory.mktemp("made") / "_slides"
    subprocess.run([sys.executable, "-c", PROGRAM, str(out)], cwd=ROOT, check=True)
    return out


@pytest.fixture
def open_page(browser, slides):
    "A function that opens a page, offline; nothing may be missing, and no error may be logged."
    context = browser.new_context(viewport={"width": 1280, "height": HEIGHT}, offline=True)
    page, problems = context.new_page(), []

    def on_console(message):
        if message.type == "error":
            problems.append(message.text)

    def on_request(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(f"asked for {request.url}")

    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", on_console)
    page.on("request", on_request)

    def opened(name: str):
        page.goto((slides / name).as_uri())
        return page

    yield opened
    context.close()
    assert problems == []


def test_every_taught_lesson_has_slides(slides):
    made = {p.name.split("_")[0] for p in slides.glob("[0-9]*.html")}
    assert made == set(make_slides.TAUGHT)
    listing = (slides / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{p.name}"' in listing for p in slides.glob("[0-9]*.html"))


@pytest.mark.parametrize("number", make_slides.TAUGHT)
def test_slides_hold_what_the_lesson_says(slides, number):
    lesson = next(x for x in lessons.read_all() if x.number == number)
    text = (slides / f"{lesson.path.stem}.html").read_text(encoding="utf-8")
    assert text.count("data:image/") == len(lesson.figures)
    assert all(f.source in text for f in lesson.figures)
    cells = nbformat.read(lesson.path, as_version=4).cells
    prose = [c.source for c in cells if c.cell_type == "markdown"]
    for heading in re.findall(r"^#{2,3} ([\w ,]+)$", "\n\n".join(prose), re.MULTILINE):
        assert f"<h2>{heading}</h2>" in text, heading
    assert text.count("<summary>Solution</summary>") == len(lesson.exercises)
    code = re.compile(r"<pre.*?</pre>|<code.*?</code>|<script.*?</script>", re.DOTALL)
    tex = re.search(r"\$[^$\n<]{1,40}\$|FORMULA\d+END", code.sub("", text))
    assert not tex, "a formula is left as TeX"
    fetched = re.search(r'(?:src|href)="(?:https?:)?//', text.replace('href="https://', ""))
    assert not fetched, "a slide fetches nothing"


@pytest.mark.parametrize("number", make_slides.TAUGHT)
def test_slides_can_be_shown(open_page, slides, number):
    page = open_page(next(slides.glob(f"{number}_*.html")).name)
    n = page.evaluate("Reveal.getTotalSlides()")
    assert n >= 10
    seen = set()
    for _ in range(n):
        seen.add(page.evaluate("Reveal.getIndices().h"))
        high = page.evaluate("Reveal.getCurrentSlide().scrollHeight")
        assert high <= 1.1 * HEIGHT, f"slide {max(seen)} is {high} pixels high"
        page.keyboard.press("ArrowRight")
    assert seen == set(range(n))
    shown = "i.complete && i.naturalWidth > 0 && i.alt"
    assert page.evaluate(f"[...document.images].every((i) => {shown})")
    assert page.evaluate("typeof RevealNotes") == "function"
    assert page.locator("aside.notes").count() > 0


def test_the_interactive_figure_works_on_its_slide(open_page, slides):
    page = open_page(next(slides.glob("05_*.html")).name)
    slides = "[...document.querySelectorAll('.slides > section')]"
    slide = page.evaluate(f"{slides}.findIndex((s) => s.querySelector('.two-stream'))")
    page.evaluate("(i) => Reveal.slide(i)", slide)
    page.locator("button.token").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == slide, "its keys don't turn the slide"
    assert page.locator("button.token[aria-pressed=true]").get_attribute("data-row") == "1"
    page.get_by_role("button", name="next prediction").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.evaluate("Reveal.getIndices().h") == slide
    assert page.locator(".step").inner_text() == "prediction 2 of 3"


def test_the_sheet_holds_every_figure(open_page):
    page = open_page("figures.html")
    expected = [figure for lesson in lessons.read_all() for figure in lesson.figures]
    count = lambda selector: page.locator(selector).count()
    assert count("figure img") == count("figcaption") == len(expected) > 0
    alternatives = page.locator("img").evaluate_all("(all) => all.map((i) => i.alt)")
    assert alternatives == [figure.alt for figure in expected]
    page.emulate_media(media="print")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000


def test_formulas_links_and_long_paragraphs():
    to_html, shorten = make_slides.to_html, make_slides.shorten
    assert "<math" in to_html("a $x^2$ b") and "$" not in to_html("$$\\sum_i x_i$$")
    code = to_html("`$HOME` and `$x$`").replace("<code>$x$</code>", "")
    assert "<code>$HOME</code>" in code
    assert 'href="../nbs/03_permutation.ipynb"' in to_html("[three](03_permutation.ipynb)")
    first = ("One sentence of some length that says what matters, "
             "and which has more than enough words. ")
    long = first + "Another one. " * 30
    assert len(shorten(long)) <= make_slides.SPOKEN and long.startswith(shorten(long))
    assert shorten("- a\n- list" * 50) == "- a\n- list" * 50


def test_unknown_lessons_are_refused():
    with pytest.raises(SystemExit, match="there is no lesson 99; there are 00, 00b, 00c, 01"):
        make_slides.main(["99"])
