"""Prompts: YAML files in `prompts/`, identified by a hash of their content."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataset_scripts.rationales.posts import LANGUAGES, PreparedPost
from dataset_scripts.rationales.spec import canonical_json
from dataset_scripts.reading.report import did_you_mean

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec

_FOLDER = Path(__file__).parent / "prompts"
_FIELDS = {"system", "text", "task", "support", "readings"}
_SUPPORT = {"image_text", "image", "text"}

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Prompt in one language, or in several of which each post uses its own.

    Attributes:
        name: `default`, `paper`, or the path of a YAML file.
        language: requested language: `"en"`, `"zh"` or `"auto"`.
        hash: SHA-256 (hex) of the content in the requested languages, without comments.
        perspectives: perspectives that have a reading.
    """

    name: str
    language: str
    hash: str
    perspectives: tuple[str, ...]
    _templates: Mapping[str, Mapping[str, Any]] = dataclasses.field(repr=False)

    def messages(self, post: PreparedPost, perspective: str) -> list[Message]:
        """Return the messages of an OpenAI-compatible chat: system, image, text, then the task.

        Everything before the task is identical for all perspectives of a post, so that a server with prefix caching
        computes it once.

        Raises:
            ValueError: the prompt has no reading for `perspective`.
        """
        _check_perspectives(self.name, self.perspectives, [perspective])
        template = self._templates[post.language if self.language == "auto" else self.language]
        parts: list[Message] = []
        if post.image_url is not None:
            parts.append({"type": "image_url", "image_url": {"url": post.image_url}})
        if post.text is not None:
            parts.append({"type": "text", "text": template["text"].replace("{text}", post.text) + "\n\n"})
        content = "_".join(name for name in ("image", "text") if getattr(post, name) is not None)
        task = template["task"].replace("{support}", template["support"][content])
        parts.append({"type": "text", "text": task.replace("{reading}", template["readings"][perspective])})
        return [{"role": "system", "content": template["system"]}, {"role": "user", "content": parts}]

    def to_dict(self) -> dict[str, Any]:
        """Return the content by language, as JSON values."""
        return json.loads(json.dumps(self._templates))


def check_prompt(spec: RationaleSpec, prompt: Prompt) -> None:
    """Check that a prompt is the one of a specification.

    Raises:
        ValueError: the hashes differ, or the prompt lacks one of the perspectives.
    """
    if prompt.hash != spec.prompt_hash:
        raise ValueError(
            f"The prompt {prompt.name!r} ({prompt.language}) has the hash {prompt.hash[:12]}, but the specification "
            f"has {spec.prompt_hash[:12]} ({spec.prompt!r}, {spec.language}). Load the prompt of the specification."
        )
    _check_perspectives(prompt.name, prompt.perspectives, spec.perspectives)


@functools.lru_cache
def load_prompt(name: str = "default", language: str = "auto") -> Prompt:
    """Load a prompt by name, or from a YAML file with the fields of `prompts/default.yaml`.

    Raises:
        ValueError: unknown prompt or language, or a file with missing or unknown fields.
    """
    languages = LANGUAGES if language == "auto" else (language,)
    content = _read(name)
    if not set(languages) <= content.keys() & set(LANGUAGES):
        available = [code for code in LANGUAGES if code in content]
        raise ValueError(f"Prompt {name!r} is available in {', '.join(available)}, got language={language!r}.")
    templates = {code: content[code] for code in languages}
    for code, template in templates.items():
        _check_template(f"{name} ({code})", template)
    perspectives = tuple(templates[languages[0]]["readings"])
    for code in languages[1:]:
        if set(templates[code]["readings"]) != set(perspectives):
            raise ValueError(
                f"Prompt {name!r}: `readings` of {languages[0]} and {code} must have the same perspectives."
            )
    digest = hashlib.sha256(canonical_json(templates).encode()).hexdigest()
    return Prompt(name, language, digest, perspectives, templates)


def _read(name: str) -> Mapping[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
        hint = did_you_mean(name, names)
        raise ValueError(f"Prompt {name!r} not found. Use {', '.join(names)}, or the path of a YAML file.{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Prompt file {name} is not YAML in UTF-8: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or not any(code in content for code in LANGUAGES):
        raise ValueError(f"Prompt file {name} must have one block per language, under {' or '.join(LANGUAGES)}.")
    return content


def _check_perspectives(name: str, available: Sequence[str], requested: Sequence[str]) -> None:
    absent = [perspective for perspective in requested if perspective not in available]
    if absent:
        raise ValueError(
            f"Prompt {name!r} has no reading for the perspective {', '.join(absent)}, only for "
            f"{', '.join(available)}. Add it under `readings` in a prompt file of your own, or choose `perspectives` "
            "among these."
        )


def _check_template(name: str, template: Any) -> None:
    if not isinstance(template, Mapping) or set(template) != _FIELDS:
        raise ValueError(f"Prompt {name} must have exactly the fields {', '.join(sorted(_FIELDS))}.")
    support, readings = template["support"], template["readings"]
    if (
        not isinstance(support, Mapping)
        or set(support) != _SUPPORT
        or not isinstance(readings, Mapping)
        or not readings
    ):
        raise ValueError(
            f"Prompt {name}: `support` must have {', '.join(sorted(_SUPPORT))}, and `readings` at least one "
            "perspective, each with a text."
        )
    texts = {field: template[field] for field in ("system", "text", "task")}
    for block in ("support", "readings"):
        texts |= {f"{block}.{field}": words for field, words in template[block].items()}
    values = [perspective for perspective in readings if not isinstance(perspective, str)]  # yes, no, 1
    if values:
        raise ValueError(f"Prompt {name}: YAML reads a name in `readings` as {values[0]!r}. Write it in quotes.")
    for field, words in texts.items():
        if not isinstance(words, str):
            raise ValueError(f"Prompt {name}: `{field}` must be a text, got {words!r:.40}. Write it in quotes.")
    for field, placeholder in (("text", "{text}"), ("task", "{reading}")):
        if placeholder not in template[field]:
            raise ValueError(f"Prompt {name}: `{field}` must contain {placeholder}.")
