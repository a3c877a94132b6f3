"""Predict Parquet files with Ray Data.

python examples/predict_ray.py FOLDER POSTS OUTPUT [WORKERS [GPUS_PER_WORKER]]
"""

import sys

import ray

from mpt_sentiment.prediction.map_batches import BatchPredictor

if __name__ == "__main__":
    folder, posts, output, workers, gpus = [*sys.argv[1:], *("1", "0")[len(sys.argv) - 4 :]]
    ray.data.read_parquet(posts).map_batches(
        BatchPredictor,
        fn_constructor_args=[folder],
        batch_format="pyarrow",
        batch_size=256,
        num_gpus=float(gpus),
        compute=ray.data.ActorPoolStrategy(size=int(workers)),
    ).write_parquet(output)
