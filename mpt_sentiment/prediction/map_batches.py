"""Predictions inside a data engine: one object per worker maps batches of a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.prediction.batches import Preparation, batches_by_length, prepared_batches
from mpt_sentiment.prediction.posts import Item, PostReader, check_content, check_rationales, kept_types, read_items
from mpt_sentiment.prediction.scorer import Scorer
from mpt_sentiment.prediction.scoring import PartResults, prediction_schema
from mpt_sentiment.prediction.sources import ReadingOptions, arrow_source

ERROR = "error"


class BatchPredictor:
    """Model that maps batches of a table of posts to predictions, for Ray Data or Spark.

    A batch has the columns of a table of posts, ids among them; an image is bytes, a mapping with `bytes`, or a path.
    The result has one row per row of the batch, in its order: the columns of `predict`, and `error`, the reason why a
    row has no prediction.

    Args:
        folder (`str` or `Path`): output folder of `train`, which every worker can read. Its code is run.
        device (`str`, *optional*): by default an accelerator if the worker has one.
        text_column, image_column, id_column, keep_columns: See [`~mpt_sentiment.predict`].
        image_folder (`str` or `Path`, *optional*): image paths are relative to it; by default the working directory.
        batch_size (`int`, defaults to 16): posts per forward pass.
        calibrated, abstain_below: See [`~mpt_sentiment.predict`].

    Example:

    ```python
    >>> posts = ray.data.read_parquet("posts")
    >>> predictions = posts.map_batches(
    ...     BatchPredictor,
    ...     fn_constructor_args=["outputs/mine"],
    ...     batch_format="pyarrow",
    ...     compute=ray.data.ActorPoolStrategy(size=2),
    ... )
    >>> predictions.write_parquet("predictions")
    ```
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | None = None,
        *,
        text_column: str | None = None,
        image_column: str | None = None,
        id_column: str | None = None,
        keep_columns: Sequence[str] = (),
        image_folder: str | Path | None = None,
        batch_size: int = 16,
        calibrated: bool = True,
        abstain_below: float | None = None,
    ) -> None:
        self.scorer = Scorer(load_pipeline(folder, device), calibrated, abstain_below)
        self.reading = ReadingOptions(text_column, image_column, id_column)
        self.preparation = Preparation(self.scorer.processor, self.scorer.modalities)
        self.keep_columns, self.batch_size = keep_columns, batch_size
        self.image_folder = Path.cwd() if image_folder is None else Path(image_folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Predict a batch.

        Raises:
            ValueError: a missing column, of ids too, or a rationale of a perspective that the model does not have.
        """
        scorer = self.scorer
        source = arrow_source(batch, self.reading, self.image_folder)
        if source.column_of["id"] is None:
            raise ValueError("The batch has no column of ids, by which predictions are found; name it: `id_column`.")
        check_rationales(source, scorer.perspectives)
        names = self.schema(batch.schema).names
        reader = PostReader(source, scorer.modalities, scorer.perspectives, self.keep_columns)
        items = list(read_items([source], [reader], lambda number: True))
        for item in items:
            if item.post is not None:
                check_content(item, scorer.modalities, scorer.perspectives)
        results = PartResults()
        for prepared in prepared_batches(batches_by_length([(0, items, True)], self.batch_size), self.preparation, 0):
            outputs = scorer(prepared.inputs) if prepared.items else np.empty((0, 0))
            results.add(prepared, outputs, len(scorer.label_names))
        return self._with_errors(results, items, batch).select(names)

    def schema(self, posts: pa.Schema) -> pa.Schema:
        """Return the columns of the result for posts of a schema.

        Raises:
            ValueError: a column to keep is missing, or has the name of a column of the predictions.
        """
        source = arrow_source(posts.empty_table(), self.reading, self.image_folder)
        PostReader(source, (), (), self.keep_columns)  # checks the columns to keep
        return prediction_schema(self.scorer, kept_types([source], self.keep_columns)).append(
            pa.field(ERROR, pa.string())
        )

    def _with_errors(self, results: PartResults, items: Sequence[Item], batch: pa.Table) -> pa.Table:
        """Return one row for each row of the batch; the faulty ones have null predictions."""
        types = {name: batch.schema.field(name).type for name in self.keep_columns}
        table = results.table(self.scorer, types).append_column(ERROR, pa.nulls(len(results.rows), pa.string()))
        faulty = [item for item in items if item.fault is not None or item.post is None]
        numbers = pa.array([item.number for item in faulty], pa.int64())
        errors = pa.table(
            {
                "id": pa.array([item.fault and item.fault.id for item in faulty], pa.string()),
                ERROR: pa.array([item.fault.message if item.fault else item.notes[0] for item in faulty], pa.string()),
                **{name: batch.column(name).take(numbers) for name in types},
            }
        )
        order = np.argsort([*(row[0] for row in results.rows), *(item.number for item in faulty)])
        return pa.concat_tables([table, errors], promote_options="default").take(pa.array(order, pa.int64()))
