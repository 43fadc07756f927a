"""A decoder trained further, for sharper reconstructions, while every code stays as it is."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..artifact.coder_files import CODER_FILE, LOSSLESS_FILE, save_coders
from ..artifact.model import Model
from ..artifact.record import Artifact
from ..artifact.store import PRIOR_FILE, artifact_folder, load_artifact
from ..config.loading import with_overrides
from ..config.sections import DataSection, WeightConfig
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..files import write_whole
from ..model.autoencoder import Autoencoder
from ..settings import Config
from ..training.engine import check_installed
from ..training.loop import Finished, fit
from ..training.progress import Display
from ..training.tasks.autoencoder import AutoencoderTask
from .autoencoder import REPORT, TRAINING, Origin, has_equal_codes, report_on, save_trained
from .coders import measure_rates
from .plan import OPENING, REPORT_SECONDS, Part, Plan
from .session import (
    begun,
    check_new,
    check_unlocked,
    is_main,
    locked,
    resumed_settings,
)

# What a decoder is trained with that has been trained before: fewer steps, and smaller ones.
STEPS = 2000
LR_FACTOR = 0.3
PERCEPTUAL = 1.0
# Settings that decide what the codes, and the values of the decoder, mean. Of the data those may
# change that every signal has: splits, and where items are kept.
FIXED = ("seed", "model", "coder")
FIXED_LOSSES = ("distortion", "num_mixtures", "kl")
# How the names of files begin that serve every decoder of the same codes.
COPIED = tuple(Path(name).stem for name in (CODER_FILE, LOSSLESS_FILE, PRIOR_FILE))


def sharpen(
    artifact: str | Path,
    source: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    minutes: float | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Model | None:
    """Train the decoder of `artifact` on `source` with perceptual and adversarial terms, and fill
    `out` with a model that has the same codes, to the bit, and coders and prior of the old one.

    Files that either has compressed are read by both. overrides: of the artifact's settings, such
    as 'train.steps=500'. resume, minutes, display, started: as in `train`. Returns the model, None
    on ranks other than the first. Errors: VqkitError for whatever a user can mend;
    TrainingDiverged.
    """
    check_installed()
    started = time.monotonic() if started is None else started
    folder = Path(out)
    overrides = list(overrides)
    check_unlocked(folder)
    if not resume:
        check_new(folder)
    source_folder = artifact_folder(artifact)
    old = Model(load_artifact(source_folder))
    config = _settings(old, overrides, folder, resume)
    parts = [
        Part(OPENING, 0.02),
        Part(TRAINING, 0.9, f"{config.train.steps} steps at most"),
        Part(REPORT, 0.04, seconds=REPORT_SECONDS),
    ]
    with Plan(parts, display if is_main() else None, minutes, started) as plan:
        settings = old.signal.settings_of(config.data, old.shape)
        told = plan.told(OPENING)
        data = old.signal.open(source, settings, config.seed, old.data, progress=told)
        with locked(folder, display):
            if not resume:
                check_new(folder)
            plan.announce()
            weights = old.artifact.network.state_dict()
            with begun(folder, config):
                task = AutoencoderTask(data, config, old.signal, weights)
                task.fingerprint = {**task.fingerprint, "content_id": old.content_id}
                finished = fit(task, folder, plan.stage(TRAINING), plan.deadline(TRAINING))
            if finished is None:
                return None
            trained = _saved(finished, config, old, source_folder, folder)
            trained = _with_rates(trained, data, folder)
            command = ["vqkit", "sharpen", str(artifact), str(source), "--out", str(out)]
            command += overrides
            origin = Origin(shlex.join(command))
            return report_on(finished, trained, data, folder, plan, origin)


def _settings(old: Model, overrides: list[str], folder: Path, resume: bool) -> Config:
    """Settings of the run: of the artifact, with those of a shorter one and an adversary."""
    config = old.config
    if resume:
        return resumed_settings(Config, folder, None, overrides)
    adversary = config.adversary
    if not isinstance(adversary, old.signal.adversary):
        adversary = old.signal.adversary()
    losses = config.losses
    if not losses.perceptual.peak:
        losses = losses.model_copy(update={"perceptual": WeightConfig(peak=PERCEPTUAL)})
    train = config.train.model_copy(
        update={
            "steps": STEPS,
            "max_minutes": None,
            "patience": 0,
            "lr": LR_FACTOR * config.train.lr,
            "muon_lr": LR_FACTOR * config.train.muon_lr,
        }
    )
    changed = config.model_copy(
        update={
            "adversary": adversary.model_copy(update={"train": "decoder", "start": 0.0}),
            "losses": losses,
            "train": train,
        }
    )
    changed = with_overrides(changed, overrides)
    for name in FIXED:
        if getattr(changed, name) != getattr(config, name):
            raise VqkitError(
                f"vqkit sharpen keeps {name} as the model has it; change losses, adversary and "
                "train"
            )
    free = {name: getattr(config.data, name) for name in DataSection.model_fields}
    if changed.data.model_copy(update=free) != config.data:
        raise VqkitError(
            "vqkit sharpen keeps data as the model has it, but for the splits; change losses, "
            "adversary and train"
        )
    for name in FIXED_LOSSES:
        if getattr(changed.losses, name) != getattr(config.losses, name):
            raise VqkitError(f"vqkit sharpen keeps losses.{name} as the model has it")
    if getattr(changed.adversary, "train", "decoder") != "decoder":
        raise VqkitError(
            "vqkit sharpen trains the decoder alone, so that codes stay as they are; leave "
            "adversary.train out"
        )
    return changed


def _saved(finished: Finished, config: Config, old: Model, source: Path, folder: Path) -> Artifact:
    """The sharpened model in its folder, beside copies of the coders and the prior of the old one.

    VqkitError.
    """
    assert isinstance(finished.model, Autoencoder)
    known = old.artifact
    artifact = replace(
        known,
        # What the splits of these data were is of no use for others.
        config=config.model_copy(update={"data": known.config.data}),
        network=finished.model,
        metrics={},
        codes_of=known.codes_id,
        stage=None,
    )
    if not has_equal_codes(known, finished.model):
        raise RuntimeError("what makes codes changed although it was frozen; nothing was written")
    if artifact.content_id == known.content_id:
        # Nothing was gained: the model is the old one.
        artifact = replace(artifact, codes_of=known.codes_of)
    for path in sorted(source.iterdir()):
        if path.name.startswith(COPIED) and path.suffix == ".safetensors":
            _copy(path, folder / path.name)
    return save_trained(artifact, finished, folder)


def _copy(path: Path, target: Path) -> None:
    try:
        write_whole(target, lambda where: shutil.copyfile(path, where))
    except OSError as error:
        raise VqkitError(f"cannot write {target}: {error.strerror}") from error


def _with_rates(artifact: Artifact, data: Dataset, folder: Path) -> Artifact:
    """The artifact whose rates say what its own decoder makes of them; the coder stays the same."""
    if artifact.coders.codes is None:
        return artifact
    split = "validation" if len(data.splits["validation"]) else "train"
    rates = measure_rates(Model(artifact), data, split)
    measured = replace(artifact, coders=replace(artifact.coders, rates=rates))
    save_coders(measured, folder)
    return measured
