"""An integer network that says how a value is distributed: the starting state of lossless files.

Shapes: n slots, C neighbours of a slot, H hidden channels, M logistics that are mixed; P channels
of an item, each of them a stage of the file.

Neighbours that are decoded before a slot go through three hidden layers of int16 weights, which
make a mixture of logistic distributions of them (Salimans et al. 2017, arXiv 1701.05517, eq. 2), in
base 2: a weight, a mean relative to an anchor that is guessed from the neighbours, and a scale for
each. Everything is an integer and every sum of products below 2^53, so that a float64 matrix
product of them is exact. docs/file-format.md has it in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..codes.mixing_state import BORDER, Learnt, Rows, Stream, Tables, neighbours
from ..logistic import LIMIT, POWERS, SQUASH, STEP

Array = NDArray[Any]
Ints = NDArray[np.int64]

LEVELS = 256
CODE_BITS = 8
MAX_HIDDEN = 1024
MAX_SIDE = 1024
MAX_CHANNELS = 4
BIAS_LIMIT = 1 << 28
# Logistics of a mixture, one for each anchor.
MIXED = 4
# What stands among the inputs for a neighbour that is 0.
FLAG = 64
# Bits behind the point: of weights, of inputs (1 is 64 levels), of hidden channels, of what comes
# out.
WEIGHT_BITS = 10
INPUT_BITS = 6
HIDDEN_BITS = 7
OUTPUT_BITS = 9
# Largest value of a hidden channel.
MOST = 1023
# Tensors of a channel, in the order of `ChannelNetwork`.
ARRAYS = {
    "first": np.int16,
    "rows": np.int32,
    "columns": np.int32,
    "second": np.int16,
    "second_bias": np.int32,
    "third": np.int16,
    "third_bias": np.int32,
    "last": np.int16,
    "last_bias": np.int32,
}


def num_inputs(channel: int) -> int:
    """Inputs of a network: C differences, C flags, and the level that the differences are from."""
    return 2 * len(neighbours(channel)) + 1


def inputs(values: Ints, channel: int) -> tuple[Ints, Ints]:
    """Neighbours (n, C), in order -> inputs (n, 2 C + 1), and anchors (n, MIXED) in levels.

    Anchors: mean of west and north; west; north; the plane of both through north-west. Behind the
    first channel, west and north are moved as the channel before moves.
    """
    at = {offset: values[:, number] for number, offset in enumerate(neighbours(channel))}
    west = at[0, 0, -1]
    north = at[0, -1, 0]
    level = (west + north) >> 1
    gradient = west + north - at[0, -1, -1]
    if channel:
        here = at[-1, 0, 0]
        west = west + here - at[-1, 0, -1]
        north = north + here - at[-1, -1, 0]
    anchors = np.stack([level, west, north, gradient], 1)
    parts = [values - level[:, None], FLAG * (values == 0), level[:, None]]
    return np.concatenate(parts, 1), anchors


@dataclass(frozen=True)
class ChannelNetwork:
    """The network of one channel.

    first (2 C + 1, H), second (H, H), third (H, H), last (H, 3 MIXED): int16. rows (GH, H), columns
    (GW, H), second_bias (H,), third_bias (H,), last_bias (3 MIXED,): int32 within BIAS_LIMIT; rows
    and columns are those of training.
    """

    first: Array
    rows: Array
    columns: Array
    second: Array
    second_bias: Array
    third: Array
    third_bias: Array
    last: Array
    last_bias: Array

    def outputs(self, values: Ints, rows: Ints, columns: Ints) -> Ints:
        """Inputs (n, 2 C + 1) at rows and columns (n,) of training -> (n, 3 MIXED)."""
        positions = self.rows[rows] + self.columns[columns]
        hidden = _activate(_product(values, self.first) + positions, INPUT_BITS)
        hidden = _activate(_product(hidden, self.second) + self.second_bias, HIDDEN_BITS)
        hidden = _activate(_product(hidden, self.third) + self.third_bias, HIDDEN_BITS)
        return _shifted(_product(hidden, self.last) + self.last_bias, HIDDEN_BITS, OUTPUT_BITS)


def _shifted(sums: Ints, given: int, wanted: int) -> Ints:
    """Products of weights with numbers that have `given` bits behind the point, to so many bits."""
    shift = given + WEIGHT_BITS - wanted
    return (sums + (1 << shift >> 1)) >> shift


def _product(left: Array, right: Array) -> Ints:
    return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)


def _activate(sums: Ints, given: int) -> Ints:
    return np.clip(_shifted(sums, given, HIDDEN_BITS), 0, MOST)


def cumulative(outputs: Ints, anchors: Ints) -> Ints:
    """(n, 3 MIXED), (n, MIXED) -> (n, LEVELS + 1), of 2^24, what lies below each level and below
    LEVELS.

    Outputs are logits of weights, means and scales, in this order, in 512ths of an octave, of 64
    levels, and of an octave.
    """
    logits = outputs[:, :MIXED]
    means = outputs[:, MIXED : 2 * MIXED]
    scales = outputs[:, 2 * MIXED :]
    weights = POWERS[np.minimum((logits.max(1, keepdims=True) - logits) >> 1, LIMIT)]
    weights = (weights << 16) // weights.sum(1, keepdims=True)
    # A scale of 0 is sixteen levels.
    scales = np.clip(scales >> 1, -8 * STEP, 4 * STEP)
    # In eighths of a level.
    edges = 8 * np.arange(1, LEVELS) - 4
    distance = edges - (8 * anchors + means)[:, :, None]
    # POWERS[scale + 8 octaves] is 2^(22 - scale): where scales are 0, 16 levels = 2^7 eighths are
    # 256 steps of a logit.
    logits = (distance * POWERS[scales + 8 * STEP][:, :, None]) >> 21
    squashed = SQUASH[np.clip(logits, -LIMIT, LIMIT - 1) + LIMIT]
    below = (weights[:, :, None] * squashed).sum(1) >> 8
    ends = np.zeros((len(below), 1), np.int64)
    below = np.concatenate([ends, below, ends + (1 << 24)], 1)
    return (below * 255 >> 8) + (np.arange(LEVELS + 1) << 8)


@dataclass(frozen=True)
class ValueNetwork:
    """Networks of all channels, P of them.

    It codes rows for `MixingCoder`, with LEVELS codes a stage.
    """

    channels: list[ChannelNetwork]

    def distribution(
        self, values: Ints, channel: int, rows: Ints, columns: Ints, grid: tuple[int, int]
    ) -> Ints:
        """Neighbours (n, C) at rows and columns (n,) of a grid -> (n, LEVELS + 1), see
        `cumulative`.
        """
        network = self.channels[channel]
        given, anchors = inputs(values, channel)
        rows = rows * len(network.rows) // grid[0]
        columns = columns * len(network.columns) // grid[1]
        return cumulative(network.outputs(given, rows, columns), anchors)

    def code_rows(self, rows: Rows, tables: Tables, learnt: Learnt, stream: Stream) -> None:
        """The slots of whole rows: see `codes.mixing.RowsCoder`."""
        kernel = kernels.load("values.network_kernel")
        if kernel:
            kernel.code_rows(rows, self._flattened[rows.stage], tables, learnt, stream)
            return
        from ..codes import mixing_kernel

        # What the network looks at must be decoded before, so that it then sees one slot at a time.
        step = 1 if len(stream.decoder) else rows.end - rows.first
        start = 0
        for y in range(rows.top, rows.bottom):
            for x in range(rows.first, rows.end, step):
                part = rows._replace(top=y, bottom=y + 1, first=x, end=x + step)
                end = start + step * 2 * CODE_BITS
                own = stream._replace(symbols=stream.symbols[start:end])
                mixing_kernel.run(part, self._below(part), tables, learnt, own)
                start = end

    def _below(self, row: Rows) -> Ints:
        """What the network says of slots of one row, flat (n * (LEVELS + 1),)."""
        places = np.arange(row.first, row.end)
        values = []
        for back, down, right in neighbours(row.stage):
            values.append(row.padded[row.stage + back, row.top + down, places + right])
        grid = (row.padded.shape[1] - 2 * BORDER, row.padded.shape[2] - 2 * BORDER)
        y = np.full(len(places), row.top - BORDER)
        return self.distribution(np.stack(values, 1), row.stage, y, places - BORDER, grid).ravel()

    @cached_property
    def _flattened(self) -> list[Any]:
        """The network of every channel as its kernel takes it."""
        kernel = kernels.load("values.network_kernel")
        return [kernel.flattened(network, number) for number, network in enumerate(self.channels)]

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        tensors = {}
        for number, network in enumerate(self.channels):
            for name in ARRAYS:
                tensors[f"{number}.{name}"] = getattr(network, name)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> ValueNetwork:
        """ValueError for what breaks a bound that exactness or memory rests on."""
        num_channels = len(tensors) // len(ARRAYS)
        names = {f"{number}.{name}" for number in range(num_channels) for name in ARRAYS}
        if set(tensors) != names or not 1 <= num_channels <= MAX_CHANNELS:
            raise ValueError(
                f"these are not the tensors of the networks of 1 to {MAX_CHANNELS} channels"
            )
        return cls([_read_channel(tensors, number) for number in range(num_channels)])


def _read_channel(tensors: Mapping[str, Array], channel: int) -> ChannelNetwork:
    arrays = {name: tensors[f"{channel}.{name}"] for name in ARRAYS}
    hidden = arrays["second_bias"].size
    rows = len(np.atleast_1d(arrays["rows"]))
    columns = len(np.atleast_1d(arrays["columns"]))
    if not (1 <= hidden <= MAX_HIDDEN and 1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise ValueError(f"the sizes of channel {channel} are out of bounds")
    shapes = {
        "first": (num_inputs(channel), hidden),
        "rows": (rows, hidden),
        "columns": (columns, hidden),
        "second": (hidden, hidden),
        "second_bias": (hidden,),
        "third": (hidden, hidden),
        "third_bias": (hidden,),
        "last": (hidden, 3 * MIXED),
        "last_bias": (3 * MIXED,),
    }
    for name, values in arrays.items():
        limit = (1 << 15) - 1 if ARRAYS[name] is np.int16 else BIAS_LIMIT
        if values.dtype != ARRAYS[name] or values.shape != shapes[name]:
            raise ValueError(f"tensor {channel}.{name} is {values.dtype} {values.shape}")
        if not -limit <= int(values.min()) <= int(values.max()) <= limit:
            raise ValueError(f"tensor {channel}.{name} holds numbers beyond {limit}")
    return ChannelNetwork(**arrays)
