"""What tells reconstructions of recordings from them by their spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ...errors import VqkitError
from ...model.discriminator import Discriminator
from ...shapes import Shape
from .config import StftAdversary
from .spectra import FLOOR, ShortTimeFourier

# Spectra are raised to this power, as quiet parts are heard too, and then brought to about 1.
POWER = 0.3
SCALE = 10.0


class StftDiscriminator(Discriminator):
    """Recordings (B, C, T) in units of full scale -> scores (B, N) of patches of their spectra over
    several windows, each of which has networks of its own (Défossez et al. 2022, arXiv 2210.13438,
    section 3.4; of a single window, with magnitudes raised to a power in place of wide networks:
    Zeghidour et al. 2021, arXiv 2107.03312).

    rate: samples a second. VqkitError for recordings that are shorter than a window.
    """

    def __init__(self, settings: StftAdversary, shape: Shape, rate: int) -> None:
        super().__init__()
        self.windows: list[WindowDiscriminator] = []
        for seconds in settings.windows:
            size = 2 ** round(math.log2(seconds * rate))
            if size > shape.extent[0]:
                raise VqkitError(
                    f"adversary.windows={list(settings.windows)} has one of {size} samples, and a "
                    f"clip has {shape.extent[0]}: set shorter ones, or a larger data.seconds"
                )
            self.windows.append(WindowDiscriminator(settings, shape.channels, size))
        # In which parameters are found.
        self.networks = nn.ModuleList(self.windows)

    def features(self, x: Tensor) -> list[Tensor]:
        hidden = []
        scores = []
        for window in self.windows:
            *layers, last = window(x)
            hidden += layers
            scores.append(last.flatten(1))
        return [*hidden, torch.cat(scores, 1)]

    def real(self, mask: Tensor) -> list[Tensor]:
        hidden = []
        scores = []
        for window in self.windows:
            columns = window.real(mask)
            hidden += [columns[:, None, :, None]] * (len(window.layers) - 1)
            scores.append(columns[:, :, None].expand(-1, -1, window.num_rows).flatten(1))
        return [*hidden, torch.cat(scores, 1)]


class WindowDiscriminator(nn.Module):
    """Spectra over one window -> the output of every layer, (B, channels, columns, rows); that of
    the last one are scores.

    Columns are half a window apart, of spectra a quarter apart. Kernels over time and frequency:
    4x8 with stride 2x4, 3x9 with stride 1x2, the same with a dilation of 2 in time, 3x3, all with
    leaky relu, and 3x3.
    """

    def __init__(self, settings: StftAdversary, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.phase = settings.phase
        self.fourier = ShortTimeFourier(size, size // 4)
        # A sine has the magnitude of its amplitude.
        self.unit = 2 / float(self.fourier.hann.sum())
        inputs = channels * (2 if settings.phase else 1)
        width = settings.width
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(inputs, width, (4, 8), (2, 4), (1, 2)),
                nn.Conv2d(width, width, (3, 9), (1, 2), (1, 4)),
                nn.Conv2d(width, width, (3, 9), (1, 2), (2, 4), (2, 1)),
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, 1, 3, padding=1),
            ]
        )
        # Rows of scores: a quarter of the frequencies, then half of them, rounded up, twice.
        quarter = (size // 2 + 1) // 4
        self.num_rows = -(-quarter // 4)
        if settings.regularisation == "spectral":
            for layer in self.layers:
                spectral_norm(layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            seen = self.seen(x)
        found = []
        for layer in self.layers[:-1]:
            seen = F.leaky_relu(layer(seen), 0.2)
            found.append(seen)
        return [*found, self.layers[-1](seen)]

    def seen(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C or 2 C, frames, frequencies): spectra raised to a power."""
        spectra = self.fourier(x.flatten(0, 1)) * self.unit
        squares = spectra.real.square() + spectra.imag.square() + FLOOR**2
        if self.phase:
            raised = spectra * (SCALE * squares ** ((POWER - 1) / 2))
            parts = torch.view_as_real(raised).movedim(-1, 1)
        else:
            parts = SCALE * squares[:, None] ** (POWER / 2)
        return parts.unflatten(0, x.shape[:2]).flatten(1, 2)

    def real(self, mask: Tensor) -> Tensor:
        """Columns of whose own half window something is real, of a mask (B, T): (B, columns)."""
        step = self.size // 2
        whole = mask.shape[1] // step * step
        return mask[:, :whole].unflatten(1, (-1, step)).any(2)
