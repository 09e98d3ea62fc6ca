"""The interactive figure of lesson 05, in a browser: it shows `two_stream_mask`."""
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from annotated_mpnet.attention import two_stream_mask
from annotated_mpnet.configuration import OBJECTIVES

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "annotated_mpnet" / "course" / "two_stream_figure.html"
LESSON = ROOT / "nbs" / "05_two_stream_attention.ipynb"
T, P = 9, 3  # of the lesson's sentence
SIZES = (1, 3, 5)
PHONE = {"width": 390, "height": 844}
BLOCKS = {  # of the keys
    "mlm": ["context", "mask"],
    "plm": ["context", "target"],
    "mpnet": ["context", "target", "mask"],
}


@cache
def saved_figure() -> str:
    "The HTML that is saved in the lesson."
    cells = nbformat.read(LESSON, as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.get("data", {}) for output in outputs]
    found = [kinds["text/html"] for kinds in data if "text/html" in kinds]
    assert len(found) == 1, "the lesson has one interactive figure"
    return found[0]


@pytest.fixture
def open_figure(browser):
    "A function that opens a page with the figure; nothing is fetched, and no error is logged."
    problems, contexts = [], []

    def heard(message):
        if message.type == "error":
            problems.append(message.text)

    def opened(style: str = "", html: str | None = None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", heard)
        page.on("request", lambda request: problems.append(f"asked for {request.url}"))
        head = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
        body = f'<body style="font-family: sans-serif; {style}">'
        page.set_content(head + body + (html or saved_figure()))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def set_figure(page, objective: str, p: int) -> None:
    page.locator(f"[value={objective}]").check()
    page.get_by_label("predicted tokens").select_option(str(p))


def token(i: int) -> str: # a selector
    "The button of a row's token."
    return f"button.token[data-row='{i}']"


def seen_keys(page, n_keys: int) -> list[int]:
    "Which keys are filled: 1 where the chosen row sees it, as the token buttons show it."
    filled = "(e) => ['context', 'target', 'mask'].some((kind) => e.classList.contains(kind))"
    return [int(page.locator(token(i)).evaluate(filled)) for i in range(n_keys)]


def table_cells(page) -> list[list[int]]:
    return page.evaluate("""
        [...document.querySelectorAll('tr[data-row]')].map((row) =>
            [...row.querySelectorAll('td')].map((cell) => Number(cell.className !== '')))""")


def numbers(colour: str) -> list[float]:
    "Red, green and blue of a colour as the browser writes it."
    return [float(x) for x in re.findall(r"[\d.]+", colour)[:3]]


def colours(page, selector: str) -> tuple[list[float], list[float]]:
    "The colour of the text of an element and of the first ground below it."
    script = """(selector) => {
        let e = document.querySelector(selector);
        const ink = getComputedStyle(e).color;
        while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
        return [ink, e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)'];
    }"""
    ink, ground = page.evaluate(script, selector)
    return numbers(ink), numbers(ground)


def luminance(rgb: list[float]) -> float:
    "Of an sRGB colour, as WCAG 2 defines it, from 0 to 1."
    shares = [x / 255 for x in rgb]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a: list[float], b: list[float]) -> float:
    "The contrast of two sRGB colours as WCAG 2 defines it, from 1 to 21."
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_saved_figure_is_the_template_with_data():
    before, after = TEMPLATE.read_text(encoding="utf-8").split("DATA</script>")
    saved = saved_figure()
    changed = "the template has changed: run `make notebooks NB=05`"
    assert saved.startswith(before) and saved.endswith(after), changed
    fetches = re.search(r"https?:|\bsrc=|\bfetch\(|\bimport\b", saved)
    assert not fetches, "the figure fetches nothing"


@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_its_cells_are_two_stream_mask(open_figure, objective, p):
    page, sees = open_figure(), two_stream_mask(T - p, p, objective).int()
    set_figure(page, objective, p)
    assert table_cells(page) == sees.tolist()
    rows = page.locator("button.token")
    assert rows.count() == len(sees)
    for i, row in enumerate(sees.tolist()):
        page.locator(token(i)).focus()
        assert seen_keys(page, len(row)) == row, f"row {i}"
        assert page.locator("button.token[aria-pressed=true]").get_attribute("data-row") == str(i)


CLASSES = """(n) => [...Array(n).keys()]
    .map((i) => document.querySelector(`button.token[data-row='${i}']`).className)"""


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_key_has_the_colour_of_its_kind(open_figure, objective):
    page = open_figure()
    set_figure(page, objective, P)
    kinds = [k for k in BLOCKS[objective] for _ in range(T - P if k == "context" else P)]
    for i, row in enumerate(two_stream_mask(T - P, P, objective).tolist()):
        page.locator(token(i)).focus()
        shown = page.evaluate(CLASSES, len(row))
        assert shown == [f"token {k}" if seen else "token" for k, seen in zip(kinds, row)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_it_says_is_what_the_mask_says(open_figure, objective):
    page, sees = open_figure(), two_stream_mask(T - P, P, objective)
    set_figure(page, objective, P)
    said = page.get_by_role("status")
    for i, row in enumerate(sees):
        page.locator(token(i)).focus()
        context, rest = row[:T - P], row[T - P:].view(-1, P)
        words = context.sum() + (rest[0].sum() if objective != "mlm" else 0)
        places = context.sum() + rest.any(0).sum()
        knows = f"knows {words} of {T} tokens, and looks at {places} of {T} places"
        assert knows in said.inner_text()
        assert page.locator(".sentence li", has_text="–").count() == T - places
        sentences = [line for line in said.inner_text().split("\n")
                     if line.startswith(("Sees", "Does not see"))]
        for rank in range(P):
            for kind, block in zip(BLOCKS[objective][1:], rest):
                sentence = next(line for line in sentences if f"{kind} {rank} " in line)
                assert sentence.startswith("Sees") == bool(block[rank]), sentence


FOCUSED = """(() => {
    const e = document.activeElement;
    return e.value || e.getAttribute('aria-label') || e.innerText;
})()"""
FOCUSED_STYLE = "getComputedStyle(document.activeElement)"


def test_by_keyboard_alone(open_figure):
    page = open_figure()
    focused = lambda: page.evaluate(FOCUSED)
    press = page.keyboard.press
    press("Tab")
    assert focused() == "mpnet"
    for objective in ("mlm", "plm"):  # the arrows go round, as in every group of radio buttons
        press("ArrowRight")
        assert focused() == objective
        assert table_cells(page) == two_stream_mask(T - P, P, objective).int().tolist()
    press("ArrowRight")
    press("Tab")
    press("ArrowDown")
    assert table_cells(page) == two_stream_mask(T - 4, 4).int().tolist()
    press("ArrowUp")
    press("Tab")
    assert "previous" in focused()
    press("Tab")
    for step in (2, 3, 1):  # the first is chosen at the start, and comes after the last
        press("Enter")
        assert page.locator(".step").inner_text() == f"prediction {step} of {P}"
        assert seen_keys(page, T + P) == two_stream_mask(T - P, P)[T + P + step - 1].int().tolist()
    press("Tab")
    assert focused().startswith("context 0")
    assert page.evaluate(f"{FOCUSED_STYLE}.outlineStyle") == "solid", "the focus must be seen"
    rows = two_stream_mask(T - P, P).int().tolist()
    for i, row in enumerate(rows):
        assert seen_keys(page, T + P) == row, f"row {i}"
        press("Tab" if i % 2 else "ArrowRight")
    press("Home")
    assert focused().startswith("context 0") and seen_keys(page, T + P) == rows[0]
    press("End")
    assert focused().startswith(f"query {P - 1}") and seen_keys(page, T + P) == rows[-1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_go_through_the_predictions(open_figure, objective):
    page, sees = open_figure(), two_stream_mask(T - P, P, objective).int()
    set_figure(page, objective, P)
    page.locator("button.token").first.focus()
    for rank in range(P):
        page.get_by_role("button", name="next prediction").click()
        assert page.locator(".step").inner_text() == f"prediction {rank + 1} of {P}"
        assert "It is to predict" in page.get_by_role("status").inner_text()
        assert seen_keys(page, sees.shape[1]) == sees[len(sees) - P + rank].tolist()
    page.get_by_role("button", name="previous prediction").click()
    assert page.locator(".step").inner_text() == f"prediction {P - 1} of {P}"


def test_by_mouse(open_figure):
    page, sees = open_figure(), two_stream_mask(T - P, P).int()
    for i in (T - 1, T + P + 1, 0):
        page.locator(token(i)).hover()
        assert seen_keys(page, T + P) == sees[i].tolist()
    page.locator("tr[data-row='7'] td").first.hover()
    assert seen_keys(page, T + P) == sees[7].tolist()


def test_on_a_phone(open_figure):
    page = open_figure(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    for p in (P, 5):  # 5 makes the widest table
        set_figure(page, "mpnet", p)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        sees = two_stream_mask(T - p, p).int()
        for i in (T - 1, len(sees) - 1):
            page.locator(token(i)).tap()
            assert seen_keys(page, T + p) == sees[i].tolist()
    sizes = page.evaluate("""
        [...document.querySelectorAll('figure button, figure select, figure label')]
            .map((e) => e.getBoundingClientRect()).map((box) => [box.width, box.height])""")
    too_small = "WCAG 2.2: a target is at least 24 pixels wide and high"
    assert min(min(size) for size in sizes) >= 24, too_small


STYLES = {"light": "background: #ffffff; color: #212529",
          "dark": "background: #222222; color: #eeeeee"}
SEEN = (
    ".about", ".step", ".says p", "figcaption", "th:not(:empty)", "button.next",
    "button.token:not(.context) span", "button.token.context span", "button.token.mask small",
    ".sentence .mask span",
)


@pytest.mark.parametrize("style", STYLES.values(), ids=list(STYLES))
def test_text_and_frames_can_be_seen(open_figure, style):
    page = open_figure(style)
    for selector in SEEN:
        assert contrast(*colours(page, selector)) >= 4.5, selector
    page.locator(token(8)).focus()  # a target that sees targets
    assert contrast(*colours(page, "button.token.target span")) >= 4.5
    outline = numbers(page.evaluate(f"{FOCUSED_STYLE}.outlineColor"))
    assert contrast(outline, colours(page, "figure")[1]) >= 3


def test_it_has_names_and_says_changes(open_figure):
    page = open_figure()
    assert page.get_by_role("group", name="Interactive figure").count() == 1
    assert page.get_by_role("radio").count() == 3
    assert page.get_by_role("combobox", name="predicted tokens").count() == 1
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    label = "(all) => all.map((e) => e.getAttribute('aria-label'))"
    names = page.locator("button.token").evaluate_all(label)
    assert all(names) and len(set(names)) == len(names), "each token has a name of its own"
    before = page.get_by_role("status").inner_text()
    page.get_by_role("button", name="target 2").click()
    after = page.get_by_role("status").inner_text()
    assert after != before and "Target 2, “##ence”" in after


def test_the_template_alone_does_nothing(open_figure):
    page = open_figure(html=TEMPLATE.read_text(encoding="utf-8"))
    assert page.get_by_text("This figure needs JavaScript").is_visible()
    assert page.locator("button.token").count() == 0


def test_two_copies_on_a_page_do_not_meddle(open_figure):
    page = open_figure(html=saved_figure() * 2)
    page.locator("[value=mlm]").first.check()
    assert page.locator("figure").nth(1).locator("[value=mpnet]").is_checked()
    assert page.locator("figure").nth(1).locator("tr[data-row]").count() == T + 2 * P


def test_without_javascript_it_says_so(open_figure):
    page = open_figure(java_script_enabled=False)
    assert page.get_by_text("This figure needs JavaScript").is_visible()
    assert not page.get_by_role("radio").first.is_visible()


SPACE = """() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const [whole, about, button] = [".two-stream", ".about", "button.next"].map(box);
    return [about.left - whole.left, whole.right - about.right, button.top - about.bottom];
}"""


@pytest.mark.parametrize("width", [390, 1300])
def test_on_the_site_its_text_keeps_its_distance(open_figure, width):
    "The site's own rules for paragraphs of figures don't reach into it."
    css = (ROOT / "docs/assets/site.css").read_text(encoding="utf-8")
    rules = re.sub(r"@font-face \{.*?\}", "", css)
    html = f'<style>{rules}</style><article style="padding: 0 20px">{saved_figure()}</article>'
    page = open_figure(html=html, viewport={"width": width, "height": 900})
    left, right, below = page.evaluate(SPACE)
    assert left >= 0 and right >= 0 and below >= 8
    title = page.locator(".title").first
    assert title.evaluate("e => getComputedStyle(e).borderBottomWidth") == "0px"
