"""`make slides`: the slides and the sheet of figures are made from the notebooks, are whole, and need no network."""
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


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    "The folder with the slides of lessons 00 to 06."
    out = tmp_path_factory.mktemp("made") / "_slides"
    program = f"import sys; sys.path.insert(0, 'tools'); import pathlib, make_slides; make_slides.OUT = pathlib.Path({str(out)!r}); sys.exit(make_slides.main([]))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    return out


@pytest.fixture
def open_page(browser, slides):
    "A function that opens one of the pages, offline; nothing may be missing, and no error may be logged."
    problems, context = [], browser.new_context(viewport={"width": 1280, "height": HEIGHT}, offline=True)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or problems.append(f"asked for {request.url}"))

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
    assert text.count("data:image/png") == len(lesson.figures) and all(f.png.strip() in text for f in lesson.figures)
    prose = [c.source for c in nbformat.read(lesson.path, as_version=4).cells if c.cell_type == "markdown"]
    for heading in re.findall(r"^#{2,3} ([\w ,]+)$", "\n\n".join(prose), re.MULTILINE):
        assert f"<h2>{heading}</h2>" in text, heading
    assert text.count("<summary>Solution</summary>") == len(lesson.exercises)
    assert not re.search(r"\$[^$\n<]{1,40}\$|FORMULA\d+END", re.sub(r"<pre.*?</pre>|<code.*?</code>|<script.*?</script>", "", text, flags=re.DOTALL)), "a formula is left as TeX"
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text.replace('href="https://', "")), "a slide fetches nothing"


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
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0 && i.alt)")
    assert page.evaluate("typeof RevealNotes") == "function" and page.locator("aside.notes").count() > 0


def test_the_interactive_figure_works_on_its_slide(open_page, slides):
    page = open_page(next(slides.glob("05_*.html")).name)
    slide = page.evaluate("[...document.querySelectorAll('.slides > section')].findIndex((s) => s.querySelector('.two-stream'))")
    page.evaluate("(i) => Reveal.slide(i)", slide)
    page.locator("button.token").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == slide, "its keys don't turn the slide"
    assert page.locator("button.token[aria-pressed=true]").get_attribute("data-row") == "1"
    page.get_by_role("button", name="next prediction").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.evaluate("Reveal.getIndices().h") == slide and page.locator(".step").inner_text() == "prediction 2 of 3"


def test_the_sheet_holds_every_figure(open_page):
    page = open_page("figures.html")
    expected = [figure for lesson in lessons.read_all() for figure in lesson.figures]
    assert page.locator("figure img").count() == page.locator("figcaption").count() == len(expected) > 0
    assert page.locator("img").evaluate_all("(all) => all.map((i) => i.alt)") == [figure.alt for figure in expected]
    page.emulate_media(media="print")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000


def test_formulas_links_and_long_paragraphs():
    assert "<math" in make_slides.to_html("a $x^2$ b") and "$" not in make_slides.to_html("$$\\sum_i x_i$$")
    assert "<code>$HOME</code>" in make_slides.to_html("`$HOME` and `$x$`").replace("<code>$x$</code>", "")
    assert 'href="../nbs/03_permutation.ipynb"' in make_slides.to_html("[three](03_permutation.ipynb)")
    long = "One sentence of some length that says what matters, and which has more than enough words. " + "Another one. " * 30
    assert len(make_slides.shorten(long)) <= make_slides.SPOKEN and long.startswith(make_slides.shorten(long))
    assert make_slides.shorten("- a\n- list" * 50) == "- a\n- list" * 50


def test_unknown_lessons_are_refused():
    with pytest.raises(SystemExit, match="there is no lesson 99; there are 00, 01"):
        make_slides.main(["99"])
