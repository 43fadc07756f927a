"""A whole run of a pair: from two artifacts and their files to a folder that is whole by itself."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..apps.evaluate_pair import Example, evaluate_pair, examples
from ..artifact.halves import BYTES, Half, half_of
from ..artifact.pair import Pair, Pairs
from ..artifact.pair_store import save_pair
from ..config.loading import dump, load, recipe_names
from ..prior.network import PriorNetwork
from ..prior.pairs import PairPrior
from ..report.card import write_pair_card
from ..report.pair_page import Direction, PairSummary, Shown, ShownRow, write_pair_report
from ..settings import PairConfig
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.engine import check_installed
from ..training.loop import Finished, fit
from ..training.progress import Display
from ..training.tasks.pair import PairTask
from .choosing import with_batch_that_fits
from .pair_data import open_pairs
from .plan import OPENING, REPORT_SECONDS, Part, Plan, ending_minutes
from .session import (
    REPORT_FILE,
    begun,
    check_new,
    check_unlocked,
    is_main,
    locked,
    resumed_settings,
)

TRAINING = "train the prior of both"
REPORT = "measure, draw examples and write the report"


def train_pairs(
    first: str | Path,
    second: str | Path,
    source: str | Path,
    out: str | Path,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    minutes: float | None = None,
    display: Display | None = None,
    started: float | None = None,
) -> Pair | None:
    """Train one prior over the codes of two artifacts on the pairs of `source`, and fill `out`.

    first, second: artifacts, by folder or hf://user/name, one of which may be the word 'bytes':
    text as it is.
    recipe: a name or a YAML file; None = the one named like the built-in set, else 'pair'.
    resume, minutes, display, started, overrides: as in `train`. Returns the pair; None on ranks
    other than the first. Errors: VqkitError for whatever a user can mend; TrainingDiverged.
    """
    check_installed()
    started = time.monotonic() if started is None else started
    folder = Path(out)
    overrides = list(overrides)
    check_unlocked(folder)
    chosen = _recipe(source, recipe)
    if resume:
        config = resumed_settings(PairConfig, folder, recipe, overrides)
    else:
        check_new(folder)
        config = load(chosen, overrides, PairConfig)
    length = config.network.caption_bytes
    halves = (half_of(first, length, "cpu"), half_of(second, length, "cpu"))
    notes: list[str] = []
    if not resume:
        num_codes = sum(half.layout(config.network.order).length for half in halves)
        config, overrides, notes = with_batch_that_fits(config, num_codes, chosen, overrides)
    parts = [
        Part(OPENING, 0.02),
        Part(TRAINING, 0.85, f"{config.train.steps} steps at most"),
        Part(REPORT, 0.1, seconds=REPORT_SECONDS),
    ]
    with Plan(parts, display if is_main() else None, minutes, started) as plan:
        opened = open_pairs(halves, source, plan.told(OPENING))
        with locked(folder, display):
            if not resume:
                check_new(folder)
            for note in [*opened.notes, *notes]:
                plan.display.message(note)
            plan.announce()
            with begun(folder, config):
                task = PairTask(opened.pairs, config)
                finished = fit(task, folder, plan.stage(TRAINING), plan.deadline(TRAINING))
            if finished is None:
                return None
            assert isinstance(finished.model, PriorNetwork)
            pair = Pair(halves, PairPrior(config, finished.model))
            command = ["vqkit", "pairs", str(first), str(second), str(source), "--out", str(out)]
            command += ["--recipe", chosen, *overrides]
            summary = PairSummary(
                title=" and ".join(_title(one) for one in (first, second)),
                command=shlex.join(command),
                config_yaml=dump(config),
                metrics={},
                history=finished.history,
                events=finished.events,
                minutes=ending_minutes(minutes, finished, config.train),
            )
            return _finish(pair, opened.pairs, finished, summary, folder, plan)


def _recipe(source: str | Path, recipe: str | Path | None) -> str:
    """The recipe that was asked for, else the one named like the built-in set, else the default."""
    if recipe is not None:
        return str(recipe)
    if str(source) in recipe_names(PairConfig):
        return str(source)
    return PairConfig.default_recipe


def _title(named: str | Path) -> str:
    return BYTES if str(named) == BYTES else Path(named).name


def _finish(
    pair: Pair,
    pairs: Pairs,
    finished: Finished,
    summary: PairSummary,
    folder: Path,
    plan: Plan,
) -> Pair:
    """From trained weights to a folder that is complete."""
    # Before anything else can fail: it is what the time was spent on.
    save_pair(pair, folder, pairs.data.name)
    stage = plan.stage(REPORT)
    split = next(name for name in ("test", "validation", "train") if len(pairs.data.splits[name]))
    stage.message(f"measuring on the {split} split and drawing examples ...")
    found = evaluate_pair(pair, pairs, split, lambda share: stage.update(0.5 * share, {}))
    metrics = {**found, **finished.figures}
    pair = Pair(pair.halves, replace(pair.prior, metrics=metrics))
    shown = examples(pair, pairs, split, lambda share: stage.update(0.5 + 0.4 * share, {}))
    directions = [_direction(pair, made, rows) for made, rows in enumerate(shown)]
    summary = replace(summary, metrics=metrics, directions=directions)
    write_pair_card(summary, (pair.halves[0].signal.item, pair.halves[1].signal.item), folder)
    write_pair_report(summary, folder / REPORT_FILE)
    save_pair(pair, folder, pairs.data.name)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    stage.update(1.0, {})
    return pair


def _direction(pair: Pair, made: int, rows: list[Example]) -> Direction:
    """Examples of one direction as the report shows them."""
    given, other = pair.halves[1 - made], pair.halves[made]
    shown = []
    for row in rows:
        (before,) = _shown(given, [row.given])
        (real,) = _shown(other, [row.real])
        shown.append(ShownRow(before, real, _shown(other, row.made)))
    return Direction(given.signal.item, other.signal.item, shown)


def _shown(half: Half, values: list[Tensor]) -> list[Shown]:
    """Items as a page takes them: text, or an image of them with what is played."""
    if half.is_text:
        return [Shown(text=text) for text in half.array(values)]
    joined = torch.stack(values)
    images = half.signal.display(joined)
    sounds = half.signal.media(joined, half.data) or [b""] * len(values)
    media_type = half.signal.media_type
    return [
        Shown(image=image, sound=sound, media_type=media_type)
        for image, sound in zip(images, sounds, strict=True)
    ]
