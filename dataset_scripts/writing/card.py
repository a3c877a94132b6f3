"""The card (README.md) of published datasets: YAML that `load_dataset` reads, and an account for people."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from dataset_scripts.facts import BIBTEX, DatasetFacts, facts_of
from dataset_scripts.schema import rationale_column

RECORD_FILE = "build.json"
# What stands between the marks is written anew by every build; what an author writes around them stays.
_BEGIN = "<!-- Written by MPT's dataset_scripts. Changes up to the closing mark are lost; write yours outside. -->"
_END = "<!-- End of what MPT's dataset_scripts wrote. -->"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclasses.dataclass
class BuildRecord:
    """What a card says of one configuration; saved as `CONFIG/build.json` beside its Parquet files.

    Attributes:
        config_name (`str`): name for `load_dataset(…, config_name)`.
        dataset (`str`): id of the dataset it was built from, such as `"mvsa_single"`.
        with_content (`bool`): texts and images are inside.
        license (`str`): licence id.
        files (`dict[str, dict[str, int]]`): split -> file name -> bytes.
        content_hash (`dict[str, str]`): split -> hash of its rows, images included.
        counts (`dict[str, dict[str, int]]`): split -> label -> posts; without label under `"(none)"`.
        rationales (`dict[str, int]`): perspective -> posts that have one.
        languages (`list[str]`): language codes of the posts.
        source (`dict`): rows read and kept, dropped and skipped rows and notes by reason.
        split (`dict`): protocol, seed, options and hash.
        provenance (`dict[str, str]`): how the rationales were made, as far as it is known.
        info (`dict`): entry of the YAML field `dataset_info`.
    """

    config_name: str
    dataset: str
    with_content: bool
    license: str
    files: dict[str, dict[str, int]]
    content_hash: dict[str, str]
    counts: dict[str, dict[str, int]]
    rationales: dict[str, int]
    languages: list[str]
    source: dict[str, Any]
    split: dict[str, Any]
    provenance: dict[str, str]
    info: dict[str, Any]

    @property
    def facts(self) -> DatasetFacts:
        return facts_of(self.dataset)

    @property
    def num_posts(self) -> int:
        return sum(sum(labels.values()) for labels in self.counts.values())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "BuildRecord":
        return cls(**json.loads(text))


def read_records(folder: Path) -> dict[str, BuildRecord]:
    """The configurations that were saved in `folder`, by name.

    Raises:
        ValueError: a record is damaged.
    """
    records = {}
    for file in sorted(folder.glob(f"[!.]*/{RECORD_FILE}")):
        try:
            records[file.parent.name] = BuildRecord.from_json(file.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}); delete {file.parent} and build it again.") from None
    return records


def render_card(records: Mapping[str, BuildRecord], existing: str | None = None, *others: str) -> str:
    """The text of README.md for all configurations of a folder or repository.

    Args:
        records (mapping): configuration name -> its record.
        existing (`str`, *optional*):
            The README.md that is replaced. Its YAML fields and configurations that are not of `records`, and its text
            outside of MPT's marks, are kept.
        others (`str`): further cards; only their configurations are taken over.
    """
    ordered = [records[name] for name in sorted(records)]
    card = DatasetCard(existing or "---\n{}\n---\n", ignore_metadata_errors=True)
    given = card.data.to_dict()
    cards = [given, *(DatasetCard(other, ignore_metadata_errors=True).data.to_dict() for other in others)]
    fields = {name: value for name, value in given.items() if name not in ("configs", "dataset_info")}
    fields.update(_metadata(ordered))
    fields["configs"] = _merged(cards, "configs", [_config(record) for record in ordered])
    fields["dataset_info"] = _merged(cards, "dataset_info", [record.info for record in ordered])
    yaml = DatasetCardData(**fields).to_yaml()

    generated = f"{_BEGIN}\n\n{_body(ordered)}\n\n{_END}"
    content = card.text.strip("\n") if existing else ""
    if _BEGIN in content and _END in content:
        before, _, rest = content.partition(_BEGIN)
        content = before + generated + rest.partition(_END)[2]
    else:
        content = f"{content}\n\n{generated}" if content else generated
    return f"---\n{yaml}\n---\n\n{content}\n"


def _merged(cards: list[dict[str, Any]], field: str, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our entries of a YAML list, and after them those of configurations that others published."""
    entries = {entry["config_name"]: entry for entry in own}
    for card in cards:
        found = card.get(field) or []
        for entry in [found] if isinstance(found, dict) else found:
            entries.setdefault(entry.get("config_name", "default"), entry)
    return list(entries.values())


def _config(record: BuildRecord) -> dict[str, Any]:
    # A pattern instead of file names: the card stays true while shards are replaced by another number of them.
    files = [{"split": split, "path": f"{record.config_name}/{split}-*.parquet"} for split in record.files]
    return {"config_name": record.config_name, "data_files": files}


def _metadata(records: list[BuildRecord]) -> dict[str, Any]:
    licenses = {record.license for record in records}
    total = sum(record.num_posts for record in records)
    tags = ["sentiment-analysis", "multimodal", "rationales"]
    if any(record.facts.synthetic for record in records):
        tags.append("synthetic")
    return {
        "pretty_name": _title(records),
        "language": sorted({language for record in records for language in record.languages}),
        "license": licenses.pop() if len(licenses) == 1 else "other",
        "task_categories": ["text-classification", "image-classification"],
        "size_categories": [next((name for limit, name in _SIZES if total < limit), "n>1M")],
        "tags": tags,
    }


def _title(records: list[BuildRecord]) -> str:
    names = ", ".join(dict.fromkeys(record.facts.title for record in records))
    told = any(any(record.rationales.values()) for record in records)
    return f"{names}, with multi-perspective rationales" if told else names


def _body(records: list[BuildRecord]) -> str:
    parts = [
        f"# {_title(records)}",
        _WARNING if any(record.facts.own_terms for record in records) else "",
        _loading(records),
    ]
    parts += [_config_section(record) for record in records]
    parts += [_terms(records), _citations(records)]
    return "\n\n".join(part for part in parts if part)


_WARNING = """\
> **Content warning.** The posts come from social media, unfiltered. Some may be offensive, hateful, sexual or violent,
> or show or name people. Labels and rationales say how a post may be read; they endorse nothing."""


def _loading(records: list[BuildRecord]) -> str:
    names = [record.config_name for record in records]
    lines = ["## Loading", "", "```python", "from datasets import load_dataset", ""]
    lines += [f'posts = load_dataset("PATH_OR_ID", "{name}")' for name in names]
    lines += ["```", "", "One row is one post:", "", *_columns(records)]
    if not all(record.with_content for record in records):
        without = [record for record in records if not record.with_content]
        named = ", ".join(f"`{record.config_name}`" for record in without)
        first = without[0]
        lines += [
            "",
            f"**Texts and images are not in {named}**, since their owners' terms decide who may pass them on: there "
            "are ids, labels and rationales. Get the original download from its authors; one call (of the package "
            "`mpt-sentiment`) then joins the two by id and checks that every post is there:",
            "",
            "```python",
            "from dataset_scripts import join_content",
            "",
            f'posts = join_content(load_dataset("PATH_OR_ID", "{first.config_name}"), "{first.dataset}", '
            'data_dir="FOLDER_OF_THE_DOWNLOAD")',
            "```",
        ]
    return "\n".join(lines)


_COLUMN_TEXTS = {
    "id": "id in the original dataset",
    "image": "the image, as it was downloaded; null if a post has none",
    "text": "the text",
    "label": "the label of the post as a whole",
    "text_label": "label of the text alone, where annotators gave one",
    "image_label": "label of the image alone, where annotators gave one",
    "language": "language code of the text",
    "source": "the dataset that the post comes from",
}


def _columns(records: list[BuildRecord]) -> list[str]:
    columns = list(dict.fromkeys(entry["name"] for record in records for entry in record.info["features"]))
    texts = {rationale_column(p): f"why the post may be read as {p}" for record in records for p in record.rationales}
    texts |= _COLUMN_TEXTS
    return [f"- `{column}`: {texts.get(column, 'further column of the publisher')}" for column in columns]


def _config_section(record: BuildRecord) -> str:
    parts = [f"## `{record.config_name}`", record.facts.about, _counts(record), _source(record), _split(record)]
    return "\n\n".join(part for part in [*parts, _rationales(record)] if part)


def _counts(record: BuildRecord) -> str:
    splits = list(record.counts)
    labels = list(dict.fromkeys(label for counts in record.counts.values() for label in counts))
    rows = [[label, *(record.counts[split].get(label, 0) for split in splits)] for label in labels]
    rows.append(["all", *(sum(record.counts[split].values()) for split in splits)])
    lines = ["| label | " + " | ".join(splits) + " | all |", "|---|" + "---:|" * (len(splits) + 1)]
    lines += [f"| {label} | " + " | ".join(f"{n:,}" for n in [*counts, sum(counts)]) + " |" for label, *counts in rows]
    if record.facts.table_1:
        sizes = [*record.facts.table_1, sum(record.facts.table_1)]
        if set(splits) == {"train", "validation", "test"}:
            order = dict(zip(("train", "validation", "test"), record.facts.table_1, strict=True))
            sizes = [*(order[split] for split in splits), sizes[-1]]
            lines.append("| *Table 1 of the paper* | " + " | ".join(f"*{size:,}*" for size in sizes) + " |")
        if record.num_posts != sizes[-1]:
            lines += ["", f"Table 1 of the paper has {sizes[-1]:,} posts, this build {record.num_posts:,}."]
            lines[-1] += f" {record.facts.table_1_note}" if record.facts.table_1_note else ""
    return "\n".join(lines)


def _source(record: BuildRecord) -> str:
    source = record.source
    if not source:
        return "How many rows of the original were left out is not recorded."
    text = f"{source['read']:,} rows were read and {source['kept']:,} posts kept."
    for word, reasons in (("dropped by rule", source["dropped"]), ("skipped as faulty", source["skipped"])):
        if reasons:
            text += f" {sum(reasons.values()):,} were {word}: " + _listed(reasons) + "."
    if source["notes"]:
        text += " Kept, but worth knowing: " + _listed(source["notes"]) + "."
    return text


def _listed(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{reason} {count:,}" for reason, count in counts.items())


_PROTOCOLS = {
    "grouped": "8:1:1, stratified by label; posts with the same image or the same text stay on one side",
    "paper": "random, with the sizes of Table 1; duplicates may be on both sides",
    "clmlf": "the id lists that the CLMLF project published; duplicates may be on both sides",
    "folds": "ten folds, stratified by label, duplicates on one side; one is test, the next one validation",
    "consistent": "only posts whose text and image labels agree; then 8:1:1, stratified, duplicates on one side",
}


def _split(record: BuildRecord) -> str:
    split = record.split
    if split["protocol"] is None:
        text = "**Split**: as it came with the posts; its protocol is not recorded."
    else:
        text = f"**Split**: `{split['protocol']}`"
        if split["protocol"] in _PROTOCOLS:
            text += f" ({_PROTOCOLS[split['protocol']]})"
        if split["seed"] is not None:
            text += f", seed {split['seed']}"
        text += "".join(f", {option} {value}" for option, value in split["options"].items()) + "."
    outside = record.source.get("kept", 0) - record.num_posts
    if outside > 0:
        text += f" {outside:,} of the posts kept are in none of its parts."
    return f"{text} Hash of its ids: `{split['hash']}`."


def _rationales(record: BuildRecord) -> str:
    if not any(record.rationales.values()):
        return "**Rationales**: none."
    have = ", ".join(f"{perspective} {count:,}" for perspective, count in record.rationales.items())
    text = f"**Rationales**: of {record.num_posts:,} posts have one: {have}. "
    if record.provenance:
        return text + "How they were made: " + "; ".join(f"{k}: {v}" for k, v in record.provenance.items()) + "."
    return text + (record.facts.rationales or "How they were made (model, prompt, settings) is not recorded.")


def _terms(records: list[BuildRecord]) -> str:
    owned = [record for record in records if record.facts.own_terms]
    text = "## Terms"
    if owned:
        titles = ", ".join(dict.fromkeys(record.facts.title for record in owned))
        text += (
            f"\n\n{titles}: the posts belong to those who wrote them, the annotations to the dataset's authors, whose "
            "terms apply. They are not repeated here; read them where the original is offered, before use and before "
            "passing anything on."
        )
    for name in sorted({record.license for record in records} - {"other", "unknown"}):
        configs = ", ".join(f"`{record.config_name}`" for record in records if record.license == name)
        text += f"\n\n{configs}: licence `{name}`."
    unknown = [f"`{record.config_name}`" for record in records if record.license == "unknown"]
    if unknown:
        text += f"\n\n{', '.join(unknown)}: no licence was named; ask the publisher."
    return text if text != "## Terms" else ""


def _citations(records: list[BuildRecord]) -> str:
    keys: Iterable[str] = [key for record in records for key in record.facts.citations]
    keys = [*keys, *("clmlf" for record in records if record.split["protocol"] == "clmlf"), "mpt"]
    return "## Citation\n\n```bibtex\n" + "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys)) + "\n```"


def is_config_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None
