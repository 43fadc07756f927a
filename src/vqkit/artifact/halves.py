"""One half of a pair: a model that makes codes of its items, or bytes as text.

Shapes: N items, L codes of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import VqkitError
from ..prior.layout import Layout
from ..prior.pairs import bytes_layout, ended
from ..prior.prior import caption_bytes, code_vectors, layout_of
from ..signals.base import Signal
from ..signals.registry import signal_named
from .model import Model

# What users write in the place of an artifact of text.
BYTES = "bytes"


class Coded(NamedTuple):
    """codes: (N, L) int64, -1 for padding. num_cut: items that were longer than a half takes."""

    codes: Tensor
    num_cut: int


class Half(ABC):
    """signal: of its items. name: what names its codes, a content id."""

    signal: Signal
    name: str

    @property
    def is_text(self) -> bool:
        return self.signal.may_be_caption

    @abstractmethod
    def layout(self, order: Literal["coarse_first", "delayed"]) -> Layout:
        """Places of its codes. VqkitError for codes that no prior can learn."""

    @abstractmethod
    def vectors(self) -> list[Tensor | None]:
        """Code vectors (K, d) of every codebook, None for codes that have none."""

    @abstractmethod
    def encode(self, given: Any) -> Coded:
        """Items in the forms that users have them: text as strings, others also as paths, arrays
        and lists of these. ValueError or VqkitError for what is no form of an item.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> list[Tensor]:
        """Codes (N, L) -> values (C, *extent) of each item."""

    @property
    @abstractmethod
    def data(self) -> Mapping[str, Any]:
        """What its model was trained on, which methods of its signal take."""

    @abstractmethod
    def array(self, values: list[Tensor]) -> Any:
        """Values of items in the form that `generate` gives them in: text as strings, others in an
        array.
        """


class CodedHalf(Half):
    """The items of a model, brought to the extent of its training."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.signal = model.signal
        self.name = model.artifact.codes_id

    def layout(self, order: Literal["coarse_first", "delayed"]) -> Layout:
        return layout_of(self.model.network, order)

    def vectors(self) -> list[Tensor | None]:
        return list(code_vectors(self.model.network))

    def encode(self, given: Any) -> Coded:
        model = self.model
        if self.is_text:
            given = [_one_line(text) or " " for text in _texts(given)]
        items = []
        num_cut = 0
        for values in model.to_values(given):
            # Of one dimension: images are scaled, and lose nothing by being large.
            num_cut += values.dim() == 2 and values.shape[1] > model.shape.extent[0]
            items.append(model.signal.fitted(values, model.data, model.config.data, model.shape))
        return Coded(model.tokenizer.encode(torch.stack(items)).flatten(1), num_cut)

    def decode(self, codes: Tensor) -> list[Tensor]:
        extent = self.model.shape.extent
        grid = self.model.network.grid(extent)
        shaped = codes.unflatten(1, (-1, *grid))
        return list(self.model.tokenizer.decode(shaped, extent, double=True))

    @property
    def data(self) -> Mapping[str, Any]:
        return self.model.data

    def array(self, values: list[Tensor]) -> Any:
        if self.is_text:
            return [_in_words(one) for one in values]
        return self.signal.to_array(torch.stack(values), self.model.data)


class BytesHalf(Half):
    """Text in UTF-8, in lower case, of at most `length` bytes; each byte is a code, and 0 its
    end.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.signal = signal_named("text")
        self.name = f"{BYTES}:{length}"

    def layout(self, order: Literal["coarse_first", "delayed"]) -> Layout:
        return bytes_layout(self.length)

    def vectors(self) -> list[Tensor | None]:
        return [None]

    def encode(self, given: Any) -> Coded:
        texts = _texts(given)
        rows = torch.stack([caption_bytes(text, self.length) for text in texts]).long()
        # In bytes as they are read, one more than fit.
        longer = [caption_bytes(text, self.length + 1)[-1] for text in texts]
        return Coded(ended(rows), sum(int(last) > 0 for last in longer))

    def decode(self, codes: Tensor) -> list[Tensor]:
        found = []
        for row in codes.clamp(min=0).tolist():
            text = bytes(row).split(b"\0")[0]
            found.append(torch.tensor(list(text), dtype=torch.uint8)[None])
        return found

    @property
    def data(self) -> Mapping[str, Any]:
        return {}

    def array(self, values: list[Tensor]) -> Any:
        return [_in_words(one) for one in values]


def half_of(source: Any, length: int, device: str | torch.device = "auto") -> Half:
    """The half that a user names: the folder of an artifact, or BYTES. VqkitError."""
    from .store import load_artifact

    if str(source) == BYTES:
        return BytesHalf(length)
    return CodedHalf(Model(load_artifact(source), device))


def _texts(given: Any) -> list[str]:
    """Text as strings; a `Path` is read. VqkitError for what is no text."""
    if isinstance(given, list | tuple):
        return [text for one in given for text in _texts(one)]
    if isinstance(given, Path):
        content = signal_named("text").read(given, {}, None)
        return [content.numpy().tobytes().decode("utf-8", "replace")]
    if not isinstance(given, str):
        raise VqkitError(f"text is a string or a Path, not {type(given).__name__}")
    return [given]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _in_words(values: Tensor) -> str:
    """Bytes uint8 (1, T) as text, padding left out; what is no UTF-8 is shown as such."""
    content = values.numpy().astype(np.uint8).tobytes().replace(b"\0", b" ")
    return _one_line(content.decode("utf-8", "replace"))
