"""Write what docs/architecture.md takes from the package: the table of modules, the picture."""
import house
import lessons

PAGE = house.ROOT / "docs" / "architecture.md"
BEGIN = "<!-- The table below is written by `make notebooks` from the lessons. -->\n"
END = "<!-- The table above is written by `make notebooks`. -->\n"
HEAD = "| Module of `annotated_mpnet` | Lesson | What it is for |\n| --- | --- | --- |\n"


def row(module: str, lesson: lessons.Lesson) -> str:
    "A module's line in the table."
    return f"| `{module}` | [{lesson.number}](../nbs/{lesson.path.name}) | {lesson.purpose} |\n"


def table() -> str:
    "Every module, in the order of the lessons."
    read = {lesson.number: lesson for lesson in lessons.read_all()}
    exported = {house.lesson_of(p.read_text(encoding="utf-8")): p.stem
                for p in (house.ROOT / house.PACKAGE).glob("[!_]*.py")}
    return HEAD + "".join(row(exported[number], read[number]) for number in sorted(exported))


def page() -> str:
    "The text of docs/architecture.md: as it is, but for the table."
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the lines around the table of modules")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    house.PICTURE.write_text(house.picture(), encoding="utf-8")
    print(f"wrote docs/{PAGE.name}, docs/images/{house.PICTURE.name}")
