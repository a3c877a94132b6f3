"""Dataset card (README.md): YAML for `load_dataset`, and a description from a template."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from dataset_scripts.output import markdown_table
from dataset_scripts.registry import CLMLF_CITATION, MPT_CITATION
from dataset_scripts.schema import rationale_column
from dataset_scripts.splits import SPLITS
from dataset_scripts.writing.card_edits import Card
from dataset_scripts.writing.record import BuildRecord

TEMPLATE = Path(__file__).with_name("dataset_card_template.md")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_COLUMNS = {
    "id": "id in the original dataset",
    "image": "image as downloaded; null if a post has none",
    "text": "text",
    "label": "label of the whole post",
    "text_label": "label of the text alone, where annotators gave one",
    "image_label": "label of the image alone, where annotators gave one",
    "language": "language code of the text",
    "source": "dataset of the post",
}
_PROTOCOLS = {
    "grouped": "8:1:1, stratified by label; posts with the same image or text are in the same split",
    "paper": "random, with the sizes of Table 1; duplicates may be in several splits",
    "clmlf": "id lists published by the CLMLF project; duplicates may be in several splits",
    "folds": "ten folds, stratified by label, duplicates in the same fold; one is test, the next validation",
    "consistent": "only posts whose text and image labels agree; 8:1:1, stratified, duplicates in the same split",
}


def render_card(records: Mapping[str, BuildRecord], repo_id: str | None = None) -> Card:
    """Render the card of a folder or repository with these configurations.

    Args:
        records (mapping): configuration name -> its record.
        repo_id (`str`, *optional*): repository that the code on the card opens; by default its working directory.
    """
    ordered = [records[config] for config in sorted(records)]
    fields = _metadata(ordered)
    fields["configs"] = [_config(record) for record in ordered]
    fields["dataset_info"] = [record.info for record in ordered]
    return Card.of_generated(fields, _description(ordered, f'"{repo_id}"' if repo_id else "os.getcwd()"))


def size_category(num_rows: int) -> str:
    """Return the Hub's size category of a number of rows."""
    return next((name for limit, name in _SIZES if num_rows < limit), "n>1M")


def _config(record: BuildRecord) -> dict[str, Any]:
    # A pattern instead of file names: the number of files may change without the card.
    files = [{"split": split, "path": f"{record.config_name}/{split}-*.parquet"} for split in record.files]
    return {"config_name": record.config_name, "data_files": files}


def _metadata(records: list[BuildRecord]) -> dict[str, Any]:
    licenses = {record.license for record in records}
    synthetic = any(record.facts.synthetic for record in records)
    return {
        "pretty_name": _title(records),
        "language": sorted({language for record in records for language in record.languages}),
        "license": licenses.pop() if len(licenses) == 1 else "other",
        "task_categories": ["text-classification", "image-classification"],
        "size_categories": [size_category(sum(record.num_posts for record in records))],
        "tags": ["sentiment-analysis", "multimodal", "rationales", *(["synthetic"] if synthetic else [])],
    }


def _title(records: list[BuildRecord]) -> str:
    names = ", ".join(dict.fromkeys(record.facts.title for record in records))
    with_rationales = any(any(record.rationales.values()) for record in records)
    return f"{names}, with multi-perspective rationales" if with_rationales else names


def _description(records: list[BuildRecord], name: str) -> str:
    """Render the template, without the line breaks and blank lines that its conditions leave."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "thousands": lambda number: f"{number:,}",
        "counts": lambda counts: "; ".join(f"{name} {count:,}" for name, count in counts.items()),
        "origin": lambda facts: f"Origin: {'; '.join(f'{name}: {value}' for name, value in facts.items())}.",
        "count_table": _count_table,
    }
    rationales = {
        rationale_column(name): f"reasons to read the post as {name}" for r in records for name in r.rationales
    }
    complete_first = sorted(records, key=lambda record: not record.with_content)
    names = dict.fromkeys(column["name"] for record in complete_first for column in record.info["features"])
    descriptions = _COLUMNS | rationales
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=_title(records),
        name=name,
        records=records,
        columns={name: descriptions.get(name, "further column of the publisher") for name in names},
        without_content=[record for record in records if not record.with_content],
        protocols=_PROTOCOLS,
        terms=_terms(records),
        citations=_citations(records),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _count_table(record: BuildRecord) -> str:
    splits = list(record.counts)
    labels = dict.fromkeys(label for counts in record.counts.values() for label in counts)
    rows = [[label, *(record.counts[split].get(label, 0) for split in splits)] for label in labels]
    rows.append(["all", *(sum(record.counts[split].values()) for split in splits)])
    cells = [[name, *(f"{count:,}" for count in [*counts, sum(counts)])] for name, *counts in rows]
    if record.facts.table_1 and set(splits) == set(SPLITS):
        sizes = dict(zip(SPLITS, record.facts.table_1, strict=True))
        counts = [*(sizes[split] for split in splits), sum(sizes.values())]
        cells.append(["*Table 1 of the paper*", *(f"*{count:,}*" for count in counts)])
    return markdown_table(["label", *splits, "all"], cells)


def _terms(records: Sequence[BuildRecord]) -> list[str]:
    terms = []
    titles = dict.fromkeys(record.facts.title for record in records if record.facts.own_terms)
    if titles:
        terms.append(
            f"{', '.join(titles)}: the posts belong to their authors, the annotations to the authors of the dataset. "
            "Their terms are not repeated here; read them where the original is offered, before use and before "
            "redistribution."
        )
    for license in sorted({record.license for record in records} - {"other"}):
        names = ", ".join(f"`{record.config_name}`" for record in records if record.license == license)
        statement = "no license was named; ask the publisher" if license == "unknown" else f"`{license}`"
        terms.append(f"{names}: {statement}.")
    return terms


def _citations(records: Sequence[BuildRecord]) -> list[str]:
    entries = [entry for record in records for entry in record.facts.citations]
    if any(record.split["protocol"] == "clmlf" for record in records):
        entries.append(CLMLF_CITATION)
    return list(dict.fromkeys([*entries, MPT_CITATION]))
