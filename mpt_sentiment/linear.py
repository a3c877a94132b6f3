"""The floor of every table: majority label, TF-IDF, and a frozen text encoder, each with logistic regression.

    python examples/linear_baselines.py --dataset mvsa_single --data_dir MVSA_Single --rationales rationales.jsonl \
        --text_model_name_or_path sentence-transformers/all-MiniLM-L6-v2

Takes the data arguments of `train.py`, hence the same posts on the same sides. The strength of the regularisation is
chosen on validation (weighted F1); test is touched once.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, HfArgumentParser

from modeling_mpt.packing_mpt import masked_mean
from mpt_sentiment.evaluation import evaluate_predictions, prediction_table, write_metrics, write_predictions
from mpt_sentiment.recipe import DataArguments
from mpt_sentiment.training import load_splits

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclasses.dataclass
class LinearArguments:
    text_model_name_or_path: str | None = dataclasses.field(
        default=None,
        metadata={"help": "Hub id or folder of the frozen text encoder; without it, TF-IDF only."},
    )


def main(argv: list[str]) -> None:
    linear_args, data_args = HfArgumentParser((LinearArguments, DataArguments)).parse_args_into_dataclasses()
    splits, data = load_splits(data_args)
    names = splits["train"].features["label"].names
    columns = [name for name in splits["train"].column_names if name.startswith("rationale_")]
    systems: dict[str, tuple[Callable, list[str]]] = {
        "TF-IDF, text": (tfidf, ["text"]),
        "TF-IDF, text + rationales": (tfidf, ["text", *columns]),
    }
    if linear_args.text_model_name_or_path:
        embed = Embedder(linear_args.text_model_name_or_path, data_args.max_length)
        systems |= {
            "embeddings, text": (embed, ["text"]),
            "embeddings, rationales": (embed, columns),
            "embeddings, text + rationales": (embed, ["text", *columns]),
        }
    results = {}
    for system, (featurise, read) in systems.items():
        features = featurise(splits, read)
        results[system] = evaluate_predictions(fit(features, splits), splits["test"]["label"], names)
    floor = next(iter(results.values()))["majority"]
    print(f"\n{data.name}, split {data.protocol} ({data.split_hash}), {len(splits['test']):,} test posts")
    print(f"{'logistic regression on':<32}{'accuracy':>10}{'F1 weighted':>13}{'F1 macro':>10}")
    for system, scores in {"(majority label)": floor, **results}.items():
        print(f"{system:<32}{scores['accuracy']:>10.4f}{scores['f1_weighted']:>13.4f}{scores['f1_macro']:>10.4f}")


def fit(features: dict[str, np.ndarray], splits: dict[str, Dataset]) -> np.ndarray:
    """Probabilities of the test posts `(num_posts, num_labels)`, by the regression whose strength is best on
    validation."""
    labels = {name: np.array(split["label"]) for name, split in splits.items()}
    candidates = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(features["train"], labels["train"])
        predictions = model.predict(features["validation"])
        candidates.append((f1_score(labels["validation"], predictions, average="weighted", zero_division=0), model))
    best = max(candidates, key=lambda candidate: candidate[0])[1]
    probabilities = np.zeros((len(labels["test"]), splits["train"].features["label"].num_classes))
    probabilities[:, best.classes_] = best.predict_proba(features["test"])  # a label may be absent from train
    return probabilities


def tfidf_regression(splits: dict[str, Dataset], folder: Path, rationales: bool) -> None:
    """Logistic regression on TF-IDF of the text, and of the rationales too, as a run in a folder (`compare.py`)."""
    columns = [name for name in splits["train"].column_names if name.startswith("rationale_")]
    _save(fit(tfidf(splits, ["text", *columns] if rationales else ["text"]), splits), splits["test"], folder)


def majority(splits: dict[str, Dataset], folder: Path, rationales: bool = False) -> None:
    """The most frequent label of train for every post, as a run in a folder (`compare.py`)."""
    size = splits["train"].features["label"].num_classes
    most = int(np.bincount(splits["train"]["label"], minlength=size).argmax())
    _save(np.tile(np.eye(size)[most], (len(splits["test"]), 1)), splits["test"], folder)


def _save(probabilities: np.ndarray, test: Dataset, folder: Path) -> None:
    names = test.features["label"].names
    table = prediction_table(test["id"], names, probabilities, test["label"])
    write_predictions(folder / "predictions.parquet", table)
    write_metrics(folder / "metrics.json", {"test": evaluate_predictions(probabilities, test["label"], names)})


def tfidf(splits: dict[str, Dataset], columns: list[str]) -> dict[str, sparse.csr_matrix]:
    """Word unigrams and bigrams of each column, fitted on train."""
    parts: dict[str, list] = {name: [] for name in splits}
    for column in columns:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        vectorizer.fit(value or "" for value in splits["train"][column])
        for name, split in splits.items():
            parts[name].append(vectorizer.transform(value or "" for value in split[column]))
    return {name: sparse.hstack(blocks).tocsr() for name, blocks in parts.items()}


class Embedder:
    """Mean-pooled states of a frozen text encoder, normalised; zeros for an absent text."""

    def __init__(self, name_or_path: str, max_length: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self.model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).eval()
        self.max_length = min(max_length, self.tokenizer.model_max_length)
        self.cache: dict[tuple[str, str], np.ndarray] = {}

    def __call__(self, splits: dict[str, Dataset], columns: list[str]) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([self._column(name, column, split) for column in columns], axis=1)
            for name, split in splits.items()
        }

    @torch.no_grad()
    def _column(self, name: str, column: str, split: Dataset) -> np.ndarray:
        if (name, column) not in self.cache:
            texts = list(split[column])
            rows = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
            given = sorted((row for row, text in enumerate(texts) if text), key=lambda row: len(texts[row]))
            for start in tqdm(range(0, len(given), 64), desc=f"embedding {name} {column}", leave=False):
                batch = given[start : start + 64]
                tokens = self.tokenizer(
                    [texts[row] for row in batch],
                    padding=True,
                    truncation=True,
                    max_length=self.max_length,
                    return_tensors="pt",
                )
                states = self.model(**tokens).last_hidden_state
                rows[batch] = torch.nn.functional.normalize(masked_mean(states, tokens["attention_mask"])).numpy()
            self.cache[name, column] = rows
        return self.cache[name, column]
