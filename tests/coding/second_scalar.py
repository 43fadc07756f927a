"""Coder 2 of the second decoder: written from docs/file-format.md alone, without anything of vqkit.

Plain Python, one number at a time. `shape` is S, C and K, which the model knows.
"""

from collections import defaultdict

import numpy as np

from tests.coding.second_decoder import (
    Header,
    RangeDecoder,
    Refused,
    read_tensors,
    rows_and_columns,
)
from tests.coding.second_mixing import SQUASH, STRETCH, clip

# Shapes, types and bounds of the document are checked, as a reader of it would.
NAMES = ["counts", "levels", "predicted", "probabilities", "weights"]


def size(n: int) -> int:
    return min(11, (n * n).bit_length())


def sign(n: int) -> int:
    if n == 0:
        return 0
    return 1 if n < 0 else 2


class Scalar:
    """As `Prior` of the second decoder.

    `data` is what is in coder.safetensors, if there is such a file.
    """

    def __init__(self, data: bytes | None, header: Header, shape: tuple[int, int, int]):
        if header.coder != 2:
            raise Refused("WrongModel")
        self.stages, self.channels, self.levels = shape
        if header.stages > self.stages:
            raise Refused("CorruptHeader")
        self.half = (self.levels - 1) // 2
        self.tensors = None if data is None else self.checked(read_tensors(data))

    def checked(self, tensors: dict[str, np.ndarray]) -> dict[str, list]:
        width = self.stages * 7 * (32 * self.channels + 1024)
        shapes = [(7, width), (1,), (self.channels,), (7, width), (84 * self.stages, 7)]
        bounds = [(0, 250), (self.levels,) * 2, (0, 1), (24, 65512), (-(1 << 24), 1 << 24)]
        if sorted(tensors) != NAMES or [tensors[name].shape for name in NAMES] != shapes:
            raise ValueError("other tensors")
        for name, (low, high) in zip(NAMES, bounds, strict=True):
            if tensors[name].min() < low or tensors[name].max() > high:
                raise ValueError("out of bounds")
        if tensors["predicted"][8:].any():
            raise ValueError("out of bounds")
        return {name: value.tolist() for name, value in tensors.items()}

    def begin(self) -> None:
        """What an item starts from."""
        self.values = defaultdict(int)  # by stage, channel, row and column
        width = self.stages * 7 * (32 * self.channels + 1024)
        if self.tensors is None:
            self.predicted = [0] * self.channels
            self.p = [[32768] * width for _ in range(7)]
            self.n = [[0] * width for _ in range(7)]
            self.w = [[18432] * 7 for _ in range(84 * self.stages)]
        else:
            self.predicted = self.tensors["predicted"]
            self.p = [list(row) for row in self.tensors["probabilities"]]
            self.n = [list(row) for row in self.tensors["counts"]]
            self.w = [list(row) for row in self.tensors["weights"]]

    def decode(self, payloads: list[bytes], grid: tuple[int, ...]) -> np.ndarray:
        """A payload for each of the first stages -> codes (stages, C, *grid)."""
        rows, columns = rows_and_columns(grid)
        self.begin()
        codes = np.zeros((len(payloads), self.channels, rows, columns), np.int64)
        for s, payload in enumerate(payloads):
            self.decoder = RangeDecoder(payload)
            self.activity = defaultdict(int)
            for y in range(rows):
                for x in range(columns):
                    self.position(s, y, x)
                    for c in range(self.channels):
                        codes[s, c, y, x] = self.v(s, c, y, x) + self.half
        return codes.reshape(len(payloads), self.channels, *grid)

    def v(self, s: int, c: int, y: int, x: int) -> int:
        return self.values.get((s, c, y, x), 0)

    def m(self, s: int, c: int, y: int, x: int) -> int:
        return abs(self.v(s, c, y, x))

    def bit(self, one: int) -> int:
        found = int(self.decoder.target() >= 65536 - one)
        self.decoder.advance(*((65536 - one, one) if found else (0, 65536 - one)))
        return found

    def even_bit(self) -> int:
        return self.bit(32768)

    def decision(self, s: int, d: int, z: int, contexts: list[int]) -> int:
        first = (7 * s + d) * (32 * self.channels + 1024)
        assert all(0 <= i < 32 * self.channels + 1024 for i in contexts) and 0 <= z < 12
        entries = [first + i for i in contexts]
        w = self.w[(7 * s + d) * 12 + z]
        a = [STRETCH[self.p[t][entries[t]]] for t in range(7)]
        total = sum(w[t] * a[t] for t in range(7))
        one = SQUASH[clip(total >> 16, -4096, 4095)]
        bit = self.bit(one)
        error = 65536 * bit - one
        for t, entry in enumerate(entries):
            w[t] += error * a[t] >> 16
            p, n = self.p[t][entry], self.n[t][entry]
            moved = p + ((65536 * bit - p) * (131072 // (2 * n + 3)) >> 16)
            self.p[t][entry] = clip(moved, 24, 65512)
            self.n[t][entry] = min(n + 1, 250)
        return bit

    def position(self, s: int, y: int, x: int) -> None:
        r = 0
        for f in range(0, self.channels, 8):
            e = min(f + 8, self.channels) - 1
            if f:
                z, contexts = self.group_contexts(s, f, e, y, x, r)
                if not self.decision(s, 6, z, contexts):
                    r = r >> 2
                    continue
            numbers: list[int] = []
            for c in range(f, e + 1):
                known = f > 0 and c == e and not any(numbers)
                b = self.number(s, c, y, x, r, known)
                numbers.append(b)
                guess = self.guess(c, y, x) if s == 0 and self.predicted[c] else 0
                self.values[s, c, y, x] = clip(b + guess, -self.half, self.half)
                r = r * 3 // 4 + 4 * min(abs(b), 15)
        self.activity[y, x] = sum(min(self.m(s, c, y, x), 3) for c in range(self.channels))

    def guess(self, c: int, y: int, x: int) -> int:
        west, north = self.v(0, c, y, x - 1), self.v(0, c, y - 1, x)
        if y == 0:
            return west
        if x == 0:
            return north
        plane = west + north - self.v(0, c, y - 1, x - 1)
        return max(min(west, north), min(max(west, north), plane))

    def number(self, s: int, c: int, y: int, x: int, r: int, known: bool) -> int:
        z, contexts = self.magnitude_contexts(s, c, y, x, r)
        u = 1 if known else 0
        while u < 20 and self.decision(s, min(u, 4), z, contexts):
            u += 1
        if u == 20:
            length = 0
            while length < 9 and self.even_bit():
                length += 1
            e = 1
            for _ in range(length):
                e = 2 * e + self.even_bit()
            u = 20 + e - 1
        if u == 0:
            return 0
        contexts[0] = 32 * c + 3 * sign(self.v(s, c, y, x - 1)) + sign(self.v(s, c, y - 1, x))
        contexts[1] = 32 * c + sign(self.v(s, c, y, x - 1))
        contexts[5] = 32 * c + (sign(self.v(s - 1, c, y, x)) if s else 0)
        return u if self.decision(s, 5, 0, contexts) else -u

    def around(self, y: int, x: int) -> int:
        return size(self.activity.get((y, x - 1), 0) + self.activity.get((y - 1, x), 0))

    def magnitude_contexts(self, s: int, c: int, y: int, x: int, r: int) -> tuple[int, list[int]]:
        def v(down: int, right: int) -> int:
            return self.v(s, c, y + down, x + right)

        def m(down: int, right: int) -> int:
            return abs(v(down, right))

        if s == 0 and self.predicted[c]:
            left, up = abs(v(0, -1) - v(-1, -1)), abs(v(-1, 0) - v(-1, -1))
            far = abs(v(0, -2) - v(0, -1)) + abs(v(-1, 1) - v(-1, 0))
        else:
            left, up = m(0, -1), m(-1, 0)
            far = m(-1, -1) + m(-1, 1) + m(0, -2) + m(-2, 0)
        beside = 0
        for other in range(c - 2, c + 4):
            if other != c and 0 <= other < self.channels:
                beside += self.m(s, other, y, x - 1) + self.m(s, other, y - 1, x)
        z, b, rest = size(2 * (left + up) + far), size(beside), size(r)
        sixth, last = self.around(y, x), 0
        if s > 0:
            around = 0
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if (down, right) != (0, 0):
                        twice = 2 if down == 0 or right == 0 else 1
                        around += twice * self.m(s - 1, c, y + down, x + right)
            before = min(self.m(s - 1, c, y, x), 3)
            if s > 1 and self.v(s - 2, c, y, x) != 0:
                before = max(before, 2)
            sixth = 4 * min(size(around), 7) + before
            last = int(before > 0)
        own, shared = 32 * c, 32 * self.channels
        return z, [
            own + z,
            own + 4 * min(left, 3) + min(up, 3),
            own + b,
            shared + 12 * z + rest,
            own + rest,
            own + sixth,
            shared + (min(z, 7) * 8 + min(b, 7)) * 16 + 2 * min(rest, 7) + last,
        ]

    def group_contexts(
        self, s: int, f: int, e: int, y: int, x: int, r: int
    ) -> tuple[int, list[int]]:
        def m3(s: int, c: int, y: int, x: int) -> int:
            return min(self.m(s, c, y, x), 3)

        group = range(f, e + 1)
        left = sum(self.v(s, c, y, x - 1) != 0 for c in group)
        up = sum(self.v(s, c, y - 1, x) != 0 for c in group)
        total = sum(2 * m3(s, c, y, x - 1) + 2 * m3(s, c, y - 1, x) for c in group)
        z = size(total + sum(m3(s, c, y - 1, x + 1) for c in group))
        before = size(sum(m3(s - 1, c, y, x) for c in group) if s else 0)
        rest = size(r)
        shared = 32 * self.channels
        return z, [
            32 * f + z,
            32 * f + 5 * min(left, 4) + min(up, 4),
            32 * f + self.around(y, x),
            shared + 12 * z + rest,
            32 * f + rest,
            32 * f + before,
            shared + (min(z, 7) * 8 + min(before, 7)) * 8 + min(rest, 7),
        ]
