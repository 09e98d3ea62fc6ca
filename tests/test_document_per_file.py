"""--document-per-file: one document is one file, whatever stands in it."""
import gzip
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotated_mpnet.carried import carry_over
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.documents import LineFiles, open_folder

some = settings(deadline=None, derandomize=True, max_examples=60,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
contents = st.lists(st.text("aé漢 \n\r\t", max_size=30).map(lambda text: text.encode()), max_size=6)


@some
@given(contents)
def test_every_file_with_text_is_one_document(tmp_path, contents):
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.txt").write_bytes(content)
    paths = [tmp_path / f"{i}.txt" for i in range(len(contents))]
    texts = [content.decode().strip() for content in contents]
    whole = LineFiles(paths, whole=True)
    assert list(whole) == [text for text in texts if text]
    assert len(whole) <= len(LineFiles(paths))


def corpus(folder):
    "A folder with folders in it, compressed and broken files, and what is held out."
    for name in ("train/deep", "held", "other"):
        (folder / name).mkdir(parents=True)
    (folder / "train/a.txt").write_text("first line\n\nthird line\n")
    (folder / "train/deep/b.txt.gz").write_bytes(gzip.compress(b"packed\ntext"))
    (folder / "train/blank.txt").write_text(" \n\n")
    (folder / "held/v.txt").write_text("held\nout")
    (folder / "held/w.txt").write_text("twice")
    (folder / "other/lines.txt").write_text("one\ntwo")
    return folder


def opened(folder, **more):
    "The texts to train, validate and test on."
    usual = {"train_dir": folder / "train", "valid_file": folder / "held",
             "test_file": folder / "other/lines.txt"}
    names = {name: str(more.pop(name, path)) for name, path in usual.items()}
    return open_folder(PretrainConfig(**names, **{"document_per_file": True, **more}))


def test_folders_and_compressed_files(tmp_path):
    train, valid, test = opened(corpus(tmp_path))
    assert list(train) == ["first line\n\nthird line", "packed\ntext"]
    assert list(valid) == ["held\nout", "twice"]
    assert list(test) == ["one", "two"]  # a single file holds one document on a line, as ever


def test_what_is_held_out_may_lie_in_the_folder(tmp_path):
    folder = corpus(tmp_path)
    shutil.move(folder / "held", folder / "train/held")
    train, valid, _ = opened(folder, valid_file=folder / "train/held")
    assert not set(train) & set(valid) and len(train) == 2 and len(valid) == 2


def test_broken_files_are_skipped_and_counted(tmp_path):
    folder = corpus(tmp_path)
    for name, content in [("bad.txt", b"fine\n\xff\xfe\nfine"), ("torn.txt.gz", b"\x1f\x8b\0")]:
        (folder / "train" / name).write_bytes(content)
    train, _, _ = opened(folder, max_broken_share=0.5)
    assert len(train) == 2 and train.unread.broken_files == 2 and train.unread.broken == 0
    assert any("bad.txt, line 2 is not UTF-8" in line for line in train.unread.said)
    for share in (0.0, 0.1):
        with pytest.raises(UserError, match="UTF-8|can't be"):
            opened(folder, max_broken_share=share)


def test_lines_and_files_are_two_corpora(tmp_path):
    folder = corpus(tmp_path)
    whole, lines = opened(folder)[0], LineFiles(sorted((folder / "train").glob("*.txt")))
    assert "whole files" in whole.name and "lines" in lines.name


@pytest.mark.parametrize("valid, more, words", [
    ("train", {}, "holds texts of --train-dir"),
    ("", {}, "holds texts of --train-dir"),
    ("held", {"document_per_file": False}, "is not a file"),
    ("nowhere", {}, "is not a file"),
    ("empty", {}, "has no text"),
])
def test_what_cannot_be_held_out(tmp_path, valid, more, words):
    folder = corpus(tmp_path)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=words) as caught:
        opened(folder, valid_file=folder / valid, **more)
    assert "\n" not in str(caught.value) and "--valid-file" in str(caught.value)


@pytest.mark.parametrize("given, expected", [
    ({}, True),  # the texts are those of the run, and so is how they are read
    ({"train_dir": "others", "valid_file": "v", "test_file": "t"}, False),
    ({"train_dir": "others", "valid_file": "v", "test_file": "t", "document_per_file": True}, True),
    ({"dataset_name": "others"}, False),
])
def test_goes_with_its_texts(given, expected):
    "A resumed run reads other texts as it is told to, not as the earlier ones were read."
    stored = {"train_dir": "texts", "valid_file": "v", "test_file": "t", "document_per_file": True}
    carried = carry_over(PretrainConfig(resume=True, **given), stored, own=stored)
    assert carried.document_per_file == expected
