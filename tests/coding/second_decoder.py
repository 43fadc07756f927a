"""A second decoder of .vq files, written from docs/file-format.md alone and without anything of
vqkit.

It proves that the document is complete: what this file does, anyone can do who has it. So it must
not import or copy from `vqkit.coding`; where the two disagree, one of them or the document is
wrong. It is simple and slow, one code at a time. Coder 1 is in second_mixing.py, coder 2 in
second_scalar.py.

`grid_of(*extent) -> grid` is what the model knows of its grid.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from math import prod
from types import SimpleNamespace

import numpy as np

BARE, FILE, BUNDLE, PARTS = range(4)
STAGE, NAME, NAMES = 1, 2, 4  # tags of sections
MAX_SECTIONS, MAX_BODY, MAX_NAME, MAX_NAMES = 256, 1 << 30, 1024, 1 << 28
TOTAL = 65536  # all frequencies together
LAYER = "qkv out up down".split()  # tensors of a layer

GridOf = Callable[..., tuple[int, ...]]


class Refused(ValueError):
    """`kind` is the name of the error in the document."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class Ended(Refused):
    """The bytes end too soon. Apart from the others because what came before may still be good."""

    def __init__(self):
        super().__init__("Truncated")


class Reader:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Ended
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, smallest: int, largest: int) -> int:
        number = 0
        for index in range(5):
            byte = self.take(1)[0]
            number |= (byte & 127) << 7 * index
            if byte < 128:
                if (byte == 0 and index > 0) or not smallest <= number <= largest:
                    raise Refused("OutOfBounds")
                return number
        raise Refused("OutOfBounds")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def check_crc(self, start: int = 0) -> None:
        """The next u32 is the crc of all bytes from `start` up to it."""
        found = zlib.crc32(self.data[start : self.position])
        if self.u32() != found:
            raise Refused("CorruptHeader")


def codes_crc(codes: list[np.ndarray], number: int, before: int = 0) -> int:
    """Of the codes of all arrays, one array after the other; goes on from the sum `before`."""
    return zlib.crc32(
        np.concatenate([[number], *map(np.ravel, codes)]).astype("<u4").tobytes(), before
    )


@dataclass
class Header:
    profile: int
    model: bytes
    coder: int
    signal: int = 0
    holds: int = 0
    stages: int = 0
    items: int = 1
    per_block: int = 1
    # (count, extent): a few bytes stand for many items
    runs: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    gain: int = 128

    def extents(self) -> Iterator[tuple[int, ...]]:
        """Of every item."""
        return chain.from_iterable(repeat(extent, count) for count, extent in self.runs)


def read_beginning(reader: Reader, profiles: tuple[int, ...]) -> Header:
    if reader.left < 4 or reader.take(3) != b"\x96vq":
        raise Refused("NotVq")
    version, profile = divmod(reader.take(1)[0], 16)
    if version == 0:
        raise Refused("NotVq")
    if version > 1 or profile > PARTS:
        raise Refused("NewerVersion")
    if profile not in profiles:
        raise Refused("WrongProfile")
    model = b"" if profile == BARE else reader.take(8)
    nibble, coder = divmod(reader.take(1)[0], 16)
    signal, holds = divmod(nibble, 2)
    if coder > 2 or (holds == 1 and (coder != 1 or profile == PARTS)):
        raise Refused("NewerVersion")
    header = Header(profile, model, coder, signal, holds)
    if coder == 2:
        header.gain = reader.take(1)[0]
    return header


def read_axes(reader: Reader, signal: int) -> int:
    return 2 if signal == 0 else reader.varint(1, 4)


def read_extent(reader: Reader, signal: int, axes: int) -> tuple[int, ...]:
    extent = tuple(reader.varint(1, 1 << (33 if signal else 20)) for _ in range(axes))
    if prod(extent) > 1 << (33 if signal else 28):
        raise Refused("OutOfBounds")
    return extent


def rows_and_columns(grid: tuple[int, ...]) -> tuple[int, int]:
    *others, columns = grid
    return prod(others), columns


def sections(reader: Reader, critical: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of all whole sections; a last one that is cut off is left out."""
    for _ in range(MAX_SECTIONS):
        if not reader.left:
            return
        try:
            tag = reader.varint(0, MAX_BODY)
            if tag == 0:
                raise Refused("TrailingBytes")
            body = reader.take(reader.varint(0, MAX_BODY))
        except Ended:
            return
        if tag % 2 and tag not in critical:
            raise Refused("UnknownSection")
        yield tag, body
    if reader.left:
        raise Refused("OutOfBounds")


def read_file(data: bytes) -> tuple[Header, list[bytes], bytes | None]:
    """Header, bodies of the whole stages, and body of the name."""
    reader = Reader(data)
    header = read_beginning(reader, (BARE, FILE))
    axes = read_axes(reader, header.signal)
    header.runs = [(1, read_extent(reader, header.signal, axes))]
    header.stages = reader.varint(1, 64)
    if header.profile == FILE:
        reader.check_crc()
    stages, name = [], None
    for tag, body in sections(reader, (STAGE,)):
        if tag == STAGE:
            if len(stages) == header.stages:
                raise Refused("TrailingBytes")
            if len(body) < 4:
                raise Refused("CorruptSection")
            stages.append(body)
        elif tag == NAME and name is None:
            name = body
    if not stages:
        raise Ended
    return header, stages, name


def read_bundle(data: bytes) -> tuple[Header, list[bytes], bytes | None]:
    """Header, the whole blocks, and body of the names."""
    reader = Reader(data)
    header = read_beginning(reader, (BUNDLE,))
    header.stages = reader.varint(1, 64)
    header.items = without_size = reader.varint(1, 1 << 24)
    header.per_block = reader.varint(1, 256)
    axes = read_axes(reader, header.signal)
    while without_size:
        count = reader.varint(1, without_size)
        header.runs.append((count, read_extent(reader, header.signal, axes)))
        without_size -= count
    reader.check_crc()
    start, lengths = reader.position, []
    for first in range(0, header.items, header.per_block):
        items = min(header.per_block, header.items - first)
        lengths.append(reader.varint(4 + header.stages * items, MAX_BODY))
    reader.check_crc(start)
    blocks = []
    for length in lengths:
        if length > reader.left:
            break
        blocks.append(reader.take(length))
    if not blocks:
        raise Ended
    names = None
    if len(blocks) == len(lengths):
        for tag, body in sections(reader, ()):
            names = body if tag == NAMES and names is None else names
    return header, blocks, names


def read_parts(data: bytes) -> tuple[Header, list[bytes], bytes | None]:
    """Header with a run for each part, the whole parts, and body of the name."""
    reader = Reader(data)
    header = read_beginning(reader, (PARTS,))
    length, part = reader.varint(1, 1 << 33), reader.varint(1, 1 << 33)
    header.stages = reader.varint(1, 64)
    reader.check_crc()
    if header.signal == 0 or -(-length // part) > 1 << 20:
        raise Refused("OutOfBounds")
    header.runs = [(1, (min(part, length - first),)) for first in range(0, length, part)]
    start = reader.position
    lengths = [reader.varint(4 + header.stages, MAX_BODY) for _ in header.runs]
    reader.check_crc(start)
    parts = []
    for size in lengths:
        if size > reader.left:
            break
        parts.append(reader.take(size))
    if not parts:
        raise Ended
    names = []
    if len(parts) == len(lengths):
        names = [body for tag, body in sections(reader, ()) if tag == NAME]
    return header, parts, names[0] if names else None


def split_block(block: bytes, count: int) -> tuple[int, list[bytes]]:
    """The codes_crc and `count` payloads."""
    reader = Reader(block)
    try:
        crc = reader.u32()
        lengths = [reader.varint(0, MAX_BODY) for _ in range(count)]
        payloads = [reader.take(length) for length in lengths]
    except Refused:
        raise Refused("CorruptCodes") from None
    if reader.left:
        raise Refused("CorruptCodes")
    return crc, payloads


def usable_name(raw: bytes) -> str | None:
    if not 1 <= len(raw) <= MAX_NAME or any(byte < 32 or byte in b"\\:\x7f" for byte in raw):
        return None
    if any(part in (b"", b".", b"..") for part in raw.split(b"/")):
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def file_name(data: bytes) -> str | None:
    name = read_file(data)[2]
    return None if name is None else usable_name(name)


def bundle_names(data: bytes) -> list[str] | None:
    header, _, packed = read_bundle(data)
    if packed is None:
        return None
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, MAX_NAMES + 1)
    except zlib.error:
        raise Refused("CorruptSection") from None
    names = [usable_name(part) for part in raw.split(b"\0", header.items)]
    if (
        not stream.eof
        or stream.unused_data
        or len(raw) > MAX_NAMES
        or None in names
        or len(names) != header.items
    ):
        raise Refused("CorruptSection")
    return names


class RangeDecoder:
    def __init__(self, data: bytes):
        self.data, self.position = data, 4
        self.range = 1 << 32
        self.value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def target(self) -> int:
        return ((self.value + 1) * TOTAL - 1) // self.range

    def advance(self, start: int, frequency: int) -> None:
        first, end = (self.range * edge >> 16 for edge in (start, start + frequency))
        self.value, self.range = self.value - first, end - first
        while self.range < 1 << 24:
            digit = self.data[self.position] if self.position < len(self.data) else 0
            self.value, self.range = self.value * 256 + digit, self.range * 256
            self.position += 1
        if self.position > len(self.data) + 4:
            raise Refused("CorruptCodes")


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, which is trusted, in int64 so that all sums are exact."""
    length = int.from_bytes(data[:8], "little")
    body, tensors = data[8 + length :], {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            dtype = {"U8": "<u1", "I8": "<i1", "I16": "<i2", "I32": "<i4"}[entry["dtype"]]
            values = np.frombuffer(body[first:last], dtype)
            tensors[name] = values.reshape(entry["shape"]).astype(np.int64)
    return tensors


def integer_root(number: int, power: int) -> int:
    """The largest whole number whose `power` is at most `number`."""
    low, high = 0, 1 << number.bit_length() // power + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**power <= number else (low, middle)
    return low


POWERS = [integer_root(1 << 640 - j, 32) for j in range(32)]  # R of the document
EXP2 = np.array(
    [POWERS[t % 32] >> t // 32 for t in range(640)] + [0]
)  # the last for all further ones


def frequencies(logits: np.ndarray) -> np.ndarray:
    likeliest = int(np.argmax(logits))  # the first of several
    weights = EXP2[np.minimum(logits[likeliest] - logits, 640)]
    found = 1 + weights * (TOTAL - len(logits)) // weights.sum()
    found[likeliest] += TOTAL - found.sum()
    return found


def small(sums: np.ndarray) -> np.ndarray:
    return np.clip((sums + 64) >> 7, -127, 127)


def limited(sums: np.ndarray) -> np.ndarray:
    return np.clip(sums, -(1 << 20), 1 << 20)


def normalised(sums: np.ndarray) -> np.ndarray:
    root, scale = max(1, math.isqrt(int((sums * sums).sum()))), math.isqrt(1024 * len(sums))
    return np.clip((2 * scale * sums + root) // (2 * root), -127, 127)


def attention(query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
    found = []
    for head in range(0, len(query), 32):
        part = slice(head, head + 32)
        scores = np.array([int((query[part] * key[part]).sum()) for key in keys[-256:]])
        weights = EXP2[np.minimum((scores.max() - scores) >> 7, 640)]
        total = weights.sum()
        mixed = sum(
            weight * value[part] for weight, value in zip(weights, values[-256:], strict=True)
        )
        found.append((2 * mixed + total) // (2 * total))
    return np.concatenate(found)


class Prior:
    """Coder 0, for files with a header: `data` is what is in coder.safetensors. `sides`: how many
    times finer the grid of each stage is, of models with several grids.
    """

    def __init__(self, data: bytes, header: Header, sides: tuple[int, ...] | None = None):
        if header.coder != 0:
            raise NotImplementedError
        tensors = read_tensors(data)
        self.grid = tuple(tensors["grid"].tolist())
        self.stages: list[SimpleNamespace] = []
        while f"{(number := len(self.stages))}.vectors" in tensors:
            start = f"{number}."
            of_stage = {
                name[len(start) :]: value
                for name, value in tensors.items()
                if name.startswith(start)
            }
            self.stages.append(SimpleNamespace(**of_stage, depth=(len(of_stage) - 7) // 4))
        self.sides = sides or (1,) * len(self.stages)
        if header.stages > len(self.sides):
            raise Refused("CorruptHeader")

    def logits(
        self, codes: list[np.ndarray], y: int, x: int, past: list[tuple[list, list]]
    ) -> np.ndarray:
        """Of the code at y, x of the stage that is the last in `codes`, which are all on its grid;
        keys and values of each layer are in `past`.
        """
        number, (h, w) = len(codes) - 1, codes[0].shape
        layers, vectors = self.stages[number], []
        for back, down, right in layers.context.tolist():
            row, column = y + down, x + right
            inside = 0 <= row < h and 0 <= column < w
            vectors.append(
                self.stages[number + back].vectors[
                    codes[number + back][row, column] if inside else -1
                ]
            )
        place = layers.rows[y * self.grid[0] // h] + layers.columns[x * self.grid[1] // w]
        stream = limited(np.concatenate(vectors) @ layers.first + place)
        for depth, (keys, values) in enumerate(past):
            qkv, out, up, down = (vars(layers)[f"{depth}.{name}"] for name in LAYER)
            query, key, value = np.split(small(normalised(stream) @ qkv), 3)
            keys.append(key)
            values.append(value)
            stream = limited(stream + attention(query, keys, values) @ out)
            stream = limited(stream + np.maximum(0, small(normalised(stream) @ up)) @ down)
        return (normalised(stream) @ layers.last + layers.last_bias) >> 6

    def decode(self, payloads: list[bytes], grid: tuple[int, ...]) -> list[np.ndarray]:
        """A payload for each of the first stages -> their codes, each on its grid."""
        found: list[np.ndarray] = []
        for payload in payloads:
            codes = seen_from(found, self.sides, grid)
            decoder = RangeDecoder(payload)
            past: list[tuple[list, list]] = [([], []) for _ in range(self.stages[len(found)].depth)]
            for y, x in np.ndindex(codes[-1].shape):
                shares = frequencies(self.logits(codes, y, x, past))
                ends = np.cumsum(shares)
                code = int(np.searchsorted(ends, decoder.target(), side="right"))
                decoder.advance(int(ends[code] - shares[code]), int(shares[code]))
                codes[-1][y, x] = code
            found.append(codes[-1].reshape([self.sides[len(found)] * side for side in grid]))
        return found


def seen_from(
    stages: list[np.ndarray], sides: tuple[int, ...], grid: tuple[int, ...]
) -> list[np.ndarray]:
    """What the stage behind those that are known sees as rows and columns: each of them on its
    grid, and zeros for itself.
    """
    side = sides[len(stages)]
    finer = tuple(side * length for length in grid)
    found = []
    for number, codes in enumerate(stages):
        seen = np.zeros(finer, np.int64)
        for place in np.ndindex(finer):
            seen[place] = codes[tuple(index * sides[number] // side for index in place)]
        found.append(seen.reshape(rows_and_columns(finer)))
    return [*found, np.zeros(rows_and_columns(finer), np.int64)]


def stacked(stages: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Codes (stages, *grid), or one by one where their grids differ."""
    return np.stack(stages) if len({one.shape for one in stages}) == 1 else stages


def decode_file(
    data: bytes, coder: bytes, grid_of: GridOf, make=Prior
) -> np.ndarray | list[np.ndarray]:
    """Codes (stages, *grid) of profile 1 or 0, or of each stage on its own grid.

    A truncated file has fewer stages than its header says.
    """
    header, bodies, _ = read_file(data)
    codes = make(coder, header).decode([body[4:] for body in bodies], grid_of(*header.runs[0][1]))
    crc = 0
    for number, body in enumerate(bodies):
        if (crc := codes_crc([codes[number]], number, crc)) != int.from_bytes(body[:4], "little"):
            raise Refused("CorruptCodes")
    return stacked(codes)


def decode_bundle(
    data: bytes, coder: bytes, grid_of: GridOf, make=Prior
) -> list[np.ndarray | list[np.ndarray]]:
    """Codes of every item, as `decode_file` gives them.

    A truncated bundle gives the items of its whole blocks.
    """
    header, blocks, _ = read_bundle(data)
    prior, stages, all_extents = make(coder, header), header.stages, header.extents()
    found: list[np.ndarray | list[np.ndarray]] = []
    for number, block in enumerate(blocks):
        extents = list(islice(all_extents, header.per_block))
        crc, payloads = split_block(block, len(extents) * stages)
        items = [
            prior.decode(payloads[index * stages : (index + 1) * stages], grid_of(*extent))
            for index, extent in enumerate(extents)
        ]
        if codes_crc([stage for item in items for stage in item], number) != crc:
            raise Refused("CorruptCodes")
        found += map(stacked, items)
    return found


def decode_parts(data: bytes, coder: bytes, grid_of: GridOf, make=Prior) -> list[np.ndarray]:
    """Codes of every whole part."""
    header, parts, _ = read_parts(data)
    prior = make(coder, header)
    found = []
    for number, (part, extent) in enumerate(zip(parts, header.extents(), strict=False)):
        crc, payloads = split_block(part, header.stages)
        codes = prior.decode(payloads, grid_of(*extent))
        if codes_crc(codes, number) != crc:
            raise Refused("CorruptCodes")
        found.append(stacked(codes))
    return found
