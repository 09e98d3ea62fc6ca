"""Write README.md and its pictures from nbs/index.ipynb: by nbconvert, since nbdev needs Quarto.

Hidden cells and the `#|` options of cells are skipped, outputs are kept, a picture becomes a file
in docs/images/readme with the cell's `fig-alt` and `fig-cap`, and links are turned from the
notebook's folder to the root.
"""
import base64
import posixpath
import re
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "nbs" / "index.ipynb"
IMAGES = "docs/images/readme"
NOTE = "<!-- Written by `make notebooks` from nbs/index.ipynb: edit that. -->\n\n"
HIDING = {"hide", "default_exp"}
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def cell_options(source: str) -> tuple[dict, set[str], str]:
    "A cell's Quarto options (`#| key: value`), its nbdev directives (`#| name`), and its code."
    lines = source.split("\n")
    top = next((i for i, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    entries = [line[2:].strip() for line in lines[:top]]
    options = yaml.safe_load("\n".join(e for e in entries if ":" in e)) or {}
    directives = {e.split()[0] for e in entries if e and ":" not in e}
    return options, directives, "\n".join(lines[top:]).strip("\n")


def take_pictures(outputs: list, # of a cell
                  name: str, # of its picture
                  options: dict, # of the cell
                  files: dict[str, bytes], # gets the pictures, by their paths
                 ) -> tuple[list, list]:
    "The outputs that aren't pictures, and a Markdown cell for each that is."
    rest, cells = [], []
    for output in outputs:
        png = output.get("data", {}).get("image/png")
        if png is None:
            rest.append(output)
            continue
        path = f"{IMAGES}/{name}{f'-{len(cells) + 1}' if cells else ''}.png"
        files[path] = base64.b64decode(png)
        caption = f"\n\n*{options['fig-cap']}*" if "fig-cap" in options else ""
        # The path is as seen from nbs/, like every link of the notebook.
        cells.append(new_markdown_cell(f"![{options.get('fig-alt', '')}](../{path}){caption}"))
    return rest, cells


def shown_cells(cells: list, files: dict[str, bytes]) -> list:
    "The cells as the README shows them."
    shown = []
    for n, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            shown.append(cell)
        if cell.cell_type != "code":
            continue
        options, directives, cell.source = cell_options(cell.source)
        if directives & HIDING or options.get("include") is False:
            continue
        if options.get("output") is False:
            cell.outputs = []
        name = options.get("label") or f"figure-{n}"
        cell.outputs, pictures = take_pictures(cell.outputs, name, options, files)
        hidden = options.get("echo") is False or not cell.source
        cell.metadata["transient"] = {"remove_source": hidden}
        shown.append(cell)
        shown += pictures
    return shown


def rebase(match: re.Match) -> str:
    "A link's target as seen from the root, where it was written as seen from nbs/."
    before, target = match.groups()
    if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target):
        return match[0]
    path, hash_, anchor = target.partition("#")
    return before + posixpath.normpath(posixpath.join("nbs", path)) + hash_ + anchor


def tidy(markdown: str) -> str:
    "Links rebased, spaces at line ends and extra empty lines removed; fenced code is left alone."
    parts = re.split(FENCED, markdown)
    for i in range(0, len(parts), 2):
        text = re.sub(r'(\]\(|(?:src|href)=")([^)\s"]+)', rebase, parts[i])
        parts[i] = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    return "".join(parts).strip("\n") + "\n"


def generate() -> dict[str, bytes]:
    "Every file that comes from nbs/index.ipynb, by its path from the root."
    nb = nbformat.read(INDEX, as_version=4)
    files: dict[str, bytes] = {}
    nb.cells = shown_cells(nb.cells, files)
    nb.metadata.language_info = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(nb)
    files["README.md"] = (NOTE + tidy(text)).encode()
    return files


if __name__ == "__main__":
    files = generate()
    for old in (ROOT / IMAGES).glob("*.png"):
        old.unlink()
    for name, content in files.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_bytes(content)
    print(f"wrote {', '.join(sorted(files))}")
