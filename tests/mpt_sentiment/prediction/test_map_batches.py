"""Predictions of batches of a table: alone, in a local cluster of Ray, and in Spark."""

import os
import signal
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpt_sentiment.predicting import load_pipeline, predict
from mpt_sentiment.prediction.map_batches import BatchPredictor

ROOT = Path(__file__).parents[3]


@pytest.fixture
def posts(rows):
    """Write two Parquet files of posts, of which one has a damaged image and one no content."""
    Path("posts").mkdir()
    content = {name: Path(name).read_bytes() for name in ("red.png", "blue.png")}
    for row in rows:
        row["image"] = row["image"] and {"bytes": content[row["image"]], "path": None}
    rows[7]["image"] = {"bytes": b"<html>", "path": None}
    rows[40] |= {"image": None, "text": " ", "rationale_positive": None}
    for part in range(2):
        table = datasets.Dataset.from_list(rows[part * 25 : part * 25 + 25])
        table.to_parquet(f"posts/{part}.parquet")
    return "posts"


def expected(model, posts):
    """Predict in one process; faulty rows are appended with their reason."""
    pipe = load_pipeline(model, "cpu")
    return predict(pipe, posts, on_error="skip", keep_columns=["author"], progress=False).to_list()


def assert_same(rows, model, posts, keep=True):
    whole = {row["id"]: row for row in expected(model, posts)}
    assert sorted(row["id"] for row in rows) == sorted([*whole, "p7", "p40"])
    for row in rows:
        error = row.pop("error")
        if row["id"] in whole:
            assert error is None and row["author"] == whole[row["id"]]["author"]
            for name, value in whole[row["id"]].items():
                assert row[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
        else:
            assert row["prediction"] is None and ("HTML page" in error) == (row["id"] == "p7")


def test_a_batch_has_one_result_for_each_row_in_its_order(model, posts):
    predictor = BatchPredictor(model, "cpu", keep_columns=["author"], batch_size=4)
    batch = pq.read_table(posts)
    predictions = predictor(batch)
    assert predictor(batch.slice(0, 5))["error"].null_count == 5  # a batch without faults
    assert predictions["id"].to_pylist() == batch["id"].to_pylist()
    assert predictions["author"].to_pylist() == batch["author"].to_pylist()
    assert_same(predictions.to_pylist(), model, posts)
    assert predictor(batch.slice(7, 1)).schema == predictions.schema  # of a batch without any prediction
    with pytest.raises(ValueError, match="no column of ids.*`id_column`"):
        predictor(batch.drop_columns("id"))


class KilledOnce(BatchPredictor):
    """Predictor of which the first worker dies in its second batch."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 2:
            try:
                os.close(os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def test_ray_predicts_every_row_once_though_a_worker_is_killed(model, posts, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    killed = str(tmp_path / "killed")
    paths = f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}"
    environment = {"KILLED": killed, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ray.init(
        num_cpus=4,  # two for the workers, the others to read and write
        include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": environment},
        _system_config={"worker_niceness": 0},
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_map_batches  # by a name that workers can import

    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.read_parquet(str(Path(posts).resolve())).map_batches(
            test_map_batches.KilledOnce,
            fn_constructor_args=[str(model), "cpu"],
            fn_constructor_kwargs={"keep_columns": ["author"]},
            batch_format="pyarrow",
            batch_size=5,
            compute=ray.data.ActorPoolStrategy(size=2),
        ).write_parquet(str(tmp_path / "predictions"))
    finally:
        ray.shutdown()
    assert Path(killed).exists()
    assert_same(pq.read_table(tmp_path / "predictions").to_pylist(), model, posts)


def test_spark_predicts_with_map_in_pandas(model, posts, tmp_path, monkeypatch):
    pytest.importorskip("pyspark")
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    try:
        spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    except PySparkRuntimeError:
        pytest.skip("Spark needs Java")
    folder = str(model)

    def predictions_of(frames):
        import pyarrow

        from mpt_sentiment.prediction.map_batches import BatchPredictor

        predictor = BatchPredictor(folder, "cpu", keep_columns=["author"])
        for frame in frames:
            yield predictor(pyarrow.Table.from_pandas(frame, preserve_index=False)).to_pandas()

    try:
        table = spark.read.parquet(str(Path(posts).resolve()))
        predictor = BatchPredictor(folder, "cpu", keep_columns=["author"])
        schema = predictor.schema(pq.read_schema(f"{posts}/0.parquet"))
        columns = ", ".join(f"`{each.name}` {'double' if each.type == pa.float64() else 'string'}" for each in schema)
        rows = table.mapInPandas(predictions_of, columns).toPandas()
    finally:
        spark.stop()
    records = pa.Table.from_pandas(rows, preserve_index=False).to_pylist()
    assert_same(records, model, posts)
