"""How likely is an item: bits of its codes under the prior, in total and place by place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..artifact.model import Model
from ..errors import VqkitError

KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class Score(Generic[KeyT]):
    """One item.

    bits: of all codes under the prior. bits_per_dim: per value of the item, the codes alone.
    percentile: share of the held-out items of training that cost less, None where the prior does
    not know; near 1 is an anomaly. held_out: how many these are, where the prior knows. values: (C,
    *extent), what was scored. surprise: (*grid) float64, bits of each position. covered: extent of
    all positions together: more than the item has if it is no multiple of the model's tiles.
    """

    key: KeyT
    bits: float
    bits_per_dim: float
    percentile: float | None
    held_out: int | None
    values: Tensor
    surprise: np.ndarray
    covered: tuple[int, ...]


def score(
    model: Model,
    items: Iterable[tuple[KeyT, Tensor]],
    *,
    classes: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> Iterator[Score[KeyT]]:
    """Score items (C, *extent) of the training extent, each with a key that comes back with it.

    Yields as it goes.

    classes, prompts: one for all items. Errors: VqkitError without a prior, for several classes or
    prompts, and for one that it does not know.
    """
    prior = model.wanted_prior()
    if max(len(classes), len(prompts)) > 1:
        raise VqkitError(
            "files are scored under one class or prompt; score those of another in a second call"
        )
    condition = prior.condition(1, classes, prompts)
    quantiles = np.array(prior.metrics.get("bits_quantiles") or [])
    held_out = prior.metrics.get("items")
    for key, values in items:
        codes = model.tokenizer.encode(values[None])
        surprise = prior.code_bits(codes, condition)[0].sum(0).numpy()
        bits = float(surprise.sum())
        rank = float(np.searchsorted(quantiles, bits) / len(quantiles)) if len(quantiles) else None
        tiles = zip(values.shape[1:], model.network.tile, strict=True)
        covered = tuple(-(-side // step) * step for side, step in tiles)
        yield Score(key, bits, bits / values.numel(), rank, held_out, values, surprise, covered)


def surprise_map(model: Model, found: Score[KeyT]) -> np.ndarray:
    """uint8 (H, W, 3): the item as it is shown, in grey, red where its codes were unlikely, the
    brighter the more.
    """
    shown = model.signal.display(found.values[None])[0]
    bits = torch.from_numpy(found.surprise)
    plane = bits.reshape(1, 1, -1, bits.shape[-1])
    covered = (int(np.prod(found.covered[:-1])), found.covered[-1])
    wide = torch.nn.functional.interpolate(plane, covered, mode="nearest")[0, 0]
    inside = wide[: found.values[0].numel() // found.values.shape[-1], : found.values.shape[-1]]
    fitted = torch.nn.functional.interpolate(inside[None, None], shown.shape[:2], mode="nearest")[
        0, 0
    ].numpy()
    heat = np.clip(fitted / max(float(found.surprise.max()), 1e-9), 0, 1)[..., None]
    grey = shown[..., : 3 if shown.shape[2] >= 3 else 1].mean(2, keepdims=True)
    calm = np.repeat(0.6 * grey, 3, 2)
    return np.rint((1 - heat) * calm + heat * np.array([255.0, 60.0, 20.0])).astype(np.uint8)
