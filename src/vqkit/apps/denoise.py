"""Noise taken out of pictures: what the codes of clean images cannot say does not come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact import Artifact
from ..errors import VqkitError
from ..metrics import to_pixels
from ..model.blocks import pad_to_multiple, tile, untile
from ..model.pieces import by_pieces
from ..model.precision import use_bfloat16
from ..model.quantizers.base import Quantizer
from ..model.quantizers.residual import ResidualQuantizer
from ..rates import WEIGHTS, assign, distortion

LOOKED_AT = 96
"""side of the middle of a picture on which strength is chosen"""
STRIDE = 4
"""one pixel in STRIDE * STRIDE is hidden at a time"""
SURE = 3.0
"""standard errors by which fewer stages must predict better"""
NEARLY = 0.9
"""of a known deviation, what stages must take out: models miss some of the noise, fewer stages take out the picture"""
NUM_HIDDEN = 4
"""of the STRIDE * STRIDE ways to hide pixels, those that are tried"""


@dataclass(frozen=True)
class Denoised:
    """pixels: uint8 (H, W, C). sigma: deviation of what was taken out, in levels of 0 to 255. levels: stages of the
    quantizer that were used, None = latents were not quantised."""

    pixels: np.ndarray
    sigma: float
    levels: int | None


@torch.no_grad()
def denoise(
    artifact: Artifact,
    image: np.ndarray,
    *,
    strength: float | None = None,
    levels: int | None = None,
    continuous: bool = False,
    sigma: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Denoised:
    """A picture without its noise, uint8 (H, W, C) of any size; at most one of the four says how much is smoothed.

    continuous: latents go to the decoder as they are. levels: the first stages of a residual quantizer (fewer are
    smoother). strength: 0 = all stages; towards 1 ever fewer, and codes that the integer prior finds probable are
    preferred, if the artifact has one. sigma: the noise's deviation, in levels of 0 to 255, is known: as many stages as
    take out that much. None of them: stages are chosen by what predicts hidden pixels best; see `calibrated`.
    Errors: VqkitError for numbers that make no sense.
    """
    given = [strength is not None, levels is not None, continuous, sigma is not None]
    if sum(given) > 1:
        raise VqkitError("give one of strength, levels, continuous and sigma")
    most = num_levels(artifact)
    if strength is not None and not 0 <= strength <= 1:
        raise VqkitError(f"strength={strength} must lie between 0 (all that the codes can say) and 1 (smoothest)")
    if levels is not None and not 1 <= levels <= most:
        raise VqkitError(f"levels={levels}: this model has {most}" + ("; 1 to all of them" if most > 1 else ""))
    if sigma is not None and not 0 <= sigma <= 255:
        raise VqkitError(f"sigma={sigma} must lie between 0 and 255, the levels of a pixel")
    with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16(artifact.config.train.precision)):
        if strength is not None:
            levels = most - round(strength * (most - 1))
        elif not continuous and levels is None:
            middle = _middle(image)
            levels = calibrated(artifact, middle) if sigma is None else _taking_out(artifact, middle, sigma)
        pixels = smoothed(artifact, image, None if continuous else levels, strength or 0.0, progress)
    return Denoised(pixels, _deviation(image, pixels), None if continuous else levels)


def num_levels(artifact: Artifact) -> int:
    """Stages of a residual quantizer, of which the first alone make a picture; 1 for every other quantizer."""
    quantizer = artifact.model.quantizer
    return quantizer.num_stages if isinstance(quantizer, ResidualQuantizer) else 1


def calibrated(artifact: Artifact, image: np.ndarray) -> int:
    """The number of stages that predicts hidden pixels best, without anything clean to compare with.

    Pixels of a grid are replaced by the mean of their neighbours, and the noisy values there compared with what the
    model says: with noise that is independent from pixel to pixel this error is, up to a constant, the error to the
    clean image (Batson and Royer 2019, arXiv 1901.11365). Fewer than all stages must be better by SURE standard errors:
    small pictures have few pixels to hide, and their differences are mostly chance.
    """
    most = num_levels(artifact)
    if most == 1:
        return 1
    noisy = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    tried, looks = list(range(most, 0, -1)), list[Tensor]()
    for place in range(0, STRIDE**2, STRIDE**2 // NUM_HIDDEN):
        looks.append(_hidden_errors(artifact, noisy, place, tried, until_they_rise=not looks))
        tried = tried[: len(looks[0])]
        errors = torch.cat(looks, 1)
        gain = errors[:1] - errors  # of fewer stages over all of them
        if gain.shape[1] > 1 and gain.mean(1).max() <= 0:  # as a rule after the first time, which saves the others
            return most
    if gain.shape[1] < 2:
        return most
    doubt = SURE * gain.std(1) / gain.shape[1] ** 0.5
    better = torch.where(gain.mean(1) > doubt, gain.mean(1), 0.0)
    return tried[int(better.argmax())] if better.max() > 0 else most


def _hidden_errors(artifact: Artifact, noisy: Tensor, place: int, levels: list[int], until_they_rise: bool) -> Tensor:
    """Squared errors (n, N) of the N values that are hidden at `place`, by `levels` or the first n of them."""
    hidden = torch.zeros(noisy.shape[2:], dtype=torch.bool)
    hidden[place // STRIDE :: STRIDE, (place * 5 // STRIDE) % STRIDE :: STRIDE] = True
    latents = artifact.model.latents(artifact.standardise(torch.where(hidden, _neighbours(noisy), noisy)))
    found: list[Tensor] = []
    for level in levels:
        pixels = _decoded(artifact, latents, level, noisy.shape[2:])
        found.append((pixels - noisy)[:, :, hidden].square().flatten())
        if until_they_rise and len(found) > 1 and found[-1].mean() >= found[-2].mean():
            break
    return torch.stack(found)


def _taking_out(artifact: Artifact, image: np.ndarray, sigma: float) -> int:
    """The most stages that take out nearly `sigma` (the discrepancy principle of Morozov 1966), or what that is where
    pixels end at 0 and 255: noise of sigma is put on the picture without it and clipped as the picture's own was."""
    made = [smoothed(artifact, image, level + 1) for level in range(num_levels(artifact))]
    noise = sigma * np.random.default_rng(0).standard_normal(image.shape)
    wanted = _deviation(np.clip(np.rint(made[-1] + noise), 0, 255), made[-1])
    out = np.array([_deviation(image, pixels) for pixels in made])
    enough = np.flatnonzero(out >= NEARLY * wanted)
    return int(enough[-1] if len(enough) else out.argmax()) + 1


def smoothed(
    artifact: Artifact,
    image: np.ndarray,
    levels: int | None,
    help_of_prior: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """uint8 (H, W, C) through the model, piece by piece: as if it were one.

    levels: None = not quantised. help_of_prior: 0 to 1, where the artifact has an integer prior, which sees squares of
    the training size one by one.
    """
    model = artifact.model

    def clean(part: Tensor) -> Tensor:
        latents = model.latents(artifact.standardise(part))
        return _decoded(artifact, latents, levels, part.shape[2:], help_of_prior)

    pixels = pad_to_multiple(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], model.tile)
    out = by_pieces(model, clean, pixels, model.tile, model.tile, progress)
    return out[0, :, : image.shape[0], : image.shape[1]].permute(1, 2, 0).contiguous().numpy()


def _decoded(
    artifact: Artifact,
    latents: Tensor,
    levels: int | None,
    size: tuple[int, int] | torch.Size,
    help_of_prior: float = 0,
) -> Tensor:
    """Latents (1, D, h, w) -> uint8 (1, C, *size)."""
    model, size = artifact.model, (size[0], size[1])
    if levels is None:
        return to_pixels(artifact.normalisation.undo(model.decode_latents(latents, size)))
    codes = _probable(artifact, latents, levels, help_of_prior) if help_of_prior else model.quantizer.encode(latents)
    if levels < num_levels(artifact):
        codes[:, model.quantizer.num_codebooks // num_levels(artifact) * levels :] = -1
    return to_pixels(artifact.normalisation.undo(model.decode(codes, size)))


def _probable(artifact: Artifact, latents: Tensor, levels: int, share: float) -> Tensor:
    """Codes (1, Q, h, w) that weigh distance against bits under the integer prior; the nearest ones without a prior."""
    quantizer, coder = artifact.model.quantizer, artifact.coder
    nearest = quantizer.encode(latents)
    if coder is None or not isinstance(quantizer, Quantizer) or quantizer.num_codebooks != num_levels(artifact):
        return nearest
    rows, columns = artifact.model.grid(artifact.size)
    height, width = latents.shape[2:]
    padded = pad_to_multiple(latents, (rows, columns))
    weight = share * WEIGHTS[-1] * distortion(quantizer, quantizer.tokens(latents), nearest[:, :levels].numpy())
    found = torch.from_numpy(assign(quantizer, coder, tile(padded, rows, columns), levels, weight))
    found = untile(found, padded.shape[2] // rows, padded.shape[3] // columns)[:, :, :height, :width]
    return torch.cat([found, nearest[:, levels:]], 1)


def _neighbours(images: Tensor) -> Tensor:
    """Mean of the eight pixels around each, the four that share a side counting twice: (B, C, H, W)."""
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]]) / 12
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)


def _middle(image: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - LOOKED_AT) // 2 for side in image.shape[:2])
    return image[top : top + LOOKED_AT, left : left + LOOKED_AT]


def _deviation(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.astype(np.float32) - other).std())
