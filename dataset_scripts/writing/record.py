"""Build record: facts about one saved configuration, stored with its Parquet files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.registry import facts_of

RECORD_FILE = "build.json"


@dataclasses.dataclass
class BuildRecord:
    """Contents of one configuration, saved as `CONFIG/build.json` and shown on the dataset card."""

    config_name: str
    dataset: str  # a name in `registry.DATASETS`, or of the publisher's own
    with_content: bool  # whether texts and images are included
    license: str
    files: dict[str, dict[str, int]]  # split -> file name -> bytes
    content_hash: dict[str, str]  # split -> hash of its rows, images included
    counts: dict[str, dict[str, int]]  # split -> label -> posts; posts without label under "(none)"
    rationales: dict[str, int]  # perspective -> posts with a rationale
    languages: list[str]
    source: dict[str, Any]  # number of rows read and kept; dropped rows, skipped rows and notes by reason
    split: dict[str, Any]  # protocol, seed, options and hash
    provenance: dict[str, str]  # model, prompt and further facts about the origin of the rationales
    info: dict[str, Any]  # entry of the YAML field `dataset_info`

    @property
    def facts(self) -> DatasetFacts:
        """Facts about the dataset that do not depend on the build."""
        return facts_of(self.dataset)

    @property
    def num_posts(self) -> int:
        """Number of posts in all splits."""
        return sum(sum(labels.values()) for labels in self.counts.values())

    @property
    def difference_from_table_1(self) -> str:
        """Sentence about another number of posts than in Table 1 of the paper, or ""."""
        expected = sum(self.facts.table_1 or ())
        if expected in (0, self.num_posts):
            return ""
        sentence = f"Table 1 of the paper has {expected:,} posts, this build {self.num_posts:,}."
        return " ".join(filter(None, [sentence, self.facts.table_1_note]))

    def to_json(self) -> str:
        """Serialize to the text of `build.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "BuildRecord":
        """Parse the text of a `build.json`.

        Raises:
            ValueError: not JSON.
            TypeError: missing or unknown fields.
        """
        return cls(**json.loads(text))


def read_records(folder: Path) -> dict[str, BuildRecord]:
    """Read the records of all configurations in `folder`, by name.

    Raises:
        ValueError: a record is damaged.
    """
    records = {}
    for file in sorted(folder.glob(f"[!.]*/{RECORD_FILE}")):
        try:
            records[file.parent.name] = BuildRecord.from_json(file.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}). Delete {file.parent} and build it again.") from None
    return records
