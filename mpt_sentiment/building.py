"""Datasets built from raw downloads: Parquet with embedded images, and a card."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

from dataset_scripts import BuildReport, load_posts_with_report, split_posts
from dataset_scripts.output import check_writable
from dataset_scripts.rationales.transfer import store_provenance
from dataset_scripts.registry import FACTS
from dataset_scripts.schema import GROUP
from dataset_scripts.splits import DEFAULT_PROTOCOL, check_label_type, check_split_options, labelled_posts
from dataset_scripts.writing.publish import MAX_FILE_SIZE, SavedPosts, save_posts
from mpt_sentiment.training_data import warn_of_unused_split

if TYPE_CHECKING:
    from dataset_scripts.audit import AuditReport


@dataclasses.dataclass(frozen=True)
class BuiltDataset:
    """Result of `build_dataset`."""

    splits: DatasetDict
    report: BuildReport
    saved: SavedPosts  # folder and record of the configuration, and the number of files written
    audit: "AuditReport | None" = None
    audit_folder: Path | None = None  # folder of the files of the audit

    def summary(self) -> str:
        """Format the numbers of posts, the split, the folder and the audit as plain text."""
        record, folder = self.saved.record, self.saved.folder
        lines = [
            self.report.summary(),
            f"Split: {record.split['protocol'] or 'as published'}, hash {record.split['hash']}",
        ]
        for split, counts in record.counts.items():
            labels = ", ".join(f"{label} {count:,}" for label, count in counts.items())
            lines.append(f"  {split:<10} {sum(counts.values()):>6,} posts: {labels}")
        if record.difference_from_table_1:
            lines.append(record.difference_from_table_1)
        written = self.saved.files_written
        lines.append(f"{folder}: {f'{written} Parquet files written' if written else 'unchanged, nothing written'}")
        lines.append(f"To open it: load_dataset({str(folder.parent)!r}, {record.config_name!r})")
        if self.audit is not None:
            lines += [self.audit.table(), f"The files of the audit show posts; they are in {self.audit_folder}."]
        return "\n".join(lines)


def build_dataset(
    name: str,
    output_dir: str | Path,
    data_dir: str | Path | None = None,
    *,
    rationales: str | Path | None = None,
    rationales_info: Mapping[str, str] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    split: str | None = None,
    split_seed: int = 42,
    split_options: Mapping[str, Any] | None = None,
    config_name: str | None = None,
    license: str | None = None,
    with_content: bool = True,
    max_file_size: int = MAX_FILE_SIZE,
    audit: bool = False,
    num_proc: int | None = None,
) -> BuiltDataset:
    """Load posts, split them, and save them as a configuration of `output_dir`.

    Datasets built into one folder become its configurations. A repeated call with the same input writes nothing; after
    an interruption it resumes.

    Args:
        name, data_dir, rationales, on_error, num_proc: See [`load_posts`].
        output_dir (`str` or `Path`): folder of the result.
        rationales_info (mapping, *optional*): origin of the rationales for the card: `{"model": …, "prompt": …}`.
        dataset_options (mapping, *optional*): options of the loader.
        split, split_seed, split_options: protocol, seed and options of `split_posts`, for posts without splits of
            their own; by default the protocol `"grouped"`.
        config_name (`str`, *optional*): name of the configuration; defaults to that of the dataset.
        license (`str`, *optional*): license id for the card; defaults to that of the dataset.
        with_content (`bool`, defaults to `True`): `False` omits texts and images.
        max_file_size (`int`, defaults to 300 MiB): maximum number of bytes in a file before compression.
        audit (`bool`, defaults to `False`): audit the posts; the files are saved in `OUTPUT_DIR-audit`.

    Raises:
        ValueError: a fault of the posts or an unknown option; the message names the fix.
    """
    split_options = dict(split_options or {})
    check_split_options(split or DEFAULT_PROTOCOL, split_options)
    check_writable(output_dir)
    options = dict(dataset_options or {}) | ({} if num_proc is None else {"num_proc": num_proc})
    posts, report = load_posts_with_report(name, data_dir, rationales=rationales, on_error=on_error, **options)
    if isinstance(posts, DatasetDict):
        warn_of_unused_split(posts, split, split_options)
        for part, each in posts.items():
            check_label_type(each, f"The split {part!r}")
        splits, protocol = posts, {}
    else:
        split = split or DEFAULT_PROTOCOL
        posts = labelled_posts(posts, on_error, report)
        splits = split_posts(posts, split, split_seed, **split_options)
        protocol = {"protocol": split, "seed": split_seed, "split_options": split_options}
        if split == "clmlf":  # defined by its id lists, whose local paths must not be published
            protocol = {"protocol": split}
    # Groups, such as authors, are not published: they have had their effect on the split.
    splits = DatasetDict({name: _without_groups(part) for name, part in splits.items()})
    config_name = config_name or Path(report.source).name
    saved = save_posts(
        splits,
        output_dir,
        config_name,
        dataset=report.source if report.source in FACTS else config_name,
        report=report,
        provenance=_provenance(name, rationales, rationales_info or {}),
        license=license,
        with_content=with_content,
        max_file_size=max_file_size,
        **protocol,
    )
    if not audit:
        return BuiltDataset(splits, report, saved)
    from dataset_scripts.audit import audit_posts

    audit_report = audit_posts(splits, seed=split_seed, id_lists=split_options.get("id_lists"), num_proc=num_proc or 1)
    audit_folder = Path(f"{Path(output_dir).resolve()}-audit") / config_name  # outside of what is published
    audit_report.save(audit_folder)
    return BuiltDataset(splits, report, saved, audit_report, audit_folder)


def _without_groups(posts: Dataset) -> Dataset:
    return posts.remove_columns(GROUP) if GROUP in posts.column_names else posts


def _provenance(name: str, rationales: str | Path | None, info: Mapping[str, str]) -> dict[str, str]:
    """Collect what is known about the origin of the rationales; {} if there are none."""
    known: dict[str, str] = {}
    if rationales is not None:
        known = {"file": Path(rationales).name} | store_provenance(str(rationales))
    elif name == "authors":
        known = {"file": "released by the authors of the paper"}
    known |= info
    return {"model": "not recorded", "prompt": "not recorded"} | known if known else {}
