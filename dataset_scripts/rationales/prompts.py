"""Prompts are data: YAML files whose content is hashed, since a rationale belongs to the question behind it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dataset_scripts.rationales.posts import LANGUAGES, PreparedPost

_FOLDER = Path(__file__).parent / "prompts"
_FIELDS = {"system", "text", "task", "support", "readings"}
_SUPPORT = {"image_text", "image", "text"}

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt in one language, or in several, of which each post takes its own.

    Attributes:
        name: of the file: `default`, `paper`, or the path of your own.
        language: as asked for: `"en"`, `"zh"` or `"auto"`.
        hash: SHA-256 (hex) of what the file says in the languages asked for. Comments do not count.
        perspectives: for which there is a reading.
    """

    name: str
    language: str
    hash: str
    perspectives: tuple[str, ...]
    _languages: Mapping[str, Mapping[str, Any]] = dataclasses.field(repr=False)

    def messages(self, post: PreparedPost, perspective: str) -> list[Message]:
        """Messages of an OpenAI-compatible chat: all of the post first, the perspective last.

        A server keeps what it has computed for the common beginning of requests. So everything before the last part
        is the same, byte for byte, for all perspectives of a post, and its image is computed once.

        Raises:
            ValueError: the prompt has no reading for `perspective`.
        """
        words = self._words(post)
        if perspective not in words["readings"]:
            raise ValueError(
                f"Prompt {self.name!r} has no reading for the perspective {perspective!r}, only for "
                f"{', '.join(self.perspectives)}; add one under `readings`, or leave the perspective out."
            )
        support = words["support"][
            "_".join(("image",) * (post.image is not None) + ("text",) * (post.text is not None))
        ]
        task = _fill(words["task"], reading=words["readings"][perspective], support=support)
        return self.opening(post, task)

    def opening(self, post: PreparedPost, task: str) -> list[Message]:
        """What the perspectives of a post share, system, image and text, followed by `task`."""
        words = self._words(post)
        parts: list[Message] = []
        if post.image_url is not None:
            parts.append({"type": "image_url", "image_url": {"url": post.image_url}})
        if post.text is not None:
            parts.append({"type": "text", "text": _fill(words["text"], text=post.text) + "\n\n"})
        return [
            {"role": "system", "content": words["system"]},
            {"role": "user", "content": [*parts, {"type": "text", "text": task}]},
        ]

    def _words(self, post: PreparedPost) -> Mapping[str, Any]:
        return self._languages[post.language if self.language == "auto" else self.language]

    def to_dict(self) -> dict[str, Any]:
        """The words themselves, by language, for the manifest of a store."""
        return json.loads(json.dumps(self._languages))


@functools.lru_cache
def load_prompt(name: str = "default", language: str = "auto") -> Prompt:
    """Read a prompt by name, or from a YAML file of your own with the fields of `prompts/default.yaml`.

    Raises:
        ValueError: no such prompt or language, or a file without one of the fields.
    """
    wanted = LANGUAGES if language == "auto" else (language,)
    content = _read(name)
    absent = [code for code in wanted if code not in content]
    if absent or language not in (*LANGUAGES, "auto"):
        there = [code for code in LANGUAGES if code in content]
        raise ValueError(
            f"Prompt {name!r} is not written in {language!r} but in {', '.join(there)}; ask for one of these."
        )
    words = {code: content[code] for code in wanted}
    for code, block in words.items():
        _check(f"{name} ({code})", block)
    perspectives = tuple(words[wanted[0]]["readings"])
    for code in wanted[1:]:
        if set(words[code]["readings"]) != set(perspectives):
            raise ValueError(f"Prompt {name!r}: the `readings` of {wanted[0]} and {code} name different perspectives.")
    canonical = json.dumps(words, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Prompt(name, language, hashlib.sha256(canonical.encode()).hexdigest(), perspectives, words)


def _read(name: str) -> Mapping[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
        raise ValueError(f"There is no prompt {name!r}; there are {', '.join(known)}, and any YAML file by its path.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping) or not any(code in content for code in LANGUAGES):
        raise ValueError(f"Prompt file {name}: one block per language is required, under {' or '.join(LANGUAGES)}.")
    return content


def _check(where: str, block: Any) -> None:
    if not isinstance(block, Mapping) or set(block) != _FIELDS:
        raise ValueError(f"Prompt {where}: exactly the fields {', '.join(sorted(_FIELDS))} are required.")
    if set(block["support"]) != _SUPPORT or not block["readings"]:
        raise ValueError(f"Prompt {where}: `support` needs {', '.join(sorted(_SUPPORT))}, `readings` one perspective.")
    for field, marks in (("text", ("{text}",)), ("task", ("{reading}",))):
        for mark in marks:
            if mark not in block[field]:
                raise ValueError(
                    f"Prompt {where}: `{field}` does not contain {mark}, so every request would be alike."
                )


def _fill(template: str, **values: str) -> str:
    """Put in each value once, and nothing that stands in a value: a post may well contain `{reading}`."""
    head, *rest = template.split("{")
    pieces = [head]
    for piece in rest:
        name, brace, tail = piece.partition("}")
        pieces.append(values[name] + tail if brace and name in values else "{" + piece)
    return "".join(pieces)
