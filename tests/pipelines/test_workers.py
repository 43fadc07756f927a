"""Workers that die, fail, or lose the process that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vqkit.errors import VqkitError
from vqkit.pipelines.workers import WorkerDied, run


def square(task, number, tell):
    tell(0.5)
    return task * task


def die_once(task, number, tell):
    """Ends without a word the first time that a task is begun."""
    mark = Path(task)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(task, number, tell):
    os._exit(3)


def fail(task, number, tell):
    raise VqkitError("this shard cannot be") if task == 2 else ValueError("a fault of ours")


def wait(task, number, tell):
    Path(task).write_text(str(os.getpid()))
    time.sleep(1000)


def done_by(work, tasks, num_workers=2):
    results = {}
    said = []
    run(
        work,
        tasks,
        num_workers,
        lambda task, found: results.setdefault(task, []).append(found),
        lambda task, share: said.append((task, share)),
    )
    assert all(len(found) == 1 for found in results.values()), "no task is done twice"
    return {task: found[0] for task, found in results.items()}, said


def test_every_task_is_done_once():
    results, said = done_by(square, list(range(9)))
    assert results == {number: number**2 for number in range(9)}
    assert sorted(said) == [(number, 0.5) for number in range(9)]


def test_a_task_is_begun_again_when_its_worker_is_killed(tmp_path):
    results, _ = done_by(die_once, [str(tmp_path / str(number)) for number in range(4)])
    assert sorted(results) == [0, 1, 2, 3] and len(set(results.values())) > 1


def test_a_task_that_kills_every_worker_is_given_up_by_name():
    with pytest.raises(WorkerDied, match="status 3 at the task, again and again"):
        done_by(die, ["the task"])


def test_mistakes_of_users_and_faults_of_ours_are_told_apart():
    with pytest.raises(VqkitError, match="^this shard cannot be$"):
        done_by(fail, [2, 2])
    with pytest.raises(RuntimeError, match="a fault of ours"):
        done_by(fail, [1])


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    code = (
        "import sys; from tests.pipelines.test_workers import wait; "
        "from vqkit.pipelines.workers import run\n"
        "if __name__ == '__main__': run(wait, sys.argv[1:], 2, print, print)"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    marks = [tmp_path / "0", tmp_path / "1"]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *sys.path])
    driver = subprocess.Popen(
        [sys.executable, str(script), *map(str, marks)], env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        while not all(mark.exists() and mark.read_text() for mark in marks):
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0.1)
            assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()
    workers = []
    for mark in marks:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(int(mark.read_text())))
    # Their task would take them a quarter of an hour yet.
    assert not psutil.wait_procs(workers, timeout=100)[1]
