"""Images are found by paths of other systems, or the message has a hint."""

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts import load_posts_with_report
from dataset_scripts.reading.files import NAME_DIFFERS_NOTE
from dataset_scripts.reading.image_paths import BACKSLASHES_NOTE, ESCAPES_NOTE, OUTSIDE_NOTE, ImageFinder

NFC, NFD = (unicodedata.normalize(form, "café7.jpg") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path):
    names = ("images/7.jpg", "images/Sub/8.JPG", f"images/{NFD}", "images/a b.png", "images/100%.jpg", "images/9")
    twice = ("twice/1.jpg", "twice/1.png", "twice/A.jpg", "twice/a.jpg", "texts/5.txt", "texts/._6.jpg", "notes.txt")
    for name in (*names, *twice, "../outside.jpg"):
        path = tmp_path / "posts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "posts" / "images" / "folder.jpg").mkdir()
    return tmp_path / "posts"


@pytest.mark.parametrize(
    ("cell", "path", "note"),
    [
        ("images/7.jpg", "images/7.jpg", None),
        (" ./images//7.jpg ", "images/7.jpg", None),
        ("images/../images/7.jpg", "images/7.jpg", None),
        (r"images\7.jpg", "images/7.jpg", BACKSLASHES_NOTE),
        (r".\images\sub\8.jpg", "images/Sub/8.JPG", BACKSLASHES_NOTE),
        ("images/7.JPG", "images/7.jpg", NAME_DIFFERS_NOTE),
        ("IMAGES/sub/8.jpg", "images/Sub/8.JPG", NAME_DIFFERS_NOTE),
        ("images/7", "images/7.jpg", NAME_DIFFERS_NOTE),
        ("images/7.jpeg", "images/7.jpg", NAME_DIFFERS_NOTE),
        ("images/9", "images/9", None),
        (f"images/{NFC}", f"images/{NFD}", NAME_DIFFERS_NOTE),
        ("images/a%20b.png", "images/a b.png", ESCAPES_NOTE),
        (f"images%5C{NFD}", f"images/{NFD}", ESCAPES_NOTE),
        ("images/100%.jpg", "images/100%.jpg", None),
        ("file://{folder}/images/a%20b.png", "images/a b.png", None),
        ("{folder}/images/7.jpg", "images/7.jpg", None),
        ("../outside.jpg", "../outside.jpg", OUTSIDE_NOTE),
        ("twice/A.jpg", "twice/A.jpg", None),
    ],
)
def test_an_image_is_found(folder, cell, path, note):
    found = ImageFinder(folder).find(cell.format(folder=folder))
    assert found.path is not None and os.path.samefile(found.path, folder / path)
    assert found.note == note


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("images/1.jpg", "'images/1.jpg' does not exist; add the file or remove the row. Did you mean 'twice/1.jpg'?"),
        ("8.jpg", "does not exist"),
        ("7.jpg", "Did you mean 'images/7.jpg'?"),
        ("twice/1.gif", "does not exist"),  # 1.jpg or 1.png
        ("twice/1", "does not exist"),
        ("texts/5", "does not exist"),  # a text
        ("texts/6", "does not exist"),  # a file of macOS without an image
        ("images/7.1", "does not exist"),
        (r"C:\data\images\7.jpg", "does not exist; write paths relative to {folder}. Did you mean 'images/7.jpg'?"),
        (r"\\server\share\7.jpg", "write paths relative to"),
        ("/home/another/images/7.jpg", "write paths relative to"),
        ("images", "is a folder"),
        ("images/folder.jpg", "is a folder"),
        ("images/7.jpg\0.png", "has a null byte"),
        ("http://example.org/7.jpg", "is a URL; download it"),
        ("s3://bucket/7.jpg", "is a URL"),
        ("data:image/png;base64,iVBORw0KGgo", "is a data: URI; save it as a file"),
        ("iVBORw0KGgo" * 1000, "(11,000 characters) is no path; if it is base64"),
        ("n" * 300, "… (300 characters) does not exist"),
        ("~no-such-user/7.jpg", "does not exist"),
        ("file://server/7.jpg", "does not exist"),
    ],
)
def test_the_hint_for_an_image_that_is_not_found(folder, cell, problem):
    found = ImageFinder(folder).find(cell)
    assert found.path is None and found.reason
    assert problem.format(folder=folder) in found.problem
    assert len(found.problem) < 300


def test_a_path_in_the_home_folder_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert ImageFinder(folder / "twice").find("~/images/7.jpg").path == folder / "images/7.jpg"


@given(cell=st.text(min_size=1).filter(str.strip))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_cell_gives_a_file_or_one_short_line(tmp_path_factory, cell):
    found = ImageFinder(tmp_path_factory.getbasetemp()).find(cell)
    assert found.path is None or found.path.is_file()
    assert found.path is not None or (found.reason and len(found.problem) < 400 and "\n" not in found.problem)


def test_a_folder_counts_the_paths_that_differ(tmp_path, draw):
    draw(tmp_path / "images" / "1.jpg")
    draw(tmp_path / "images" / NFD, shade=7)
    (tmp_path / "posts.csv").write_text(f"image,text,label\nimages\\1.JPG,one,positive\nimages/{NFC},two,negative\n")
    posts, report = load_posts_with_report("folder", tmp_path)
    assert [image.size for image in posts["image"]] == [posts[0]["image"].size] * 2
    assert report.notes[BACKSLASHES_NOTE] == report.notes[NAME_DIFFERS_NOTE] == 1


def test_a_file_added_later_is_read(tmp_path, draw):
    draw(tmp_path / "1.jpg")
    (tmp_path / "posts.csv").write_text("image,text,label\n1.jpg,one,positive\n2,two,negative\n")
    assert load_posts_with_report("folder", tmp_path, on_error="skip")[1].skipped == {"missing image": 1}
    draw(tmp_path / "2.png", shade=9)
    assert load_posts_with_report("folder", tmp_path, on_error="skip")[1].kept == 2
