"""A whole run of a prior: from an artifact and its files to prior.safetensors, figures and pictures."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import config as settings
from .apps.evaluate import open_for
from .apps.evaluate_prior import evaluate_prior, nearness
from .apps.generate import generate
from .artifact import PRIOR_FILE, Artifact
from .config import PriorConfig
from .data import ImageData
from .errors import VqkitError
from .files import write_text
from .model.prior import Drawing, Prior
from .report import PriorSummary, add_prior_to_card, derived_figures, write_prior_pictures, write_prior_report
from .training import PriorResult
from .training import train_prior as fit
from .training.checkpoint import FOLDER as CHECKPOINTS
from .training.checkpoint import resumed_config
from .training.progress import Display

FOLDER = "prior"
"""folder inside of the artifact with the log, checkpoints and pictures of the prior's training"""
DEFAULT_RECIPE = "prior"
NUM_SAMPLES = 64
NUM_STEPS = 12
"""steps of the scattered samples"""


def train_prior(
    artifact: str | Path,
    source: str | Path,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    display: Display | None = None,
) -> Artifact | None:
    """Train a prior on the codes of `source` and add prior.safetensors to the folder `artifact`.

    recipe: a name ('vqkit recipes' lists them) or a YAML file; None = the one named like the built-in set, else
    'prior'. overrides: 'network.width=128' and the like. resume: go on from the checkpoint in artifact/prior.
    Returns the artifact with its prior; None on ranks other than the first.
    Errors: VqkitError for anything a user can mend; TrainingDiverged.
    """
    folder, work, overrides = Path(artifact), Path(artifact) / FOLDER, list(overrides)
    model = Artifact.load(folder)
    config = _settings(folder, source, recipe, overrides, resume)
    data = open_for(model, source, "train")
    if _is_main():
        write_text(work / "recipe.yaml", settings.dump(config))
    result = fit(model, data, config, work, display)
    if result is None:
        return None
    trained = replace(model, prior=result.prior)
    trained.save_prior(folder)  # before anything else can fail: it is what the time was spent on
    figures, quantiles = _measure(trained, data, result, display)
    summary = _draw(trained, data, result, figures, _command(artifact, source, recipe, overrides))
    write_prior_pictures(summary, work)
    write_prior_report(summary, work / "report.html")
    figures = figures | derived_figures(summary)
    trained = replace(model, prior=replace(result.prior, metrics={**figures, "bits_quantiles": quantiles}))
    trained.save_prior(folder)
    add_prior_to_card(folder, figures)
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    return trained


def _settings(folder: Path, source: str | Path, recipe: Any, overrides: list[str], resume: bool) -> PriorConfig:
    """Settings of a new run, or of the one that is waiting in the folder."""
    work = folder / FOLDER
    waiting = resumed_config(work)
    if resume:
        if waiting is None:
            done = (work / "report.html").exists()
            raise VqkitError(f"the prior of {folder} " + ("is finished" if done else "has no checkpoint to resume"))
        if recipe is not None or overrides:
            raise VqkitError("--resume goes on with the run's own settings; leave --recipe and key=value out")
        return settings.from_tree(waiting, str(work), PriorConfig)
    if _is_main() and waiting is not None:
        raise VqkitError(f"{work} holds a run that stopped; add --resume to go on with it, or delete the folder")
    if _is_main() and ((folder / PRIOR_FILE).exists() or work.exists()):
        raise VqkitError(f"{folder} has a prior already; to train another, move {PRIOR_FILE} and {FOLDER}/ away first")
    return settings.load(_flag(source, recipe)[1], overrides, PriorConfig)


def _command(artifact: str | Path, source: str | Path, recipe: Any, overrides: list[str]) -> str:
    return shlex.join(["vqkit", "train-prior", str(artifact), str(source), *_flag(source, recipe), *overrides])


def _flag(source: str | Path, recipe: str | Path | None) -> list[str]:
    named_like_source = str(source) if str(source) in settings.recipe_names(PriorConfig) else DEFAULT_RECIPE
    return ["--recipe", str(recipe or named_like_source)]


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _measure(
    trained: Artifact, data: ImageData, result: PriorResult, display: Display | None
) -> tuple[dict[str, Any], list[float]]:
    """Figures of a split that was not trained on, if there is one; quantiles of the bits that an image costs there."""
    split = next((name for name in ("test", "validation") if len(data.splits[name])), "train")
    if display:
        display.message(f"measuring on the {split} split and drawing samples ...")
    evaluation = evaluate_prior(trained, data, split)
    quantiles = np.quantile(evaluation.bits_per_image, np.linspace(0, 1, 201)).round(2).tolist()
    return {**evaluation.metrics, **result.figures, "content_id": trained.content_id}, quantiles


def _draw(
    trained: Artifact, data: ImageData, result: PriorResult, figures: dict[str, Any], command: str
) -> PriorSummary:
    """Samples, drawn in order and in few steps, and how near they are to the training images: what a report shows."""
    prior = trained.wanted_prior()
    labels = _labels(data, prior)
    drawing = Drawing(prompts=labels) if prior.has_captions else Drawing(classes=labels)
    samples = generate(trained, NUM_SAMPLES, drawing=drawing).images
    num_steps = max(len(prior.layout.groups), min(NUM_STEPS, prior.layout.length))
    scattered = generate(trained, NUM_SAMPLES, drawing=replace(drawing, steps=num_steps)).images
    near = nearness(trained, data, samples)
    return PriorSummary(
        title=Path(data.name).name,
        command=command,
        config_yaml=settings.dump(prior.config),
        metrics=figures,
        history=result.history,
        events=result.events,
        samples=samples,
        scattered=scattered,
        num_steps=num_steps,
        labels=labels,
        nearest=near.nearest,
        distances=near.distances,
        reconstructed_distances=near.reconstructed_distances,
        held_out_distances=near.held_out_distances,
    )


def _labels(data: ImageData, prior: Prior) -> list[str]:
    """What the samples are told: all classes in turn, or captions of held-out images."""
    if prior.classes:
        return [prior.classes[index % len(prior.classes)] for index in range(NUM_SAMPLES)]
    if prior.has_captions and data.captions:
        split = next(name for name in ("test", "validation", "train") if len(data.splits[name]))
        indices = data.splits[split][:NUM_SAMPLES]
        return [data.captions[int(indices[index % len(indices)])] for index in range(NUM_SAMPLES)]
    return []
