"""Images as the rest of the package sees them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.normalisation import Normalisation
from ...errors import VqkitError
from ...model.autoencoder import Backbone, Widths
from ...model.bands import BandDistance
from ...shapes import Shape
from ..base import ByPeer, Signal, Suggestion
from . import bundled, forms, measures, peers, perceptual
from .config import ConvConfig, DataConfig, MLPConfig, MultiscaleConfig, PatchConfig
from .files import (
    BROKEN_IMAGE,
    Target,
    decode,
    fit_image,
    image_paths,
    image_suffixes,
    load_image,
    pillow_warnings,
    read_header,
    reason,
)
from .networks import build_backbone
from .noise import gaussian
from .ranges import ValueRange
from .rules import suggested
from .source import ImageData, bad_files, look_at, open_images

# Deviations of noise, in levels of 0 to 255, that a denoiser is measured at.
SIGMAS = (15, 25, 50)


class ImageSignal(Signal):
    """See `Signal`. Values are uint8 (C, H, W)."""

    name = "image"
    number = 0
    item = "image"
    suffix = ".png"
    sets = bundled.NAMES
    perceived = 16
    is_aligned = True

    def open(
        self,
        source: str | Path,
        settings: DataConfig,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> ImageData:
        known: dict[str, Any] = {}
        if data is not None:
            known["normalisation"] = Normalisation.from_dict(data["normalisation"])
            known["value_range"] = _value_range(data, settings)
        if max_bad is not None:
            known["max_bad"] = max_bad
        return open_images(source, settings, seed, progress=progress, **known)

    def has(self, path: Path) -> bool:
        return path.suffix.lower() in image_suffixes()

    def suggest(self, source: str | Path, minutes: float | None) -> Suggestion | None:
        if source in bundled.RECIPES:
            return Suggestion(str(source), "made for this set")
        look = look_at(source)
        return None if look is None else suggested(look, minutes)

    def bad_files(
        self,
        source: str | Path,
        settings: DataConfig,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[list[tuple[str, str]], int]:
        try:
            bad, num_good = bad_files(source, settings, progress)
        except VqkitError:
            return [], 0
        return [(each.name, each.reason) for each in bad], num_good

    def describe_in_words(self, data: ImageData) -> dict[str, str]:
        described = data.describe()
        # The width first, as in all that is printed.
        words = {"size": self.extent_in_words(data.shape.extent)}
        commonest = list(described["sizes"].items())[:12]
        sizes = ", ".join(f"{size} {count}" for size, count in commonest)
        words["sizes"] = f"{sizes} (width x height)"
        if "value_range" in described:
            low, high = described["value_range"]
            words["value_range"] = f"{low:g} to {high:g}"
        return words

    def settings_of(self, settings: DataConfig, shape: Shape) -> DataConfig:
        return settings.model_copy(update={"image_size": shape.extent, "channels": shape.channels})

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return image_paths(paths)

    def read(
        self,
        path: str | Path,
        data: Mapping[str, Any],
        settings: DataConfig,
        *,
        exact: bool = False,
    ) -> Tensor:
        pixels = load_image(
            path, data["channels"], settings.background, _value_range(data, settings), exact=exact
        )
        return forms.channels_first(pixels)

    def read_content(self, content: bytes, data: Mapping[str, Any], settings: DataConfig) -> Tensor:
        target = Target(
            None,
            data["channels"],
            settings.background,
            value_range=_value_range(data, settings),
        )
        try:
            with pillow_warnings():
                return forms.channels_first(decode(content, target))
        except BROKEN_IMAGE as error:
            raise VqkitError(reason(error)) from error

    def too_large(self, file: Path | bytes, positions: int, seconds: float) -> str | None:
        try:
            with pillow_warnings():
                height, width = read_header(file).size
        except BROKEN_IMAGE as error:
            raise VqkitError(reason(error)) from error
        if height * width > positions:
            return f"{width}x{height} pixels are too many here"
        return None

    def fitted(
        self, values: Tensor, data: Mapping[str, Any], settings: DataConfig, shape: Shape
    ) -> Tensor:
        image = forms.to_image(values)
        size = (shape.extent[0], shape.extent[1])
        fitted = fit_image(image, size, settings.fit, settings.interpolation)
        return self.to_values(fitted, data, settings)[0]

    def read_mask(self, said: str, extent: tuple[int, ...], data: Mapping[str, Any]) -> Tensor:
        return torch.from_numpy(load_image(Path(said), 1)[..., 0] >= 128)

    def write(self, values: Tensor, data: Mapping[str, Any]) -> bytes:
        buffer = io.BytesIO()
        forms.to_image(values).save(buffer, "PNG")
        return buffer.getvalue()

    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False
    ) -> list[Tensor]:
        value_range = _value_range(data, settings)
        target = Target(
            None, data["channels"], settings.background, exact=exact, value_range=value_range
        )
        return forms.to_values(given, target)

    def like(self, values: list[Tensor], given: Any, data: Mapping[str, Any]) -> Any:
        return forms.like(values, given)

    def to_array(self, values: Tensor, data: Mapping[str, Any]) -> np.ndarray:
        return forms.to_array(values)

    def backbone(
        self,
        config: Any,
        shape: Shape,
        widths: Widths,
        settings: DataConfig,
        *,
        is_causal: bool = False,
    ) -> Backbone:
        if not isinstance(config, ConvConfig | PatchConfig | MLPConfig | MultiscaleConfig):
            raise VqkitError(f"model.network.kind={config.kind} is no network for images")
        if len(shape.extent) != 2:
            raise VqkitError(
                f"the size of images is a height and a width, not {list(shape.extent)}"
            )
        return build_backbone(config, shape, widths)

    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {"psnr": measures.psnr(values, original)}

    def evaluation_measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None, data: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        found = {"psnr": measures.psnr(values, original), "ssim": measures.ssim(values, original)}
        if len(original[0]) >= 3:
            found["ciede2000"] = measures.colour_error(values, original)
        return found

    def perceptual_distance(
        self, wanted: str, normalisation: Normalisation, settings: DataConfig
    ) -> nn.Module:
        if wanted == "mel":
            raise VqkitError(
                "losses.perceptual_distance=mel is of recordings; images have features and bands"
            )
        if wanted != "bands" and perceptual.has_features():
            return perceptual.FeatureDistance(normalisation)
        if wanted == "features":
            raise VqkitError(
                "losses.perceptual_distance=features needs a network for images: pip install "
                "'vqkit[perceptual]', or use losses.perceptual_distance=bands"
            )
        return BandDistance()

    def recolouring(
        self, count: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor] | None:
        drawn = perceptual.random_colours(count, generator)
        return lambda values: perceptual.recoloured(values, drawn)

    def removes_noise(self, settings: DataConfig) -> bool:
        return settings.noise.sigma > 0

    def noise_levels(self, settings: DataConfig, values: Tensor) -> dict[str, Tensor]:
        if not self.removes_noise(settings):
            return {}
        generator = torch.Generator().manual_seed(0)
        levels = {}
        for sigma in SIGMAS:
            noisy = [gaussian(image, sigma, generator) for image in values]
            levels[f"sigma {sigma}"] = torch.stack(noisy)
        return levels

    def rate_per(self, extent: tuple[int, ...], data: Mapping[str, Any]) -> tuple[str, float]:
        return "bpp", math.prod(extent)

    def beside(self, values: Tensor, num_bytes: int, data: Mapping[str, Any]) -> list[ByPeer]:
        return peers.of_size(values, num_bytes)

    def display(self, values: Tensor) -> np.ndarray:
        return forms.to_array(values)

    def extent_in_words(self, extent: tuple[int, ...]) -> str:
        return f"{extent[1]}x{extent[0]} pixels (width x height)"

    def ruler(self, data: Mapping[str, Any]) -> tuple[str, float]:
        return "pixels", 1.0


def _value_range(data: Mapping[str, Any], settings: DataConfig) -> ValueRange | None:
    """What became 0 and 255 of training images with values of more than 8 bits.

    None where there were none.
    """
    known = data.get("value_range")
    if known is None:
        return None
    low, high = known
    return ValueRange(float(low), float(high), chosen=settings.value_range is not None)


IMAGE = ImageSignal()
