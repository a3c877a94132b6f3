"""Splits of every protocol: sizes, strata, duplicates; and the hashes of splits."""

import json
import random
from collections import Counter

import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts import group_ids, load_posts, split_hash, split_posts
from dataset_scripts.content import content_hash
from dataset_scripts.reading.id_lists import read_id_list
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import LABELS, features
from dataset_scripts.splits import complete_splits, labelled_posts

# Posts of the full MVSA-Single that MultiSentiNet's rule keeps, by (text label, image label, label).
FULL_KEPT = {
    ("positive", "positive", "positive"): 1398,
    ("neutral", "positive", "positive"): 1030,
    ("positive", "neutral", "positive"): 255,
    ("neutral", "neutral", "neutral"): 470,
    ("negative", "negative", "negative"): 724,
    ("neutral", "negative", "negative"): 421,
    ("negative", "neutral", "negative"): 213,
}


def posts_of(labels, texts=None, images=None, schema=None):
    count = len(labels)
    columns = {name: [None] * count for name in features()} | {
        "id": [f"post-{row}" for row in range(count)],
        "text": texts or [f"words number {row}" for row in range(count)],
        "image": images or [None] * count,
        "label": list(labels),
    }
    return Dataset.from_dict(columns, features=schema or features())


@pytest.fixture(scope="module")
def full():
    """Make posts with the labels of the full MVSA-Single."""
    kept = [pair for pair, count in FULL_KEPT.items() for _ in range(count)]
    posts = posts_of([label for _, _, label in kept]).remove_columns(["text_label", "image_label"])
    for position, name in enumerate(("text_label", "image_label")):
        posts = posts.add_column(name, [LABELS.index(pair[position]) for pair in kept])
    return posts.select_columns(list(features())).cast(features())


def noisy(count=400, seed=0):
    """Make posts of which a quarter repeat the text of another one, with a random label."""
    rng = random.Random(seed)
    labels = rng.choices(LABELS, weights=(6, 1, 3), k=count)
    texts = [
        f"words number {rng.randrange(count // 4) if rng.random() < 0.25 else row + count}" for row in range(count)
    ]
    return posts_of(labels, texts)


def assert_duplicates_stay_together(posts, splits):
    split_of = {post_id: name for name, split in splits.items() for post_id in split["id"]}
    assert len(split_of) == len(posts) == sum(len(split) for split in splits.values())
    groups = group_ids(posts)
    pairs = {(group, split_of[post_id]) for post_id, group in zip(posts["id"], groups, strict=True)}
    assert len(pairs) == len(set(groups)) < len(posts)


def counts_of(split):
    return tuple(Counter(split["label"])[label] for label in range(3))


def test_the_full_download_gets_table_1s_sizes_and_clmlfs_class_counts(full):
    splits = split_posts(full)
    assert [len(split) for split in splits.values()] == [3611, 450, 450]
    assert [counts_of(split) for split in splits.values()] == [(2147, 376, 1088), (268, 47, 135), (268, 47, 135)]


def test_paper_is_random_with_table_1s_sizes(full):
    splits = split_posts(full, "paper")
    assert [len(split) for split in splits.values()] == [3611, 450, 450]
    assert counts_of(splits["test"]) != (268, 47, 135)
    memotion = split_posts(posts_of(["positive"] * 6992), "paper")
    assert [len(split) for split in memotion.values()] == [5594, 699, 699]


def test_consistent_keeps_the_2592_posts_whose_labels_agree(full):
    splits = split_posts(full, "consistent")
    assert sum(len(split) for split in splits.values()) == 2592
    assert all(list(split["text_label"]) == list(split["image_label"]) for split in splits.values())


@pytest.mark.parametrize("protocol", ["grouped", "folds"])
def test_duplicates_stay_in_one_split_and_strata_hold(protocol):
    posts = noisy()
    splits = split_posts(posts, protocol)
    assert_duplicates_stay_together(posts, splits)
    for name in ("validation", "test"):
        shares = zip(counts_of(splits[name]), counts_of(posts), strict=True)
        assert all(abs(part - count / 10) <= 1.5 for part, count in shares)


def test_ten_folds_cover_every_post_once_and_validation_is_the_next_fold():
    posts = noisy()
    folds = [split_posts(posts, "folds", fold=fold) for fold in range(10)]
    assert sorted(post_id for splits in folds for post_id in splits["test"]["id"]) == sorted(posts["id"])
    for fold, splits in enumerate(folds):
        assert splits["validation"]["id"] == folds[(fold + 1) % 10]["test"]["id"]
        assert abs(len(splits["test"]) - 40) <= 2


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    posts = noisy()
    shuffled = posts.shuffle(seed=3)
    assert split_hash(split_posts(posts)) == "70926067d6f0dae6"  # on every machine and version
    for protocol in ("grouped", "paper", "folds"):
        first = split_hash(split_posts(posts, protocol))
        assert split_hash(split_posts(shuffled, protocol)) == first
        assert split_hash(split_posts(posts, protocol, seed=7)) != first


def test_the_content_hash_changes_with_everything_that_training_reads(tmp_path):
    rows = posts_of([*LABELS] * 2).to_list()
    for row in rows:
        row["image"] = {"bytes": b"image " + row["id"].encode(), "path": None}
    original = Dataset.from_list(rows, features=features())
    expected = content_hash(DatasetDict(train=original))

    def changed(**change):
        return content_hash(DatasetDict(train=Dataset.from_list([rows[0] | change, *rows[1:]], features=features())))

    hashes = [
        changed(id="other"),
        changed(text="other"),
        changed(label=2),
        changed(rationale_neutral="other"),
        changed(image={"bytes": b"other", "path": None}),
        changed(image=None),
        content_hash(DatasetDict(test=original)),
        content_hash(DatasetDict(train=original.rename_column("rationale_neutral", "rationale_sarcasm"))),
        content_hash(DatasetDict(train=original.select([1, 0, 2, 3, 4, 5]))),
    ]
    assert len({expected, *hashes}) == 1 + len(hashes)
    assert changed(source="other") == expected

    file = tmp_path / "image"
    file.write_bytes(rows[0]["image"]["bytes"])
    assert changed(image={"bytes": None, "path": str(file)}) == expected
    DatasetDict(train=original).save_to_disk(tmp_path / "saved", num_shards={"train": 3})
    assert content_hash(DatasetDict.load_from_disk(tmp_path / "saved")) == expected
    pieces = concatenate_datasets([original.select([row]) for row in range(6)])
    assert content_hash(DatasetDict(train=pieces)) == expected


def test_the_same_text_with_other_links_mentions_and_signs_is_one_group():
    texts = [
        "RT @amy: So HAPPY!! #sunshine http://t.co/abc",
        "so happy sunshine @bob https://t.co/xyz",
        "So happy, sunshine… &amp;",
        "so sad",
        "继续 开心！",
        "继续 #开心 www.a.cn/b",
        "http://t.cn/b继续 开心",
    ]
    without_words = ["http://t.co/a", "http://t.co/b", "@amy", "RT", "😀 !!", "??"]
    groups = group_ids(posts_of(["positive"] * 13, texts + without_words))
    assert groups == [0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]


def test_equal_images_form_a_group_as_files_or_embedded_and_groups_are_transitive(tmp_path, draw):
    files = [str(draw(tmp_path / f"{number}.png", shade)) for number, shade in enumerate((1, 2, 1, 3))]
    inside = {"bytes": (tmp_path / "1.png").read_bytes(), "path": None}
    posts = posts_of(
        ["positive"] * 6,
        texts=["one", "two", "three", "THREE!", "four", "five"],
        images=[*({"bytes": None, "path": file} for file in files), inside, None],
    )
    # 0 and 2 share an image, 2 and 3 a text; 1 and 4 share an image, as a file and embedded.
    assert group_ids(posts) == [0, 1, 0, 0, 1, 2]


def test_the_error_of_a_missing_image_names_the_post(tmp_path):
    posts = posts_of(["positive"], images=[{"bytes": None, "path": str(tmp_path / "gone.png")}])
    with pytest.raises(ValueError, match=r"post 'post-0': its image .*gone\.png cannot be read"):
        group_ids(posts)


@pytest.fixture
def lists(tmp_path):
    """Write lists of six posts in the two formats of CLMLF."""
    (tmp_path / "mine_train_ids.txt").write_text("post-0\npost-1\n\npost-5\n")
    (tmp_path / "mine_dev_ids.txt").write_text("post-2\r\n")
    (tmp_path / "mine_test.json").write_text(json.dumps([{"id": "post-3", "text": "x"}, {"id": "post-4"}]))
    return tmp_path


def test_clmlf_follows_the_lists_given_as_folder_prefix_or_files(lists):
    posts = posts_of(["positive"] * 6)
    files = {
        "train": lists / "mine_train_ids.txt",
        "validation": lists / "mine_dev_ids.txt",
        "test": lists / "mine_test.json",
    }
    for id_lists in (lists, lists / "mine", files):
        splits = split_posts(posts, "clmlf", id_lists=id_lists)
        assert {name: split["id"] for name, split in splits.items()} == {
            "train": ["post-0", "post-1", "post-5"],
            "validation": ["post-2"],
            "test": ["post-3", "post-4"],
        }


def test_clmlf_raises_or_skips_where_lists_and_posts_differ(lists, caplog):
    fewer, more = posts_of(["positive"] * 5), posts_of(["positive"] * 8)
    with pytest.raises(ValueError, match=r"1 listed ids have no post .*post-5.*on_missing=\"skip\""):
        split_posts(fewer, "clmlf", id_lists=lists)
    with pytest.raises(ValueError, match=r"2 posts are in no list .*post-6, post-7"):
        split_posts(more, "clmlf", id_lists=lists)
    splits = split_posts(more, "clmlf", id_lists=lists, on_missing="skip")
    assert sum(len(split) for split in splits.values()) == 6
    assert "2 posts are in no list" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "mine_dev_ids.txt").unlink(), r"0 files name the validation list \(none\)"),
        (lambda folder: (folder / "other_dev_ids.txt").write_text("1"), "2 files name the validation list"),
        (lambda folder: (folder / "mine_dev_ids.txt").write_text("post-3"), "id 'post-3' is listed twice"),
        (lambda folder: (folder / "mine_test.json").write_text('["post-3"]'), "expected a JSON list of objects"),
    ],
)
def test_broken_id_lists_are_refused(lists, damage, message):
    damage(lists)
    with pytest.raises(ValueError, match=message):
        split_posts(posts_of(["positive"] * 6), "clmlf", id_lists=lists)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["positive"] * 9, {"protocol": "group"}, "Did you mean 'grouped'"),
        (["positive"] * 9, {"protocol": "folds", "fold": 10}, "must be 0 to 9, got 10"),
        (["positive"] * 9 + ["neutral"] * 2, {}, "label 'neutral' has 2 posts; .* at least 3"),
        (["positive"] * 9, {"protocol": "folds"}, "label 'positive' has 9 posts; .* at least 10"),
        (["positive"] * 9, {"protocol": "paper"}, "9 posts are too few"),
        (["positive", None], {}, "1 of 2 posts have no label"),
        (["positive"] * 9, {"protocol": "consistent"}, "only MVSA"),
        (["positive"] * 9, {"protocol": "clmlf"}, "needs `id_lists`"),
        (["positive"] * 9, {"protocol": "clmlf", "id_lists": {"train": "a.txt"}}, "missing: validation, test"),
    ],
)
def test_errors_name_the_cause_and_a_fix(labels, options, message):
    with pytest.raises(ValueError, match=message):
        split_posts(posts_of(labels), **options)


def test_repeated_ids_are_refused():
    with pytest.raises(ValueError, match=r"1 ids occur more than once \(first: \['post-0'\]\)"):
        split_posts(concatenate_datasets([posts_of(["positive"]), posts_of(["positive"] * 9)]))


def test_real_posts_split_8_1_1_within_a_hundredth_and_duplicates_stay_together(real_data):
    posts = load_posts("mvsa_single", real_data / "mvsa_single")
    splits = split_posts(posts)
    shares = Counter(posts["label"])
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert len(splits[name]) / len(posts) == pytest.approx(share, abs=0.002)
        for label, count in Counter(splits[name]["label"]).items():
            assert count / len(splits[name]) == pytest.approx(shares[label] / len(posts), abs=0.01)
    assert_duplicates_stay_together(posts, splits)


def test_clmlfs_published_lists_have_the_sizes_of_table_1_and_cover_the_posts(real_data):
    folder = real_data / "clmlf_splits"
    names = ("train", "dev", "test")
    assert [len(read_id_list(folder / f"mvsa_single_{name}_ids.txt")) for name in names] == [3611, 450, 450]
    assert [len(read_id_list(folder / f"mvsa_multiple_{name}.json")) for name in names] == [13624, 1700, 1700]
    posts = load_posts("mvsa_single", real_data / "mvsa_single")
    splits = split_posts(posts, "clmlf", id_lists=folder / "mvsa_single", on_missing="skip")
    assert sum(len(split) for split in splits.values()) == len(posts) == 3997
    with pytest.raises(ValueError, match="514 listed ids have no post"):
        split_posts(posts, "clmlf", id_lists=folder / "mvsa_single")


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        (
            "grouped",
            {"fold": 2},
            "'grouped' has no option 'fold'; its options are group_column. It is .* of folds",
        ),
        ("paper", {"group_column": "id"}, r"its options are \(none\). It is an option of grouped and folds"),
        ("folds", {"id_lists": "lists"}, "'folds' has no option 'id_lists'.*clmlf"),
        ("folds", {"fold": "3"}, "`fold` must be 0 to 9, got '3'"),
        ("folds", {"fold": 10}, "`fold` must be 0 to 9, got 10"),
        ("grouped", {"group_column": "author"}, "no column 'author'; their columns are id.*group_column=\"author\""),
        ("grupped", {}, "`protocol` must be one of.*Did you mean 'grouped'"),
    ],
)
def test_an_option_that_a_protocol_cannot_use_is_refused(protocol, options, message):
    with pytest.raises(ValueError, match=message):
        split_posts(posts_of(["positive"] * 30), protocol, **options)


def test_a_group_larger_than_a_part_may_not_leave_it_without_posts():
    posts = posts_of(["positive"] * 20).add_column("group", ["all"] * 20)
    with pytest.raises(ValueError, match="No post is left for validation and test.*20 of 20 posts"):
        split_posts(posts)
    assert len(split_posts(posts.remove_columns("group"))["test"]) == 2


def test_posts_without_label_are_named_or_left_out_and_counted():
    posts = posts_of(["positive", None, "negative", None] * 10)
    with pytest.raises(ValueError, match="20 of 40 posts have no label .first ids: 'post-1', 'post-3'.*on_error="):
        split_posts(posts)
    assert sum(map(len, split_posts(posts, on_error="skip").values())) == 20
    report = BuildReport("test", kept=40, labels={"positive": 10, "(none)": 20, "negative": 10})
    labelled_posts(posts, "skip", report)
    assert report.kept == 20 and report.skipped == {"no label": 20} and "(none)" not in report.labels
    with pytest.raises(ValueError, match="of the split 'test' have no label.*label_column"):
        labelled_posts(posts_of([None, None]), "skip", split="test")


def test_given_splits_get_standard_names_and_a_validation_from_train():
    posts = noisy(200)
    test = posts_of(["positive"], ["held out"])
    complete = complete_splits(DatasetDict({"test": test, "train": posts}))
    assert list(complete) == ["train", "validation", "test"] and complete["test"]["id"] == test["id"]
    assert 15 <= len(complete["validation"]) <= 25
    rest = concatenate_datasets([complete["train"], complete["validation"]])
    assert sorted(rest["id"]) == sorted(posts["id"])
    assert_duplicates_stay_together(posts, {name: complete[name] for name in ("train", "validation")})
    named = complete_splits(DatasetDict({"train": posts, "dev": test, "test": test}))
    assert list(named) == ["train", "validation", "test"] and len(named["train"]) == 200
    with pytest.raises(ValueError, match="several splits of the same kind: train, dev, val"):
        complete_splits(DatasetDict({"train": posts, "dev": test, "val": test}))
