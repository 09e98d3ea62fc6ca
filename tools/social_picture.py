"""Draw docs/assets/social.png, the picture of a link to the site: `two_stream_mask`, and the title.

    python tools/social_picture.py

It needs Chromium; the picture is kept in the repository, so that `make docs` doesn't.
"""
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from annotated_mpnet.attention import two_stream_mask

ASSETS = Path(__file__).resolve().parents[1] / "docs/assets"
CONTEXT, PREDICTED = 4, 4
COLOURS = ["#ECE8DC", "#56B4E9", "#009E73", "#E69F00"]


def drawing(size: int = 29, gap: int = 5) -> str:
    "The mask as SVG: rows ask, columns are looked at."
    sees = two_stream_mask(CONTEXT, PREDICTED)
    kinds = [1] * CONTEXT + [2] * PREDICTED + [3] * PREDICTED
    step, cells = size + gap, []
    for y, row in enumerate(sees.tolist()):
        for x, seen in enumerate(row):
            fill = COLOURS[kinds[x] if seen else 0]
            cells.append(f'<rect x="{x * step}" y="{y * step}" width="{size}" height="{size}" '
                         f'rx="6" fill="{fill}"/>')
    height, width = (n * step - gap for n in sees.shape)
    return f'<svg width="{width}" height="{height}">{"".join(cells)}</svg>'


PAGE = """<style>
@font-face {{ font-family: Literata; font-weight: 200 900;
  src: url("{fonts}/literata-latin-wght-normal.woff2"); }}
@font-face {{ font-family: Sans; font-weight: 400 700;
  src: url("{fonts}/instrument-sans-latin-wght-normal.woff2"); }}
body {{ margin: 0; width: 1200px; height: 630px; background: #FCFBF7; color: #20242E;
  display: flex; align-items: center; gap: 70px; padding: 0 70px 0 80px; box-sizing: border-box; }}
h1 {{ font: 640 76px/1.05 Literata; letter-spacing: -.035em; margin: 0 0 28px; }}
p {{ font: 400 33px/1.35 Literata; color: #5B6170; margin: 0 0 34px; }}
svg {{ flex: none; }}
small {{ font: 600 23px Sans; color: #20242E; }}
</style><body><div><h1>annotated-<br>mpnet</h1>
<p>Masked and permuted pretraining: the course, the library, the trainer.</p>
<small>Read it, run it, pretrain with it</small></div>{drawing}"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    "Take the picture; 1 where there is no Chromium."
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print("Chromium is missing", file=sys.stderr)
        return 1
    page_file = ASSETS / ".social.html"  # beside the fonts: elsewhere it may not read them
    page_file.write_text(PAGE.format(fonts="fonts", drawing=drawing()), encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=path, args=options)
            page = browser.new_page(viewport={"width": 1200, "height": 630})
            page.goto(page_file.as_uri())
            page.evaluate("document.fonts.ready")
            page.screenshot(path=ASSETS / "social.png")
            browser.close()
    finally:
        page_file.unlink()
    print("wrote docs/assets/social.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
