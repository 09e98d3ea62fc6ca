"""`make docs`: the website in _docs, from the notebooks as they are saved (nothing runs) and the pages of docs/.

nbdev processes the notebooks into _proc, smalldocs renders that folder from its Quarto project file, and the pages that
come out get what they lack (tools/site_html.py) and our own shell (tools/site_shell.py). nbdev's own commands aren't
called for it: they install Quarto where it is missing. Two builds of the same sources are equal to the byte.
"""
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


def set_aside_html() -> dict[str, str]:
    "Outputs in HTML (an interactive figure, say) reach the page as they are: until then, a mark stands in their place."
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
                if joined and output["output_type"] == "stream" and joined[-1].get("name") == output["name"]:
                    joined[-1]["text"] = "".join(joined[-1]["text"]) + "".join(output["text"])
                else:
                    joined.append(output)
            if cell["cell_type"] == "code":
                cell["outputs"] = joined
        path.write_text(json.dumps(nb, ensure_ascii=False), encoding="utf-8")


def leave_out_missing_pages() -> None:
    "Entries of the navigation whose page isn't written yet."
    project = PROC / "_quarto.yml"
    there = lambda line: not (m := re.match(r"\s*- (docs/[\w-]+\.md)\s*$", line)) or (PROC / m[1]).exists()
    project.write_text("\n".join(filter(there, project.read_text(encoding="utf-8").split("\n"))), encoding="utf-8")


def minutes_of(main, number: str) -> int:
    "A lesson's reading time: what it says itself, else counted from its words."
    said = re.search(r"Time:\s*(\d+) minutes", main.get_text(" "))
    return int(said[1]) if said else max(1, round(len(main.get_text(" ").split()) / WORDS_A_MINUTE)) if number else 0


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
    return "lesson" if site_shell.lesson_number(url) else "reference" if url.startswith("reference/") else "guide"


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


def finish(page: site_shell.Page, modules: dict[str, str], names: dict, arguments: set[str], out: Path) -> None:
    "Give a page what it lacks."
    module = next((m for m, lesson in modules.items() if page.url in (lesson, f"reference/{m}.html")), "")
    source = (site_reference.PACKAGE / f"{module}.py").read_text(encoding="utf-8") if module else ""
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
    "What pages link to beside pages: pictures, the assets, the notebooks, and the plain text of every page."
    for path in sorted(rendered.rglob("*")):
        name = path.relative_to(rendered)
        if path.is_file() and path.suffix in (".png", ".svg", ".jpg", ".gif", ".csv", ".yaml") and name.parts[0] != "site_libs":
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    shutil.copytree(ROOT / "docs/assets", out / "docs/assets", copy_function=shutil.copyfile,
                    ignore=shutil.ignore_patterns("reveal"))    # parts of the slides, no pages
    (out / "notebooks").mkdir()
    for path in (ROOT / "nbs").glob("*.ipynb"):
        shutil.copyfile(path, out / "notebooks" / path.name)
    for path in rendered.rglob("*.llms.md"):
        text = re.sub(r"(?<=[\w/])\.llms\.md", ".md", path.read_text(encoding="utf-8"))
        text = re.sub(r"(?<=\]\()([\w/.]+)\.ipynb", r"\1.md", text)  # in outputs, which smalldocs leaves as they are
        (out / path.relative_to(rendered)).with_name(path.name.replace(".llms.md", ".md")).write_text(text, encoding="utf-8")
    (out / ".nojekyll").touch()


def write_site(rendered: Path, out: Path, kept: dict[str, str]) -> int:
    "Finish every page of smalldocs and write the site; the number of pages."
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    soups = {p.relative_to(rendered).as_posix(): site_html.parse(p.read_text(encoding="utf-8")) for p in sorted(rendered.rglob("*.html"))}
    values = site_pages.settings()
    site = site_shell.Site(values["title"] % values if "%(" in values["title"] else values["title"], values["description"],
                           values["doc_host"] + values["doc_baseurl"], values["git_url"], values["branch"])
    site.navigation = site_shell.read_navigation(soups["index.html"], set(soups))
    site.navbar = [site_shell.Link(a.text.strip(), a["href"]) for a in soups["index.html"].select("ul.navbar-nav.me-auto a.nav-link")]
    pages = {url: read_page(soup, url) for url, soup in soups.items()}
    site.minutes = {url: minutes_of(p.main, site_shell.lesson_number(url)) for url, p in pages.items() if p.kind == "lesson"}
    for url in pages:
        (out / url).parent.mkdir(parents=True, exist_ok=True)
    copy_files(rendered, out)
    modules = {module: path.with_suffix(".html").name for module, path in site_reference.lessons().items()}
    names, entries = site_reference.names(), []
    arguments = {a["id"] for a in pages["docs/configuration.html"].main.select("td a[id]")}
    for url, page in pages.items():
        finish(page, modules, names, arguments, out)
        if page.kind != "error":
            entries += site_search.sections(page.main, url, page.title, page.kind) + site_search.argument_entries(page.main, url)
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
    print(*(f"warning: {w}" for w in warnings), sep="\n", end="\n" * bool(warnings), file=sys.stderr)
    pages = write_site(PROC / "_docs", DOCS, kept)
    size = sum(p.stat().st_size for p in DOCS.rglob("*") if p.is_file())
    print(f"{pages} pages, {size / 1e6:.1f} MB; `make docs-serve` shows them")
    return int(bool(warnings))


if __name__ == "__main__":
    sys.exit(main())
