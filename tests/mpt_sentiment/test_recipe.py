"""Recipes and arguments: lookup by name, order of overriding, and error messages."""

import pytest
import yaml

from modeling_mpt import SYSTEMS
from modeling_mpt.systems import BASELINES
from mpt_sentiment import recipe
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import parse_training, training_setup


def test_the_command_line_overrides_a_recipe_found_by_name():
    setup = parse_training(["mvsa_single", "--data_dir", "x", "--learning_rate", "3e-4"])
    assert setup.data.dataset == "mvsa_single" and setup.data.data_dir == "x"
    assert setup.model.text_model_name_or_path == "google-bert/bert-base-uncased"
    assert setup.training.learning_rate == 3e-4 and setup.training.num_train_epochs == 20


def test_a_named_encoder_replaces_the_encoder_of_the_recipe():
    setup = parse_training(["sample", "--text_model_name_or_path", "x"])
    assert setup.model.text_config is None and setup.model.vision_config is not None
    setup = training_setup(["mvsa_single", "sample"], {})
    assert setup.model.text_model_name_or_path is None and setup.model.cnn_model_name_or_path is not None


def test_python_fields_override_recipes_and_reach_every_part():
    fields = {"learning_rate": 1e-4, "modalities": ["text"], "sknet_reduction": 8, "lora_r": 4, "seeds": [3, 4]}
    setup = training_setup(["mvsa_single", "sample"], fields)
    assert setup.model.text_config["model_type"] == "bert" and setup.model.text_model_name_or_path is None
    assert setup.training.learning_rate == 1e-4 and setup.training.seed == 3
    assert setup.model.config_fields()["modalities"] == ["text"] and setup.lora.lora_r == 4
    assert setup.model.config_fields()["sknet_reduction"] == 8
    with pytest.raises(ValueError, match="'sknet_reducton'.*Did you mean 'sknet_reduction'"):
        training_setup(["sample"], {"sknet_reducton": 8})


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_every_recipe_parses(name):
    setup = (
        parse_training([name]) if name != "comparison" else Protocol.of_command([name], "compare").setup("mpt", "", {})
    )
    assert setup.training.output_dir == f"outputs/{name.removeprefix('baselines/')}"


@pytest.mark.parametrize("name", BASELINES)
def test_the_recipe_of_a_baseline_sets_only_fields_it_has_and_no_dataset(name):
    setup = parse_training([f"baselines/{name}", "--dataset", "mvsa_single", "--data_dir", "x"])
    assert setup.model.model == name
    fields = yaml.safe_load((recipe.RECIPES / "baselines" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert not {"dataset", "data_dir"} & set(fields)
    config = SYSTEMS[name][0](**setup.model.config_fields())
    assert config.modalities and "rationales" not in config.modalities


@pytest.mark.parametrize("name", ["text_cnn", "bilstm", "clstm", "co_mem", "mvan", "mgnns"])
def test_static_words_have_a_rate_of_their_own_and_a_text_encoder_that_of_encoders(name):
    training = parse_training([f"baselines/{name}"]).training
    rate = 5e-4 if name == "mgnns" else 1e-3  # of its code
    assert (training.learning_rate, training.word_learning_rate, training.head_learning_rate) == (2e-5, rate, rate)


@pytest.mark.parametrize(
    ("name", "rate", "batch"),
    [("mvsa_single", 1e-5, 16), ("mvsa_multiple", 5e-6, 8), ("memotion", 1e-5, 16), ("ch_mits", 5e-5, 16)],
)
def test_recipes_hold_table_2_of_the_paper(name, rate, batch):
    setup = parse_training([name])
    assert (setup.training.learning_rate, setup.training.per_device_train_batch_size) == (rate, batch)
    assert setup.training.num_train_epochs == 20 and setup.model.hidden_size == 768
    assert setup.training.optim.startswith("adamw")


def test_the_literal_recipe_differs_from_the_default_in_its_switches_alone():
    default, literal = (
        yaml.safe_load((recipe.RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("mvsa_single", "mvsa_single_literal")
    )
    switches = {
        "contrastive_temperature": 1.0,
        "model_options": {
            "contrastive_reduction": "sum",
            "fusion": "literal",
            "cnn_variant": "authors",
            "cnn_channels": [16, 32, 64],
        },
    }
    changed = ("output_dir", "cnn_model_name_or_path", *switches)
    assert {name: literal[name] for name in switches} == switches and "cnn_model_name_or_path" not in literal
    same = [{name: value for name, value in each.items() if name not in changed} for each in (default, literal)]
    assert same[0] == same[1]
    SYSTEMS["mpt"][0](**parse_training(["mvsa_single_literal"]).model.config_fields())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learnin", "1"], "unrecognized arguments: --learnin.*Did you mean '--learning_rate'"),
        (["mvsa_singl"], "'mvsa_singl' does not exist.*Did you mean 'mvsa_single'"),
        (["--text_config", "{bert"], "--text_config.*'{bert' is not JSON"),
        (["--text_config", "{}"], "--text_config needs a 'model_type'"),
        (["sample", "--model", "bertt"], "unknown system.*Did you mean 'bert'"),
        (["sample", "--model", "bert", "--modalities", "text"], "modalities: the system 'bert'.*--use_rationales"),
        (["sample", "--use_rationales", "true"], "use_rationales: the system 'mpt'.*--modalities"),
        (["--model", "text_cnn", "--model_options", '{"num_filter": 3}'], "num_filter: the system 'text_cnn'"),
        (["--model", "mpt", "--scene_model_name_or_path", "x"], "the system 'mpt' reads no scene"),
        (["--model", "mvan", "--scene_model_name_or_path", "x"], "needs --scene_provider"),
        (["--seeds", "1", "1"], "--seeds .*distinct"),
        (["--num_train_epochs", "-1"], "`num_train_epochs` must be positive, got -1"),
        (["--metric_for_best_model", "f1"], "`metric_for_best_model` must be one of .*f1_macro.*got 'f1'"),
        (["--lora_r", "0"], "`lora_r` must be at least 1, got 0"),
    ],
)
def test_an_unusable_argument_is_one_line_with_a_remedy(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_training(argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat: 1.0e-5\n", "unknown argument 'learning_rat'. Did you mean 'learning_rate'"),
        ("- a list\n", "must map names of arguments to values, got a list"),
        ("a: [b\n", "is not YAML"),
        ("\udcff", "is not YAML in UTF-8"),
    ],
)
def test_an_unusable_recipe_is_one_line_that_names_the_file(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=f"bad.yaml.*{message}"):
        parse_training([str(tmp_path / "bad.yaml")])
