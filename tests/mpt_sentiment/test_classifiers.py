"""Classifiers on vectors: choice on validation, labels that are absent from train."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features

from mpt_sentiment.classifiers import DENSE_STRENGTHS, boosted_trees, logistic_regression, weighted_f1

NAMES = ["negative", "neutral", "positive"]


def posts(**labels):
    features = Features({"label": ClassLabel(names=NAMES)})
    return {split: Dataset.from_dict({"label": values}, features=features) for split, values in labels.items()}


@pytest.fixture(scope="module")
def separable():
    """Vectors whose first dimension decides between negative and positive."""
    generator = np.random.default_rng(0)
    labels = {name: generator.choice([0, 2], size) for name, size in (("train", 80), ("validation", 40), ("test", 30))}
    vectors = {name: generator.normal(size=(len(values), 6)).astype(np.float32) for name, values in labels.items()}
    for name, values in labels.items():
        vectors[name][:, 0] += 3 * (values - 1)
    return vectors, posts(**labels)


@pytest.mark.parametrize(
    "predict",
    [lambda vectors, splits: logistic_regression(vectors, splits, DENSE_STRENGTHS), boosted_trees],
    ids=["logistic", "boosting"],
)
def test_probabilities_are_of_all_labels_and_the_choice_is_the_best_on_validation(separable, predict):
    vectors, splits = separable
    probabilities, chosen = predict(vectors, splits)
    labels = np.array(splits["test"]["label"])
    assert probabilities.shape == (30, 3) and (probabilities[:, 1] == 0).all()  # no train post is neutral
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    on_validation, _ = predict(vectors | {"test": vectors["validation"]}, splits | {"test": splits["validation"]})
    score = weighted_f1(np.array(splits["validation"]["label"]), on_validation.argmax(axis=1))
    assert chosen["validation_f1_weighted"] == pytest.approx(score)


def test_labels_of_test_decide_nothing(separable):
    vectors, splits = separable
    turned = splits | posts(test=[2 - label for label in splits["test"]["label"]])
    for predict in (boosted_trees, lambda *args: logistic_regression(*args, DENSE_STRENGTHS)):
        assert (predict(vectors, splits)[0] == predict(vectors, turned)[0]).all()


def test_noise_needs_a_stronger_regularization_than_a_signal():
    generator = np.random.default_rng(1)
    labels = {name: generator.choice([0, 2], 60) for name in ("train", "validation", "test")}
    noise = {name: generator.normal(size=(60, 40)) for name in labels}
    signal = {name: noise[name] + 4 * (values - 1)[:, None] for name, values in labels.items()}
    chosen = [logistic_regression(each, posts(**labels), (1e-6, 1.0))[1] for each in (noise, signal)]
    assert chosen[1]["validation_f1_weighted"] == 1.0 > chosen[0]["validation_f1_weighted"]


@pytest.mark.parametrize("predict", [lambda *args: logistic_regression(*args[:2], (1.0,), args[2]), boosted_trees])
def test_a_class_with_a_large_weight_is_more_probable(predict):
    generator = np.random.default_rng(2)
    labels = {name: generator.choice([0, 2], 200, p=[0.9, 0.1]) for name in ("train", "validation", "test")}
    vectors = {name: generator.normal(size=(200, 2)) + (values - 1)[:, None] / 2 for name, values in labels.items()}
    equal, _ = predict(vectors, posts(**labels), None)
    weighed, _ = predict(vectors, posts(**labels), [0.5, 0.0, 5.0])  # no train post is neutral
    assert weighed[:, 2].mean() > 1.5 * equal[:, 2].mean()
