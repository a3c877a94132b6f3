"""Worker processes: all tasks done, killed ones reported and replaced, threads shared."""

import os
import signal
from pathlib import Path

import pytest
import torch

from mpt_sentiment.jobs import run_in_jobs


def work(task, folder):
    """Do what the task says, in a worker."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "full":
        raise OSError(28, "No space left on device")
    if task == "fail":
        return "a fault"
    Path(folder, f"{task}-{os.getpid()}-{torch.get_num_threads()}-{os.environ['OMP_NUM_THREADS']}").touch()
    return None


def test_a_killed_process_costs_its_task_alone(tmp_path):
    tasks, answers = ["one", "die", "fail", "two", "three", "four"], {}
    run_in_jobs(work, tasks, tmp_path, 2, lambda index, error: answers.update({tasks[index]: error}))
    assert answers.pop("die").startswith("Its process was killed by SIGKILL") and answers.pop("fail") == "a fault"
    assert answers == dict.fromkeys(["one", "two", "three", "four"])
    done = [path.name.split("-") for path in tmp_path.iterdir()]
    assert {name for name, *_ in done} == {*answers}
    assert len({process for _, process, *_ in done}) <= 3  # processes live over many tasks
    share = str(max(1, torch.get_num_threads() // 2))
    assert {(threads, variable) for *_, threads, variable in done} == {(share, share)}


def test_a_full_disk_ends_all_tasks(tmp_path):
    with pytest.raises(OSError, match="No space left") as error:
        run_in_jobs(work, ["full", "one"], tmp_path, 1, lambda index, error: None)
    assert error.value.errno == 28


def test_an_interruption_ends_all_processes(tmp_path):
    processes = []

    def interrupt(index, error):
        processes.extend(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_jobs(work, ["one", "two", "three"], tmp_path, 1, interrupt)
    assert len(processes) == 1 and not Path(f"/proc/{processes[0]}").exists()
