"""The columns that every dataset shares."""

import pytest
from datasets import ClassLabel, Dataset, Image, Value

import dataset_scripts
from dataset_scripts.schema import LABELS, features, rationale_column


def test_every_dataset_has_these_columns_in_this_order():
    assert list(features()) == [
        "id",
        "image",
        "text",
        "rationale_positive",
        "rationale_neutral",
        "rationale_negative",
        "label",
        "text_label",
        "image_label",
        "language",
        "source",
    ]
    assert features()["image"] == Image()
    assert features()["rationale_neutral"] == Value("string")
    assert features()["label"] == ClassLabel(names=["positive", "neutral", "negative"])


def test_label_ids_are_fixed_because_published_models_depend_on_them():
    assert [features()["label"].str2int(name) for name in LABELS] == [0, 1, 2]


def test_perspectives_and_labels_are_free():
    schema = features(labels=["sad", "glad"], perspectives=["visual", "ironic"])
    assert schema["label"].names == ["sad", "glad"]
    assert [column for column in schema if column.startswith("rationale")] == ["rationale_visual", "rationale_ironic"]
    assert rationale_column("ironic") == "rationale_ironic"


def test_a_row_may_lack_image_rationales_and_labels():
    row = dict.fromkeys(features()) | {"id": "1", "text": "hello", "language": "en", "source": "mine"}
    (back,) = Dataset.from_list([row], features=features())
    assert back["image"] is None and back["label"] is None and back["rationale_positive"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "at least one class name"),
        ({"labels": "positive"}, "give a sequence of names"),
        ({"labels": ["a", "a"]}, "'a' more than once"),
        ({"perspectives": ["positive", " "]}, "must be a string that is not blank"),
    ],
)
def test_bad_names_are_refused_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        features(**arguments)


def test_the_sample_needs_nothing_and_takes_no_folder(tmp_path):
    posts, report = dataset_scripts.load_posts_with_report("sample", num_posts=12)
    assert len(posts) == report.read == sum(report.labels.values()) == 12
    assert list(posts.features) == list(features())
    with pytest.raises(ValueError, match="takes no data_dir"):
        dataset_scripts.load_posts("sample", tmp_path)


def test_an_unknown_dataset_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'mvsa_single'"):
        dataset_scripts.load_posts("mvsa_singel")


def test_an_unknown_option_gets_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match="no option 'text_colum'.*Did you mean 'text_column'"):
        dataset_scripts.load_posts("folder", tmp_path, text_colum="t")


def test_raw_datasets_need_their_folder(tmp_path):
    with pytest.raises(ValueError, match="needs data_dir"):
        dataset_scripts.load_posts("mvsa_single")
    with pytest.raises(ValueError, match="does not exist; give the folder that holds the raw data, or its archive"):
        dataset_scripts.load_posts("mvsa_single", tmp_path / "nowhere")


def test_on_error_takes_two_values_only(tmp_path):
    with pytest.raises(ValueError, match="on_error='ignore'; write \"raise\""):
        dataset_scripts.load_posts("folder", tmp_path, on_error="ignore")


def test_a_folder_written_by_datasets_opens_as_posts(tmp_path):
    row = dict.fromkeys(features()) | {"id": "1", "text": "hello", "label": "negative"}
    dataset = Dataset.from_list([row], features=features())
    dataset.save_to_disk(tmp_path / "arrow")
    (tmp_path / "parquet").mkdir()
    dataset.to_parquet(tmp_path / "parquet" / "train.parquet")
    for folder in ("arrow", "parquet"):
        posts, report = dataset_scripts.load_posts_with_report(str(tmp_path / folder))
        assert posts["id"] == ["1"] and report.labels == {"negative": 1}


def test_a_published_folder_with_other_columns_is_refused(tmp_path):
    Dataset.from_dict({"sentence": ["a"], "label": [0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"lacks the columns \['id', 'image', 'text'.*load_posts\('folder'"):
        dataset_scripts.load_posts(str(tmp_path))
