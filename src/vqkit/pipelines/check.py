"""A model is looked at, and what was found is written into its artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..apps.check import Checked, check, items_of
from ..apps.evaluate import open_for
from ..artifact.model import Model
from ..artifact.store import load_artifact, save_metrics
from ..report.card import add_check_to_card
from .elsewhere import Flips, flips_elsewhere
from .session import locked

# What items are said to be that a model made up.
MADE_UP = "items made up by the model"


def check_artifact(
    folder: str | Path,
    model: Model,
    source: str | Path | None = None,
    split: str = "test",
    progress: Callable[[float], None] | None = None,
) -> tuple[Checked, dict[str, Flips]]:
    """What `apps.check` finds of a model, and what differs with other instructions of the
    processor; figures of both go into metrics.json, below `check`, and into the model card of its
    folder. VqkitError.

    source: items; None = the model makes some up.
    """
    folder = Path(folder)
    with locked(folder):
        data = None if source is None else open_for(model, source, split)
        items = items_of(model, data, split)
        found = check(model, items, progress)
        elsewhere = flips_elsewhere(folder, model, items)
        figures = in_short(found, model) | {"elsewhere": elsewhere}
        figures["checked"] = MADE_UP if data is None else f"the {split} split of {data.name}"
        # The model was loaded before the lock was held.
        artifact = load_artifact(folder)
        metrics = {**artifact.metrics, "check": figures}
        save_metrics(replace(artifact, metrics=metrics), folder)
        add_check_to_card(folder, figures, model.signal.item)
    return found, elsewhere


def in_short(found: Checked, model: Model) -> dict[str, Any]:
    """Figures without those of every setting: of each the sums."""
    codes = found.code_flips.values()
    values = found.value_flips.values()
    return {
        "code_flips": sum(count for count, _ in codes),
        "codes": sum(total for _, total in codes),
        "value_flips": sum(count for count, _ in values),
        "values": sum(total for _, total in values),
        **found.figures,
        "quality_in_words": model.signal.quality_in_words,
    }
