"""Command `build-dataset`: convert a raw download to a dataset that `load_dataset` opens.

    mpt-sentiment build-dataset sample --output_dir posts                                # needs no download
    mpt-sentiment build-dataset mvsa_single --data_dir MVSA_Single.zip --output_dir posts
    mpt-sentiment build-dataset ch_mits --data_dir CH-Mits --output_dir posts --split paper --audit
    mpt-sentiment build-dataset mvsa_multiple --data_dir MVSA --output_dir posts --rationales rationales.jsonl \\
        --without_content                                                                # ids, labels and rationales

Then `load_dataset("posts", "mvsa_single")`. Datasets built into one folder become its configurations. A repeated
command with the same input writes nothing; after an interruption it resumes.
"""

import dataclasses
import logging
import shlex

from mpt_sentiment.arguments import JSON, DataArguments, argument, options_object, parse
from mpt_sentiment.building import build_dataset


@dataclasses.dataclass(kw_only=True)
class BuildArguments(DataArguments):
    """Posts, their split, and the folder of the result."""

    dataset: str = argument("Name of the dataset, also as first argument without --dataset.", dataclasses.MISSING)
    output_dir: str = argument("Folder of the result; may contain other configurations.", dataclasses.MISSING)
    rationales_info: JSON | None = argument(
        'Origin of the rationales for the card (JSON): \'{"model": …, "prompt": …}\'.'
    )
    num_proc: int | None = argument("Number of images decoded in parallel.")
    config_name: str | None = argument("Name of the configuration; by default that of the dataset.")
    license: str | None = argument("License id for the card; by default 'other', or 'unknown' for posts of your own.")
    without_content: bool = argument("Omit texts and images: ids, labels and rationales only.", False)
    max_file_mb: int = argument("Maximum size of a Parquet file before compression, in MiB.", 300)
    audit: bool = argument("Count duplicates, leaks and faults; files are saved in OUTPUT_DIR-audit.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rationales_info = options_object("rationales_info", self.rationales_info)


def main(argv: list[str]) -> None:
    """Parse the arguments, build the dataset, and print its summary."""
    if argv and not argv[0].startswith("-"):
        argv = ["--dataset", *argv]
    (args,) = parse((BuildArguments,), argv, command="build-dataset", description=__doc__.partition("\n")[0])
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = dataclasses.asdict(args)
    built = build_dataset(
        options.pop("dataset"),
        with_content=not options.pop("without_content"),
        max_file_size=options.pop("max_file_mb") * 1024**2,
        **options,
    )
    print(built.summary())
    push = ["mpt-sentiment", "push", args.output_dir, "OWNER/NAME", "--private"]
    print(f"To list what publishing would send: {shlex.join(push)}")
