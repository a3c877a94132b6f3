"""TSV files of the authors: quoted line breaks, two encodings, absolute Windows paths."""

import pytest

from dataset_scripts import load_posts, load_posts_with_report
from helpers.faulty_rows import check_faulty_row

DISK = "D:\\ei\\Sentiment_Analysis_Imdb-master/n/n168/image_0.jpg"
ROWS = [
    "1\tp/p0/cover.jpg\t一起 开心\t女孩 笑\t有人 离开",
    f'0\t{DISK}\t好 累\t"第一行\n第二行，""引用"""\t疲惫',
    '1\tp/p7/cover.jpg\t"喜欢\t  \t""',
]


def write(folder, rows=ROWS, encoding="utf-8", name="result.tsv"):
    (folder / name).write_bytes(("\n".join(rows) + "\n").encode(encoding))
    return folder


def load(folder, **options):
    return load_posts_with_report("authors", folder, **{"images": False} | options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_ch_mits_reads_in_both_encodings(tmp_path, encoding):
    posts, report = load(write(tmp_path, encoding=encoding))
    assert posts["id"] == ["p0", "n168", "p7"]
    assert posts.features["label"].names == ["positive", "negative"]
    assert posts["label"] == [0, 1, 0]
    assert posts["text"][:2] == ["一起 开心", "好 累"]
    assert posts["rationale_positive"] == ["女孩 笑", '第一行\n第二行，"引用"', None]
    assert posts["rationale_negative"] == ["有人 离开", "疲惫", None]
    assert posts["rationale_neutral"] == [None] * 3
    assert set(posts["language"]) == {"zh"} and set(posts["source"]) == {"ch_mits"}
    assert report.notes == {"no positive rationale": 1, "no negative rationale": 1}


def test_images_are_found_under_the_folder(tmp_path, draw):
    write(tmp_path, ROWS[:2])
    draw(tmp_path / "p/p0/cover.jpg", size=5)
    draw(tmp_path / "n/n168/image_0.jpg", size=6)
    posts = load_posts("authors", tmp_path)
    assert [post["image"].size for post in posts] == [(5, 5), (6, 6)]


def test_a_missing_image_is_named_and_images_can_be_left_out(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"result\.tsv, line 1: the image .*p/p0/cover\.jpg does not exist"):
        load_posts("authors", tmp_path)
    assert load_posts("authors", tmp_path, images=False)["image"] == [None] * 3


def test_three_class_files_read_names_and_take_the_image_name_as_id(tmp_path):
    rows = ["label\timage\ttext\tpos\tneu\tneg", "neutral\t1024.jpg\thello\tgood\tso so\tbad"]
    posts, report = load(write(tmp_path, rows), dataset="mvsa_single")
    assert report.read == 1
    assert posts[0]["id"] == "1024" and posts["label"] == [1]
    assert (posts[0]["rationale_positive"], posts[0]["rationale_neutral"]) == ("good", "so so")


def test_codes_of_three_class_files_must_be_named(tmp_path):
    write(tmp_path, ["2\t1.jpg\thello\ta\tb\tc"])
    with pytest.raises(ValueError, match=r"positive, neutral, negative, got '2'.*label_names=\{'2': '…'\}"):
        load(tmp_path, dataset="memotion")
    posts, _ = load(tmp_path, dataset="memotion", label_names={0: "positive", 1: "neutral", 2: "negative"})
    assert posts["label"] == [2]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (
            "1\tp/p8/a.jpg\thello\tgood",
            "malformed row",
            "fields is 4, it must be 5.*label, image path, text, .*or memotion",
        ),
        ("7\tp/p8/a.jpg\thello\tgood\tbad", "unknown label", "one of 1, 0, got '7'"),
        ("1\tp/p0/b.jpg\thello\tgood\tbad", "duplicate id", "id 'p0' is also in line 1"),
        ("1\tp/p8/a.jpg\t \tgood\tbad", "empty text", "the text is empty"),
        ("1\ta.jpg\thello\tgood\tbad", "no id", "image path 'a.jpg' has no folder"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(tmp_path, row, reason, message):
    write(tmp_path, [*ROWS, row])
    check_faulty_row("authors", tmp_path, reason, rf"result\.tsv, line 5: .*{message}", images=False)


def test_an_unknown_dataset_class_or_file_gets_a_suggestion(tmp_path):
    write(tmp_path)
    for options, suggestion in (
        ({"dataset": "chmits"}, "ch_mits"),
        ({"label_names": {"1": "postive"}}, "positive"),
        ({"file": "results.tsv"}, "result.tsv"),
    ):
        with pytest.raises(ValueError, match=f"Did you mean '{suggestion}'"):
            load(tmp_path, **options)
    write(tmp_path, name="second.tsv")
    with pytest.raises(ValueError, match=r"2 tables .*result.tsv, second.tsv; name one"):
        load(tmp_path)


def test_a_file_of_neither_encoding_is_refused(tmp_path):
    (tmp_path / "result.tsv").write_bytes(b"1\tp/p0/a.jpg\t\xff\xff\ta\tb\n")
    with pytest.raises(ValueError, match="neither UTF-8 nor GB18030.*save it as UTF-8"):
        load(tmp_path)


def test_the_released_ch_mits_file_gives_2023_posts(real_data):
    posts, report = load(real_data, file="chmits_llm_result.tsv")
    assert report.labels == {"positive": 1023, "negative": 1000}
    assert len(set(posts["id"])) == 2023 and report.skipped == {} and report.notes == {}
