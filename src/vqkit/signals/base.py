"""What a kind of signal is to everything else: how its files are opened, read, written, measured and shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..data.dataset import Dataset
from ..data.normalisation import Normalisation
from ..model.autoencoder import Backbone, Widths
from ..shapes import Shape

if TYPE_CHECKING:
    from ..settings import DataConfig


class Signal(ABC):
    """One constant a folder; see `registry`.

    name: as `data.signal` has it. number: in the headers of compressed files, never to be changed. item: what one of
    them is called in messages. suffix: of the files that are written. default_recipe: of training without a choice.
    """

    name: str
    number: int
    item: str
    suffix: str
    default_recipe: str

    @property
    def an_item(self) -> str:
        """The item with its article: 'an image'."""
        return f"{'an' if self.item[0] in 'aeiou' else 'a'} {self.item}"

    @abstractmethod
    def open(
        self, source: str | Path, settings: DataConfig, seed: int, normalisation: Normalisation | None = None
    ) -> Dataset:
        """The items of a source: a built-in set, a folder or a file.

        normalisation: of a trained model that is used on other data; None = measured on the training split. Errors:
        VqkitError with one sentence that says what is wrong and what to do.
        """

    @abstractmethod
    def settings_of(self, settings: DataConfig, shape: Shape) -> DataConfig:
        """The settings under which data come as a model of that shape takes them."""

    @abstractmethod
    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        """The files as they are named, and those of this signal below paths that are folders, sorted."""

    @abstractmethod
    def read(self, path: Path, data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False) -> Tensor:
        """One file at its own extent, (C, *extent) with the channels of `data`, the data section of an artifact.

        exact: refuse what would lose anything. VqkitError naming the file.
        """

    @abstractmethod
    def write(self, values: Tensor) -> bytes:
        """Values (C, *extent) as the bytes of a file, with `suffix`."""

    @abstractmethod
    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False
    ) -> list[Tensor]:
        """Whatever form users have items in -> values (C, *extent) of each. ValueError or VqkitError in one sentence."""

    @abstractmethod
    def like(self, values: list[Tensor], given: Any) -> Any:
        """Values (C, *extent) of each item in the form that `given` had."""

    @abstractmethod
    def backbone(self, config: Any, shape: Shape, widths: Widths) -> Backbone:
        """Encoder and decoder of a network's settings. VqkitError for the network of another signal."""

    @abstractmethod
    def measures(self, values: Tensor, original: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Quality of values (B, C, *extent) beside the original ones, the main figure first: (B,) each."""

    @abstractmethod
    def display(self, values: Tensor) -> np.ndarray:
        """Items (B, C, *extent) as images to look at: uint8 (B, H, W, C)."""
