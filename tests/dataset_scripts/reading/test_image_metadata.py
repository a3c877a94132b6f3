"""Images with malformed metadata, and damaged files: the check and every reader agree."""

import io
import itertools
import struct
import warnings
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts import load_posts_with_report
from dataset_scripts.audit.images import fingerprint
from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.reading.image_checks import ImageCheckLog, UncheckedRow, checked_rows, image_fault
from dataset_scripts.reading.images import read_rgb
from dataset_scripts.reading.report import BuildReport
from helpers.odd_images import MALFORMED, TURN, encoded, exif, with_malformed_exif
from processing_mpt.images_mpt import checked_image

NOTE = "image with malformed metadata (EXIF), stored upright without them"
# Description, resolution, date, thumbnail, the folders of Exif, GPS and interoperability, title, XMP, maker's note, …
TAGS = (0x010E, 0x011A, 0x0132, 0x0201, 0x8769, 0x8825, 0xA005, 0x9C9B, 0x02BC, 0x927C, 0xC4A5, 0x0111, 0x0117)
TYPES = range(14)  # 0 and 13 are undefined in EXIF
VALUES = (
    (1, b"H\0\0\0"),
    (1, b"\xff\xff\xff\xff"),
    (0, b"\0\0\0\0"),
    (5, b"\xff\xff\xff\x7f"),
    (0x7FFFFFFF, b"\0\0\0\0"),
)
WIDE = PIL.Image.new("RGB", (30, 20), "red")
WIDE.paste("blue", (0, 0, 10, 20))
TALL = np.asarray(WIDE.transpose(PIL.Image.Transpose.ROTATE_270))


def image_with(metadata: bytes, kind: str, **options) -> dict:
    options |= {"lossless": True} if kind == "WEBP" else {}
    return {"bytes": encoded(WIDE, kind, exif=metadata, **options), "path": None}


def as_kept(image: dict) -> tuple[dict, dict[str, int]]:
    """Return the image as a loader stores it, and the notes of its report."""
    report = BuildReport("test")
    (row,) = checked_rows([UncheckedRow({"image": image}, "row 1")], report, ImageCheckLog(Path("unused")), num_proc=1)
    return row["image"], report.notes


def assert_all_readers_agree(image: dict) -> np.ndarray:
    """Return the pixels of a stored image, which all readers give."""
    kept, _ = as_kept(image)
    expected = np.asarray(read_rgb(image))
    trained = checked_image(datasets.Image().decode_example(kept), "The image")
    for given_image in (image, kept, read_rgb(image)):  # the last as the processor gets it from a reader
        assert (np.asarray(checked_image(given_image, "The image")) == expected).all()
    assert "broken" not in (fingerprint(image).fault, fingerprint(kept).fault)
    assert (np.asarray(trained) == expected).all()
    return expected


@pytest.fixture(autouse=True)
def without_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_is_turned_by_its_sound_orientation_whatever_its_other_tags_hold(kind):
    faults = []
    for tag, tag_type, (count, value) in itertools.product(TAGS, TYPES, VALUES[:: 1 if kind == "JPEG" else 3]):
        image = image_with(exif(TURN, (tag, tag_type, count, value)), kind)
        faults.append(image_fault(image))
        kept, _ = as_kept(image) if faults[-1] else (image, None)
        decoded = datasets.Image().decode_example(kept)
        assert decoded.size == (20, 30)
        assert np.asarray(checked_image(decoded, "it")).tobytes() == np.asarray(read_rgb(image)).tobytes()
        assert kind == "JPEG" or (np.asarray(decoded) == TALL).all()
    assert set(faults) == {None, "malformed metadata"}, "the tags no longer include malformed ones"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@given(metadata=st.binary(max_size=80), entries=st.binary(max_size=60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_metadata_make_a_reader_fail(kind, metadata, entries):
    for block in (metadata, b"Exif\0\0" + metadata, exif(TURN)[:-4] + entries):
        assert_all_readers_agree(image_with(block, kind))


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("tag_type", [1, 2, 3, 4, 5, 7, 10, 11, 12])
def test_an_orientation_that_is_none_is_ignored(tag_type, value):
    pixels = assert_all_readers_agree(image_with(exif((0x0112, tag_type, 1, struct.pack("<I", value))), "PNG"))
    assert (pixels == np.asarray(WIDE)).all()


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


@pytest.mark.parametrize("orientation", ["6", "66", "6 ", "x", "0"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("metadata", [b"", exif(TURN), exif(TURN, MALFORMED)], ids=len)
def test_the_orientation_in_xmp_turns_an_image_once(kind, orientation, metadata):
    options = {} if kind == "PNG" else {"xmp": XMP.format(orientation).encode()}
    if kind == "PNG":
        info = PIL.PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.format(orientation))
        options = {"pnginfo": info}
    pixels = assert_all_readers_agree(image_with(metadata, kind, **options))
    turned = bool(metadata) or orientation.startswith("6")
    assert pixels.shape[:2] == ((30, 20) if turned else (20, 30))


def test_a_tiff_is_turned_by_its_own_tag():
    content = encoded(WIDE, "TIFF", tiffinfo={0x0112: 6, 0x010E: "taken at home"})
    assert (assert_all_readers_agree({"bytes": content, "path": None}) == TALL).all()


def test_a_raw_profile_of_png_that_is_damaged_is_ignored():
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n  12\nzz not hexadecimal")
    image = {"bytes": encoded(WIDE, "PNG", pnginfo=info), "path": None}
    assert (assert_all_readers_agree(image) == np.asarray(WIDE)).all()


NOISE = PIL.Image.effect_noise((33, 21), 90).convert("P")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
@given(data=st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_what_the_check_calls_sound_is_read_and_nothing_else(kind, data):
    content = bytearray(encoded(NOISE if kind in ("GIF", "PNG") else NOISE.convert("RGB"), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 300)))] = data.draw(st.integers(0, 255))
    image = {"bytes": bytes(content[: data.draw(st.sampled_from([None, None, 10, -20]))]), "path": None}
    if image_fault(image) is None:
        assert_all_readers_agree(image)
        return
    for read in (read_rgb, lambda stored: checked_image(stored, "it")):
        with pytest.raises(ValueError):
            read(image)
    assert fingerprint(image).fault == "broken"
    with pytest.raises(PreparationError):
        prepare_post({"id": "1", "text": "a", "image": image}, max_pixels=10_000)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_folder_keeps_such_images_upright_and_counts_them(tmp_path, num_proc):
    bad = with_malformed_exif()
    (tmp_path / "a.jpg").write_bytes(bad)
    WIDE.save(tmp_path / "b.png")
    (tmp_path / "posts.csv").write_text("image,text,label\na.jpg,one,positive\nb.png,two,negative\n")
    for on_error in ("raise", "skip"):
        posts, report = load_posts_with_report("folder", tmp_path, on_error=on_error, num_proc=num_proc)
        assert [image.size for image in posts["image"]] == [(20, 30), (30, 20)]
        assert report.notes[NOTE] == 1 and not report.skipped
    post = prepare_post({"id": "1", "text": "", "image": bad}, max_pixels=10_000)
    assert PIL.Image.open(io.BytesIO(post.image)).size[1] > PIL.Image.open(io.BytesIO(post.image)).size[0]
