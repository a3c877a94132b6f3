"""Images and their paths."""

import csv
import io
import json
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bad_inputs.case import FOLDER, MODEL, BadInput
from dataset_scripts import load_posts_with_report
from dataset_scripts.rationales.posts import prepare_post
from helpers.odd_images import HEIC, encoded, with_malformed_exif
from processing_mpt.images_mpt import checked_image

JPEG = encoded(Image.effect_noise((40, 30), 90).convert("RGB"), "JPEG")
NFC, NFD = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file that declares a size; it has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    blocks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(blocks)


def tiff(values: list[list[float]], dtype: str) -> bytes:
    return encoded(Image.fromarray(np.array(values, dtype)), "TIFF")


def load(folder: Path, **options: Any) -> None:
    _, report = load_posts_with_report("folder", folder, **options)
    print(report.summary())


def skip(folder: Path) -> None:
    load(folder, on_error="skip")


def cell(name: str, value: Any, *words: str, file: str = "images/7.jpg", **fields: Any) -> BadInput:
    """Build a row: a table whose second post has this cell, refused or (`exit_code=0`) read."""
    rows = [{"text": "one", "image": "images/1.jpg"}, {"text": "two", "image": value}]
    if isinstance(value, str):
        table = io.StringIO()
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        files = {"posts.csv": table.getvalue()}
    else:
        files = {"posts.jsonl": "\n".join(map(json.dumps, rows))}
    files |= {"images/1.jpg": JPEG, file: JPEG, "images/a.jpg": JPEG, "images/a.png": JPEG}
    words = (*words, *([] if fields.get("exit_code", 1) else ["2 posts kept"]))
    return BadInput(name, load, words, files, advice=skip if fields.get("exit_code", 1) else None, **fields)


def content(name: str, content: bytes, *words: str, **fields: Any) -> BadInput:
    """Build a row: a table whose second image has this content."""
    row = cell(name, "images/7.jpg", *words, **fields)
    return BadInput(name, row.run, row.words, row.files | {"images/7.jpg": content}, row.exit_code, row.advice)


def image(name: str, make: Callable[[], Any], *words: str) -> BadInput:
    """Build a row: an image that the processor is given."""
    return BadInput(name, lambda folder: checked_image(make(), "The image of post 0"), ("image of post 0", *words))


READ = {"exit_code": 0}
ROWS = [
    # Paths.
    cell("image path of Windows", r"images\7.jpg", r"has \ for / 1", **READ),
    cell("image name decomposed", f"images/{NFC}", "Unicode form 1", file=f"images/{NFD}", **READ),
    cell("image ending in another case", "images/7.JPG", "differs in case, ending or Unicode form 1", **READ),
    cell("image name in another case", "Images/photo", "differs in case", file="images/Photo.JPEG", **READ),
    cell("image without its ending", "images/7", "differs in case, ending or Unicode form 1", **READ),
    cell("image path quoted for a URL", "images/my%20dog.jpg", "%-escapes 1", file="images/my dog.jpg", **READ),
    cell("image as a file URI", "file://images/7.jpg", "'/7.jpg' does not exist"),
    cell("image path with spaces around", "  ./images//7.jpg ", **READ),
    cell("image above the folder", "../FOLDER/7.jpg", "does not exist"),
    cell("list of one image", ["images/7.jpg"], **READ),
    cell("list of two images", ["images/7.jpg", "images/1.jpg"], "'image' must be the path of one image", "list of 2"),
    cell("image that is an object", {"url": "images/7.jpg"}, "must be the path of one image, got an object"),
    cell(
        "image of another computer", r"C:\me\images\7.jpg", "write paths relative to", "Did you mean 'images/7.jpg'?"
    ),
    cell("image with two endings", "images/a", "'images/a' does not exist"),
    cell("image in a folder", "7.jpg", "does not exist", "Did you mean 'images/7.jpg'?"),
    cell("image that is a folder", "images", "is a folder; write the path of a file"),
    cell("image path with a null byte", "images/7.jpg\0.png", "does not exist"),
    cell("image path of 300 letters", "n" * 300, "(300 characters) does not exist"),
    cell("image as a web address", "https://example.org/7.jpg", "is a URL; download it into the folder"),
    cell("image as a data URI", "data:image/png;base64," + "iVBORw0KGgo" * 500, "is a data: URI; save it as a file"),
    cell("image in base64", "/9j/4AAQSkZJ" * 500, "(6,000 characters) is no path; if it is base64"),
    # Contents.
    content("empty image file", b"", "(it is an empty file); replace it"),
    content("image of zero bytes", bytes(5000), "interrupted download"),
    content("page saved as an image", b"<!DOCTYPE html><html>404</html>", "it is an HTML page"),
    content("error of a server saved as an image", b'{"error": "expired"}', "it is a JSON file"),
    content("document as an image", b"%PDF-1.7\n", "it is a PDF document; convert it"),
    content("photograph of a telephone", HEIC, "HEIC image"),
    content("video as an image", b"\0\0\0\x1cftypmp42\0\0\0\0mp42isom", "it is a video"),
    content("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
    content("truncated image", JPEG[: len(JPEG) // 2], "truncated"),
    content("image of 400 million pixels", png_of_size(20000, 20000), "400000000 pixels", "decompression bomb"),
    content("image without pixels", png_of_size(0, 5), "damaged PNG"),
    content(
        "malformed EXIF", with_malformed_exif(), "malformed metadata (EXIF), stored upright without them 1", **READ
    ),
    content("floats from 0 to 1", tiff([[0, 0.5], [1, 0.2]], "f4"), **READ),
    content("floats with NaN", tiff([[0, float("nan")], [1, 0]], "f4"), "NaN"),
    content("floats of another range", tiff([[-2.1, 0], [1, 2.6]], "f4"), "go from -2.1 to 2.6", "floats from 0 to 1"),
    content("numbers of 32 bits", tiff([[0, 70000]], "i4"), "(int32) go from 0 to 70000"),
    # The processor, rationales and prediction.
    image("array with NaN", lambda: np.full((4, 5, 3), np.nan), "NaN"),
    image("array that is normalized", lambda: np.linspace(-2, 2, 60).reshape(4, 5, 3), "go from -2 to 2"),
    image("array without pixels", lambda: np.zeros((0, 5, 3)), "no pixels"),
    image("image bytes that are a page", lambda: b"<html>", "an HTML page"),
    image("data URI without an image", lambda: "data:text/plain;base64,aGVsbG8=", "no image"),
    image("image path that does not exist", lambda: "gone.jpg", "(gone.jpg)", "No such file"),
    BadInput(
        "rationale for a page",
        lambda folder: prepare_post({"id": "7", "text": "a", "image": b"<html>"}, max_pixels=10_000),
        ("post '7'", "an HTML page"),
    ),
    BadInput(
        "prediction of a page",
        ["predict", MODEL, "--text", "a", "--image", f"{FOLDER}/a.jpg"],
        ("a.jpg", "an HTML page"),
        {"a.jpg": "<html>"},
    ),
    BadInput(
        "prediction of a missing image",
        ["predict", MODEL, f"{FOLDER}/posts.csv", "--output", f"{FOLDER}/p.csv", "--on_error", "raise"],
        ("posts.csv, line 3", "'b.jpg' does not exist", "--on_error skip"),
        {"posts.csv": "text,image\none,a.jpg\ntwo,b.jpg\n", "a.jpg": JPEG},
        advice=["predict", MODEL, f"{FOLDER}/posts.csv", "--output", f"{FOLDER}/p.csv", "--on_error", "skip"],
    ),
]
