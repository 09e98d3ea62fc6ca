"""The pictures and the map of the course: what they show, and that lessons show them."""
import re
from xml.dom import minidom

import course
import course_map
import in_step
import lessons
import nbformat
import pictures
import pytest
from IPython.display import SVG

from annotated_mpnet.positions import bucket_starts, relative_position_bucket

DRAWN = {path.stem: text for path, text in pictures.all_of_them().items()}
NUMBERS = [course.number(path) for path in course.in_order()]


def texts(name: str) -> list[str]:
    "The lines of text in a picture."
    found = minidom.parseString(DRAWN[name]).getElementsByTagName("text")
    return [text.firstChild.data for text in found]


def outputs(begins: str) -> list[dict]:
    "The saved outputs of the lessons whose names begin so."
    paths = sorted(lessons.NBS.glob(f"{begins}*.ipynb"))
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells]
    return [output for cell in cells for output in cell.get("outputs", [])]


def printed(begins: str) -> str:
    "What these lessons print."
    return "\n".join(map(in_step.output_text, outputs(begins)))


def shown() -> list[str]:
    "Every SVG that is saved in a lesson."
    data = [output.get("data", {}) for output in outputs("")]
    return [kinds["image/svg+xml"] for kinds in data if "image/svg+xml" in kinds]


def test_pictures_are_what_the_package_draws(monkeypatch, tmp_path):
    assert in_step.pictures_current() == []
    changed = pictures.SENTENCE.replace("task", "text")
    monkeypatch.setattr(pictures, "SENTENCE", changed)
    assert "permutation.svg is not what" in "\n".join(in_step.pictures_current())


def test_lessons_show_the_pictures_as_they_are():
    made = [SVG(text)._repr_svg_() for name, text in DRAWN.items() if name != "map"]
    maps = [SVG(course_map.drawn().replace(f"part-{part}", "here"))._repr_svg_()
            for part in ("none", *course_map.PARTS)]
    assert set(shown()) <= {*made, *maps}
    assert set(made) <= set(shown()), "a picture is in no lesson"


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_whole(name):
    svg = minidom.parseString(DRAWN[name]).documentElement
    palette, look = svg.getElementsByTagName("style")[:2]
    assert palette.getAttribute("id") == "palette" and ".drawn" in look.firstChild.data
    used = set(re.findall(r"var\((--\w+)\)", DRAWN[name]))
    assert used <= set(re.findall(r"(--\w+):", palette.firstChild.data))
    for part in ("title", "desc"):
        said, = svg.getElementsByTagName(part)
        assert said.firstChild.data and said.getAttribute("id") in svg.getAttribute(
            "aria-labelledby").split()
    width, height = (float(svg.getAttribute(side)) for side in ("width", "height"))
    for rect in svg.getElementsByTagName("rect"):
        x, y, w, h = (float(rect.getAttribute(a)) for a in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height


def test_permutation_moves_tokens_with_their_positions():
    some, said = pictures.example(pictures.CORRUPTED), texts("permutation")
    T, P = len(some.ids), some.batch["pred_size"]
    pairs = list(zip(said, said[1:]))
    for n, token in enumerate(some.tokens):
        assert pairs.count((token, str(n))) == 2, "in order and permuted"
    masks, truth = some.columns[T:T + P], some.columns[T - P:T]
    assert masks == some.columns[T + P:] and truth != masks
    wrong = [mask for mask in masks if mask != "<mask>"]
    assert len(wrong) == 1 and wrong[0] not in truth
    assert DRAWN["permutation"].count('"mask odd"') == 1


def test_ruler_is_the_function_and_says_what_the_lesson_says():
    for bucket, first, last in pictures.segments(-140, 140):
        for distance in (first, last):
            assert int(relative_position_bucket(pictures.torch.tensor(distance))) == bucket
    starts = [int(s) for s in re.findall(r'y="243" class="soft">(\d+)<', DRAWN["ruler"])]
    assert set(starts) <= set(bucket_starts(32, 128)) and starts[-1] == bucket_starts(32, 128)[-1]
    assert f", {starts[-1]}]" in printed("04")


def test_shapes_of_the_model_are_those_that_its_lessons_print():
    shapes = set(re.findall(r"\([\d, ]+\)", " ".join(texts("model"))))
    lesson = printed("05c") + printed("06")
    assert len(shapes) >= 6
    for shape in ("(1, 15)", "(1, 15, 32)", "(5120, 32)", "(1, 3, 32)", "(1, 3, 5120)"):
        assert shape in shapes and shape in lesson
    assert len(pictures.example().blocks) * pictures.PITCH - 3 == pictures.ACROSS


def test_losses_of_the_update_are_those_that_a_lesson_prints():
    found = pictures.numbers(pictures.example())
    assert found == pictures.numbers(pictures.example()), "the model is as it was before"
    for loss in found["losses"]:
        assert f"{loss:.2f}" in texts("update") and f"{loss:.2f} nats" in printed("06")
    assert found["after"] < sum(found["losses"]) / len(found["losses"])
    # what is rounded doesn't lie where another machine would round it otherwise
    rounded = [(loss, 2) for loss in found["losses"]] + [(found["after"], 1), (found["norm"], 0)]
    for number, places in [*rounded, *((100 * p, 0) for p in found["p"])]:
        assert abs(number * 10**places % 1 - 0.5) > 0.02, number


# The map

def test_every_lesson_has_its_part():
    assert set(map(course_map.part_of, NUMBERS)) == {"", *course_map.PARTS}
    for number in NUMBERS:
        assert number in course_map.PART_OF or number[:2] in course_map.PART_OF, number
    assert course_map.part_of("05z") == course_map.part_of("05") == "attention"


@pytest.mark.parametrize("number", [n for n in course.CORE if n in NUMBERS])
def test_core_lessons_show_the_map_in_jupyter(number):
    path, = lessons.NBS.glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    sources = [c.source for c in cells if c.cell_type == "code" and '"map.svg"' in c.source]
    part = course_map.part_of(number)
    assert len(sources) == 1, "copy the map's cell of lesson 03, and mark this lesson's part"
    assert "include: false" in sources[0], "the site has a map already"
    marks = re.findall(r'replace\("part-(\w+)", "here"\)', sources[0])
    assert marks == ([part] if part else [])


def test_the_map_marks_one_part():
    for number in NUMBERS:
        part = course_map.part_of(number)
        assert course_map.marked(number).count('class="here"') == bool(part)
    block = course_map.block("05", {"05": "a.html", "05b": "b.html", "06": "c.html"})
    assert "palette" not in block and ">05b</a>" in block and "c.html" not in block
