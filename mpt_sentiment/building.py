"""From a raw download to a folder that `load_dataset` opens: Parquet with the images inside, and a card.

    python examples/build_dataset.py sample --output_dir posts                                # nothing to download
    python examples/build_dataset.py mvsa_single --data_dir MVSA_Single.zip --output_dir posts
    python examples/build_dataset.py ch_mits --data_dir CH-Mits --output_dir posts --split paper --audit
    python examples/build_dataset.py mvsa_multiple --data_dir MVSA --output_dir posts --rationales rationales.jsonl \\
        --without_content                                                                     # free of others' terms

Then `load_dataset("posts", "mvsa_single")`. Datasets built into one folder become its configurations. Called again
with the same input, it writes nothing; interrupted, it goes on. `--help` lists every argument.
"""

import dataclasses
import json
import logging
import shlex
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import HfArgumentParser

from dataset_scripts import BuildReport, load_posts_with_report, split_posts
from dataset_scripts.facts import FACTS
from dataset_scripts.rationales.transfer import store_provenance
from dataset_scripts.writing.publish import SavedPosts, save_posts


@dataclasses.dataclass
class BuildArguments:
    """What to build, and where to."""

    output_dir: str = dataclasses.field(metadata={"help": "Folder of the result; may hold other configurations."})
    data_dir: str | None = dataclasses.field(
        default=None, metadata={"help": "The original download: its folder, or the archive as it was downloaded."}
    )
    rationales: str | None = dataclasses.field(
        default=None, metadata={"help": "Rationales, joined by id: a TSV, CSV, JSONL or Parquet file, or a store."}
    )
    rationales_info: str | None = dataclasses.field(
        default=None, metadata={"help": 'How they were made, for the card (JSON): \'{"model": …, "prompt": …}\'.'}
    )
    dataset_options: str | None = dataclasses.field(
        default=None, metadata={"help": "Options of the dataset's loader (JSON), e.g. '{\"num_posts\": 200}'."}
    )
    on_error: str = dataclasses.field(
        default="raise", metadata={"help": "raise: stop at the first faulty post; skip: leave it out, counted."}
    )
    num_proc: int | None = dataclasses.field(default=None, metadata={"help": "Images decoded at a time."})
    split: str = dataclasses.field(
        default="grouped", metadata={"help": "Protocol of the split: grouped, paper, clmlf, folds, consistent."}
    )
    split_seed: int = 42
    split_options: str | None = dataclasses.field(
        default=None, metadata={"help": 'Options of the protocol (JSON), e.g. \'{"id_lists": "clmlf_splits"}\'.'}
    )
    config_name: str | None = dataclasses.field(
        default=None, metadata={"help": "Name of the configuration, where it is not that of the dataset."}
    )
    license: str | None = dataclasses.field(
        default=None, metadata={"help": "Licence id for the card; by default 'other', or 'unknown' for own posts."}
    )
    without_content: bool = dataclasses.field(
        default=False, metadata={"help": "Leave out texts and images: ids, labels and rationales alone."}
    )
    max_shard_mb: int = dataclasses.field(default=300, metadata={"help": "Size of a Parquet file before compression."})
    audit: bool = dataclasses.field(
        default=False, metadata={"help": "Look for duplicates, leaks and faults; files go to OUTPUT_DIR-audit/."}
    )

    def __post_init__(self) -> None:
        for name in ("rationales_info", "dataset_options", "split_options"):
            setattr(self, name, _from_json(name, getattr(self, name)))


def main(argv: list[str]) -> None:
    parser = HfArgumentParser(BuildArguments, prog="build_dataset.py NAME", description=__doc__.partition("\n")[0])
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    (args,) = parser.parse_args_into_dataclasses(rest)
    if name is None:
        raise ValueError("name the dataset first: build_dataset.py mvsa_single --data_dir … --output_dir ….")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    splits, report, protocol = load_splits(name, args)
    print(report.summary())
    config_name = args.config_name or Path(report.source).name
    saved = save_posts(
        splits,
        args.output_dir,
        config_name,
        dataset=report.source if report.source in FACTS else config_name,
        report=report,
        provenance=provenance(name, args),
        license=args.license,
        with_content=not args.without_content,
        max_shard_size=args.max_shard_mb * 1024**2,
        **protocol,
    )
    print(summarise(saved))
    if args.audit:
        from dataset_scripts.audit import audit_posts  # draws and compares images, which no build needs

        lists = args.split_options.get("id_lists")
        audit = audit_posts(splits, seed=args.split_seed, id_lists=lists, num_proc=args.num_proc or 1)
        folder = Path(f"{Path(args.output_dir).resolve()}-audit") / config_name
        audit.save(folder)
        print(
            f"{audit.table()}\nThe audit's files are in {folder}; they show posts, so they lie outside of the dataset."
        )
    push = ["python", "examples/push_to_hub.py", args.output_dir, "OWNER/NAME", "--private"]
    print(f"To show what publishing would send: {shlex.join(push)}")


def load_splits(name: str, args: BuildArguments) -> tuple[DatasetDict, BuildReport, dict[str, Any]]:
    """The posts in splits, the account of them, and how they were split as `save_posts` takes it."""
    options = dict(args.dataset_options)
    if args.num_proc is not None:
        options["num_proc"] = args.num_proc
    posts, report = load_posts_with_report(
        name, args.data_dir, rationales=args.rationales, on_error=args.on_error, **options
    )
    if isinstance(posts, DatasetDict):
        return posts, report, {"protocol": None}
    splits = split_posts(posts, args.split, args.split_seed, **args.split_options)
    if args.split == "clmlf":
        return (
            splits,
            report,
            {"protocol": args.split},
        )  # its lists are the split: no seed, and paths are nobody's business
    return splits, report, {"protocol": args.split, "seed": args.split_seed, "split_options": args.split_options}


def provenance(name: str, args: BuildArguments) -> dict[str, str]:
    """What is known of how the rationales were made; the card says "not recorded" of the rest."""
    known: dict[str, str] = {}
    if args.rationales is not None:
        known["file"] = Path(args.rationales).name
        known |= store_provenance(args.rationales)
    elif name == "authors":
        known["file"] = "released by the authors of the paper"
    known |= args.rationales_info
    return known and {"model": "not recorded", "prompt": "not recorded"} | known


def summarise(saved: SavedPosts) -> str:
    record = saved.record
    protocol = record.split["protocol"] or "as the posts came"
    lines = [f"Split: {protocol}, hash {record.split['hash']}"]
    for split, counts in record.counts.items():
        labels = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        lines.append(f"  {split:<10} {sum(counts.values()):>6,} posts: {labels}")
    expected = record.facts.table_1 and sum(record.facts.table_1)
    if expected and expected != record.num_posts:
        lines.append(f"Table 1 of the paper has {expected:,} posts, this build {record.num_posts:,}.")
        lines[-1] += f" {record.facts.table_1_note}" if record.facts.table_1_note else ""
    done = (
        f"{saved.shards_written} Parquet files written" if saved.shards_written else "unchanged, nothing was written"
    )
    lines.append(f"{saved.folder}: {done}")
    folder = str(saved.folder.parent)
    lines.append(f"To open it: load_dataset({folder!r}, {record.config_name!r})")
    return "\n".join(lines)


def _from_json(name: str, value: str | None) -> dict[str, Any]:
    try:
        found = json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} {value!r} is not JSON ({error}); write e.g. '{{\"key\": 1}}'.") from None
    if not isinstance(found, dict):
        raise ValueError(f"--{name} {value!r} is no JSON object; write e.g. '{{\"key\": 1}}'.")
    return found
