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
from functools import cache
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

    def code(self, stage: int, y: int, columns: range, data: Any, decoder: Any) -> Ints:
        """Slots of a row: see `mixing.code_slots`. Gives symbols (n, bits, 2)."""
        from . import mixing

        size = self.coder.sizes[stage]
        symbols = np.zeros((len(columns), (size - 1).bit_length(), 2), np.int64)
        symbols[:, :, 1] = TOTAL
        place = (stage, y + REACH, columns.start + REACH, columns.stop + REACH)
        mixing.run(
            self.padded, place, size, self._below(stage, y, columns), self.table_bits, TABLES, self.learnt,
            symbols.reshape(-1), data, decoder,
        )  # fmt: skip
        return symbols

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        decoder = np.array([1 << 32, int.from_bytes(data[:4].ljust(4, b"\0")), 4])
        given, network = np.frombuffer(data, np.uint8), self.coder.network
        if network and (compiled := _compiled_pixels()):
            compiled.decode_plane(
                self.padded, stage, *compiled.flattened(network.planes[stage]), self.table_bits, TABLES, self.learnt,
                given, decoder,
            )  # fmt: skip
            check_position(decoder[2], len(data))
            return
        width = 1 if network else self.grid[1]  # the network sees the code before, which compiled slots do not wait for
        for y in range(self.grid[0]):
            for x in range(0, self.grid[1], width):
                self.code(stage, y, range(x, x + width), given, decoder)
                check_position(decoder[2], len(data))

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

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, h, w) -> the bytes of every item and stage. Each item is coded alone."""
        return [list(map(bytes, self._encode_item(item))) for item in codes]

    def _encode_item(self, codes: Ints) -> list[bytes]:
        item = _Item(self, len(codes), codes.shape[1:])
        item.padded[:, REACH:-REACH, REACH:-REACH] = codes
        found, nothing = [], np.frombuffer(b"", np.uint8)
        for stage in range(len(codes)):
            encoder = Encoder()
            for y in range(codes.shape[1]):
                symbols = item.code(stage, y, range(codes.shape[2]), nothing, np.zeros(0, np.int64))
                for start, frequency in symbols.reshape(-1, 2).tolist():
                    encoder.encode(start, frequency)
            found.append(encoder.finish())
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
    except ImportError:
        return None
    return compiled_pixels
