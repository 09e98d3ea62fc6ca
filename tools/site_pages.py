"""Put the pages that are no notebooks beside those that are, in the folder that is rendered.

`nbs/_quarto.yml` names this script as its `pre-render`, so that both renderers (smalldocs and
Quarto) see the same site: the pages of docs/, the changelog, and the reference, made from the
package's source.
"""
import json
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
import course
import site_reference

ROOT = Path(__file__).resolve().parents[1]
PROC = ROOT / "_proc"
# A version stands in brackets in the changelog, as in a link.
VERSION = re.compile(r"^## \[(.+?)\](?: - (.+))?$", re.MULTILINE)


def settings() -> dict[str, str]:
    "The values of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def lesson_title(path: Path) -> str:
    "A notebook's number and title, such as `Lesson 05: Two-stream attention`."
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    return f"Lesson {path.name.split('_')[0]}: {first.splitlines()[0].lstrip('# ')}"


def write_reference(folder: Path) -> None:
    "The reference, a page for each module and one for all."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values, lessons = settings(), site_reference.lessons()
    repository = f"{values['git_url']}/blob/{values['branch']}"
    titles = {module: lesson_title(path) for module, path in lessons.items()}
    for module, path in lessons.items():
        page = site_reference.module_page(module, titles[module], path.name, repository)
        (folder / f"{module}.md").write_text(page, encoding="utf-8")
    (folder / "index.md").write_text(site_reference.index_page(titles), encoding="utf-8")


def link_root_files(text: str) -> str:
    "Links to files at the root, such as ../CITATION.cff, are no pages: they go to the repository."
    values = settings()
    repository = f"{values['git_url']}/blob/{values['branch']}"
    return re.sub(r"\]\(\.\./([A-Z_]+\.(?:md|cff))(?=[)#])", rf"]({repository}/\1", text)


def write_guides(proc: Path) -> None:
    "The pages of docs/, with title and sentence as the renderers want them, and links mended."
    assets = shutil.ignore_patterns("assets")
    shutil.copytree(ROOT / "docs", proc / "docs", dirs_exist_ok=True, ignore=assets)
    shutil.copy(ROOT / "CHANGELOG.md", proc / "docs/changelog.md")
    for path in (proc / "docs").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if path.stem == "changelog":
            text = VERSION.sub(lambda m: f"## {m[1]}" + (f", {m[2]}" if m[2] else ""), text)
        head = re.match(r"# (.+)\n+> (.+)\n", text)
        if head:
            title, description = json.dumps(head[1]), json.dumps(head[2])
            top = f"---\ntitle: {title}\ndescription: {description}\n---\n"
            text = top + text[head.end():]
        # Notebooks lie beside the pages on the site.
        text = link_root_files(text).replace("](../nbs/", "](../")
        path.write_text(text, encoding="utf-8")
    shutil.move(proc / "docs/404.md", proc / "404.md")  # at the root: shown at any address


def mend_links(proc: Path) -> None:
    "Links of the notebooks as seen from the site, beside docs/; names are linked later, all alike."
    values = settings()
    site = re.escape(f"{values['doc_host']}{values['doc_baseurl']}/")
    for path in proc.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(rf"\[(`[^`\]]+`)\]\({site}[^)]*\)", r"\1", text)
        text = re.sub(r'"output-file: [^"]*",\s*', "", text)  # pages are named like their notebooks
        text = link_root_files(text).replace("](../docs/", "](docs/")
        path.write_text(text, encoding="utf-8")


def fold_cells(proc: Path) -> None:
    "Give the cells that course.fold() folds the option that both renderers know."
    for path in proc.glob("[0-9]*.ipynb"):
        nb = nbformat.read(path, as_version=4)
        for cell in nb.cells:
            line = course.fold(cell) if cell.cell_type == "code" else None
            if line and "code-fold" not in cell.source:
                top = f'#| code-fold: true\n#| code-summary: "{line}"\n'
                cell.source = top + cell.source
        nbformat.write(nb, path)


def main(proc: Path = PROC) -> None:
    "Write all of it into the folder that is rendered."
    write_guides(proc)
    write_reference(proc / "reference")
    mend_links(proc)
    fold_cells(proc)


if __name__ == "__main__":
    main()
