"""Context mixing: codes of any kind <-> bytes, with what the file itself teaches; every number is an integer.

Shapes: N items, Q stages (codebooks, or planes of pixels), h w their grid, C contexts of a slot, n slots of a row.

A code is a few bits, the highest first. Each of C contexts, which are the neighbours of a slot seen in different ways,
has a table that says how likely a bit is where the context and the bits before it were the same; the logits are
weighed and added (Mahoney 2005, "Adaptive weighing of context models", section 3.2), and tables and weights learn from
every bit. Of pixels, a `PixelNetwork` gives one logit more, so that a picture is coded well from its first pixel.
docs/file-format.md has it in full. With numba, of the extra [fast], the same bytes come sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from .pixel_network import REACH, SQUASH, STRETCH, Ints, PixelNetwork, neighbours
from .rangecoder import TOTAL, Encoder, check_position

MASK = (1 << 32) - 1
MIX, SCATTER = 0x2545F491, 0x2C1B3C6D
"""multipliers of the hash of contexts, and of the hash that chooses an entry"""
MIN_TABLE_BITS, MAX_TABLE_BITS = 12, 20
NUM_TABLES = 14
MAX_COUNT = 255
TRUSTS = 9
"""classes of how often an entry was seen: bit lengths of its count"""
ALONE, BESIDE, WHOLE = 12288, 1024, 1 << 16
"""first weights, of 65536: of entries where there are only tables, of entries beside a network, of the network"""
RATE, NETWORK_RATE = 16, 15
"""bits that the product of error and logit loses on its way to a weight"""
MAX_BITS = 32
"""of a code"""

SHARES = np.array([131072 // (2 * count + 3) for count in range(MAX_COUNT + 1)])
"""of 65536: how far an entry moves, by how often it was seen"""
CLASSES = np.array([count.bit_length() for count in range(MAX_COUNT + 1)])
TABLES = (SQUASH, STRETCH, SHARES, CLASSES)


class _Item:
    """One item on its way in or out: its codes with a border of zeros, and what they have taught so far."""

    def __init__(self, coder: ContextMixing, stages: int, grid: tuple[int, int]) -> None:
        self.coder, self.grid = coder, grid
        self.padded = np.zeros((stages, grid[0] + 2 * REACH, grid[1] + 2 * REACH), np.int64)
        wanted = (16 * grid[0] * grid[1]).bit_length()
        self.table_bits = min(max(wanted, MIN_TABLE_BITS), MAX_TABLE_BITS)
        weights = np.full(MAX_BITS + NUM_TABLES * TRUSTS, BESIDE if coder.network else ALONE, np.int64)
        weights[:MAX_BITS] = WHOLE
        likely = np.full(NUM_TABLES << self.table_bits, TOTAL >> 1, np.uint16)
        counts = np.zeros(NUM_TABLES << self.table_bits, np.uint8)
        scratch = (
            np.zeros(2 * NUM_TABLES, np.int64),
            np.zeros(NUM_TABLES + 1, np.int64),
            np.zeros(NUM_TABLES, np.int64),
        )
        self.learnt = (likely, counts, weights, *scratch)

    def encode(self, stage: int) -> bytes:
        """The bytes of a stage."""
        nothing, compiled = np.frombuffer(b"", np.uint8), _compiled_pixels()
        rows = (self._row(stage, y, nothing, np.zeros(0, np.int64)) for y in range(self.grid[0]))
        if not compiled:
            encoder = Encoder()
            for start, frequency in (symbol for row in rows for symbol in row.tolist()):
                encoder.encode(start, frequency)
            return encoder.finish()
        state, out = np.array([0, 1 << 32, 0]), np.zeros(0, np.uint8)
        for row in rows:
            out = np.concatenate([out[: state[2]], np.zeros(2 * len(row), np.uint8)])
            compiled.encode_symbols(row.reshape(-1), state, out)
        low, width, count = state.tolist()
        return Encoder(low, width, out[:count].tobytes()).finish()

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        decoder = np.array([1 << 32, int.from_bytes(data[:4].ljust(4, b"\0")), 4])
        for y in range(self.grid[0]):
            self._row(stage, y, np.frombuffer(data, np.uint8), decoder)
            check_position(decoder[2], len(data))

    def _row(self, stage: int, y: int, data: Any, decoder: Any) -> Ints:
        """Slots of a row, from bytes or to symbols (n, 2): see `mixing.code_slots`."""
        from . import mixing

        network, width = self.coder.network, self.grid[1]
        symbols = np.zeros((width, (self.coder.sizes[stage] - 1).bit_length(), 2), np.int64)
        symbols[:, :, 1] = TOTAL
        if network and (compiled := _compiled_pixels()):
            compiled.code_row(
                self.padded, stage, y, *self.coder.flattened[stage], self.table_bits, TABLES, self.learnt,
                symbols.reshape(-1), data, decoder,
            )  # fmt: skip
            return symbols.reshape(-1, 2)
        step = 1 if network and len(decoder) else width  # the network sees pixels, which must be decoded before
        for x in range(0, width, step):
            place = (stage, y + REACH, x + REACH, x + REACH + step)
            mixing.run(
                self.padded, place, self.coder.sizes[stage], self._below(stage, y, range(x, x + step)),
                self.table_bits, TABLES, self.learnt, symbols[x : x + step].reshape(-1), data, decoder,
            )  # fmt: skip
        return symbols.reshape(-1, 2)

    def _below(self, stage: int, y: int, columns: range) -> Ints:
        """What the network says of slots, (n * (LEVELS + 1),); nothing without one."""
        network = self.coder.network
        if network is None:
            return np.zeros(0, np.int64)
        rows, places = y + REACH, np.arange(columns.start, columns.stop)
        values = np.stack(
            [self.padded[stage + back, rows + down, places + REACH + right] for back, down, right in neighbours(stage)],
            1,
        )
        return network.distribution(values, stage, np.full(len(places), y), places, self.grid).ravel()


@dataclass(frozen=True)
class ContextMixing:
    """sizes: K of each stage, in coding order. network: of pixels, which have K = 256 in every stage."""

    sizes: tuple[int, ...]
    network: PixelNetwork | None = None

    @cached_property
    def flattened(self) -> list[tuple[Any, ...]]:
        """What compiled code takes of every plane of the network."""
        return [_compiled_pixels().flattened(layers) for layers in self.network.planes] if self.network else []

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, h, w) -> the bytes of every item and stage. Each item is coded alone."""
        found = []
        for one in codes:
            item = _Item(self, len(one), one.shape[1:])
            item.padded[:, REACH:-REACH, REACH:-REACH] = one
            found.append([item.encode(stage) for stage in range(len(one))])
        return found

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: tuple[int, int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, h, w), each below its K.

        Wrong bytes give wrong codes, as the check sums of the container tell, or CorruptCodes where they end too soon.
        """
        stages = len(payloads[0]) if payloads else 0
        found = np.zeros((len(payloads), stages, *grid), np.int64)
        for number, parts in enumerate(payloads):
            item = _Item(self, stages, grid)
            for stage, data in enumerate(parts):
                item.decode(stage, data)
            found[number] = item.padded[:, REACH:-REACH, REACH:-REACH]
        return found


@cache
def _compiled_pixels() -> Any:
    """The module that needs numba, of the extra [fast]; None without it."""
    try:
        from . import compiled_pixels
    except (ImportError, RuntimeError):  # the latter where numba finds no folder to keep what it compiled
        return None
    return compiled_pixels
