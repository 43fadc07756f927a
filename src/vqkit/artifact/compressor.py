"""Compressed files of a model: which coder writes and reads them, and the items in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..coding import (
    BUNDLE,
    BYTES,
    CODES,
    LEVELS,
    MIXING,
    PARTS,
    SCALAR,
    TRANSFORMER,
    VALUES,
    Block,
    Bundle,
    BundleHeader,
    BytesCoder,
    CorruptSection,
    Extents,
    FileHeader,
    FormatError,
    MixingCoder,
    Parts,
    PartsHeader,
    ScalarCoder,
    ScalarCodes,
    TransformerCoder,
    Truncated,
    ValueNetwork,
    WrongModel,
    check_block,
    check_model,
    codes_crc,
    gain_of,
    profile_of,
    read_file,
    write_bundle,
)
from ..errors import VqkitError
from .codec import (
    Codec,
    CodeCoder,
    Coded,
    Codes,
    CodesInParts,
    Content,
    ValueCoder,
    code_codec,
    new_scalar_coder,
    value_codec,
)
from .effort import searched, with_effort
from .operating_points import assign, no_rate
from .parts import opened_parts, values_in_pieces
from .rate_search import within
from .tokenizer import Tokenizer

# Items of a block of a bundle, if they are small enough.
BLOCK = 256
# Runs of lost items that an error lists.
MAX_SAID = 20
# What files of one kind hold of items of one extent, one after the other.
Held: TypeAlias = Sequence[Codes] | np.ndarray


@dataclass(frozen=True)
class Decoded:
    """One item of a file, checked; of one in parts the header, and each part as it is decoded.

    codes: what the file holds, codes (q, *grid) of the stages that are there or values (C,
    *extent). name: None if it has none.
    truncated: the file was cut off. number: place in the file, from 0. is_coarser: stages are
    missing, which make a coarser item.
    """

    codec: Codec
    codes: Content
    extent: tuple[int, ...]
    name: str | None
    truncated: bool
    number: int = 0
    is_coarser: bool = False

    @property
    def is_shorter(self) -> bool:
        """Whether parts at the end are missing; the extent is of those that are there."""
        return isinstance(self.codes, CodesInParts) and not self.codes.is_whole


class Compressor:
    """Writes and reads the files of a model, with the coders of its artifact and the networks of a
    tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.artifact = tokenizer.artifact
        # Those that were asked for, by what they hold and their coder: their names are check sums
        # over all weights.
        self._codecs: dict[tuple[int, int], Codec] = {}

    # ------------------------------------------------------------------------------- kinds of files

    def codec(self, *, lossless: bool = False, rate: str | None = None, effort: int = 0) -> Codec:
        """How items are written: as codes, at one of the rates that the model has and with an
        effort from 0 to 9, or with `lossless` as values.

        VqkitError without a codebook, for values that lossless files do not hold, and for a rate or
        an effort that is not there.
        """
        coder = self._coder_of_values() if lossless else self._coder_of_codes()
        found = self._codec(VALUES if lossless else CODES, coder)
        found = with_effort(found, effort, self.artifact.network)
        if rate is None:
            return found
        if lossless:
            raise VqkitError("lossless files have no rate")
        rates = self.artifact.coders.rates
        point = rates.get(rate)
        if point is None or isinstance(found.engine, MixingCoder):
            raise VqkitError(no_rate(rates, self.artifact.network.quantizer, found.has_prefixes))
        return found.at(point)

    def codec_of(self, header: FileHeader | BundleHeader | PartsHeader) -> Codec:
        """How a file is read, by the coder that wrote it.

        VqkitError when it needs one and there is none; WrongModel for codes under a coder that
        never wrote any of this model.
        """
        is_scalar = self._coder_of_codes() == SCALAR
        if header.holds == CODES and (header.coder == SCALAR) != is_scalar:
            raise WrongModel(f"this model has no codes under coder {header.coder}")
        wanted = (header.holds, header.coder, header.model_id)
        found = self._codec(header.holds, header.coder)
        for one in self._older:
            if (one.holds, one.coder, one.model_id) == wanted:
                found = one
        return replace(found, gain=header.gain)

    def _coder_of_values(self) -> int:
        """The number of the coder that values are written with."""
        return BYTES if isinstance(self.artifact.coders.values, BytesCoder) else MIXING

    def _coder_of_codes(self) -> int:
        """The number of the coder that codes are written with."""
        if self.artifact.network.quantizer.codebooks_per_section > 1:
            return SCALAR
        return MIXING if self.artifact.coders.codes is None else TRANSFORMER

    @property
    def model_id(self) -> bytes:
        """8 bytes that name the model in files of codes. VqkitError without a codebook."""
        return self.codec().model_id

    @cached_property
    def _older(self) -> list[Codec]:
        found = []
        for network in self.artifact.coders.older:
            if isinstance(network, ValueNetwork):
                found.append(self._new_codec(VALUES, MIXING, network))
            elif isinstance(network, BytesCoder):
                found.append(self._new_codec(VALUES, BYTES, network))
            else:
                found.append(self._new_codec(CODES, self._coder_of_codes(), network))
        return found

    def _codec(self, holds: int, coder: int) -> Codec:
        if (holds, coder) not in self._codecs:
            coders = self.artifact.coders
            network = coders.values if holds == VALUES else coders.codes
            if isinstance(network, BytesCoder) != (coder == BYTES):
                # Files of before there was such a coder, and of other models.
                network = None
            self._codecs[holds, coder] = self._new_codec(holds, coder, network)
        return self._codecs[holds, coder]

    def _new_codec(self, holds: int, coder: int, network: CodeCoder | ValueCoder | None) -> Codec:
        artifact = self.artifact
        quantizer = artifact.network.quantizer
        if holds == VALUES:
            if artifact.normalisation.levels != LEVELS - 1:
                raise VqkitError(
                    f"the values of {artifact.signal.an_item} have no lossless files yet"
                )
            assert network is None or isinstance(network, ValueNetwork | BytesCoder)
            if coder == BYTES and network is None:
                raise WrongModel("this model has no coder of bytes of its own")
            return value_codec(
                artifact.signal.number, artifact.shape.channels, network, artifact.codes_id
            )
        if not quantizer.is_discrete:
            raise VqkitError("this model has no codebook: it can compress with --lossless only")
        assert not isinstance(network, ValueNetwork | BytesCoder)
        sections = quantizer.sections
        engine: CodeCoder | MixingCoder | None = network
        tensors = {} if network is None or coder == MIXING else network.tensors()
        if coder == MIXING:
            sizes = tuple(quantizer.codebook_sizes[section.place] for section in sections)
            engine = MixingCoder(sizes, sides=tuple(section.side for section in sections))
        elif coder == SCALAR and network is None:
            engine = new_scalar_coder(quantizer)
            if engine is None:
                raise VqkitError(
                    f"this model has {quantizer.num_codebooks} codes a position, more than a .vq "
                    "file can hold; train one with fewer channels or stages, or use --lossless"
                )
        return code_codec(
            artifact.signal.number,
            quantizer.codebook_sizes,
            engine,
            tensors,
            artifact.codes_id,
            sections,
            len(quantizer.prefixes) == len(sections),
            artifact.network.grid,
        )

    # -------------------------------------------------------------------------------------- writing

    @torch.no_grad()
    def held(
        self, values: Tensor, codec: Codec, progress: Callable[[float], None] | None = None
    ) -> Held:
        """What files of a kind hold of values (B, C, *extent): codes (stages, *grid) of each item,
        or its values. progress: of an effort, the number of items that are done.
        """
        if codec.holds_values:
            return values.numpy().astype(np.int64)
        if isinstance(codec.engine, ScalarCoder):
            gain = gain_of(codec.gain)
            encode = self.tokenizer.encode_scalar
            held: Held = [encode(one, codec.num_codebooks, gain) for one in values]
        elif codec.weight and isinstance(codec.engine, TransformerCoder):
            latents = self.tokenizer.latents_alone(values)
            quantizer = self.artifact.network.quantizer
            held = assign(quantizer, codec.engine, latents, codec.num_stages, codec.weight)
        else:
            held = self.tokenizer.encode_alone(values)[:, : codec.num_codebooks].numpy()
        if codec.effort:
            return searched(self.tokenizer, codec, values, held, progress=progress)
        return held

    def code(
        self, values: Tensor, codec: Codec, progress: Callable[[float], None] | None = None
    ) -> list[Coded]:
        """Values (B, C, *extent) as what files hold. OutOfBounds for items of too many codes.

        progress: see `held`.
        """
        extent = tuple(values.shape[2:])
        codec.grid(extent)
        held = self.held(values, codec, progress)
        if isinstance(codec.engine, ScalarCoder):
            payloads = codec.engine.encode(held)
        else:
            payloads = codec.engine.encode(np.asarray(held))
        coded = []
        for codes, parts in zip(held, payloads, strict=True):
            coded.append(Coded(extent, codes, tuple(parts)))
        return coded

    def write(
        self,
        values: Tensor,
        name: str | None = None,
        *,
        lossless: bool = False,
        rate: str | float | None = None,
        effort: int = 0,
    ) -> bytes:
        """The file of one item (C, *extent), with the name that it had if one is given.

        rate: a name as in `codec`, or the most bits for each position, see rate_search.
        """
        if isinstance(rate, str) or rate is None:
            codec = self.codec(lossless=lossless, rate=rate, effort=effort)
            coded = self.code(values[None], codec)[0]
        elif lossless:
            raise VqkitError("lossless files have no rate")
        else:
            codec, coded = within(self, values, rate, name, effort)
        return codec.file_of(coded, name)

    def write_bundle(self, items: Sequence[Coded], codec: Codec, names: Sequence[str]) -> bytes:
        """Many items in one file, each to be had without the others. OutOfBounds for an item of too
        many codes: see `Codec.check_block`.
        """
        extents = Extents(item.extent for item in items)
        grids = [item.codes.shape[1:] for item in items]
        for grid in grids:
            codec.check_block([grid])
        largest = max(map(math.prod, grids))
        together = min(BLOCK, codec.max_positions // largest)
        header = BundleHeader(
            extents,
            codec.num_stages,
            codec.coder,
            codec.model_id,
            together,
            codec.signal,
            codec.holds,
            codec.gain,
        )
        blocks = []
        for number in range(header.num_blocks):
            some = [items[place] for place in header.items(number)]
            crc = codes_crc(_in_order(codec, [item.codes for item in some]), number)
            blocks.append(Block(crc, tuple(item.payloads for item in some)))
        return write_bundle(header, blocks, names)

    # -------------------------------------------------------------------------------------- reading

    def read(self, stream: bytes | BinaryIO) -> Iterator[Decoded]:
        """The items of a file or bundle, as what it holds.

        Errors: coding.FormatError, before codes that are wrong are given; of a bundle behind all
        items that are complete, with the numbers of those that are lost.
        """
        for block in self.read_blocks(stream):
            yield from block

    def read_blocks(self, stream: bytes | BinaryIO) -> Iterator[list[Decoded]]:
        """The item of a file, or those of one block of a bundle after the other. Errors as
        `read`.
        """
        if profile_of(stream) != BUNDLE:
            yield [self._read_single(stream)]
            return
        bundle, codec = self._opened_bundle(stream)
        names, unnamed = _names(bundle)
        lost: list[int] = []
        why: FormatError | None = None
        for number in range(bundle.whole_blocks):
            try:
                codes = _decode_block(codec, bundle, number)
            except FormatError as error:
                # Other blocks know nothing of this one; its traceback would keep the block in
                # memory.
                why = why or error.with_traceback(None)
                lost.append(number)
                continue
            block = []
            for item, held in zip(bundle.header.items(number), codes, strict=True):
                block.append(_decoded(codec, bundle, names, item, held, bundle.truncated))
            yield block
        _check_complete(bundle, lost, why)
        if unnamed:
            raise unnamed

    def read_item(self, stream: bytes | BinaryIO, item: str) -> Decoded:
        """The item with a number, from 0, or with a stored name.

        Of a bundle only its block is read.

        Errors: FormatError for what is wrong with it; VqkitError if there is none of that number or
        name.
        """
        if profile_of(stream) != BUNDLE:
            decoded = self._read_single(stream)
            if item not in ("0", decoded.name):
                raise VqkitError(
                    f"there is no item {item!r}: the file holds a single one, number 0"
                )
            return decoded
        bundle, codec = self._opened_bundle(stream)
        names, _ = _names(bundle)
        number = _number_of(bundle, names, item)
        found = bundle.item(number)
        # A block has one check sum for all of its items.
        codes = _decode_block(codec, bundle, found.block)[found.place]
        return _decoded(codec, bundle, names, number, codes, truncated=False)

    def decode(self, items: Sequence[Decoded], *, double: bool = True) -> list[Tensor]:
        """Decoded items as values (C, *extent).

        Those of one extent go through the decoder together.
        """
        decoded: dict[int, Tensor] = {}
        kinds = []
        for item in items:
            codec = item.codec
            kinds.append((codec.holds_values, codec.gain, item.codes.shape, item.extent))
        for places in alike(kinds):
            first = items[places[0]]
            held = [items[place].codes for place in places]
            values = self.values_of(first.codec, held, first.extent, double=double)
            for place, one in zip(places, values, strict=True):
                decoded[place] = one
        return [decoded[place] for place in range(len(items))]

    def values_of(
        self,
        codec: Codec,
        held: Sequence[Content] | np.ndarray,
        extent: Sequence[int],
        *,
        double: bool = False,
    ) -> Tensor:
        """What files of a kind hold, (q, *grid) of each item -> values (B, C, *extent)."""
        in_parts = [one for one in held if isinstance(one, CodesInParts)]
        if in_parts:
            joined_parts = []
            for one in in_parts:
                pieces = values_in_pieces(self.tokenizer, codec, one, extent)
                joined_parts.append(torch.cat(list(pieces), 1))
            return torch.stack(joined_parts)
        gain = gain_of(codec.gain)
        packed = [one for one in held if isinstance(one, ScalarCodes)]
        # A clock needs the codes of the whole item.
        if packed and self.artifact.network.clock is None:
            return self.tokenizer.decode_scalar(packed, extent, double=double, gain=gain)
        joined = held if isinstance(held, np.ndarray) else _stacked(held)
        if codec.holds_values:
            return torch.from_numpy(joined.astype(np.uint8))
        codes = joined.astype(np.int64, copy=False)
        missing = self.tokenizer.num_codebooks - codes.shape[1]
        if missing:
            codes = np.pad(
                codes, [(0, 0), (0, missing)] + [(0, 0)] * (codes.ndim - 2), constant_values=-1
            )
        return self.tokenizer.decode(torch.from_numpy(codes), extent, double=double, gain=gain)

    def _read_single(self, stream: bytes | BinaryIO) -> Decoded:
        if profile_of(stream) == PARTS:
            parts = Parts(stream)
            in_parts = opened_parts(self.tokenizer, self.codec_of(parts.header), parts)
            extent = (parts.length,)
            return Decoded(in_parts.codec, in_parts, extent, parts.name, parts.truncated)
        file = read_file(stream)
        codec = self.codec_of(file.header)
        is_coarser = len(file.stages) < file.header.num_codebooks
        codes = codec.codes_of(file)
        return Decoded(
            codec, codes, file.header.extent, file.name, file.truncated, is_coarser=is_coarser
        )

    def _opened_bundle(self, stream: bytes | BinaryIO) -> tuple[Bundle, Codec]:
        bundle = Bundle(stream)
        codec = self.codec_of(bundle.header)
        check_model(bundle.header.kind, codec.model_id, codec.signal)
        codec.check_stages(bundle.header.num_codebooks)
        return bundle, codec


def _decoded(
    codec: Codec,
    bundle: Bundle,
    names: Sequence[str] | None,
    number: int,
    codes: Codes,
    truncated: bool,
) -> Decoded:
    name = names[number] if names else None
    return Decoded(codec, codes, bundle.header.extents[number], name, truncated, number)


def _number_of(bundle: Bundle, names: Sequence[str] | None, item: str) -> int:
    count = len(bundle.header.extents)
    if item.isdecimal() and len(item) <= len(str(count)) and int(item) < count:
        return int(item)
    if names and item in names:
        return names.index(item)
    raise VqkitError(
        f"there is no item {item!r}: the bundle has the numbers 0 to {count - 1}, or stored names"
    )


def _names(bundle: Bundle) -> tuple[list[str] | None, CorruptSection | None]:
    """Names if there are any, and what is wrong with them: the items are there without them."""
    try:
        return bundle.names(), None
    except CorruptSection as error:
        return None, error


def _check_complete(bundle: Bundle, lost: Sequence[int], why: FormatError | None) -> None:
    """Raise the error of the first lost block, with the items of all of them.

    Truncated if only the end is missing.
    """
    missing = len(bundle.header.extents) - bundle.header.items(bundle.whole_blocks).start
    cut = ""
    if missing > 0:
        cut = f"the bundle is cut off: its last {missing} items are lost"
    if why is None:
        if cut:
            raise Truncated(cut)
        return
    spans: list[range] = []
    for items in map(bundle.header.items, lost):
        if spans and spans[-1].stop == items.start:
            items = range(spans.pop().start, items.stop)
        spans.append(items)
    said = []
    for span in spans[:MAX_SAID]:
        said.append(f"{span.start} to {span[-1]}" if len(span) > 1 else f"{span.start}")
    if len(spans) > MAX_SAID:
        said.append(f"{len(spans) - MAX_SAID} more spans")
    words = f"{why}; lost are the items {', '.join(said)}, counted from 0"
    raise type(why)(f"{words}; {cut}" if cut else words)


def _stacked(arrays: Sequence[Content]) -> np.ndarray:
    """Arrays of one shape in one, without a copy of a single one, which may be large."""
    if len(arrays) == 1:
        return np.asarray(arrays[0])[None]
    return np.stack([np.asarray(one) for one in arrays])


def _in_order(codec: Codec, items: Sequence[Content]) -> Iterator[np.ndarray]:
    """Codes of items one behind the other, each stage by stage."""
    for codes in items:
        assert not isinstance(codes, CodesInParts)
        yield from chain.from_iterable(codec.in_order(codes))


def _decode_block(codec: Codec, bundle: Bundle, number: int) -> list[Codes]:
    """Codes (q, *grid) of the items of a block, checked."""
    block = bundle.block(number)
    items = bundle.header.items(number)
    grids = [codec.grid(bundle.header.extents[item]) for item in items]
    codec.check_block(grids)
    codes: list[Codes] = [np.zeros(0)] * len(items)
    for places in alike(grids):
        payloads = [block.payloads[place] for place in places]
        decoded = codec.engine.decode(payloads, grids[places[0]])
        for place, one in zip(places, decoded, strict=True):
            codes[place] = one
    check_block(_in_order(codec, codes), number, block.crc)
    return codes


def alike(kinds: Sequence[object]) -> list[list[int]]:
    """Places of equal kinds, in the order in which these come first."""
    places: dict[object, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    return list(places.values())
