"""Linear baselines: majority label, logistic regression on TF-IDF or a frozen encoder.

The strength of the regularization is chosen on validation (weighted F1); test is scored once.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from dataset_scripts.schema import has_values
from modeling_mpt.packing_mpt import masked_mean
from mpt_sentiment.encoder_sources import check_encoder
from mpt_sentiment.evaluation import evaluate_predictions
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.training_checks import check_classes
from processing_mpt.texts_mpt import TEXT_PREPROCESSING

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
Splits = Mapping[str, Dataset]


def score_linear_baselines(
    posts: Splits,
    text_model_name_or_path: str | None = None,
    max_length: int = 320,
    text_preprocessing: str = "none",
) -> dict[str, dict[str, Any]]:
    """Score logistic regression on TF-IDF and, with a text encoder, on its mean-pooled states.

    Args:
        posts (mapping of `Dataset`): train, validation and test.
        text_model_name_or_path (`str`, *optional*): Hub id or folder of the frozen text encoder.
        max_length (`int`, defaults to 320): tokens to which a text is cut for the encoder.
        text_preprocessing (`str`, defaults to `"none"`): see [`MPTProcessor`].

    Returns:
        Scores on test by the features' name, see [`~mpt_sentiment.evaluation.evaluate_predictions`]; those of texts
        or rationales that no train post has are left out.

    Raises:
        ValueError: the train posts have neither texts nor rationales, or an unknown preprocessing.
    """
    posts = with_prepared_texts(posts, text_preprocessing)
    names, columns = posts["train"].features["label"].names, rationale_columns(posts)
    text = ["text"] if has_values(posts["train"], "text") else []
    systems: dict[str, tuple[Callable, list[str]]] = {
        "TF-IDF, text": (tfidf, text),
        "TF-IDF, text + rationales": (tfidf, columns and [*text, *columns]),
    }
    check_classes(posts)
    if text_model_name_or_path:
        check_encoder(text_model_name_or_path, "text", "text_model_name_or_path")
        embed = Embedder(text_model_name_or_path, max_length)
        systems |= {
            "embeddings, text": (embed, text),
            "embeddings, rationales": (embed, columns),
            "embeddings, text + rationales": (embed, columns and [*text, *columns]),
        }
    if not text and not columns:
        raise ValueError("The train posts have neither texts nor rationales, which the linear baselines read.")
    return {
        name: evaluate_predictions(fit(featurize(posts, read), posts), posts["test"]["label"], names)
        for name, (featurize, read) in systems.items()
        if read
    }


def check_text_preprocessing(name: str) -> None:
    """Raise a ValueError unless a preparation of texts has this name."""
    if name not in list(TEXT_PREPROCESSING):
        raise ValueError(f"text_preprocessing: must be one of {', '.join(TEXT_PREPROCESSING)}, got {name!r}.")


def with_prepared_texts(posts: Splits, text_preprocessing: str) -> Splits:
    """Return posts whose texts are prepared as the processor of a model does."""
    check_text_preprocessing(text_preprocessing)
    prepare = TEXT_PREPROCESSING[text_preprocessing]
    prepared = {}
    for name, split in posts.items():
        texts = [text and prepare(text) for text in split["text"]]
        prepared[name] = split.remove_columns("text").add_column("text", texts, feature=split.features["text"])
    return DatasetDict(prepared)


def rationale_columns(posts: Splits) -> list[str]:
    """List the columns of rationales that a train post has."""
    train = posts["train"]
    return [name for name in train.column_names if name.startswith("rationale_") and has_values(train, name)]


def fit(features: dict[str, np.ndarray], splits: Splits) -> np.ndarray:
    """Fit logistic regressions and predict with the one that is best on validation.

    Returns:
        Probabilities of the test posts, of shape `(num_posts, num_labels)`.
    """
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


def tfidf_regression(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> np.ndarray:
    """Predict test posts with logistic regression on TF-IDF of texts and rationales."""
    posts = with_prepared_texts(posts, setup.model.text_preprocessing)
    columns = rationale_columns(posts) if "rationales" in modalities else []
    return fit(tfidf(posts, ["text"] * ("text" in modalities) + columns), posts)


def majority(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> np.ndarray:
    """Predict the most frequent label of train for every test post."""
    size = posts["train"].features["label"].num_classes
    most_frequent = int(np.bincount(posts["train"]["label"], minlength=size).argmax())
    return np.tile(np.eye(size)[most_frequent], (len(posts["test"]), 1))


def tfidf(splits: Splits, columns: list[str]) -> dict[str, sparse.csr_matrix]:
    """Weigh word unigrams and bigrams of each column by TF-IDF, fitted on train."""
    parts: dict[str, list] = {name: [] for name in splits}
    for column in columns:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        try:
            vectorizer.fit(value or "" for value in splits["train"][column])
        except ValueError:  # the vocabulary is empty
            raise ValueError(
                f"TF-IDF needs a word that two train posts have in {column!r}, and there is none."
            ) from None
        for name, split in splits.items():
            parts[name].append(vectorizer.transform(value or "" for value in split[column]))
    return {name: sparse.hstack(blocks).tocsr() for name, blocks in parts.items()}


class Embedder:
    """L2-normalized mean-pooled states of a frozen text encoder; zeros for a missing text."""

    def __init__(self, name_or_path: str, max_length: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self.model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).eval()
        self.max_length = min(max_length, self.tokenizer.model_max_length)
        self.cache: dict[tuple[str, str], np.ndarray] = {}

    def __call__(self, splits: Splits, columns: list[str]) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([self._column(name, column, split) for column in columns], axis=1)
            for name, split in splits.items()
        }

    @torch.no_grad()
    def _column(self, name: str, column: str, split: Dataset) -> np.ndarray:
        if (name, column) not in self.cache:
            texts = list(split[column])
            rows = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
            present = sorted((row for row, text in enumerate(texts) if text), key=lambda row: len(texts[row]))
            for start in tqdm(range(0, len(present), 64), desc=f"embedding {name} {column}", leave=False):
                batch = present[start : start + 64]
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


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A system of comparisons without a network of its own.

    Attributes:
        predict (callable): gets train, validation and test posts, the modalities of the row, and MPT's arguments,
            whose encoders and preparation of texts it may use. Returns probabilities of the test posts
            `(num_posts, num_labels)`; it must be deterministic.
        reads (`tuple[str]`): modalities that a row can have; without further words it has all but rationales.
        rows (`tuple[str]`): its rows of a comparison of all systems, e.g. `"+rationales"`; see `mpt_sentiment.rows`.
    """

    predict: Callable[[Splits, Sequence[str], TrainingSetup], np.ndarray]
    reads: tuple[str, ...] = ()
    rows: tuple[str, ...] = ("",)


BASELINES: dict[str, Baseline] = {
    "majority": Baseline(majority),
    "tfidf": Baseline(tfidf_regression, ("text", "rationales"), ("", "+rationales", "shuffled")),
}
