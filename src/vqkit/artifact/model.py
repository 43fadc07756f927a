"""What users hold: a trained model that takes whatever form their items have."""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..coding import gain_of, opened
from ..errors import VqkitError
from ..model.autoencoder import Autoencoder
from ..model.blocks import num_parameters
from ..printable import one_line
from ..prior.prior import Prior
from ..settings import Config
from ..shapes import Shape
from ..signals.base import Signal
from . import long_items
from .compressor import Compressor
from .device import resolve_device
from .record import Artifact
from .streaming import DecodeStream, EncodeStream, latency_in_words
from .tokenizer import Tokenizer


class Model:
    """An artifact on a device.

    Images come as a path, a PIL image, a uint8 array or tensor (H, W), (H, W, C) or (B, H, W, C), a
    floating-point one (B, C, H, W) in [0, 1], or as a list of any of these, of any size and in any
    mode, which is converted.

    artifact: the record. tokenizer: values <-> codes. compressor: files. prior: on the same device,
    None without one.
    """

    def __init__(
        self, artifact: Artifact, device: str | torch.device = "auto", *, order_free: bool = False
    ) -> None:
        """order_free: see `exactly`."""
        self.artifact = artifact
        self.tokenizer = Tokenizer(artifact, device, order_free=order_free)
        self.device = self.tokenizer.device
        self.compressor = Compressor(self.tokenizer)
        self.prior: Prior | None = None
        if artifact.prior is not None:
            self.prior = artifact.prior.to(self.device)

    # ------------------------------------------------------------------------------ what users call

    def encode(self, items: Any, *, exact: bool = False) -> Tensor | list[Tensor]:
        """Items in any form -> codes (B, Q, *grid) int64.

        Of items of several sizes, a list of (Q, *grid).

        exact: those that every machine finds, see `exactly`. ValueError or VqkitError for what is
        no form of an item.
        """
        if exact:
            return self.exactly.encode(items)
        values = self.to_values(items)
        if len({one.shape for one in values}) == 1:
            return self.tokenizer.encode(torch.stack(values))
        return [self.tokenizer.encode(one[None])[0] for one in values]

    def decode(
        self,
        codes: Tensor | np.ndarray,
        size: Sequence[int] | None = None,
        *,
        double: bool = False,
        exact: bool = False,
    ) -> np.ndarray:
        """Codes (B, Q, *grid) -> items in an array, of images uint8 (B, H, W, C).

        size: crops the padding of odd sizes. double: compute in float64, as `decompress` does, so
        that the result hardly depends on how many items and threads there are. exact: the result of
        every machine, see `exactly`. ValueError for what are no codes of this model.
        """
        if exact:
            return self.exactly.decode(codes, size)
        if not isinstance(codes, Tensor):
            codes = torch.as_tensor(np.asarray(codes))
        values = self.tokenizer.decode(codes.cpu(), size, double=double)
        return self.signal.to_array(values, self.data)

    def reconstruct(self, items: Any) -> Any:
        """Items through the model and back, in the form that they came in."""
        values = self.to_values(items)
        shown = [self.tokenizer.reconstruct(one[None])[0] for one in values]
        return self.signal.like(shown, items, self.data)

    def compress(
        self,
        item: Any,
        name: str | None = None,
        *,
        lossless: bool = False,
        rate: str | float | None = None,
        effort: int = 0,
    ) -> bytes:
        """One item -> a .vq file (docs/file-format.md), with the name that it had if one is given.

        lossless: of its values, each of which comes back, at the size that this takes. rate: one of
        `artifact.coders.rates`, or the most bits for each position, every byte of the file counted:
        the best file that fits. effort: from 0 to 9, how long is searched for codes that make the
        file smaller or better, of scalar codes, or that give back more of a text. VqkitError for a
        model without codebooks, OutOfBounds for an item of too many codes; ValueError for several,
        as `encode`, and with lossless for what would lose anything. A path of a long recording is
        read in pieces.
        """
        # A string is a path, but for a signal of strings.
        is_path = isinstance(item, Path) or (isinstance(item, str) and not self.signal.is_verbatim)
        if is_path and not lossless and len(self.shape.extent) == 1:
            opened = long_items.open_item(self.artifact, Path(item))
            if isinstance(opened, long_items.LongItem):
                return long_items.write(self.compressor, opened, name, rate=rate, effort=effort)
            return self.compressor.write(opened, name, rate=rate, effort=effort)
        values = self.to_values(item, exact=lossless)
        if len(values) != 1:
            raise ValueError(f"compress takes one {self.signal.item}, got {len(values)}")
        return self.compressor.write(values[0], name, lossless=lossless, rate=rate, effort=effort)

    def stream(self, rate: str | None = None) -> tuple[EncodeStream, DecodeStream]:
        """For live use: values to codes as they come, and codes to values, in pieces of any size
        that together are those of the whole, to the bit.

        Both say how many values they wait for, in `delay`; `model.causal=true` makes them few.
        rate: as of `compress`, by name. ValueError for items of more than one dimension.
        """
        gain = gain_of(self.compressor.codec(rate=rate).gain)
        return EncodeStream(self.tokenizer, gain), DecodeStream(self.tokenizer, gain)

    @property
    def latency(self) -> str | None:
        """How long a value waits on its way through both streams, in words; None for items of more
        than one dimension, which do not come in pieces.
        """
        if len(self.shape.extent) != 1:
            return None
        return latency_in_words(self.tokenizer)

    def decompress(
        self, source: bytes | BinaryIO | str | Path, *, exact: bool = False
    ) -> np.ndarray:
        """A .vq file -> its item, of an image uint8 (H, W, C).

        Of one that was cut off, a coarser one and a warning.

        source: its bytes, a binary stream that can seek, or its path. exact: the same values on
        every machine, not just the same codes, see `exactly`. Errors: vqkit.FormatError, a
        VqkitError, for whatever is not what `compress` wrote with this model.
        """
        if exact:
            return self.exactly.decompress(source)
        with opened(source) as stream:
            decoded = self.compressor.read_item(stream, "0")
            (values,) = self.compressor.decode([decoded])
        if decoded.truncated:
            warnings.warn(
                "the file is cut off: the item is coarser or shorter than it was, or lost its name",
                stacklevel=2,
            )
        return self.signal.to_array(values[None], self.data)[0]

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Items that the model makes up without a prior, in an array; see `Tokenizer.sample`."""
        return self.signal.to_array(self.tokenizer.sample(count, seed), self.data)

    @cached_property
    def exactly(self) -> Model:
        """This model in arithmetic in which no sum depends on its order: on the CPU, at twice the
        time of float64 or so, codes and values are the same for any batch, number of threads,
        instruction set and library. VqkitError, as soon as it is used, for a network that this
        does not cover, such as that of speech.
        """
        return self if self.tokenizer.order_free else Model(self.artifact, order_free=True)

    def to(self, device: str | torch.device) -> Model:
        """This model on another device.

        Itself if it is there already. Nothing is moved in place.
        """
        if resolve_device(device) == self.device:
            return self
        return Model(self.artifact, device)

    def half(self) -> Model:
        """Not offered: codes would depend on rounding. VqkitError."""
        raise VqkitError(
            "a model encodes and decodes in float32, so that codes stay the same; leave .half() out"
        )

    def bfloat16(self) -> Model:
        """Not offered: codes would depend on rounding. VqkitError."""
        raise VqkitError(
            "a model encodes and decodes in float32, so that codes stay the same; leave "
            ".bfloat16() out"
        )

    # -------------------------------------------------------------------------- what it consists of

    @property
    def signal(self) -> Signal:
        return self.artifact.signal

    @property
    def config(self) -> Config:
        return self.artifact.config

    @property
    def data(self) -> Mapping[str, Any]:
        """What the model was trained on."""
        return self.artifact.data

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Figures of training and evaluation, for people."""
        return self.artifact.metrics

    @property
    def network(self) -> Autoencoder:
        """The autoencoder, on this model's device."""
        return self.tokenizer.network

    @property
    def shape(self) -> Shape:
        """Channels and extent of the items of training."""
        return self.artifact.shape

    @property
    def content_id(self) -> str:
        """SHA-256 that names the weights, hexadecimal."""
        return self.artifact.content_id

    def wanted_prior(self) -> Prior:
        """The prior. VqkitError when none was trained."""
        self.artifact.wanted_prior()
        assert self.prior is not None
        return self.prior

    def to_values(self, items: Any, *, exact: bool = False) -> list[Tensor]:
        """Items in any form -> values (C, *extent) of each.

        exact: refuse what would lose anything.
        """
        return self.signal.to_values(items, self.data, self.config.data, exact=exact)

    # --------------------------------------------------------------------------------- how it looks

    def __repr__(self) -> str:
        lines = ["vqkit.Model"]
        for name, text in self.facts():
            lines.append(f"  {name:<11}{one_line(text)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = ""
        for name, text in self.facts():
            head = f"<th style='text-align:left'>{html.escape(name)}</th>"
            rows += f"<tr>{head}<td>{html.escape(one_line(text))}</td></tr>"
        return f"<table><caption>vqkit.Model</caption>{rows}</table>"

    def facts(self) -> list[tuple[str, str]]:
        """What it is, in words: names, and what is to be said of them."""
        quantizer = self.network.quantizer
        extent = self.shape.extent
        grid = "x".join(map(str, self.network.grid(extent)))
        sides = "x".join(map(str, extent))
        has = []
        if self.artifact.prior is not None:
            has.append("a prior")
        if self.artifact.coders.codes is not None:
            has.append("a coder")
        live = [] if self.latency is None else [("live", self.latency)]
        reached = self.metrics.get(self.signal.quality)
        measured = []
        if isinstance(reached, float):
            split = self.metrics.get("split")
            measured = [("measured", f"{reached:.2f} {self.signal.quality_unit} ({split})")]
        return [
            (
                "signal",
                f"{self.signal.name}, {sides} with {self.shape.channels} channels in training",
            ),
            (
                "codes",
                f"{grid} of {quantizer.bits_per_position:.4g} bits: "
                f"{self.network.bits_in_words(extent)}",
            ),
            (
                "quantizer",
                f"{self.config.model.quantizer.kind}, codebooks: {quantizer.num_codebooks}",
            ),
            (
                "network",
                f"{self.config.model.network.kind}, {num_parameters(self.network):,} parameters",
            ),
            *live,
            ("trained on", str(self.data.get("name"))),
            *measured,
            ("has", " and ".join(has) or "neither prior nor coder"),
            ("id", self.content_id[:16]),
            ("device", str(self.device)),
        ]
