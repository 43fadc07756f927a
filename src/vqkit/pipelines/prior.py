"""A whole run of a prior: from a model and its files to prior.safetensors, figures and images."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..apps.evaluate import open_for
from ..apps.evaluate_prior import evaluate_prior, nearness
from ..apps.generate import generate
from ..artifact.hub import own_folder
from ..artifact.model import Model
from ..artifact.store import PRIOR_FILE, load_artifact, save_prior
from ..config.loading import dump, load, recipe_names
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..prior.network import PriorNetwork
from ..prior.prior import Prior, layout_of
from ..report.card import add_prior_to_card
from ..report.prior_page import write_prior_report
from ..report.prior_verdict import derived_figures, judge_prior
from ..report.sheets import write_prior_images
from ..report.summary import PriorSummary
from ..settings import PriorConfig
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import resumed_config
from ..training.engine import check_installed
from ..training.loop import Finished, fit
from ..training.progress import Display
from ..training.tasks.prior import PriorTask
from .choosing import with_batch_that_fits
from .plan import OPENING, REPORT_SECONDS, Part, Plan, ending_minutes
from .preview import NEW_PRIOR_FOLDER, drawing_of, in_few_steps, prior_work
from .preview import PRIOR_FOLDER as FOLDER
from .session import (
    REPORT_FILE,
    is_main,
    locked,
    resumed_settings,
    write_recipe,
)

# Samples of a report: as many as that and, of items with many codes, as few as this.
NUM_SAMPLES = 64
FEW_SAMPLES = 8
# Codes of them all, which are drawn one after another.
CODES_DRAWN = 1 << 16
TRAINING = "train the prior"
REPORT = "measure, draw samples and write the report"


def train_prior(
    artifact: str | Path,
    source: str | Path,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    replace_prior: bool = False,
    minutes: float | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Model | None:
    """Train a prior on the codes of `source` and add prior.safetensors to the folder `artifact`.

    recipe: a name ('vqkit recipes' lists them) or a YAML file; None = the one named like the
    built-in set, else 'prior'. overrides: 'network.width=128' and the like. resume: go on from the
    checkpoint in artifact/prior, or in artifact/prior-new. replace_prior: where there is a prior,
    train another in artifact/prior-new; once it is complete, prior and report of before are gone.
    minutes, display, started: as in `train`. Returns the model with its prior; None on ranks other
    than the first. Errors: VqkitError for whatever a user can mend; TrainingDiverged.
    """
    check_installed()
    if started is None:
        started = time.monotonic()
    folder = own_folder(artifact)
    overrides = list(overrides)
    model = Model(load_artifact(folder))
    with locked(folder, display):
        work = prior_work(folder)
        if not resume:
            work = _new_work(folder, work, replace_prior)
        chosen = _choose_recipe(source, recipe)
        notes: list[str] = []
        if resume:
            config = resumed_settings(PriorConfig, work, recipe, overrides)
        else:
            config = load(chosen, overrides, PriorConfig)
            length = layout_of(model.network, config.network.order).length
            config, overrides, notes = with_batch_that_fits(config, length, chosen, overrides)
        parts = [
            Part(OPENING, 0.02),
            Part(TRAINING, 0.85, f"{config.train.steps} steps at most"),
            Part(REPORT, 0.15, seconds=REPORT_SECONDS),
        ]
        with Plan(parts, display if is_main() else None, minutes, started) as plan:
            data = open_for(model, source, "train", plan.told(OPENING))
            task = PriorTask(model.artifact, data, config)
            for note in notes:
                plan.display.message(note)
            write_recipe(work, config)
            plan.announce()
            finished = fit(task, work, plan.stage(TRAINING), plan.deadline(TRAINING))
            if finished is None:
                return None
            assert isinstance(finished.model, PriorNetwork)
            prior = Prior(config, finished.model, task.labels.classes)
            command = ["vqkit", "train-prior", str(artifact), str(source), "--recipe"]
            if resume:
                command.append(str(folder / FOLDER / "recipe.yaml"))
            else:
                command += [str(chosen), *overrides]
            minutes = ending_minutes(minutes, finished, config.train)
            made = partial(_finish, model, prior, finished, data, work, plan)
            return made(shlex.join(command), minutes)


def _choose_recipe(source: str | Path, recipe: str | Path | None) -> str:
    """The recipe that was asked for, else the one named like the built-in set, else the default."""
    if recipe is not None:
        return str(recipe)
    if str(source) in recipe_names(PriorConfig):
        return str(source)
    return PriorConfig.default_recipe


def _new_work(folder: Path, work: Path, replace_prior: bool) -> Path:
    """Where a new prior is trained. work: of the one that was begun last. VqkitError."""
    if is_main() and resumed_config(work) is not None:
        raise VqkitError(
            f"{work} holds a run that stopped; add --resume to go on with it, or delete the folder"
        )
    if not (folder / PRIOR_FILE).exists() and not (folder / FOLDER / REPORT_FILE).exists():
        return folder / FOLDER
    if is_main() and not replace_prior:
        raise VqkitError(
            f"{folder} has a prior already; add --replace to train another, which takes its place "
            "once it is complete"
        )
    return folder / NEW_PRIOR_FOLDER


def _finish(
    model: Model,
    prior: Prior,
    finished: Finished,
    data: Dataset,
    work: Path,
    plan: Plan,
    command: str,
    minutes: float | None,
) -> Model:
    """From trained weights to a prior that is measured, shown and written.

    work: the folder of its training, inside of the artifact's.
    """
    folder = work.parent
    trained = replace(model.artifact, prior=prior)
    if work.name == FOLDER:
        # Before anything else can fail: it is what the time was spent on.
        save_prior(trained, folder)
    stage = plan.stage(REPORT)
    figures, quantiles = _measure(Model(trained, model.device), data, finished, stage)
    summary = _draw(Model(trained, model.device), data, finished, figures, command, stage)
    summary = replace(summary, minutes=minutes)
    write_prior_images(summary, work)
    write_prior_report(summary, work / REPORT_FILE)
    figures = figures | derived_figures(summary)
    verdict = judge_prior(summary)
    metrics = dict(figures)
    if not verdict.healthy:
        # Those who use the prior hear of it again.
        metrics["warning"] = verdict.sentence
    metrics["bits_quantiles"] = quantiles
    trained = replace(trained, prior=replace(prior, metrics=metrics))
    save_prior(trained, folder)
    if work.name != FOLDER:
        # Its checkpoint goes last, so that what is cut off here is done again by --resume.
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        work = work.rename(folder / FOLDER)
    add_prior_to_card(folder, figures)
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    stage.update(1.0, {})
    return Model(trained, model.device)


def _measure(
    model: Model, data: Dataset, finished: Finished, stage: Display
) -> tuple[dict[str, Any], list[float]]:
    """Figures of a split that was not trained on, if there is one.

    Quantiles of the bits that an item costs there.
    """
    split = next((name for name in ("test", "validation") if len(data.splits[name])), "train")
    stage.message(f"measuring on the {split} split and drawing samples ...")
    evaluation = evaluate_prior(model, data, split, lambda share: stage.update(0.3 * share, {}))
    quantiles = np.quantile(evaluation.bits_per_item, np.linspace(0, 1, 201)).round(2).tolist()
    return {**evaluation.metrics, **finished.figures, "content_id": model.content_id}, quantiles


def _draw(
    model: Model,
    data: Dataset,
    finished: Finished,
    figures: dict[str, Any],
    command: str,
    stage: Display,
) -> PriorSummary:
    """Samples, drawn in order and in few steps, and how near they are to the training items: what a
    report shows.
    """
    prior = model.wanted_prior()
    num = min(NUM_SAMPLES, max(FEW_SAMPLES, CODES_DRAWN // prior.layout.length))
    drawing = drawing_of(data, prior, num)

    def told(start: float, share: float) -> Callable[[float], None]:
        return lambda done: stage.update(start + share * done, {})

    samples = generate(model, num, drawing=drawing, progress=told(0.3, 0.3))
    in_steps = in_few_steps(drawing, prior)
    assert in_steps.steps is not None
    scattered = generate(model, num, drawing=in_steps, progress=told(0.6, 0.1))
    near = nearness(model, data, samples.values, told(0.7, 0.25))
    display = model.signal.display
    heard = partial(model.signal.media, data=model.artifact.data)
    return PriorSummary(
        title=Path(data.name).name,
        command=command,
        config_yaml=dump(prior.config),
        metrics=figures,
        history=finished.history,
        events=finished.events,
        samples=display(samples.values),
        scattered=display(scattered.values),
        num_steps=in_steps.steps,
        labels=[*drawing.classes, *drawing.prompts],
        nearest=display(near.nearest),
        distances=near.distances,
        reconstructed_distances=near.reconstructed_distances,
        held_out_distances=near.held_out_distances,
        item=model.signal.item,
        played=heard(samples.values),
        played_scattered=heard(scattered.values),
        played_nearest=heard(near.nearest),
        media_type=model.signal.media_type,
    )
