"""Text CNN, BiLSTM, C-LSTM and BERT against plain computations of one text at a time."""

import pytest
import torch

from helpers import tiny, tiny_baselines

TEXTS = (0, 1, 2, 4)  # rows of the batch with 12, 3, 7 and 1 tokens


@torch.no_grad()
def test_text_cnn_takes_the_maximum_over_windows():
    model, batch = tiny_baselines.model("text_cnn", kernel_sizes=[2, 4]), tiny.batch()
    pooled = model(**batch).fused_embeds
    for row in TEXTS:
        words, expected = tiny_baselines.words(model, batch, row), []
        for convolution in model.convolutions:
            width = convolution.kernel_size[0]
            zeros = torch.zeros(width - 1, words.shape[1])
            padded = torch.cat([zeros, words, zeros])
            windows = [padded[start : start + width] for start in range(len(words) + width - 1)]
            for weight, bias in zip(convolution.weight, convolution.bias, strict=True):
                expected.append(max(torch.relu((weight.T * window).sum() + bias) for window in windows))
        torch.testing.assert_close(pooled[row], torch.stack(expected))
    assert (pooled[3] == 0).all()  # no text


@torch.no_grad()
def test_bilstm_ends_at_the_last_word_and_at_the_first():
    model, batch = tiny_baselines.model("bilstm"), tiny.batch()
    pooled = model(**batch).fused_embeds
    for row in TEXTS:
        words = tiny_baselines.words(model, batch, row)
        expected = model.lstm(words.unsqueeze(0))[1][0].flatten()  # final states of both directions
        torch.testing.assert_close(pooled[row], expected)
    assert (pooled[3] == 0).all()


@torch.no_grad()
def test_clstm_reads_the_window_that_ends_at_each_word():
    model, batch = tiny_baselines.model("clstm", kernel_size=3), tiny.batch()
    pooled, convolution = model(**batch).fused_embeds, model.convolution
    for row in TEXTS:
        words = tiny_baselines.words(model, batch, row)
        padded = torch.cat([torch.zeros(2, words.shape[1]), words])
        windows = [padded[start : start + 3] for start in range(len(words))]
        features = [[(weight.T * window).sum() for weight in convolution.weight] for window in windows]
        features = torch.relu(torch.tensor(features) + convolution.bias)
        torch.testing.assert_close(pooled[row], model.lstm(features.unsqueeze(0))[1][0].flatten())


def test_new_word_embeddings_are_uniform_and_padding_is_zero():
    words = tiny_baselines.model("text_cnn").text_encoder.embeddings.weight
    assert (words[0] == 0).all() and 0.2 < words[1:].abs().max() <= 0.25
    assert words[1:].std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)


def test_words_can_be_the_states_of_the_text_encoder():
    embeddings, encoder = (
        tiny_baselines.model("bilstm", text_provider=provider, use_rationales=True)
        for provider in ("embeddings", "encoder")
    )
    assert not any("text_encoder.encoder.layer" in key for key in embeddings.state_dict())
    assert any("text_encoder.encoder.layer" in key for key in encoder.state_dict())
    assert encoder.rationale_encoder is None and embeddings.rationale_encoder is not None  # shared if possible
    assert torch.isfinite(encoder(**tiny.batch()).logits).all()


@torch.no_grad()
def test_text_pooling_mean_averages_the_real_tokens():
    model, batch = tiny_baselines.model("bert", text_pooling="mean"), tiny.batch()
    logits = model(**batch).logits
    for row in TEXTS:
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()].unsqueeze(0)
        states = model.text_encoder(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(logits[row], model.classifier[1](states.mean(dim=0)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[3], model.classifier[1].bias)  # no text


@pytest.mark.parametrize("name", ["bert", "late_fusion", "citenet", "cgaft"])
def test_systems_that_read_one_vector_of_a_text_pool_it_as_configured(name):
    cls, mean = (tiny_baselines.model(name, text_pooling=pooling) for pooling in ("cls", "mean"))
    assert list(cls.state_dict()) == list(mean.state_dict())
    # The networks that CGAFT mixes are equal before training, so that only its weights depend on the text's vector.
    field = "policy_weights" if name == "cgaft" else "logits"
    by_cls, by_mean = (model(**tiny.batch())[field] for model in (cls, mean))
    assert not torch.allclose(by_cls[0], by_mean[0])
    torch.testing.assert_close(by_cls[4], by_mean[4])  # the mean of one token is its state


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
@torch.no_grad()
def test_bert_classifies_the_first_state_of_any_encoder(text):
    model, batch = tiny_baselines.model("bert", text_config=tiny.text_config(text)), tiny.batch()
    logits = model(**batch).logits
    for row in TEXTS:
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()].unsqueeze(0)
        state = model.text_encoder(input_ids=ids).last_hidden_state[0, 0]
        torch.testing.assert_close(logits[row], model.classifier[1](state), atol=1e-5, rtol=1e-4)
