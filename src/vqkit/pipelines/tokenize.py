"""A source of samples -> a cache of their tokens (`tokens.cache`), shard by shard.

The unit of work is `tokenize_shard`: a shard of the source in, a file of the cache out, by the
model and the shard alone. Engines only say where it runs.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..apps.evaluate import open_for
from ..artifact.long_items import LongItem, open_item
from ..artifact.model import Model
from ..artifact.store import load_artifact
from ..artifact.streaming import EncodeStream, encoded
from ..data.shards import Entry, Skipped, SourceShard, find_shards, plain, read_shard
from ..errors import VqkitError
from ..files import remove_leftovers, write_whole
from ..machine import num_cores
from ..prior.prior import code_vectors
from ..tables import pyarrow
from ..tokens import cache
from ..tokens.cache import Cache, ModelInfo, Receipt, Sample, ShardWriter
from ..tokens.vocabulary import whole_number_type
from . import workers
from .session import locked

ENGINES = ("local", "ray")
PLAN_FORMAT = "vqkit token plan"
# Items of a set that make a shard: a sixteenth of them all, within these.
FEWEST_ITEMS = 32
MOST_ITEMS = 1000
# Codebooks of more codes are not written out.
MAX_VECTORS = 1 << 18
# Seconds between two remarks on how far a shard is.
TELL_EVERY = 1.0

Progress = Callable[[float], None]


def nothing(share: float) -> None:
    """What is told of progress where nobody asks."""


@dataclass(frozen=True)
class Task:
    """A shard to do, in plain values, as it travels to other machines: they see artifact, source
    and folder under the same paths.
    """

    artifact: str
    codes_id: str
    device: str
    source: str
    shard: SourceShard
    number: int
    folder: str
    fit: bool

    def __str__(self) -> str:
        return self.shard.name


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is, that share the shards of a source without talking."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise VqkitError(
                f"rank {self.rank} of {self.world} is none: ranks are numbered from 0 to "
                f"{self.world - 1}"
            )


@dataclass(frozen=True)
class Tokenized:
    """num_shards, num_done: of the source, and of those in the cache. cache: None while shards of
    other ranks are missing. num_skipped, skipped: samples that were left out this time, and the
    first of them with the reasons.
    """

    num_shards: int
    num_done: int
    cache: Cache | None
    num_skipped: int
    skipped: list[tuple[str, str]]


@dataclass
class _Skips:
    """Samples that are left out: how many, and the first of them with the reasons."""

    count: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)

    def add(self, count: int, named: Iterable[tuple[str, str]]) -> None:
        self.count += count
        self.named = [*self.named, *named][: cache.MOST_NAMED]


def tokenize(
    artifact: str | Path,
    source: str,
    out: str | Path,
    *,
    engine: str = "local",
    num_workers: int | None = None,
    resume: bool = False,
    device: str = "auto",
    fit: bool = False,
    ranks: Ranks | None = None,
    progress: Progress = nothing,
) -> Tokenized:
    """Write the tokens of all samples of `source` into the folder `out`.

    source: a folder, file, pattern or list of files (`data.shards.find_shards`), or a set that
    training takes. num_workers: processes; None = one a core, or one a GPU. resume: go on with a
    cache that was begun; shards that are there are kept. fit: bring every item to the extent of
    training as training does, so that all have one grid. progress: called with the share that is
    done.
    VqkitError for a source that changed, for another model than the cache was begun with, and for
    everything that a user can mend.
    """
    ranks = ranks or Ranks()
    pyarrow()
    if engine == "ray":
        from .ray_engine import ray_library

        ray_library()
    folder = Path(out)
    artifact = Path(artifact).resolve()
    model = Model(load_artifact(artifact), "cpu")
    info = model_info(model, artifact)
    shards = _shards(source, model)
    lock = locked(folder) if ranks.world == 1 else nullcontext()
    try:
        with lock:
            plan = _plan(info, source, shards, fit)
            _begin(folder, model, plan, info, resume=resume or ranks.world > 1)
            tasks = _left(folder, info, source, shards, device, ranks, fit)
            try:
                skips = _run(tasks, len(shards), engine, num_workers, progress)
            finally:
                # What workers were writing that were killed.
                remove_leftovers(folder)
            return _finished(folder, info, source, len(shards), skips)
    except OSError as error:
        raise _cannot_write(error, folder) from error


def model_info(model: Model, folder: Path) -> ModelInfo:
    """What tokens depend on of a model. VqkitError for one whose codes are none of a finite set."""
    quantizer = model.network.quantizer
    if not quantizer.is_discrete:
        raise VqkitError("a model without a quantizer has no codes to tokenize with")
    sizes = tuple(quantizer.codebook_sizes)
    try:
        whole_number_type(sizes)
    except ValueError as error:
        raise VqkitError(f"this model's codes cannot be kept: {error}") from error
    groups = [0] * len(sizes)
    for group, places in enumerate(quantizer.places()):
        for place in places:
            groups[place] = group
    name = model.signal.name
    return ModelInfo(model.artifact.codes_id, str(folder), name, sizes, tuple(groups))


# ------------------------------------------------------------------------------------ what is to do


def _shards(source: str, model: Model) -> list[SourceShard]:
    if source not in model.signal.sets:
        found = find_shards(source, model.signal.can_be)
        if found:
            return found
    data = open_for(model, source, "all")
    fingerprint = hashlib.sha256(json.dumps(data.fingerprint, sort_keys=True).encode()).hexdigest()
    size = min(MOST_ITEMS, max(FEWEST_ITEMS, len(data) // 16))
    shards = []
    for start in range(0, len(data), size):
        stop = min(len(data), start + size)
        name = f"{data.name}:{start} to {stop - 1}"
        shards.append(SourceShard("set", name, source, (), fingerprint, start, stop))
    return shards


def _plan(info: ModelInfo, source: str, shards: Sequence[SourceShard], fit: bool) -> dict[str, Any]:
    listed = [{"name": shard.name, "fingerprint": shard.fingerprint} for shard in shards]
    return {
        "format": PLAN_FORMAT,
        "version": cache.VERSION,
        "model": info.describe(),
        "source": source,
        "fit": fit,
        "shards": listed,
    }


def _begin(
    folder: Path, model: Model, plan: dict[str, Any], info: ModelInfo, *, resume: bool
) -> None:
    """Write the plan, or hold it against the one that is there. VqkitError where they differ."""
    path = folder / cache.PLAN
    if not path.exists():
        # Another rank, or a run that was killed, may have come as far.
        if folder.is_dir() and any(not _is_ours(one.name) for one in folder.iterdir()):
            raise VqkitError(f"{folder} is not empty; choose another --out")
        if sum(info.codebook_sizes) <= MAX_VECTORS:
            vectors = [one.float().numpy() for one in code_vectors(model.network)]
            cache.write_codebooks(folder / cache.CODEBOOKS, vectors)
        cache.write_json(path, plan)
        return
    if not resume:
        raise VqkitError(
            f"{folder} holds tokens already; add --resume to go on with them, or choose another "
            "--out"
        )
    _check_plan(folder, cache.read_json(path), plan, info)


def _is_ours(name: str) -> bool:
    return name in (cache.CODEBOOKS, cache.PLAN) or name.startswith(".")


def _check_plan(folder: Path, there: dict[str, Any], plan: dict[str, Any], info: ModelInfo) -> None:
    """VqkitError where the plan that is there is of another model, source or fit."""
    try:
        begun = ModelInfo.from_dict(there["model"])
        before, now = (
            [(str(one["name"]), str(one["fingerprint"])) for one in each["shards"]]
            for each in (there, plan)
        )
        is_fitted = bool(there["fit"])
    except (KeyError, TypeError, ValueError) as error:
        raise VqkitError(f"{folder / cache.PLAN} is damaged; start a new cache") from error
    if begun.codes_id != info.codes_id:
        raise VqkitError(
            f"{folder} was begun with model {begun.codes_id[:16]}, and {info.folder} is "
            f"{info.codes_id[:16]}: one cache holds tokens of one model, choose another --out"
        )
    if is_fitted != plan["fit"]:
        how = "with --fit" if is_fitted else "without --fit"
        raise VqkitError(f"{folder} was begun {how}: go on as it was begun")
    difference = _difference(before, now)
    if difference is not None:
        raise VqkitError(
            f"{difference} since {folder} was begun: --resume would mix tokens of both; bring the "
            "source back, or start a new cache"
        )


def _difference(before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> str | None:
    """The first of the shards, by name and fingerprint, that is gone, new or changed; None for
    none.
    """
    names_before = {name for name, _ in before}
    names_now = {name for name, _ in now}
    for old, new in itertools.zip_longest(before, now):
        if old == new:
            continue
        if old is not None and old[0] not in names_now:
            return f"{old[0]} is gone"
        if new is not None and new[0] not in names_before:
            return f"{new[0]} has come"
        if old is not None:
            return f"{old[0]} changed"
    return None


def _left(
    folder: Path,
    info: ModelInfo,
    source: str,
    shards: Sequence[SourceShard],
    device: str,
    ranks: Ranks,
    fit: bool,
) -> list[Task]:
    """The shards of this rank that are not there."""
    tasks = []
    for number in range(ranks.rank, len(shards), ranks.world):
        receipt = cache.read_receipt(folder, number)
        shard = shards[number]
        if receipt is None or receipt.fingerprint != shard.fingerprint:
            arguments = (info.folder, info.codes_id, device, source, shard, number)
            tasks.append(Task(*arguments, str(folder.resolve()), fit))
    return tasks


def _finished(
    folder: Path, info: ModelInfo, source: str, num_shards: int, skips: _Skips
) -> Tokenized:
    """Write the manifest, if no shard is missing. VqkitError where no sample could be used."""
    receipts = []
    for number in range(num_shards):
        receipt = cache.read_receipt(folder, number)
        if receipt is not None:
            receipts.append(receipt)
    if len(receipts) < num_shards:
        return Tokenized(num_shards, len(receipts), None, skips.count, skips.named)
    if not sum(receipt.num_samples for receipt in receipts):
        why = "there is none"
        if any(receipt.skipped for receipt in receipts):
            name, reason = next(one for receipt in receipts for one in receipt.skipped)
            why = f"{name}: {reason}"
        raise VqkitError(f"no sample of {source} can be used; {why}")
    cache.write_manifest(folder, info, source, receipts)
    whole = cache.open_cache(folder)
    return Tokenized(num_shards, num_shards, whole, skips.count, skips.named)


def _cannot_write(error: OSError, folder: Path) -> VqkitError:
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why += "; make room, and go on with --resume"
    return VqkitError(f"cannot write {error.filename or folder}: {why}")


# -------------------------------------------------------------------------------------- the engines


def _run(
    tasks: Sequence[Task],
    num_shards: int,
    engine: str,
    num_workers: int | None,
    progress: Progress,
) -> _Skips:
    """Do the tasks; what was left out."""
    skips = _Skips()
    shares = dict.fromkeys(range(len(tasks)), 0.0)
    before = num_shards - len(tasks)

    def tell(task: int, share: float) -> None:
        shares[task] = share
        progress((before + sum(shares.values())) / num_shards)

    def done(task: int, receipt: Receipt) -> None:
        skips.add(receipt.num_skipped, receipt.skipped)
        tell(task, 1.0)

    if not tasks:
        return skips
    if engine == "ray":
        from .ray_engine import run_on_ray

        run_on_ray(tasks, num_workers, done)
    else:
        count = num_workers or _num_workers(tasks[0].device)
        if count == 1 or len(tasks) == 1:
            for number, task in enumerate(tasks):
                done(number, work(task, 0, functools.partial(tell, number)))
        else:
            workers.run(work, tasks, count, done, tell)
    return skips


def _num_workers(device: str) -> int:
    """A worker a core or a GPU, shared out among the ranks of this machine."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
    else:
        count = num_cores()
    return max(1, count // _local_ranks()[1])


def _local_ranks() -> tuple[int, int]:
    """Which of the ranks of this machine this is, and how many there are, as torchrun says it."""
    try:
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        return rank, max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    except ValueError:
        return 0, 1


def work(task: Task, number: int, tell: Progress) -> Receipt:
    """A shard on a worker of that number; several share the GPUs of a machine."""
    device = task.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        rank, ranks = _local_ranks()
        device = f"cuda:{(rank + ranks * number) % torch.cuda.device_count()}"
    before = torch.get_num_threads()
    # Sums of floats differ between one thread and two.
    torch.set_num_threads(1)
    try:
        return tokenize_shard(task, device, tell)
    except OSError as error:
        raise _cannot_write(error, Path(task.folder)) from error
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------------------- one shard of it


def tokenize_shard(task: Task, device: str, tell: Progress = nothing) -> Receipt:
    """The tokens of a shard as a file of the cache, and then its receipt: the same bytes whoever
    does it, beside what, and how often.

    VqkitError for a model that is not the one of the plan. OSError, after which nothing is left.
    """
    model = _model(task.artifact, device)
    info = model_info(model, Path(task.artifact))
    if info.codes_id != task.codes_id:
        raise VqkitError(f"{task.artifact} was replaced by another model meanwhile")
    folder = Path(task.folder)
    path = folder / cache.shard_file(task.number)
    skips = _Skips()
    counts = (0, 0)

    def write(temporary: Path) -> None:
        nonlocal counts
        writer = ShardWriter(temporary, info)
        told = time.monotonic()
        try:
            for sample in _samples(task, model):
                if isinstance(sample, Skipped):
                    skips.add(1, [(sample.name, sample.reason)])
                    continue
                found, share = sample
                writer.add(found)
                if time.monotonic() - told > TELL_EVERY:
                    tell(share)
                    told = time.monotonic()
            writer.close()
        except BaseException:
            writer.discard()
            raise
        counts = (writer.num_samples, writer.num_codes)

    write_whole(path, write)
    receipt = Receipt(
        info.codes_id,
        task.shard.name,
        task.shard.fingerprint,
        *counts,
        skips.count,
        tuple(skips.named),
        path.stat().st_size,
        cache.sha256_of(path),
    )
    cache.write_receipt(folder, task.number, receipt)
    return receipt


@functools.lru_cache(maxsize=1)
def _model(artifact: str, device: str) -> Model:
    return Model(load_artifact(artifact), device)


def _samples(task: Task, model: Model) -> Iterator[tuple[Sample, float] | Skipped]:
    """The samples of a shard with the share of it that is done, and what cannot be used."""
    if task.shard.kind == "set":
        yield from _of_set(task, model)
        return
    for found in read_shard(task.shard, model.signal.can_be):
        if isinstance(found, Skipped):
            yield found
            continue
        try:
            codes, extent = _codes(model, _item(model, found, task.fit))
        except VqkitError as error:
            reason = str(error)
            if isinstance(found.content, Path):
                # The name is said beside it.
                reason = reason.removeprefix(f"cannot read {found.content}: ")
            yield Skipped(found.id, reason)
            continue
        sample = Sample(found.id, codes.numpy(), extent, found.label, found.texts)
        yield sample, found.done


def _item(model: Model, entry: Entry, fit: bool) -> Tensor | LongItem:
    signal, data, settings = model.signal, model.data, model.config.data
    if not fit and not isinstance(entry.content, bytes):
        return open_item(model.artifact, entry.content)
    if isinstance(entry.content, bytes):
        values = signal.read_content(entry.content, data, settings)
    else:
        values = signal.read(entry.content, data, settings)
    return signal.fitted(values, data, settings, model.shape) if fit else values


def _codes(model: Model, item: Tensor | LongItem) -> tuple[Tensor, tuple[int, ...]]:
    """The codes (Q, *grid) of an item by itself, and its extent."""
    if isinstance(item, Tensor):
        return model.tokenizer.encode_alone(item[None])[0], tuple(item.shape[1:])
    length = 0

    def counted() -> Iterator[Tensor]:
        nonlocal length
        for piece in item.pieces():
            length += piece.shape[1]
            yield piece

    codes = torch.cat(list(encoded(EncodeStream(model.tokenizer), counted())), 1)
    return codes, (length,)


def _of_set(task: Task, model: Model) -> Iterator[tuple[Sample, float] | Skipped]:
    shard = task.shard
    data = _opened(task.artifact, model, task.source)
    for index in range(shard.start, shard.stop):
        name = plain(str(data.names[index]))
        try:
            batch = data.read([index])
        except VqkitError as error:
            yield Skipped(name, str(error))
            continue
        values = batch.values[0]
        if batch.mask is not None and batch.mask.dim() == 2:
            values = values[:, batch.mask[0]]
        codes, extent = _codes(model, values)
        label = data.groups[index] if data.groups else None
        texts = {"caption": data.captions[index]} if data.captions else {}
        share = (index + 1 - shard.start) / (shard.stop - shard.start)
        yield Sample(name, codes.numpy(), extent, label, texts), share


# The set that a process opened last, by artifact and source.
_sets: dict[tuple[str, str], Any] = {}


def _opened(artifact: str, model: Model, source: str) -> Any:
    if (artifact, source) not in _sets:
        _sets.clear()
        _sets[artifact, source] = open_for(model, source, "all")
    return _sets[artifact, source]
