"""The pages for teachers, for contributors and of words: complete, and in step with the lessons."""
import re

import in_step
import lessons
import pytest
import teachers_page

DOCS = lessons.ROOT / "docs"
TERM = re.compile(r'^- <a id="([\w-]+)"></a>\*\*(.+?)\.\*\* (.+)$', re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def part(heading: str) -> str:
    "One part of docs/teachers.md."
    pattern = rf"^## {heading}.*?(?=^## )"
    return re.search(pattern, page("teachers.md"), re.MULTILINE | re.DOTALL)[0]


def first_lessons() -> set[str]: # numbers
    "Those before lesson 20."
    return {lesson.number for lesson in lessons.read_all() if lesson.number < "20"}


def test_the_long_plan_takes_in_every_lesson():
    plan = part("Four weeks")
    named = set(re.findall(r"nbs/([\w-]+\.ipynb)", plan))
    assert {lesson.path.name for lesson in lessons.read_all() if lesson.number < "20"} == named
    assert "the lessons from 20 on" in plan


def test_the_short_plans_fit_their_time():
    minutes = [int(n) for n in re.findall(r"^\| (\d+) \|", part("One lecture"), re.MULTILINE)]
    assert sum(minutes) == 90
    clock = re.findall(r"^\| (\d+):(\d\d) \|", part("One day"), re.MULTILINE)
    times = [60 * int(h) + int(m) for h, m in clock]
    assert times == sorted(times) and len(times) == len(set(times)) >= 6


def test_the_lessons_a_day_leaves_out_are_named():
    plan = part("One day")
    left_out = set(re.findall(r"\b\d\d[a-z]?\b", re.search(r"Left out, .*?: (.+)\.", plan)[1]))
    taught = {name.split("_")[0] for name in re.findall(r"nbs/([\w-]+)\.ipynb", plan)}
    assert left_out | taught == first_lessons() and not left_out & taught


def test_a_lesson_that_changed_is_found(monkeypatch):
    assert in_step.teachers_current() == []
    changed = lessons.read_all()
    changed[3].goals[0] = "Do something else"
    monkeypatch.setattr(lessons, "read_all", lambda: changed)
    said = "docs/teachers.md is not what the lessons say"
    assert any(said in p for p in in_step.teachers_current())


@pytest.mark.parametrize("text, link", [
    ("see [x](nowhere.md)", "nowhere.md"), ("see [x](#no-such-term)", "#no-such-term")])
def test_a_broken_link_is_found(monkeypatch, tmp_path, text, link):
    (tmp_path / "docs").mkdir()
    for name in ("teachers.md", "contributing.md"):
        (tmp_path / "docs" / name).write_text("", encoding="utf-8")
    (tmp_path / "docs" / "glossary.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(in_step, "ROOT", tmp_path)
    assert any(f"docs/glossary.md links to {link}," in p for p in in_step.teachers_current())


def test_each_lesson_is_on_the_page_for_teachers_with_its_goals_and_exercises():
    for lesson in lessons.read_all():
        text = teachers_page.section(lesson)
        assert text in page("teachers.md") and text.count("\n- ") == len(lesson.goals)
        expected = [str(n) for n in range(1, len(lesson.exercises) + 1)]
        assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == expected, lesson.path.name


def test_the_glossary_is_in_order_and_its_words_are_in_their_lessons():
    terms = TERM.findall(page("glossary.md"))
    lines = page("glossary.md").count("\n- ")
    assert len(terms) == lines > 40, "each line has the form of the others"
    assert len({anchor for anchor, _, _ in terms}) == len(terms)
    heads = [head.lower().replace("-", "") for _, head, _ in terms]
    assert heads == sorted(heads)
    for _, head, text in terms:
        word = re.split(r"[ ,]", head)[0].lower()[:7]  # "corruption" stands there as "corrupt"
        files = re.findall(r"nbs/([\w-]+\.ipynb)", text)
        assert files, f"{head} names no lesson"
        for file in files:
            text = (lessons.NBS / file).read_text(encoding="utf-8").lower()
            assert word in text, f"{file} doesn't say {word}"


def test_every_module_is_on_the_page_of_the_architecture():
    modules = {p.stem for p in (lessons.ROOT / "annotated_mpnet").glob("[!_]*.py")}
    table = page("architecture.md").split("## Every module")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == modules
