"""The explorer as a reader meets it: by mouse, keyboard and touch, on a phone, from a link."""
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from test_explorer import laid_out, with_objective

from annotated_mpnet.attention import two_stream_mask
from annotated_mpnet.huggingface import from_huggingface
from explorer_model import MODEL

ROOT = Path(__file__).resolve().parents[1]
AXE = ROOT / "tests/fixtures/axe/axe.min.js"
VIEWS = re.findall(r'data-explorer="(\w+)"', (ROOT / "docs/explorer.md").read_text("utf-8"))
OBJECTIVES = ("mlm", "plm", "mpnet")  # from left to right
HEAD = """<!doctype html><html lang="en"><head><title>Explorer</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/site.css">"""
TEXT = "This routine should be called exactly once."
STATE = f"#s={TEXT.replace(' ', '+')}&hide=2,3,4"


def whole() -> str:
    "The page's headings and views, without the shell of the site."
    lines = (ROOT / "docs/explorer.md").read_text("utf-8").splitlines()
    parts = [f"<h2>{line[3:]}</h2>" if line.startswith("## ") else line for line in lines
             if line.startswith(("<", "## "))]
    return f"{HEAD}</head><body><main><h1>Explorer</h1>{''.join(parts)}</main></body></html>"


class Pages(SimpleHTTPRequestHandler):
    "The files of docs/, and the page."
    def do_GET(self):
        if self.path != "/explorer.html":
            return super().do_GET()
        body = whole().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    handler = partial(Pages, directory=str(ROOT / "docs"))
    shown = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=shown.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{shown.server_address[1]}/"
    shown.shutdown()


@pytest.fixture
def visit(browser, address):
    "A function that opens the page in some state; no error, and no request to another host."
    contexts, problems = [], []

    def heard(message):
        if message.type in ("error", "warning"):
            problems.append(message.text)

    def asked(request):
        if not request.url.startswith((address, "data:")):
            problems.append(request.url)

    def opened(state: str = STATE, step: int = 0, **options):
        size = {"viewport": {"width": 1300, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**size, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", asked)
        page.goto(f"{address}explorer.html{state}{f'&step={step}' if step else ''}")
        page.wait_for_selector(".lanes .bars" if step else ".lane", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def truths():
    "The log-probabilities of the true words of STATE, by PyTorch."
    tokenizer = from_huggingface(MODEL)[1]
    ids, predicted = tokenizer(TEXT)["input_ids"], [3, 4, 5]
    def of(objective: str, order: list[int] = predicted, biases: float = 1) -> list[float]:
        model = with_objective(objective)
        batch = laid_out(ids, order, objective, tokenizer.mask_token_id)
        with torch.no_grad():
            model.mpnet.encoder["relative_attention_bias"].weight *= biases
            logs = model(**batch)[0, :, :len(tokenizer)].log_softmax(-1)
        return [logs[rank, ids[at]].item() for rank, at in enumerate(order)]
    return of


def view(page, name: str):
    "A view, brought to the screen, so that it is drawn."
    found = page.locator(f"[data-explorer={name}]")
    found.scroll_into_view_if_needed()
    page.wait_for_selector(f"[data-explorer={name}].explorer:not([data-stale=true])")
    return found


def last_row(found) -> list[float]:
    "The numbers of the last row of a table, without what stands in brackets."
    cells = found.locator("tbody tr:last-child td").all_inner_texts()
    return [float(re.search(r"[−\d.]+", cell)[0].replace("−", "-")) for cell in cells]


def focused(page) -> str:
    return page.evaluate("document.activeElement.dataset.key")


def test_lanes_step_through_the_predictions(visit, truths):
    page = visit()
    lanes = view(page, "lanes")
    assert lanes.locator(".bars").count() == 0, "the weights are fetched when they are asked for"
    for step in (1, 2, 3):
        lanes.get_by_role("button", name="Next prediction").click()
        page.wait_for_selector(f".step:has-text('prediction {step} of 3')")
        assert lanes.locator(".bars").count() == 3
        assert lanes.locator(".bars .true").count() == 3, "the true word stands in every lane"
    for shown, objective in zip(last_row(lanes), OBJECTIVES):
        assert shown == pytest.approx(sum(truths(objective)), abs=0.006)
    assert lanes.get_by_role("button", name="Next prediction").is_disabled()
    lanes.get_by_role("button", name="Back").click()
    assert "prediction 2 of 3" in lanes.inner_text()


def test_play_goes_to_the_end(visit):
    page = visit()
    page.clock.install(time=0)
    page.clock.pause_at(60_000)  # from here on time passes as the test says
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector(".step:has-text('prediction 1 of 3')")
    assert page.get_by_role("button", name="Pause").is_visible()
    for step in (2, 3):
        page.clock.run_for(2000)
        page.wait_for_selector(f".step:has-text('prediction {step} of 3')")
    assert page.get_by_role("button", name="Play").is_visible()


def test_each_lane_shows_what_its_prediction_sees(visit):
    lanes = view(visit(step=2), "lanes")
    kinds = "all => all.map(e => e.className.replace('token ', ''))"
    rows = [lanes.locator(".tokens").nth(i).locator("li").evaluate_all(kinds) for i in range(3)]
    context = ["context"] * 3, ["context"] * 4
    middle = [["mask", "mask own", "mask"], ["target", "nothing own", "nothing"],
              ["target", "mask own", "mask"]]
    assert rows == [[*context[0], *hidden, *context[1]] for hidden in middle]


def test_words_are_hidden_by_keyboard(visit):
    page = visit()
    word = view(page, "lanes").locator("[data-key=word-0]")
    word.focus()
    assert word.get_attribute("aria-pressed") == "false"
    for pressed, key in (("true", "Space"), ("false", "Enter")):
        page.keyboard.press(key)
        assert word.get_attribute("aria-pressed") == pressed
        assert focused(page) == "word-0", "the focus stays where it was"
    page.get_by_role("textbox", name="Your sentence").fill("Another name.")
    page.keyboard.press("Enter")
    assert view(page, "lanes").locator(".words").inner_text().split() == ["another", "name", "."]


def test_a_link_shows_the_same(visit):
    page = visit()
    view(page, "order").get_by_role("button", name="called: predict it earlier").click()
    view(page, "biases").locator("input[type=range]").fill("0.5")
    view(page, "broken").locator("select").select_option("mask")
    view(page, "lanes").get_by_role("button", name="Next prediction").click()
    page.wait_for_selector(".bars", state="attached")
    page.wait_for_function("location.hash.includes('step=1')")
    hash_of = lambda page: page.evaluate("location.hash")
    again = visit(hash_of(page))
    again.wait_for_selector(".bars", state="attached")
    assert hash_of(again) == hash_of(page) != STATE
    numbers = lambda page, name: view(page, name).locator("table, .bars, .path").all_inner_texts()
    for name in ("lanes", "order", "biases", "broken"):
        assert numbers(again, name) == numbers(page, name), name


@pytest.mark.parametrize("state", [
    "#hide=99,x,-1&order=7,8&step=-3&layer=9&head=-1&mask=bert&row=1000&biases=7&missing=100",
    "#s=&hide=0", "#s=%3Cb%3E+%00%F0%9F%98%80", "#s=" + "word+" * 500, "#hide=0,1,2,3,4,5,6,7,8,9",
    "#how-it-is-made",
])
def test_an_odd_address_breaks_nothing(visit, state):
    page = visit(state)
    for name in VIEWS:
        assert view(page, name).inner_text()
    assert page.locator(".explorer b").count() == 0


def test_order_by_keyboard_and_by_mouse(visit, truths):
    page = visit(step=1)
    order = view(page, "order")
    words = lambda: order.locator(".handle").all_inner_texts()
    order.locator(".handle").first.focus()
    page.keyboard.press("ArrowRight")
    assert words() == ["be", "should", "called"] and focused(page) == "chip-3"
    first, last = (order.locator(".handle").nth(i).bounding_box() for i in (0, 2))
    page.mouse.move(first["x"] + 9, first["y"] + 9)
    page.mouse.down()
    page.mouse.move(last["x"] + 9, last["y"] + 9, steps=3)
    page.mouse.up()
    assert words()[-1] == "be"
    places = [{"should": 3, "be": 4, "called": 5}[word] for word in words()]
    for shown, objective in zip(last_row(order), OBJECTIVES):
        assert shown == pytest.approx(sum(truths(objective, places)), abs=0.006)


def test_order_by_touch(visit):
    phone = {"width": 390, "height": 844}
    page = visit(step=1, viewport=phone, has_touch=True, is_mobile=True)
    handles, fingers = view(page, "order").locator(".handle"), page.context.new_cdp_session(page)
    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [dict(zip("xy", point)) for point in points]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    handles.nth(2).scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # until the page has come to rest
    first, second = (handles.nth(i).bounding_box() for i in (0, 1))
    scrolled = page.evaluate("scrollY")
    (x, y), (to_x, to_y) = ((box["x"] + 20, box["y"] + 15) for box in (first, second))
    touch("touchStart", (x, y))
    for share in (0.3, 0.7, 1):  # a finger that moves once may be a tap
        touch("touchMove", (x + share * (to_x - x), y + share * (to_y - y)))
        page.wait_for_timeout(100)
    touch("touchEnd")
    assert handles.all_inner_texts() == ["be", "should", "called"]
    assert page.evaluate("scrollY") == scrolled, "the page stays where it was"


def test_only_mpnet_knows_how_many_are_missing(visit):
    missing = view(visit(step=1), "missing")
    bars = lambda lane: missing.locator(".lane").nth(lane).locator(".bars").inner_text()
    before = bars(0), bars(1)
    missing.get_by_role("button", name="More").click()
    assert bars(0) == before[0] and bars(1) != before[1]
    missing.get_by_role("checkbox").check()
    ended = bars(0)
    missing.get_by_role("button", name="More").click()
    assert bars(0) != ended, "the end token gives the number away"


def test_pairs_are_probabilities(visit):
    pairs = view(visit("#hide=1,2", step=1), "pairs")  # the lessons' sentence
    rows = [row.inner_text().split("\t") for row in pairs.locator("tbody tr").all()]
    assert rows[0][0] == "the the", "as lesson 00 shows it"
    assert sum("✓" in name for name, *_ in rows) == 1
    shares = [[float(re.search(r"[\d.]+", cell)[0]) for cell in row[1:]] for row in rows]
    assert all(sum(column) < 101 for column in zip(*shares))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_grid_says_what_the_mask_says(visit, objective):
    page = visit()
    grid, sees = view(page, "grid"), two_stream_mask(7, 3, objective)
    grid.locator("select").select_option(objective)
    slider, said = grid.locator("input[type=range]"), grid.get_by_role("status")
    assert int(slider.get_attribute("max")) == len(sees) - 1
    for i in (0, 8, len(sees) - 3, len(sees) - 1):
        slider.fill(str(i))
        seen = sees[i, :7].sum() + (sees[i, 7:10].sum() if objective != "mlm" else 0)
        assert f"It knows {seen} of 10 tokens" in said.inner_text(), i
    filled = grid.locator("svg rect:not(.unseen, .chosen)").count()
    assert filled == sees.sum()
    page.locator("[data-key=grid-4]").first.click()
    assert "position 4" in said.inner_text()


def test_numbers_add_up(visit):
    page = visit(step=1)
    numbers = view(page, "numbers")
    rows = [row.inner_text().split() for row in numbers.locator("tbody tr").all()]
    assert len(rows) == 13 and sum(float(row[-1]) for row in rows) == pytest.approx(1, abs=0.01)
    unseen = [row for row in rows if row[-2] == "−∞"]
    assert len(unseen) == 3 and all(float(row[-1]) == 0 for row in unseen)


def test_without_biases(visit, truths):
    biases = view(visit(step=1), "biases")
    slider = biases.locator("input[type=range]")
    for share in ("0.5", "0"):
        slider.fill(share)
        for shown, objective in zip(last_row(biases), OBJECTIVES):
            expected = sum(truths(objective, biases=float(share)))
            assert shown == pytest.approx(expected, abs=0.006)
    assert "All biases are zero" in biases.inner_text()


LEAKS = """async broken => {
  const {Model} = await import("./assets/explorer/model.js");
  const {load} = await import("./assets/explorer/model.js");
  const model = await load(new URL("assets/explorer/", location));
  const ids = [0, 10, 20, 30, 40, 2], changed = [0, 10, 20, 31, 40, 2];
  return [ids, changed].map(each => [...model.logits(each, [3, 2], "mpnet", {broken})[0]]);
}"""


def test_a_slider_is_dragged(visit):
    page = visit()
    slider = view(page, "grid").locator("input[type=range]")
    box, found = slider.bounding_box(), []
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.6, 0.3, 0.05):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        found.append(int(slider.input_value()))
    page.mouse.up()
    assert found == sorted(found, reverse=True) and len(set(found)) == 3


@pytest.mark.parametrize("broken", ["", "query", "mask"])
def test_an_answer_leaks_only_where_the_rule_is_broken(visit, broken):
    page = visit()
    one, other = page.evaluate(LEAKS, {broken: True} if broken else {})
    assert (one == other) == (not broken)
    shown = view(visit(STATE + (f"&break={broken}" if broken else ""), step=1), "broken")
    assert shown.locator(".path").count() == (3 if broken else 0)


def test_guessing_before_the_model(visit):
    page = visit(step=1)
    challenge = view(page, "challenge")
    assert "be" not in challenge.locator(".tokens").inner_text().split()
    challenge.get_by_role("textbox").fill("Be")
    page.keyboard.press("Enter")
    assert "“be” is right" in challenge.inner_text() and "you 1," in challenge.inner_text()
    page.keyboard.press("Enter")  # the focus is on what comes next
    challenge.get_by_role("textbox").fill("zzzqqq")
    page.keyboard.press("Enter")
    assert "no token of the model's" in challenge.inner_text()
    assert "of 2: you 1," in challenge.inner_text()


def test_examples_fit_the_model(visit):
    script = """async () => {
      const {EXAMPLES, CHALLENGES} = await import("./assets/explorer/examples.js");
      const {cut, open} = await import("./assets/explorer/store.js");
      const {tokenizer} = await open();
      const pieces = ({text, hidden}) => {
        const {words} = cut(tokenizer, text, 64);
        return hidden.map(i => words[i].ids.length);
      };
      return [EXAMPLES.map(pieces), CHALLENGES.map(pieces)];
    }"""
    examples, challenges = visit().evaluate(script)
    assert all(1 < sum(pieces) <= 8 for pieces in examples)
    assert {n for pieces in challenges for n in pieces} == {1}


def test_without_weights_it_says_so_and_can_be_asked_again(browser, address):
    page = browser.new_page()
    page.route("**/weights.bin", lambda route: route.fulfill(status=503))
    page.goto(f"{address}explorer.html{STATE}")
    page.get_by_role("button", name="Next prediction").click()
    page.wait_for_selector(".lanes-status:has-text('The model can\\'t be loaded')")
    page.unroute("**/weights.bin")
    page.get_by_role("button", name="Next prediction").click()
    page.wait_for_selector(".lanes .bars", state="attached")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_accessible_and_whole(visit, width, scheme):
    size = {"width": width, "height": 900}
    page = visit(STATE + "&break=query&biases=0.5&order=5,3,4", step=3, viewport=size,
                 color_scheme=scheme, has_touch=width < 500)
    for name in VIEWS:
        view(page, name)
    view(page, "challenge").get_by_role("button", name="I give up").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(v["id"], v["nodes"][0]["target"]) for v in found] == []
    sizes = page.evaluate("""[...document.querySelectorAll(
        '.explorer :is(button, select, input:not([type=checkbox]))')]
        .map(e => e.getBoundingClientRect()).map(box => Math.min(box.width, box.height))""")
    assert min(sizes) >= 24, "WCAG 2.2: a target is at least 24 pixels wide and high"
