"""The website, as it is built and as a browser shows it: every page, on a phone and on a desk."""
import ast
import gc
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import course
import pytest
import readme
import serve_docs
import site_html
import site_pages
import site_reference
from bs4 import BeautifulSoup, NavigableString, Tag
from questions import QUESTIONS

from annotated_mpnet import arguments
import annotated_mpnet.configuration as c
from annotated_mpnet import watch

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
LESSONS = [p.with_suffix(".html").name for p in NOTEBOOKS]
IN_ORDER = [p.with_suffix(".html").name for p in course.in_order()]  # the core first
FOLDERS = ("nbs", "docs", "tools", "annotated_mpnet")
FILES = ("settings.ini", "pyproject.toml", "README.md", "CHANGELOG.md")
WIDTHS = {"phone": 390, "desk": 1300}
AXE = ROOT / "tests/fixtures/axe/axe.min.js"
# of pages
GUIDES = ("docs/configuration.html", "docs/training.html")
KINDS = ("index.html", LESSONS[5], *GUIDES, "reference/attention.html", "404.html")
SERIOUS = ("serious", "critical")  # the impacts of axe-core that fail


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def cells_of(notebook: Path) -> list[dict]:
    return json.loads(read(notebook))["cells"]


# The build

def start_build(folder: Path) -> subprocess.Popen:
    "Build the site from a copy of the sources, in a folder of its own."
    made = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "tools/build_docs.py"], cwd=folder, env=env, **pipes)


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> list[tuple[Path, str, str, int]]:
    "Two builds of the same sources in two places, at once: folder, output, errors, exit code."
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    running = [start_build(folder) for folder in folders]
    ended = lambda process: (*process.communicate(), process.returncode)
    return [(folder / "_docs", *ended(process)) for folder, process in zip(folders, running)]


@pytest.fixture(scope="module")
def site(builds) -> Path:
    "The built site."
    folder, _, errors, code = builds[0]
    assert code == 0, errors
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, BeautifulSoup]:
    "Every page of the site, parsed."
    paths = sorted(site.rglob("*.html"))
    gc.disable()  # half of the time is spent in search of garbage, of which there is none
    try:
        return {p.relative_to(site).as_posix(): site_html.parse(read(p)) for p in paths}
    finally:
        gc.enable()


def test_builds_without_a_warning(builds):
    for _, said, errors, code in builds:
        assert code == 0 and errors == ""
        assert re.fullmatch(r"\d+ pages, [\d.]+ MB; .*\n", said), said


def test_second_build_is_identical(builds):
    one, two = (folder for folder, *_ in builds)
    files = lambda folder: [path for path in folder.rglob("*") if path.is_file()]
    names = [sorted(p.relative_to(f).as_posix() for p in files(f)) for f in (one, two)]
    assert names[0] == names[1]
    assert [n for n in names[0] if (one / n).read_bytes() != (two / n).read_bytes()] == []


def test_every_lesson_is_a_page_in_order(pages):
    listed = [a["href"] for a in pages["index.html"].select("nav.course a") if a["href"] in LESSONS]
    assert listed == IN_ORDER
    for path, name in zip(NOTEBOOKS, LESSONS):
        title = "".join(cells_of(path)[0]["source"]).splitlines()[0].lstrip("# ")
        facts, kicker = (pages[name].select_one(part).text for part in (".facts", ".kicker"))
        assert pages[name].h1.text == title and path.name.split("_")[0] in kicker
        assert re.search(r"\d+ minutes to read", facts) and "Colab" in facts
        assert pages[name].select_one(".goals") is not None, f"{name}: no goals"


def test_notebooks_can_be_downloaded(site, pages):
    for path, name in zip(NOTEBOOKS, LESSONS):
        link = pages[name].select_one("a[download]")["href"]
        assert (site / link).read_bytes() == path.read_bytes()


def test_html_outputs_pass_unchanged(site, tmp_path, monkeypatch):
    import build_docs
    for path in NOTEBOOKS:
        page = read(site / path.with_suffix(".html").name)
        for cell in cells_of(path):
            for output in cell.get("outputs", []):
                made = "".join(output.get("data", {}).get("text/html", ""))
                assert made in page, f"{path.name}, cell {cell['id']}"
    script, picture = "let a = 1 < 2 && '</b>';", "<svg viewBox='0 0 1 1'><linearGradient/></svg>"
    figure = f"<script>{script}</script>{picture}"
    shown = {"output_type": "display_data", "data": {"text/html": [figure], "text/plain": "x"}}
    cell = {"cell_type": "code", "source": "", "outputs": [shown]}
    (tmp_path / "00_a.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(build_docs, "PROC", tmp_path)
    (mark, kept), = build_docs.set_aside_html().items()
    assert kept == figure and figure not in (tmp_path / "00_a.ipynb").read_text()
    page = str(site_html.parse(f"<main>{mark}</main>"))
    assert page.replace(mark, kept) == f"<main>{figure}</main>"


def test_drawings_and_figures_stand_in_the_open(pages):
    drawings = 0
    for name, page in pages.items():
        assert page.find(id="palette") is None, f"{name}: a drawing with colours of its own"
        assert len(page.select(".title .map svg")) == (name in LESSONS)
        drawings += len(page.select("figure.drawing svg"))
        for figure in page.select("article figure"):
            folded = figure.find_parent("details")
            assert folded is None or folded.summary.text.strip() == "Solution", name
    assert drawings >= 5


# Pages that must agree with something else

def test_readme_and_front_page_come_from_the_same_notebook(pages):
    text, front = read(ROOT / "README.md"), pages["index.html"]
    assert readme.generate()["README.md"].decode() == text
    outside = readme.FENCED.sub("", text)
    headings = [h.text.removesuffix("#") for h in front.select("article h2")]
    assert headings == re.findall(r"^## (.+)$", outside, re.MULTILINE)
    assert front.h1.text == re.search(r"^# (.+)$", outside, re.MULTILINE)[1]
    commands = [p.strip() for p in re.findall(r"```bash\n(.*?)```", text, re.S)]
    assert commands == [e.text.strip() for e in front.select("code.sourceCode.bash")]


def test_map_of_the_course_has_every_lesson(pages):
    "Fails where lessons were added and the front page wasn't made anew: `make notebooks NB=index`."
    links = [a["href"] for a in pages["index.html"].select("#course-map td a")]
    in_order = course.in_order()  # the core first
    assert links == IN_ORDER
    rows = re.findall(r"^\| \[\S+ .+?\]\(nbs/(\S+?)\)", read(ROOT / "README.md"), re.MULTILINE)
    assert rows == [p.name for p in in_order]


def texts(row) -> list[str]:
    "What the cells of a row of a table say."
    return [cell.get_text(" ", strip=True) for cell in row.find_all("td")]


def test_configuration_page_help_and_dataclass_agree(pages):
    rows = pages["docs/configuration.html"].select("table.arguments tbody tr[id]")
    shown = {row["id"]: texts(row) for row in rows}
    assert list(shown) == [c.flag(f.name)[2:] for members in c.groups().values() for f in members]
    actions = arguments.build_parser()._actions
    options = {name: action for action in actions for name in action.option_strings}
    words = lambda text: re.sub(r"\W+", "", text).lower()
    for f in c.FIELDS.values():
        names, kind, default, meaning = shown[c.flag(f.name)[2:]]
        assert names.replace(" ", "").split(",") == list(c.names(f))
        assert kind == c.kind(f).__name__ and default == c.show(f.default)
        assert all(rule in meaning for rule in filter(None, [f.metadata["rule"]]))
        explained = words(f.metadata["help"])
        for name in c.names(f):
            assert explained in words(options[name].help) and explained in words(meaning), name


def test_reference_has_every_public_name(site, pages):
    for path in sorted((ROOT / "annotated_mpnet").glob("[!_]*.py")):
        source = read(path)
        assigned = [s for s in ast.parse(source).body if isinstance(s, ast.Assign)]
        statement = next(s for s in assigned if s.targets[0].id == "__all__")
        page = pages[f"reference/{path.stem}.html"]
        imports = [s for s in ast.parse(source).body if isinstance(s, ast.ImportFrom)]
        elsewhere = {n.name for s in imports for n in s.names} | {"logger"}  # not here
        for name in set(ast.literal_eval(statement.value)) - elsewhere:
            section = page.find(id=name)
            assert section is not None, f"{path.stem}.{name}"
            line = int(re.search(rf"{path.stem}\.py#L(\d+)", str(section))[1])
            defined = re.compile(rf"^((def|class) {name}|{name}|\w.*\b{name}\b.* =)")
            assert defined.search(source.splitlines()[line - 1]), f"{path.stem}.{name}: line {line}"


def test_reference_shows_the_comment_beside_each_parameter(pages):
    section = pages["reference/attention.html"].find(id="two_stream_mask")
    rows = [texts(row) for row in section.select("tbody tr")]
    assert ["n_predicted", "int", "", "P: predicted tokens; T = C + P"] in rows
    assert rows[-1][0] == "returns" and rows[-1][3].startswith("bool (rows, keys), True = attends")


def test_names_in_backticks_lead_to_the_reference(pages):
    codes = [code for page in pages.values() for code in page.select("a.name code")]
    links = [code.parent["href"] for code in codes if code.text == "two_stream_mask"]
    target = "reference/attention.html#two_stream_mask"
    assert links and all(link.endswith(target) for link in links)
    unique = [n for own in site_reference.names().values() for n in own]
    for url, page in pages.items():
        for code in page.select("article code"):
            elsewhere = code.find_parent(["pre", "h1", "h2", "h3", "summary"])
            if unique.count(code.text) == 1 and elsewhere is None:
                assert code.find_parent("a") is not None, f"{url}: {code.text}"


def text_of(node: ast.AST) -> str:
    "The text of a string in the code, with \\0 where a value stands; '' of all else."
    if isinstance(node, ast.JoinedStr):
        return "".join("\0" if isinstance(v, ast.FormattedValue) else v.value for v in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def messages() -> list[str]:
    "Every text of the package that a message may be, with \\0 where a value stands."
    found = []
    for path in (ROOT / "annotated_mpnet").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found.append(re.sub(r"%[ds]", "\0", text_of(node)))
    return [text for text in found if len(text) > 12]


def test_troubleshooting_quotes_messages_that_exist():
    "A quoted line is a message of the package; … stands for values and for what is cut off."
    blocks = re.findall(r"```text\n(.*?)```", read(ROOT / "docs/troubleshooting.md"), re.S)
    quoted = [line for block in blocks for line in block.splitlines()]
    assert len(quoted) > 20
    known = messages()
    values = [re.compile(re.escape(k).replace("\0", ".*"), re.S) for k in known]
    for line in quoted:
        shape = re.compile(re.escape(line).replace("…", ".*"), re.S)
        found = any(map(shape.search, known)) or any(v.search(line) for v in values)
        assert found, f"no message reads {line!r}"


def test_guides_name_arguments_that_exist():
    converter = "--help --short --output --checkpoint --with-code --no-save-tokenizer --part"
    torchrun = "--standalone --nproc-per-node --max-restarts"
    ours = {c.flag(n) for n in c.FIELDS} | {*converter.split(), *torchrun.split()}
    checked = ("training", "architecture", "troubleshooting")
    for path in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", path.read_text(encoding="utf-8")):
            known = name in ours or name.replace("_", "-") in ours or f"--{name[5:]}" in ours
            assert known or path.stem not in checked, f"{path.name}: {name}"


# What reads badly, each found once on a page

def test_names_with_underscores_are_whole(pages):
    reference = [page for url, page in pages.items() if url.startswith("reference/")]
    headings = [h for page in reference for h in page.select("article h2, article h3")]
    assert "MaskedPermutedCollator.__call__" in {h.get_text().removesuffix("#") for h in headings}
    assert not any(h.select("strong, em") for h in headings)


def prose(part) -> str: # an element
    "The words of a page without code and formulas."
    if not isinstance(part, Tag):
        return part if type(part) is NavigableString else ""
    if part.name in site_html.UNTOUCHED or "cell-output-display" in part.get("class", []):
        return ""
    return "".join(map(prose, part.children))


def test_no_markup_and_no_dash_in_place_of_an_argument(pages):
    wrong = re.compile(r"`|\*\*|\]\(|(?<![\w ])–[a-z]| –[a-z]+-[a-z]")
    found = {}
    for url, page in pages.items():
        text = prose(page.select_one("article"))
        found[url] = [text[max(0, m.start() - 30):m.end() + 30] for m in wrong.finditer(text)]
    assert {url: lines for url, lines in found.items() if lines} == {}


def test_what_is_printed_in_pieces_is_one_output(site, pages, tmp_path, monkeypatch):
    import build_docs
    for url in LESSONS:
        for cell in pages[url].select("div.cell"):
            outputs = cell.select(".cell-output")
            kinds = ["cell-output-stdout" in e.get("class", []) for e in outputs]
            assert not any(a and b for a, b in zip(kinds, kinds[1:])), f"{url}, {cell.get('id')}"
    stream = lambda name, text: {"output_type": "stream", "name": name, "text": text}
    outputs = [stream("stdout", ["a\n", "b"]), stream("stdout", "c\n")]
    outputs += [stream("stderr", "d"), stream("stdout", "e")]
    code = {"cell_type": "code", "source": "", "outputs": outputs}
    prose = {"cell_type": "markdown", "source": "x"}
    (tmp_path / "00_a.ipynb").write_text(json.dumps({"cells": [code, prose]}))
    monkeypatch.setattr(build_docs, "PROC", tmp_path)
    build_docs.join_streams()
    joined = json.loads((tmp_path / "00_a.ipynb").read_text())["cells"]
    found = [(o["name"], "".join(o["text"])) for o in joined[0]["outputs"]]
    assert found == [("stdout", "a\nbc\n"), ("stderr", "d"), ("stdout", "e")]
    assert "outputs" not in joined[1]


def test_index_of_a_function_stays_with_it():
    for tex, n in ((r"\max_i p_i", 2), (r"\log_2 x", 2), (r"\max\nolimits_i^2 p", 3)):
        math = site_html.parse(site_html.mathml(tex, False))
        script = math.find(["msub", "msubsup", "munder"])
        assert len(script.find_all(True, recursive=False)) == n, str(math)
        assert script.find_next_sibling().name == "mspace"


COMMAND = "pretrain-mpnet --demo --total-updates 200 --batch-size 8"
WEIGHT = "mpnet.encoder.layer.0.attention.attn.q.weight"
FORMULA = r"<span class='math inline'>\({}\)</span>"
BREAKS = f"""<main>
<p>the ({FORMULA.format("r")}), {FORMULA.format("t")}-th word of 15 % in lesson 05
{FORMULA.format("s")}
ends</p>
<p><code>--a-short-one</code> <code>{COMMAND}</code> <code>{WEIGHT}</code></p>
<table><tr><td><code>annotated_mpnet.tokenization</code></td></tr></table>
</main>"""


def test_lines_end_where_they_may():
    main = site_html.parse(BREAKS).main
    site_html.draw_formulas(main)
    site_html.keep_numbers(main)
    site_html.link_names(main, "x.html", "", {}, set())
    formulas = [f.get_text().replace("\n", "") for f in main.select(".formula")]
    assert formulas == ["(r),", "t-th", "s"]
    assert re.search(r"05\s+s\s+ends", main.get_text())
    assert "15\u00a0% in lesson\u00a005" in main.get_text()
    short, command, path, dotted = main.find_all("code")
    assert short["class"] == ["word"] and command.text == COMMAND
    assert [w.text for w in command.select(".word")] == command.text.split()
    assert path.find("wbr") is not None and path.text == WEIGHT
    name = "".join(map(str, dotted.contents)).replace("</wbr>", "").replace("/>", ">")
    assert name == "annotated_mpnet.<wbr>tokenization"


def test_comment_beside_a_one_line_definition_is_of_what_it_gives(pages):
    def rows(page: str, name: str) -> dict[str, str]: # parameter -> comment
        section = pages[f"reference/{page}.html"].find(id=name)
        trs = section.select("tr[role=row]")
        cells = [[td.text.strip() for td in tr.find_all("td")] for tr in trs]
        return {row[0]: row[3] for row in cells if len(row) == 4}

    found = rows("export", "trimmed")
    assert found["model"] == "" and found["returns"].startswith("name ->")
    found = rows("ranks", "is_restart")
    assert (found["folder"], found["returns"]) == ("of a run", "")
    found = rows("ranks", "Ranks.seed")
    assert (found["seed"], found["returns"]) == ("of the run", "of this rank")
    constant = pages["reference/watch.html"].find(id="SILENT").pre.text
    assert constant.strip() == f"SILENT = {watch.SILENT}"


# Files beside the pages

def test_maps_for_machines(site, pages):
    values = site_pages.settings()
    address = values["doc_host"] + values["doc_baseurl"] % values
    listed = re.findall(r"<loc>(.+?)</loc>", (site / "sitemap.xml").read_text())
    urls = {u.removeprefix(f"{address}/") or "index.html" for u in listed}
    assert urls == set(pages) - {"404.html"}
    plain = re.findall(rf"\]\({re.escape(address)}/(\S+?)\)", (site / "llms.txt").read_text())
    assert len(plain) == len(listed)
    for name in plain:
        text = read(site / name)
        assert text.startswith("# ") and "data:image" not in text
        prose, folder = readme.FENCED.sub("", text), (site / name).parent
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", prose):
            assert (folder / target.split("#")[0]).exists(), f"{name} links to {target}"


def test_social_picture(site, pages):
    values = site_pages.settings()
    address = values["doc_host"] + values["doc_baseurl"] % values
    for url, page in pages.items():
        picture = page.find("meta", property="og:image")["content"]
        assert picture.startswith(f"{address}/"), url
        assert (site / picture.removeprefix(f"{address}/")).exists(), url
    assert site_html.size_of_png((site / "docs/assets/social.png").read_bytes()) == (1200, 630)


# In the browser

@pytest.fixture(scope="module")
def base(site):
    "The address at which the site is served, at the path at which it is published."
    shown = serve_docs.server(site)
    threading.Thread(target=shown.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{shown.server_address[1]}{serve_docs.Pages.base}/"
    shown.shutdown()


LOOK = """async () => {
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map(image => image.decode().catch(() => 0)));
  await document.fonts.ready;
  const all = selector => [...document.querySelectorAll(selector)];
  const box = e => e.getBoundingClientRect();
  const folded = e => e.closest("details:not([open])");
  const sources = some => some.map(i => i.src);
  const formulas = some => some.map(m => m.getAttribute("alttext"));
  const absent = i => !i.complete || !i.naturalWidth || i.alt === null || i.alt.trim() === "";
  const shrunk = i => i.width < 0.55 * i.getAttribute("width") && !folded(i);
  const high = "wbr, mfrac, msub, msup, munder, mover, msubsup, munderover, mroot, msqrt, mtable";
  const flowing = e => !e.closest("pre") && !e.querySelector(high);
  const lines = e => new Set([...e.getClientRects()].map(r => Math.round(r.top))).size;
  const margin = e => parseFloat(getComputedStyle(e).marginRight);
  const gap = e => box(e).right - box(e.lastElementChild).right + margin(e);
  const flat = m => !folded(m) && (box(m).width < 2 || box(m).height < 2);
  const low = m => m.querySelector("mfrac") && box(m).height < 30;
  const prose = document.querySelector("article").cloneNode(true);
  for (const code of prose.querySelectorAll("pre, code, math, script")) code.remove();
  const tex = (prose.textContent.match(/\\\\\\(|\\\\\\[|\\$\\$/g) || []).length;
  const page = document.documentElement;
  const ids = all("[id]").map(e => e.id);
  const words = all("article .word, .formula:not(.display)");
  return {
    images: sources(images.filter(absent)),
    links: all("a[href]").map(a => a.href),
    ids, twice: ids.filter((id, i) => ids.indexOf(id) !== i),
    small: innerWidth < 500 ? sources(images.filter(shrunk)) : [],
    split: words.filter(e => flowing(e) && lines(e) > 1).map(e => e.textContent),
    roots: all("msqrt").map(gap).filter(gap => gap > 1.5),
    wide: page.scrollWidth - page.clientWidth,
    formulas: all("math").length,
    flat: formulas(all("math").filter(flat)),
    low: formulas(all("math[display=block]").filter(low)),
    tex: tex + all("merror").length,
    font: all("math").length === 0 || document.fonts.check('16px "STIX Two Math"'),
    landmarks: ["header", "nav", "main", "footer"].filter(n => all(n).length === 0),
  };
}"""


# What doesn't fit, with all that is folded open: blocks that have to be pushed sideways, what
# reaches beyond the page, or to where the block that it is in can't be scrolled, and cut words.
FIT = """() => {
  const folded = [...document.querySelectorAll("article details:not([open])")];
  for (const details of folded) details.open = true;
  const style = e => getComputedStyle(e), box = e => e.getBoundingClientRect();
  const shown = e => box(e).width > 1 && box(e).height > 1 && !e.closest(".skip");
  const overflow = e => style(e).overflowX, over = e => e.scrollWidth > e.clientWidth + 1;
  const scrolls = e => e === null || ["auto", "scroll"].includes(overflow(e));
  const frame = e => scrolls(e) ? e : frame(e.parentElement);   // what it can be scrolled in
  const outside = e => frame(e.parentElement) ? box(e).left < box(frame(e.parentElement)).left - 1
    : box(e).right > innerWidth + 1 || box(e).left < -1;
  const cut = e => ["hidden", "clip"].includes(overflow(e)) && style(e).textOverflow !== "ellipsis";
  const name = e => `${e.localName} ${e.className}: ${e.textContent.trim().slice(0, 40)}`;
  const longest = e => e.textContent.split("\\n").sort((a, b) => b.length - a.length)[0];
  const blocks = document.querySelectorAll("article :is(pre, .cell-output, .cell-output-display)");
  const all = [...document.querySelectorAll("body *:not(pre *)")].filter(shown);
  const found = {
    sideways: [...blocks].filter(e => shown(e) && over(e))
      .map(e => `${longest(e).length} columns: ${longest(e).trim()}`),
    beyond: all.filter(outside).map(name),
    cut: all.filter(e => cut(e) && over(e) && e.textContent.trim()).map(name),
  };
  for (const details of folded) details.open = false;
  return found;
}"""
LOOK = f"async () => ({{...await ({LOOK})(), ...({FIT})()}})"


# Where the step to the next page leads, if a click in its middle hits it.
NEXT = """() => {
  const a = document.querySelector(".steps a[rel=next]");
  if (a === null) return null;
  a.scrollIntoView({block: "center", behavior: "instant"});
  const {left, top, width, height} = a.getBoundingClientRect();
  const hit = document.elementFromPoint(left + width / 2, top + height / 2);
  return a.contains(hit) ? a.href : null;
}"""
COLOURS = """() => {
  const style = getComputedStyle(document.body);
  const figures = [...document.querySelectorAll("article img")];
  return {ground: style.backgroundColor, ink: style.color,
          figures: figures.map(e => getComputedStyle(e).backgroundColor)};
}"""


def listen(page) -> tuple[list[str], list[str]]:
    "Lists that fill with a page's errors and requests."
    errors, requests = [], []

    def on_console(message):
        if message.type in ("error", "warning"):
            errors.append(message.text)

    def on_failure(request):
        if request.failure != "net::ERR_ABORTED":
            errors.append(f"failed: {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", on_failure)
    page.on("request", lambda request: requests.append(request.url))
    return errors, requests


@pytest.fixture(scope="module")
def seen(browser, base, pages) -> dict[tuple[str, str], dict]:
    "What a reader meets on every page at both widths, and on a desk what axe-core finds."
    found = {}
    for kind, width in WIDTHS.items():
        page = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        errors, requests = listen(page)
        for url in pages:
            errors.clear()
            requests.clear()
            page.goto(base + url)
            met = page.evaluate(LOOK)
            found[url, kind] = met | {"errors": list(errors), "requests": list(requests)}
            if kind == "desk":  # at last: it changes the page
                found[url, kind]["next"] = page.evaluate(NEXT)
                page.emulate_media(color_scheme="dark")
                found[url, kind]["dark"] = page.evaluate(COLOURS)
                page.emulate_media(color_scheme="light")
                found[url, kind]["violations"] = violations(page, url in KINDS)
        page.close()
    return found


def said(seen: dict, what: str) -> dict:
    "The pages that say anything under one heading."
    return {key: look[what] for key, look in seen.items() if look[what]}


def test_no_console_error(seen):
    assert said(seen, "errors") == {}


def test_no_request_to_another_host(seen, base):
    asked = [(key, request) for key, look in seen.items() for request in look["requests"]]
    assert [both for both in asked if not both[1].startswith((base, "data:"))] == []


def test_no_broken_link_or_anchor(seen, site, base):
    ids = {url: set(look["ids"]) for (url, kind), look in seen.items() if kind == "desk"}
    broken = []
    for (url, kind), look in seen.items():
        for link in look["links"] if kind == "desk" else []:
            target, anchor = urldefrag(link)
            if not target.startswith(base):
                assert re.match(r"https?://(?!127\.)|mailto:", target), f"{url} links to {link}"
                continue
            name = unquote(target.removeprefix(base)) or "index.html"
            lost = anchor and name in ids and unquote(anchor) not in ids[name]
            if lost or not (site / name).is_file():
                broken.append(f"{url} -> {link.removeprefix(base)}")
    assert broken == []


def test_ids_are_unique(seen):
    assert said(seen, "twice") == {}


def test_no_missing_picture_or_description(seen):
    assert said(seen, "images") == {}


def test_formulas_are_drawn(seen):
    assert said(seen, "flat") == said(seen, "low") == said(seen, "tex") == {}
    assert all(look["font"] for look in seen.values())
    for path, name in zip(NOTEBOOKS, LESSONS):
        prose = [cell for cell in cells_of(path) if cell["cell_type"] == "markdown"]
        blocks = sum("".join(cell["source"]).count("$$") // 2 for cell in prose)
        assert seen[name, "desk"]["formulas"] >= blocks, name


def test_figures_can_be_read_on_a_phone(seen):
    assert said(seen, "small") == {}


def test_no_line_ends_within_an_argument_or_a_formula(seen):
    assert said(seen, "split") == {}


def test_no_gap_behind_a_root(seen):
    assert said(seen, "roots") == {}


def test_no_horizontal_scrolling(seen):
    assert {key: look["wide"] for key, look in seen.items() if look["wide"] > 0} == {}


def test_code_and_outputs_fit_on_a_desk(seen):
    "A line of 100 columns is read without pushing it sideways."
    wide = {url: look["sideways"] for (url, kind), look in seen.items() if kind == "desk"}
    assert {url: lines for url, lines in wide.items() if lines} == {}


def test_nothing_is_cut_off(seen):
    assert said(seen, "beyond") == said(seen, "cut") == {}


def test_landmarks(seen):
    assert said(seen, "landmarks") == {}


# The thousands of coloured spans of code, and the links of the course, which all pages share.
WITHOUT_COLOURS = """
document.querySelectorAll('pre code').forEach(code => { code.textContent = code.textContent });
for (const a of document.querySelectorAll('nav.course li > a:not([aria-current])'))
  (a.nextElementSibling ? a : a.parentElement).remove();
"""
# A rule gives its impact to all that it finds.
RUN_AXE = """() => {
  const slight = axe._audit.rules.filter(rule => ["minor", "moderate"].includes(rule.impact));
  const rules = Object.fromEntries(slight.map(rule => [rule.id, {enabled: false}]));
  return axe.run(document, {resultTypes: ["violations"], rules});
}"""


def violations(page, whole: bool) -> list[str]:
    "What axe-core finds that is serious; what all pages share only in a whole."
    page.evaluate(AXE.read_text(encoding="utf-8"))
    if not whole:  # leaving them out by axe's own `exclude` takes longer than looking at them
        page.evaluate(WITHOUT_COLOURS)
    found = page.evaluate(RUN_AXE)["violations"]
    serious = [(v, node) for v in found if v["impact"] in SERIOUS for node in v["nodes"]]
    return [f"{v['id']}: {v['help']}: {node['target']}" for v, node in serious]


def test_the_links_of_the_course_are_the_same_on_every_page(site, pages):
    "But for the mark of the page itself: so axe-core looks at them on one page of each kind."
    def written(url: str) -> str:
        nav = re.search('<nav class="course".*?</nav>', read(site / url), re.DOTALL)[0]
        nav = re.sub('(?<=<a) href="([^"]*)"( aria-current="page")?',
                     lambda a: posixpath.normpath(posixpath.join(posixpath.dirname(url), a[1])),
                     nav)
        return nav.replace("<details open", "<details")

    assert {url for url in pages if written(url) != written("index.html")} == set()


def test_accessible(browser, base, pages, seen):
    "Every page on a desk in light, one of each kind on a phone in the dark."
    on_a_desk = {url: seen[url, "desk"]["violations"] for url in pages}
    assert {url: found for url, found in on_a_desk.items() if found} == {}
    phone = {"width": WIDTHS["phone"], "height": 900}
    page = browser.new_page(viewport=phone, color_scheme="dark", reduced_motion="reduce")
    for url in KINDS:
        page.goto(base + url)
        assert violations(page, True) == [], f"{url}, dark"
    page.close()


@pytest.fixture
def page(browser, base):
    "A page of its own, on a desk."
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield opened
    opened.close()


@pytest.mark.parametrize("words, target", [
    ("--keep-checkpoints", "docs/configuration.html#keep-checkpoints"),
    ("keep-checkpoints", "docs/configuration.html#keep-checkpoints"),
    ("relative_position_bucket", "reference/positions.html#relative_position_bucket"),
    ("two_stream_mask", "reference/attention.html#two_stream_mask"),
])
def test_search_leads_to_names(page, base, words, target):
    page.goto(base + LESSONS[1])
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.wait_for_selector(".found a")
    page.keyboard.press("Enter")
    page.wait_for_url(base + target)
    assert words.lstrip("-") in page.locator(f'[id="{target.split("#")[1]}"]').inner_text()


def test_the_site_lists_the_lessons_as_the_course_does(pages):
    links = pages[LESSONS[1]].select("nav.course a")
    listed = [a["href"] for a in links if a["href"] in LESSONS]
    assert listed == IN_ORDER


def test_search_answers_what_readers_ask(page, base):
    "Of 50 questions, 45 find a page with the answer among the first three places."
    page.goto(base + LESSONS[1])
    found = page.evaluate("""async questions => {
      const ask = await loadSearch();
      return questions.map(question => ask(question).slice(0, 3).map(place => place.u));
    }""", list(QUESTIONS))
    assert len(QUESTIONS) == 50
    wrong = {question: places for (question, pages), places in zip(QUESTIONS.items(), found)
             if not any(place.startswith(tuple(pages)) for place in places)}
    assert len(wrong) <= 5, wrong


def test_the_mathematical_font_has_all_signs_of_the_formulas(pages):
    said = re.search(r'--unicodes="([^"]+)"', read(ROOT / "docs/assets/fonts/README.md"))[1]
    known = set()
    for part in said.split(","):
        first, _, last = part.removeprefix("U+").partition("-")
        known |= set(range(int(first, 16), int(last or first, 16) + 1))
    for url, page in pages.items():
        signs = set("".join(formula.get_text() for formula in page.find_all("math")))
        assert {sign for sign in signs if ord(sign) not in known} == set(), url


@pytest.mark.parametrize("typed, target", [
    ("permuttation", "03_permutation"),    # a typing error
    ("tokenizing", "02"),                  # another form of the word
    ("OOM", "docs/troubleshooting"),       # another word for it
])
def test_search_forgives(page, base, typed, target):
    page.goto(base + LESSONS[1])
    page.keyboard.press("/")
    page.keyboard.type(typed)
    page.wait_for_selector(".found a")
    first = [a.get_attribute("href") for a in page.locator(".found a").all()[:3]]
    assert any(place.removeprefix(base).startswith(target) for place in first), first
    shown = page.locator(".found .what").all_inner_texts()[:3]
    assert not any("import " in text or "def " in text for text in shown), shown  # prose, no code


def test_a_reader_marks_lessons_and_exercises(page, base):
    page.goto(base + LESSONS[0])
    page.locator("label.done", has_text="I have read").locator("input").check()
    exercises = page.locator("section#exercises label.done input")
    exercises.nth(1).check()
    page.reload()
    assert page.locator("label.done", has_text="I have read").locator("input").is_checked()
    assert [e.is_checked() for e in exercises.all()][:2] == [False, True]
    page.goto(base + LESSONS[1])
    read_lessons = page.locator(".course a.read")
    assert [a.get_attribute("href") for a in read_lessons.all()] == [LESSONS[0]]


def test_search_leads_to_where_a_word_is_defined(page, base):
    page.goto(base + "docs/training.html")
    page.click("[data-search]")
    page.keyboard.type("horizon")
    page.wait_for_selector(".found a")
    found = page.locator(".found a").all()[:3]
    places = [a.get_attribute("href").removeprefix(base) for a in found]
    defined = {"05_two_stream_attention.html#the-one-rule", "docs/glossary.html#horizon"}
    assert defined & set(places), places
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(base + places[0])
    anchor = page.locator(f'[id="{places[0].split("#")[1]}"]')
    assert "horizon" in anchor.evaluate("e => e.closest('section, li').innerText").lower()
    page.keyboard.press("/")
    page.keyboard.type("qwertz")
    page.wait_for_selector(".search .count:has-text('Nothing')")
    page.keyboard.press("Escape")
    assert not page.locator("dialog.search").is_visible()


def brightness(colour: str) -> float:
    "Of `rgb(r, g, b)`, from 0 to 1."
    return sum(float(x) for x in re.findall(r"[\d.]+", colour)[:3]) / 765


def test_dark_pages_keep_figures_readable(browser, base, pages, seen):
    with_figures = [url for url in LESSONS if pages[url].select_one("article img")]
    for url in with_figures:
        dark = seen[url, "desk"]["dark"]
        assert brightness(dark["ground"]) < 0.2 < 0.8 < brightness(dark["ink"])
        assert all(colour == "rgb(255, 255, 255)" for colour in dark["figures"]), url
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page.goto(base + with_figures[-1])
    ground = lambda: brightness(page.evaluate(COLOURS)["ground"])
    assert page.evaluate(COLOURS) == seen[with_figures[-1], "desk"]["dark"] and ground() < 0.2
    page.click("[data-theme-switch]")
    assert ground() > 0.8
    page.reload()
    assert ground() > 0.8, "the choice is forgotten"
    page.close()


def test_course_can_be_walked_by_next_alone(page, base, seen):
    walked = ["index.html"]
    while walked[-1:] != IN_ORDER[-1:] and len(walked) < 2 * len(LESSONS):
        walked.append(seen[walked[-1], "desk"]["next"].removeprefix(base))
    assert walked[1:] == IN_ORDER
    page.goto(base)
    for url in IN_ORDER[:3]:
        page.click(".steps a[rel=next]")
        assert page.url == base + url


def test_keyboard_and_phone(browser, page, base):
    page.goto(base + LESSONS[0])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "page-text"
    phone = browser.new_page(viewport={"width": 390, "height": 800})
    phone.goto(base + LESSONS[0])
    course = phone.locator("nav.course")
    assert not course.is_visible()
    phone.click("[popovertarget=page-course]")
    assert course.is_visible()
    phone.click(f"nav.course a[href='{LESSONS[1]}']")
    phone.wait_for_url(base + LESSONS[1])
    assert not phone.locator("nav.course").is_visible()
    phone.close()


def test_wide_code_says_so_and_is_copied_whole(browser, base):
    clipboard = ["clipboard-read", "clipboard-write"]
    context = browser.new_context(viewport={"width": 390, "height": 800}, permissions=clipboard)
    page = context.new_page()
    page.goto(base + LESSONS[0])
    wide = page.locator("pre.more").first.element_handle()
    assert wide.get_attribute("tabindex") == "0"
    wide.evaluate("e => e.scrollLeft = e.scrollWidth")
    page.wait_for_function("e => !e.classList.contains('more')", arg=wide)
    code = wide.evaluate("e => e.textContent")
    wide.evaluate("e => e.closest('.code').querySelector('.copy').click()")
    page.wait_for_selector(".copy:has-text('Copied')", state="attached")
    assert page.evaluate("navigator.clipboard.readText()").strip() == code.strip()
    context.close()


def test_missing_page_and_paper(page, base):
    answer = page.goto(base + "no/such/page.html")
    assert answer.status == 404 and "masked" in page.inner_text("h1")
    page.click("article a >> nth=0")
    assert page.inner_text("h1") == "annotated-mpnet"
    page.emulate_media(media="print", color_scheme="dark")
    ink = page.eval_on_selector(".lead", "e => getComputedStyle(e).color")
    assert brightness(ink) < 0.6, "the colours of a dark page on white paper"
    assert page.locator("article").is_visible()
    for part in ("header.top", "nav.course"):
        assert not page.locator(part).is_visible()
