"""Tests of the interface that all models of transformers have."""

import re

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from helpers import tiny, tiny_baselines
from modeling_mpt import MPTForSentimentClassification, MPTModel
from modeling_mpt import modeling_mpt as modeling_file


def with_attention(attention, **changes) -> MPTForSentimentClassification:
    torch.manual_seed(0)
    return MPTForSentimentClassification._from_config(tiny.config(**changes), attn_implementation=attention).eval()


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# --- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vision, dtype", [(vision, torch.float32) for vision in tiny.VISION_ENCODERS] + [("vit", torch.bfloat16)], ids=str
)
def test_weights_come_back_bit_for_bit(vision, dtype, tmp_path):
    model = tiny.model(vision=vision, cnn_config=tiny.timm_config(), share_text_encoder=False).to(dtype)
    model.save_pretrained(tmp_path)
    loaded, info = MPTForSentimentClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.dtype == dtype and not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in loaded.state_dict().items())
    batch = tiny.batch()
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_auto_classes_open_a_saved_folder(tmp_path):
    model, batch = tiny.model(), tiny.batch()
    model.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(classifier, MPTForSentimentClassification)
    torch.testing.assert_close(classifier(**batch).logits, model(**batch).logits)
    features, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(features, MPTModel) and not info["missing_keys"]
    torch.testing.assert_close(features(**batch).fused_embeds, model(**batch).fused_embeds)
    assert "logits" not in features(**batch)


def test_a_classifier_starts_from_saved_features(tmp_path):
    model = tiny.model()
    model.mpt.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    assert all(v.equal(model.mpt.state_dict()[name]) for name, v in loaded.mpt.state_dict().items())
    assert torch.isfinite(loaded(**tiny.batch()).logits).all()


def test_a_loaded_model_can_get_another_number_of_labels(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert loaded(**tiny.batch()).logits.shape == (5, 7)


def test_a_seed_fixes_initialisation_and_dropout():
    batch = tiny.batch(labels=True)
    runs = []
    for _ in range(2):
        model = tiny.model(seed=3, dropout=0.5, rationale_dropout=0.5).train()
        runs.append((model(**batch).loss.item(), model(**batch).loss.item()))
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]
    assert not tiny.model(seed=4)(**batch).logits.equal(tiny.model(seed=3)(**batch).logits)


# --- attention, hidden states, outputs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, vision", [pair for pair in tiny.ENCODER_PAIRS if pair[1] not in ("convnext", "resnet")]
)
def test_attention_implementations_agree(text, vision):
    batch = tiny.batch()
    eager, sdpa = (with_attention(name, text=text, vision=vision) for name in ("eager", "sdpa"))
    for model, name in ((eager, "eager"), (sdpa, "sdpa")):
        assert model.config._attn_implementation == name
        assert model.mpt.text_encoder.config._attn_implementation == name
        assert model.mpt.image_branches.vision_encoder.config._attn_implementation == name
    torch.testing.assert_close(eager(**batch).fused_embeds, sdpa(**batch).fused_embeds)


def test_each_encoder_can_have_its_own_attention(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    choice = {"text_config": "eager", "vision_config": "sdpa"}
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path, attn_implementation=choice)
    output = loaded(**tiny.batch(), output_attentions=True)
    assert len(output.text_attentions) == 2 and output.vision_attentions is None


def test_attentions_that_no_encoder_returns_raise_an_error_with_the_remedy():
    model, batch = tiny.model(), tiny.batch()
    with pytest.raises(ValueError, match=r"\['sdpa'\].*set_attn_implementation\('eager'\)"):
        model(**batch, output_attentions=True)
    model.set_attn_implementation("eager")
    output = model(**batch, output_attentions=True)
    assert [a.shape for a in output.text_attentions] == [(5, 4, 12, 12)] * 2
    assert [a.shape for a in output.vision_attentions] == [(4, 4, 17, 17)] * 2  # of the four posts with an image
    assert model(**batch).text_attentions is None


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
def test_hidden_states_and_attentions_have_the_positions_of_input_ids(text):
    model, batch = with_attention("eager", text=text), tiny.batch()
    left = dict(batch)
    left["input_ids"], left["attention_mask"] = tiny.padded_left(batch["input_ids"], batch["attention_mask"], extra=3)
    request = {"output_hidden_states": True, "output_attentions": True}
    plain, right, shifted = model(**batch), model(**batch, **request), model(**left, **request)
    torch.testing.assert_close(right.logits, plain.logits)
    torch.testing.assert_close(shifted.logits, plain.logits)
    assert len(right.text_hidden_states) == 3 and right.text_hidden_states[0].shape == (5, 12, 32)
    assert shifted.text_hidden_states[0].shape == (5, 15, 32)
    for row, length in enumerate((12, 3, 7, 0, 1)):
        for one, other in zip(right.text_hidden_states, shifted.text_hidden_states, strict=True):
            torch.testing.assert_close(one[row, :length], other[row, 15 - length :])
        for one, other in zip(right.text_attentions, shifted.text_attentions, strict=True):
            torch.testing.assert_close(one[row, :, :length, :length], other[row, :, 15 - length :, 15 - length :])


def test_hidden_states_can_be_asked_for_in_the_configuration():
    model = tiny.model(output_hidden_states=True)
    assert len(model(**tiny.batch()).vision_hidden_states) == 3
    assert model(**tiny.batch(), output_hidden_states=False).text_hidden_states is None


def test_a_plain_tuple_begins_with_loss_and_logits():
    model, batch = tiny.model(), tiny.batch(labels=True)
    output, values = model(**batch), model(**batch, return_dict=False)
    assert isinstance(values, tuple)
    assert values[0].equal(output.loss) and values[1].equal(output.logits)
    del batch["labels"]
    assert model(**batch, return_dict=False)[0].equal(output.logits)
    assert isinstance(model.mpt(**batch, return_dict=False), tuple)
    assert isinstance(tiny.model(return_dict=False)(**batch), tuple)


@pytest.mark.parametrize("perspectives, num_labels", [(["only"], 2), (["a", "b", "c", "d", "e"], 7)], ids=str)
def test_any_number_of_perspectives_and_labels(perspectives, num_labels):
    model = tiny.model(perspectives=perspectives, num_labels=num_labels)
    output = model(**tiny.batch(perspectives=len(perspectives)))
    assert output.logits.shape == (5, num_labels)
    assert output.perspective_weights.shape == (5, len(perspectives))
    with pytest.raises(ValueError, match=rf"\(batch, {len(perspectives)}, rationale_len\).*\(5, 2, 20\)"):
        model(**tiny.batch(perspectives=2))


# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
def test_the_vocabulary_can_grow(share, tmp_path):
    model, batch = tiny.model(share_text_encoder=share), tiny.batch()
    before = model(**batch).logits
    model.resize_token_embeddings(tiny.VOCABULARY + 6)
    assert model.config.text_config.vocab_size == tiny.VOCABULARY + 6
    torch.testing.assert_close(model(**batch).logits, before)
    batch["input_ids"][0, 0] = batch["rationale_input_ids"][0, 0, 0] = tiny.VOCABULARY + 5
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_the_vocabulary_of_rationales_grows_in_a_network_of_images():
    model, batch = tiny_baselines.model("vit", use_rationales=True), tiny.batch()
    before = model(**batch).logits
    model.resize_token_embeddings(tiny.VOCABULARY + 6)
    torch.testing.assert_close(model(**batch).logits, before)
    batch["rationale_input_ids"][0, 0, 0] = tiny.VOCABULARY + 5
    assert model(**batch).logits.isfinite().all()


def test_input_embeddings_are_those_of_the_text_encoder():
    model = tiny.model()
    assert model.get_input_embeddings() is model.mpt.text_encoder.get_input_embeddings()
    new = torch.nn.Embedding(tiny.VOCABULARY, 32)
    model.set_input_embeddings(new)
    assert model.mpt.text_encoder.get_input_embeddings() is new
    assert tiny.model(modalities=["image"], loss_weight_mlcl=0).get_input_embeddings() is None


# --- training and speed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["bert", "distilbert"])
def test_gradient_checkpointing_changes_no_gradient(text):
    # DistilBERT keeps its dropout, whose masks are the same for one seed.
    batch = tiny.batch(labels=True)
    plain, checkpointed = tiny.model(text=text).train(), tiny.model(text=text).train()
    checkpointed.gradient_checkpointing_enable()
    assert checkpointed.is_gradient_checkpointing
    for model in (plain, checkpointed):
        torch.manual_seed(0)
        model(**batch).loss.backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(checkpointed)[name], gradient)


@pytest.mark.parametrize(
    "changes",
    [{}, {"text": "modernbert", "vision": "dinov2", "cnn_config": tiny.timm_config()}, {"share_text_encoder": False}],
    ids=["bert+vit", "modernbert+dinov2+timm", "two text encoders"],
)
def test_autocast_in_bfloat16_trains(changes):
    model, batch = tiny.model(**changes).train(), tiny.batch(labels=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**batch).loss, atol=0.05, rtol=0)
    output.loss.backward()
    for gradient in (gradient for gradient in gradients(model).values() if gradient is not None):
        assert gradient.dtype == torch.float32 and torch.isfinite(gradient).all()


@pytest.mark.parametrize("vision", ["vit", "convnext"])
def test_all_of_the_model_may_be_bfloat16(vision):
    batch = tiny.batch(labels=True)
    output = tiny.model(vision=vision).to(torch.bfloat16)(**batch)
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    expected = tiny.model(vision=vision)(**batch)
    torch.testing.assert_close(output.logits.float(), expected.logits, atol=0.02, rtol=0)


def test_a_training_step_with_one_post():
    model = tiny.model().train()
    output = model(**tiny.rows(tiny.batch(labels=True), 1))
    output.loss.backward()
    assert output.logits.shape == (1, 3)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_a_model_learns_a_handful_of_posts():
    model, batch = tiny.model(), tiny.batch(labels=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = model(**batch).loss_ce.item()
    for _ in range(25):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    assert model(**batch).loss_ce.item() < 0.2 < first


# --- graphs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield torch._dynamo
    torch._dynamo.reset()


def shallow_model(**changes) -> MPTForSentimentClassification:
    """Build a model with one layer per encoder, because tracing takes time for each."""
    one = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny.model(text_config=tiny.text_config(**one), vision_config=tiny.vision_config(**one), **changes)


def test_the_whole_compiled_model_is_one_graph_and_trains_like_the_eager_one(dynamo):
    # The batch has missing inputs, whose rows an eager model skips.
    batch = tiny.batch(labels=True)
    eager, compiled = shallow_model().train(), shallow_model().train()
    with dynamo.config.patch(allow_rnn=True):
        output = torch.compile(compiled, fullgraph=True, backend="eager")(**batch)
    expected = eager(**batch)
    for name in ("logits", "loss", "modality_weights", "perspective_weights"):
        torch.testing.assert_close(output[name], expected[name])
    output.loss.backward()
    expected.loss.backward()
    for name, gradient in gradients(eager).items():
        torch.testing.assert_close(gradients(compiled)[name], gradient, atol=1e-5, rtol=1e-4)


# --- LoRA ------------------------------------------------------------------------------------------------------------


def documented_lora():
    """Return the `LoraConfig` in the documentation of MPTForSentimentClassification."""
    from peft import LoraConfig

    example = re.search(r"```python\n(.*?)```", MPTForSentimentClassification.__doc__, re.DOTALL)[1]
    code = "\n".join(line.strip()[4:] for line in example.splitlines())
    return eval(code, {"LoraConfig": LoraConfig})


@pytest.mark.parametrize(
    "changes",
    [{"text": "distilbert", "vision": "dinov2", "cnn_config": tiny.timm_config()}, {"text": "modernbert"}],
    ids=["distilbert+dinov2+timm", "modernbert+vit"],
)
def test_lora_trains_saves_loads_and_merges(changes, tmp_path):
    peft = pytest.importorskip("peft")
    batch = tiny.batch(labels=True)
    model = peft.get_peft_model(tiny.model(**changes), documented_lora())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for encoder in ("text_encoder", "vision_encoder"):
        inside = {name for name in trained if encoder in name}
        assert inside and all("lora_" in name for name in inside)
    for layer in ("sknet", "lstm", "image_branches.cnn", "image_branches.projection", "fusion", "classifier"):
        assert any(layer in name and "lora_" not in name for name in trained), layer

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    first = model(**batch).loss.item()
    for _ in range(10):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    trained_logits = model(**batch).logits
    assert model(**batch).loss.item() < first

    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(tiny.model(**changes), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(**batch).logits, trained_logits)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, trained_logits, atol=1e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = MPTForSentimentClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(**batch).logits, trained_logits, atol=1e-5, rtol=1e-4)


# --- documentation ---------------------------------------------------------------------------------------------------


def test_every_output_is_documented():
    documented = re.findall(r"^ {8}([\w, ]+) \(", modeling_file.MPTOutput.__doc__, re.M)
    documented = {name for group in documented for name in group.split(", ")}
    assert documented == set(modeling_file.MPTOutput.__dataclass_fields__)


def test_a_trainer_gathers_the_logits_alone():
    model = tiny.model()
    output = model(**tiny.batch(labels=True), output_hidden_states=True)
    assert set(output) - set(model.config.keys_to_ignore_at_inference) == {"loss", "logits"}
