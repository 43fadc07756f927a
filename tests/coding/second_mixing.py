"""Coder 1 of the second decoder: written from docs/file-format.md alone, without anything of vqkit.

Plain Python, one number at a time. `sizes` are the K of the stages, which the model knows.
"""

from math import prod

import numpy as np

from tests.coding.second_decoder import (
    Header,
    RangeDecoder,
    Refused,
    integer_root,
    read_tensors,
    seen_from,
)

MASK = 2**32 - 1
R = [integer_root(1 << 7680 - j, 256) for j in range(256)]
E = [R[i % 256] >> i // 256 for i in range(4097)]
UPPER = [(1 << 46) // ((1 << 30) + E[step]) for step in range(4096)]
LOWER = [(E[step] << 16) // ((1 << 30) + E[step]) for step in range(4096, 0, -1)]
SQUASH = {step: min(max(p, 1), 65535) for step, p in enumerate(LOWER + UPPER, -4096)}
NAMES = "first rows columns second second_bias third third_bias last last_bias".split()


def all_stretched() -> list[int]:
    """stretch of the document: for each p from 0."""
    found, step = [], -4096
    for p in range(65536):
        while step < 4095 and SQUASH[step] < p:
            step += 1
        found.append(step)
    return found


STRETCH = all_stretched()


def clip(number: int, low: int, high: int) -> int:
    return min(max(number, low), high)


def logit(low: int, middle: int, end: int) -> int:
    return STRETCH[clip(((end - middle) << 16) // (end - low), 1, 65535)]


def hashed(*numbers: int) -> int:
    found = numbers[0]
    for number in numbers[1:]:
        found = (found * 625341585 + (number & MASK) + 1) & MASK
    return found


class Network:
    """`data` is what is in lossless.safetensors."""

    def __init__(self, data: bytes, channels: int):
        tensors = {name: tensor.astype(np.int64) for name, tensor in read_tensors(data).items()}
        if (
            set(tensors) != {f"{n}.{name}" for n in range(channels) for name in NAMES}
            or not 1 <= channels <= 4
        ):
            raise ValueError("other tensors")
        self.layers = [{name: tensors[f"{n}.{name}"] for name in NAMES} for n in range(channels)]
        for n, layers in enumerate(self.layers):
            h, gh, gw = layers["second_bias"].size, len(layers["rows"]), len(layers["columns"])
            shapes = [
                (2 * (24 + 9 * n) + 1, h),
                (gh, h),
                (gw, h),
                (h, h),
                (h,),
                (h, h),
                (h,),
                (h, 12),
                (12,),
            ]
            if [layers[name].shape for name in NAMES] != shapes or not all(
                1 <= side <= 1024 for side in (h, gh, gw)
            ):
                raise ValueError("other shapes")
            for name in NAMES:
                if np.abs(layers[name]).max() > (
                    32767 if name in ("first", "second", "third", "last") else 1 << 28
                ):
                    raise ValueError("out of bounds")

    def below(self, c, n: int, y: int, x: int, h: int, w: int) -> list[int]:
        """B of the document. `c(back, down, right)`."""
        layers = self.layers[n]
        values, west, north = [c(*place) for place in around(n)], c(0, 0, -1), c(0, -1, 0)
        level = (west + north) >> 1
        given = [v - level for v in values] + [64 * (v == 0) for v in values] + [level]
        a = np.array(given) @ layers["first"]
        a += (
            layers["rows"][y * len(layers["rows"]) // h]
            + layers["columns"][x * len(layers["columns"]) // w]
        )
        d = np.clip((a + 256) >> 9, 0, 1023)
        for name in ("second", "third"):
            d = np.clip((d @ layers[name] + layers[f"{name}_bias"] + 512) >> 10, 0, 1023)
        o = ((d @ layers["last"] + layers["last_bias"] + 128) >> 8).tolist()
        anchors = [level, west, north, west + north - c(0, -1, -1)]
        if n:
            anchors[1] = west + c(-1, 0, 0) - c(-1, 0, -1)
            anchors[2] = north + c(-1, 0, 0) - c(-1, -1, 0)
        u = [E[min((max(o[:4]) - one) >> 1, 4096)] for one in o[:4]]
        u = [(one << 16) // sum(u) for one in u]
        slopes = [E[clip(one >> 1, -2048, 1024) + 2048] for one in o[8:]]
        found = [0]
        for j in range(1, 256):
            total = 0
            for k in range(4):
                step = ((8 * j - 4 - 8 * anchors[k] - o[4 + k]) * slopes[k]) >> 21
                total += u[k] * SQUASH[clip(step, -4096, 4095)]
            found.append(((total >> 8) * 255 >> 8) + 256 * j)
        return found + [((1 << 24) * 255 >> 8) + 256 * 256]


def around(n: int) -> list[tuple[int, int, int]]:
    """The neighbours of a value in channel n."""
    square = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    own = [(down, right) for down in range(-3, 1) for right in range(-3, 4)]
    found = [(0, *place) for place in own if place < (0, 0)]
    return found + [(-back, *place) for back in range(1, n + 1) for place in square]


class Linear:
    """The linear prediction of a channel."""

    def __init__(self, n: int):
        self.before = around(n)
        count = len(self.before)
        self.weights, self.targets = [0] * count, [0] * count
        self.moments = [[0] * count for _ in range(count)]
        self.deviations, self.errors = [2048] * 16, {}

    def predict(self, c, inside, y: int, x: int):
        def middle(back):
            west, north = c(back, 0, -1), c(back, -1, 0)
            return west if y == 0 else north if x == 0 else (west + north) >> 1

        self.given = [
            c(*place) - middle(place[0]) if inside(*place) else 0 for place in self.before
        ]
        self.base, self.y, self.x = middle(0), y, x
        total = 65536 * self.base + sum(
            w * d for w, d in zip(self.weights, self.given, strict=True)
        )
        self.mean = clip(total >> 13, 0, 2040)
        west, north, corner, east = (
            self.errors.get((y + down, x + right), 0)
            for down, right in ((0, -1), (-1, 0), (-1, -1), (-1, 1))
        )
        near = 2 * (west + north) + corner + east
        self.kind = clip((near * near).bit_length() - 4, 0, 15)
        self.slope = (1 << 27) // self.deviations[self.kind]

    def below(self, j: int) -> int:
        if j in (0, 256):
            return j << 16
        step = ((8 * j - 4 - self.mean) * self.slope) >> 12
        return SQUASH[clip(step, -4096, 4095)] * 255 + 256 * j

    def learn(self, value: int):
        error, known = abs(8 * value - self.mean), self.deviations[self.kind]
        self.errors[self.y, self.x] = error
        self.deviations[self.kind] = max(known + error - (known >> 6), 64)
        for i, one in enumerate(self.given):
            scaled = one * (self.slope >> 10)
            self.targets[i] += scaled * (value - self.base) - (self.targets[i] >> 10)
            for j, other in enumerate(self.given):
                self.moments[i][j] += scaled * other - (self.moments[i][j] >> 10)
        for i, row in enumerate(self.moments):
            rest = 65536 * self.targets[i]
            rest -= sum(m * w for m, w in zip(row, self.weights, strict=True))
            moved = self.weights[i] + rest // (row[i] + 2048)
            self.weights[i] = clip(moved, -(1 << 18), 1 << 18)


class Mixing:
    """As `Prior` of the second decoder.

    `data` is what is in lossless.safetensors, if there is such a file.
    """

    def __init__(
        self,
        data: bytes | None,
        header: Header,
        sizes: tuple[int, ...],
        sides: tuple[int, ...] | None = None,
    ):
        if header.coder != 1:
            raise NotImplementedError
        if header.stages > len(sizes):
            raise Refused("CorruptHeader")
        self.sizes, self.sides, self.network = sizes, sides or (1,) * len(sizes), None
        if header.holds == 1 and data is not None:
            self.network = Network(data, len(sizes))

    def decode(self, payloads: list[bytes], grid: tuple[int, ...]) -> list[np.ndarray]:
        finest = prod(self.sides[-1] * side for side in grid)
        self.b = clip((16 * finest).bit_length(), 12, 20)
        self.entries = [
            {} for _ in range(14)
        ]  # number: [p, n]; what is not there is as it was at first
        self.v = [65536] * 32
        self.beside = [[0] * 16 for _ in range(8)]
        self.w = [[1024 if self.network else 12288] * 9 for _ in range(14)]
        found: list[np.ndarray] = []
        for stage, payload in enumerate(payloads):
            self.codes = seen_from(found, self.sides, grid)
            self.grid = self.codes[-1].shape
            self.linear = Linear(stage)
            decoder = RangeDecoder(payload)
            for y, x in np.ndindex(self.grid):
                self.codes[-1][y, x] = self.code(decoder, stage, y, x)
            found.append(self.codes[-1].reshape([self.sides[stage] * side for side in grid]))
        return found

    def contexts(self, s: int, c) -> list[int]:
        west, north, corner = c(0, 0, -1), c(0, -1, 0), c(0, -1, -1)
        g = west + north - corner
        found = [
            hashed(s),
            hashed(s, west),
            hashed(s, north),
            hashed(s, west, north),
            hashed(s, west, north, corner, c(0, -1, 1)),
            hashed(s, west, c(0, 0, -2)),
            hashed(s, north, c(0, -2, 0)),
            hashed(s, g),
            hashed(s, (west + north) >> 1, abs(west - north) >> 2),
        ]
        if s > 0:
            here = c(-1, 0, 0)
            found += [hashed(s, here), hashed(s, here, west), hashed(s, here, north)]
            found += [hashed(s, west + here - c(-1, 0, -1), g)]
        return found + ([hashed(s, here, c(-2, 0, 0))] if s > 1 else [])

    def code(self, decoder: RangeDecoder, stage: int, y: int, x: int) -> int:
        (h, w), size = self.grid, self.sizes[stage]

        def inside(back: int, down: int, right: int) -> bool:
            return 0 <= y + down < h and 0 <= x + right < w

        def c(back: int, down: int, right: int) -> int:
            place = y + down, x + right
            return int(self.codes[stage + back][place]) if inside(back, down, right) else 0

        below = self.network.below(c, stage, y, x, h, w) if self.network else None
        linear = self.linear
        if below:
            linear.predict(c, inside, y, x)
        contexts, low, node = self.contexts(stage, c), 0, 1
        for i in range((size - 1).bit_length() - 1, -1, -1):
            middle = low + (1 << i)
            if middle >= size:
                node *= 2
                continue
            seen = []
            for t, context in enumerate(contexts):
                number = ((context + node * 625341585) & MASK) * 739982445 & MASK
                seen.append(self.entries[t].setdefault(number >> 32 - self.b, [32768, 0]))
            logits = [STRETCH[p] for p, _ in seen]
            total = sum(self.w[t][n.bit_length()] * logits[t] for t, (_, n) in enumerate(seen))
            if below:
                edges = low, middle, middle + (1 << i)
                own = logit(*(below[j] for j in edges))
                other = logit(*(linear.below(j) for j in edges))
                total += self.v[i] * own + self.beside[i][linear.kind] * other
            one = SQUASH[clip(total >> 16, -4096, 4095)]
            bit = int(decoder.target() >= 65536 - one)
            decoder.advance(*((65536 - one, one) if bit else (0, 65536 - one)))
            error = 65536 * bit - one
            for t, entry in enumerate(seen):
                p, n = entry
                self.w[t][n.bit_length()] += error * logits[t] >> 16
                entry[0] = clip(p + ((65536 * bit - p) * (131072 // (2 * n + 3)) >> 16), 16, 65520)
                entry[1] = min(n + 1, 255)
            if below:
                self.v[i] += error * own >> 15
                self.beside[i][linear.kind] += error * other >> 15
            low, node = middle if bit else low, node * 2 + bit
        if below:
            linear.learn(low)
        return low
