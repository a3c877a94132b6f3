"""Rationales of a store as one Parquet file with a card, which `load_dataset` opens."""

from collections import Counter
from pathlib import Path

import jinja2
import pyarrow.parquet as pq

from dataset_scripts.output import write_text_atomically
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.rationales.transfer import export_table, store_provenance
from dataset_scripts.registry import MPT_CITATION
from dataset_scripts.schema import rationale_column
from dataset_scripts.writing.card import size_category
from dataset_scripts.writing.card_edits import CARD, Card, read_card

TEMPLATE = Path(__file__).with_name("rationales_card_template.md")
FOLDER = "published"
FILE = "rationales.parquet"


def save_rationales(store: str | Path) -> Path:
    """Write the rationales of a store and their card into its folder `published`.

    Posts are not included: `join_rationales` joins the file to them by id. Text that a person added to the card is
    kept.

    Returns:
        The folder of both files.

    Raises:
        ValueError: the store has no rationales yet.
    """
    store = Path(store)
    folder = store / FOLDER
    existing = read_card(folder)
    if not export_table(store, folder / FILE):
        raise ValueError(f"{store} has no rationales yet. Run `mpt-sentiment generate-rationales run` first.")
    card = _card(RationaleStore.open(store), folder / FILE)
    if existing is not None:
        card = card.keep_edits(existing)
    write_text_atomically(folder / CARD, card.render())
    return folder


def _card(store: RationaleStore, file: Path) -> Card:
    columns = [f"status_{name}" for name in store.spec.perspectives]
    table = pq.read_table(file, columns=["language", *columns])
    facts = store_provenance(store.folder)
    fields = {
        "pretty_name": f"Rationales of {facts['model']}",
        "language": sorted({language for language in table["language"].to_pylist() if language}),
        "license": "other",
        "task_categories": ["text-generation"],
        "size_categories": [size_category(len(table))],
        "tags": ["sentiment-analysis", "multimodal", "rationales", "synthetic"],
        "configs": [{"config_name": "default", "data_files": FILE}],
    }
    text = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True).render(
        facts=facts,
        spec=store.spec,
        posts=f"{len(table):,}",
        statuses={
            rationale_column(name): "; ".join(f"{status} {count:,}" for status, count in counts.most_common())
            for name, counts in zip(
                store.spec.perspectives, (Counter(table[column].to_pylist()) for column in columns), strict=True
            )
        },
        file=FILE,
        citation=MPT_CITATION,
    )
    return Card.of_generated(fields, text)
