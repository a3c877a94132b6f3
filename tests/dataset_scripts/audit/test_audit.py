"""The audit finds what is wrong, and nothing else; its numbers are those published for the real data."""

import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, DatasetDict

from dataset_scripts import load_posts, split_hash, split_posts
from dataset_scripts.audit.audit import audit_posts
from dataset_scripts.audit.texts import text_fault
from dataset_scripts.schema import LABELS, features

GOOD = "The author smiles at the sea and looks forward to a long and sunny afternoon."


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


def images_of(*contents):
    texts = [f"words number {row}" for row in range(len(contents))]
    return posts_of(texts, images=[{"bytes": content, "path": None} for content in contents])


def picture(seed, width=320, height=240):
    """A smooth random picture, as photographs are: large shapes, little detail."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)


def stored(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def counts(found):
    return found.groups, found.posts, found.surplus, found.conflicting


COPIES = {
    "halved": lambda image: stored(image.resize((160, 120))),
    "saved at a low quality": lambda image: stored(image, "JPEG", quality=20),
    "squared": lambda image: stored(image.resize((224, 224))),
    "brightened": lambda image: stored(image.point(lambda value: min(255, value + 30))),
    "cut around": lambda image: stored(image.crop((8, 6, 312, 234))),
    "cut at a corner": lambda image: stored(image.crop((0, 0, 304, 228))),
    "with an alpha channel": lambda image: stored(image.convert("RGBA")),
    "with a palette": lambda image: stored(image.quantize(128), "GIF"),
    "turned, and saying so": lambda image: stored(
        image.transpose(PIL.Image.Transpose.ROTATE_90), "JPEG", exif=orientation(6)
    ),
}


def orientation(value):
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_that_was_changed_a_little_is_nearly_the_same(kind):
    report = audit_posts(images_of(stored(picture(1)), COPIES[kind](picture(1)), stored(picture(2))), protocols=())
    assert report.duplicates["image, same bytes"].groups == 0
    assert report.duplicates["image, nearly the same"].members == [["p0", "p1"]]


def test_two_hundred_different_pictures_have_no_near_duplicates():
    report = audit_posts(images_of(*(stored(picture(seed)) for seed in range(200))), protocols=())
    assert report.duplicates["image, nearly the same"].groups == 0


def test_the_same_drawing_in_other_colours_is_another_picture():
    red, blue = PIL.Image.new("RGB", (64, 64), "white"), PIL.Image.new("RGB", (64, 64), "white")
    red.paste((250, 60, 60), (10, 10, 40, 50))
    blue.paste((60, 100, 250), (10, 10, 40, 50))
    report = audit_posts(images_of(stored(red), stored(blue)), protocols=())
    assert report.duplicates["image, nearly the same"].groups == 0


def test_blank_images_are_reported_and_resemble_nothing():
    shades = [stored(PIL.Image.new("RGB", (40, 30), (shade, 90, 90))) for shade in (0, 1, 200)]
    clear = stored(PIL.Image.new("RGBA", (40, 30), (10, 20, 30, 0)))
    noisy = PIL.Image.new("RGB", (64, 64), (120, 130, 90))
    report = audit_posts(images_of(*shades, clear, stored(noisy, "JPEG", quality=10)), protocols=())
    assert report.images["blank"].posts == ["p0", "p1", "p2", "p3", "p4"]
    assert report.duplicates["image, nearly the same"].groups == 0


def test_broken_images_are_named_with_the_decoders_words(tmp_path):
    whole = stored(picture(1), "JPEG")
    posts = posts_of(
        ["one post", "two post", "three post", "four post", "five post"],
        images=[
            {"bytes": whole, "path": None},
            {"bytes": whole[: len(whole) // 2], "path": None},
            {"bytes": b"<html>not found</html>", "path": None},
            {"bytes": None, "path": str(tmp_path / "gone.jpg")},
            None,
        ],
    )
    report = audit_posts(posts, protocols=())
    assert report.images["broken"].posts == ["p1", "p2", "p3"] and report.images["absent"].posts == ["p4"]
    captions = [caption for section in report.sheet if "Broken" in section.title for caption, _ in section.entries]
    assert "truncated" in captions[0] and "cannot identify" in captions[1] and "No such file" in captions[2]


def test_text_levels_forgive_ever_more():
    texts = ["Good day", "Good day", "good DAY http://t.co/a", "RT @ann good day", "Good #day!", "another text"]
    found = audit_posts(posts_of(texts), protocols=()).duplicates
    sizes = [found[level].posts for level in found if level.startswith("text, ")]
    assert sizes == [2, 3, 4, 5]


def test_texts_without_words_are_no_ones_duplicates():
    found = audit_posts(posts_of(["http://t.co/a…", "@ann http://t.co/b", "RT @bob: …", ""]), protocols=()).duplicates
    assert all(one.groups == 0 for one in found.values())


def test_conflicting_labels_are_counted_by_group_and_missing_labels_conflict_with_nothing():
    labels = ["positive", "negative", "neutral", "neutral", "positive", None]
    report = audit_posts(posts_of(["a b", "a b", "c d", "c d", "e f", "e f"], labels), protocols=())
    found = report.duplicates["text, exact"]
    assert counts(found) == (3, 6, 3, 1)
    assert found.members[0] == ["p0", "p1"] and report.labels["no label"] == 1


def test_leaks_of_given_splits_are_counted_by_split_level_and_label():
    image = stored(picture(3))
    train = posts_of(
        ["the sun", "the rain", "a cat"], ["positive", "negative", "neutral"], images=[None, None, {"bytes": image}]
    )
    dev = posts_of(["THE SUN", "a new one"], ["positive"] * 2, id=["v0", "v1"])
    small = stored(picture(3).resize((160, 120)))
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
    assert leak.leaks["text, words alone"] == {"validation": 1, "test": 1}
    assert leak.leaks["image, nearly the same"] == {"validation": 0, "test": 1}
    assert leak.leaks["any of these"] == {"validation": 1, "test": 2}
    assert leak.same_label["any of these"] == {"validation": 1, "test": 1}  # the rain has another label in train
    assert report.duplicates["text, words alone"].crossing == 2
    assert report.duplicates["text, exact"].members == [["train/p1", "test/t0"]]


def many_posts():
    """A hundred posts, of which the last forty repeat the first forty."""
    texts = [f"words number {row % 60}" for row in range(100)]
    labels = [LABELS[row % 60 % 3] for row in range(100)]
    images = [{"bytes": stored(picture(row)), "path": None} if row < 4 else None for row in range(100)]
    return posts_of(texts, labels, images, text_label=labels, image_label=labels)


def test_protocols_are_those_of_split_posts_to_the_post():
    posts = many_posts()
    report = audit_posts(posts, seed=7)
    assert list(report.leakage) == ["grouped", "paper", "folds", "consistent"]
    for protocol in ("grouped", "paper", "consistent"):
        assert report.leakage[protocol].hash == split_hash(split_posts(posts, protocol, 7))
    assert report.leakage["folds"].hash == [split_hash(split_posts(posts, "folds", 7, fold=one)) for one in range(10)]


def test_a_random_split_leaks_and_a_grouped_one_does_not():
    leakage = audit_posts(many_posts()).leakage
    assert leakage["paper"].leaks["text, exact"]["test"] > 0
    for protocol in ("grouped", "folds", "consistent"):
        assert leakage[protocol].leaks["any of these"] == {"validation": 0, "test": 0}
    assert leakage["folds"].posts["test"] == 100


def test_id_lists_add_clmlfs_split_and_count_the_posts_they_leave_out(tmp_path):
    for name, ids in (("train", range(50)), ("dev", range(50, 60)), ("test", range(60, 70))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"p{post}" for post in ids))
    leak = audit_posts(many_posts(), id_lists=tmp_path).leakage["clmlf"]
    assert leak.left_out == 30 and leak.leaks["text, exact"] == {"validation": 0, "test": 10}


def test_a_protocol_that_the_posts_do_not_allow_is_explained_not_raised():
    report = audit_posts(posts_of(["one", "two", "three"]))
    assert list(report.leakage) == ["grouped"] and "too few" in report.impossible["paper"]
    assert "paper: not possible" in report.table()


def test_posts_with_the_same_id_are_named_and_still_compared():
    report = audit_posts(posts_of(["a b", "a b", "c"], id=["x", "y", "x"]))
    assert report.repeated_ids.count == 2 and report.duplicates["text, exact"].groups == 1
    assert "more than once" in report.impossible["grouped"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "blank"),
        (" \n", "blank"),
        ("RT @ann: http://t.co/x http:/…", "URLs and mentions alone"),
        ("@ann #happy #开心# http://t.co/x", "hashtags alone"),
        ("😀 2015 !!", "digits, emoji or signs alone"),
        ("#2015", "digits, emoji or signs alone"),
        ("caf\ufffd", "damaged bytes"),
        ("#happy day", None),
        ("开心", None),
        ("شكرا", None),
    ],
)
def test_texts_that_say_nothing_are_told_by_what_they_hold(text, fault):
    assert text_fault(text) == fault


POST = "We went down to the sea today"


@pytest.mark.parametrize(
    ("written", "language", "fault"),
    [
        (None, "en", "missing"),
        (" \t", "en", "blank"),
        ("…!", "en", "blank"),
        ("Nice and calm.", "en", "too short"),
        ("word " * 151, "en", "too long"),
        ("很好。", "zh", "too short"),
        (f"{POST}, it says so.", "en", "repeats the post"),
        ("The tone of this post is clearly Positive to me.", "en", "names a label"),
        ("这条微博的情感是积极的，作者很开心。", "zh", "names a label"),
        (f"{GOOD}<|im_end|>", "en", "control tokens or markup"),
        (f"{GOOD} </think>", "en", "control tokens or markup"),
        (f"**Reason**: {GOOD}", "en", "control tokens or markup"),
        (f"Assistant: {GOOD}", "en", "control tokens or markup"),
        ("作者看着大海微笑，期待着一个阳光明媚的漫长下午。", "en", "wrong script"),
        (GOOD, "zh-CN", "wrong script"),
    ],
)
def test_each_fault_of_a_rationale_is_found_and_is_the_only_one(written, language, fault):
    posts = posts_of([POST], language=[language], rationale_positive=[written])
    found = audit_posts(posts, protocols=()).rationales["positive"]
    assert {name for name, finding in found.items() if finding.count} == {fault}


@pytest.mark.parametrize(
    ("written", "language"),
    [
        (GOOD, "en"),
        (GOOD, None),
        ("I <3 this: 3 < 4 > 2, says the author, #happy and *really* at ease.", "en"),
        ("The photopositives on the wall are a hobby that the author enjoys.", "en"),
        (f"The post says \u201c{POST}\u201d, and the author sounds glad of a day off with good friends.", "en"),
        ("作者看着大海 selfie 微笑，期待着一个阳光明媚的漫长下午。", "zh"),
    ],
)
def test_a_sound_rationale_has_no_fault(written, language):
    posts = posts_of([POST], language=[language], rationale_positive=[written])
    assert not any(one.count for one in audit_posts(posts, protocols=()).rationales["positive"].values())


def test_rationales_that_two_perspectives_share_and_coverage_are_counted():
    posts = posts_of(
        ["one post", "two post", "three post"],
        rationale_positive=[GOOD, GOOD, None],
        rationale_negative=[GOOD.upper(), None, " "],
    )
    report = audit_posts(posts, protocols=())
    assert report.rationales["positive"]["same as another perspective's"].posts == ["p0"]
    assert report.rationales["negative"]["same as another perspective's"].posts == ["p0"]
    assert report.rationale_coverage == {"all": 1, "some": 1, "none": 1}  # no post has the neutral one


def test_json_and_sheet_are_written_whole_and_the_json_holds_no_texts(tmp_path):
    texts = ["<script>alert(1)</script> secret", "<script>alert(1)</script> secret"]
    image = {"bytes": stored(picture(1)), "path": None}
    report = audit_posts(posts_of(texts, ["positive", "negative"], [image, image]), protocols=())
    assert sorted(path.name for path in report.save(tmp_path / "new")) == ["audit.html", "audit.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["audit.html", "audit.json"]
    content = (tmp_path / "new/audit.json").read_text(encoding="utf-8")
    assert json.loads(content)["duplicates"]["text and image, exact"]["conflicting"] == 1
    assert "secret" not in content
    page = (tmp_path / "new/audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; secret" in page
    assert page.count("data:image/jpeg;base64,") >= 2 and not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_sheet_shows_opposite_labels_first_and_says_how_many_it_leaves_out():
    texts = ["a b", "a b", "c d", "c d", "e f", "e f"]
    labels = ["positive", "neutral", "neutral", "negative", "negative", "positive"]
    section = audit_posts(posts_of(texts, labels), protocols=(), sheet_rows=2).sheet[0]
    assert section.total == 3 and len(section.entries) == 2
    assert [post.text for post in section.entries[0][1]] == ["e f", "e f"]


def test_the_table_is_aligned_plain_text():
    lines = audit_posts(many_posts()).table().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("Duplicates"))
    assert len({len(line) for line in lines[start : start + 8]}) == 1
    assert lines[0] == "100 posts: positive 34, neutral 33, negative 33"


def test_threads_do_not_change_the_report():
    posts = many_posts()
    assert audit_posts(posts, num_proc=3).to_dict() == audit_posts(posts).to_dict()


def test_unsuitable_input_is_refused_with_a_remedy():
    posts = posts_of(["one", "two"])
    with pytest.raises(ValueError, match="without streaming"):
        audit_posts(posts.to_iterable_dataset())
    with pytest.raises(ValueError, match="lacks the columns image"):
        audit_posts(posts.remove_columns("image"))
    with pytest.raises(ValueError, match="Did you mean 'grouped'"):
        audit_posts(posts, protocols=["group"])
    with pytest.raises(ValueError, match="no posts"):
        audit_posts(posts.select([]))
    two_classes = posts.cast(features(labels=("positive", "negative")))
    with pytest.raises(ValueError, match="'test' has other columns or class names than split 'train'"):
        audit_posts(DatasetDict(train=posts, test=two_classes))


# What the literature's copies of the data hold, counted by another program.
MULTIPLE = {
    "text, exact": (147, 773, 626, 66, 55),
    "text, lower-case, without URLs": (215, 975, 760, 103, 84),
    "text, also without RT and mentions": (240, 1135, 895, 115, 93),
}


def test_mvsa_multiple_has_the_known_duplicates_and_leaks(real_data):
    def read(name):
        entries = json.loads((real_data / f"clmlf_splits/mvsa_multiple_{name}.json").read_text(encoding="utf-8"))
        columns = ([entry[key] for entry in entries] for key in ("text", "emotion_label", "id"))
        texts, labels, ids = columns
        return posts_of(texts, [LABELS[label] for label in labels], id=ids)

    splits = DatasetDict(train=read("train"), validation=read("dev"), test=read("test"))
    report = audit_posts(splits, protocols=("clmlf", "grouped"), id_lists=real_data / "clmlf_splits/mvsa_multiple")
    for level, facts in MULTIPLE.items():
        found = report.duplicates[level]
        assert (*counts(found), found.crossing) == facts, level
    for split in ("as given", "clmlf"):
        leak = report.leakage[split]
        assert leak.posts == {"train": 13624, "validation": 1700, "test": 1700}
        assert leak.leaks["text, lower-case, without URLs"] == {"validation": 98, "test": 83}
        assert leak.same_label["text, lower-case, without URLs"]["test"] == 72
    assert report.leakage["as given"].hash == report.leakage["clmlf"].hash
    assert report.leakage["grouped"].leaks["any of these"] == {"validation": 0, "test": 0}


def test_ch_mits_has_23_duplicate_texts(real_data):
    posts = load_posts("authors", real_data, file="chmits_llm_result.tsv", images=False)
    found = audit_posts(posts, protocols=()).duplicates["text, exact"]
    assert counts(found) == (23, 46, 23, 0)


def test_mvsa_single_has_pictures_that_were_posted_twice(real_data):
    folder = real_data / "mvsa_single"
    posts = load_posts("mvsa_single", folder, rationales=folder / "rationales.jsonl")
    report = audit_posts(posts, id_lists=real_data / "clmlf_splits/mvsa_single")
    assert counts(report.duplicates["image, same bytes"]) == (5, 10, 5, 1)
    assert counts(report.duplicates["image, nearly the same"]) == (18, 37, 19, 1)
    assert counts(report.duplicates["text, exact"]) == (18, 37, 19, 2)
    assert report.rationale_coverage == {"all": 1243, "some": 0, "none": 257}
    assert not any(found.count for found in report.images.values())
    assert report.leakage["clmlf"].left_out == 0
    assert report.leakage["grouped"].leaks["text, words alone"]["test"] == 0
