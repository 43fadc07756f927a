"""Tasks on a Ray cluster (the extra [cluster]), by Ray Data: one shard a block, one shard a call.

Ray's driver is a process of its own: when the cluster goes, Ray ends the process that talks to it,
without an exception that could be caught.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..data.shards import SourceShard
from ..errors import VqkitError
from ..machine import num_cores
from ..tokens.cache import Receipt
from . import workers

if TYPE_CHECKING:
    from .tokenize import Task

# Seconds after which a driver gives a cluster up that does not answer.
PATIENCE = 30


def run_on_ray(
    tasks: Sequence[Task], num_workers: int | None, done: Callable[[int, Receipt], None]
) -> None:
    """Do all tasks on the cluster that RAY_ADDRESS names, else on one of this machine. done: called
    with the number of a task and its receipt.

    VqkitError for more workers than the cluster has CPUs for, and when it goes.
    """

    def tell(_: int, said: Any) -> None:
        # What the driver tells is a receipt, with the number of its task.
        number, receipt = said
        done(number, receipt)

    try:
        workers.run(_drive, [(tuple(tasks), num_workers)], 1, lambda *_: None, tell, attempts=1)
    except workers.WorkerDied as error:
        raise VqkitError(
            "the Ray cluster was gone before all shards were done: do the others with --resume"
        ) from error


def ray_library() -> Any:
    """Ray with Ray Data. VqkitError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(PATIENCE))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VqkitError(
            "--engine ray needs Ray: pip install 'vqkit[cluster]', or leave --engine out"
        ) from error
    return ray


def _drive(task: Any, number: int, tell: Callable[[Any], None]) -> None:
    """Let a cluster do tasks; receipts are told as they come."""
    tasks, num_workers = task
    ray = ray_library()
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        if address:
            quiet.pop("include_dashboard")
            ray.init(address=address, **quiet)
        else:
            count = num_workers or num_cores()
            # One for Ray Data itself.
            ray.init(num_cpus=count + 1, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise VqkitError(f"cannot reach the Ray cluster {address}: {error}") from error
    try:
        count, gpus = _check_room(ray.cluster_resources(), num_workers, tasks[0].device)
        _work(ray, tasks, min(count, len(tasks)), gpus, tell)
    except ray.exceptions.RayError as error:
        raise VqkitError(f"Ray stopped: {_short(error)}; go on with --resume") from error
    finally:
        ray.shutdown()


def _check_room(
    resources: dict[str, float], num_workers: int | None, device: str
) -> tuple[int, int]:
    """Workers, and GPUs of each. VqkitError where workers would take all CPUs of the cluster: Ray
    Data then waits forever for one to read with, and says nothing (ray #44687).
    """
    cpus = int(resources.get("CPU", 0))
    has_gpus = bool(resources.get("GPU", 0)) and device != "cpu"
    most = cpus - 1
    if has_gpus:
        most = min(most, int(resources["GPU"]))
    count = num_workers or most
    if count > most or most < 1:
        raise VqkitError(
            f"this Ray cluster has {cpus} CPUs and {int(resources.get('GPU', 0))} GPUs, which are "
            f"enough for {max(0, most)} workers, as one CPU stays with Ray Data: ask for fewer "
            "--workers, or add nodes"
        )
    return count, int(has_gpus)


def _work(
    ray: Any, tasks: Sequence[Task], count: int, gpus: int, tell: Callable[[Any], None]
) -> None:
    # The command has a bar and sentences of its own.
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    rows = [
        {"number": number, "task": json.dumps(asdict(task))} for number, task in enumerate(tasks)
    ]
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        RayWorker,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in found.iter_rows():
        if row["wrong"]:
            raise VqkitError(str(row["wrong"]))
        fields = json.loads(row["receipt"])
        skipped = tuple((name, reason) for name, reason in fields["skipped"])
        tell((int(row["number"]), Receipt(**{**fields, "skipped": skipped})))


class RayWorker:
    """An actor of Ray Data: shards in, receipts out. A user's mistake comes back as a sentence."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        from .tokenize import Task, work

        fields = json.loads(str(batch["task"][0]))
        shard = fields["shard"]
        shard["paths"] = tuple(shard["paths"])
        task = Task(**{**fields, "shard": SourceShard(**shard)})
        receipt = wrong = ""
        try:
            receipt = json.dumps(asdict(work(task, 0, lambda share: None)))
        except VqkitError as error:
            wrong = str(error)
        except Exception as error:
            wrong = f"a worker failed at {task}: {type(error).__name__}: {error}"
        return {
            "number": batch["number"],
            "receipt": np.array([receipt]),
            "wrong": np.array([wrong]),
        }


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__
