"""Images are decoded in parallel, in order, and once, also across interrupted builds."""

import threading
from collections import Counter

import pytest

from dataset_scripts import load_posts, load_posts_with_report
from dataset_scripts.reading import image_checks
from dataset_scripts.reading.image_checks import ImageCheckLog, UncheckedRow, checked_rows
from dataset_scripts.reading.report import BuildReport
from helpers.mvsa import write_mvsa

POSTS = 60


@pytest.fixture
def download(tmp_path, draw):
    return write_mvsa(tmp_path, draw, POSTS)


@pytest.fixture
def decoded(monkeypatch):
    """Count how often each image is decoded, by name."""
    counts, decode = Counter(), image_checks.image_fault

    def counting(image):
        counts[getattr(image, "name", "(bytes)")] += 1
        return decode(image)

    monkeypatch.setattr(image_checks, "image_fault", counting)
    return counts


def test_two_images_are_decoded_at_the_same_time(download, monkeypatch):
    two_decodings = threading.Barrier(2, timeout=30)

    def wait_for_another(image):
        two_decodings.wait()

    monkeypatch.setattr(image_checks, "image_fault", wait_for_another)
    assert len(load_posts("mvsa_single", download, num_proc=2)) == POSTS


def test_the_number_of_workers_changes_neither_rows_nor_cache(download):
    one, four = load_posts("mvsa_single", download), load_posts("mvsa_single", download, num_proc=4)
    assert four["id"] == one["id"] == [str(post) for post in range(1, POSTS + 1)]
    assert four.cache_files == one.cache_files


@pytest.mark.parametrize("num_proc", [1, 4])
def test_the_error_is_that_of_the_first_faulty_row(download, num_proc):
    (download / "data" / "20.jpg").write_bytes(b"no image")
    (download / "data" / "25.jpg").write_bytes(b"no image")
    (download / "data" / "22.txt").unlink()  # noticed while image 20 may still be decoded
    with pytest.raises(ValueError, match=r"line 21: the image .*20\.jpg cannot be decoded"):
        load_posts("mvsa_single", download, num_proc=num_proc)
    posts, report = load_posts_with_report("mvsa_single", download, on_error="skip", num_proc=num_proc)
    assert report.skipped == {"unreadable image": 2, "missing text": 1} and len(posts) == POSTS - 3


@pytest.mark.parametrize("num_proc", [1, 3])
def test_an_interrupted_build_continues_without_decoding_twice(download, monkeypatch, num_proc):
    decode, started, lock = image_checks.image_fault, Counter(), threading.Lock()

    def interrupt_the_fortieth(image):
        with lock:
            started[image.name] += 1
            number = started.total()
        if number == 40:
            raise KeyboardInterrupt
        return decode(image)

    with monkeypatch.context() as patch:
        patch.setattr(image_checks, "image_fault", interrupt_the_fortieth)
        with pytest.raises(KeyboardInterrupt):
            load_posts("mvsa_single", download, num_proc=num_proc)
    again = Counter()
    monkeypatch.setattr(image_checks, "image_fault", lambda image: again.update([image.name]) or decode(image))
    assert len(load_posts("mvsa_single", download, num_proc=num_proc)) == POSTS
    # Any of the images that are decoded at the same time may be the fortieth; those before it in the rows are logged.
    assert again == Counter(f"{number}.jpg" for number in range(POSTS - again.total() + 1, POSTS + 1))
    assert POSTS - 39 - (num_proc - 1) <= again.total() <= POSTS - 39 + 16 * num_proc


def test_only_changed_images_are_decoded_again(download, decoded, draw):
    (download / "data" / f"{POSTS}.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be decoded"):
        load_posts("mvsa_single", download)
    for _ in range(2):
        load_posts("mvsa_single", download, on_error="skip")
    assert decoded.total() == POSTS
    draw(download / "data" / "7.jpg", shade=200, size=9)
    (download / "data" / "8.txt").write_text("another text")
    posts = load_posts("mvsa_single", download, on_error="skip")
    assert posts["text"][7] == "another text" and posts[6]["image"].size == (9, 9)
    assert decoded["7.jpg"] == 2 and decoded.total() == POSTS + 1


def test_a_log_with_an_incomplete_last_line_keeps_the_others(tmp_path, draw, decoded):
    images = [draw(tmp_path / f"{number}.jpg", shade=number) for number in range(3)]
    images[1].write_bytes(b"no image")
    log = ImageCheckLog(tmp_path / "log")
    for image in images:
        log.record(*log.check(image))
    log.close()
    log.file.write_bytes(log.file.read_bytes()[:-5])
    decoded.clear()
    log = ImageCheckLog(log.file)
    assert log.check(images[0]) == (None, None)
    assert log.check(images[1])[1].startswith("it is no image")
    assert not decoded
    key, fault = log.check(images[2])
    assert decoded == {"2.jpg": 1} and fault is None
    log.record(key, fault)
    log.close()
    assert ImageCheckLog(log.file).check(images[2]) == (None, None)


def test_an_image_is_checked_again_after_an_upgrade_and_after_an_error_of_the_file_system(tmp_path, draw, monkeypatch):
    image = draw(tmp_path / "a.jpg")
    broken = tmp_path / "b.jpg"
    broken.write_bytes(b"no image")
    log = ImageCheckLog(tmp_path / "log")
    for path in (image, broken):
        log.record(*log.check(path))
    log.close()
    with monkeypatch.context() as patch:
        patch.setattr(image_checks, "DECODERS", "with pillow-heif")
        assert ImageCheckLog(log.file).check(broken)[0] is not None

    def denied(image):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_checks, "image_fault", denied)
    assert ImageCheckLog(tmp_path / "other").check(image) == (None, "the file cannot be read: Permission denied")


def test_rows_are_read_a_bounded_number_ahead(tmp_path, draw):
    image, read = draw(tmp_path / "a.jpg"), []

    def rows():
        for number in range(1000):
            read.append(number)
            yield UncheckedRow({"image": str(image)}, f"row {number}")

    checked = checked_rows(rows(), BuildReport("x"), ImageCheckLog(tmp_path / "log"), num_proc=2)
    for _ in range(10):
        next(checked)
    assert len(read) <= 10 + 32
    checked.close()


@pytest.mark.parametrize("num_proc", [0, 1.5, True, "2"])
def test_an_invalid_number_of_workers_is_refused(download, num_proc):
    with pytest.raises(ValueError, match="`num_proc` must be .*, got "):
        load_posts("mvsa_single", download, num_proc=num_proc)
