"""Which settings a run starts from, where the user names no recipe: a look at the data says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ..config.loading import load, recipe_names, with_overrides
from ..errors import VqkitError
from ..settings import Config, PairConfig, PriorConfig
from ..signals.base import Suggestion
from ..signals.registry import files_by_signal, recognised, signal_named

# The override that says which kind of signal is meant.
SIGNAL = "data.signal="
BATCH_SIZE = "train.batch_size="
# Codes of a step of a transformer on a processor: with more a step takes tens of seconds, and many
# gigabytes.
CODES_OF_A_STEP = 1 << 15


PriorT = TypeVar("PriorT", PriorConfig, PairConfig)


class Chosen(NamedTuple):
    """Settings of a new run, the recipe that they started from, and two lines on what was chosen
    and why; no lines where the user named the recipe.
    """

    config: Config
    recipe: str
    lines: tuple[str, ...] = ()


def choose_settings(
    source: str | Path,
    recipe: str | Path | None,
    overrides: Iterable[str],
    minutes: float | None = None,
) -> Chosen:
    """The recipe that was asked for, else what a look at the source speaks for, with the overrides
    over either.

    minutes: as of `train`. Errors: as `config.load`.
    """
    overrides = list(overrides)
    if recipe is not None:
        config = load(recipe, overrides, Config)
        _check_signal(source, str(recipe), config)
        return Chosen(config, str(recipe))
    default = Config.default_recipe
    named = [override for override in overrides if override.startswith(SIGNAL)]
    name = named[-1].removeprefix(SIGNAL) if named else recognised(source)
    signal = signal_named(name)
    suggestion = signal.suggest(source, minutes)
    if suggestion is None:
        return Chosen(load(default, overrides, Config), default)
    settings = [one for choice in suggestion.choices for one in choice.settings]
    # What overrides leave without effect goes back to its default, as if it were a recipe's.
    where = f"recipe {suggestion.recipe}, chosen for {source} (--recipe NAME takes another)"
    config = with_overrides(load(suggestion.recipe, settings, Config), overrides, where)
    return Chosen(config, suggestion.recipe, _in_words(suggestion, config))


def with_batch_that_fits(
    config: PriorT, length: int, recipe: str, overrides: Sequence[str]
) -> tuple[PriorT, list[str], list[str]]:
    """Settings with smaller batches where items have many codes, `length` of them; the same where
    there is a GPU, where batches are small enough, and where the user has said how large.

    With them the overrides, that of the batch among them, and what to say of it.
    """
    said = recipe not in recipe_names(type(config)) or config.train.accumulate > 1
    said |= any(override.startswith(BATCH_SIZE) for override in overrides)
    fitting = max(1, CODES_OF_A_STEP // length)
    if said or torch.cuda.is_available() or config.train.batch_size <= fitting:
        return config, list(overrides), []
    own = f"{BATCH_SIZE}{fitting}"
    note = f"{own}, as an item has {length:,} codes; say {BATCH_SIZE}N for other batches"
    return with_overrides(config, [own]), [*overrides, own], [note]


def _check_signal(source: str | Path, recipe: str, config: Config) -> None:
    """VqkitError where a source holds files of other signals than that of a recipe alone."""
    counts = files_by_signal(source)
    found = max(counts, key=counts.__getitem__)
    if counts[config.data.signal] or not counts[found]:
        return
    wanted, there = (signal_named(name).item for name in (config.data.signal, found))
    fitting = [name for name in recipe_names(Config) if load(name, [], Config).data.signal == found]
    raise VqkitError(
        f"recipe {recipe} is for {wanted}s, and {source} holds {there}s: take one of "
        f"{', '.join(fitting)}, or leave --recipe out"
    )


def _in_words(suggestion: Suggestion, config: Config) -> tuple[str, str]:
    """What was chosen beside the recipe, and why; without what the user chose otherwise."""
    recipe = load(suggestion.recipe, [], Config)
    settings: list[str] = []
    reasons = [suggestion.because]
    for choice in suggestion.choices:
        new = [one for one in choice.settings if _stands(one, config) and not _stands(one, recipe)]
        settings += new
        if new:
            reasons.append(choice.because)
    chosen = " ".join(["--recipe", suggestion.recipe, *settings])
    return f"chosen:  {chosen}", f"because: {'; '.join(reasons)}"


def _stands(setting: str, config: Config) -> bool:
    """Whether a setting is what settings have, so that setting it changes nothing."""
    try:
        return with_overrides(config, [setting]) == config
    except VqkitError:
        # Another override has left no place for it.
        return False
