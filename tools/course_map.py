"""The map of the course: the parts of what it builds, and to which of them each lesson belongs.

On the site, every lesson has it below its title. The core lessons show it in Jupyter too.
"""
import re

from drawing import arrow, box, framed, line, words

PARTS = { # as they follow each other: name, left edge, upper edge
    "command": ("the command", 12, 12),
    "text": ("text and tokens", 12, 54),
    "data": ("data", 12, 96),
    "batch": ("the batch", 12, 138),
    "positions": ("positions", 154, 24),
    "attention": ("attention", 154, 75),
    "model": ("layers and head", 154, 126),
    "update": ("one update", 314, 12),
    "processes": ("many processes", 314, 54),
    "run": ("the run", 314, 96),
    "export": ("export and use", 314, 138),
}
# A lesson that isn't named belongs where its digits belong.
PART_OF = {
    "00": "", "00b": "command", "00c": "command", "01": "command",
    "02": "text", "02h": "data", "02i": "data",
    "03": "batch", "04": "positions", "05": "attention", "05c": "model",
    "06": "model", "06b": "export", "06c": "update", "06d": "export",
    "07": "data",
    "08": "update", "08b": "processes", "08c": "processes", "08d": "processes",
    "08e": "run", "08f": "run", "08g": "run", "08h": "run", "09": "run", "09b": "processes",
    "10": "run", "10c": "export", "10d": "export", "10e": "export", "10f": "export",
    "10g": "export", "11": "export",
    "11a": "run", "11b": "run", "11c": "update", "11d": "run", "11e": "run", "11f": "run",
    "12": "run", "12b": "command", "13": "command", "13b": "data", "13c": "data", "14": "run",
    "20": "update", "21": "processes", "22": "text",
    "30": "run", "31": "attention", "32": "export", "33": "export", "34": "model",
}
TITLE = "Map of the course"
HIGH = 30  # of a part
HERE = """\
<style>
.drawn .here rect { fill: var(--mask); stroke: var(--mask); }
.drawn .here text { fill: #20242e; font-weight: 650; }
</style>"""


def part_of(lesson: str) -> str: # nothing: to none, as the first lesson, which shows all
    "The part that a lesson such as 05b belongs to."
    return PART_OF.get(lesson, PART_OF.get(re.match(r"\d*", lesson)[0], ""))


def wide(x: float) -> int:
    "The width of a part, which is larger in the model."
    return 122 if 144 < x < 286 else 104


def drawn() -> str:
    "The map, with a class for each part by which it can be marked."
    parts = [HERE, box(144, 12, 142, 156, "card", 8)]
    for part, (name, x, y) in PARTS.items():
        said = words(x + wide(x) / 2, y + 19, name, "middle say")
        parts.append(f'<g class="part-{part}">{box(x, y, wide(x), HIGH, "chip")}{said}</g>')
    edges = [(PARTS[a], PARTS[b]) for a, b in zip(list(PARTS), list(PARTS)[1:])]
    for (_, x, y), (_, x2, y2) in edges:
        if x == x2:
            middle = x + wide(x) / 2
            parts.append(arrow((middle, y + HIGH), (middle, y2 - 1)))
    parts += [arrow((116, 153), (130, 153), (130, 39), (153, 39)),
              arrow((276, 141), (300, 141), (300, 27), (313, 27)),
              line((276, 39), (281, 39), (281, 90), (276, 90), kind="tied"),
              line((154, 45), (149, 45), (149, 147), (154, 147), kind="tied")]
    about = "Texts become batches, from which the model learns, update by update, in a run."
    return framed("map", TITLE, about, 430, 180, parts)


def marked(lesson: str) -> str:
    "The map with the part of a lesson marked."
    if not (part := part_of(lesson)):
        return drawn()
    return drawn().replace(f"part-{part}", "here").replace(TITLE, f"{TITLE}: {PARTS[part][0]}")


def block(lesson: str,           # such as 05b
          links: dict[str, str], # lesson -> address, of all lessons
         ) -> str:                # HTML
    "The map on a lesson's page, and links to the other lessons of the same part."
    part = part_of(lesson)
    others = [f'<a href="{url}">{n}</a>' for n, url in links.items()
              if part and part_of(n) == part and n != lesson]
    said = f"You are here: <b>{PARTS[part][0]}</b>." if part else "What the course builds."
    if others:
        said += f" Other lessons on it: {', '.join(others)}."
    drawing = re.sub('<style id="palette">.*?</style>', "", marked(lesson), flags=re.DOTALL)
    return f'<div class="map">{drawing}<p>{said}</p></div>'
