"""The interactive figure of lesson 05, in a browser: what it shows is `two_stream_mask`, by mouse, keyboard and finger."""
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
BLOCKS = {"mlm": ["context", "mask"], "plm": ["context", "target"], "mpnet": ["context", "target", "mask"]}  # of the keys


@cache
def saved_figure() -> str:
    "The HTML that is saved in the lesson."
    cells = nbformat.read(LESSON, as_version=4).cells
    found = [o.data["text/html"] for c in cells if c.cell_type == "code" for o in c.outputs if "text/html" in o.get("data", {})]
    assert len(found) == 1, "the lesson has one interactive figure"
    return found[0]


@pytest.fixture
def open_figure(browser):
    "A function that opens a page with the figure, offline; nothing may be asked of a network, and no error may be logged."
    problems, contexts = [], []

    def opened(style: str = "", html: str | None = None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda request: problems.append(f"asked for {request.url}"))
        head = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
        page.set_content(f'{head}<body style="font-family: sans-serif; {style}">{html or saved_figure()}')
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def set_figure(page, objective: str, p: int) -> None:
    page.locator(f"[value={objective}]").check()
    page.get_by_label("predicted tokens").select_option(str(p))


def seen_keys(page, n_keys: int) -> list[int]:
    "Which keys are filled: 1 where the chosen row sees it, as the token buttons show it."
    filled = "(e) => ['context', 'target', 'mask'].some((kind) => e.classList.contains(kind))"
    return [int(page.locator(f"button.token[data-row='{i}']").evaluate(filled)) for i in range(n_keys)]


def table_cells(page) -> list[list[int]]:
    return page.evaluate("[...document.querySelectorAll('tr[data-row]')].map((r) => [...r.querySelectorAll('td')].map((c) => Number(c.className !== '')))")


def colours(page, selector: str) -> tuple[list[float], list[float]]:
    "The colour of the text of an element and of the first ground below it."
    script = """(selector) => {
        let e = document.querySelector(selector);
        const ink = getComputedStyle(e).color;
        while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
        return [ink, e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)'];
    }"""
    return tuple([float(x) for x in re.findall(r"[\d.]+", colour)[:3]] for colour in page.evaluate(script, selector))


def contrast(a: list[float], b: list[float]) -> float:
    "The contrast of two sRGB colours as WCAG 2 defines it, from 1 to 21."
    linear = lambda c: c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
    light, dark = sorted((sum(w * linear(c) for w, c in zip((0.2126, 0.7152, 0.0722), rgb)) for rgb in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_saved_figure_is_the_template_with_data():
    before, after = TEMPLATE.read_text(encoding="utf-8").split("DATA</script>")
    saved = saved_figure()
    assert saved.startswith(before) and saved.endswith(after), "the template has changed: run `make notebooks NB=05`"
    assert not re.search(r"https?:|\bsrc=|\bfetch\(|\bimport\b", saved), "the figure fetches nothing"


@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_its_cells_are_two_stream_mask(open_figure, objective, p):
    page, sees = open_figure(), two_stream_mask(T - p, p, objective).int()
    set_figure(page, objective, p)
    assert table_cells(page) == sees.tolist()
    rows = page.locator("button.token")
    assert rows.count() == len(sees)
    for i, row in enumerate(sees.tolist()):
        page.locator(f"button.token[data-row='{i}']").focus()
        assert seen_keys(page, len(row)) == row, f"row {i}"
        assert page.locator("button.token[aria-pressed=true]").get_attribute("data-row") == str(i)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_key_has_the_colour_of_its_kind(open_figure, objective):
    page = open_figure()
    set_figure(page, objective, P)
    kinds = [k for k in BLOCKS[objective] for _ in range(T - P if k == "context" else P)]
    for i, row in enumerate(two_stream_mask(T - P, P, objective).tolist()):
        page.locator(f"button.token[data-row='{i}']").focus()
        shown = page.evaluate("(n) => [...Array(n).keys()].map((i) => document.querySelector(`button.token[data-row='${i}']`).className)", len(row))
        assert shown == [f"token {k}" if seen else "token" for k, seen in zip(kinds, row)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_it_says_is_what_the_mask_says(open_figure, objective):
    page, sees = open_figure(), two_stream_mask(T - P, P, objective)
    set_figure(page, objective, P)
    said = page.get_by_role("status")
    for i, row in enumerate(sees):
        page.locator(f"button.token[data-row='{i}']").focus()
        context, rest = row[:T - P], row[T - P:]
        words = context.sum() + (rest[:P].sum() if objective != "mlm" else 0)
        places = context.sum() + rest.view(-1, P).any(0).sum()
        assert f"knows {words} of {T} tokens, and looks at {places} of {T} places" in said.inner_text()
        assert page.locator(".sentence li", has_text="–").count() == T - places
        for rank in range(P):
            for kind, block in zip([k for k in BLOCKS[objective] if k != "context"], rest.view(-1, P)):
                sentence = next(s for s in said.inner_text().split("\n") if f"{kind} {rank} " in s and s.startswith(("Sees", "Does not see")))
                assert sentence.startswith("Sees") == bool(block[rank]), sentence


def test_by_keyboard_alone(open_figure):
    page = open_figure()
    focused = lambda: page.evaluate("document.activeElement.value || document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
    press = page.keyboard.press
    press("Tab")
    assert focused() == "mpnet"
    for objective in ("mlm", "plm"):  # the arrows go round, as they do in every group of radio buttons
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
    for step in (2, 3, 1):  # the first prediction is chosen at the start, and after the last comes the first
        press("Enter")
        assert page.locator(".step").inner_text() == f"prediction {step} of {P}"
        assert seen_keys(page, T + P) == two_stream_mask(T - P, P)[T + P + step - 1].int().tolist()
    press("Tab")
    assert focused().startswith("context 0")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus must be seen"
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
        page.locator(f"button.token[data-row='{i}']").hover()
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
            page.locator(f"button.token[data-row='{i}']").tap()
            assert seen_keys(page, T + p) == sees[i].tolist()
    sizes = page.evaluate("[...document.querySelectorAll('figure button, figure select, figure label')].map((e) => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])")
    assert min(min(size) for size in sizes) >= 24, "WCAG 2.2: a target is at least 24 pixels wide and high"


@pytest.mark.parametrize("style", ["background: #ffffff; color: #212529", "background: #222222; color: #eeeeee"], ids=["light", "dark"])
def test_text_and_frames_can_be_seen(open_figure, style):
    page = open_figure(style)
    for selector in (".about", ".step", ".says p", "figcaption", "th:not(:empty)", "button.next", "button.token:not(.context) span",
                     "button.token.context span", "button.token.mask small", ".sentence .mask span"):
        assert contrast(*colours(page, selector)) >= 4.5, selector
    page.locator("button.token[data-row='8']").focus()  # a target that sees targets
    assert contrast(*colours(page, "button.token.target span")) >= 4.5
    outline = [float(x) for x in re.findall(r"[\d.]+", page.evaluate("getComputedStyle(document.activeElement).outlineColor"))[:3]]
    assert contrast(outline, colours(page, "figure")[1]) >= 3


def test_it_has_names_and_says_changes(open_figure):
    page = open_figure()
    assert page.get_by_role("group", name="Interactive figure").count() == 1
    assert page.get_by_role("radio").count() == 3 and page.get_by_role("combobox", name="predicted tokens").count() == 1
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    names = page.locator("button.token").evaluate_all("(all) => all.map((e) => e.getAttribute('aria-label'))")
    assert all(names) and len(set(names)) == len(names), "each token has a name of its own"
    before = page.get_by_role("status").inner_text()
    page.get_by_role("button", name="target 2").click()
    assert page.get_by_role("status").inner_text() != before and "Target 2, “##ence”" in page.get_by_role("status").inner_text()


def test_the_template_alone_does_nothing(open_figure):
    page = open_figure(html=TEMPLATE.read_text(encoding="utf-8"))
    assert page.get_by_text("This figure needs JavaScript").is_visible() and page.locator("button.token").count() == 0


def test_two_copies_on_a_page_do_not_meddle(open_figure):
    page = open_figure(html=saved_figure() * 2)
    page.locator("[value=mlm]").first.check()
    assert page.locator("figure").nth(1).locator("[value=mpnet]").is_checked()
    assert page.locator("figure").nth(1).locator("tr[data-row]").count() == T + 2 * P


def test_without_javascript_it_says_so(open_figure):
    page = open_figure(java_script_enabled=False)
    assert page.get_by_text("This figure needs JavaScript").is_visible()
    assert not page.get_by_role("radio").first.is_visible()


