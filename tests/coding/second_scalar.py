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
NAMES = ["counts", "groups", "levels", "magnitudes", "partners", "predicted", "probabilities"]
NAMES += ["signs", "weights"]


def size(n: int) -> int:
    return min(11, (n * n).bit_length())


def level(n: int) -> int:
    e = min(n, 8191)
    return clip((e * e * e * e).bit_length() - 20, 0, 31)


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
        stages, channels = self.stages, self.channels
        width = stages * 7 * (32 * channels + 1024)
        known = {
            "counts": ((6, width), 0, 250),
            "groups": ((stages, 17, (channels + 7) // 8), 0, 32767),
            "levels": ((1,), self.levels, self.levels),
            "magnitudes": ((stages, 24, channels), 0, 32767),
            "partners": ((stages, channels, 12), 0, channels - 1),
            "predicted": ((channels,), 0, 1),
            "probabilities": ((6, width), 24, 65512),
            "signs": ((stages, channels, 4), 0, 7 * channels - 1),
            "weights": ((stages * 7 * (channels + 144), 6), -(1 << 24), 1 << 24),
        }
        if sorted(tensors) != NAMES:
            raise ValueError("other tensors")
        for name, (shape, low, high) in known.items():
            if tensors[name].shape != shape:
                raise ValueError("another shape")
            if tensors[name].min() < low or tensors[name].max() > high:
                raise ValueError("out of bounds")
        if tensors["predicted"][8:].any():
            raise ValueError("out of bounds")
        return {name: value.tolist() for name, value in tensors.items()}

    def first_numbers(self) -> dict[str, list]:
        stages, channels = self.stages, self.channels
        groups = (channels + 7) // 8
        width = stages * 7 * (32 * channels + 1024)
        around = [1024, 1024, 512, 512, 512, 512]
        magnitudes = [*around, 1024, 0, 0, 0, 0, 128, *[0] * 12]
        sums = [*around, 0, 0, 0, 0, 512, 0, 0, 0, 0, 0, 128]
        return {
            "predicted": [0] * channels,
            "probabilities": [[32768] * width for _ in range(6)],
            "counts": [[0] * width for _ in range(6)],
            "weights": [[18432] * 6 for _ in range(stages * 7 * (channels + 144))],
            "partners": [[[0] * 12] * channels] * stages,
            "signs": [[[0] * 4] * channels] * stages,
            "magnitudes": [[[one] * channels for one in magnitudes]] * stages,
            "groups": [[[one] * groups for one in sums]] * stages,
        }

    def begin(self) -> None:
        """What an item starts from."""
        self.values = defaultdict(int)  # by stage, channel, row and column
        self.coded = defaultdict(int)  # magnitudes of the numbers coded there
        first = self.first_numbers() if self.tensors is None else self.tensors
        self.first = first
        self.p = [list(row) for row in first["probabilities"]]
        self.n = [list(row) for row in first["counts"]]
        self.w = [list(row) for row in first["weights"]]

    def decode(self, payloads: list[bytes], grid: tuple[int, ...]) -> np.ndarray:
        """A payload for each of the first stages -> codes (stages, C, *grid)."""
        rows, columns = rows_and_columns(grid)
        self.begin()
        codes = np.zeros((len(payloads), self.channels, rows, columns), np.int64)
        for s, payload in enumerate(payloads):
            self.decoder = RangeDecoder(payload)
            for y in range(rows):
                for x in range(columns):
                    self.position(s, y, x)
                    for c in range(self.channels):
                        codes[s, c, y, x] = self.v(s, c, y, x) + self.half
        return codes.reshape(len(payloads), self.channels, *grid)

    def v(self, s: int, c: int, y: int, x: int) -> int:
        return self.values.get((s, c, y, x), 0)

    def m(self, s: int, c: int, y: int, x: int) -> int:
        return self.coded.get((s, c, y, x), 0)

    def q(self, s: int, j: int, y: int, x: int) -> int:
        """The sum of a group."""
        if s < 0 or j < 0:
            return 0
        channels = range(8 * j, min(8 * j + 8, self.channels))
        return sum(min(self.m(s, c, y, x), 3) for c in channels)

    def a(self, s: int, y: int, x: int) -> int:
        """The sum of a position."""
        if s < 0:
            return 0
        return sum(min(self.m(s, c, y, x), 3) for c in range(self.channels))

    def bit(self, one: int) -> int:
        found = int(self.decoder.target() >= 65536 - one)
        self.decoder.advance(*((65536 - one, one) if found else (0, 65536 - one)))
        return found

    def even_bit(self) -> int:
        return self.bit(32768)

    def decision(self, s: int, d: int, k: int, z: int, contexts: list[int]) -> int:
        first = (7 * s + d) * (32 * self.channels + 1024)
        assert all(0 <= i < 32 * self.channels + 1024 for i in contexts) and 0 <= z < 144
        entries = [first + i for i in contexts]
        w = self.w[(7 * s + d) * (self.channels + 144) + k]
        u = self.w[(7 * s + d) * (self.channels + 144) + self.channels + z]
        a = [STRETCH[self.p[t][entries[t]]] for t in range(6)]
        total = sum((w[t] + u[t]) * a[t] for t in range(6))
        one = SQUASH[clip(total >> 17, -4096, 4095)]
        bit = self.bit(one)
        error = 65536 * bit - one
        for t, entry in enumerate(entries):
            w[t] += error * a[t] >> 15
            u[t] += error * a[t] >> 15
            p, n = self.p[t][entry], self.n[t][entry]
            moved = p + ((65536 * bit - p) * (131072 // (2 * n + 3)) >> 16)
            self.p[t][entry] = clip(moved, 24, 65512)
            self.n[t][entry] = min(n + 1, 250)
        return bit

    def position(self, s: int, y: int, x: int) -> None:
        r = 0
        for f in range(0, self.channels, 8):
            e = min(f + 8, self.channels) - 1
            expected = 0
            if f:
                expected = self.group_level(s, f // 8, y, x)
                contexts = self.group_contexts(s, f, y, x, r, expected)
                if not self.decision(s, 6, f, expected // 2, contexts):
                    r = r >> 2
                    continue
            numbers: list[int] = []
            for c in range(f, e + 1):
                due = 0
                if f and not any(numbers):
                    due = 1 if c < f + 4 else 2
                b = self.number(s, c, y, x, r, expected // 2, due, due > 0 and c == e)
                numbers.append(b)
                guess = self.guess(c, y, x) if s == 0 and self.first["predicted"][c] else 0
                self.values[s, c, y, x] = clip(b + guess, -self.half, self.half)
                self.coded[s, c, y, x] = min(abs(b), 127)
                r = r * 3 // 4 + 4 * min(abs(b), 15)

    def group_level(self, s: int, j: int, y: int, x: int) -> int:
        def q(back: int, group: int, down: int, right: int) -> int:
            return self.q(s - back, j + group, y + down, x + right)

        beside = sum(q(0, group, *near) for group in (-1, 1) for near in ((0, -1), (-1, 0)))
        numbers = [
            q(0, 0, 0, -1),
            q(0, 0, -1, 0),
            q(0, 0, -1, -1),
            q(0, 0, -1, 1),
            q(0, 0, 0, -2) + q(0, 0, -2, 0),
            q(0, -1, 0, 0),
            q(0, -2, 0, 0),
            q(0, -3, 0, 0),
            sum(q(0, -back, 0, 0) for back in range(1, j + 1)),
            beside,
            q(1, 0, 0, 0),
            q(1, -1, 0, 0),
            q(1, 1, 0, 0),
            q(1, 0, 0, -1) + q(1, 0, 0, 1) + q(1, 0, -1, 0) + q(1, 0, 1, 0),
            self.a(s - 1, y, x),
            q(2, 0, 0, 0),
            1,
        ]
        weights = self.first["groups"][s]
        return level(sum(weights[k][j] * one for k, one in enumerate(numbers)) >> 1)

    def guess(self, c: int, y: int, x: int) -> int:
        west, north = self.v(0, c, y, x - 1), self.v(0, c, y - 1, x)
        if y == 0:
            return west
        if x == 0:
            return north
        plane = west + north - self.v(0, c, y - 1, x - 1)
        return max(min(west, north), min(max(west, north), plane))

    def number(
        self, s: int, c: int, y: int, x: int, r: int, expected: int, due: int, known: bool
    ) -> int:
        z, contexts = self.magnitude_contexts(s, c, y, x, r, expected, due)
        u = 1 if known else 0
        while u < 20 and self.decision(s, min(u, 4), c, z, contexts):
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
        return u if self.decision(s, 5, c, 0, self.sign_contexts(s, c, y, x)) else -u

    def magnitude_contexts(
        self, s: int, c: int, y: int, x: int, r: int, expected: int, due: int
    ) -> tuple[int, list[int]]:
        def m(down: int, right: int, back: int = 0, channel: int = c) -> int:
            return self.m(s - back, channel, y + down, x + right)

        cross = m(0, -1, 1) + m(0, 1, 1) + m(-1, 0, 1) + m(1, 0, 1)
        corners = m(-1, -1, 1) + m(-1, 1, 1) + m(1, -1, 1) + m(1, 1, 1)
        j = c // 8
        near = self.q(s, j, y, x - 1) + self.q(s, j, y - 1, x)
        partners = self.first["partners"][s][c]
        numbers = [
            m(0, -1),
            m(-1, 0),
            m(-1, -1),
            m(-1, 1),
            m(0, -2),
            m(-2, 0),
            m(0, 0, 1),
            cross,
            corners,
            m(0, 0, 2),
            self.q(s - 1, j, y, x) if s else near,
            1,
            *(m(0, 0, 0, other) for other in partners[:6]),
            *(m(0, -1, 0, other) + m(-1, 0, 0, other) for other in partners[6:]),
        ]
        weights = self.first["magnitudes"][s]
        found = level(sum(weights[k][c] * one for k, one in enumerate(numbers)) >> 2)
        rest = min(size(r), 7)
        before = min(m(0, 0, 1), 3)
        if m(0, 0, 2):
            before = max(before, 2)
        own, shared = 32 * c, 32 * self.channels
        if s:
            last = own + 4 * min(size(2 * cross + corners), 7) + before
        else:
            last = own + size(self.a(0, y, x - 1) + self.a(0, y - 1, x))
        return found // 2 + 16 * due + 48 * min(before, 2), [
            own + found,
            own + 4 * min(m(0, -1), 3) + min(m(-1, 0), 3),
            shared + (8 * found + rest) * 4 + before,
            shared + (16 * found + expected) * 2 + min(due, 1),
            own + 2 * expected + min(before, 1),
            last,
        ]

    def sign_contexts(self, s: int, c: int, y: int, x: int) -> list[int]:
        def sg(back: int, channel: int, down: int, right: int) -> int:
            return sign(self.v(s - back, channel, y + down, x + right))

        def partner(k: int) -> int:
            site, o = divmod(self.first["signs"][s][c][k], self.channels)
            if site == 0 and o >= c:
                return 0
            places = [
                (0, 0, 0),
                (0, 0, -1),
                (0, -1, 0),
                (1, 0, -1),
                (1, -1, 0),
                (1, 0, 1),
                (1, 1, 0),
            ]
            back, down, right = places[site]
            return sg(back, o, down, right)

        west, north, before = sg(0, c, 0, -1), sg(0, c, -1, 0), sg(1, c, 0, 0)
        own = 32 * c
        return [
            own + 9 * west + 3 * north + sg(0, c, -1, -1),
            own + 9 * before + 3 * west + north,
            own + 9 * before + 3 * sg(2, c, 0, 0) + sg(1, c, 0, 1),
            own + 3 * before + sg(1, c, 1, 0),
            own + 9 * partner(0) + 3 * partner(1) + before,
            own + 9 * partner(2) + 3 * partner(3) + before,
        ]

    def group_contexts(self, s: int, f: int, y: int, x: int, r: int, found: int) -> list[int]:
        j = f // 8
        left, up = self.q(s, j, y, x - 1), self.q(s, j, y - 1, x)
        near = size(2 * left + 2 * up + self.q(s, j, y - 1, x + 1))
        before = size(self.q(s - 1, j, y, x))
        rest = size(r)
        shared = 32 * self.channels
        return [
            32 * f + found,
            32 * f + 5 * min(left, 4) + min(up, 4),
            shared + (8 * found + min(rest, 7)) * 4 + min(before, 3),
            shared + (min(near, 7) * 8 + min(before, 7)) * 8 + min(rest, 7),
            32 * f + rest,
            32 * f + before,
        ]
