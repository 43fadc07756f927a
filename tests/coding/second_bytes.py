"""Coder 3 of the second decoder: written from docs/file-format.md alone, without anything of vqkit.

Plain Python, one number at a time.
"""

import numpy as np

from tests.coding.second_decoder import Header, RangeDecoder, Refused
from tests.coding.second_mixing import MASK, SQUASH, STRETCH, clip

MOST = (40, 24, 12, 6, 5)
ONE = 1 << 28
LENGTHS = {
    "maps": 8 * 256 * 2,
    "matches": 32 * 2,
    "by_node": 256 * 19,
    "by_match": 72 * 19,
    "final": 256 * 33 * 2,
}


def numbered() -> dict[tuple[int, int, int], int]:
    found = {(0, 0, 0): 0}
    for z in range(41):
        for n in range(41):
            fewer, more = sorted((z, n))
            if (z, n) == (0, 0) or fewer > 4 or more > MOST[fewer]:
                continue
            found[z, n, 0] = len(found)
            if fewer and more <= 12:
                found[z, n, 1] = len(found)
    return found


NUMBERS = numbered()
COUNTS = list(NUMBERS)


def behind(state: int, bit: int) -> int:
    counts = COUNTS[state]
    mine, other = counts[bit], counts[1 - bit]
    if other > 2:
        other = (other + 3) // 2 if other < 6 else (other + 5) // 3
    mine += 1
    if mine >= 5 and other >= 5:
        mine = other = 4
    mine = min(mine, MOST[min(other, 4)])
    other = min(other, MOST[min(mine, 4)])
    last = bit if mine > 0 and other > 0 and max(mine, other) <= 12 else 0
    return NUMBERS[(other, mine, last) if bit else (mine, other, last)]


def hashed(found: int, *numbers: int) -> int:
    for number in numbers:
        found = (found * 625341585 + number + 1) & MASK
    return found


def is_in_word(c: int) -> bool:
    return 97 <= c | 32 <= 122 or 48 <= c <= 57 or c > 127


class Bytes:
    """As `Prior` of the second decoder; `tensors` are those of lossless.safetensors."""

    def __init__(self, tensors: dict[str, np.ndarray], header: Header):
        if header.coder != 3 or header.holds != 1:
            raise NotImplementedError
        if header.stages != 1:
            raise Refused("CorruptHeader")
        if any(len(tensors[name]) != length for name, length in LENGTHS.items()):
            raise ValueError("other lengths")
        self.tensors = {name: tensor.tolist() for name, tensor in tensors.items()}

    def decode(self, payloads: list[bytes], grid: tuple[int, ...]) -> list[np.ndarray]:
        for name in LENGTHS:
            setattr(self, name, list(self.tensors[name]))
        self.buckets = list(self.tensors["buckets"])
        self.text = list(self.tensors["history"])
        self.last = len(self.buckets) // 16 - 1
        self.found = [0] * (self.last + 1)
        for place in range(6, len(self.text)):
            self.found[self.slot(self.contexts(place, 0, 0))] = place
        decoder = RangeDecoder(payloads[0])
        word = before = self.pointer = self.length = 0
        start = len(self.text)
        for _ in range(grid[0]):
            contexts = self.contexts(len(self.text), word, before)
            self.follow(contexts)
            c = self.byte(decoder, contexts)
            self.text.append(c)
            if is_in_word(c):
                word = hashed(word, c | 32 if c < 128 else c)
            elif word:
                before, word = word, 0
        return [np.array(self.text[start:])]

    def contexts(self, a: int, word: int, before: int) -> list[int]:
        found = []
        for k in range(6):
            found.append(hashed(0, *(self.text[a - 1 - i] for i in range(k + 1)), k))
        return [*found, hashed(word, 6), hashed(before, word, 7)]

    def slot(self, contexts: list[int]) -> int:
        return ((contexts[5] * 739982445 & MASK) >> 8) & self.last

    def follow(self, contexts: list[int]) -> None:
        a = len(self.text)
        if self.length and self.text[self.pointer] == self.text[a - 1]:
            self.length = min(self.length + 1, 31)
            self.pointer += 1
        else:
            self.length = 0
        slot = self.slot(contexts)
        if not self.length:
            self.pointer = self.found[slot]
            while (
                self.length < min(31, self.pointer)
                and self.text[self.pointer - 1 - self.length] == self.text[a - 1 - self.length]
            ):
                self.length += 1
            if self.length < 5:
                self.length = 0
        self.found[slot] = a

    def enter(self, contexts: list[int], node: int) -> list[int]:
        """Where the buckets of all contexts begin."""
        found = []
        for context in contexts:
            x = hashed(context, node) * 739982445 & MASK
            x = (x ^ x >> 15) * 625341585 & MASK
            check, i = x & 255, (x >> 8) & self.last
            j = i ^ 1
            if self.buckets[16 * i] == check:
                chosen = i
            elif self.buckets[16 * j] == check:
                chosen = j
            else:
                seen = [sum(COUNTS[self.buckets[16 * one + 1]][:2]) for one in (i, j)]
                chosen = j if seen[1] < seen[0] else i
                self.buckets[16 * chosen : 16 * chosen + 16] = [check] + [0] * 15
            found.append(16 * chosen)
        return found

    def moved(self, table: list[int], place: int, bit: int) -> None:
        p, n = table[2 * place], table[2 * place + 1]
        table[2 * place] = p + ((ONE * bit - p) * (131072 // (2 * n + 3)) >> 16)
        table[2 * place + 1] = min(n + 1, 255)

    def byte(self, decoder: RangeDecoder, contexts: list[int]) -> int:
        node = 1
        for i in range(7, -1, -1):
            if i in (7, 3):
                buckets, inner = self.enter(contexts, node), 1
            states = [self.buckets[bucket + inner] for bucket in buckets]
            inputs: list[int] = []
            for c, s in enumerate(states):
                p = clip(self.maps[2 * (256 * c + s)] >> 12, 1, 65535)
                inputs += [STRETCH[p], (p - 32768) >> 4] if s else [0, 0]
            order = max([k + 1 for k in range(6) if states[k]], default=0)
            m, right = 0, None
            if self.length and (self.text[self.pointer] | 256) >> i + 1 == node:
                right = self.text[self.pointer] >> i & 1
                p = clip(self.matches[2 * self.length] >> 12, 1, 65535)
                sign = 1 if right else -1
                inputs += [sign * STRETCH[p], sign * ((p - 32768) >> 4)]
                m = 1 + min(self.length - 1, 27) // 4
            else:
                inputs += [0, 0]
            inputs.append(256)
            mixers = [(self.by_node, 19 * node), (self.by_match, 19 * (8 * order + m))]
            logits = []
            for weights, first in mixers:
                total = sum(weights[first + k] * one for k, one in enumerate(inputs))
                logits.append(clip(total >> 16, -4096, 4095))
            logit = sum(logits) >> 1
            g, r = divmod(logit + 4096, 256)
            place = 33 * node + g
            q = (self.final[2 * place] * (256 - r) + self.final[2 * place + 2] * r) // 256 >> 12
            one = clip((SQUASH[logit] + q) >> 1, 1, 65535)
            bit = int(decoder.target() >= 65536 - one)
            decoder.advance(*((65536 - one, one) if bit else (0, 65536 - one)))
            for (weights, first), own in zip(mixers, logits, strict=True):
                for k, given in enumerate(inputs):
                    weight = weights[first + k] + ((65536 * bit - SQUASH[own]) * given >> 17)
                    weights[first + k] = clip(weight, -(1 << 24), 1 << 24)
            self.moved(self.final, place + (2 * r > 256), bit)
            if right is not None:
                self.moved(self.matches, self.length, int(right == bit))
            for c, bucket in enumerate(buckets):
                s = self.buckets[bucket + inner]
                self.moved(self.maps, 256 * c + s, bit)
                self.buckets[bucket + inner] = behind(s, bit)
            node, inner = 2 * node + bit, 2 * inner + bit
        return node & 255
