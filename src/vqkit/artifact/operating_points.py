"""How small files shall be: the points between few bits and a good reconstruction that a model
offers.

A point leaves out the last stages of a residual quantizer, or the finest grids of a pyramid. Where
codes are of a codebook it weighs the bits of a code under the integer prior against what it does to
the reconstruction: argmin distance + weight * bits, the entropy-constrained vector quantisation of
Chou et al. 1989, with the quantizer's own choice where the weight is 0. Scalar codes, whose
quantizer weighs bits by itself, are of latents that were multiplied by a gain, which is to divide
their step by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..coding import GAINS_PER_OCTAVE, UNIT_GAIN, ScalarCoder, TransformerCoder, gain_of
from ..coding.codes.transformer_coder import MAX_CODES
from ..coding.grids import beside, split
from ..model.quantizers.base import Bottleneck
from ..model.quantizers.scalar import ScalarQuantizer

# Of the points that are offered, by growing size; the last has every stage, its codes chosen by the
# quantizer alone.
NAMES = ("lowest", "low", "medium", "high", "full")
# Weights that are tried beside 0, in units of the mean squared distance of tokens to their codes.
WEIGHTS = (0.03, 0.06, 0.12, 0.25)
# Gains that are tried for scalar codes lie so far apart, by their bytes.
GAIN_STEP = 4


@dataclass(frozen=True)
class Rate:
    """num_stages of the quantizer that are kept; weight of a bit, as a squared distance of tokens.

    bits: an item of the training extent, and psnr in dB, as measured on the validation split. gain:
    a byte, see coding.UNIT_GAIN.
    """

    num_stages: int
    weight: float
    bits: float
    psnr: float
    gain: int = UNIT_GAIN

    @classmethod
    def read(cls, point: Mapping[str, Any]) -> Rate:
        """From the header of a coder's file, which anyone may have written.

        TypeError or ValueError for no point.
        """
        rate = cls(**point)
        is_whole = type(rate.num_stages) is int and rate.num_stages >= 1
        is_byte = type(rate.gain) is int and 0 <= rate.gain <= 255
        are_numbers = all(map(_is_number, (rate.weight, rate.bits, rate.psnr)))
        if not is_whole or not is_byte or not are_numbers or rate.weight < 0:
            raise ValueError(
                f"{dict(point)} is no point between few bits and a good reconstruction"
            )
        return rate


def _is_number(value: Any) -> bool:
    # Not isinstance: a truth value is an int, too.
    return type(value) in (int, float) and math.isfinite(value)


@torch.autocast("cpu", enabled=False)
def assign(
    quantizer: Bottleneck,
    coder: TransformerCoder,
    latents: Tensor,
    num_stages: int,
    weight: float,
) -> np.ndarray:
    """Latents (B, D, *grid) -> codes (B, codebooks of these stages, *grid) int64.

    VqkitError for families whose codes are not chosen one after the other: product and hierarchical
    ones.
    """
    sides = [section.side for section in quantizer.sections[:num_stages]]
    # Stages on one grid share their tokens.
    of_side: dict[int, Tensor] = {}
    for number, side in enumerate(sides):
        if side not in of_side:
            rows = quantizer.tokens(latents, number)
            of_side[side] = rows.view(len(latents), -1, rows.shape[1])
    grid = tuple(side // quantizer.grid_multiple for side in latents.shape[2:])

    @torch.no_grad()  # which is a thread's own
    def distances(items: slice, before: np.ndarray, slots: slice) -> np.ndarray:
        rows = of_side[sides[before.shape[1]]][items, slots]
        chosen = torch.from_numpy(before[:, :, slots]).transpose(1, 2)
        far = quantizer.distances(rows.flatten(0, 1), chosen.flatten(0, 1))
        return far.view(*rows.shape[:2], -1).numpy()

    return coder.assign(distances, len(latents), grid, num_stages, weight)


@torch.autocast("cpu", enabled=False)
def distortion(quantizer: Bottleneck, latents: Tensor, codes: np.ndarray) -> float:
    """Mean squared distance of the tokens of latents (B, D, *grid) to what the last stage of codes
    (B, q, *grid) makes of them, with all before it.
    """
    sides = [section.side for section in quantizer.sections if section.place < codes.shape[1]]
    seen = torch.from_numpy(beside(split(codes, sides), sides))
    last = seen.flatten(2).movedim(1, -1).flatten(0, 1)
    tokens = quantizer.tokens(latents, len(sides) - 1)
    return float(quantizer.distances(tokens, last[:, :-1]).gather(1, last[:, -1:]).mean())


def can_be_weighed(quantizer: Bottleneck, prefixes: bool) -> bool:
    """Whether a model can have rates: its codes are chosen one after the other, and the first
    stages are enough.
    """
    return prefixes or quantizer.num_codebooks == quantizer.codebooks_per_section


@torch.no_grad()
def measure(
    quantizer: Bottleneck,
    coder: TransformerCoder | ScalarCoder,
    latents: Tensor,
    psnr_of: Callable[[np.ndarray, int], float],
    prefixes: bool,
    max_gain: float = 1.0,
    in_time: Callable[[], bool] = lambda: True,
) -> list[Rate]:
    """All points that are tried, on latents (B, D, *grid).

    None for families that `assign` does not take.

    psnr_of: codes of the first stages, and the gain of their latents -> PSNR in dB. prefixes:
    whether the first stages alone can be decoded. max_gain: of training. in_time: weights beside 0
    and gains beside 1 are tried only while it says so.
    """
    if not can_be_weighed(quantizer, prefixes):
        return []
    found = _stages(quantizer, coder, latents, psnr_of, UNIT_GAIN)
    if isinstance(coder, ScalarCoder):
        for gain in gains(max_gain):
            if gain != UNIT_GAIN and in_time():
                found += _stages(quantizer, coder, latents, psnr_of, gain)
        return found
    own = quantizer.encode(latents).numpy()
    for depth, count in enumerate(quantizer.prefixes, 1):
        unit = distortion(quantizer, latents, own[:, :count])
        for weight in WEIGHTS:
            if not in_time():
                break
            codes = assign(quantizer, coder, latents, depth, weight * unit)
            bits = float(_bits(coder.first(depth).encode(codes)).sum())
            found.append(Rate(depth, weight * unit, bits, psnr_of(codes, UNIT_GAIN)))
    return found


def gains(largest: float, step: int = GAIN_STEP) -> list[int]:
    """Bytes of the gains between one by which latents are divided at most and the same by which
    they are multiplied, so far apart; of 1 among them.
    """
    reach = int(GAINS_PER_OCTAVE * math.log2(largest)) // step * step
    return list(range(UNIT_GAIN - reach, UNIT_GAIN + reach + 1, step))


def ladder(
    coder: TransformerCoder | ScalarCoder, num_stages: int, prefixes: bool, max_gain: float
) -> list[Rate]:
    """Points that a model has without a weight of bits, from few bytes to many: all numbers of
    stages, and of scalar codes gains of training between them. They were not measured.
    """
    first = 1 if prefixes else num_stages
    depths = range(first, num_stages + 1)
    if not isinstance(coder, ScalarCoder):
        return [Rate(depth, 0.0, 0.0, 0.0) for depth in depths]
    # A stage more is about as much as a gain of the refinement: half of it on either side.
    half = int(-GAINS_PER_OCTAVE * math.log2(ScalarQuantizer.refinement) / 2)
    found = []
    for depth in depths:
        for gain in gains(max_gain, 1):
            is_fewer = depth > first and gain < UNIT_GAIN - half
            is_more = depth < num_stages and gain > UNIT_GAIN + half
            if not is_fewer and not is_more:
                found.append(Rate(depth, 0.0, 0.0, 0.0, gain))
    return found


def _stages(
    quantizer: Bottleneck,
    coder: TransformerCoder | ScalarCoder,
    latents: Tensor,
    psnr_of: Callable[[np.ndarray, int], float],
    gain: int,
) -> list[Rate]:
    """The points of all numbers of stages, with the quantizer's own codes at a gain."""
    codes = quantizer.encode(latents * gain_of(gain)).numpy()
    # Of each stage: what comes after a stage does not change its bytes.
    sizes = _bits(coder.encode(codes))
    found = []
    for depth, count in enumerate(quantizer.prefixes, 1):
        psnr = psnr_of(codes[:, :count], gain)
        found.append(Rate(depth, 0.0, float(sizes[:depth].sum()), psnr, gain))
    return found


def _bits(payloads: list[list[bytes]]) -> np.ndarray:
    """Mean bits an item of each stage."""
    return 8 * np.array([[len(part) for part in item] for item in payloads]).mean(0)


def offered(points: Sequence[Rate]) -> dict[str, Rate]:
    """Of the points that no other beats, those of NAMES: evenly spaced in the logarithm of size. {}
    for no points.

    No point has two names: where there are fewer points than names, names between the first and the
    last are left out.
    """
    if not points:
        return {}
    full = max(points, key=_fullness)
    best = []
    for point in points:
        is_beaten = any(_beats(other, point) for other in points)
        if point.bits < full.bits and not is_beaten:
            best.append(point)
    best.sort(key=lambda point: point.bits)
    named: dict[str, Rate] = {}
    if best:
        low = np.log(best[0].bits)
        high = np.log(full.bits)
        for place, name in enumerate(NAMES[:-1]):
            wanted = low + (high - low) * place / (len(NAMES) - 1)
            nearest = min(best, key=lambda point: abs(np.log(point.bits) - wanted))
            if nearest not in named.values():
                named[name] = nearest
    return {**named, NAMES[-1]: full}


def no_rate(rates: Mapping[str, Rate], quantizer: Bottleneck, prefixes: bool) -> str:
    """What is said where a rate is asked for that is not there."""
    if not can_be_weighed(quantizer, prefixes):
        return (
            f"this model can have no rates: {type(quantizer).__name__} does not choose its codes "
            "one after the other; leave the rate out"
        )
    if quantizer.codebook_size > MAX_CODES:
        return (
            f"this model can have no rates: its codebooks have more than {MAX_CODES} codes; leave "
            "the rate out"
        )
    return (
        "rates of this model: "
        f"{', '.join(rates) or 'none: fit its coder with vqkit train-coder DIR DATA'}"
    )


def _fullness(point: Rate) -> tuple[int, bool, float]:
    return point.num_stages, point.gain == UNIT_GAIN, -point.weight


def _beats(one: Rate, other: Rate) -> bool:
    return one != other and one.bits <= other.bits and one.psnr >= other.psnr
