"""Audit of planted faults, and of real data with independently counted duplicates."""

import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, DatasetDict

from dataset_scripts import load_posts, split_hash, split_posts
from dataset_scripts.audit import audit_posts
from dataset_scripts.audit.texts import text_fault
from dataset_scripts.schema import LABELS, features

RATIONALE = "The author smiles at the sea and looks forward to a long and sunny afternoon."


def posts_of(texts, labels=None, images=None, **columns):
    count = len(texts)
    defaults = {name: [None] * count for name in features()} | {
        "id": [f"p{row}" for row in range(count)],
        "text": list(texts),
        "label": labels or ["positive"] * count,
        "image": images or [None] * count,
        "language": ["en"] * count,
    }
    return Dataset.from_dict(defaults | columns, features=features())


def photograph(seed, width=320, height=240):
    """Draw a smooth random picture: large shapes, little detail."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)


def encode(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def rotated_by_exif(image):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encode(image.transpose(PIL.Image.Transpose.ROTATE_90), "JPEG", exif=exif)


def counts(duplicates):
    return duplicates.groups, duplicates.posts, duplicates.surplus, duplicates.conflicting


COPIES = {
    "halved": lambda image: encode(image.resize((160, 120))),
    "low JPEG quality": lambda image: encode(image, "JPEG", quality=20),
    "squared": lambda image: encode(image.resize((224, 224))),
    "brightened": lambda image: encode(image.point(lambda value: min(255, value + 30))),
    "cropped on all sides": lambda image: encode(image.crop((8, 6, 312, 234))),
    "cropped at a corner": lambda image: encode(image.crop((0, 0, 304, 228))),
    "alpha channel": lambda image: encode(image.convert("RGBA")),
    "palette": lambda image: encode(image.quantize(128), "GIF"),
    "rotated by EXIF": rotated_by_exif,
}


def test_modified_copies_of_an_image_are_near_duplicates():
    contents = [encode(photograph(1)), *(copy(photograph(1)) for copy in COPIES.values())]
    contents += [encode(photograph(seed)) for seed in range(2, 30)]
    for color in ((250, 60, 60), (60, 100, 250)):  # the same drawing in other colors is another picture
        drawing = PIL.Image.new("RGB", (64, 64), "white")
        drawing.paste(color, (10, 10, 40, 50))
        contents.append(encode(drawing))
    images = [{"bytes": content, "path": None} for content in contents]
    posts = posts_of([f"words number {row}" for row in range(len(images))], images=images)
    report = audit_posts(posts, protocols=())
    assert report.duplicates["image, same bytes"].groups == 0
    groups = report.duplicates["image, nearly the same"].members
    assert groups == [[f"p{row}" for row in range(len(COPIES) + 1)]], list(COPIES)
    assert audit_posts(posts, protocols=(), num_proc=3).to_dict() == report.to_dict()


def test_blank_and_broken_images_are_reported_and_match_no_image(tmp_path):
    whole = encode(photograph(1), "JPEG")
    shades = [encode(PIL.Image.new("RGB", (40, 30), (shade, 90, 90))) for shade in (0, 1)]
    transparent = encode(PIL.Image.new("RGBA", (40, 30), (10, 20, 30, 0)))
    compressed = encode(PIL.Image.new("RGB", (64, 64), (120, 130, 90)), "JPEG", quality=10)
    contents = [whole, *shades, transparent, compressed, whole[: len(whole) // 2], b"<html>not found</html>"]
    images = [{"bytes": content, "path": None} for content in contents]
    images += [{"bytes": None, "path": str(tmp_path / "gone.jpg")}, None]
    report = audit_posts(posts_of([f"words number {row}" for row in range(9)], images=images), protocols=())
    faults = {fault: posts.posts for fault, posts in report.images.items()}
    assert faults == {"blank": ["p1", "p2", "p3", "p4"], "broken": ["p5", "p6", "p7"], "absent": ["p8"]}
    assert report.duplicates["image, nearly the same"].groups == 0
    (section,) = (section for section in report.sheet if "Broken" in section.title)
    captions = " ".join(caption for caption, _ in section.entries)
    assert "truncated" in captions and "an HTML page" in captions and "No such file" in captions


def test_text_levels_are_increasingly_lenient():
    texts = ["Good day", "Good day", "good DAY http://t.co/a", "RT @ann good day", "Good #day!", "another text"]
    texts += ["http://t.co/a…", "@ann http://t.co/b", "RT @bob: …", ""]  # no words, no duplicates
    duplicates = audit_posts(posts_of(texts), protocols=()).duplicates
    assert [duplicates[level].posts for level in duplicates if level.startswith("text, ")] == [2, 3, 4, 5]


def test_conflicting_labels_are_counted_by_group_and_missing_labels_do_not_conflict():
    labels = ["positive", "negative", "neutral", "neutral", "positive", None]
    report = audit_posts(posts_of(["a b", "a b", "c d", "c d", "e f", "e f"], labels), protocols=())
    duplicates = report.duplicates["text, exact"]
    assert counts(duplicates) == (3, 6, 3, 1)
    assert duplicates.members[0] == ["p0", "p1"] and report.labels["no label"] == 1


def test_leaks_of_given_splits_are_counted_by_split_level_and_label():
    image = encode(photograph(3))
    train = posts_of(
        ["the sun", "the rain", "a cat"], ["positive", "negative", "neutral"], images=[None, None, {"bytes": image}]
    )
    dev = posts_of(["THE SUN", "a new one"], ["positive"] * 2, id=["v0", "v1"])
    small = encode(photograph(3).resize((160, 120)))
    test = posts_of(
        ["the rain", "a dog", "unseen"],
        ["positive", "neutral", "neutral"],
        images=[None, {"bytes": small}, None],
        id=["t0", "t1", "t2"],
    )
    report = audit_posts(DatasetDict(train=train, dev=dev, test=test), protocols=())
    leak = report.leakage["as given"]
    assert leak.posts == {"train": 3, "validation": 2, "test": 3}
    assert leak.leaks["text, exact"] == {"validation": 0, "test": 1}
    assert leak.leaks["text, words only"] == {"validation": 1, "test": 1}
    assert leak.leaks["image, nearly the same"] == {"validation": 0, "test": 1}
    assert leak.leaks["any of these"] == {"validation": 1, "test": 2}
    assert leak.same_label["any of these"] == {"validation": 1, "test": 1}  # "the rain" has another label in train
    assert report.duplicates["text, words only"].crossing == 2
    assert report.duplicates["text, exact"].members == [["train/p1", "test/t0"]]


def posts_with_repetitions():
    """Make a hundred posts, of which the last forty repeat the first forty."""
    texts = [f"words number {row % 60}" for row in range(100)]
    labels = [LABELS[row % 60 % 3] for row in range(100)]
    images = [{"bytes": encode(photograph(row)), "path": None} if row < 4 else None for row in range(100)]
    return posts_of(texts, labels, images, text_label=labels, image_label=labels)


def test_protocols_equal_those_of_split_posts_and_only_a_random_split_leaks():
    posts = posts_with_repetitions()
    report = audit_posts(posts, seed=7)
    leakage = report.leakage
    assert list(leakage) == ["grouped", "paper", "folds", "consistent"]
    for protocol in ("grouped", "paper", "consistent"):
        assert leakage[protocol].hash == split_hash(split_posts(posts, protocol, 7))
    assert leakage["folds"].hash == [split_hash(split_posts(posts, "folds", 7, fold=fold)) for fold in range(10)]
    assert leakage["paper"].leaks["text, exact"]["test"] > 0
    for protocol in ("grouped", "folds", "consistent"):
        assert leakage[protocol].leaks["any of these"] == {"validation": 0, "test": 0}
    assert leakage["folds"].posts["test"] == 100
    lines = report.table().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Duplicates"))
    assert len({len(line) for line in lines[start : start + 8]}) == 1  # the columns are aligned
    assert lines[0] == "100 posts: positive 34, neutral 33, negative 33"


def test_id_lists_add_the_clmlf_split_and_count_unlisted_posts(tmp_path):
    for name, ids in (("train", range(50)), ("dev", range(50, 60)), ("test", range(60, 70))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"p{post}" for post in ids))
    leak = audit_posts(posts_with_repetitions(), id_lists=tmp_path).leakage["clmlf"]
    assert leak.left_out == 30 and leak.leaks["text, exact"] == {"validation": 0, "test": 10}


def test_a_protocol_that_the_posts_do_not_allow_is_reported_with_the_reason():
    report = audit_posts(posts_of(["one", "two", "three"]))
    assert list(report.leakage) == ["grouped"] and "3 posts" in report.impossible["paper"]
    assert "paper: not possible" in report.table()


def test_repeated_ids_are_reported_and_their_posts_compared():
    report = audit_posts(posts_of(["a b", "a b", "c"], id=["x", "y", "x"]))
    assert report.repeated_ids.count == 2 and report.duplicates["text, exact"].groups == 1
    assert "'x'" in report.impossible["grouped"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "blank"),
        (" \n", "blank"),
        ("RT @ann: http://t.co/x http:/…", "only URLs and mentions"),
        ("@ann #happy #开心# http://t.co/x", "only hashtags"),
        ("😀 2015 !!", "only digits, emoji or signs"),
        ("#2015", "only digits, emoji or signs"),
        ("caf\ufffd", "damaged bytes"),
        ("#happy day", None),
        ("开心", None),
        ("شكرا", None),
    ],
)
def test_texts_without_content_are_classified(text, fault):
    assert text_fault(text) == fault


def test_rationales_get_the_flags_of_the_gate_and_coverage_is_counted():
    posts = posts_of(
        ["one post", "two post", "three post", "four post"],
        rationale_positive=[RATIONALE, RATIONALE, None, "Nice."],
        rationale_negative=[RATIONALE.upper(), None, " ", "作者看着大海微笑，期待着一个阳光明媚的漫长下午。"],
        language=["en", "en", "en", "fr"],
    )
    report = audit_posts(posts, protocols=())
    flagged = {
        perspective: {flag: posts.posts for flag, posts in flags.items() if posts.count}
        for perspective, flags in report.rationales.items()
    }
    assert flagged["positive"] == {"missing": ["p2"], "sibling_same": ["p0"], "not judged": ["p3"]}
    assert flagged["negative"] == {"missing": ["p1", "p2"], "sibling_same": ["p0"], "not judged": ["p3"]}
    assert report.rationale_coverage == {"all": 2, "some": 1, "none": 1}  # no post has a neutral rationale


def test_json_and_sheet_are_complete_and_the_json_has_no_texts(tmp_path):
    texts = ["<script>alert(1)</script> secret", "<script>alert(1)</script> secret"]
    image = {"bytes": encode(photograph(1)), "path": None}
    report = audit_posts(posts_of(texts, ["positive", "negative"], [image, image]), protocols=())
    report.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["audit.html", "audit.json"]
    content = (tmp_path / "new/audit.json").read_text(encoding="utf-8")
    assert json.loads(content)["duplicates"]["text and image, exact"]["conflicting"] == 1
    assert "secret" not in content
    page = (tmp_path / "new/audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; secret" in page
    assert page.count("data:image/jpeg;base64,") >= 2 and not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_sheet_begins_with_opposite_labels_and_counts_all_candidates():
    texts = ["a b", "a b", "c d", "c d", "e f", "e f"]
    labels = ["positive", "neutral", "neutral", "negative", "negative", "positive"]
    section = audit_posts(posts_of(texts, labels), protocols=(), sheet_rows=2).sheet[0]
    assert section.total == 3 and len(section.entries) == 2
    assert [post.text for post in section.entries[0][1]] == ["e f", "e f"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda posts: posts.to_iterable_dataset(), {}, "without streaming"),
        (lambda posts: posts.remove_columns("image"), {}, "lacks the columns image"),
        (lambda posts: posts.select([]), {}, "no posts"),
        (lambda posts: posts, {"protocols": ["group"]}, "Did you mean 'grouped'"),
        (
            lambda posts: DatasetDict(train=posts, test=posts.cast(features(labels=("positive", "negative")))),
            {},
            "'test' has other columns or class names than split 'train'",
        ),
    ],
)
def test_unsuitable_input_is_refused_with_a_fix(change, options, message):
    with pytest.raises(ValueError, match=message):
        audit_posts(change(posts_of(["one", "two"])), **options)


# Counted in the copies of the literature by another program.
MULTIPLE = {
    "text, exact": (147, 773, 626, 66, 55),
    "text, lower-case, without URLs": (215, 975, 760, 103, 84),
    "text, also without RT and mentions": (240, 1135, 895, 115, 93),
}


def test_mvsa_multiple_has_the_known_duplicates_and_leaks(real_data):
    def read(name):
        entries = json.loads((real_data / f"clmlf_splits/mvsa_multiple_{name}.json").read_text(encoding="utf-8"))
        texts, labels, ids = ([entry[key] for entry in entries] for key in ("text", "emotion_label", "id"))
        return posts_of(texts, [LABELS[label] for label in labels], id=ids)

    splits = DatasetDict(train=read("train"), validation=read("dev"), test=read("test"))
    report = audit_posts(splits, protocols=("clmlf", "grouped"), id_lists=real_data / "clmlf_splits/mvsa_multiple")
    for level, expected in MULTIPLE.items():
        duplicates = report.duplicates[level]
        assert (*counts(duplicates), duplicates.crossing) == expected, level
    for protocol in ("as given", "clmlf"):
        leak = report.leakage[protocol]
        assert leak.posts == {"train": 13624, "validation": 1700, "test": 1700}
        assert leak.leaks["text, lower-case, without URLs"] == {"validation": 98, "test": 83}
        assert leak.same_label["text, lower-case, without URLs"]["test"] == 72
    assert report.leakage["as given"].hash == report.leakage["clmlf"].hash
    assert report.leakage["grouped"].leaks["any of these"] == {"validation": 0, "test": 0}


def test_mvsa_single_and_ch_mits_have_the_known_duplicates_and_leaks(real_data):
    notes = load_posts("authors", real_data, file="chmits_llm_result.tsv", images=False)
    assert counts(audit_posts(notes, protocols=()).duplicates["text, exact"]) == (23, 46, 23, 0)
    folder = real_data / "mvsa_single"
    posts = load_posts("mvsa_single", folder, rationales=folder / "rationales.jsonl")
    report = audit_posts(posts, id_lists=real_data / "clmlf_splits/mvsa_single", num_proc=2)
    assert report.posts == 3997
    assert counts(report.duplicates["image, same bytes"]) == (36, 74, 38, 6)
    assert counts(report.duplicates["image, nearly the same"]) == (144, 292, 148, 30)
    assert counts(report.duplicates["text, exact"]) == (130, 289, 159, 34)
    assert report.rationale_coverage == {"all": 3997, "some": 0, "none": 0}
    assert {fault: posts.count for fault, posts in report.images.items()} == {"absent": 0, "broken": 0, "blank": 1}
    assert report.leakage["clmlf"].posts == {"train": 3196, "validation": 405, "test": 396}
    assert report.leakage["clmlf"].leaks["any of these"] == {"validation": 41, "test": 33}
    assert report.leakage["grouped"].leaks["text, words only"]["test"] == 0
