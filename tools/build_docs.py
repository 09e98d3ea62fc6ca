"""`make docs`: the website in _docs, from the notebooks as they are saved (nothing runs) and the pages of docs/.

nbdev processes the notebooks into _proc and smalldocs renders that folder from its Quarto project file. nbdev's own
commands aren't called for it: they install Quarto where it is missing.
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parents[1]
PROC, DOCS = ROOT / "_proc", ROOT / "_docs"


def finish_pages() -> None:
    "Put the pages of docs/ into the site, and make links lead to the files as smalldocs names them."
    shutil.copytree(ROOT / "docs", PROC / "docs", dirs_exist_ok=True)
    config = get_config()
    site = re.escape(f"{config.doc_host}{config.doc_baseurl}/")
    # nbdev links a name in backticks to its lesson's published page, without the lesson's number.
    lessons = {re.sub(r"^\d+_", "", p.stem): p.name for p in PROC.glob("*.ipynb")}
    for path in PROC.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(rf"{site}(\w+)\.html(#[\w.]+)?", lambda m: lessons.get(m[1], m[0]), text)
        text = re.sub(r'"output-file: [^"]*",\s*', "", text)  # Quarto's, which smalldocs doesn't read
        path.write_text(text.replace("](../docs/", "](docs/"), encoding="utf-8")


def main() -> int:
    "Build the site; the exit code of the renderer."
    refresh_quarto_yml()
    proc_nbs(force=True, n_workers=2)
    finish_pages()
    code = subprocess.run([sys.executable, "-m", "smalldocs.cli", "render", "--quiet", PROC]).returncode
    if code == 0:
        shutil.rmtree(DOCS, ignore_errors=True)
        shutil.move(PROC / "_docs", DOCS)
        print(f"{len(list(DOCS.rglob('*.html')))} pages; open _docs/index.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
