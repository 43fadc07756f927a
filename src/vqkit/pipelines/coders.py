"""The coders of a model's files, fitted to its codes and values, and the rates that they offer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..apps.evaluate import open_for
from ..artifact.codec import new_scalar_coder
from ..artifact.coder_files import save_coders
from ..artifact.hub import own_folder
from ..artifact.model import Model
from ..artifact.operating_points import Rate, gains, measure, offered
from ..artifact.record import Artifact
from ..artifact.store import load_artifact, save_metrics
from ..coding import BytesCoder, ScalarCoder, TransformerCoder, gain_of
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..training.engine import check_installed
from ..training.loop import Finished, fit
from ..training.progress import Display
from ..training.tasks.code_coder import CodeCoderTask, CoderNetwork
from ..training.tasks.value_coder import ValueCoderTask, ValueTwin
from .plan import OPENING, Part, Plan
from .session import locked

CODES = "fit the coder of files"
VALUES = "fit the coder of lossless files"
# Of the time for the first coder, what its fit may take; measuring the rates needs the rest.
FIT_SHARE = 0.7
# Items, and codes of them, that rates are measured on at most.
NUM_RATED = 256
RATED_CODES = 1 << 12
# Codes that the coder of scalar codes learns from.
SCALAR_CODES = 1 << 23
# Bytes that the coder of bytes is measured on.
MEASURED_BYTES = 1 << 16


def train_coder(
    artifact: str | Path,
    source: str | Path,
    *,
    steps: int | None = None,
    force: bool = False,
    minutes: float | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Model:
    """Fit what compresses, to codes and values of `source`.

    steps: at least 1; None = as the artifact's settings say. force: although there is a coder,
    which is kept beside the new one, as files that it wrote are read with it. minutes: of the whole
    call. Errors: VqkitError.
    """
    check_installed()
    folder = own_folder(artifact)
    with locked(folder, display):
        model = Model(load_artifact(folder))
        steps = model.config.coder.steps if steps is None else steps
        if steps < 1:
            raise VqkitError(
                f"a coder takes at least 1 step, not {steps}; set another number with --steps"
            )
        coders = model.artifact.coders
        if not force and (coders.codes or coders.values):
            raise VqkitError(
                f"{folder} has a coder; add --force for a new one, which need not be better"
            )
        with Plan([Part(OPENING, 0.02), *coder_parts(steps)], display, minutes, started) as plan:
            data = open_for(model, source, "train", plan.told(OPENING))
            plan.announce()
            fitted = fit_coders(model, data, steps, folder, plan)
        if fitted is model.artifact:
            raise VqkitError("there is nothing to fit: no coder holds items and codes of this size")
        return Model(load_artifact(folder), model.device)


def coder_parts(steps: int) -> list[Part]:
    """The parts of a plan that fit coders; none for no steps."""
    if not steps:
        return []
    return [Part(CODES, 0.15, f"{steps} steps at most"), Part(VALUES, 0.08)]


def fit_coders(model: Model, data: Dataset, steps: int, folder: Path, plan: Plan) -> Artifact:
    """The artifact with coders fitted to codes and values and written, or as it is where there can
    be none.
    """
    artifact = model.artifact
    if not steps:
        return artifact
    codes, code_figures = _fit_codes(model, data, steps, folder, plan)
    values, value_figures = _fit_values(model, data, steps, folder, plan)
    if codes is None and values is None:
        return artifact
    coders = replace(
        artifact.coders,
        codes=codes or artifact.coders.codes,
        values=values or artifact.coders.values,
    )
    fitted = replace(
        artifact, coders=coders, metrics={**artifact.metrics, **code_figures, **value_figures}
    )
    if coders.codes is not None:
        split = "validation" if len(data.splits["validation"]) else "train"
        rates = measure_rates(Model(fitted, model.device), data, split, plan.deadline(CODES))
        shown = {name: {"bits": rate.bits, "psnr": rate.psnr} for name, rate in rates.items()}
        metrics = {**fitted.metrics, "rates": shown, "rates_split": split}
        fitted = replace(fitted, coders=replace(coders, rates=rates), metrics=metrics)
    save_coders(fitted, folder)
    save_metrics(fitted, folder)
    return fitted


def _fit_codes(
    model: Model, data: Dataset, steps: int, folder: Path, plan: Plan
) -> tuple[TransformerCoder | ScalarCoder | None, dict[str, float]]:
    stage = plan.stage(CODES)
    if model.network.quantizer.codebooks_per_section > 1:
        new = new_scalar_coder(model.network.quantizer)
        if new is None:
            stage.message("no coder of codes: they are too many for .vq files")
            return None, {}
        return _fit_scalar(new, model, data, plan.deadline(CODES)), {}
    why_not = CodeCoderTask.why_not(model.tokenizer)
    if why_not:
        if model.network.quantizer.is_discrete:
            stage.message(f"no coder of codes: {why_not}; files of codes will be larger")
        return None, {}
    deadline = plan.deadline(CODES)
    if deadline is not None:
        now = time.monotonic()
        deadline = now + FIT_SHARE * (deadline - now)
    task = CodeCoderTask(model.tokenizer, data, steps, deadline)
    finished = _finished(fit(task, folder / "coder", stage, deadline), folder / "coder")
    assert isinstance(finished.model, CoderNetwork)
    return finished.model.integers(), {"coder_bits_per_code": _best(finished, "bits_per_code")}


def _fit_scalar(
    new: ScalarCoder, model: Model, data: Dataset, deadline: float | None
) -> ScalarCoder | None:
    """The coder of scalar codes, which learns from items as it does from a file; None without
    items.
    """
    items: list[np.ndarray] = []
    num_codes = 0

    def in_time() -> bool:
        return deadline is None or time.monotonic() < deadline

    # Files are written at any of these, with one coder.
    factors = cycle(map(gain_of, gains(model.network.max_gain)))
    for batch, gain in zip(data.split("train", 16), factors, strict=False):
        if not in_time() or num_codes >= SCALAR_CODES:
            break
        codes = model.tokenizer.encode(batch.values, batch.mask, gain).numpy()
        items += [_real(one) for one in codes]
        num_codes += codes.size
    return new.fitted(items, in_time) if items else None


def _real(codes: np.ndarray) -> np.ndarray:
    """Codes (Q, *grid) without the padding, which lies behind what is real along every axis."""
    real = codes[0] >= 0
    for axis in range(real.ndim):
        others = tuple(other for other in range(real.ndim) if other != axis)
        count = int(real.any(others).sum())
        codes = codes.take(range(count), axis + 1)
    return codes


def _fit_values(
    model: Model, data: Dataset, steps: int, folder: Path, plan: Plan
) -> tuple[Any, dict[str, float]]:
    stage = plan.stage(VALUES)
    if model.signal.has_symbols:
        return _fit_bytes(model, data, stage, plan.deadline(VALUES))
    why_not = ValueCoderTask.why_not(model.tokenizer)
    if why_not:
        stage.message(f"no coder of lossless files: {why_not}; they will be larger")
        return None, {}
    task = ValueCoderTask(model.tokenizer, data, steps)
    work = folder / "lossless"
    finished = _finished(fit(task, work, stage, plan.deadline(VALUES)), work)
    assert isinstance(finished.model, ValueTwin)
    return finished.model.integers(), {"lossless_bits_per_value": _best(finished, "bits_per_value")}


def _fit_bytes(
    model: Model, data: Dataset, stage: Display, deadline: float | None
) -> tuple[BytesCoder, dict[str, float]]:
    """The coder of bytes, which learns from items as it does from a file, and bits of a byte of
    items that it has not seen.
    """

    def in_time() -> bool:
        return deadline is None or time.monotonic() < deadline

    texts = model.signal.symbols(data, "train")
    coder = BytesCoder.fitted(texts, in_time, lambda share: stage.update(share, {}))
    stage.message(f"the coder of lossless files: {len(coder.history)} bytes that files begin with")
    num_bytes = 0
    num_coded = 0
    for item in model.signal.symbols(data, "validation"):
        if num_bytes >= MEASURED_BYTES or not in_time():
            break
        part = np.frombuffer(item[:MEASURED_BYTES], np.uint8)
        num_bytes += len(part)
        num_coded += len(coder.encode(part[None, None])[0][0])
    if not num_bytes:
        return coder, {}
    return coder, {"lossless_bits_per_value": 8 * num_coded / num_bytes}


def _finished(finished: Finished | None, work: Path) -> Finished:
    """A fit on this process, whose checkpoints are no longer needed."""
    assert finished is not None
    shutil.rmtree(work, ignore_errors=True)
    return finished


def _best(finished: Finished, name: str) -> float:
    return min(row[name] for row in finished.history if row["split"] == "validation")


@torch.no_grad()
def measure_rates(
    model: Model, data: Dataset, split: str, deadline: float | None = None
) -> dict[str, Rate]:
    """Points between few bits and a good reconstruction, measured on items of a split.

    See operating_points.
    """
    codec = model.compressor.codec()
    extent = model.shape.extent
    coder = model.artifact.coders.codes
    count = max(1, min(NUM_RATED, RATED_CODES // math.prod(codec.grid(extent))))
    batch = next(data.split(split, count), None)
    if batch is None or coder is None:
        return {}
    if batch.mask is not None:
        # Items without padding, or where there are none, the longest with its padding.
        share = batch.mask.flatten(1).double().mean(1)
        batch = batch._replace(values=batch.values[share == share.max()], mask=None)

    def psnr_of(codes: np.ndarray, gain: int) -> float:
        values = model.compressor.values_of(replace(codec, gain=gain), codes, extent)
        measures = model.signal.measures(values, batch.values)
        return float(measures[model.signal.quality].mean())

    quantizer = model.artifact.network.quantizer
    latents = model.network.latents(model.tokenizer.standardise(batch.values)).cpu()
    in_time: Callable[[], bool] = lambda: deadline is None or time.monotonic() < deadline  # noqa: E731
    max_gain = model.network.max_gain
    return offered(
        measure(quantizer, coder, latents, psnr_of, codec.has_prefixes, max_gain, in_time)
    )
