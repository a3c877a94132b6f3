"""Section on maps of fused vectors at chosen epochs (paper, Fig. 6)."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from mpt_sentiment.evaluation.bootstrap import percentile_interval
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.figures import plot_maps
from mpt_sentiment.reporting.section import Omitted, Section, Table, number, numbers, share, shares
from mpt_sentiment.reporting.training import EMBEDDINGS_FILE

TITLE = "Maps of the fused vectors (Fig. 6)"
SEED, NUM_NEIGHBOURS, NUM_RESAMPLES = 0, 10, 2000
MIN_POSTS = 10


def rows(plan: Plan) -> list[str]:
    """Return no row: networks are trained for the maps."""
    return []


def section(context: Context) -> Section:
    """Draw the test posts of one fold, and measure how far the classes are apart."""
    without = ["mpt -rationales"] if {"rationales", "text"} <= {*context.plan.modalities} else []
    records, figures = [], []
    for row in [*without, MPT]:
        epochs, vectors, labels = read_embeddings(context.train(row) / EMBEDDINGS_FILE)
        if len(labels) < MIN_POSTS or len(np.unique(labels)) < 2:
            raise Omitted(f"{MIN_POSTS} test posts of two classes are needed, there are {len(labels)} in the fold.")
        maps: dict[str, dict[str, np.ndarray]] = {"t-SNE": {}, "PCA": {}}
        for epoch, points in zip(epochs, vectors, strict=True):
            records.append({"row": row, "epoch": int(epoch), "posts": len(labels), **separation(points, labels)})
            for method, drawn in maps.items():
                drawn[f"{method}, epoch {epoch}"] = project(points, method)
        for method, drawn in maps.items():
            name = f"map_{'tsne' if method == 't-SNE' else 'pca'}{'' if row == MPT else '_no_rationales'}"
            caption = f"{method} of `{row}` at epochs {', '.join(map(str, epochs))}, {len(labels):,} test posts."
            figures.append(context.figure(name, caption, plot_maps, drawn, labels, context.label_names))
    num_posts = records[0]["posts"]
    table = Table(
        "maps",
        f"Separation of the classes in the fused vectors of {num_posts:,} test posts of one fold, one seed; 95 % "
        "bootstrap intervals over posts.",
        records,
        {
            "Row": lambda record: f"`{record['row']}`",
            "Epoch": lambda record: str(record["epoch"]),
            "Silhouette (95 % interval)": lambda record: (
                f"{number(record['silhouette'])} ({numbers(record['silhouette_interval'])})"
            ),
            f"Purity of {neighbours(num_posts)} neighbours, % (95 % interval)": lambda record: (
                f"{share(record['purity'])} ({shares(record['purity_interval'])})"
            ),
            "Purity by chance, %": lambda record: share(record["purity_by_chance"]),
        },
    )
    prose = [
        "Each post is one point: its fused vector, in two dimensions by t-SNE (seed 0) and by PCA. t-SNE shows "
        "clusters even where there are few, and distances between clusters mean little; judge by the numbers, which "
        "are computed in the full space.",
        "The silhouette is 1 for compact classes far apart, 0 for overlapping ones. The purity is the share of a "
        "post's nearest neighbours that have its label.",
    ]
    absent = sorted({*context.epochs} - {record["epoch"] for record in records})
    notes = [
        f"No vectors of epoch {epoch}: the training is shorter, or finished when `--epochs` did not name it (without "
        "the folder `networks` of the report, it starts again)."
        for epoch in absent
    ]
    return Section(TITLE, prose, [table], figures, notes=notes)


def read_embeddings(path: Path) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Read epochs, fused vectors `(num_epochs, num_posts, size)` and labels `(num_posts,)`."""
    with np.load(path) as stored:
        return stored["epochs"].tolist(), stored["vectors"], stored["labels"]


def project(vectors: np.ndarray, method: str) -> np.ndarray:
    """Map vectors `(num_posts, size)` to two dimensions by `"t-SNE"` or `"PCA"`."""
    if method == "PCA":
        return PCA(2, random_state=SEED).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=SEED).fit_transform(vectors)


def neighbours(num_posts: int) -> int:
    """Return the number of nearest neighbours whose labels are compared."""
    return min(NUM_NEIGHBOURS, num_posts - 1)


def separation(vectors: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compute silhouette and purity of neighbours, with intervals.

    Args:
        vectors (`np.ndarray` of shape `(num_posts, size)`)
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.

    Returns:
        `silhouette`, `purity`, their `…_interval`, and `purity_by_chance`, that of vectors without relation to labels.
    """
    count = len(labels)
    near = NearestNeighbors(n_neighbors=neighbours(count)).fit(vectors).kneighbors(return_distance=False)
    of_posts = {
        "silhouette": silhouette_samples(vectors, labels),
        "purity": (labels[near] == labels[:, None]).mean(axis=1),
    }
    drawn = np.random.default_rng(SEED).integers(count, size=(NUM_RESAMPLES, count))
    sizes = np.unique(labels, return_counts=True)[1]
    result: dict[str, Any] = {"purity_by_chance": float((sizes * (sizes - 1)).sum() / (count * (count - 1)))}
    for name, values in of_posts.items():
        result[name] = float(values.mean())
        result[f"{name}_interval"] = percentile_interval(values[drawn].mean(axis=1))
    return result
