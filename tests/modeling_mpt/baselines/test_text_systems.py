"""Text CNN, BiLSTM, C-LSTM and BERT against plain computations of one text at a time."""

import pytest
import torch
from torch import nn

from helpers import tiny, tiny_baselines

TEXTS = (0, 1, 2, 4)  # rows of the batch that have one, of 12, 3, 7 and 1 tokens


def words_of(model, batch, row: int) -> torch.Tensor:
    """Embeddings `(length, size)` of the real words of one post."""
    ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
    return model.text_encoder.get_input_embeddings()(ids)


@pytest.fixture
def batch():
    return tiny.batch()


def test_text_cnn_takes_each_filters_strongest_window(batch):
    model = tiny_baselines.model("text_cnn", kernel_sizes=[2, 4])
    pooled = model(**batch).fused_embeds
    for row in TEXTS:
        words, expected = words_of(model, batch, row), []
        for convolution in model.convolutions:
            width = convolution.kernel_size[0]
            zeros = torch.zeros(width - 1, words.shape[1])
            surrounded = torch.cat([zeros, words, zeros])
            windows = [surrounded[start : start + width] for start in range(len(words) + width - 1)]
            for filter_weight, bias in zip(convolution.weight, convolution.bias, strict=True):
                answers = [torch.relu((filter_weight.T * window).sum() + bias) for window in windows]
                expected.append(max(answers))
        torch.testing.assert_close(pooled[row], torch.stack(expected))
    assert (pooled[3] == 0).all()  # no text


def step(lstm: nn.LSTM, word: torch.Tensor, state: tuple, suffix: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """One step of an LSTM, gate by gate."""
    hidden, cell = state
    gates = getattr(lstm, f"weight_ih_l0{suffix}") @ word + getattr(lstm, f"bias_ih_l0{suffix}")
    gates = gates + getattr(lstm, f"weight_hh_l0{suffix}") @ hidden + getattr(lstm, f"bias_hh_l0{suffix}")
    into, forget, candidate, out = gates.chunk(4)
    cell = forget.sigmoid() * cell + into.sigmoid() * candidate.tanh()
    return out.sigmoid() * cell.tanh(), cell


def run(lstm: nn.LSTM, words: torch.Tensor, suffix: str = "") -> torch.Tensor:
    state = (torch.zeros(lstm.hidden_size), torch.zeros(lstm.hidden_size))
    for word in words:
        state = step(lstm, word, state, suffix)
    return state[0]


def test_bilstm_ends_at_the_last_word_and_at_the_first(batch):
    model = tiny_baselines.model("bilstm")
    pooled = model(**batch).fused_embeds
    for row in TEXTS:
        words = words_of(model, batch, row)
        expected = torch.cat([run(model.lstm, words), run(model.lstm, words.flip(0), "_reverse")])
        torch.testing.assert_close(pooled[row], expected)
    assert (pooled[3] == 0).all()


def test_clstm_reads_the_window_that_ends_at_each_word(batch):
    model = tiny_baselines.model("clstm", kernel_size=3)
    pooled = model(**batch).fused_embeds
    for row in TEXTS:
        words = words_of(model, batch, row)
        before = torch.cat([torch.zeros(2, words.shape[1]), words])
        windows = [
            torch.relu(
                torch.stack([(weight.T * before[i : i + 3]).sum() for weight in model.convolution.weight])
                + model.convolution.bias
            )
            for i in range(len(words))
        ]
        torch.testing.assert_close(pooled[row], run(model.lstm, torch.stack(windows)))


def test_new_words_are_drawn_wide_and_padding_is_zero():
    words = tiny_baselines.model("text_cnn").text_encoder.embeddings.weight
    assert (words[0] == 0).all() and 0.2 < words[1:].abs().max() <= 0.25
    assert words[1:].std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("name", ["text_cnn", "bilstm", "clstm"])
def test_words_can_be_the_states_of_the_text_encoder(name, batch):
    plain, contextual = (tiny_baselines.model(name, text_provider=kind) for kind in ("embeddings", "encoder"))
    assert not any("layer" in key for key in plain.state_dict())
    assert any("text_encoder.encoder.layer" in key for key in contextual.state_dict())
    assert torch.isfinite(contextual(**batch).logits).all()
    joined = tiny_baselines.model(name, text_provider="encoder", use_rationales=True)
    assert joined.rationale_encoder is None  # shared
    assert tiny_baselines.model(name, use_rationales=True).rationale_encoder is not None


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
def test_bert_classifies_the_first_state_of_any_encoder(text, batch):
    model = tiny_baselines.model("bert", text_config=tiny.text_config(text))
    for row in TEXTS:
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()].unsqueeze(0)
        state = model.text_encoder(input_ids=ids).last_hidden_state[0, 0]
        torch.testing.assert_close(model(**batch).logits[row], model.classifier[1](state), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("text_cnn", {"kernel_sizes": []}, r"kernel_sizes=\[\].*\[3, 4, 5\]"),
        ("text_cnn", {"num_filters": 1.5}, "`num_filters` must be an integer, got 1.5"),
        ("clstm", {"kernel_size": 0}, "kernel_size=0.*3 and 150"),
        ("bert", {"text_provider": "embeddings"}, "text_provider='embeddings': BERT.*'encoder'"),
        ("bert", {"text_provider": "words"}, "`text_provider`.*got 'words'"),
        ("bert", {"visual_provider": "patches"}, "`visual_provider`.*got 'patches'"),
        ("bert", {"scene_provider": "places"}, "BERT reads no scene"),
        ("bert", {"hidden_size": 0}, "hidden_size=0.*768"),
        ("bert", {"use_rationales": 1}, "`use_rationales`.*got 1"),
        ("bert", {"perspectives": []}, "use_rationales=False"),
        ("bert", {"use_rationale": True}, "`use_rationale`.*`use_rationales`"),
        ("image_cnn", {"visual_provider": "vit_patches"}, "visual_provider='cnn_grid'"),
        ("image_cnn", {"grid_size": 0}, "grid_size=0.*28"),
    ],
)
def test_a_value_out_of_bounds_says_what_to_write(name, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_baselines.config(name, **changes)
