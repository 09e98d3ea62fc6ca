"""Write the second half of docs/teachers.md: the goals, time and exercises of every lesson."""
import re

import course
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
    title = f"### {lesson.number} [{lesson.title}](../nbs/{lesson.path.name})"
    time = lesson.time[0].upper() + lesson.time[1:]
    figures = count(len(lesson.figures), "figure")
    exercises = count(len(lesson.exercises), "exercise")
    head = (f"{title}\n\n{lesson.purpose}\n\n"
            f"{time}; {figures}, {exercises}. Path: {course.path_of(lesson.number)}. "
            f"Know first: {lesson.first}\n\n"
            "After it, students can\n\n")
    goals = ";\n".join(f"- {lower(goal)}" for goal in lesson.goals) + ".\n"
    tasks = "".join(map(numbered, lesson.exercises))
    return rebase(f"{head}{goals}\nExercises:\n\n{tasks}")


def page() -> str:
    "The text of docs/teachers.md: its first half as it is, and the lessons."
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} lacks the line {MARK.strip()}")
    read = lessons.read_all()
    hours, minutes = divmod(sum(lesson.minutes for lesson in read), 60)
    lessons_ = count(len(read), "lesson").capitalize()
    total = f"{lessons_}, {hours} hours and {minutes} minutes of reading."
    return f"{written}{mark}\n{total}\n\n" + "\n".join(map(section, read))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("wrote docs/teachers.md")
