"""Whole runs: from files to an artifact that is evaluated, documented and ready to use, and to its prior."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import config as settings
from .apps.evaluate import Evaluation, evaluate, open_for
from .artifact import Artifact
from .config import Config
from .data import ImageData, open_images, split_batches
from .errors import VqkitError
from .files import write_text
from .metrics import psnr
from .rates import measure, offered
from .report import Ranked, RunSummary, write_card, write_report
from .training import TrainingResult, fit_coder, fit_pixels
from .training import train as fit
from .training.checkpoint import FOLDER as CHECKPOINTS
from .training.checkpoint import resumed_config
from .training.health import SLICE, SLICES
from .training.progress import Display

DEFAULT_RECIPE = "images"
NUM_RATED, RATED_CODES = 256, 1 << 12
"""images, and codes of them, that rates are measured on at most"""


def train(
    source: str | Path,
    out: str | Path,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    display: Display | None = None,
) -> Artifact | None:
    """Train on `source` (a folder, a file or a built-in set) and fill `out` with an artifact, a card and a report.

    recipe: a name or a YAML file; None = the recipe named like the built-in set, else 'images'. overrides:
    'train.lr=1e-3' and the like. resume: go on from the checkpoint in `out`. display: shows progress; None = silent.
    Returns the artifact, its figures in `metrics`; None on ranks other than the first.
    Errors: VqkitError for anything a user can mend; TrainingDiverged.
    """
    folder, overrides = Path(out), list(overrides)
    config = _settings(folder, source, recipe, overrides, resume)
    data = open_images(source, config.data, config.seed)
    _prepare(folder, config)
    if display and _is_main():
        for note in (*data.notes, *data.range_in_words()):
            display.message(note)
        for bad in data.bad:
            display.message(f"skipped {bad.name}: {bad.reason}")
    result = fit(data, config, folder, display)
    if result is None:
        return None
    result.artifact.save(folder)  # before anything else can fail: it is what the time was spent on
    split = next((name for name in ("test", "validation") if len(data.splits[name])), "train")
    evaluation = evaluate(result.artifact, data, split)
    artifact = _finish(result, evaluation, folder)
    # of a trial of a few steps one does not expect minutes of fitting
    steps = min(config.coder.steps, artifact.metrics["step"])
    artifact = _with_coder(artifact, data, steps, folder, display)
    recipe = folder / "recipe.yaml" if resume else recipe
    command = shlex.join(["vqkit", "train", str(source), "--out", str(out), *_recipe_flag(source, recipe), *overrides])
    summary = _summary(result, evaluation, artifact, data, command)
    write_card(summary, folder)
    write_report(summary, folder / "report.html")
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # the artifact is whole: nothing is left to resume
    return artifact


def train_coder(
    artifact: str | Path,
    source: str | Path,
    *,
    steps: int | None = None,
    force: bool = False,
    display: Display | None = None,
) -> Artifact:
    """Fit what compresses, to codes and pixels of `source`.

    steps: at least 1; None = as the artifact's settings say. force: although there is a coder, which is kept beside the
    new one, as files that it wrote are read with it. Errors: VqkitError.
    """
    folder, model = Path(artifact), Artifact.load(artifact)
    steps = model.config.coder.steps if steps is None else steps
    if steps < 1:
        raise VqkitError(f"a coder takes at least 1 step, not {steps}; set another number with --steps")
    if not force and (model.coder or model.lossless):
        raise VqkitError(f"{folder} has a coder; add --force for a new one, which need not be better")
    fitted = _with_coder(model, open_for(model, source, "train"), steps, folder, display)
    if fitted is model:
        raise VqkitError("there is nothing to fit: no coder holds images and codes of this size")
    return Artifact.load(folder)  # with the coders that were replaced


def _with_coder(artifact: Artifact, data: ImageData, steps: int, folder: Path, display: Display | None) -> Artifact:
    """The artifact with coders fitted to codes and pixels and written, or as it is where there can be none."""
    codes, pixels = fit_coder(artifact, data, steps, display), fit_pixels(artifact, data, steps, display)
    if codes is None and pixels is None:
        return artifact
    coder, of_codes = codes or (artifact.coder, {})
    lossless, of_pixels = pixels or (artifact.lossless, {})
    figures: dict[str, Any] = {**of_codes, **of_pixels}
    if coder is not None:
        split = "validation" if len(data.splits["validation"]) else "train"
        figures |= {"rates": _rates(replace(artifact, coder=coder), data, split), "rates_split": split}
    fitted = replace(artifact, coder=coder, lossless=lossless, metrics={**artifact.metrics, **figures})
    fitted.save_coder(folder)
    fitted.save(folder)
    return fitted


@torch.no_grad()
def _rates(artifact: Artifact, data: ImageData, split: str) -> dict[str, dict[str, float]]:
    """Points between few bits and a good picture, measured on images of a split; see rates.py."""
    codec = artifact.codec()
    count = max(1, min(NUM_RATED, RATED_CODES // math.prod(codec.grid(artifact.size))))
    found = next(split_batches(data, split, count), None)
    if found is None or artifact.coder is None:
        return {}
    images = found[1]

    def psnr_of(codes: np.ndarray) -> float:
        shown = artifact.pixels_of(codec, codes, artifact.size)
        return float(psnr(torch.from_numpy(shown).permute(0, 3, 1, 2), images).mean())

    latents = artifact.model.latents(artifact.standardise(images))
    points = measure(artifact.model.quantizer, artifact.coder, latents, psnr_of, codec.has_prefixes)
    return {name: asdict(point) for name, point in offered(points).items()}


def _settings(folder: Path, source: str | Path, recipe: Any, overrides: list[str], resume: bool) -> Config:
    """Settings of a new run in an empty folder, or of the one that is waiting there."""
    waiting = resumed_config(folder)
    if resume:
        if waiting is None:
            done = (folder / "report.html").exists()  # the last that a run writes
            raise VqkitError(f"{folder} " + ("is finished" if done else "has no checkpoint") + ": nothing to resume")
        if recipe is not None or overrides:
            raise VqkitError("--resume goes on with the run's own settings; leave --recipe and key=value out")
        return settings.from_tree(waiting, where=str(folder / CHECKPOINTS))
    if folder.exists() and not folder.is_dir():
        raise VqkitError(f"{folder} is a file; choose another --out, a new or empty folder")
    if _is_main() and folder.exists() and any(folder.iterdir()):
        hint = "add --resume to go on with it, or " if waiting else ""
        raise VqkitError(f"{folder} is not empty; {hint}choose another --out")
    return load_settings(source, recipe, overrides)


def _prepare(folder: Path, config: Config) -> None:
    """Make the folder, late: a mistake before this point leaves nothing behind."""
    if _is_main():
        try:
            write_text(folder / "recipe.yaml", settings.dump(config))
        except OSError as error:
            raise VqkitError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error


def load_settings(source: str | Path, recipe: str | Path | None, overrides: Iterable[str]) -> Config:
    """Settings of `recipe` (default: the one named like the source, else 'images') with overrides."""
    return settings.load(_recipe_flag(source, recipe)[1], overrides)


def _recipe_flag(source: str | Path, recipe: str | Path | None) -> list[str]:
    named_like_source = str(source) if str(source) in settings.recipe_names() else DEFAULT_RECIPE
    return ["--recipe", str(recipe or named_like_source)]


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _finish(result: TrainingResult, evaluation: Evaluation, folder: Path) -> Artifact:
    trained = result.artifact
    figures = {**evaluation.metrics, **result.figures, "content_id": trained.content_id}
    artifact = Artifact(trained.config, trained.model, trained.data, figures)
    artifact.save(folder)
    return artifact


def _summary(
    result: TrainingResult, evaluation: Evaluation, artifact: Artifact, data: ImageData, command: str
) -> RunSummary:
    ranked = {
        name: Ranked(rows.names, rows.psnr, rows.originals, rows.reconstructions)
        for name, rows in (("worst", evaluation.worst), ("best", evaluation.best), ("denoised", evaluation.denoised))
        if rows
    }
    return RunSummary(
        title=Path(data.name).name,
        command=command,
        config_yaml=settings.dump(artifact.config),
        metrics=artifact.metrics,
        history=result.history,
        events=result.events,
        data=data.describe(),
        code_counts=evaluation.code_counts,
        originals=evaluation.gallery.originals,
        reconstructions=evaluation.gallery.reconstructions,
        names=evaluation.gallery.names,
        psnr_per_image=evaluation.psnr_per_image,
        is_log_loss=artifact.config.losses.distortion == "log_mse",
        weighs_bits=_weighs_bits(artifact.config.model.quantizer.model_dump()),
        window_images=min(SLICE * SLICES * artifact.config.train.batch_size, len(data.splits["train"])),
        **ranked,
    )


def _weighs_bits(settings: Any) -> bool:
    """Whether a quantizer has a rate, or any that it is made of."""
    return isinstance(settings, dict) and (bool(settings.get("rate")) or any(map(_weighs_bits, settings.values())))
