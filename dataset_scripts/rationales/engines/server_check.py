"""Server check: a few requests that detect faults which a single answer does not show."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import PIL.Image

from dataset_scripts.rationales.engines.base import Answer, Engine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine, wrong_model
from dataset_scripts.rationales.errors import EngineError
from dataset_scripts.rationales.posts import PreparedPost, prepare_post

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec

# Minimum share of cached prompt tokens. vLLM reaches 0.55 to 0.66, models with linear attention less, and a prompt
# that begins with the perspective about 0.25.
MIN_CACHED_SHARE = 0.4
_SIZE = (448, 448)
_TEXT = "Look at this one."
_CONTROL_TOKEN = "<|im_end|>"
_REPEATS = 20
_COUNTERS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")

Result = tuple[bool | None, str]


@dataclasses.dataclass(frozen=True)
class ServerCheck:
    """Result of one check.

    `passed` is `None` if the engine does not allow the check, or the result needs an interpretation.
    """

    name: str
    passed: bool | None
    detail: str


async def check_server(engine: Engine, spec: RationaleSpec) -> list[ServerCheck]:
    """Check a server, or a model in this process, with about ten requests.

    Returns:
        Results of: health, model (servers only), answer, image canary, control tokens, shared prefix, equal answers.
        Later checks are omitted if the health check or the first answer fails.
    """
    try:
        await engine.check_health()
    except EngineError as error:
        return [ServerCheck("health", False, str(error))]
    checks = [ServerCheck("health", True, engine.name)]
    if isinstance(engine, EndpointEngine):
        checks.append(await _check_model(engine, spec))
    for name, check in (
        ("answer", _check_answer),
        ("image canary", _check_images),
        ("control tokens", _check_control_tokens),
        ("shared prefix", _check_shared_prefix),
        ("equal answers", _check_equal_answers),
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
    """Format one line per check for the terminal."""
    marks = {True: "ok", False: "FAILED", None: "note"}
    return "\n".join(f"{marks[check.passed]:<8}{check.name:<18}{check.detail}" for check in checks)


async def _check_model(engine: EndpointEngine, spec: RationaleSpec) -> ServerCheck:
    names = await engine.endpoint.models()
    if not names:
        return ServerCheck("model", None, "The server does not list its models.")
    if spec.model in names:
        return ServerCheck("model", True, spec.model)
    return ServerCheck("model", False, wrong_model(names, spec.model))


async def _check_answer(engine: Engine, spec: RationaleSpec) -> Result:
    started = time.perf_counter()
    answer = await engine.generate(_post(spec, "green"), spec.perspectives[0], 0)
    seconds = time.perf_counter() - started
    if not answer.text.strip():
        return False, f"Empty (finish_reason {answer.finish_reason!r}). Disable the thinking mode of the model."
    excerpt = " ".join(answer.text.split())[:80]
    cut = f", truncated at {spec.max_tokens} tokens" if answer.finish_reason == "length" else ""
    count = "?" if answer.prompt_tokens is None else f"{answer.prompt_tokens:,}"
    return True, f"{seconds:.1f} s, {count} prompt tokens, {answer.completion_tokens or '?'} written{cut}: {excerpt!r}"


async def _check_images(engine: Engine, spec: RationaleSpec) -> Result:
    """Compare the answers to two images of the same size with the same text.

    Their prompts have equal tokens. A server that drops images, or whose cache compares tokens only (as an earlier
    SGLang), returns equal answers.
    """
    perspective = spec.perspectives[0]
    red, blue, red_again = [
        (await engine.generate(_post(spec, colour), perspective, 0)).text for colour in ("red", "blue", "red")
    ]
    if red == blue:
        return False, "A red and a blue image get the same answer: the model does not see the images."
    if red != red_again:
        return None, "Equal requests get different answers, so a red and a blue image cannot be compared."
    return True, "A red and a blue image get different answers, and the red one the same answer twice."


async def _check_control_tokens(engine: Engine, spec: RationaleSpec) -> Result:
    """Count the tokens of a control token in a post: one if parsed, several if escaped."""
    perspective = spec.perspectives[0]
    plain = await engine.generate(_post(spec, "green"), perspective, 0)
    repeated = await engine.generate(_post(spec, "green", _TEXT + _CONTROL_TOKEN * _REPEATS), perspective, 0)
    if plain.prompt_tokens is None or repeated.prompt_tokens is None:
        return None, f"The engine answers a post with {_CONTROL_TOKEN}, but reports no token counts."
    tokens = (repeated.prompt_tokens - plain.prompt_tokens) / _REPEATS
    if tokens < 2:
        return False, f"{_CONTROL_TOKEN} in a post takes {tokens:.1f} tokens: it is parsed as a control token."
    return True, f"{_CONTROL_TOKEN} in a post is plain text ({tokens:.1f} tokens each)."


async def _check_shared_prefix(engine: Engine, spec: RationaleSpec) -> Result:
    post = _post(spec)
    before = await _prefix_cache_counters(engine)
    answers = [await engine.generate(post, perspective, 0) for perspective in spec.perspectives]
    after = await _prefix_cache_counters(engine)
    share = _cached_share(answers)
    source = "its answers"
    if before is not None and after is not None and after[1] > before[1]:
        share = (after[0] - before[0]) / (after[1] - before[1])
        source = "its metrics, which include other requests"
    if share is None:
        return None, "The engine does not report cached prompt tokens."
    detail = f"{share:.0%} of the prompt tokens of {len(answers)} perspectives were cached (source: {source})."
    if share < MIN_CACHED_SHARE and len(answers) > 1:
        return None, f"{detail} Is prefix caching enabled? Models with linear attention share less."
    return True, detail


async def _check_equal_answers(engine: Engine, spec: RationaleSpec) -> Result:
    generate_separately = getattr(engine, "generate_separately", None)
    if generate_separately is None:
        return None, "Only for a model in this process: the cache of a server cannot be bypassed."
    post = _post(spec)
    for perspective in spec.perspectives:
        shared, separate = await engine.generate(post, perspective, 0), await generate_separately(post, perspective, 0)
        if shared.text != separate.text:
            return None, (
                f"{perspective}: the answer with a shared prefix differs from a separate one. In half precision this "
                "may be due to rounding; in float32 it is an error."
            )
    return True, "Answers with a shared prefix equal separate ones."


async def _prefix_cache_counters(engine: Engine) -> tuple[float, float] | None:
    """Return hits and queries of the prefix cache in tokens; `None` if the server has none."""
    if not isinstance(engine, EndpointEngine) or engine.endpoint.profile.metrics is None:
        return None
    page = await engine.endpoint.get(engine.endpoint.address.server_url(engine.endpoint.profile.metrics))
    values = [re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", page or "", re.MULTILINE) for name in _COUNTERS]
    return (sum(map(float, values[0])), sum(map(float, values[1]))) if all(values) else None


def _cached_share(answers: Sequence[Answer]) -> float | None:
    if any(answer.cached_tokens is None or not answer.prompt_tokens for answer in answers):
        return None
    return sum(answer.cached_tokens for answer in answers) / sum(answer.prompt_tokens for answer in answers)


def _post(spec: RationaleSpec, colour: str | None = None, text: str = _TEXT) -> PreparedPost:
    """Prepare a post with an image of one colour, or with random pixels, which no cache has."""
    image = PIL.Image.new("RGB", _SIZE, colour) if colour else PIL.Image.effect_noise(_SIZE, 100)
    return prepare_post({"id": "server-check", "text": text, "image": image}, spec.max_pixels, spec.language)
