"""Plan of a run: number of requests, tokens, disk space, time and cost, without any request."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import PreparedPost, prepare_post
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.rationales.quality.text import HAN_LETTER
from dataset_scripts.rationales.run.posts_by_shard import without_decoding

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

SAMPLE = 5_000
POSTS_PER_SHARD = 20_000
# Upper limits of the histogram's bins, in image tokens.
_BINS = (64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384)
# Averages of the tokenizers of the Qwen family.
_TOKENS_PER_CHARACTER, _TOKENS_PER_HAN = 0.25, 0.6
_TEMPLATE_TOKENS = 20
# Length of an answer that follows the instructions of the prompts.
_ANSWER_TOKENS = {"en": 100, "zh": 85}
# Bytes of a rationale in the log and in Parquet, measured on 3,729 of 200 letters and 4,046 of 130 characters.
_DISK_BYTES = {"en": (756, 233), "zh": (1214, 460)}


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices of a hosted server per million tokens, or of all machines together per hour."""

    prompt: float | None = None
    cached: float | None = None  # prompt tokens that were cached; by default as `prompt`
    completion: float | None = None
    hour: float | None = None
    posts_per_second: float | None = None  # measured speed, needed for the time and for `hour`


@dataclasses.dataclass(frozen=True)
class Plan:
    """Size of a run.

    Tokens and bytes are extrapolated from the examined posts to all. Image tokens are those of Qwen2.5-VL, text tokens
    are estimated from characters.

    Attributes:
        posts: posts in the dataset.
        examined: posts read for this plan.
        unusable: examined posts that cannot be sent; a run records them as failed.
        unusable_examples: up to three reasons.
        distinct: examined posts with different content; duplicates are requested once.
        answers: answers to generate.
        perspectives: number of perspectives per post.
        languages: examined posts by the language of their rationales.
        image_tokens: tokens of each examined image, ascending.
        prompt_tokens: tokens of all prompts.
        computed_tokens: prompt tokens that remain to be computed with prefix caching.
        longest_prompt: tokens of the longest prompt.
        answer_tokens: tokens of all answers at the requested length.
        most_answer_tokens: tokens of all answers if each reaches `max_tokens`.
        max_tokens: token limit of an answer.
        log_bytes, parquet_bytes: disk space during and after the run.
        num_shards: shards of at most `POSTS_PER_SHARD` posts.
    """

    posts: int
    examined: int
    unusable: int
    unusable_examples: list[str]
    distinct: int
    answers: int
    perspectives: int
    languages: dict[str, int]
    image_tokens: list[int]
    prompt_tokens: int
    computed_tokens: int
    longest_prompt: int
    answer_tokens: int
    most_answer_tokens: int
    max_tokens: int
    log_bytes: int
    parquet_bytes: int
    num_shards: int

    def hours(self, prices: Prices) -> float | None:
        """Return the hours of the run; `None` without a speed in `prices`."""
        return None if prices.posts_per_second is None else self.posts / prices.posts_per_second / 3600

    def cost(self, prices: Prices) -> float | None:
        """Return the cost of the run in the currency of `prices`; `None` without prices."""
        parts: list[float] = []
        if prices.prompt is not None:
            cached = prices.prompt if prices.cached is None else prices.cached
            shared = self.prompt_tokens - self.computed_tokens
            parts.append((self.computed_tokens * prices.prompt + shared * cached) / 1e6)
        if prices.completion is not None:
            parts.append(self.answer_tokens * prices.completion / 1e6)
        if prices.hour is not None and (hours := self.hours(prices)) is not None:
            parts.append(hours * prices.hour)
        return sum(parts) if parts else None

    def to_dict(self, prices: Prices = Prices()) -> dict[str, Any]:
        """Return JSON values, with the histogram as `image_tokens`."""
        fields = dataclasses.asdict(self) | {"image_tokens": self.histogram()}
        return fields | {"hours": self.hours(prices), "cost": self.cost(prices)}

    def histogram(self) -> dict[str, int]:
        """Count examined images by their tokens, without empty bins at the ends."""
        counts = np.bincount(np.searchsorted(_BINS, self.image_tokens), minlength=len(_BINS) + 1)
        names = [*(f"up to {limit:,}" for limit in _BINS), f"over {_BINS[-1]:,}"]
        filled = np.flatnonzero(counts)
        shown = range(filled[0], filled[-1] + 1) if len(filled) else ()
        return {names[index]: int(counts[index]) for index in shown}


def plan_run(posts: Dataset, spec: RationaleSpec, prompt: Prompt, *, sample: int = SAMPLE) -> Plan:
    """Prepare posts as a run does, and count requests, tokens and bytes.

    Args:
        posts, spec, prompt: those of the run.
        sample: number of posts to examine, evenly spaced; 0 for all. An image takes about 20 ms.

    Raises:
        ValueError: `sample` is negative, or `prompt` is not the one of `spec`.
    """
    check_prompt(spec, prompt)
    if sample < 0:
        raise ValueError(f"`sample` must be a number of posts, or 0 for all, got {sample}.")
    count = min(sample, len(posts)) or len(posts)
    rows = without_decoding(posts)
    seen: set[tuple[str | None, str | None]] = set()
    languages: Counter[str] = Counter()
    image_tokens: list[int] = []
    errors: list[str] = []
    longest = 0
    totals = Counter(prompt_tokens=0, computed_tokens=0, answer_tokens=0, log_bytes=0, parquet_bytes=0)
    for index in tqdm(range(count), desc="Examining posts", unit="post"):
        try:
            post = prepare_post(rows[index * len(posts) // count], spec.max_pixels, spec.language)
        except PreparationError as error:
            errors.append(str(error))
            continue
        languages[post.language] += 1
        if post.image is not None:
            image_tokens.append(post.image_tokens)
        if (post.image_sha256, post.text_sha256) in seen:
            continue
        seen.add((post.image_sha256, post.text_sha256))
        prefix, tasks = _prompt_tokens(post, spec, prompt)
        longest = max(longest, prefix + max(tasks))
        log_bytes, parquet_bytes = _DISK_BYTES[post.language]
        totals.update(
            prompt_tokens=prefix * len(tasks) + sum(tasks),
            computed_tokens=prefix + sum(tasks),
            answer_tokens=min(_ANSWER_TOKENS[post.language], spec.max_tokens) * len(tasks),
            log_bytes=log_bytes * len(tasks),
            parquet_bytes=parquet_bytes * len(tasks),
        )
    scale = len(posts) / count if count else 0
    answers = round(len(seen) * len(spec.perspectives) * scale)
    return Plan(
        posts=len(posts),
        examined=count,
        unusable=len(errors),
        unusable_examples=errors[:3],
        distinct=len(seen),
        answers=answers,
        perspectives=len(spec.perspectives),
        languages=dict(languages),
        image_tokens=sorted(image_tokens),
        longest_prompt=longest,
        most_answer_tokens=answers * spec.max_tokens,
        max_tokens=spec.max_tokens,
        num_shards=num_shards_for(len(posts)),
        **{name: round(total * scale) for name, total in totals.items()},
    )


def num_shards_for(posts: int) -> int:
    """Return the number of shards for this many posts."""
    return max(1, math.ceil(posts / POSTS_PER_SHARD))


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text from its characters."""
    han = len(HAN_LETTER.findall(text))
    return round(han * _TOKENS_PER_HAN + (len(text) - han) * _TOKENS_PER_CHARACTER)


def plan_table(plan: Plan, prices: Prices = Prices()) -> str:
    """Format the plan for the terminal."""
    extent = "all" if plan.examined == plan.posts else f"{plan.examined:,} of them"
    duplicates = plan.examined - plan.unusable - plan.distinct
    languages = ", ".join(f"{code} {count:,}" for code, count in sorted(plan.languages.items()))
    lines = {
        "Posts": f"{plan.posts:,}; {extent} examined: {plan.distinct:,} distinct, {duplicates:,} duplicates, "
        f"{plan.unusable:,} unusable",
        "Languages": languages or "(none)",
        "Answers": f"{plan.answers:,}: {plan.perspectives} per distinct post",
    }
    if plan.image_tokens:
        tokens = plan.image_tokens
        lines["Image tokens"] = (
            f"mean {sum(tokens) / len(tokens):,.0f}, median {tokens[len(tokens) // 2]:,}, largest {tokens[-1]:,}"
        )
    lines |= {f"  {name}": _bar(count, len(plan.image_tokens)) for name, count in plan.histogram().items()}
    saved = 1 - plan.computed_tokens / plan.prompt_tokens if plan.prompt_tokens else 0.0
    total, computed = _short(plan.prompt_tokens), _short(plan.computed_tokens)
    lines |= {
        "Prompt tokens": f"{total}; {computed} ({saved:.0%} less) to compute with prefix caching",
        "Answer tokens": f"about {_short(plan.answer_tokens)}, at most {_short(plan.most_answer_tokens)}",
        "Longest request": f"{plan.longest_prompt:,} + {plan.max_tokens:,} tokens; the server must accept this length",
        "Disk": f"{_short(plan.log_bytes, 'B')} during the run, then {_short(plan.parquet_bytes, 'B')} of Parquet, "
        f"in {plan.num_shards:,} shard{'s' * (plan.num_shards > 1)}",
    }
    if (hours := plan.hours(prices)) is not None:
        lines["Time"] = f"{hours:,.1f} hours at {prices.posts_per_second:,g} posts/s"
    if (cost := plan.cost(prices)) is not None:
        lines["Cost"] = f"{cost:,.2f}"
    width = max(map(len, lines)) + 2
    return "\n".join(
        [f"{name:<{width}}{value}" for name, value in lines.items()]
        + [f"unusable: {example}" for example in plan.unusable_examples]
    )


def _prompt_tokens(post: PreparedPost, spec: RationaleSpec, prompt: Prompt) -> tuple[int, list[int]]:
    """Return the tokens of the prefix that all perspectives share, and of the remainder of each."""
    chats = (prompt.messages(post, perspective) for perspective in spec.perspectives)
    texts = [system["content"] + "".join(part.get("text", "") for part in user["content"]) for system, user in chats]
    shared = os.path.commonprefix(texts) if len(texts) > 1 else ""
    prefix = text_tokens(shared) + post.image_tokens + _TEMPLATE_TOKENS
    return prefix, [text_tokens(text[len(shared) :]) for text in texts]


def _bar(count: int, total: int) -> str:
    return f"{count:>9,} {'#' * math.ceil(40 * count / total)}"


def _short(number: float, unit: str = "") -> str:
    """Format a number with three digits and a metric prefix, e.g. `56.7 k` or `8.9 MB`."""
    if number < 10_000:
        return f"{number:,.0f} {unit}".rstrip()
    power = min(int(math.log10(number) / 3), 4)
    return f"{number / 1000**power:,.1f} {' kMGT'[power]}{unit}"
