"""Archives are unpacked once and completely, or refused with a reason and without remains."""

import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from dataset_scripts import ArchiveLimits, load_posts
from dataset_scripts.reading.archives import raw_folder, unpack
from helpers.mvsa import write_mvsa


@pytest.fixture(autouse=True)
def unpacked(datasets_cache):
    """Empty the folder that archives are unpacked to."""
    folder = datasets_cache / "mpt_posts" / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def remains(unpacked):
    return [path for path in unpacked.rglob("*") if path.suffix != ".lock"] if unpacked.is_dir() else []


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content
                archive.addfile(entry)
    return path


def packed(tmp_path, kind, members):
    return zip_of(tmp_path / "a.zip", members) if kind == "zip" else tar_of(tmp_path / "a.tgz", members, mode="w:gz")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def mvsa(tmp_path, draw):
    """Write a small MVSA-Single into a folder named as in its archive."""
    return write_mvsa(tmp_path / "raw" / "MVSA_Single", draw, count=2)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_a_download_loads_from_its_archive_as_from_its_folder(mvsa, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "MVSA-Single"), kind, mvsa.parent)
    packed, plain = load_posts("mvsa_single", archive), load_posts("mvsa_single", mvsa)
    assert packed["id"] == plain["id"] and packed["text"] == plain["text"] and packed["label"] == plain["label"]
    assert [image.tobytes() for image in packed["image"]] == [image.tobytes() for image in plain["image"]]


def test_an_archive_is_unpacked_once_and_again_when_it_changed(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"one/labels.csv": "1"})
    first = unpack(archive)
    assert contents(first) == {"labels.csv": b"1"}
    (first / "mark").write_bytes(b"")
    assert unpack(archive) == first and (first / "mark").exists()
    zip_of(archive, {"one/labels.csv": "22"})
    assert contents(unpack(archive)) == {"labels.csv": b"22"}


def test_entries_of_macos_and_backslashes_of_windows_do_not_change_the_folder(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"p\\p0\\detail.txt": "a", "__MACOSX/p/._x": "x", ".DS_Store": "x"})
    assert contents(unpack(archive).parent) == {"p0/detail.txt": b"a"}


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_of_a_zip_without_the_utf8_flag_are_decoded(tmp_path, encoding):
    # 乗 ends in a backslash in GBK: names must be decoded before backslashes are replaced.
    names = ["数据/笔记标题.txt", "数据/乗客乗.jpg"]
    raw_names = [name.encode(encoding) for name in names]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for raw_name in raw_names:
            archive.writestr(zipfile.ZipInfo("#" * len(raw_name)), "")
    content = buffer.getvalue()
    for raw_name in sorted(raw_names, key=len, reverse=True):
        content = content.replace(b"#" * len(raw_name), raw_name)
    (tmp_path / "a.zip").write_bytes(content)
    assert sorted(contents(unpack(tmp_path / "a.zip").parent)) == sorted(names)


def test_names_of_a_tar_in_a_chinese_code_page_are_decoded(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="gbk") as opened:
        for name in ("笔记/标题.txt", "笔记/描述.txt"):
            opened.addfile(tarfile.TarInfo(name))
    assert sorted(contents(unpack(archive))) == ["描述.txt", "标题.txt"]


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_leads_out_of_the_folder(tmp_path, unpacked, name, kind):
    archive = packed(tmp_path, kind, {"good.txt": b"a", name: b"b"})
    try:
        folder = unpack(archive)
    except ValueError as error:
        assert "is not safe to unpack" in str(error) and remains(unpacked) == []
    else:
        assert len(contents(folder)) == 2
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    "entry", [(tarfile.SYMTYPE, "/etc"), (tarfile.SYMTYPE, "good.txt"), (tarfile.LNKTYPE, "x"), (tarfile.FIFOTYPE, "")]
)
def test_links_and_devices_of_a_tar_are_refused(tmp_path, unpacked, entry):
    archive = tar_of(tmp_path / "a.tar", {"good.txt": b"a", "data": entry, "data/passwd": b"x"})
    with pytest.raises(ValueError, match="is not safe to unpack: 'data' is a special file"):
        unpack(archive)
    assert remains(unpacked) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(max_files=2), r"3 files or more, .* max_files=2; .* unpack it yourself .*: data_dir="),
        (ArchiveLimits(max_bytes=5000), "max_bytes=5,000"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_more_than_the_limits_is_refused(tmp_path, unpacked, limits, message, kind):
    archive = packed(tmp_path, kind, {f"{number}.txt": bytes(3000) for number in range(3)})
    with pytest.raises(ValueError, match=message):
        unpack(archive, limits)
    assert remains(unpacked) == []
    assert len(contents(unpack(archive))) == 3


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_bomb_is_refused_before_it_is_written(tmp_path, unpacked, kind):
    with pytest.raises(ValueError, match="max_ratio=200.0"):
        unpack(packed(tmp_path, kind, {"zeros": bytes(70 << 20)}))
    assert remains(unpacked) == []


def test_limits_also_hold_for_the_parts_of_ch_mits(tmp_path):
    zip_of(tmp_path / "p0-1.zip", {"p0/detail.txt": "a", "p0/cover.jpg": "b"})
    with pytest.raises(ValueError, match="max_files=1"):
        load_posts("ch_mits", tmp_path, archive_limits=ArchiveLimits(max_files=1))


def test_a_zip_with_a_wrong_size_of_an_entry_is_refused(tmp_path, unpacked):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": b"x" * 1000})
    archive.write_bytes(archive.read_bytes().replace(struct.pack("<L", 1000), struct.pack("<L", 10)))
    with pytest.raises(ValueError, match="is damaged"):
        unpack(archive)
    assert remains(unpacked) == []


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
def test_a_truncated_archive_is_refused(mvsa, tmp_path, unpacked, kind, share):
    archive = Path(shutil.make_archive(str(tmp_path / "a"), kind, mvsa.parent))
    complete = archive.read_bytes()
    archive.write_bytes(complete[: int(len(complete.rstrip(b"\0")) * share)])
    with pytest.raises(ValueError, match=rf"{archive.name} is damaged .*download it again"):
        load_posts("mvsa_single", archive)
    assert remains(unpacked) == []


def test_a_web_page_saved_as_an_archive_is_refused(tmp_path):
    for name in ("a.zip", "a.tar.gz"):
        (tmp_path / name).write_text("<!DOCTYPE html><title>Sign in</title>")
        with pytest.raises(ValueError, match="is damaged"):
            unpack(tmp_path / name)


@pytest.mark.parametrize(("offset", "value", "message"), [(6, 1, "a.txt.*encrypted"), (8, 9, "compression method")])
def test_a_zip_that_python_cannot_unpack_is_refused_with_a_fix(tmp_path, unpacked, offset, value, message):
    archive = zip_of(tmp_path / "a.zip", {"a.txt": "secret"})
    content = bytearray(archive.read_bytes())
    content[offset] = content[content.index(b"PK\x01\x02") + offset + 2] = value  # local header and directory
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.*unpack it yourself"):
        unpack(archive)
    assert remains(unpacked) == []


def test_an_interruption_leaves_nothing_and_the_next_call_unpacks_everything(tmp_path, unpacked, monkeypatch):
    archive = zip_of(tmp_path / "a.zip", {f"{number}.txt": "a" for number in range(5)})
    read, calls = zipfile.ZipExtFile.read, []

    def interrupt(self, size=-1):
        calls.append(size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive)
    assert remains(unpacked) == []
    folder = unpack(archive)
    assert len(contents(folder)) == 5
    unfinished = folder.rename(folder.with_name(f"{folder.name}.unfinished"))  # as a killed process leaves it
    (unfinished / "stale.txt").write_bytes(b"")
    assert len(contents(unpack(archive))) == 5
    assert [path.name for path in remains(unpacked) if path.is_dir()] == [folder.name]


def test_other_files_are_refused_with_the_supported_suffixes(tmp_path):
    (tmp_path / "MVSA.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"is a file of another kind; .*\.zip, \.tar, "):
        load_posts("mvsa_single", tmp_path / "MVSA.rar")
    with pytest.raises(ValueError, match="does not exist"):
        raw_folder(tmp_path / "nowhere.zip")
