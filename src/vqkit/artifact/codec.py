"""How files of one kind are coded: which numbers they hold, with which coder, and what names the
model in them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import numpy as np

from ..coding import (
    CODES,
    LEVELS,
    MIXING,
    SCALAR,
    TRANSFORMER,
    UNIT_GAIN,
    VALUES,
    CorruptCodes,
    CorruptHeader,
    FileHeader,
    MixingCoder,
    OutOfBounds,
    Part,
    PartsHeader,
    ScalarCoder,
    ScalarCodes,
    Stage,
    TransformerCoder,
    Truncated,
    ValueNetwork,
    VqFile,
    check_model,
    check_stages,
    codes_crc,
    stage_crcs,
    write_file,
    write_parts,
)
from ..coding.grids import split
from ..errors import VqkitError
from ..model.quantizers.base import Bottleneck, CodeSection
from .operating_points import Rate

# Codes of a compressed item, or of a block of a bundle: a few bytes may claim any number of them.
MAX_DECODED = 1 << 22
# The same of an item along one dimension in a file of its own, which is coded in parts: its codes
# take two bytes each.
MAX_IN_ROW = 1 << 26
# The same of scalar codes, of which a position has many. It has MAX_DECODED positions at most.
MAX_SCALAR = 1 << 28
# Scalar codes that are at hand together: those of so many rows of an image, of anything else all.
MAX_AT_HAND = 1 << 26
ROWS_AT_HAND = 6
# Codes of a bare stream: one wrong bit in its header may claim any number, and decoding them takes
# minutes.
MAX_BARE = 1 << 14
# Codes (Q, *grid) of an item, or its values.
Codes: TypeAlias = np.ndarray | ScalarCodes
# What is fitted to the codes of a model.
CodeCoder: TypeAlias = TransformerCoder | ScalarCoder

# Codes of a codebook: check sums take each as 32 bits.
MAX_CODEBOOK = 1 << 32


@dataclass(frozen=True)
class Coded:
    """One item as it is written.

    extent: of the item. codes: what the file holds, codes (q, *grid) or values (C, *extent).
    payloads: the coder's bytes of each stage; none beside codes in parts, which have their own.
    """

    extent: tuple[int, ...]
    codes: Content
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Codec:
    """One kind of file. signal, holds, coder: numbers of the header; engine: what codes them;
    model_id: 8 bytes.

    sections: of a whole file, in the order of its stages; has_prefixes: whether its first stages
    alone can be decoded.
    grid_of: extent of an item -> grid of its codes. codes_per_position: of a file with all stages,
    at whatever rate. weight: of a bit when codes are chosen, see operating_points. gain: a byte of
    the header, which says what latents are multiplied by. effort: how long is searched for codes,
    see effort.
    """

    signal: int
    holds: int
    coder: int
    engine: CodeCoder | MixingCoder
    model_id: bytes
    sections: tuple[CodeSection, ...]
    has_prefixes: bool
    grid_of: Callable[[Sequence[int]], tuple[int, ...]]
    codes_per_position: int
    weight: float = 0.0
    gain: int = UNIT_GAIN
    effort: int = 0

    @property
    def num_stages(self) -> int:
        """Of a whole file."""
        return len(self.sections)

    @property
    def num_codebooks(self) -> int:
        """Codes along Q of all stages together."""
        return _num_codes(self.sections)

    def at(self, rate: Rate) -> Codec:
        """This kind of file at one of the model's rates."""
        assert not isinstance(self.engine, MixingCoder)
        return replace(
            self,
            engine=self.engine.first(rate.num_stages),
            sections=self.sections[: rate.num_stages],
            weight=rate.weight,
            gain=rate.gain,
        )

    @property
    def max_positions(self) -> int:
        """Of all grids of a block of a bundle together, or of the grid of an item that has several
        sides.
        """
        max_codes = MAX_SCALAR if self.coder == SCALAR else MAX_DECODED
        return min(MAX_DECODED, max_codes // self.codes_per_position)

    @property
    def holds_values(self) -> bool:
        """Whether files hold the values themselves."""
        return self.holds == VALUES

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Grid of the codes of an item of that extent.

        OutOfBounds for more codes than are coded at once.
        """
        grid = self.grid_of(extent)
        positions = math.prod(grid)
        largest = self.max_positions
        if len(grid) == 1 and self.coder != SCALAR:
            largest = MAX_IN_ROW // self.codes_per_position
        if positions > largest:
            raise OutOfBounds(
                f"an item whose codes have more than {largest} positions is not compressed; cut it "
                "in parts"
            )
        if self.coder == SCALAR:
            if len(grid) == 2:
                positions = min(grid[0], ROWS_AT_HAND) * grid[1]
            most = MAX_AT_HAND // self.codes_per_position
            if positions > most:
                raise OutOfBounds(
                    f"an item whose codes have more than {most} positions in {ROWS_AT_HAND} rows "
                    "is not compressed; cut it in parts"
                )
        return grid

    def check_block(self, grids: Iterable[Sequence[int]]) -> None:
        """OutOfBounds for grids of more codes than a block of a bundle may have."""
        if sum(map(math.prod, grids)) > self.max_positions:
            raise OutOfBounds(
                f"codes of more than {self.max_positions} positions do not go into one block of a "
                "bundle; compress such an item into a file of its own"
            )

    def check_stages(self, given: int) -> None:
        """CorruptHeader for a number of stages that this model cannot have written."""
        if given > self.num_stages or (given < self.num_stages and not self.has_prefixes):
            raise CorruptHeader(f"the file has {given} stages; the model has {self.num_stages}")

    def file_of(self, coded: Coded, name: str | None) -> bytes:
        """The .vq file of an item."""
        if isinstance(coded.codes, CodesInParts):
            parts = [coded.codes.part(number) for number in range(coded.codes.count)]
            return write_parts(coded.codes.header, parts, name)
        stages = []
        for crc, payload in zip(
            stage_crcs(self.in_order(coded.codes)), coded.payloads, strict=True
        ):
            stages.append(Stage(crc, payload))
        header = FileHeader(
            tuple(coded.extent),
            len(stages),
            self.coder,
            self.model_id,
            self.signal,
            self.holds,
            self.gain,
        )
        return write_file(header, stages, name)

    def in_order(self, codes: Codes) -> Iterator[Iterator[np.ndarray]]:
        """Codes (q, *grid) of the first stages -> those of each stage in arrays, one behind the
        other, as check sums take them.
        """
        for place, num_codes, side in self.sections:
            if place >= len(codes):
                return
            if side > 1:
                assert isinstance(codes, np.ndarray)
                yield iter(split(codes[None, place : place + num_codes], [side])[0])
            else:
                yield map(codes.__getitem__, range(place, place + num_codes))

    def codes_of(self, file: VqFile) -> Codes:
        """The codes (q, *grid) of the stages that a .vq file has, checked.

        Errors: FormatError.
        """
        header = file.header
        check_model(header.kind, self.model_id, self.signal)
        grid = self.grid(header.extent)
        claimed = math.prod(grid) * _num_codes(self.sections[: header.num_codebooks])
        if header.model_id is None and claimed > MAX_BARE:
            raise OutOfBounds(
                f"{MAX_BARE} codes are decoded at most of a stream whose header has no check sum"
            )
        self.check_stages(header.num_codebooks)
        if len(file.stages) < header.num_codebooks and not self.has_prefixes:
            raise Truncated("the file is cut off, and this model needs all of its codes")
        found = self.engine.decode([[stage.payload for stage in file.stages]], grid)[0]
        check_stages(self.in_order(found), [stage.crc for stage in file.stages])
        return found


@dataclass(frozen=True)
class CodesInParts:
    """Codes of a long item along one dimension, which are decoded part by part whenever they are
    asked for: of an hour of music there are hundreds of millions.

    part: gives each of the first `count` parts, which are those that are there. Iterated, it gives
    the codes (q, t) of each part, checked. Errors of that: FormatError.
    """

    codec: Codec
    header: PartsHeader
    part: Callable[[int], Part]
    count: int

    def __iter__(self) -> Iterator[Codes]:
        for number in range(self.count):
            part = self.part(number)
            grid = self.codec.grid(self.header.extent_of(number))
            try:
                (codes,) = self.codec.engine.decode([part.payloads], grid)
            except CorruptCodes as error:
                raise CorruptCodes(f"part {number + 1} is corrupt: {error}") from error
            in_order = chain.from_iterable(self.codec.in_order(codes))
            if codes_crc(in_order, number) != part.crc:
                raise CorruptCodes(
                    f"part {number + 1} is corrupt: its codes do not fit their check sum"
                )
            yield codes

    @property
    def shape(self) -> tuple[int, int]:
        """(q, t) of all parts that are there together."""
        header = self.header
        length = min(header.length, self.count * header.part_length)
        return self.codec.num_codebooks, math.prod(self.codec.grid_of((length,)))

    @property
    def is_whole(self) -> bool:
        """Whether all parts of the item are there."""
        return self.count == self.header.num_parts


# What a file holds of an item.
Content: TypeAlias = Codes | CodesInParts


def value_codec(signal: int, channels: int, network: ValueNetwork | None, content_id: str) -> Codec:
    """Of lossless files of a model with so many channels."""
    mixing = MixingCoder((LEVELS,) * channels, network)
    name = model_id(content_id, network.tensors() if network else {})
    return Codec(
        signal,
        VALUES,
        MIXING,
        mixing,
        name,
        tuple(CodeSection(channel, num_codes=1, side=1) for channel in range(channels)),
        has_prefixes=False,
        grid_of=tuple,
        codes_per_position=channels,
    )


def code_codec(
    signal: int,
    sizes: tuple[int, ...],
    engine: CodeCoder | MixingCoder | None,
    tensors: Mapping[str, np.ndarray],
    content_id: str,
    sections: tuple[CodeSection, ...],
    has_prefixes: bool,
    grid_of: Callable[[Sequence[int]], tuple[int, ...]],
) -> Codec:
    """Of files of codes of a model with codebooks of such sizes, along Q; see Codec. tensors: what
    was fitted for the engine, nothing if it was not.

    VqkitError without an engine, and for a codebook of more codes than the format has numbers for.
    """
    if max(sizes) > MAX_CODEBOOK:
        raise VqkitError(
            f"this model has 2^{math.log2(max(sizes)):.1f} codes, and a .vq file has numbers for "
            "2^32; train one with fewer bits or levels, or use --lossless"
        )
    if engine is None:
        raise VqkitError("this artifact has no coder; fit one first: vqkit train-coder DIR DATA")
    coder = MIXING
    if isinstance(engine, TransformerCoder):
        coder = TRANSFORMER
    if isinstance(engine, ScalarCoder):
        coder = SCALAR
    name = model_id(content_id, tensors)
    return Codec(
        signal,
        CODES,
        coder,
        engine,
        name,
        sections,
        has_prefixes,
        grid_of,
        codes_per_position=len(sizes),
    )


def _num_codes(sections: Sequence[CodeSection]) -> int:
    """Codes along Q."""
    return sum(section.num_codes for section in sections)


def new_scalar_coder(quantizer: Bottleneck) -> ScalarCoder | None:
    """The coder of a model of scalar codes that none was fitted to; None for more of them than
    coders take.
    """
    per_stage = quantizer.codebooks_per_section
    num_stages = quantizer.num_codebooks // per_stage
    if not ScalarCoder.can_code(num_stages, per_stage):
        return None
    return ScalarCoder.new(num_stages, per_stage, quantizer.codebook_size)


def model_id(content_id: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """8 bytes that name a model in compressed files: of a SHA-256 over its content id and its
    coder's tensors.
    """
    digest = hashlib.sha256(content_id.encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"{name}:{values.dtype}:{values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:8]
