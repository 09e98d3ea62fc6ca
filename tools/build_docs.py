"""`make docs`: the website in _docs, from the notebooks as saved (nothing runs) and from docs/.

nbdev processes the notebooks into _proc, smalldocs renders that folder from its Quarto project
file, and the pages that come out get what they lack (tools/site_html.py) and our own shell
(tools/site_shell.py). nbdev's own commands aren't called for it: they install Quarto where it is
missing. Two builds of the same sources are byte-identical.
"""
import gc
import json
import re
import shutil
import sys
from pathlib import Path

import site_html
import site_pages
import site_reference
import site_search
import site_shell
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.site import build

ROOT = Path(__file__).resolve().parents[1]
PROC, DOCS = ROOT / "_proc", ROOT / "_docs"
WORDS_A_MINUTE = 200
COPIED = (".png", ".svg", ".jpg", ".gif", ".csv", ".yaml")


def set_aside_html() -> dict[str, str]:
    "Put a mark in the place of each output in HTML, which reaches the page as it is."
    kept = {}
    for path in sorted(PROC.glob("*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            for output in cell.get("outputs", []):
                if "text/html" in output.get("data", {}):
                    mark = f'<div data-output="{len(kept)}"></div>'
                    kept[mark] = "".join(output["data"]["text/html"])
                    output["data"]["text/html"] = mark
        path.write_text(json.dumps(nb, ensure_ascii=False), encoding="utf-8")
    return kept


def join_streams() -> None:
    "What a cell prints in several pieces is one output, as a notebook shows it."
    for path in sorted(PROC.glob("*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            joined = []
            for output in cell.get("outputs", []):
                before = joined[-1].get("name") if joined else None
                if output["output_type"] == "stream" and output["name"] == before:
                    joined[-1]["text"] = "".join(joined[-1]["text"]) + "".join(output["text"])
                else:
                    joined.append(output)
            if cell["cell_type"] == "code":
                cell["outputs"] = joined
        path.write_text(json.dumps(nb, ensure_ascii=False), encoding="utf-8")


def leave_out_missing_pages() -> None:
    "Remove the entries of the navigation whose page isn't written yet."
    def there(line: str) -> bool:
        page = re.match(r"\s*- (docs/[\w-]+\.md)\s*$", line)
        return page is None or (PROC / page[1]).exists()

    project = PROC / "_quarto.yml"
    lines = project.read_text(encoding="utf-8").split("\n")
    project.write_text("\n".join(filter(there, lines)), encoding="utf-8")


def minutes_of(main, number: str) -> int:
    "A lesson's reading time: what it says itself, else counted from its words."
    text = main.get_text(" ")
    if said := re.search(r"Time:\s*(\d+) minutes", text):
        return int(said[1])
    return max(1, round(len(text.split()) / WORDS_A_MINUTE)) if number else 0


def source_of(url: str) -> str:
    "The file of the repository that a page is made of."
    name = url.removesuffix(".html")
    if name in ("404", "reference/index"):
        return ""
    if url.startswith("reference/"):
        return f"annotated_mpnet/{name.split('/')[1]}.py"
    special = {"docs/changelog": "CHANGELOG.md"}
    return special.get(name) or (f"{name}.md" if name.startswith("docs/") else f"nbs/{name}.ipynb")


def kind_of(url: str) -> str:
    "What kind of page it is."
    if url in ("index.html", "404.html"):
        return "front" if url == "index.html" else "error"
    if site_shell.lesson_number(url):
        return "lesson"
    return "reference" if url.startswith("reference/") else "guide"


def read_page(soup, url: str) -> site_shell.Page:
    "A page as smalldocs rendered it, without its shell."
    main = soup.find("main")
    title = main.select_one("h1.title").decode_contents()
    said = main.select_one("#title-block-header .description")
    for code in said.find_all("code") if said else []:
        code.replace_with(f"`{code.text}`")
    description = said.text.strip() if said else ""
    for part in main.select("#title-block-header, nav.page-navigation"):
        part.decompose()
    return site_shell.Page(url, title, description, main, kind_of(url), source_of(url))


def finish(page: site_shell.Page,
           modules: dict[str, str], # the page of each module's lesson
           names: dict[str, dict[str, str]], # `site_reference.names()`
           arguments: set[str], # of the command
           out: Path, # the folder of the site
          ) -> None:
    "Give a page what it lacks."
    about = (m for m, lesson in modules.items() if page.url in (lesson, f"reference/{m}.html"))
    module = next(about, "")
    file = site_reference.PACKAGE / f"{module}.py"
    source = file.read_text(encoding="utf-8") if module else ""
    page.styles = site_html.draw_formulas(page.main)
    if page.kind == "lesson":
        site_html.mark_cells(page.main, module, source, names.get(module, {}))
        site_html.frame_goals(page.main)
        site_html.fold_solutions(page.main)
    site_html.place_pictures(page.main, page.url, out)
    site_html.tidy_code(page.main)
    site_html.keep_numbers(page.main)
    site_html.frame_tables(page.main)
    site_html.link_headings(page.main)
    site_html.link_names(page.main, page.url, module, names, arguments)


def copy_files(rendered: Path, out: Path) -> None:
    "Copy what pages link to: pictures, the assets, the notebooks, and the text of every page."
    for path in sorted(rendered.rglob("*")):
        name = path.relative_to(rendered)
        if path.is_file() and path.suffix in COPIED and name.parts[0] != "site_libs":
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    shutil.copytree(ROOT / "docs/assets", out / "docs/assets", copy_function=shutil.copyfile,
                    ignore=shutil.ignore_patterns("reveal"))    # parts of the slides, no pages
    (out / "notebooks").mkdir()
    for path in (ROOT / "nbs").glob("*.ipynb"):
        shutil.copyfile(path, out / "notebooks" / path.name)
    for path in rendered.rglob("*.llms.md"):
        text = re.sub(r"(?<=[\w/])\.llms\.md", ".md", path.read_text(encoding="utf-8"))
        # in outputs, which smalldocs leaves as they are:
        text = re.sub(r"(?<=\]\()([\w/.]+)\.ipynb", r"\1.md", text)
        name = path.name.replace(".llms.md", ".md")
        (out / path.relative_to(rendered)).with_name(name).write_text(text, encoding="utf-8")
    (out / ".nojekyll").touch()


def site_of(front, urls: set[str]) -> site_shell.Site:
    "What every page shares: values of settings.ini, and the navigation on smalldocs' front page."
    values = site_pages.settings()
    title = values["title"] % values if "%(" in values["title"] else values["title"]
    address = values["doc_host"] + values["doc_baseurl"]
    site = site_shell.Site(title, values["description"], address,
                           values["git_url"], values["branch"])
    site.navigation = site_shell.read_navigation(front, urls)
    navbar = front.select("ul.navbar-nav.me-auto a.nav-link")
    site.navbar = [site_shell.Link(a.text.strip(), a["href"]) for a in navbar]
    return site


def write_site(rendered: Path, out: Path, kept: dict[str, str]) -> int:
    "Finish every page of smalldocs and write the site; the number of pages."
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    texts = {p.relative_to(rendered).as_posix(): p.read_text(encoding="utf-8")
             for p in sorted(rendered.rglob("*.html"))}
    soups = {url: site_html.parse(text) for url, text in texts.items()}
    site = site_of(soups["index.html"], set(soups))
    pages = {url: read_page(soup, url) for url, soup in soups.items()}
    site.minutes = {url: minutes_of(p.main, site_shell.lesson_number(url))
                    for url, p in pages.items() if p.kind == "lesson"}
    for url in pages:
        (out / url).parent.mkdir(parents=True, exist_ok=True)
    copy_files(rendered, out)
    lessons = site_reference.lessons()
    modules = {module: path.with_suffix(".html").name for module, path in lessons.items()}
    names, entries = site_reference.names(), []
    arguments = {a["id"] for a in pages["docs/configuration.html"].main.select("td a[id]")}
    for url, page in pages.items():
        finish(page, modules, names, arguments, out)
        if page.kind != "error":
            entries += site_search.sections(page.main, url, page.title, page.kind)
            entries += site_search.argument_entries(page.main, url)
        if url == "docs/glossary.html":
            entries += site_search.glossary_entries(page.main, url)
        text = site_shell.whole(site, page)
        for mark, output in kept.items():
            text = text.replace(mark, output)
        (out / url).write_text(text, encoding="utf-8")
    order = [link.url for link in site_shell.reading_order(site)]
    (out / "search-index.js").write_text(site_search.write(entries), encoding="utf-8")
    (out / "sitemap.xml").write_text(site_shell.sitemap(site, order), encoding="utf-8")
    (out / "llms.txt").write_text(site_shell.llms(site, pages), encoding="utf-8")
    return len(pages)


def main() -> int:
    "Build the site; 1 where there was a warning."
    refresh_quarto_yml()
    shutil.rmtree(PROC, ignore_errors=True)
    proc_nbs(force=True, n_workers=0)
    site_pages.main(PROC)
    leave_out_missing_pages()
    join_streams()
    kept = set_aside_html()
    warnings = build(PROC, quiet=True).warnings
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    pages = write_site(PROC / "_docs", DOCS, kept)
    size = sum(p.stat().st_size for p in DOCS.rglob("*") if p.is_file())
    print(f"{pages} pages, {size / 1e6:.1f} MB; `make docs-serve` shows them")
    return int(bool(warnings))


if __name__ == "__main__":
    gc.disable()  # the trees of all pages live to the end: to search them for garbage is in vain
    sys.exit(main())
