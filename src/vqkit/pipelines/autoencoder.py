"""A whole run of an autoencoder: from files to a folder with weights, coders, figures, card and
report.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..apps.evaluate import Evaluation, Examples, evaluate
from ..apps.peers import Beside, beside_peers
from ..artifact.model import Model
from ..artifact.record import AdversarialStage, Artifact
from ..artifact.store import save_artifact, save_beside, save_metrics
from ..config.loading import dump
from ..model.autoencoder import Autoencoder
from ..report.card import write_card
from ..report.page import write_report
from ..report.summary import Ranked, RunSummary
from ..report.verdict import judge
from ..settings import Config
from ..signals.registry import signal_of
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.engine import check_installed
from ..training.guard import SLICE, SLICES
from ..training.loop import Finished, fit
from ..training.progress import Display
from ..training.tasks.autoencoder import AutoencoderTask
from .choosing import Chosen, choose_settings
from .coders import coder_parts, fit_coders
from .licence import check_licence
from .plan import OPENING, REPORT_SECONDS, Part, Plan, ending_minutes
from .session import (
    RECIPE_FILE,
    REPORT_FILE,
    begun,
    check_new,
    check_unlocked,
    is_main,
    locked,
    recipe_remarks,
    resumed_settings,
)

TRAINING = "train the autoencoder"
REPORT = "measure and write the report"


def train(
    source: str | Path,
    out: str | Path,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    minutes: float | None = None,
    display: Display | None = None,
    started: float | None = None,
    licence: str | None = None,
) -> Model | None:
    """Train on `source` (a folder, a file or a built-in set) and fill `out` with an artifact, a
    card and a report.

    recipe: a name or a YAML file; None = what a look at the source speaks for, which is said.
    overrides: 'train.lr=1e-3' and the like. resume: go on from the checkpoint in `out`. minutes: of
    the whole call, coders and report included, counted from `started` (of time.monotonic(); None =
    now). display: shows progress; None = silent. licence: under which others may use the weights,
    an identifier as apache-2.0, for artifact and card. Returns the model, its figures in
    `metrics`; None on ranks other than the first.
    Errors: VqkitError for whatever a user can mend; TrainingDiverged.
    """
    check_installed()
    check_licence(licence)
    started = time.monotonic() if started is None else started
    folder = Path(out)
    overrides = list(overrides)
    check_unlocked(folder)
    if resume:
        waiting = resumed_settings(Config, folder, recipe, overrides)
        chosen = Chosen(waiting, str(folder / RECIPE_FILE), recipe_remarks(folder))
    else:
        check_new(folder)
        chosen = choose_settings(source, recipe, overrides, minutes)
    config = chosen.config
    signal = signal_of(config.data)
    with Plan(_parts(config), display if is_main() else None, minutes, started) as plan:
        data = signal.open(source, config.data, config.seed, progress=plan.told(OPENING))
        config = config.model_copy(update={"data": signal.settled(config.data, data)})
        with locked(folder, display):
            if not resume:
                check_new(folder)
            for note in [*chosen.lines, *data.remarks()]:
                plan.display.message(note)
            plan.announce()
            with begun(folder, config, chosen.lines):
                task = AutoencoderTask(data, config, signal)
                finished = fit(task, folder, plan.stage(TRAINING), plan.deadline(TRAINING))
            if finished is None:
                return None
            command = ["vqkit", "train", str(source), "--out", str(out)]
            if chosen.lines or resume:
                command += ["--recipe", str(folder / RECIPE_FILE)]
            else:
                command += ["--recipe", chosen.recipe, *overrides]
            if licence is not None:
                command += ["--licence", licence]
            origin = Origin(
                shlex.join(command), chosen.lines, ending_minutes(minutes, finished, config.train)
            )
            assert isinstance(finished.model, Autoencoder)
            artifact = Artifact(config, finished.model, data.describe(), licence=licence)
            return _finish(finished, artifact, data, folder, plan, origin)


def _parts(config: Config) -> list[Part]:
    steps = config.coder.steps
    parts = [Part(OPENING, 0.02), Part(TRAINING, 0.75, f"{config.train.steps} steps at most")]
    return [*parts, *coder_parts(steps), Part(REPORT, 0.04, seconds=REPORT_SECONDS)]


class Origin(NamedTuple):
    """What the report says of a run: the command, what was chosen from the data and why, and the
    minutes that the command had, where these ended training.
    """

    command: str
    choice: tuple[str, ...] = ()
    minutes: float | None = None


def _finish(
    finished: Finished,
    artifact: Artifact,
    data: Any,
    folder: Path,
    plan: Plan,
    origin: Origin,
) -> Model:
    """From trained weights to a folder that is complete."""
    # Before anything else can fail: it is what the time was spent on.
    artifact = save_trained(artifact, finished, folder)
    # Of a trial of a few steps one does not expect minutes of fitting.
    steps = min(artifact.config.coder.steps, finished.figures["step"])
    artifact = fit_coders(Model(artifact), data, steps, folder, plan)
    return report_on(finished, artifact, data, folder, plan, origin)


def save_trained(artifact: Artifact, finished: Finished, folder: Path) -> Artifact:
    """Write a trained model, and beside it the weights of an adversarial stage that are not in use.

    VqkitError.
    """
    stage = finished.figures.get("adversary")
    if stage is None or not stage["ended_at"]:
        save_artifact(artifact, folder)
        return artifact
    beside = None
    if finished.beside is not None:
        assert isinstance(finished.beside, Autoencoder)
        other = "before" if stage["in_use"] == "after" else "after"
        beside = f"model-{other}.safetensors"
        # Where codes were frozen, files of either are files of both.
        codes_of = artifact.codes_id if has_equal_codes(artifact, finished.beside) else None
        others = replace(artifact, network=finished.beside, codes_of=codes_of)
        if others.content_id == codes_of:
            others = replace(others, codes_of=None)
        save_beside(others, folder / beside)
    record = AdversarialStage(stage["in_use"], stage["began_at"], stage["ended_at"], beside)
    artifact = replace(artifact, stage=record)
    save_artifact(artifact, folder)
    return artifact


def has_equal_codes(artifact: Artifact, network: Autoencoder) -> bool:
    """Whether what makes codes, and what they stand for, is the same in another network, to the
    bit.
    """
    others = network.codes_state()
    mine = artifact.network.codes_state()
    return all(torch.equal(value, others[name]) for name, value in mine.items())


def report_on(
    finished: Finished, artifact: Artifact, data: Any, folder: Path, plan: Plan, origin: Origin
) -> Model:
    """Measure a saved model, write its figures, card and report, and drop the checkpoints."""
    model = Model(artifact)
    stage = plan.stage(REPORT)
    stage.message("measuring and writing the report ...")
    split = next((name for name in ("test", "validation") if len(data.splits[name])), "train")
    evaluation = evaluate(model, data, split, lambda share: stage.update(0.5 * share, {}))
    beside = beside_peers(model, data, split, lambda share: stage.update(0.5 + 0.3 * share, {}))
    figures = {**evaluation.metrics, **finished.figures, "content_id": artifact.content_id}
    cut_from = artifact.data.get("cut_from")
    if cut_from:
        figures["cut_from"] = cut_from[split]
    artifact = replace(artifact, metrics={**figures, **artifact.metrics})
    save_metrics(artifact, folder)
    shown = replace(artifact, metrics={**artifact.metrics, "latency": model.latency})
    summary = _summary(finished, evaluation, beside, shown, data, origin)
    write_card(summary, folder)
    write_report(summary, folder / REPORT_FILE)
    verdict = judge(summary)
    stage.message(f"{verdict.word}: {verdict.sentence}")
    for finding in verdict.findings:
        stage.message(f"  {finding.text} {finding.advice}".rstrip())
    stage.update(1.0, {})
    # The artifact is complete: nothing is left to resume.
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Model(artifact, model.device)


def _summary(
    finished: Finished,
    evaluation: Evaluation,
    beside: list[Beside],
    artifact: Artifact,
    data: Any,
    origin: Origin,
) -> RunSummary:
    signal = artifact.signal
    rate, _ = signal.rate_per(artifact.shape.extent, artifact.data)

    def shown(examples: Examples) -> Ranked:
        pairs = (examples.originals, examples.reconstructions)
        return Ranked(
            examples.names,
            examples.psnr,
            signal.display(examples.originals),
            signal.display(examples.reconstructions),
            signal.passages(*pairs),
        )

    others = {"worst": evaluation.worst, "best": evaluation.best, "denoised": evaluation.denoised}
    ranked = {name: shown(examples) for name, examples in others.items() if examples}
    gallery = shown(evaluation.gallery)
    pairs = (evaluation.gallery.originals, evaluation.gallery.reconstructions)
    played = zip(*(signal.media(values, artifact.data) for values in pairs), strict=True)
    return RunSummary(
        title=Path(data.name).name,
        licence=artifact.licence,
        command=origin.command,
        choice=origin.choice,
        minutes=origin.minutes,
        config_yaml=dump(artifact.config),
        metrics=artifact.metrics,
        history=finished.history,
        events=finished.events,
        data=data.describe(),
        code_counts=evaluation.code_counts,
        originals=gallery.originals,
        reconstructions=gallery.reconstructions,
        names=gallery.names,
        item=signal.item,
        quality=signal.quality_in_words,
        quality_unit=signal.quality_unit,
        read=gallery.read,
        played=list(played),
        media_type=signal.media_type,
        beside=[(one.name, one.is_ours, {rate: one.rate, **one.measures}) for one in beside],
        psnr_per_image=evaluation.psnr_per_item,
        is_log_loss=artifact.config.losses.distortion == "log_mse",
        weighs_bits=_weighs_bits(artifact.config.model.quantizer.model_dump()),
        window_images=min(
            SLICE * SLICES * artifact.config.train.batch_size, len(data.splits["train"])
        ),
        **ranked,
    )


def _weighs_bits(settings: Any) -> bool:
    """Whether a quantizer has a rate, or any that it is made of."""
    return isinstance(settings, dict) and (
        bool(settings.get("rate")) or any(map(_weighs_bits, settings.values()))
    )
