"""Archives: unpacked once and whole, or refused with a reason and nothing left."""

import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import datasets
import pytest

from dataset_scripts import ArchiveLimits, load_posts
from dataset_scripts.reading.archives import raw_folder, unpack


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test, so that one can look into it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "mpt_posts" / "unpacked"


def left_in(cache):
    return [path for path in cache.rglob("*") if path.suffix != ".lock"] if cache.is_dir() else []


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path, *members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content
                archive.addfile(entry)
    return path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def mvsa(tmp_path, draw):
    """A small MVSA-Single as a folder named as in its archive."""
    folder = tmp_path / "raw" / "MVSA_Single"
    for post in ("1", "2"):
        draw(folder / "data" / f"{post}.jpg", shade=int(post))
        (folder / "data" / f"{post}.txt").write_text(f"post {post}")
    (folder / "labelResultAll.txt").write_text("ID\ttext,image\n1\tpositive,neutral\n2\tnegative,negative\n")
    return folder


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_a_download_loads_from_its_archive_as_from_its_folder(mvsa, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "MVSA-Single"), kind, mvsa.parent)
    packed, plain = load_posts("mvsa_single", archive), load_posts("mvsa_single", mvsa)
    assert packed["id"] == plain["id"] and packed["text"] == plain["text"] and packed["label"] == plain["label"]
    assert [image.tobytes() for image in packed["image"]] == [image.tobytes() for image in plain["image"]]
    assert packed.features == plain.features


def test_a_table_of_ones_own_loads_from_an_archive_too(tmp_path):
    archive = zip_of(tmp_path / "posts.zip", {"posts/posts.csv": "id,text,label\na,hello,positive\n"})
    assert load_posts("folder", archive)["text"] == ["hello"]


def test_an_archive_is_unpacked_once_and_anew_when_it_changed(tmp_path, cache):
    archive = zip_of(tmp_path / "a.zip", {"one/labels.csv": "1"})
    first = unpack(archive)
    assert contents(first) == {"labels.csv": b"1"}
    (first / "mark").write_bytes(b"")
    assert unpack(archive) == first and (first / "mark").exists()
    zip_of(archive, {"one/labels.csv": "22"})
    assert contents(unpack(archive)) == {"labels.csv": b"22"}


def test_what_macos_adds_does_not_hide_the_folder_inside(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"MVSA/labels.csv": "1", "__MACOSX/MVSA/._labels.csv": "x", ".DS_Store": "x"})
    assert contents(unpack(archive)) == {"labels.csv": b"1"}


def test_backslashes_of_windows_are_folders(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"p\\p0\\detail.txt": "a", "p\\p0\\leer\\": ""})
    assert contents(unpack(archive).parent) == {"p0/detail.txt": b"a"}


def unmarked_zip(path, names):
    """A ZIP as older programs write it: names as raw bytes of some code page, and no flag that says which."""
    raw = io.BytesIO()
    placeholders = [b"#" * len(name) for name in names]
    with zipfile.ZipFile(raw, "w") as archive:
        for number, placeholder in enumerate(placeholders):
            archive.writestr(zipfile.ZipInfo(placeholder.decode()), str(number))
    content = raw.getvalue()
    for placeholder, name in zip(placeholders, names, strict=True):  # each is in its own header and in the directory
        content = content.replace(placeholder, name)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_in_a_chinese_code_page_or_unmarked_utf8_are_decoded(tmp_path, encoding):
    # 乗 ends in a backslash in GBK: decoding goes before the separators
    names = ["数据/笔记标题.txt", "数据/乗客乗.jpg"]
    archive = unmarked_zip(tmp_path / "a.zip", [name.encode(encoding) for name in names])
    assert sorted(contents(unpack(archive).parent)) == sorted(names)


def test_names_of_a_tar_in_a_chinese_code_page_are_decoded(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="gbk") as opened:
        for name in ("笔记/标题.txt", "笔记/描述.txt"):
            opened.addfile(tarfile.TarInfo(name))
    assert sorted(contents(unpack(archive))) == ["描述.txt", "标题.txt"]


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "C:\\out.txt", "..\\out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_that_climbs_out_is_refused_and_nothing_is_left(tmp_path, cache, name, kind):
    if kind == "zip":
        archive = zip_of(tmp_path / "a.zip", {"good.txt": "a", name: "b"})
    else:
        archive = tar_of(tmp_path / "a.tar", ("good.txt", b"a"), (name, b"b"))
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    with pytest.raises(ValueError, match="leads out of the archive's folder"):
        unpack(archive)
    assert left_in(cache) == []
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ((tarfile.SYMTYPE, "/etc"), "link"),
        ((tarfile.SYMTYPE, "../../.."), "link"),
        ((tarfile.LNKTYPE, "/etc/passwd"), "link"),
        ((tarfile.CHRTYPE, ""), "special file"),
        ((tarfile.FIFOTYPE, ""), "special file"),
    ],
)
def test_links_and_devices_of_a_tar_are_refused(tmp_path, cache, entry, kind):
    archive = tar_of(tmp_path / "a.tar", ("good.txt", b"a"), ("data", entry), ("data/passwd", b"x"))
    with pytest.raises(ValueError, match=f"'data' is a {kind}; only files and folders are unpacked"):
        unpack(archive)
    assert left_in(cache) == []


def test_links_of_a_zip_are_refused(tmp_path, cache):
    link = zipfile.ZipInfo("data")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(ValueError, match="'data' is a link"):
        unpack(tmp_path / "a.zip")
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(max_files=2), r"unpacks to 3 files or more, the limit is max_files=2; .*ArchiveLimits"),
        (ArchiveLimits(max_bytes=5000), "unpacks to .* bytes or more, the limit is max_bytes=5,000"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_more_than_the_limits_is_refused(tmp_path, cache, limits, message, kind):
    members = {f"{number}.txt": bytes(3000) for number in range(3)}
    if kind == "zip":
        archive = zip_of(tmp_path / "a.zip", members)
    else:
        archive = tar_of(tmp_path / "a.tar.gz", *members.items(), mode="w:gz")
    with pytest.raises(ValueError, match=message):
        unpack(archive, limits)
    assert left_in(cache) == []
    assert len(contents(unpack(archive))) == 3


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused_by_its_ratio_before_it_is_written(tmp_path, cache, kind):
    zeros = bytes(70 << 20)
    if kind == "zip":
        archive = zip_of(tmp_path / "a.zip", {"zeros": zeros})
    else:
        archive = tar_of(tmp_path / "a.tgz", ("zeros", zeros), mode="w:gz")
    with pytest.raises(ValueError, match="times its size or more, the limit is max_ratio=200.0"):
        unpack(archive)
    assert left_in(cache) == []


def test_limits_reach_the_parts_of_ch_mits(tmp_path):
    zip_of(tmp_path / "p0-1.zip", {"p0/detail.txt": "a", "p0/cover.jpg": "b"})
    with pytest.raises(ValueError, match="max_files=1"):
        load_posts("ch_mits", tmp_path, archive_limits=ArchiveLimits(max_files=1))


def test_a_zip_whose_entry_lies_about_its_size_is_refused(tmp_path, cache):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": b"x" * 1000})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<L", 1000), struct.pack("<L", 10)))
    with pytest.raises(ValueError, match="is damaged or was not downloaded whole"):
        unpack(archive)
    assert left_in(cache) == []


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_truncated_archive_is_refused_wherever_it_was_cut(mvsa, tmp_path, cache, suffix, share):
    kind = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.xz": "xztar"}[suffix]
    archive = Path(shutil.make_archive(str(tmp_path / "a"), kind, mvsa.parent))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
    with pytest.raises(ValueError, match=rf"a\.{suffix} is damaged or was not downloaded whole .*download it again"):
        load_posts("mvsa_single", archive)
    assert left_in(cache) == []


def test_a_tar_cut_between_two_files_is_refused(tmp_path, cache):
    archive = tar_of(tmp_path / "a.tar", ("one", bytes(512)), ("two", bytes(512)))
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(ValueError, match="the end of the archive is missing"):
        unpack(archive)
    assert left_in(cache) == []


def test_a_web_page_saved_as_an_archive_is_refused(tmp_path):
    for name in ("a.zip", "a.tar.gz"):
        (tmp_path / name).write_text("<!DOCTYPE html><title>Sign in</title>")
        with pytest.raises(ValueError, match="is damaged or was not downloaded whole"):
            unpack(tmp_path / name)


def test_an_encrypted_zip_is_refused_with_the_way_out(tmp_path, cache):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": "secret"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag, in the entry's own header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"is encrypted \('a.txt'\); unpack it with its password and give the folder"):
        unpack(archive)
    assert left_in(cache) == []


def test_a_method_that_python_lacks_is_refused_with_the_way_out(tmp_path, cache):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": "deflate64"})
    content = bytearray(archive.read_bytes())
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 9
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="in a way that Python cannot unpack .*give the folder"):
        unpack(archive)
    assert left_in(cache) == []


def test_a_name_twice_is_refused(tmp_path, cache):
    archive = tar_of(tmp_path / "a.tar", ("a.txt", b"1"), ("a.txt", b"2"))
    with pytest.raises(ValueError, match="holds 'a.txt' twice"):
        unpack(archive)
    assert left_in(cache) == []


def test_a_stop_midway_leaves_nothing_and_the_next_call_unpacks_whole(tmp_path, cache, monkeypatch):
    archive = zip_of(tmp_path / "a.zip", {f"{number}.txt": "a" for number in range(5)})
    read, calls = zipfile.ZipExtFile.read, []

    def stop_at_the_third(self, size=-1):
        calls.append(size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive)
    assert left_in(cache) == []
    assert len(contents(unpack(archive))) == 5


def test_what_a_killed_process_left_is_cleared_away(tmp_path, cache):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": "a", "b.txt": "b"})
    folder = unpack(archive)
    folder.rename(folder.with_name(f"{folder.name}.unfinished"))
    (folder.with_name(f"{folder.name}.unfinished") / "stale.txt").write_bytes(b"")
    assert sorted(contents(unpack(archive))) == ["a.txt", "b.txt"]
    assert [path.name for path in left_in(cache) if path.is_dir()] == [folder.name]


def test_files_of_other_kinds_are_refused_with_the_kinds_that_will_do(tmp_path):
    (tmp_path / "MVSA.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"is a file of another kind; .*\.zip, \.tar, .*unpack them and give the fol"):
        load_posts("mvsa_single", tmp_path / "MVSA.rar")
    with pytest.raises(ValueError, match="does not exist"):
        raw_folder(tmp_path / "nowhere.zip")
