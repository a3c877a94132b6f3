"""Is this engine fit for a run of days? A few requests that find what an answer alone would not show."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import PIL.Image

from dataset_scripts.rationales.engines.base import Answer, Engine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.errors import EngineError
from dataset_scripts.rationales.posts import PreparedPost, prepare_post

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec

# Share of the siblings' prompt tokens that a server need not compute again. With the perspective last, vLLM serves
# 0.55 to 0.66 of them from its cache; hybrid-attention models less; a layout that shares nothing about 0.25.
PREFIX_SHARE = 0.4
_SIDE = 448
_TEXT = "Look at this one."
_CONTROL_TOKEN = "<|im_end|>"
_REPEATED = 20
_COUNTERS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")


@dataclasses.dataclass(frozen=True)
class ServerCheck:
    """One finding; `passed` is `None` where the engine does not let itself be checked, or the finding is a remark."""

    name: str
    passed: bool | None
    detail: str


async def check_server(engine: Engine, spec: RationaleSpec) -> list[ServerCheck]:
    """Examine an engine by about ten answers. The first failure that makes the others pointless ends it.

    Args:
        engine: a server, or a model in this process.
        spec: what it will be asked.

    Returns:
        The findings, in the order: health, model, answer, image canary, control tokens, shared beginning, and for a
        model in this process whether the shared beginning changes its answers.
    """
    if not await engine.healthy():
        return [ServerCheck("health", False, f"{engine.name} does not answer its health check; is it running, and loaded?")]
    checks = [ServerCheck("health", True, engine.name)]
    if isinstance(engine, EndpointEngine):
        checks.append(await _model(engine, spec))
    for name, check in (
        ("answer", _answer),
        ("image canary", _canary),
        ("control tokens", _control_tokens),
        ("shared beginning", _shared_beginning),
        ("equal answers", _equal_answers),
    ):
        try:
            passed, detail = await check(engine, spec)
        except EngineError as error:
            passed, detail = False, f"{type(error).__name__}: {error}"
        checks.append(ServerCheck(name, passed, detail))
        if name == "answer" and not passed:
            break
    return checks


def checks_table(checks: Sequence[ServerCheck]) -> str:
    """The findings, a line each."""
    marks = {True: "ok", False: "FAILED", None: "note"}
    return "\n".join(f"{marks[check.passed]:<8}{check.name:<18}{check.detail}" for check in checks)


Finding = tuple[bool | None, str]


async def _model(engine: EndpointEngine, spec: RationaleSpec) -> ServerCheck:
    try:
        names = [model["id"] for model in json.loads(await engine.endpoint.get("/v1/models") or "")["data"]]
    except (ValueError, KeyError, TypeError):
        names = []
    if not names:
        return ServerCheck("model", None, "the server lists no models; a wrong name shows in the first answer.")
    if spec.model in names:
        return ServerCheck("model", True, spec.model)
    return ServerCheck("model", False, f"the server has {', '.join(names[:5])}, not {spec.model!r}; name one of these.")


async def _answer(engine: Engine, spec: RationaleSpec) -> Finding:
    started = time.perf_counter()
    answer = await engine.generate(_post(spec, "green"), spec.perspectives[0], 0)
    seconds = time.perf_counter() - started
    if not answer.text.strip():
        return False, f"empty (finish_reason {answer.finish_reason!r}); a thinking model needs its thinking off."
    excerpt = " ".join(answer.text.split())[:80]
    cut = f"; cut off at {spec.max_tokens} tokens" if answer.finish_reason == "length" else ""
    count = "?" if answer.prompt_tokens is None else f"{answer.prompt_tokens:,}"
    return True, f"{seconds:.1f} s, {count} prompt tokens, {answer.completion_tokens or '?'} written{cut}: {excerpt!r}"


async def _canary(engine: Engine, spec: RationaleSpec) -> Finding:
    """The same words with two images of one size have the same tokens. A cache that goes by tokens alone, as SGLang's
    once did, gives the second image the first one's answer; a server that drops images does too."""
    perspective = spec.perspectives[0]
    red, blue, again = [
        (await engine.generate(_post(spec, shade), perspective, 0)).text for shade in ("red", "blue", "red")
    ]
    if red == blue:
        return False, "a red and a blue image get the same answer: the model does not see the images it is sent."
    if red != again:
        return None, "answers to one and the same request differ, so that red and blue differ proves nothing."
    return True, "a red and a blue image get different answers, the red one twice the same."


async def _control_tokens(engine: Engine, spec: RationaleSpec) -> Finding:
    """As structure, a control token is one token; as text that was made harmless it is several."""
    perspective = spec.perspectives[0]
    plain = await engine.generate(_post(spec, "green"), perspective, 0)
    laden = await engine.generate(_post(spec, "green", _TEXT + _CONTROL_TOKEN * _REPEATED), perspective, 0)
    if plain.prompt_tokens is None or laden.prompt_tokens is None:
        return (
            None,
            f"a post with {_CONTROL_TOKEN} is answered; the engine does not count tokens, so no more is known.",
        )
    each = (laden.prompt_tokens - plain.prompt_tokens) / _REPEATED
    if each < 2:
        return False, f"{_CONTROL_TOKEN} in a post costs {each:.1f} tokens: it is taken for structure, not for text."
    return True, f"{_CONTROL_TOKEN} in a post is text ({each:.1f} tokens each)."


async def _shared_beginning(engine: Engine, spec: RationaleSpec) -> Finding:
    post = _noise(spec)
    before = await _counters(engine)
    answers = [await engine.generate(post, perspective, 0) for perspective in spec.perspectives]
    after = await _counters(engine)
    share = _share(answers)
    source = "its answers"
    if before is not None and after is not None and after[1] > before[1]:
        share = (after[0] - before[0]) / (after[1] - before[1])
        source = "its metrics, other requests included"
    if share is None:
        return None, "the engine does not tell how much of a prompt it had computed before."
    said = f"{share:.0%} of the prompt tokens of {len(answers)} siblings were not computed again (by {source})"
    if share < PREFIX_SHARE and len(answers) > 1:
        return None, f"{said}: little. Is prefix caching on? Models with linear attention share less."
    return True, said + "."


async def _equal_answers(engine: Engine, spec: RationaleSpec) -> Finding:
    separately = getattr(engine, "generate_separately", None)
    if separately is None:
        return None, "only for a model in this process: a server's cache cannot be bypassed."
    post = _noise(spec)
    for perspective in spec.perspectives:
        together, alone = await engine.generate(post, perspective, 0), await separately(post, perspective, 0)
        if together.text != alone.text:
            return None, (
                f"{perspective}: the answer from the shared beginning differs from that of a separate call. In half "
                "precision rounding may do that; in float32 it would be a fault."
            )
    return True, "answers from the shared beginning are those of separate calls."


async def _counters(engine: Engine) -> tuple[float, float] | None:
    """(hits, queries) of the prefix cache in tokens, over all engines of the server; `None` if it has none."""
    if not isinstance(engine, EndpointEngine) or engine.endpoint.profile.metrics is None:
        return None
    page = await engine.endpoint.get(engine.endpoint.profile.metrics)
    found = [re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", page or "", re.MULTILINE) for name in _COUNTERS]
    return (sum(map(float, found[0])), sum(map(float, found[1]))) if all(found) else None


def _share(answers: Sequence[Answer]) -> float | None:
    if any(answer.cached_tokens is None or not answer.prompt_tokens for answer in answers):
        return None
    return sum(answer.cached_tokens for answer in answers) / sum(answer.prompt_tokens for answer in answers)


def _post(spec: RationaleSpec, shade: str, text: str = _TEXT) -> PreparedPost:
    return _prepared(spec, PIL.Image.new("RGB", (_SIDE, _SIDE), shade), text)


def _noise(spec: RationaleSpec) -> PreparedPost:
    """An image that no cache holds: another one each time."""
    return _prepared(spec, PIL.Image.effect_noise((_SIDE, _SIDE), 100), _TEXT)


def _prepared(spec: RationaleSpec, image: PIL.Image.Image, text: str) -> PreparedPost:
    return prepare_post({"id": "doctor", "text": text, "image": image}, spec.max_pixels, spec.language)
