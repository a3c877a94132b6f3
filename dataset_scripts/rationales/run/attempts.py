"""The rationales of one post: asked together, judged in a fixed order, sent back a few times, the best one kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.errors import EngineError
from dataset_scripts.rationales.quality.gate import Verdict
from dataset_scripts.rationales.run.server import PoisonError, Stopped
from dataset_scripts.rationales.store.shard import COUNTS

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.run.server import Lane
    from dataset_scripts.rationales.store.shard import ShardWriter

Gate = Callable[..., Verdict]
Record = dict[str, Any]


async def ask_post(
    post: PreparedPost,
    keys: Mapping[str, str],
    wanted: Sequence[str],
    *,
    lane: Lane,
    writer: ShardWriter,
    gate: Gate,
    max_re_asks: int,
    settle: Callable[[Record, EngineError | None], None],
) -> int:
    """Ask for the perspectives `wanted` of a post until each has its final record.

    Whatever has been asked least often is asked next, all of it at once, and judged in the order of the perspectives.
    So the outcome is a function of the answers and of what is recorded, and a run that was killed in between ends as
    an undisturbed one.

    Args:
        post: made ready.
        keys: of all its perspectives, in their order.
        wanted: those to ask for.
        lane: whom to ask.
        writer: takes the answers that are sent back, so that a restart goes on from them.
        gate: judges.
        max_re_asks: how often an answer is sent back.
        settle: called with each final record, and with the error if it is a failure.

    Returns:
        How many answers were sent back.

    Raises:
        Stopped, OutageError, MisconfiguredError: as from `Lane.ask`, once all that was in flight is dealt with.
    """
    tries = {perspective: writer.tries(keys[perspective]) for perspective in wanted}
    texts = {}
    for perspective in keys:
        if perspective not in tries and (answer := writer.answer(keys[perspective])) and answer.get("text"):
            texts[perspective] = answer["text"]
    sent_back = 0
    while tries:
        attempt = min(len(one) for one in tries.values())
        group = [perspective for perspective, one in tries.items() if len(one) == attempt]
        outcomes = await asyncio.gather(
            *(lane.ask(post, perspective, attempt) for perspective in group), return_exceptions=True
        )
        for perspective, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                continue
            found, requests = outcome
            name = {"key": keys[perspective], "perspective": perspective}
            error = found if isinstance(found, EngineError) else None
            if error is None:
                verdict = gate(
                    found.text,
                    perspective=perspective,
                    language=post.language,
                    finish_reason=found.finish_reason,
                    post_text=post.text,
                    siblings=texts,
                )
                tries[perspective].append(_candidate(found, verdict, requests))
                if verdict.hard and attempt < max_re_asks:
                    writer.add({"kind": "try", **name, **tries[perspective][-1]})
                    sent_back += 1
                    continue
            record = _final(tries.pop(perspective), error, requests)
            if record["text"] is not None:
                texts[perspective] = record["text"]
                error = None
            settle({"kind": "answer", **name, **record}, error)
        faults = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if faults:  # one that tells more than that the run is ending, if there is one
            raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])
    return sent_back


def _candidate(answer: Answer, verdict: Verdict, requests: int) -> Record:
    return {
        "text": verdict.text,
        "raw": answer.text,
        "hard": list(verdict.hard),
        "soft": list(verdict.soft),
        "attempts": requests,
        "system_fingerprint": answer.system_fingerprint,
        **{count: getattr(answer, count) for count in COUNTS},
    }


def _final(candidates: Sequence[Record], error: EngineError | None, requests: int) -> Record:
    """The candidate with the fewest faults, the earliest of them; with what all of them cost."""
    last = [{"attempts": requests}] if error is not None else []
    costs = {count: _sum(one.get(count) for one in [*candidates, *last]) for count in ("attempts", *COUNTS)}
    usable = [one for one in candidates if one["text"] is not None]
    best = min(usable, key=lambda one: len(one["hard"]), default=candidates[-1] if candidates else {})
    if usable:
        status, said = "flagged" if best["hard"] else "ok", None
    elif error is not None:
        status, said = "poison" if isinstance(error, PoisonError) else "failed", f"{_kind(error)}: {error}"
    else:
        status, said = "failed", f"gate: none of {len(candidates)} answers is usable"
    return {
        "status": status,
        "text": best.get("text"),
        "raw": best.get("raw"),
        "flags": best.get("hard", []) + best.get("soft", []),
        "error": said,
        "system_fingerprint": best.get("system_fingerprint"),
        **costs,
    }


def _sum(numbers: Any) -> int | None:
    told = [number for number in numbers if number is not None]
    return sum(told) if told else None


def _kind(error: EngineError) -> str:
    """`permanent`, `retryable`, `poison`, `preparation`."""
    return type(error).__name__.removesuffix("Error").lower()
