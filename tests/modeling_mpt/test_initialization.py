"""Weights and buffers that a checkpoint lacks are drawn as those of a new model."""

import pytest
import torch
from transformers.utils import logging

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS

every_system = pytest.mark.parametrize("name", SYSTEMS)
JUNK = 10**18  # no initialization draws it


@pytest.fixture(autouse=True)
def without_reports():
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # of the missing weights
    yield
    logging.set_verbosity(verbosity)


def build(name: str, **changes) -> torch.nn.Module:
    if name == "mpt":
        return tiny.model(share_text_encoder=False, cnn_config=tiny.timm_config(), **changes)
    return tiny_baselines.model(name, use_rationales=True, **changes)


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return all parameters and buffers, also those that are never saved."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def fill_freed_memory(model: torch.nn.Module) -> None:
    """Leave a number that no layer draws in the memory that the next tensors of these sizes get."""
    junk = [torch.full_like(value, JUNK) for _ in range(3) for value in model.state_dict().values() if value.dim()]
    del junk


def assert_alike(loaded: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> None:
    """Raise an error unless two draws of a model have the same constants and distributions."""
    assert loaded.keys() == new.keys()
    for name, value in loaded.items():
        one, other = value.double(), new[name].double()
        assert one.shape == other.shape and torch.isfinite(one).all(), name
        if other.numel() == 0 or other.min() == other.max() or not value.is_floating_point():
            assert one.equal(other), name
            continue
        # Few draws differ more. The normal distribution has the longest tail.
        assert one.abs().max() <= 4 * other.abs().max() + 3 * other.std(), name
        if other.numel() >= 200:
            assert one.std().item() == pytest.approx(other.std().item(), rel=0.3), name
            assert abs(one.mean() - other.mean()) <= 0.5 * other.std(), name


@every_system
@torch.no_grad()
def test_a_checkpoint_without_any_weight_gives_a_new_model(name):
    new = build(name)
    fill_freed_memory(new)
    loaded = type(new).from_pretrained(None, config=new.config, state_dict={})
    assert_alike(tensors(loaded), tensors(new))


@every_system
@torch.no_grad()
def test_layers_of_another_size_are_new_and_the_others_loaded(name, tmp_path):
    saved = build(name)
    for parameter in saved.parameters():
        parameter.add_(3.0)
    saved.save_pretrained(tmp_path)
    fill_freed_memory(build(name, hidden_size=24))
    loaded = type(saved).from_pretrained(tmp_path, hidden_size=24, ignore_mismatched_sizes=True)
    new, old = tensors(build(name, hidden_size=24)), tensors(saved)
    fitting = {key for key, value in new.items() if value.shape == old[key].shape}
    assert all(value.equal(old[key]) for key, value in tensors(loaded).items() if key in fitting)
    assert_alike(*({key: value for key, value in t.items() if key not in fitting} for t in (tensors(loaded), new)))
    assert loaded(**tiny.batch()).logits.isfinite().all()


@every_system
def test_a_second_initialization_draws_nothing_for_a_gru(name):
    # Later layers would have other values than in earlier versions.
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = [m for m in model.modules() if isinstance(m, torch.nn.GRU | torch.nn.GRUCell)]
    assert bool(layers) == (name in ("co_mem", "mvan", "itin"))
    state = torch.get_rng_state()
    for layer in layers:
        model._init_weights(layer)
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
