"""Checks of encoders before weights are read: reachable, and of the right kind."""

import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import yaml
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

from dataset_scripts.reading.report import did_you_mean

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
# Seconds to wait for the Hub; huggingface_hub itself repeats an unanswered request for half a minute.
TIMEOUT = 10


def check_encoder(source: str | PreTrainedConfig | None, part: str, field: str) -> None:
    """Check that an encoder is reachable and of the right kind; its weights are not loaded.

    Args:
        source (`str` or `PreTrainedConfig`): Hub id or folder, or the configuration of one that starts at random.
        part (`str`): `text`, `vision`, `cnn` or `scene`.
        field (`str`): argument that named it, for the message.

    Raises:
        ValueError: a folder or Hub id without a model, no connection, no permission, or a model of another kind.
    """
    if source is None:
        return
    config = load_config(source, field) if isinstance(source, str) else source
    fault = _wrong_kind(config, part)
    if fault:
        name = f" {source}" if isinstance(source, str) else ""
        raise ValueError(f"`{field}`{name}: {fault}")
    if part == "text" and config.model_type in set(CAUSAL) - set(MASKED):
        logger.warning(
            "`%s`: a %s reads each token without the later ones. An encoder such as %s reads both sides.",
            field,
            config.model_type,
            "google-bert/bert-base-uncased",
        )


def load_config(source: str, field: str) -> PreTrainedConfig:
    """Load the configuration of a Hub id or folder.

    Raises:
        ValueError: see [`check_encoder`].
    """
    check_source(source, field)
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"`{field}` {source} has an unusable config.json: {first_sentence(error)}") from error


def config_of_type(fields: dict[str, Any], field: str) -> PreTrainedConfig:
    """Build the configuration of an encoder that starts at random.

    Raises:
        ValueError: an unknown `model_type`, or a value that it refuses.
    """
    model_type = fields["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"`{field}` has an unknown model_type {model_type!r}.{did_you_mean(model_type, CONFIG_MAPPING)} E.g. "
            '"bert" for texts, "vit" for images.'
        )
    try:
        return AutoConfig.for_model(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{field}` is no configuration of {model_type}: {first_sentence(error)}") from error


def check_source(source: str, field: str) -> None:
    """Check that a model exists in a folder, on the Hub, or in the cache of the Hub.

    Raises:
        ValueError: it does not, or cannot be reached; the message names the argument `field`.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            inner = sorted(str(path.parent) for path in folder.glob("*/config.json"))[:3]
            hint = f" Did you mean {', '.join(inner)}?" if inner else ""
            raise ValueError(f"`{field}`: the folder {source} holds no model, it has no config.json.{hint}")
    elif _is_path(source):
        siblings = {path.name for path in folder.parent.glob("*") if path.is_dir()} if folder.parent.is_dir() else ()
        problem = "is a file; name its folder" if folder.is_file() else "does not exist"
        raise ValueError(f"`{field}`: the folder {source} {problem}.{did_you_mean(folder.name, siblings)}")
    else:
        _check_hub(source, field)


@functools.cache  # of the calls that succeed: each seed and system asks again
def _check_hub(source: str, field: str) -> None:
    known = set(_known_ids())
    hint = ("" if source in known else did_you_mean(source, known)) + " Or name a folder."
    offline = "; HF_HUB_OFFLINE is set, unset it or fetch the model first with `hf download`"
    try:
        cached = isinstance(try_to_load_from_cache(source, "config.json"), str)
        if constants.HF_HUB_OFFLINE:
            if cached:
                return
            raise ValueError(f"`{field}`: {source!r} is not in the cache of the Hub{offline}.{hint}")
        get_hf_file_metadata(hf_hub_url(source, "config.json"), timeout=TIMEOUT)
    except HFValidationError:
        raise ValueError(f"`{field}`: {source!r} is neither a folder nor a Hub id OWNER/NAME.{hint}") from None
    except GatedRepoError as error:
        raise ValueError(
            f"`{field}`: {source} needs a permission. Ask for it at {constants.ENDPOINT}/{source}, then log in with "
            "`hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"`{field}`: the Hub has no model {source!r}, or it is private and needs `hf auth login`.{hint}"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(f"`{field}`: {source} on the Hub has no config.json of transformers.{hint}") from error
    except (HTTPError, OSError) as error:
        if not cached:
            raise ValueError(
                f"`{field}`: {source!r} is no folder here, and {constants.ENDPOINT} cannot be reached to fetch it "
                f"({first_sentence(error)}).{hint}"
            ) from error
        logger.warning(
            "%s cannot be reached: %s is loaded from the cache. HF_HUB_OFFLINE=1 avoids the wait.",
            constants.ENDPOINT,
            source,
        )


def _is_path(source: str) -> bool:
    """Return whether a name can only be a path: a Hub id has at most one separator, `/`."""
    return source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1 or Path(source).is_file()


def _known_ids() -> Iterator[str]:
    """Iterate over the Hub ids in the recipes and in the cache of the Hub."""
    for path in RECIPES.rglob("*.yaml"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        yield from (str(value) for name, value in recipe.items() if name.endswith("_name_or_path") and value)
    if os.path.isdir(constants.HF_HUB_CACHE):
        for path in Path(constants.HF_HUB_CACHE).glob("models--*"):
            yield path.name.removeprefix("models--").replace("--", "/")
    yield from ("google-bert/bert-base-uncased", "google/vit-base-patch16-224-in21k", "FacebookAI/roberta-base")


def _wrong_kind(config: PreTrainedConfig, part: str) -> str | None:
    """Say why a model cannot encode texts or images; `None` if it can."""
    kind = config.model_type
    if part == "cnn":
        if kind != "timm_wrapper":
            return f"a {kind} is no timm CNN. Name one, e.g. timm/resnet50.a1_in1k."
        if not timm.is_model(config.architecture):
            return f"timm has no architecture {config.architecture!r}." + did_you_mean(
                config.architecture, timm.list_models()
            )
        return None
    if part in ("vision", "scene"):
        config = getattr(config, "vision_config", config)
    if kind == "timm_wrapper" and part != "text":
        return None
    model = MODEL_MAPPING.get(type(config), None)
    model = model[0] if isinstance(model, tuple) else model
    reads = getattr(model, "main_input_name", None)
    if part == "text":
        if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
            return f"a {kind} reads more than texts. Name a text encoder, e.g. google-bert/bert-base-uncased."
        if reads != "input_ids" or config.is_encoder_decoder or not hasattr(config, "vocab_size"):
            return f"a {kind} is no text encoder. Name one, e.g. google-bert/bert-base-uncased."
    elif reads != "pixel_values":
        return f"a {kind} is no encoder of images. Name one, e.g. google/vit-base-patch16-224-in21k."
    return None


def first_sentence(error: Exception) -> str:
    """Return the beginning of a library's message, on one line and without its final period."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=\w[.:;]) ", text, maxsplit=1)[0][:160].rstrip(".:; ")
