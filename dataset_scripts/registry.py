"""Registry of the datasets that `load_posts` loads by name.

A new dataset is a module in `loaders` and a line in `DATASETS`.
"""

import dataclasses
from collections.abc import Callable

from datasets import Dataset

from dataset_scripts.loaders.authors import load_authors
from dataset_scripts.loaders.ch_mits import CH_MITS, load_ch_mits
from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.loaders.folder import load_folder
from dataset_scripts.loaders.memotion import MEMOTION, load_memotion
from dataset_scripts.loaders.mvsa import MVSA_MULTIPLE, MVSA_SINGLE, load_mvsa_multiple, load_mvsa_single
from dataset_scripts.loaders.sample import SAMPLE, load_sample
from dataset_scripts.reading.report import BuildReport

MPT_CITATION = """\
@inproceedings{ma2025mpt,
  title = {Multimodal Sentiment Analysis with Multi-Perspective Thinking via Large Multimodal Models},
  author = {Ma, Juhao and Xu, Shuai and Li, Yicong and Fu, Xiaoming},
  booktitle = {Proceedings of the 34th ACM International Conference on Information and Knowledge Management},
  year = {2025},
  doi = {10.1145/3746252.3761328}
}"""
CLMLF_CITATION = """\
@article{li2022clmlf,
  title = {{CLMLF}: A Contrastive Learning and Multi-Layer Fusion Method for Multimodal Sentiment Detection},
  author = {Li, Zhen and Xu, Bing and Zhu, Conghui and Zhao, Tiejun},
  journal = {arXiv preprint arXiv:2204.05515},
  year = {2022}
}"""


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """A loader, and the facts about its dataset if it loads one of the literature.

    The loader has the parameter `on_error`, and `data_dir` unless it needs no files. It returns the posts with the
    columns of `schema.features` and the `BuildReport`.
    """

    load: Callable[..., tuple[Dataset, BuildReport]]
    facts: DatasetFacts | None = None


DATASETS: dict[str, DatasetEntry] = {
    "sample": DatasetEntry(load_sample, SAMPLE),
    "mvsa_single": DatasetEntry(load_mvsa_single, MVSA_SINGLE),
    "mvsa_multiple": DatasetEntry(load_mvsa_multiple, MVSA_MULTIPLE),
    "memotion": DatasetEntry(load_memotion, MEMOTION),
    "ch_mits": DatasetEntry(load_ch_mits, CH_MITS),
    "authors": DatasetEntry(load_authors),
    "folder": DatasetEntry(load_folder),
}
FACTS: dict[str, DatasetFacts] = {name: entry.facts for name, entry in DATASETS.items() if entry.facts is not None}


def facts_of(dataset: str) -> DatasetFacts:
    """Return the facts about a dataset; for an unknown name, those of a user's own posts."""
    own = DatasetFacts(title=dataset, about="Posts of the publisher's own.", own_terms=False, license="unknown")
    return FACTS.get(dataset, own)
