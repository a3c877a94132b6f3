"""Identity of a frozen encoder: everything but the content that determines its outputs."""

import hashlib
import json
import weakref
from typing import Any

import torch
from torch import nn

_weights: "weakref.WeakKeyDictionary[nn.Module, tuple[tuple, str]]" = weakref.WeakKeyDictionary()


def encoder_identity(encoder: Any, dtype: torch.dtype, autocast: torch.dtype | None) -> dict[str, Any]:
    """Describe a [`FrozenEncoder`] and the numbers that are stored of it; JSON-serializable.

    Args:
        encoder ([`FrozenEncoder`])
        dtype (`torch.dtype`): of the stored numbers.
        autocast (`torch.dtype`, *optional*): in which the encoder computes, if not in that of its weights.
    """
    modules = list(encoder.modules)
    return {
        "name": encoder.name,
        "reads": encoder.reads,
        "classes": [type(module).__name__ for module in modules],
        "settings": encoder.settings,
        "weights": [weights_digest(module) for module in modules],
        "dtype": str(dtype).removeprefix("torch."),
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
    }


def identity_digest(identity: dict[str, Any]) -> str:
    """Return the name of an encoder's folder."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """Hash the parameters and buffers of a module, again only after one of them changed."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = tuple((name, tensor.data_ptr(), tensor._version, tensor.dtype) for name, tensor in tensors.items())
    known = _weights.get(module)
    if known is None or known[0] != state:
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(tensors):
            tensor = tensors[name].detach()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        known = (state, digest.hexdigest())
        _weights[module] = known
    return known[1]
