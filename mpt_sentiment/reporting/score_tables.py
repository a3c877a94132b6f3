"""Tables of scores that several sections show."""

from collections.abc import Mapping, Sequence
from typing import Any

from mpt_sentiment.evaluation.scores import SCORES
from mpt_sentiment.reporting.section import Table, number, share, shares


def score_table(
    name: str,
    caption: str,
    rows: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str] | None = None,
    *,
    difference: bool = True,
) -> Table:
    """Build a table of scores in percent from compared rows.

    Args:
        name (`str`): name of the CSV file.
        caption (`str`): caption; the units are added.
        rows (sequence of `dict`): result of [`~mpt_sentiment.evaluation.comparison.compare`].
        titles (`dict[str, str]`, *optional*): headings of rows in words, by their titles.
        difference (`bool`, defaults to `True`): add the difference of weighted F1 to the reference, with its p-value.
    """
    titles = titles or {}
    kept = ("title", "num_runs", *SCORES, "difference_f1_weighted", "published_accuracy", "published_f1_weighted")
    columns = {"Row": lambda row: " · ".join(filter(None, (f"`{row['title']}`", titles.get(row["title"]))))}
    if len({row["num_runs"] for row in rows}) > 1:
        columns["Runs"] = lambda row: str(row["num_runs"])
    for score, facts in SCORES.items():
        columns[f"{facts.heading}, % (95 % interval)"] = lambda row, score=score: with_interval(row[score])
    if difference and len(rows) > 1:
        reference = next((row["title"] for row in rows if row["is_reference"]), None)
        columns[f"Difference of weighted F1 to {reference}, points"] = _difference
        columns["p (Holm)"] = _p_value
    caption += " ± is the standard deviation over seeds." if any(row["num_runs"] > 1 for row in rows) else ""
    return Table(name, caption, [{key: row.get(key) for key in kept} for row in rows], columns)


def with_interval(score: Mapping[str, Any]) -> str:
    """Write mean, standard deviation over seeds and interval in percent."""
    spread = "" if score["std"] is None else f" ± {share(score['std'])}"
    return f"{share(score['mean'])}{spread} ({shares(score['interval'])})"


def _difference(row: Mapping[str, Any]) -> str:
    difference = row["difference_f1_weighted"]
    if difference is None:
        return "reference"
    low, high = difference["interval"]
    return f"{100 * difference['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")


def _p_value(row: Mapping[str, Any]) -> str:
    difference = row["difference_f1_weighted"]
    return "" if difference is None else number(difference["p_holm"])
