"""Memotion 7k: layout and irregularities of the SemEval-2020 download."""

import csv
import io
import shutil
import unicodedata
from collections import Counter

import numpy as np
import PIL.Image
import pytest

from dataset_scripts import load_posts, load_posts_with_report
from dataset_scripts.loaders.memotion import DEGREES, PUBLISHED, meme_rows
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import features
from helpers.faulty_rows import check_faulty_row

COLUMNS = "image_name,text_ocr,text_corrected,humour,sarcasm,offensive,motivational,overall_sentiment".split(",")
FULL_DEGREES = {"very_negative": 151, "negative": 480, "neutral": 2201, "positive": 3127, "very_positive": 1033}


def write_table(file, rows):
    """Write labels.csv as published, with an index column without name."""
    with open(file, "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["", *COLUMNS])
        for number, (image, ocr, corrected, degree) in enumerate(rows):
            writer.writerow([number, image, ocr, corrected, "funny", "general", "slight", "not_motivational", degree])


@pytest.fixture
def download(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(images / "image_1.jpg")
    PIL.Image.fromarray(noise).save(images / "image_2.JPG", "JPEG")
    alpha = PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    alpha.save(images / "image_3.png")
    frames = [PIL.Image.new("P", (8, 8), color) for color in range(3)]
    frames[0].save(images / "image_4.jpg", "GIF", save_all=True, append_images=frames[1:])
    PIL.Image.new("LA", (8, 8)).save(images / "image_5.png")
    PIL.Image.fromarray(noise).convert("CMYK").save(images / "image_6.jpeg", "JPEG")
    rows = [
        ("image_1.jpg", "LOOK THERE MY FRIEND", 'LOOK THERE MY\nFRIEND, "now"', "very_positive"),
        ("image_2.jpeg", "the best of #10 YearChallenge!", "", "positive"),
        ("image_3.png", "", "Sam Thorne", "very_negative"),
        ("image_4.jpg", "nan", "nan", "negative"),
        ("IMAGE_5.PNG", "OCR", "corrected", "neutral"),
        ("image_6.jpeg", "ocr", "NaN", "neutral"),
    ]
    write_table(tmp_path / "labels.csv", rows)
    return tmp_path


def test_five_degrees_become_three_polarities_with_the_published_counts(tmp_path):
    degrees = [degree for degree, count in FULL_DEGREES.items() for _ in range(count)]
    write_table(tmp_path / "labels.csv", [(f"image_{n}.jpg", "a", "b", degree) for n, degree in enumerate(degrees)])
    report = BuildReport("memotion")
    labels = Counter(row[4] for row in meme_rows(report, tmp_path / "labels.csv"))
    assert report.read == PUBLISHED.rows == labels.total() == 6992
    assert labels == PUBLISHED.labels == {"positive": 4160, "neutral": 2201, "negative": 631}
    assert set(DEGREES) == set(FULL_DEGREES)


def test_the_irregularities_of_the_download_are_read_and_counted(download):
    posts, report = load_posts_with_report("memotion", download)
    assert posts.features == features()
    assert posts["text"] == [
        'LOOK THERE MY\nFRIEND, "now"',
        "the best of #10 YearChallenge!",
        "Sam Thorne",
        "",
        "corrected",
        "ocr",
    ]
    assert posts["label"] == [0, 0, 2, 2, 1, 1]
    assert set(posts["text_label"]) == set(posts["image_label"]) == {None}
    assert posts["id"] == ["image_1", "image_2", "image_3", "image_4", "IMAGE_5", "image_6"]
    assert [image.mode for image in posts["image"]] == ["RGB", "RGB", "RGBA", "P", "LA", "CMYK"]
    paths = [stored["path"] for stored in posts.data.column("image").to_pylist()]
    assert paths[1].endswith("images/image_2.JPG") and paths[4].endswith("images/image_5.png")
    assert report.notes == {"without text": 1, "image whose name differs in case, ending or Unicode form": 2}
    assert report.differences[0] == "6 rows read, a full download has 6,992"


def test_an_image_is_found_in_another_unicode_form_of_its_name(download):
    names = [unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD")]
    labels = (download / "labels.csv").read_text(encoding="utf-8").replace("image_1.jpg", names[0])
    (download / "labels.csv").write_text(labels, encoding="utf-8")
    (download / "images" / "image_1.jpg").rename(download / "images" / names[1])
    posts, report = load_posts_with_report("memotion", download)
    assert posts["id"][0] == "café" and posts.data.column("image")[0]["path"].as_py().endswith(names[1])
    assert report.notes["image whose name differs in case, ending or Unicode form"] == 3


def test_a_name_that_matches_two_files_is_a_missing_image(download):
    PIL.Image.new("RGB", (4, 4)).save(download / "images" / "image_2.webp")
    with pytest.raises(ValueError, match=r"line 4: the image .*image_2\.jpeg does not exist"):
        load_posts("memotion", download)


def test_a_truncated_jpeg_is_kept_with_its_missing_part_grey(download):
    file = download / "images" / "image_1.jpg"
    whole = np.asarray(PIL.Image.open(file))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    posts, report = load_posts_with_report("memotion", download)
    assert report.notes["truncated JPEG, its missing part filled with grey"] == 1
    filled = np.asarray(posts[0]["image"])
    assert filled.shape == whole.shape
    assert (filled[:8] == whole[:8]).all() and (filled[-8:] == 128).all()


def test_a_truncated_jpeg_is_unreadable_without_fill_truncated(download):
    file = download / "images" / "image_1.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"line 2: the image .*image_1\.jpg cannot be decoded .*truncated"):
        load_posts("memotion", download, fill_truncated=False)


def _truncated_png(download):
    noise = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(noise).save(stream, "PNG")
    (download / "images" / "image_3.png").write_bytes(stream.getvalue()[:1000])


def _row(text):
    def add(download):
        with open(download / "labels.csv", "a", encoding="utf-8", newline="") as table:
            table.write(text + "\r\n")

    return add


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (_truncated_png, "unreadable image", r"line 5: the image .*image_3\.png cannot be decoded"),
        (_row("6,image_9.png,a,b,x,x,x,x,neutral"), "missing image", r"the image .*image_9\.png does not exist"),
        (_row("6,image_1.png,a,b,x,x,x,x,neutral"), "duplicate id", r"id 'image_1' is also in line 2"),
        (_row("6,image_7.jpg,a,b,x,x,x,x,posiitve"), "unknown label", "got 'posiitve'.*Did you mean 'positive'"),
        (_row("6,,a,b,x,x,x,x,neutral"), "no image name", "image_name is blank"),
        (_row("6,image_7.jpg,a"), "malformed row", "number of fields"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(download, damage, reason, message):
    damage(download)
    check_faulty_row("memotion", download, reason, rf"labels\.csv, .*{message}")


def test_the_archive_as_downloaded_gives_the_same_posts(download, tmp_path_factory):
    root = tmp_path_factory.mktemp("download")
    shutil.copytree(download, root / "memotion_dataset_7k")
    archive = shutil.make_archive(str(download / "archive"), "zip", root)
    assert load_posts("memotion", archive)["text"] == load_posts("memotion", root)["text"]


def test_another_labels_csv_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image_name,text,overall_sentiment\n")
    with pytest.raises(ValueError, match="no column 'text_corrected'; its columns are 'image_name', 'text'"):
        load_posts("memotion", tmp_path)
