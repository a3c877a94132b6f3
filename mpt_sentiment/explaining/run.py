"""Explanation of one post, a table or a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from tqdm.auto import tqdm
from transformers import Pipeline

from dataset_scripts import rationale_column
from dataset_scripts.output import check_writable
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.schema import has_values
from mpt_sentiment.explaining.attention import last_attention
from mpt_sentiment.explaining.attribution import integrated_gradients, leave_one_out, path_ends
from mpt_sentiment.explaining.explanation import Explanation, Explanations
from mpt_sentiment.explaining.faithfulness import NUM_DRAWS, deletion_areas, summarize
from mpt_sentiment.explaining.network import log_odds
from mpt_sentiment.explaining.page import TITLES, write_page
from mpt_sentiment.explaining.post import KINDS, RATIONALE_WORDS, REGIONS, WORDS, read_post
from mpt_sentiment.predicting import load_pipeline, read_table
from mpt_sentiment.prediction.posts import check_perspectives

# Methods for words and regions. Perspectives and modalities are left out one by one with the first two.
METHODS = ("leave_one_out", "integrated_gradients", "attention")
MAX_GRID = 32


def explain(
    model: str | Path | Pipeline,
    posts: Mapping[str, Any] | str | Path | Dataset | Sequence[Mapping[str, Any]],
    output: str | Path | None = None,
    *,
    method: str = "leave_one_out",
    grid: int = 7,
    limit: int = 20,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
    on_error: str = "raise",
    batch_size: int = 32,
    device: str | None = None,
    progress: bool = True,
    report: BuildReport | None = None,
    **options: Any,
) -> Explanations:
    """Explain predictions: attributions of words, image regions, perspectives and modalities.

    Attributions are in log-odds of the predicted class, before any temperature. For several posts, a faithfulness test
    shows whether deleting the parts with the highest attributions lowers the probability more than deleting random
    parts.

    Args:
        model (`str`, `Path` or [`MPTPipeline`]): output folder of `train`, whose code is run, or its pipeline.
        posts (mapping, list of them, `str`, `Path` or `Dataset`): one post or a list, see [`MPTPipeline`]; a CSV, TSV,
            JSONL, Parquet or XLSX table; or a dataset, see `load_posts`.
        output (`str` or `Path`, *optional*): page to write, `.html`; its numbers go to a `.json` of the same name.
        method (`str`, defaults to `"leave_one_out"`): of words and regions. `"leave_one_out"` deletes each in turn;
            `"integrated_gradients"` needs Captum. `"attention"` is that of the last layer, which the paper shows and
            which is no attribution.
        grid (`int`, defaults to 7): rows and columns of the regions of an image.
        limit (`int`, defaults to 20): number of posts that are explained at most, a random sample of more.
        seed (`int`, defaults to 0): seed of this sample and of the random deletions.
        num_draws (`int`, defaults to 5): random orders of deletion per post.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out posts that cannot be read, and counts them.
        batch_size (`int`, defaults to 32): variants of a post per forward pass.
        device (`str`, *optional*): e.g. `"cuda:1"`; by default an accelerator if there is one.
        progress (`bool`, defaults to `True`): show a progress bar.
        report ([`BuildReport`], *optional*): of the dataset, e.g. from `load_posts_with_report`.
        options: options of a table's reader, e.g. `rationales` or `text_column`, see [`load_folder`].

    Returns:
        [`Explanations`] of the posts in their order, with the result of the test if there is more than one.

    Raises:
        ImportError: integrated gradients without Captum.
        ValueError: an unusable argument, model or post.
    """
    _check(method, output, grid=grid, limit=limit, num_draws=num_draws, batch_size=batch_size)
    is_table = isinstance(posts, str | Path)
    if options and not is_table:
        raise ValueError(
            f"`{next(iter(options))}` is an option of a table, but the posts are a {type(posts).__name__}."
        )
    if is_table:
        _check_table(posts)
        posts, report = read_table(posts, on_error=on_error, **options)
    if not isinstance(posts, Mapping | Sequence | Dataset):
        raise ValueError(f"Posts must be one post, a list, a table or a `Dataset`, got a {type(posts).__name__}.")
    pipe = model if isinstance(model, Pipeline) else load_pipeline(model, device)
    name = str(getattr(pipe.model, "name_or_path", "") if isinstance(model, Pipeline) else model)
    if name and Path(name).is_dir():  # no local path goes into a page
        name = Path(name).resolve().name
    settings = {"grid": grid, "limit": limit, "seed": seed, "num_draws": num_draws}
    result = Explanations([], [], method, name, [], settings)
    if isinstance(posts, Mapping):
        result.posts.append(explain_post(pipe, posts, method, grid, batch_size))
    else:
        report = report or BuildReport("The dataset", read=len(posts), kept=len(posts), on_error=on_error)
        _add_posts(result, pipe, posts, report, batch_size, progress)
    cut = sum(each.num_unread > 0 for each in result.posts)
    if cut:
        result.notes.append(
            f"In {cut:,} posts, words after the tokenizer's limit are struck through: the network does not read them."
        )
    if method == "attention":
        result.notes += without_attention(result)
    if output is not None:
        write_page(result, output)
    return result


def without_attention(result: Explanations) -> list[str]:
    """Say which parts of the posts have no attention, because their encoder has none."""
    kinds = (WORDS, RATIONALE_WORDS, REGIONS)
    having = {kind for post in result.posts for kind in post.parts.names}
    shown = {kind for post in result.posts for kind in post.attributions}
    return [
        f"No attention of {TITLES[kind]}: their encoder has none, or the network does not use it."
        for kind in kinds
        if kind in having - shown
    ]


def _add_posts(
    result: Explanations,
    pipe: Pipeline,
    posts: Dataset | Sequence,
    report: BuildReport,
    batch_size: int,
    progress: bool,
) -> None:
    """Add explanations of several posts and the faithfulness test.

    Raises:
        ValueError: a post that cannot be read, unless these are skipped, or none that can.
    """
    limit, seed = result.settings["limit"], result.settings["seed"]
    rows = range(len(posts))
    if limit < len(posts):
        rows = np.sort(np.random.default_rng(seed).choice(len(posts), limit, replace=False)).tolist()
        result.notes.append(f"{limit:,} of {len(posts):,} posts are explained: a random sample with the seed {seed}.")
    chosen = _standard_rows(pipe, posts, rows, report) if isinstance(posts, Dataset) else (posts[row] for row in rows)
    for post in tqdm(chosen, total=len(rows), unit="post", disable=not progress):
        try:
            explanation = explain_post(pipe, post, result.method, result.settings["grid"], batch_size)
        except ValueError as error:
            report.fail("cannot be read", f"{report.source}: {error}")
            continue
        _add_areas(explanation, pipe, batch_size, result.settings["num_draws"], (seed, len(result.posts)))
        result.posts.append(explanation)
    if not result.posts:
        raise ValueError(f"{report.source}: no post is left to explain.\n{report.summary()}")
    areas = {kind: [each.areas[kind] for each in result.posts if kind in each.areas] for kind in KINDS}
    result.faithfulness = summarize(areas, seed)
    result.notes += [
        f"{count:,} left out: {why}, e.g. {report.examples[why][0]}" for why, count in report.skipped.items()
    ]


def explain_post(
    pipe: Pipeline, post: Mapping[str, Any], method: str = "leave_one_out", grid: int = 7, batch_size: int = 32
) -> Explanation:
    """Explain the prediction for one post; see [`explain`]."""
    result = pipe({name: value for name, value in post.items() if name != "label"})
    label = pipe.model.config.label2id[result["label"]]
    parts = read_post(pipe, post, grid)
    attributions, ends = {}, None
    if method == "integrated_gradients":
        attributions = integrated_gradients(pipe.model, parts, label, batch_size)
        ends = path_ends(pipe.model, parts, label) if attributions else None
    elif method == "attention":
        attributions = last_attention(pipe.model, parts)
    for kind in parts.names:
        if kind not in attributions and method != "attention":
            attributions[kind] = leave_one_out(pipe.model, parts, kind, label, batch_size)
    with torch.no_grad():
        margin = log_odds(pipe.model(**parts.inputs)["logits"], label).item()
    return Explanation(post.get("id"), parts, result, post.get("label"), margin, attributions, ends)


def _add_areas(explanation: Explanation, pipe: Pipeline, batch_size: int, num_draws: int, seed: Sequence[int]) -> None:
    """Add the areas over the perturbation curves of a post."""
    label = pipe.model.config.label2id[explanation.result["label"]]
    for kind, attribution in explanation.attributions.items():
        areas = deletion_areas(
            *(pipe.model, explanation.parts, kind, attribution, label),
            batch_size=batch_size,
            num_draws=num_draws,
            seed=seed,
        )
        if areas is not None:
            explanation.areas[kind] = areas


def _standard_rows(
    pipe: Pipeline, posts: Dataset, rows: Sequence[int], report: BuildReport
) -> Iterator[dict[str, Any]]:
    """Iterate over rows as posts of the pipeline, with their labels as text.

    Raises:
        ValueError: the dataset has rationales of a perspective that the model lacks.
    """
    prefix = rationale_column("")
    columns = [name for name in posts.column_names if name.startswith(prefix) and has_values(posts, name)]
    perspectives = pipe.processor.perspectives
    check_perspectives(report.source, [name.removeprefix(prefix) for name in columns], perspectives)
    if isinstance(posts.features.get("image"), Image):
        posts = posts.cast_column("image", Image(decode=False))  # the pipeline reads malformed metadata too
    label_names = getattr(posts.features.get("label"), "names", None)
    for index in rows:
        row = posts[index]
        post = {name: row[name] for name in ("text", "image", *columns) if row.get(name) is not None}
        post["id"] = str(row["id"]) if row.get("id") is not None else str(index)
        if row.get("label") is not None:
            post["label"] = label_names[row["label"]] if label_names else str(row["label"])
        yield post


def _check_table(table: str | Path) -> None:
    """Check that a table exists.

    Raises:
        ValueError: it does not.
    """
    if not Path(table).is_file():
        siblings = [path.name for path in Path(table).parent.glob("*") if path.is_file()]
        raise ValueError(f"The table {str(table)!r} does not exist.{did_you_mean(Path(table).name, siblings)}")


def _check(method: str, output: str | Path | None, **numbers: int) -> None:
    """Check the arguments of [`explain`].

    Raises:
        ValueError: an unusable one.
    """
    if method not in METHODS:
        raise ValueError(
            f"`method` must be one of {', '.join(METHODS)}, got {method!r}.{did_you_mean(method, METHODS)}"
        )
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    if numbers["grid"] > MAX_GRID:
        raise ValueError(
            f"`grid` may be at most {MAX_GRID}, got {numbers['grid']}: each region is deleted on its own."
        )
    if output is not None:
        if Path(output).suffix.lower() not in (".html", ".htm"):
            raise ValueError(
                f"`output` must end in .html, got {str(output)!r}. The numbers go to a .json of the same name."
            )
        check_writable(output, "output", is_file=True)
