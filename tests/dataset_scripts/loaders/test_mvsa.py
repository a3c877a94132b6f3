"""MVSA-Single: layout and irregularities of its download, and MultiSentiNet's rule."""

import logging
import shutil
from collections import Counter

import pytest

from dataset_scripts import load_posts, load_posts_with_report
from dataset_scripts.loaders.mvsa import SINGLE, label_rows, merge_labels
from dataset_scripts.reading.report import NO_LABEL, BuildReport
from dataset_scripts.reading.text_files import decode_text
from dataset_scripts.schema import features
from helpers.faulty_rows import check_faulty_row

# Posts of the full download by (text label, image label).
FULL_PAIRS = {
    ("positive", "positive"): 1398,
    ("neutral", "positive"): 1030,
    ("negative", "negative"): 724,
    ("neutral", "neutral"): 470,
    ("neutral", "negative"): 421,
    ("positive", "neutral"): 255,
    ("negative", "neutral"): 213,
    ("negative", "positive"): 280,
    ("positive", "negative"): 78,
}


@pytest.fixture
def download(tmp_path, draw):
    """Write five rows with gaps in the ids and CRLF; row 9 has opposite polarities."""
    folder = tmp_path / "MVSA_Single"
    rows = {
        "1": (b"so happy https://t.co/x", "positive,neutral"),
        "3": ("rain “again”…".encode("gb18030"), "neutral,negative"),
        "4": ("café ?? ??".encode(), "neutral,neutral"),
        "9": (b"great, just great", "positive,negative"),
        "12": (b"RT @me: fine \r\n", "negative,negative"),
    }
    lines = ["ID\ttext,image"]
    for post, (text, labels) in rows.items():
        draw(folder / "data" / f"{post}.jpg", shade=int(post))
        (folder / "data" / f"{post}.txt").write_bytes(text)
        lines.append(f"{post}\t{labels}")
    (folder / "labelResultAll.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    return folder


def add_row(download, line):
    with open(download / "labelResultAll.txt", "ab") as file:
        file.write(line.encode() + b"\r\n")


def test_polarity_wins_over_neutral_and_opposite_polarities_are_dropped():
    assert merge_labels("positive", "positive") == merge_labels("positive", "neutral") == "positive"
    assert merge_labels("neutral", "negative") == "negative"
    assert merge_labels("neutral", "neutral") == "neutral"
    assert merge_labels("positive", "negative") is None and merge_labels("negative", "positive") is None


def test_the_full_download_gives_4511_of_4869(tmp_path):
    pairs = [pair for pair, count in FULL_PAIRS.items() for _ in range(count)]
    lines = ["ID\ttext,image", *(f"{number}\t{','.join(pair)}" for number, pair in enumerate(pairs, start=1))]
    (tmp_path / "labelResultAll.txt").write_text("\n".join(lines))
    report = BuildReport("mvsa_single")
    labels = Counter(label for _, _, label, _, _ in label_rows(report, tmp_path / "labelResultAll.txt"))
    assert report.read == SINGLE.rows == 4869
    assert labels == SINGLE.labels == {"positive": 2683, "neutral": 470, "negative": 1358}
    assert sorted(report.dropped.values()) == [78, 280]


def test_posts_have_both_labels_and_decoded_texts(download):
    posts, report = load_posts_with_report("mvsa_single", download)
    assert posts.features == features()
    assert posts["id"] == ["1", "3", "4", "12"]
    assert posts["text"] == ["so happy https://t.co/x", "rain “again”…", "café ?? ??", "RT @me: fine"]
    assert posts["label"] == [0, 2, 1, 2]
    assert posts["text_label"] == [0, 1, 1, 2]
    assert posts["image_label"] == [1, 2, 1, 2]
    stored = posts.data.column("image").to_pylist()[0]
    assert stored == {"bytes": None, "path": str(download / "data" / "1.jpg")}
    assert set(posts["language"]) == {"en"} and set(posts["source"]) == {"mvsa_single"}
    assert report.dropped == {"opposite polarities (positive text, negative image)": 1}
    assert report.notes == {"text read as GB18030": 1}


def test_opposite_polarities_are_kept_without_label_on_request(download):
    posts, report = load_posts_with_report("mvsa_single", download, keep_opposite=True)
    assert posts["id"] == ["1", "3", "4", "9", "12"]
    assert posts["label"] == [0, 2, 1, None, 2] and (posts[3]["text_label"], posts[3]["image_label"]) == (0, 2)
    assert report.dropped == {} and report.labels[NO_LABEL] == 1


def test_invalid_bytes_are_replaced_and_counted(download):
    (download / "data" / "1.txt").write_bytes(b"so \xa1\xad happy \xff\xff!")
    posts, report = load_posts_with_report("mvsa_single", download)
    assert posts["text"][0].startswith("so … happy") and "\ufffd" in posts["text"][0]
    assert report.notes["text with bytes of no encoding, replaced by U+FFFD"] == 1


def test_valid_utf8_is_read_as_utf8():
    assert decode_text("“déjà vu”".encode()) == ("“déjà vu”", "utf-8-sig")
    assert decode_text(b"\xef\xbb\xbfwith a mark") == ("with a mark", "utf-8-sig")
    assert decode_text(b"quoted \xa1\xb0so\xa1\xb1") == ("quoted “so”", "gb18030")


def _unlink(name):
    return lambda folder: (folder / "data" / name).unlink()


def _cut(name, stop):
    """Cut a file at `stop`, as in a slice."""
    return lambda folder: (folder / "data" / name).write_bytes((folder / "data" / name).read_bytes()[:stop])


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (_unlink("3.jpg"), "missing image", r"line 3: the image .*3\.jpg does not exist"),
        (_cut("3.jpg", -80), "unreadable image", r"line 3: the image .*3\.jpg cannot be decoded .*[Tt]runcated"),
        (_cut("3.jpg", 0), "unreadable image", r"line 3: the image .*3\.jpg cannot be decoded .*empty file"),
        (_unlink("3.txt"), "missing text", r"line 3: the text .*3\.txt does not exist"),
        (_cut("3.txt", 0), "empty text", r"line 3: the text .*3\.txt is empty"),
        (lambda folder: add_row(folder, "20\thappy,positive"), "unknown label", "line 7: .*negative, got 'happy'"),
        (lambda folder: add_row(folder, "20\tpositve,neutral"), "unknown label", "Did you mean 'positive'"),
        (lambda folder: add_row(folder, "20 positive"), "malformed row", "line 7: .*got '20 positive'"),
        (lambda folder: add_row(folder, "3\tneutral,neutral"), "duplicate id", "line 7: id '3' is also in line 3"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(download, damage, reason, message):
    damage(download)
    _, report = check_faulty_row("mvsa_single", download, reason, rf"labelResultAll\.txt, .*{message}")
    assert f"skipped: {reason} 1, e.g. {download}" in report.summary()


def test_an_unchanged_folder_is_read_from_the_cache_with_its_report_and_a_changed_one_again(download):
    first, report = load_posts_with_report("mvsa_single", download)
    again, cached_report = load_posts_with_report("mvsa_single", download)
    assert again.cache_files == first.cache_files and cached_report == report
    (download / "data" / "1.txt").write_bytes(b"so very happy")
    assert load_posts("mvsa_single", download)["text"][0] == "so very happy"
    (download / "data" / "3.jpg").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        load_posts("mvsa_single", download)


def test_a_partial_download_is_logged_and_reported(download, caplog):
    with caplog.at_level(logging.WARNING):
        _, report = load_posts_with_report("mvsa_single", download)
    assert "5 rows read, a full download has 4,869" in caplog.text
    assert report.differences[1] == (
        "4 posts (negative 2, neutral 1, positive 1) kept, published results are on "
        "4,511 posts (negative 1,358, neutral 470, positive 2,683)"
    )
    assert f"differs: {report.differences[0]}" in report.summary()


def test_the_folder_above_one_download_can_be_given(download, tmp_path):
    assert load_posts("mvsa_single", tmp_path)["id"] == ["1", "3", "4", "12"]
    shutil.copytree(download, tmp_path / "copy")
    with pytest.raises(ValueError, match=r"labelResultAll.txt in 2 folders"):
        load_posts("mvsa_single", tmp_path)


def test_a_folder_without_download_is_refused_and_an_archive_in_it_suggested(tmp_path):
    (tmp_path / "MVSA-Single.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no labelResultAll.txt.*Did you mean '.*MVSA-Single.zip'"):
        load_posts("mvsa_single", tmp_path)


def test_no_remaining_row_raises_with_the_reasons(download):
    (download / "labelResultAll.txt").write_text("ID\ttext,image\n9\tpositive,negative\n")
    with pytest.raises(ValueError, match=r"No row is left.\n.*1 rows read, 0 posts kept"):
        load_posts("mvsa_single", download)


def test_all_real_posts_load(real_data):
    posts, report = load_posts_with_report(
        "mvsa_single", real_data / "mvsa_single", rationales=real_data / "mvsa_single" / "rationales.jsonl"
    )
    assert (report.read, len(posts), sum(report.dropped.values())) == (4077, 3997, 80)
    assert report.skipped == {}
    assert sum(text is not None for text in posts["rationale_negative"]) == 3997
    assert not any("\ufffd" in text for text in posts["text"])
