"""Script that runs predictions in processes that kill themselves at a chosen instant.

It reads jobs from standard input, one JSON object per line: `model`, `posts`, `output`, `kill_at` and fields of
`RunOptions`. Calls of functions, in Python and C, are counted, and at call number `kill_at` the process sends itself
SIGKILL. The script answers with one JSON array per line: exit status (-9 if killed) and number of calls. Jobs are
forks, so imports are done once.
"""

import functools
import itertools
import json
import os
import signal
import sys

from helpers.forks import in_fork
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions

PIPES = {}


def do_job(model, posts, output, kill_at, **options):
    numbers, process = itertools.count(), os.getpid()

    def count(frame, event, argument):
        if next(numbers) == kill_at and os.getpid() == process:  # not in its workers
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    try:
        options = RunOptions(progress=False, rows_per_part=8, batch_size=4, **options)
        score(PIPES[model], posts, RunFolder(output), ReadingOptions(), options)
    finally:
        sys.setprofile(None)
    return next(numbers)


def main():
    for line in sys.stdin:
        job = json.loads(line)
        if job["model"] not in PIPES:
            PIPES[job["model"]] = load_pipeline(job["model"], "cpu")
        print(json.dumps(in_fork(functools.partial(do_job, **job))), flush=True)


if __name__ == "__main__":
    main()
