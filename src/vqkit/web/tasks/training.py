"""What is known of a set before training, and what a run has learnt so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ...apps.evaluate import open_for
from ...apps.generate import generate
from ...data.names import MAX_BAD
from ...pipelines.choosing import choose_settings
from ...pipelines.preview import drawing_of, in_few_steps, open_run, preview, preview_prior
from ...signals.registry import signal_of
from .context import Context, Result, Tell

# Items of a set that are shown, and of a run.
NUM_SHOWN = 32
NUM_FOLLOWED = 8
# Items that a prior draws.
NUM_DRAWN = 12


def survey(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: source, minutes.

    What a set holds, the recipe that it speaks for, and some of its items.
    """
    config, recipe, lines = choose_settings(args["source"], None, [], args["minutes"])
    signal = signal_of(config.data)
    data = signal.open(args["source"], config.data, config.seed, max_bad=1.0, progress=tell)
    words = signal.describe_in_words(data)
    described = data.describe()
    result = Result()
    (batch,) = islice(data.split("train", NUM_SHOWN), 1)
    shown = [result.image(image) for image in signal.display(batch.values)]
    sounds = signal.media(batch.values[:NUM_FOLLOWED], described)
    bad = [{"name": one["name"], "reason": one["reason"]} for one in described.get("bad", [])]
    result.values = {
        "signal": signal.name,
        "item": signal.item,
        "count": sum(len(ids) for ids in data.splits.values()),
        "splits": {name: len(ids) for name, ids in data.splits.items()},
        "size": words.get("size") or signal.extent_in_words(data.shape.extent),
        "classes": described.get("classes") or {},
        "bad": bad[:20],
        "num_bad": len(bad),
        "is_refused": len(bad) > MAX_BAD * (len(bad) + len(data)),
        "notes": data.notes_in_words(),
        "recipe": recipe,
        "reasons": list(lines) or ["made for this set"],
        "minutes": config.train.max_minutes,
        "samples": shown,
        "sounds": [result.add(sound, signal.media_type) for sound in sounds],
    }
    return result


def follow(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: folder of a run, source, step that is known already.

    Held-out items and their reconstructions by the last checkpoint; nothing before there is a new
    one.
    """
    folder = Path(args["folder"])
    data = context.data_of_run(args["folder"], lambda: open_run(folder, args["source"]))
    found = None if data is None else preview(folder, data, args["step"])
    if data is None or found is None:
        return Result({"step": None})
    model = found.model
    split = next(name for name in ("validation", "test", "train") if len(data.splits[name]))
    (batch,) = islice(data.split(split, NUM_FOLLOWED), 1)
    with torch.no_grad():
        shown = model.tokenizer.reconstruct(batch.values)
    result = Result()
    pairs = []
    for original, values in zip(batch.values, shown, strict=True):
        pair = {"now": result.compared(model, values, original)}
        pair["before"] = result.item(model, original)
        pairs.append(pair)
    known = [pair["now"]["quality"] for pair in pairs if pair["now"]["quality"] is not None]
    result.values = {
        "step": found.step,
        "pairs": pairs,
        "quality": sum(known) / len(known) if known else None,
        "unit": model.signal.quality_unit,
    }
    return result


def follow_prior(
    context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell
) -> Result:
    """args: folder of a model, source, step of its prior's training that is known already.

    What the prior of the last checkpoint draws, the same draw each time; nothing before there is a
    new one.
    """
    folder = Path(args["folder"])
    model = context.model(args["folder"])
    key = f"prior of {folder}"
    data = context.data_of_run(key, lambda: open_for(model, args["source"], "train"))
    found = preview_prior(folder, model, data, args["step"])
    if found is None:
        return Result({"step": None})
    prior = found.model.wanted_prior()
    drawing = in_few_steps(drawing_of(data, prior, NUM_DRAWN), prior)
    values = generate(found.model, NUM_DRAWN, drawing=drawing).values
    result = Result()
    result.values = {
        "step": found.step,
        "drawn": [result.item(model, one) for one in values],
        "labels": [*drawing.classes, *drawing.prompts],
    }
    return result
