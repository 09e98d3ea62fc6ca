"""The picture docs/images/house.svg: rooms of the package, and how often one imports another."""
import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from drawing import LETTER, box, framed, words

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "annotated_mpnet"
PICTURE = ROOT / "docs" / "images" / "house.svg"
ROOMS = {  # the lesson from which on a module belongs to a room, and the name of the room
    "00": "The rule",
    "00b": "Settings",
    "02": "Text",
    "03": "The model",
    "07": "Batches",
    "08": "Optimizer",
    "08b": "Many processes",
    "08e": "Files",
    "09b": "Around a run",
    "10c": "transformers",
    "10h": "A run's folder",
    "11": "transformers",
    "11a": "A run",
    "13": "The command",
}
MARGIN, GAP = 14, 6               # pixels, as all that follows
NAME, CHIPS, STAIRS = 162, 300, 26  # widths: of a room's name, of its modules, of a step
CHIP = 20                         # height of a module's box
MANY = 3                          # imports from which a step is drawn strong


def lesson_of(source: str) -> str:
    "The number of the lesson that a module is exported from."
    return re.search(r"File to edit: \.\./nbs/(\w+?)_", source)[1]


def imported(source: str, # of a module
             modules: set[str], # all of the package
            ) -> set[str]:   # those of them that it imports, at once or later
    "What a module takes from the package itself."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom):
            continue
        whole = f"{PACKAGE}.{node.module or ''}" if node.level else node.module
        package, _, module = whole.strip(".").partition(".")
        if package == PACKAGE:
            found |= {module} if module else {name.name for name in node.names}
    return found & modules


@dataclass
class Room:
    "Modules of lessons that follow each other."
    name: str
    modules: list[str]


def read(root: Path = ROOT) -> tuple[dict[str, Room], Counter]:
    "The rooms by the number of their first lesson, and how often one imports another."
    sources = {p.stem: p.read_text("utf-8") for p in (root / PACKAGE).glob("[!_]*.py")}
    lessons = {module: lesson_of(source) for module, source in sources.items()}
    rooms, room_of, imports = {}, {}, Counter()
    room = Room("", [])
    for module in sorted(sources, key=lambda m: (lessons[m], m)):
        name = ROOMS[max(first for first in ROOMS if first <= lessons[module])]
        if room.name != name:
            room = rooms[lessons[module]] = Room(name, [])
        room.modules.append(module)
        room_of[module] = next(reversed(rooms))
        for other in imported(sources[module], set(sources)):
            imports[room_of[module], room_of[other]] += 1
    return rooms, imports


def laid_out(modules: list[str]) -> list[tuple[str, float, int, float]]:
    "For each module of a room its name, its box's left edge and line, and its box's width."
    x, line, boxes = 0.0, 0, []
    for module in modules:
        width = round(len(module) * LETTER + 12, 1)
        if x and x + width > CHIPS:
            x, line = 0.0, line + 1
        boxes.append((module, round(x, 1), line, width))
        x += width + GAP
    return boxes


def floor(number: str, room: Room, top: float) -> tuple[list[str], float]:
    "One room with its modules, and its height."
    boxes = laid_out(room.modules)
    lines = boxes[-1][2] + 1
    height = lines * (CHIP + GAP) + 2 * GAP + 2
    parts = [box(MARGIN, top, NAME + CHIPS + 2 * GAP, height, "card", 8),
             words(MARGIN + 10, top + 24, number, "soft"),
             words(MARGIN + 40, top + 24, room.name, "name")]
    for module, x, line, width in boxes:
        left, y = MARGIN + NAME + GAP + x, top + GAP + 4 + line * (CHIP + GAP)
        parts += [box(left, y, width, CHIP, "chip"), words(left + 6, y + 14, module)]
    return parts, height


def step(imports: Counter, row: str, column: str, left: float, middle: float) -> list[str]:
    "The square that says how often a room imports from another, or within itself."
    n, side = imports[row, column], STAIRS - 4
    kind = "context" if n >= MANY else "context faint"
    kind = "none" if not n else "mask" if row == column else kind
    parts = [box(left + 2, middle - side / 2, side, side, kind)]
    if n:
        on = " on" if kind in ("mask", "context") else ""
        parts.append(words(left + STAIRS / 2, middle + 4, str(n), "middle" + on))
    return parts


def told(rooms: dict[str, Room], imports: Counter) -> str:
    "The picture in words."
    lines = []
    for row, room in rooms.items():
        others = [f"{imports[row, c]} from {c}" for c in rooms if c < row and imports[row, c]]
        lines.append(f"{row} {room.name}: {', '.join(room.modules)}; imports "
                     f"{', '.join(others) or 'nothing from other rooms'}.")
    return " ".join(["From the ground up.", *lines, "No room imports from one above it."])


def picture(root: Path = ROOT) -> str:
    "The whole picture as SVG."
    rooms, imports = read(root)
    stairs = MARGIN + NAME + CHIPS + 2 * GAP + 14   # the left edge of all steps
    parts, top = [], float(MARGIN)
    for row in reversed(rooms):
        drawn, height = floor(row, rooms[row], top)
        parts += drawn
        for n, column in enumerate(c for c in rooms if c <= row):
            parts += step(imports, row, column, stairs + n * STAIRS, top + height / 2)
        top += height + GAP
    parts.append(words(stairs - 14, top + 12, "imports from", "end soft"))
    for n, column in enumerate(rooms):
        parts.append(words(stairs + (n + 0.5) * STAIRS, top + 12, column, "middle soft"))
    width = stairs + len(rooms) * STAIRS + MARGIN
    title = "The rooms of the package, and who imports from whom"
    return framed("house", title, told(rooms, imports), width, top + 24, parts)
