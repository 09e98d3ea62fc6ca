"""Write the second half of docs/teachers.md, what every lesson says of itself: goals, time and exercises."""
import re

import lessons

PAGE = lessons.ROOT / "docs" / "teachers.md"
MARK = "<!-- Below this line written by `make notebooks` from the lessons themselves. -->\n"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def count(n: int, thing: str) -> str:
    return f"{COUNTS[n] if n < len(COUNTS) else n} {thing}{'' if n == 1 else 's'}"


def rebase(text: str) -> str:
    "Links of a notebook, as seen from docs/."
    return re.sub(r"\]\(([\w-]+\.ipynb)", r"](../nbs/\1", text).replace("](../docs/", "](")


def lower(text: str) -> str:
    "The first letter small, but not that of a name in capitals."
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def numbered(exercise: str) -> str:
    "An exercise, whose number is in bold, as an item of a numbered list."
    number, text = re.match(r"\*\*(\d+)\.\s*(.*)", exercise, re.DOTALL).groups()
    return f"{number}. " + (text[2:].lstrip() if text.startswith("**") else f"**{text}") + "\n"


def section(lesson: lessons.Lesson) -> str:
    "One lesson."
    head = (f"### {lesson.number} [{lesson.title}](../nbs/{lesson.path.name})\n\n{lesson.purpose}\n\n"
            f"{lesson.time[0].upper()}{lesson.time[1:]}; {count(len(lesson.figures), 'figure')}, {count(len(lesson.exercises), 'exercise')}. "
            f"Know first: {lesson.first}\n\nAfter it, students can\n\n")
    goals = "".join(f"- {lower(goal)}{';' if n < len(lesson.goals) else '.'}\n" for n, goal in enumerate(lesson.goals, 1))
    return rebase(head + goals + "\nExercises:\n\n" + "".join(numbered(text) for text in lesson.exercises))


def page() -> str:
    "The text of docs/teachers.md: its first half as it is, and the lessons."
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} lacks the line {MARK.strip()}")
    read = lessons.read_all()
    total = sum(lesson.minutes for lesson in read)
    return (written + mark + f"\n{count(len(read), 'lesson').capitalize()}, {total // 60} hours and {total % 60} minutes of reading.\n\n"
            + "\n".join(map(section, read)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("wrote docs/teachers.md")
