"""MVSA-Multiple: majority of three annotators for each modality, then MultiSentiNet's rule."""

import itertools
from collections import Counter

import pytest

from dataset_scripts import load_posts, load_posts_with_report
from dataset_scripts.loaders.mvsa import MULTIPLE, MULTIPLE_WITH_UNLISTED, UNLISTED_IDS, label_rows
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import LABELS, features
from helpers.faulty_rows import check_faulty_row

# Posts of the full download by (text majority, image majority); None: the three annotators differ.
FULL_PAIRS = {
    ("positive", "positive"): 7587,  # 3910 and 5995 among them
    ("neutral", "neutral"): 4408,
    ("neutral", "positive"): 1954,
    ("positive", "neutral"): 1779,
    ("negative", "negative"): 606,  # 15324 among them
    ("neutral", "negative"): 450,
    ("negative", "neutral"): 243,
    ("positive", "negative"): 200,
    ("negative", "positive"): 142,
    (None, "positive"): 900,
    (None, None): 294,
    ("neutral", None): 1037,
}
HEADER = "ID\ttext,image\ttext,image\ttext,image"


def votes(label, number):
    """Make three votes with the majority `label`, some with a differing one."""
    if label is None:
        return list(itertools.permutations(LABELS))[number % 6]
    given = [label] * 3
    given[number % 3] = LABELS[number % 2 + LABELS.index(label) - 1] if number % 4 else label
    return given


def line(post, text_votes, image_votes):
    return "\t".join([str(post), *(f"{text},{image}" for text, image in zip(text_votes, image_votes, strict=True))])


@pytest.fixture(scope="module")
def full_labels(tmp_path_factory):
    """Write the label table of a full download, with the published counts."""
    pools = {pair: iter(range(count)) for pair, count in FULL_PAIRS.items()}
    fixed = {3910: ("positive", "positive"), 5995: ("positive", "positive"), 15324: ("negative", "negative")}
    for pair in fixed.values():
        next(pools[pair])
    rest = (pair for pair, pool in pools.items() for _ in pool)
    pairs = [fixed.get(post) or next(rest) for post in range(1, 19601)]
    rows = [line(post, votes(pair[0], post), votes(pair[1], post // 3)) for post, pair in enumerate(pairs, start=1)]
    file = tmp_path_factory.mktemp("full") / "labelResultAll.txt"
    file.write_bytes("\r\n".join([HEADER, *rows, ""]).encode())
    return file


@pytest.fixture
def download(tmp_path, draw):
    """Write six rows, one of them without majority and one with opposite labels."""
    rows = {
        "3": [("positive", "neutral", "positive"), ("neutral", "negative", "neutral")],
        "8": [("positive", "neutral", "negative"), ("positive", "positive", "positive")],
        "9": [("positive", "positive", "neutral"), ("negative", "negative", "neutral")],
        "11": [("neutral", "neutral", "neutral"), ("negative", "negative", "positive")],
        "3910": [("positive", "positive", "positive"), ("positive", "positive", "positive")],
        "20001": [("neutral", "neutral", "positive"), ("neutral", "neutral", "neutral")],
    }
    for post in rows:
        draw(tmp_path / "data" / f"{post}.jpg", shade=int(post))
        (tmp_path / "data" / f"{post}.txt").write_bytes(f"post {post} …".encode("gb18030" if post == "3" else "utf-8"))
    table = "\n".join([HEADER, *(line(post, *pair) for post, pair in rows.items())])
    (tmp_path / "labelResultAll.txt").write_text(table + "\n")
    return tmp_path


def test_the_full_download_gives_17024_of_19600_and_three_unlisted_posts(full_labels):
    report = BuildReport("mvsa_multiple")
    kept = Counter(row[2] for row in label_rows(report, full_labels, "mvsa_multiple", UNLISTED_IDS))
    assert report.read == 19600 and kept.total() == 17024
    assert kept == MULTIPLE.labels == {"positive": 11318, "neutral": 4408, "negative": 1298}
    assert report.dropped["in no published list (ids 3910, 5995, 15324); keep_unlisted=True keeps them"] == 3
    no_majority = {rule: count for rule, count in report.dropped.items() if rule.startswith("no majority")}
    assert sum(no_majority.values()) == 2231
    assert sum(count for rule, count in no_majority.items() if "text" in rule) == 1194
    assert sum(count for rule, count in report.dropped.items() if rule.startswith("opposite")) == 342
    with_unlisted = Counter(row[2] for row in label_rows(BuildReport("x"), full_labels, "mvsa_multiple"))
    assert with_unlisted == MULTIPLE_WITH_UNLISTED.labels == {"positive": 11320, "neutral": 4408, "negative": 1299}


def test_labels_are_merged_by_modality_first_and_not_by_annotator(tmp_path):
    file = tmp_path / "labelResultAll.txt"
    file.write_text("1\tpositive,negative\tpositive,positive\tnegative,positive\n")
    ((_, post, label, text_label, image_label),) = label_rows(BuildReport("x"), file, "mvsa_multiple")
    assert (post, label, text_label, image_label) == ("1", "positive", "positive", "positive")


def test_posts_have_the_majority_label_of_both_modalities(download):
    posts, report = load_posts_with_report("mvsa_multiple", download)
    assert posts.features == features()
    assert posts["id"] == ["3", "11", "20001"]
    assert posts["label"] == [0, 2, 1]
    assert posts["text_label"] == [0, 1, 1]
    assert posts["image_label"] == [1, 2, 1]
    assert posts["text"][0] == "post 3 …"
    assert set(posts["source"]) == {"mvsa_multiple"}
    assert report.dropped == {
        "no majority of the annotators (text)": 1,
        "opposite polarities (positive text, negative image)": 1,
        "in no published list (ids 3910, 5995, 15324); keep_unlisted=True keeps them": 1,
    }
    assert report.read == report.kept + sum(report.dropped.values()) == 6


def test_the_unlisted_posts_can_be_kept(download):
    assert load_posts("mvsa_multiple", download, keep_unlisted=True)["id"] == ["3", "11", "3910", "20001"]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ("30\tpositive,neutral\tpositive,neutral", "malformed row", "line 8: .* must read ID<TAB>text,i"),
        ("30\tpositive,neutral", "malformed row", r"line 8: .* is this mvsa_single\?"),
        ("30\tpositive,neutral\tgood,neutral\tpositive,neutral", "unknown label", "line 8: .*got 'good'"),
        (line("11", ["neutral"] * 3, ["neutral"] * 3), "duplicate id", "line 8: id '11' is also in line 5"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(download, row, reason, message):
    with open(download / "labelResultAll.txt", "a") as table:
        table.write(row + "\n")
    check_faulty_row("mvsa_multiple", download, reason, message)


def test_the_label_table_of_the_other_dataset_is_recognized(download):
    with pytest.raises(ValueError, match=r"is this mvsa_multiple\?"):
        load_posts("mvsa_single", download)
