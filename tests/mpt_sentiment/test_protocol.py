"""Protocol of a comparison: what a system keeps of its own recipe, and what all have alike."""

import pytest

from modeling_mpt.systems import BASELINES
from mpt_sentiment.protocol import Protocol

SHARED = (
    "num_train_epochs early_stopping_patience per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "word_learning_rate head_learning_rate vision_learning_rate optim lr_scheduler_type warmup_steps weight_decay "
    "max_grad_norm"
).split()
COMPARISON = Protocol.of_command(["comparison", "--data_dir", "x"], "compare")


@pytest.mark.parametrize("system", BASELINES)
def test_budget_optimizer_and_encoders_of_all_systems_are_alike(system):
    mine, mpt = (COMPARISON.setup(name, "mvsa_single", {}) for name in (system, "mpt"))
    assert {name: getattr(mine.training, name) for name in SHARED} == {
        name: getattr(mpt.training, name) for name in SHARED
    }
    assert mine.training.gradient_accumulation_steps == 1 and mine.training.optim == "adamw_torch_fused"
    for name in ("text_model_name_or_path", "cnn_model_name_or_path", "vision_config", "max_length", "freeze_cnn"):
        assert getattr(mine.model, name) == getattr(mpt.model, name)


@pytest.mark.parametrize("system", ["mgnns", "clstm", "itin"])  # with accumulation, RMSprop, clipping of their own
def test_what_a_recipe_leaves_out_is_the_default_for_all_and_never_a_systems_own(system):
    protocol = Protocol.of_command(["sample", "--freeze_text_layers", "1"], "compare")
    mine, mpt = (protocol.setup(name, "mvsa_single", {}) for name in (system, "mpt"))
    assert mine.training.to_dict() == mpt.training.to_dict()
    assert (mine.data, mine.run, mine.lora) == (mpt.data, mpt.run, mpt.lora)
    assert mine.model.max_length == mpt.model.max_length and mine.model.freeze_text_layers == 1


def test_a_system_keeps_its_sizes_losses_and_options():
    model = COMPARISON.setup("clmlf", "mvsa_single", {}).model
    assert model.hidden_size == 768 and model.model_options["loss_weight_lbcl"] == 1.0
    assert COMPARISON.setup("mpt", "mvsa_single", {}).model.loss_weight_mlcl == 0.1


def test_a_field_that_a_system_lacks_is_left_out_for_it():
    protocol = Protocol.of_fields("comparison", "mvsa_single", {"num_hops": 3, "loss_weight_mlcl": 0.05})
    protocol.check(["mpt", "co_mem"])
    assert protocol.setup("co_mem", "mvsa_single", {}).model.model_options["num_hops"] == 3
    assert "num_hops" not in (protocol.setup("mpt", "mvsa_single", {}).model.model_options or {})
    assert protocol.setup("mpt", "mvsa_single", {}).model.loss_weight_mlcl == 0.05
    assert protocol.setup("mgnns", "mvsa_single", {}).model.visual_provider == "cnn_grid"
    with pytest.raises(ValueError, match="`num_hops` 3 applies to none of the systems bert"):
        protocol.check(["bert", "majority"])
    with pytest.raises(ValueError, match="`use_rationales` differs between rows: `rows` selects it"):
        Protocol.of_fields("comparison", "mvsa_single", {"use_rationales": True}).check(["itin"])
    with pytest.raises(ValueError, match="Unknown field 'num_hop'.*Did you mean 'num_hops'"):
        Protocol.of_fields("comparison", "mvsa_single", {"num_hop": 3})


def test_fields_of_the_command_line_override_the_recipe_and_own_fields_override_both():
    protocol = Protocol.of_command(
        ["comparison", "--dropout", "0.2", "--text_config", '{"model_type": "bert"}'], "compare"
    )
    assert protocol.setup("bert", "mvsa_single", {}).model.dropout == 0.2
    assert protocol.setup("bert", "mvsa_single", {}).model.text_model_name_or_path is None
    assert protocol.setup("bert", "mvsa_single", {"dropout": 0.3}).model.dropout == 0.3


def test_the_sample_and_other_posts_have_their_own_default_recipe():
    assert Protocol.of_fields(None, "sample", {}).recipe["dataset"] == "sample"
    assert Protocol.of_fields(None, "mine", {}).recipe["early_stopping_patience"] == 4
