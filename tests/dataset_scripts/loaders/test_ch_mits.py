"""CH-Mits: note folders, texts in several encodings, and the authors' list of images."""

import zipfile

import pytest

from dataset_scripts import load_posts, load_posts_with_report
from dataset_scripts.loaders.ch_mits import POLARITIES, address_rows, note_text, parse_note
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import features
from helpers.faulty_rows import check_faulty_row

DISK = "D:\\ei\\Sentiment_Analysis_Imdb-master"
NOTES = {
    "p0": (
        "笔记标题: 新年快乐\n笔记描述: 今天去爬山\n#周末[话题]# 好开心[笑哭R]\n笔记上传时间: 2023-01-02 10:11:12\n",
        "utf-8",
    ),
    "p10": ("笔记标题：按摩椅\n笔记描述：太舒服了\n上传时间：2022-12-30\n", "gbk"),
    "n0": ("笔记标题: 无标题\n笔记描述: 钱包丢了\n标签: 生活\n笔记上传时间: 2023-02-03\n", "utf-8-sig"),
    "n1": ("笔记标题: 排队三小时\n笔记描述: 排队三小时，什么都没买到\n上传时间: 2023-02-03\n", "utf-16"),
}
IMAGES = {
    "p0": ("cover.jpg", "image_0.png"),
    "p10": ("image_0.jpg", "image_14.JPG"),
    "n0": ("th (3).jpg",),
    "n1": ("image_0.jpeg", "image_1.png", "image_2.png"),
}
# The real list mixes separators in the same way; image_14 and image_0 of n1 have another suffix in the folders.
ADDRESSES = (
    "labels,sentences\r\n"
    f"1,{DISK}\\p/p0/cover.jpg\r\n"
    f"1,{DISK}\\p/p10/image_14.jpg\r\n"
    f"0,{DISK}/n/n0/th (3).jpg\r\n"
    f"0,{DISK}/n/n1/image_0.jpg\r\n"
)


def write_notes(folder, draw, notes=NOTES):
    for number, (note, (text, encoding)) in enumerate(notes.items()):
        for position, image in enumerate(IMAGES.get(note, ("image_0.jpg",))):
            draw(folder / note[0] / note / image, shade=10 * number + position)
        (folder / note[0] / note / "detail.txt").write_bytes(text.encode(encoding))


@pytest.fixture
def download(tmp_path, draw):
    write_notes(tmp_path, draw)
    (tmp_path / "cv_address.csv").write_bytes(ADDRESSES.encode())
    return tmp_path


def image_names(posts):
    return [stored["path"].rpartition("/")[2] for stored in posts.data.column("image").to_pylist()]


def test_a_post_has_title_and_description_of_a_note_and_the_listed_image(download):
    posts, report = load_posts_with_report("ch_mits", download)
    assert posts.features == features(POLARITIES)
    assert list(posts.features) == list(features()) and posts.features["label"].names == ["positive", "negative"]
    assert posts["id"] == ["p0", "p10", "n0", "n1"]
    assert posts["text"] == [
        "新年快乐\n今天去爬山\n#周末[话题]# 好开心[笑哭R]",
        "按摩椅\n太舒服了",
        "钱包丢了\n标签: 生活",
        "排队三小时，什么都没买到",
    ]
    assert [posts.features["label"].int2str(label) for label in posts["label"]] == ["positive"] * 2 + ["negative"] * 2
    assert image_names(posts) == ["cover.jpg", "image_14.JPG", "th (3).jpg", "image_0.jpeg"]
    assert set(posts["language"]) == {"zh"} and set(posts["source"]) == {"ch_mits"}
    assert "4 rows read, a full download has 2,023" in report.differences
    assert report.notes == {
        "text read as GB18030": 1,
        "text read as UTF-16": 1,
        "image whose name differs in case, ending or Unicode form": 2,
    }


def test_archives_as_downloaded_give_the_same_posts_for_any_folders_inside(download, tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    for name, inside in (("p0-330", "p0-330/{note}"), ("n0-333", "{note}"), ("p331-1022", "p/{note}")):
        with zipfile.ZipFile(parts / f"{name}.zip", "w") as archive:
            for note in {"p0-330": ["p0"], "n0-333": ["n0", "n1"], "p331-1022": ["p10"]}[name]:
                for file in sorted((download / note[0] / note).iterdir()):
                    archive.write(file, inside.format(note=note) + f"/{file.name}")
    (parts / "cv_address.csv").write_bytes(ADDRESSES.encode())
    folder, packed = load_posts("ch_mits", download), load_posts("ch_mits", parts)
    columns = [name for name in folder.column_names if name != "image"]
    assert packed.select_columns(columns).to_list() == folder.select_columns(columns).to_list()
    assert image_names(packed) == image_names(folder)


def test_archives_inside_an_archive_are_unpacked(download, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    with zipfile.ZipFile(outer / "n0-1.zip", "w") as part:
        for note in ("n0", "n1"):
            for file in sorted((download / "n" / note).iterdir()):
                part.write(file, f"{note}/{file.name}")
    with zipfile.ZipFile(outer / "CH-Mits-main.zip", "w") as archive:
        archive.write(outer / "n0-1.zip", "CH-Mits-main/n0-1.zip")
    assert load_posts("ch_mits", outer / "CH-Mits-main.zip")["id"] == ["n0", "n1"]


def test_notes_that_are_also_in_an_archive_are_read_once(download):
    with zipfile.ZipFile(download / "p0-330.zip", "w") as archive:
        archive.write(download / "p" / "p0" / "detail.txt", "p0/detail.txt")
    assert load_posts("ch_mits", download)["id"] == ["p0", "p10", "n0", "n1"]


def test_without_the_list_every_folder_is_a_post_with_its_only_image_or_only_jpeg(download):
    (download / "cv_address.csv").unlink()
    with pytest.raises(ValueError, match="note p10: .*has 2 images; add cv_address.csv"):
        load_posts("ch_mits", download)
    (download / "p" / "p10" / "image_0.jpg").unlink()
    posts = load_posts("ch_mits", download)
    assert posts["id"] == ["p0", "p10", "n0", "n1"]
    assert image_names(posts) == ["cover.jpg", "image_14.JPG", "th (3).jpg", "image_0.jpeg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gbk"])
def test_the_list_is_read_in_the_encodings_of_chinese_windows(download, draw, encoding):
    draw(download / "n" / "n0" / "封面.jpg")
    listed = ADDRESSES.replace("th (3).jpg", "封面.jpg")
    (download / "cv_address.csv").write_bytes(listed.encode(encoding))
    assert image_names(load_posts("ch_mits", download))[2] == "封面.jpg"


def test_unlisted_note_folders_are_dropped(download, draw):
    write_notes(download, draw, {"n7": ("笔记标题: a\n笔记描述: b\n", "utf-8")})
    posts, report = load_posts_with_report("ch_mits", download)
    assert len(posts) == 4 and report.dropped == {"note folder that cv_address.csv does not list": 1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("笔记标题: a\n笔记描述: b\nc\n\nd\n上传时间: 2023-01-01\n", ("a", "b\nc\n\nd")),
        ("笔记标题：a\n笔记描述：\n笔记上传时间：2023", ("a", "")),
        ("笔记标题:\na\n笔记描述:\nb\n", ("a", "b")),
        ("标题: a\n描述: b\n点赞数量: 5\n标签: ['c']\n上传时间: 2023-01-01 00:00:00\nip归属地: 上海\n", ("a", "b")),
        ("笔记id: 64\n笔记类型: 图集\n笔记标题: a\n笔记描述: b\n笔记点赞数量: 5\n", ("a", "b")),
        (
            "笔记标题: a\n笔记描述: 时间：晚上\n描述: c\n上传时间：很晚\n上传时间: 2023-1-1",
            ("a", "时间：晚上\n描述: c\n上传时间：很晚"),
        ),
        ("\n笔记描述: b\n笔记描述: c", ("", "b\n笔记描述: c")),
        ("没有字段的文字\n两行", None),
    ],
)
def test_title_and_description_are_found_in_every_format(content, expected):
    assert parse_note(content) == expected


def test_a_title_that_begins_the_description_is_left_out():
    assert note_text("排队", "排队三小时") == "排队三小时"
    assert note_text("无标题", "b") == "b"
    assert note_text("a", "") == "a"


def test_a_text_without_fields_is_taken_whole(download):
    (download / "n" / "n0" / "detail.txt").write_text("钱包丢了", encoding="utf-8")
    posts, report = load_posts_with_report("ch_mits", download)
    assert posts["text"][2] == "钱包丢了"
    assert report.notes["text without 笔记标题 and 笔记描述, taken whole"] == 1


def _list_row(row):
    def add(download):
        with open(download / "cv_address.csv", "a", newline="") as table:
            table.write(row + "\r\n")

    return add


def _write(note, content):
    return lambda download: (download / note[0] / note / "detail.txt").write_bytes(content)


def _unlink(name):
    return lambda download: (download / name).unlink()


def _truncate(download):
    image = download / "p" / "p0" / "cover.jpg"
    image.write_bytes(image.read_bytes()[:-80])


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (_unlink("n/n0/detail.txt"), "missing text", "line 4: .*n0 must have one text file, detail.txt, got none"),
        (_write("n0", "笔记标题: \n笔记描述: \n".encode()), "empty text", "line 4: .*has no title"),
        (_write("n0", b"  "), "empty text", "line 4: .*has no title"),
        (_unlink("n/n0/th (3).jpg"), "missing image", r"line 4: the image .*th \(3\).jpg does not exist"),
        (_truncate, "unreadable image", "line 2: the image .*cover.jpg cannot be decoded"),
        (_list_row(f"1,{DISK}\\p/p99/cover.jpg"), "missing note", "line 6: the folder 'p99' does not exist"),
        (_list_row(f"0,{DISK}\\p/p0/cover.jpg"), "unknown label", "line 6: .* note 'p0' must be 1 .*got '0'"),
        (_list_row(f"2,{DISK}\\p/p98/cover.jpg"), "unknown label", "line 6: .*got '2'"),
        (_list_row(f"1,{DISK}\\p/p0/cover.jpg"), "duplicate id", "line 6: id 'p0' is also in line 2"),
        (_list_row("1"), "malformed row", "line 6: .*fields is 1, it must be 2.*label,path/note/image"),
    ],
)
def test_a_faulty_note_raises_or_is_skipped(download, damage, reason, message):
    damage(download)
    check_faulty_row("ch_mits", download, reason, message)


def test_a_folder_without_notes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no note folder .* give the folder of the original download"):
        load_posts("ch_mits", tmp_path)


def test_the_real_list_gives_2023_posts_with_the_ids_of_the_authors_rationales(real_data, tmp_path, draw):
    rows = list(address_rows(BuildReport("ch_mits"), real_data / "ch_mits_cv_address.csv"))
    assert rows[0][1:] == ("p0", "positive", "cover.jpg")
    # Every note of the real list, with an invented text and image, in the layout of the download.
    image = draw(tmp_path / "image.jpg").read_bytes()
    for number, (_, note, _, name) in enumerate(rows):
        folder = tmp_path / "download" / note[0] / note
        folder.mkdir(parents=True)
        (folder / name).write_bytes(image)
        (folder / "detail.txt").write_text(f"笔记标题: 题{number}\n笔记描述: 文{number}\n", encoding="utf-8")
    (tmp_path / "download" / "cv_address.csv").write_bytes((real_data / "ch_mits_cv_address.csv").read_bytes())
    posts, report = load_posts_with_report("ch_mits", tmp_path / "download")
    assert len(posts) == report.read == 2023 and report.differences == []
    assert report.labels == {"positive": 1023, "negative": 1000}
    authors = load_posts("authors", real_data, file="chmits_llm_result.tsv", images=False)
    assert set(authors["id"]) == set(posts["id"])
