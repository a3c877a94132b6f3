"""Predictions that are killed at random instants and resumed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

FAULTY = {"p3", "p11", "p12", "p30", "p41", None}


@pytest.fixture(scope="module")
def runner():
    root = Path(__file__).parents[3]
    script = root / "tests" / "helpers" / "killed_prediction.py"
    environment = {"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment,
    ) as process:  # fmt: skip

        def run(**job):
            process.stdin.write(json.dumps(job | {"kill_at": job.get("kill_at")}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def content(output: Path) -> tuple:
    """Return the predictions and the errors of a finished run."""
    if output.is_dir():
        files = sorted(output.glob("data/*"))
        assert len(files) == 7 and {path.name for path in output.iterdir()} >= {"data", "errors.parquet"}
        errors = output / "errors.parquet"
        return [pq.read_table(file).to_pylist() for file in files], pq.read_table(errors).to_pylist()
    errors = output.with_suffix(".errors.parquet")
    assert not output.with_name(f"{output.name}.unfinished").exists()
    return output.read_bytes(), pq.read_table(errors).to_pylist()


@pytest.mark.parametrize(("name", "num_workers"), [("out", 0), ("p.csv", 0), ("out", 2)])
def test_a_run_killed_at_random_instants_ends_as_one_that_was_not(runner, model, faulty_rows, name, num_workers):
    Path("posts.jsonl").write_text(faulty_rows, encoding="utf-8")
    job = {"model": str(model), "posts": str(Path("posts.jsonl").resolve())}
    job["dataloader_num_workers"] = num_workers
    status, num_calls = runner(**job, output=str(Path("whole", name).resolve()))
    assert status == 0
    predictions, errors = content(Path("whole", name))
    assert {error["id"] for error in errors} == FAULTY
    instants = random.Random(name)
    output = Path("killed", name)
    job["output"] = str(output.resolve())
    for share in (0.4, 0.25, 0.15, 0.1):  # together fewer calls than a whole run, so that none of them finishes
        status, _ = runner(**job, kill_at=int(share * instants.uniform(0.5, 1) * num_calls))
        assert status == -9
        for file in Path("killed").rglob("data/part-*"):  # every visible part is complete
            assert pq.read_table(file).num_rows > 0
    assert runner(**job)[0] == 0
    assert content(output) == (predictions, errors)


@pytest.mark.parametrize("name", ["out", "p.jsonl"])
def test_a_run_killed_while_it_joins_its_results_loses_none(runner, model, faulty_rows, name):
    Path("posts.jsonl").write_text(faulty_rows, encoding="utf-8")
    job = {"model": str(model), "posts": str(Path("posts.jsonl").resolve()), "dataloader_num_workers": 0}
    _, num_calls = runner(**job, output=str(Path("whole", name).resolve()))
    output = Path("killed", name)
    job["output"] = str(output.resolve())
    instants = random.Random(name)
    for _ in range(3):
        runner(**job, kill_at=int(instants.uniform(0.97, 1) * num_calls))
    assert runner(**job)[0] == 0
    assert content(output) == content(Path("whole", name))
