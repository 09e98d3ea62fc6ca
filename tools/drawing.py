"""What all drawings share: palette, text, boxes, lines, and the SVG around them."""
import html

# Names of docs/assets/site.css, whose values hold where a drawing stands in a page of the site.
PALETTE = """\
.drawn {
  --context: #56B4E9; --target: #009E73; --mask: #E69F00; --paper: #fcfbf7; --ink: #20242e;
  --soft: #5b6170; --line: #e4e0d4; --card: #ffffff; --tint: #f5f2e9;
  --sans: Instrument Sans, system-ui, sans-serif;
  --mono: JetBrains Mono, ui-monospace, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  .drawn {
    --paper: #14171c; --ink: #e2e4e8; --soft: #a3aab6;
    --line: #2c323c; --card: #1b1f26; --tint: #252b34;
  }
}"""
LOOK = """\
.drawn text { fill: var(--ink); font: 400 11px var(--mono); }
.drawn .name { font: 600 13px var(--sans); }
.drawn .say { font: 400 12px var(--sans); }
.drawn .soft { fill: var(--soft); }
.drawn .middle { text-anchor: middle; }
.drawn .end { text-anchor: end; }
.drawn .on { fill: #20242e; font-weight: 600; }
.drawn .ground { fill: var(--paper); }
.drawn .card { fill: var(--card); stroke: var(--line); }
.drawn .chip { fill: var(--tint); stroke: var(--line); }
.drawn .none { fill: none; stroke: var(--line); }
.drawn .context { fill: var(--context); }
.drawn .target { fill: var(--target); }
.drawn .mask { fill: var(--mask); }
.drawn .query { fill: none; stroke: var(--mask); stroke-width: 2; }
.drawn .faint { fill-opacity: .3; }
.drawn .odd { stroke: var(--ink); stroke-width: 2.5; }
.drawn path { fill: none; stroke: var(--soft); stroke-width: 1.4; }
.drawn path.context { fill: none; stroke: var(--context); }
.drawn path.target { fill: none; stroke: var(--target); stroke-width: 2; }
.drawn path.head { fill: var(--soft); stroke: none; }
.drawn .tied { stroke-dasharray: 4 3; }"""
LETTER = 6.6  # pixels of a letter of the code font; all lengths are in pixels


def words(x: float, y: float, text: object, kind: str = "", turned: bool = False) -> str:
    "A line of text; turned, it is read from below."
    class_ = f' class="{kind}"' if kind else ""
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return f'<text x="{x:g}" y="{y:g}"{class_}{turn}>{html.escape(str(text))}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, corner: int = 4) -> str:
    "A rectangle."
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="{corner}" class="{kind}"/>'


def line(*points: tuple[float, float], kind: str = "") -> str:
    "A line through some points."
    d = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="{d}"' + (f' class="{kind}"' if kind else "") + "/>"


def arrow(*points: tuple[float, float], kind: str = "") -> str:
    "A line that ends in an arrowhead, in whichever of the four directions it comes."
    (x0, y0), (x, y) = points[-2:]
    along, across = ((x > x0) - (x < x0), (y > y0) - (y < y0))
    left, right = ((x - 6 * along + side * across * 3.5, y - 6 * across + side * along * 3.5)
                   for side in (1, -1))
    tip = "L".join(f"{a:g} {b:g}" for a, b in ((x, y), left, right))
    return line(*points, kind=kind) + f'<path d="M{tip}Z" class="head"/>'


def framed(name: str, # of the drawing, unique in a page
           title: str, # what it shows
           about: str, # the same in words, for those who don't see it
           width: float,
           height: float,
           parts: list[str],
          ) -> str:
    "The SVG around what was drawn."
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn" {size} role="img" '
        f'aria-labelledby="{name}-title {name}-desc">',
        f'<title id="{name}-title">{html.escape(title)}</title>',
        f'<desc id="{name}-desc">{html.escape(about)}</desc>',
        f'<style id="palette">\n{PALETTE}\n</style>',
        f"<style>\n{LOOK}\n</style>",
        box(0, 0, width, height, "ground", 12), *parts, "</svg>", ""])
