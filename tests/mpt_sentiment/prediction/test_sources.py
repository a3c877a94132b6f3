"""Predictions of posts from every kind of source are the same."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from mpt_sentiment.predicting import predict
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions


def write_jsonl(path, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_delimited(path, rows, delimiter):
    lines = [delimiter.join(rows[0])]
    lines += [delimiter.join("" if value is None else value for value in row.values()) for row in rows]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_images(rows):
    """Build a dataset with the content of the images, of which 20 posts share a row group."""
    content = {name: Path(name).read_bytes() for name in ("red.png", "blue.png")}
    images = [row["image"] and {"bytes": content[row["image"]], "path": None} for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"image": images}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def glob_of_parts(rows):
    for part in range(3):
        write_jsonl(f"parts/{part}.jsonl", rows[part * 20 : part * 20 + 20])
    for name in ("red.png", "blue.png"):
        Path("parts", name).write_bytes(Path(name).read_bytes())
    return "parts/*.jsonl"


def folder_of_parts(rows):
    glob_of_parts(rows)
    return "parts"


def parquet(rows):
    with_images(rows).to_parquet("posts.parquet", batch_size=20)
    return "posts.parquet"


def streamed_folder(rows):
    Path("dataset/data").mkdir(parents=True)
    for part in range(2):
        with_images(rows[part * 25 : part * 25 + 25]).to_parquet(f"dataset/data/train-{part:05d}-of-00002.parquet")
    return "dataset"


def saved_dataset(rows):
    with_images(rows).save_to_disk("saved")
    return "saved"


SOURCES = {
    "CSV": lambda rows: write_delimited("posts.csv", rows, ","),
    "TSV": lambda rows: write_delimited("posts.tsv", rows, "\t"),
    "Parquet": parquet,
    "glob": glob_of_parts,
    "folder": folder_of_parts,
    "list": lambda rows: [write_jsonl("a.jsonl", rows[:20]), write_delimited("b.csv", rows[20:], ",")],
    "streamed folder": streamed_folder,
    "saved dataset": saved_dataset,
    "dataset": with_images,
    "splits": lambda rows: datasets.DatasetDict(
        {"train": with_images(rows[:30]), "test": with_images(rows[30:])}
    ),
    "stream": lambda rows: with_images(rows).to_iterable_dataset(),
}  # fmt: skip


@pytest.fixture
def options():
    return {"rows_per_part": 16, "batch_size": 8, "keep_columns": ["author"], "progress": False}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_kind_of_source_gives_the_same_predictions(pipe, rows, options, kind):
    expected = predict(pipe, write_jsonl("posts.jsonl", rows), "expected", **options)
    predictions = predict(pipe, SOURCES[kind](rows), "out", **options)
    assert predictions.column_names == expected.column_names and predictions.column_names[-1] == "author"
    assert predictions["id"][:] == [row["id"] for row in rows]
    assert predictions["label"][:] == [row["label"] for row in rows]
    assert predictions.to_list() == expected.to_list()  # all digits: batches and parts are the same
    # A lost part is predicted again, and alone: from the middle of the source.
    for name in ("data/part-00001.parquet", "summary.json"):
        Path("out", name).unlink()
    assert predict(pipe, SOURCES[kind](rows) if kind in ("dataset", "stream", "splits") else _given(kind), "out",
                   **options).to_list() == expected.to_list()  # fmt: skip


def _given(kind):
    names = {"CSV": "posts.csv", "TSV": "posts.tsv", "Parquet": "posts.parquet", "glob": "parts/*.jsonl"}
    names |= {"folder": "parts", "list": ["a.jsonl", "b.csv"], "streamed folder": "dataset", "saved dataset": "saved"}
    return names[kind]


def test_only_the_row_groups_of_wanted_parts_are_read(pipe, rows, options, monkeypatch):
    parquet(rows)
    predict(pipe, "posts.parquet", "out", **options)
    for name in ("data/part-00003.parquet", "summary.json"):
        Path("out", name).unlink()
    groups = []
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, *args, **kwargs: groups.append(kwargs["row_groups"]) or read(self, *args, **kwargs),
    )
    predict(pipe, "posts.parquet", "out", **options)
    assert groups == [[2]]  # rows 48 and 49 are in the third group


def test_columns_to_keep_have_the_types_of_their_sources(pipe, rows):
    numbered = [row | {"likes": number, "tags": [1, 2]} for number, row in enumerate(rows[:4])]
    with_images(numbered).to_parquet("posts.parquet")
    typed = predict(pipe, "posts.parquet", keep_columns=["likes", "tags"], progress=False)
    assert typed["likes"] == [0, 1, 2, 3] and typed["tags"][0] == [1, 2]
    write_jsonl("posts.jsonl", numbered)
    texts = predict(pipe, "posts.jsonl", keep_columns=["likes", "tags"], progress=False)
    assert texts["likes"] == ["0", "1", "2", "3"] and texts["tags"][0] == "[1, 2]"
    with pytest.raises(ValueError, match="no column 'like'.*Did you mean 'likes'"):
        predict(pipe, "posts.jsonl", keep_columns=["like"], progress=False)
    with pytest.raises(ValueError, match="`keep_columns`: the predictions have a column 'label' of their own"):
        predict(pipe, "posts.jsonl", keep_columns=["label"], progress=False)


def test_a_source_given_twice_or_absent_is_refused(pipe, rows):
    write_jsonl("posts.jsonl", rows)
    with pytest.raises(ValueError, match="posts.jsonl is given twice"):
        predict(pipe, ["posts.jsonl", "*.jsonl"], progress=False)
    with pytest.raises(ValueError, match=r"No file or folder is named 'x/\*.csv'"):
        predict(pipe, "x/*.csv", progress=False)
    with pytest.raises(ValueError, match="got a int"):
        predict(pipe, 3, progress=False)
    with pytest.raises(ValueError, match="`output` posts.jsonl is a source of the posts"):
        predict(pipe, "posts.jsonl", "posts.jsonl", progress=False)


def test_memory_and_reading_do_not_grow_with_the_number_of_rows(pipe):
    """A source is read as its posts are needed: at most the windows and the batches ahead."""
    read = []

    def endless():
        for number in range(10_000):
            read.append(number)
            yield {"id": str(number), "text": "rain"}

    posts = datasets.IterableDataset.from_generator(endless)
    posts = posts.cast(datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string")}))
    folder = RunFolder("out")

    class FullDiskError(Exception):
        """End of the test's run."""

    def stop(*arguments):
        raise FullDiskError

    folder.write_part = stop
    with pytest.raises(FullDiskError):
        score(pipe, posts, folder, ReadingOptions(), RunOptions(rows_per_part=64, batch_size=8, progress=False))
    assert len(read) < 600
