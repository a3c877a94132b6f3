"""What a run will ask for and what that costs, before anything is asked."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Image
from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import PreparedPost, prepare_post

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

COLUMNS = ("id", "text", "image", "language")
SAMPLE = 5_000
POSTS_PER_SHARD = 20_000
# Upper ends of the histogram's bars, in image tokens.
_BARS = (64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384)
# Of the tokenizers of the Qwen family: a token is about four characters of an alphabet, and a Chinese character 0.6.
_TOKENS_PER_CHARACTER, _TOKENS_PER_HAN = 0.25, 0.6
_TEMPLATE_TOKENS = 20
# An answer that keeps to the length that the prompts ask for.
_ANSWER_TOKENS = {"en": 100, "zh": 85}
# Bytes of a rationale in a journal and in Parquet, measured on 3,729 of 200 letters and 4,046 of 130 characters.
_DISK_BYTES = {"en": (756, 233), "zh": (1214, 460)}


@dataclasses.dataclass(frozen=True)
class Prices:
    """What is paid: per million tokens, as hosted servers ask, or per hour of a machine with its measured speed.

    Attributes:
        prompt: per million tokens of prompts.
        cached: per million of those that the server had computed before; as `prompt` where `None`.
        completion: per million tokens of answers.
        hour: per hour of all machines together.
        posts_per_second: as the progress bar of a first run showed it; without it no time is told.
    """

    prompt: float | None = None
    cached: float | None = None
    completion: float | None = None
    hour: float | None = None
    posts_per_second: float | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the posts come to. Counts of tokens and bytes are of all posts, extrapolated from those examined; tokens
    of images are those of a Qwen2.5-VL, of texts an estimate by their characters.

    Attributes:
        posts: in the dataset.
        examined: of these, read for this plan: all, or as many at equal distances.
        unusable: of the examined, posts that cannot be sent; they are recorded as failed.
        unusable_examples: the first few reasons.
        different: of the examined, posts that differ in what is sent; each is asked once.
        answers: to be generated.
        perspectives: asked for each post.
        languages: examined posts by the language of their rationales.
        image_tokens: tokens per image, of the examined posts with an image, ascending.
        prompt_tokens: sent.
        computed_tokens: of these, left to compute where the perspectives of a post share their beginning.
        longest_prompt: tokens of the longest prompt.
        answer_tokens: written, at the length that the prompt asks for.
        most_answer_tokens: written, if every answer reaches the limit.
        journal_bytes, parquet_bytes: on disk while a run goes on, and afterwards.
        num_shards: so that none holds more than `POSTS_PER_SHARD`.
    """

    posts: int
    examined: int
    unusable: int
    unusable_examples: list[str]
    different: int
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
    journal_bytes: int
    parquet_bytes: int
    num_shards: int

    def hours(self, prices: Prices) -> float | None:
        """Duration of the whole, at the speed that `prices` tells."""
        return None if prices.posts_per_second is None else self.posts / prices.posts_per_second / 3600

    def cost(self, prices: Prices) -> float | None:
        """Of the whole, in the currency of `prices`; `None` where they do not say."""
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
        """For JSON, with the histogram in place of the single images."""
        fields = dataclasses.asdict(self) | {"image_tokens": self.histogram()}
        return fields | {"hours": self.hours(prices), "cost": self.cost(prices)}

    def histogram(self) -> dict[str, int]:
        """Examined images by their tokens; bars beyond the ends are left out."""
        counts = dict.fromkeys([*_BARS, math.inf], 0)
        for tokens in self.image_tokens:
            counts[next(bar for bar in counts if tokens <= bar)] += 1
        bars = list(counts)
        filled = [place for place, bar in enumerate(bars) if counts[bar]]
        shown = bars[filled[0] : filled[-1] + 1] if filled else []
        return {f"over {_BARS[-1]:,}" if bar == math.inf else f"to {bar:,}": counts[bar] for bar in shown}


def plan_run(posts: Dataset, spec: RationaleSpec, prompt: Prompt, *, sample: int = SAMPLE) -> Plan:
    """Prepare posts as a run would, and add up.

    Args:
        posts: columns `id`, `text`, `image`, `language`.
        spec: of the run.
        prompt: as loaded for `spec`.
        sample: posts to examine, at equal distances from the first to the last; 0 for all. An image takes 20 ms.

    Raises:
        ValueError: `sample` is negative.
    """
    if sample < 0:
        raise ValueError(f"sample={sample}; write how many posts to examine, or 0 for all.")
    count = min(sample, len(posts)) or len(posts)
    rows = posts.select_columns([name for name in COLUMNS if name in posts.column_names])
    if "image" in rows.column_names and isinstance(rows.features["image"], Image):
        rows = rows.cast_column("image", Image(decode=False))
    seen: set[tuple[str | None, str | None]] = set()
    languages: dict[str, int] = {}
    image_tokens: list[int] = []
    examples: list[str] = []
    unusable = sent = computed = longest = answer_tokens = journal_bytes = parquet_bytes = 0
    for place in tqdm(range(count), desc="Examining posts", unit="post"):
        try:
            post = prepare_post(rows[place * len(posts) // count], spec.max_pixels, spec.language)
        except PreparationError as error:
            unusable += 1
            examples += [str(error)] * (len(examples) < 3)
            continue
        languages[post.language] = languages.get(post.language, 0) + 1
        if post.image is not None:
            image_tokens.append(post.image_tokens)
        if (post.image_sha256, post.text_sha256) in seen:
            continue
        seen.add((post.image_sha256, post.text_sha256))
        beginning, tasks = _prompt_tokens(post, spec, prompt)
        sent += beginning * len(tasks) + sum(tasks)
        computed += beginning + sum(tasks)
        longest = max(longest, beginning + max(tasks))
        journal, parquet = _DISK_BYTES[post.language]
        journal_bytes += journal * len(tasks)
        parquet_bytes += parquet * len(tasks)
        answer_tokens += min(_ANSWER_TOKENS[post.language], spec.max_tokens) * len(tasks)
    scale = len(posts) / count if count else 0
    answers = round(len(seen) * len(spec.perspectives) * scale)
    return Plan(
        posts=len(posts),
        examined=count,
        unusable=unusable,
        unusable_examples=examples,
        different=len(seen),
        answers=answers,
        perspectives=len(spec.perspectives),
        languages=languages,
        image_tokens=sorted(image_tokens),
        prompt_tokens=round(sent * scale),
        computed_tokens=round(computed * scale),
        longest_prompt=longest,
        answer_tokens=round(answer_tokens * scale),
        most_answer_tokens=answers * spec.max_tokens,
        max_tokens=spec.max_tokens,
        journal_bytes=round(journal_bytes * scale),
        parquet_bytes=round(parquet_bytes * scale),
        num_shards=num_shards_for(len(posts)),
    )


def num_shards_for(posts: int) -> int:
    """Shards for this many posts: few files, and none so large that it takes long to read back."""
    return max(1, math.ceil(posts / POSTS_PER_SHARD))


def text_tokens(text: str) -> int:
    """About how many tokens a text is."""
    han = sum("\u3400" <= character <= "\u9fff" for character in text)
    return round(han * _TOKENS_PER_HAN + (len(text) - han) * _TOKENS_PER_CHARACTER)


def plan_table(plan: Plan, prices: Prices = Prices()) -> str:
    """The plan, for a person."""
    extent = "all" if plan.examined == plan.posts else f"{plan.examined:,} of them"
    repeated = plan.examined - plan.unusable - plan.different
    languages = ", ".join(f"{code} {count:,}" for code, count in sorted(plan.languages.items()))
    lines = {
        "Posts": f"{plan.posts:,}; {extent} examined: {plan.different:,} different, {repeated:,} repeated, "
        f"{plan.unusable:,} unusable",
        "Languages": languages or "(none)",
        "Answers": f"{plan.answers:,}: {plan.perspectives} of each different post",
    }
    if plan.image_tokens:
        tokens = plan.image_tokens
        lines["Image tokens"] = (
            f"mean {sum(tokens) / len(tokens):,.0f}, median {tokens[len(tokens) // 2]:,}, largest {tokens[-1]:,}"
        )
    lines |= {f"  {bar}": _bar(count, len(plan.image_tokens)) for bar, count in plan.histogram().items()}
    saved = 1 - plan.computed_tokens / plan.prompt_tokens if plan.prompt_tokens else 0.0
    sent, computed = _short(plan.prompt_tokens), _short(plan.computed_tokens)
    lines |= {
        "Prompt tokens": f"{sent} sent; {computed} ({saved:.0%} less) to compute where beginnings are shared",
        "Answer tokens": f"about {_short(plan.answer_tokens)}, at most {_short(plan.most_answer_tokens)}",
        "Longest request": f"{plan.longest_prompt:,} + {plan.max_tokens:,} tokens: what a server must take at least",
        "Disk": f"{_short(plan.journal_bytes, 'B')} of journals, then {_short(plan.parquet_bytes, 'B')} of Parquet, "
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
    """Tokens of what the perspectives share, and of each one's own end."""
    texts = []
    for perspective in spec.perspectives:
        system, user = prompt.messages(post, perspective)
        texts.append(system["content"] + "".join(part.get("text", "") for part in user["content"]))
    shared = os.path.commonprefix(texts) if len(texts) > 1 else ""
    beginning = text_tokens(shared) + post.image_tokens + _TEMPLATE_TOKENS
    return beginning, [text_tokens(text[len(shared) :]) for text in texts]


def _bar(count: int, total: int) -> str:
    return f"{count:>9,} {'#' * math.ceil(40 * count / total)}"


def _short(number: float, unit: str = "") -> str:
    """`1,234`, `56.7 k`, `8.9 MB` …"""
    if number < 10_000:
        return f"{number:,.0f} {unit}".rstrip()
    power = min(int(math.log10(number) / 3), 4)
    return f"{number / 1000**power:,.1f} {' kMGT'[power]}{unit}"
