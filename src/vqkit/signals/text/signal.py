"""Text as the rest of the package sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import VqkitError
from ...model.autoencoder import Backbone, Widths
from ...shapes import Shape
from ..base import Peer, Signal, Suggestion
from ..paths import named_or_below
from . import display, files, forms, measures, peers, show
from .config import BytesConfig, DataConfig
from .networks import build_backbone
from .rules import suggested
from .source import TextData, bad_files, open_text, with_typos

# Wrong bytes that a denoiser is measured with, as the largest share of a piece.
NOISE_LEVELS = (0.02, 0.05, 0.1)
# Bytes from and to, of a span that is to be filled.
SPAN = re.compile(r"(\d+)\s*-\s*(\d+)")
# Bytes in which one reads what is said, and by which one recognises words in their context.
FOLLOWED = 1024
GLIMPSE = 24


class TextSignal(Signal):
    """See `Signal`. Values are bytes, uint8 (1, T)."""

    name = "text"
    number = 2
    item = "text"
    suffix = ".txt"
    is_verbatim = True
    quality = "byte_accuracy"
    quality_in_words = "byte accuracy"
    quality_unit = "%"
    change_in_words = "% of its bytes"
    has_symbols = True
    may_be_caption = True

    def open(
        self,
        source: str | Path,
        settings: DataConfig,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> TextData:
        known = {} if max_bad is None else {"max_bad": max_bad}
        return open_text(source, settings, seed, progress=progress, **known)

    def has(self, path: Path) -> bool:
        return files.is_text(path)

    def suggest(self, source: str | Path, minutes: float | None) -> Suggestion | None:
        return suggested(Path(source).expanduser())

    def symbols(self, data: TextData, split: str) -> Iterator[bytes]:
        return data.texts(split)

    def bad_files(
        self,
        source: str | Path,
        settings: DataConfig,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[list[tuple[str, str]], int]:
        try:
            bad, num_good = bad_files(source)
        except VqkitError:
            return [], 0
        return [(each.name, each.reason) for each in bad], num_good

    def describe_in_words(self, data: TextData) -> dict[str, str]:
        parts = ", ".join(f"{name} {count}" for name, count in data.num_bytes.items())
        return {
            "size": f"{self.extent_in_words(data.shape.extent)} a piece",
            "bytes": f"bytes of text: {parts}",
        }

    def settings_of(self, settings: DataConfig, shape: Shape) -> DataConfig:
        return settings.model_copy(update={"length": shape.extent[0]})

    # ---------------------------------------------------------------------------------------- files

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return named_or_below(paths, files.is_text)

    def read(
        self,
        path: str | Path,
        data: Mapping[str, Any],
        settings: DataConfig,
        *,
        exact: bool = False,
    ) -> Tensor:
        return torch.from_numpy(files.wanted(Path(path)).copy())[None]

    def read_content(self, content: bytes, data: Mapping[str, Any], settings: DataConfig) -> Tensor:
        if not content:
            raise VqkitError(files.EMPTY)
        return torch.from_numpy(np.frombuffer(content, np.uint8).copy())[None]

    def fitted(
        self, values: Tensor, data: Mapping[str, Any], settings: DataConfig, shape: Shape
    ) -> Tensor:
        values = values[:, : shape.extent[0]]
        return nn.functional.pad(values, (0, shape.extent[0] - values.shape[1]), value=ord(" "))

    def read_mask(self, said: str, extent: tuple[int, ...], data: Mapping[str, Any]) -> Tensor:
        mask = torch.zeros(extent, dtype=torch.bool)
        for span in said.split(","):
            found = SPAN.fullmatch(span.strip())
            start, end = map(int, found.groups()) if found else (0, 0)
            if start >= end:
                raise VqkitError(
                    f"{said!r} is no span: give the bytes from and to which a text is made anew, "
                    "such as 120-180, several with a comma between them"
                )
            if start >= extent[0]:
                raise VqkitError(f"the text ends after {extent[0]} bytes, before the span {span!r}")
            mask[start:end] = True
        return mask

    def blend(self, data: Mapping[str, Any]) -> int:
        # Half of one letter and half of another is a third.
        return 0

    def write(self, values: Tensor, data: Mapping[str, Any]) -> bytes:
        return values.cpu().numpy().astype(np.uint8).tobytes()

    # ------------------------------------------------------------------------ forms that users have

    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False
    ) -> list[Tensor]:
        return forms.to_values(given, lambda path: self.read(path, data, settings, exact=exact))

    def like(self, values: list[Tensor], given: Any, data: Mapping[str, Any]) -> Any:
        return forms.like(values, given)

    def to_array(self, values: Tensor, data: Mapping[str, Any]) -> np.ndarray:
        return values[:, 0].numpy()

    # ------------------------------------------------------------------------------ models, figures

    def backbone(
        self,
        config: Any,
        shape: Shape,
        widths: Widths,
        settings: DataConfig,
        *,
        is_causal: bool = False,
    ) -> Backbone:
        if not isinstance(config, BytesConfig):
            raise VqkitError(f"model.network.kind={config.kind} is no network for text")
        if len(shape.extent) != 1 or shape.channels != 1:
            raise VqkitError("text has one extent and one channel")
        return build_backbone(config, widths)

    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {"byte_accuracy": measures.byte_accuracy(values, original.to(values.device), mask)}

    def evaluation_measures(
        self,
        values: Tensor,
        original: Tensor,
        mask: Tensor | None,
        data: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        values = values.cpu()
        original = original.cpu()
        return {
            **self.measures(values, original, mask),
            "exact_64_bytes": measures.exact_runs(values, original, mask),
            "valid_utf8": measures.valid_utf8(values, original, mask),
            "edits_per_100_bytes": measures.edit_distance(values, original, mask),
        }

    def discriminator(self, settings: Any, shape: Shape, data: Any) -> Any:
        raise VqkitError("there is no adversary of text: set adversary.kind=none")

    def removes_noise(self, settings: DataConfig) -> bool:
        return settings.noise.level > 0

    def noise_levels(self, settings: DataConfig, values: Tensor) -> dict[str, Tensor]:
        if not self.removes_noise(settings):
            return {}
        levels = {}
        for level in NOISE_LEVELS:
            noisy = with_typos(values, level, range(len(values)))
            levels[f"up to {100 * level:g} %"] = noisy
        return levels

    def rate_per(self, extent: tuple[int, ...], data: Mapping[str, Any]) -> tuple[str, float]:
        return "bits_per_byte", extent[0]

    def peers(self, data: Mapping[str, Any]) -> list[Peer]:
        return peers.peers()

    def display(self, values: Tensor) -> np.ndarray:
        return display.lines(values)

    def compared(self, values: Tensor) -> Tensor:
        # Bytes that are one another's neighbours are not alike: each is a place of its own.
        return 255 * nn.functional.one_hot(values[:, 0].long(), 256).double()

    def letters(self, values: Tensor) -> list[str]:
        found = values[:, 0].cpu().numpy().astype(np.uint8)
        return ["".join(display.letters(row.tobytes())) for row in found]

    def passages(self, values: Tensor, others: Tensor) -> list[tuple[show.Passages, show.Passages]]:
        return show.passages(values, others)

    def differences(self, values: Tensor, original: Tensor) -> list[str]:
        return show.differences(values, original)

    def extent_in_words(self, extent: tuple[int, ...]) -> str:
        return f"{extent[0]} bytes"

    def change(self, values: Tensor, original: Tensor) -> Tensor:
        """Per cent of the bytes that are others."""
        return 100 - measures.byte_accuracy(values, original.to(values.device))

    # ------------------------------------------------------------------------------ what codes mean

    def explained(self, settings: DataConfig, data: Mapping[str, Any]) -> DataConfig:
        pieces = max(1, round(FOLLOWED / settings.length))
        return settings.model_copy(update={"length": pieces * settings.length, "overlap": 1})

    def glimpse(self, shape: Shape, data: Mapping[str, Any]) -> tuple[int, ...]:
        return (min(shape.extent[0], GLIMPSE),)

    def ruler(self, data: Mapping[str, Any]) -> tuple[str, float]:
        return "bytes", 1.0


TEXT = TextSignal()
