"""Rows of a comparison: the grammar, its errors, and the fields and posts of a row."""

import pytest

import mpt_sentiment as mpt
from mpt_sentiment.cells import base_setups
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.rows import KNOWN_SYSTEMS, STATIC_WORDS, expand_rows, parse_row, parse_rows, words_of

POSTS = mpt.split_posts(mpt.load_posts("sample", num_posts=60, seed=3))
ALL = ["text", "image", "rationales"]
BASE = base_setups(Protocol.of_fields("sample", "sample", {}), "sample")


def fields(text: str, present: list[str] = ALL) -> dict:
    row = parse_row(text)
    return row.fields(BASE(row.system), present)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mpt", {}),
        ("mpt shuffled", {}),
        ("mpt -rationales", {"modalities": ["text", "image"]}),
        ("mpt -image", {"modalities": ["text", "rationales"], "contrastive_view": "fused"}),
        ("mpt -text contrastive_view=fused", {"modalities": ["image", "rationales"], "contrastive_view": "fused"}),
        ("mpt -mlcl", {"loss_weight_mlcl": 0.0}),
        ("mpt -sknet", {"text_branches": ["lstm"]}),
        ("mpt -lstm +mean", {"text_branches": ["sknet", "mean"]}),
        ("mpt text_branches=sknet,lstm,mean -sknet", {"text_branches": ["lstm", "mean"]}),
        ("mpt -cnn dropout=0.3", {"image_branches": ["vit"], "dropout": 0.3}),
        ("mpt perspectives=positive learning_rate=1e-3", {"learning_rate": 1e-3}),
        ("mpt fusion=concat class_weights=balanced", {"fusion": "concat", "class_weights": "balanced"}),
        ("mpt text_branches=mean", {"text_branches": ["mean"]}),
        ("itin +rationales", {"use_rationales": True}),
        ("itin -rationales", {"use_rationales": False}),
        ("itin shuffled", {"use_rationales": True}),
        ("clmlf -lbcl", {"loss_weight_lbcl": 0.0, "use_rationales": False}),
        ("mvan", {"use_rationales": False, "text_provider": "encoder"}),
        ("mvan words", {"use_rationales": False, "text_provider": "embeddings"}),
        ("mvan +rationales text_provider=embeddings", {"use_rationales": True, "text_provider": "embeddings"}),
        ("tfidf +rationales", {}),
    ],
)
def test_a_row_sets_the_fields_of_its_runs(text, expected):
    assert fields(text) == expected


def test_every_field_of_a_row_builds_the_arguments_of_a_run():
    protocol = Protocol.of_fields("sample", "sample", {})
    setup = protocol.setup(
        "mpt", "sample", fields("mpt -sknet perspectives=positive num_train_epochs=3 cnn_channels=[4,8]")
    )
    assert setup.model.text_branches == ["lstm"] and setup.training.num_train_epochs == 3
    assert setup.model.model_options["cnn_channels"] == [4, 8]


def test_words_that_change_nothing_are_left_out_of_the_title():
    titles = [parse_row(text).title for text in ("mpt +rationales", "mvan -rationales", "mvan +rationales shuffled")]
    assert titles == ["mpt", "mvan", "mvan shuffled"]
    assert parse_row("mpt  -mlcl   dropout=0.3").title == "mpt -mlcl dropout=0.3"
    assert parse_row("mpt -mlcl ensemble").trained == parse_row("mpt -mlcl")


def test_folders_of_rows_are_names_and_differ():
    texts = ["mpt", "mpt -mlcl", "mpt cnn_model_name_or_path=a/b", "mpt cnn_model_name_or_path=a_b", "mpt dropout=0.3"]
    folders = [parse_row(text).folder for text in texts]
    assert folders[:2] == ["mpt", "mpt_-mlcl"] and len(set(folders)) == len(folders)
    assert not any(set("/ \\:") & {*folder} for folder in folders)
    assert len(parse_row(f"mpt cnn_model_name_or_path={'x' * 300}").folder) < 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mptt", "Unknown system 'mptt'; use all, floors, ablations, or one of majority.* Did you mean 'mpt'"),
        ("mpt -mlc", "'mpt -mlc': unknown word '-mlc'; mpt has -text.*field=value. Did you mean '-mlcl'"),
        ("mpt shufled", "unknown word 'shufled'.*Did you mean 'shuffled'"),
        ("mvan -image", "unknown word '-image'; mvan has -rationales"),
        ("bert +rationales", "unknown word '\\+rationales'; bert has ensemble"),
        ("majority shuffled", r"majority has \(none\)"),
        ("mpt fusionn=concat", "'mpt fusionn=concat': unknown field 'fusionn'. Did you mean 'fusion'"),
        ("bert loss_weight_mlcl=0.1", "unknown field 'loss_weight_mlcl'"),
        ("mpt dropout=fast", "`dropout` must be a number, got 'fast'"),
        ("mpt modalities=text", "`modalities` cannot be a field of a row. Write -text, -image or -rationales"),
        ("mpt seed=3", "Use --seeds"),
        ("mpt dropout=0.1 dropout=0.2", "`dropout` is given twice"),
        ("mpt -mlcl -mlcl", "'-mlcl' is given twice"),
        ("mpt -mean +mean", r"'\+mean' is given twice or contradicts"),
        ("mpt -rationales shuffled", "-rationales contradicts"),
        ("tfidf -text", "no modality is left"),
        ("tfidf dropout=0.1", "tfidf has no field 'dropout'"),
    ],
)
def test_a_row_that_is_wrong_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_row(text)
    assert len(str(error.value)) <= 400


@pytest.mark.parametrize(
    ("text", "present", "message"),
    [
        ("mpt -mean", ALL, "-mean changes nothing: there are sknet, lstm"),
        ("mpt -sknet -lstm", ALL, "nothing is left without sknet, lstm"),
        ("mpt -image", ["text"], "-image changes nothing: there are text"),
    ],
)
def test_a_row_that_does_not_fit_the_arguments_is_refused(text, present, message):
    with pytest.raises(ValueError, match=message):
        fields(text, present)


def test_rows_of_perspectives_read_their_rationales_alone():
    posts = parse_row("mpt perspectives=positive,neutral").posts(POSTS)
    names = [name for name in posts["train"].column_names if name.startswith("rationale_")]
    assert names == ["rationale_positive", "rationale_neutral"]
    with pytest.raises(ValueError, match="no post has a rationale 'positiv'.*Did you mean 'positive'"):
        parse_row("tfidf +rationales perspectives=positiv").posts(POSTS)


def expanded(*texts: str, posts=POSTS) -> list[str]:
    return [row.title for row in expand_rows(parse_rows(texts), posts, BASE)]


def test_lists_are_replaced_by_their_rows_in_place():
    assert expanded("bert", "floors", "mpt")[:3] == ["bert", "majority", "tfidf"]
    rows = expanded("mpt -mlcl", "ablations")
    assert rows[:2] == ["mpt -mlcl", "mpt"] and len(rows) == len(set(rows))
    assert {"mpt -rationales", "mpt shuffled", "mpt -lstm", "mpt -cnn", "mpt perspectives=neutral"} <= {*rows}
    everything = expanded("all")
    assert [name for name in KNOWN_SYSTEMS if name not in everything] == []
    assert [row.split()[0] for row in everything if row.endswith(" words")] == list(STATIC_WORDS)
    assert {"mpt -rationales", "mvan +rationales", "tfidf shuffled"} <= {*everything}
    assert "bert +rationales" not in everything
    with pytest.raises(ValueError, match="The row 'mpt' is given twice"):
        parse_rows(["mpt", "mpt +rationales"])


def test_without_rationales_lists_have_no_rows_with_them():
    plain = POSTS.map(
        lambda row: {name: None for name in row if name.startswith("rationale_")}, features=POSTS["train"].features
    )
    frozen = ["", " -image", " -text"]
    expected = {"majority", "tfidf", *(f"{name}{words}" for name in ("logistic", "boosting") for words in frozen)}
    assert {*expanded("floors", posts=plain)} == expected
    assert not [row for row in expanded("all", "ablations", posts=plain) if "rationales" in row or "shuf" in row]
    with pytest.raises(ValueError, match="`rows` has 'tfidf shuffled', but no post has a rationale"):
        expanded("tfidf shuffled", posts=plain)


def test_lists_have_no_baselines_without_what_the_posts_lack():
    def without(*names):
        return POSTS.map(lambda row: dict.fromkeys(names), features=POSTS["train"].features)

    rationales = [name for name in POSTS["train"].column_names if name.startswith("rationale_")]
    floors = expanded("floors", posts=without("image"))
    assert [row for row in floors if row.startswith("logistic")] == [
        "logistic",
        "logistic +rationales",
        "logistic shuffled",
    ]
    assert expanded("floors", posts=without("text", *rationales)) == ["majority", "logistic", "boosting"]


def test_a_new_baseline_is_a_row_with_the_modalities_it_reads(monkeypatch):
    floor = BASELINES["majority"].__class__(lambda *args: None, ("text", "image", "rationales"), ("", "+rationales"))
    monkeypatch.setitem(BASELINES, "floor", floor)
    monkeypatch.setattr("mpt_sentiment.rows.KNOWN_SYSTEMS", (*KNOWN_SYSTEMS, "floor"))
    assert {"floor", "floor +rationales"} <= {*expanded("floors")}
    assert parse_row("floor").modalities() == ["text", "image"]
    assert parse_row("floor -text +rationales").modalities() == ["image", "rationales"]
    assert words_of("floor") == ["-text", "-image", "-rationales", "+rationales", "shuffled"]
    words_of.cache_clear()


def test_the_papers_numbers_are_those_of_unchanged_systems():
    assert parse_row("mpt").published("mvsa_single") == (0.7795, 0.7562)
    assert parse_row("mvan words").published("mvsa_single") == (0.7298, 0.7298)
    assert parse_row("itin +rationales").published("mvsa_single") == (0.7584, 0.7482)
    for text in ("mpt -rationales", "mpt shuffled", "mpt dropout=0.3", "mpt ensemble", "mvan shuffled", "tfidf"):
        assert parse_row(text).published("mvsa_single") is None
