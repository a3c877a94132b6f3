"""Layers of the encoders, gradient checkpointing, and the main input of each network."""

import pytest
import torch

from helpers import tiny, tiny_baselines, tiny_processor
from modeling_mpt import SYSTEMS, MPTTrainer, MPTTrainingArguments
from processing_mpt import MPTDataCollator

every_system = pytest.mark.parametrize("name", SYSTEMS)
REQUEST = {"output_hidden_states": True, "output_attentions": True}
WORDS_ONLY = ("text_cnn", "bilstm", "clstm", "co_mem", "mvan", "mgnns")  # read word embeddings, which have one layer


def build(name: str, **changes) -> torch.nn.Module:
    if name == "mpt":
        return tiny.model(**changes)
    return tiny_baselines.model(name, **({"use_rationales": True} | changes))


def layers(output) -> dict[str, tuple[torch.Tensor, ...]]:
    return {key: value for key, value in output.items() if key.endswith(("_hidden_states", "_attentions"))}


@every_system
def test_every_returned_layer_gets_a_gradient(name):
    model, batch = build(name, attn_implementation="eager"), tiny.batch()
    output = model(**batch, **REQUEST)
    torch.testing.assert_close(output.logits, model(**batch).logits, atol=1e-6, rtol=1e-5)
    returned = layers(output)
    reads = set(model.config.modalities)
    text, image = "text" in reads, "image" in reads and name != "image_cnn"
    shapes = {"rationale_hidden_states": [(15, 20, 32)] * 3, "rationale_attentions": [(15, 4, 20, 20)] * 2}
    if text:
        shapes["text_hidden_states"] = [(5, 12, 32)] * (1 if name in WORDS_ONLY else 3)
    if text and name not in WORDS_ONLY:
        shapes["text_attentions"] = [(5, 4, 12, 12)] * 2
    if image:  # of the four posts with an image
        shapes["vision_hidden_states"] = [(4, 17, 32)] * 3
    if image and name != "cgaft":  # which calls the layers itself
        shapes["vision_attentions"] = [(4, 4, 17, 17)] * 2
    assert {key: [tuple(layer.shape) for layer in value] for key, value in returned.items()} == shapes
    for value in returned.values():
        for layer in value:
            layer.retain_grad()
    output.logits.sum().backward()
    assert all(layer.grad is not None and layer.grad.any() for value in returned.values() for layer in value)
    assert not layers(model(**batch))


@every_system
def test_the_advice_for_attentions_can_be_followed(name):
    model, batch = build(name), tiny.batch()
    with pytest.raises(ValueError, match=r"Call `model\.set_attn_implementation\('eager'\)`"):
        model(**batch, output_attentions=True)
    model.set_attn_implementation("eager")
    assert model(**batch, output_attentions=True).rationale_attentions


@every_system
def test_a_list_chooses_the_layers(name):
    model, batch = build(name), tiny.batch()
    every = layers(model(**batch, output_hidden_states=True))
    chosen = layers(model(**batch, output_hidden_states=[0, -1]))
    assert chosen.keys() == every.keys()
    for key, expected in every.items():
        assert [layer is None for layer in chosen[key]] == [0 < i < len(expected) - 1 for i in range(len(expected))]
        torch.testing.assert_close((chosen[key][0], chosen[key][-1]), (expected[0], expected[-1]))


def test_layers_of_rationales_have_their_positions():
    model, batch = tiny.model(attn_implementation="eager"), tiny.batch()
    ids, mask = tiny.padded_left(batch["rationale_input_ids"], batch["rationale_attention_mask"])
    right = model(**batch, **REQUEST)
    left = model(**batch | {"rationale_input_ids": ids, "rationale_attention_mask": mask}, **REQUEST)
    torch.testing.assert_close(left.logits, right.logits)
    for one, other in zip(right.rationale_hidden_states, left.rationale_hidden_states, strict=True):
        torch.testing.assert_close(one[3, :9], other[3, 14:])  # the first rationale of post 1 has 9 tokens
    assert tiny.model(share_text_encoder=False)(**batch, output_hidden_states=True).rationale_hidden_states


# --- gradient checkpointing -----------------------------------------------------------------------------------------


@every_system
@pytest.mark.parametrize("use_rationales", [False, True], ids=["plain", "with rationales"])
def test_gradient_checkpointing_is_declared_where_it_works(name, use_rationales):
    changes = {} if name == "mpt" else {"use_rationales": use_rationales}
    plain, checkpointed = (build(name, **changes).train() for _ in range(2))
    declared = use_rationales or name not in ("text_cnn", "bilstm", "clstm", "image_cnn")
    assert checkpointed.supports_gradient_checkpointing == declared
    if not declared:
        with pytest.raises(ValueError, match="does not support"):
            checkpointed.gradient_checkpointing_enable()
        return
    checkpointed.gradient_checkpointing_enable()
    computed = []
    checkpoints = [each for each in checkpointed.modules() if hasattr(each, "gradient_checkpointing")]
    for layer in {inner for each in checkpoints for inner in each.modules()}:
        layer.register_forward_pre_hook(lambda *_: computed.append(1))
    batch = tiny.batch(labels=True)
    losses = []
    for model in (plain, checkpointed):
        torch.manual_seed(0)
        losses.append(model(**batch).loss)
    calls = len(computed)
    for loss in losses:
        loss.backward()
    assert len(computed) > calls, "no layer was computed again for its gradient"
    torch.testing.assert_close(*losses)
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_a_network_of_a_cnn_alone_has_nothing_to_checkpoint():
    model = tiny.model(modalities=["image"], image_branches=["cnn"], loss_weight_mlcl=0)
    assert not model.supports_gradient_checkpointing and tiny.model().supports_gradient_checkpointing


# --- main input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modalities", "name"),
    [
        (["text", "image", "rationales"], "input_ids"),
        (["image", "rationales"], "pixel_values"),
        (["image"], "pixel_values"),
        (["rationales"], "rationale_input_ids"),
    ],
    ids=str,
)
def test_the_main_input_is_one_that_the_network_reads(modalities, name, tmp_path):
    model = tiny.model(modalities=modalities, loss_weight_mlcl=0.0)
    assert model.main_input_name == model.base_model.main_input_name == name
    post = {"text": "a good day", "image": tiny_processor.image(), "rationale_positive": "rain"}
    rows = [post | {"label": i % 3} for i in range(4)]
    shapes = []
    arguments = MPTTrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, include_for_metrics=["inputs"]
    )
    trainer = MPTTrainer(
        model,
        arguments,
        eval_dataset=type("Rows", (list,), {})(rows),
        data_collator=MPTDataCollator(tiny_processor.processor(), modalities=modalities),
        compute_metrics=lambda result: shapes.append(result.inputs.shape) or {"f1_weighted": 0.0},
    )
    trainer.evaluate()
    assert shapes[0][0] == len(rows)


@pytest.mark.parametrize(("name", "main"), [("bert", "input_ids"), ("vit", "pixel_values"), ("clmlf", "input_ids")])
def test_the_main_input_of_a_baseline(name, main):
    assert tiny_baselines.model(name).main_input_name == main
