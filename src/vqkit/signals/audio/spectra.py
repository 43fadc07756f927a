"""Spectra of sound: windows, bands of the mel scale, distances that hear magnitudes.

Tables are computed in float64 and rounded, so that they are the same on every machine.

Shapes: B items, T samples, F frames, N bins of a spectrum, M bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Windows of the multi-scale distance, in seconds.
WINDOWS = (0.008, 0.016, 0.032, 0.064, 0.128)
# Magnitudes below this share of full scale, 80 dB under it, are no sound.
FLOOR = 1e-4


class ShortTimeFourier(nn.Module):
    """Spectra of frames, and the way back by weighed overlapping and adding.

    Frame i is centred on sample hop * (i + 1/2): so many frames as hops fit into T. A Hann window
    of `window` samples is laid over a frame before its spectrum is taken, and again on the way
    back.
    """

    hann: Tensor

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.hop = hop
        # Samples of a window before the frame, and behind its end.
        self.margin = (window - hop) // 2
        self.ahead = window - hop - self.margin
        self.register_buffer("hann", hann_window(window), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:  # (B, T) -> (B, F, N) complex
        padded = F.pad(sound, (self.margin, self.ahead))
        return torch.fft.rfft(padded.unfold(1, self.window, self.hop) * self.hann)

    def inverse(self, spectra: Tensor) -> Tensor:  # (B, F, N) complex -> (B, F * hop)
        frames = torch.fft.irfft(spectra, self.window) * self.hann
        count = frames.shape[1]
        weights = self.hann.square().expand(1, count, -1)
        sound = self._overlapped(frames) / self._overlapped(weights).clamp(min=1e-3)
        return sound[:, self.margin : self.margin + count * self.hop]

    def _overlapped(self, frames: Tensor) -> Tensor:  # (B, F, window) -> (B, samples)
        length = (frames.shape[1] - 1) * self.hop + self.window
        columns = frames.transpose(1, 2)
        return F.fold(columns, (1, length), (1, self.window), stride=(1, self.hop))[:, 0, 0]


def mel_bands(num_bands: int, num_bins: int, rate: int, lowest: float = 50.0) -> Tensor:
    """Triangles over the bins of a spectrum, evenly spaced on the mel scale (Stevens et al. 1937)
    from `lowest` Hz to half the rate: (N, M), the weight of every bin in every band.
    """
    bottom = 1127 * math.log(1 + lowest / 700)
    top = 1127 * math.log(1 + rate / 1400)
    places = torch.linspace(bottom, top, num_bands + 2, dtype=torch.float64)
    edges = 700 * (torch.exp(places / 1127) - 1)
    hertz = torch.linspace(0, rate / 2, num_bins, dtype=torch.float64)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def hann_window(size: int) -> Tensor:
    """The periodic one, (size,)."""
    return torch.hann_window(size, dtype=torch.float64).float()


def cosine_rows(size: int) -> Tensor:
    """The orthonormal DCT-II: (size, size), a row a frequency."""
    places = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * places[:, None] * (places + 0.5) / size) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.float()


class SpectralDistance(nn.Module):
    """How far the log magnitudes of sound are apart in bands of the mel scale, over windows of 8 to
    128 ms: the multi-scale mel distance that codecs are trained with (Yamamoto et al. 2020, arXiv
    1910.11480; Kumar et al. 2023, arXiv 2306.06546), and a fifth of the relative distance of the
    magnitudes themselves, which hears what is loud.

    Takes standardised sound (B, C, T) in units of full scale twice and gives a scalar; with
    `each=True` one an item (B,), in nepers.
    """

    name = "multi-scale mel"

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.sizes = []
        for seconds in WINDOWS:
            size = 2 ** round(math.log2(seconds * rate))
            bands = mel_bands(min(80, size // 8 + 8), size // 2 + 1, rate)
            # Bands between two bins have none.
            bands = bands[:, bands.sum(0) > 0]
            self.register_buffer(f"bands_{size}", bands / bands.sum(0), persistent=False)
            self.register_buffer(f"window_{size}", hann_window(size), persistent=False)
            self.sizes.append(size)

    def forward(self, sound: Tensor, original: Tensor, *, each: bool = False) -> Tensor:
        total = sound.new_zeros(len(sound))
        for size in self.sizes:
            mine = self._magnitudes(sound, size)
            wanted = self._magnitudes(original, size)
            logs = _log(mine) - _log(wanted)
            total = total + logs.abs().mean((1, 2))
            if not each:
                scale = wanted.mean((1, 2)).clamp(min=1e-3)
                total = total + 0.2 * (mine - wanted).abs().mean((1, 2)) / scale
        total = total / len(self.sizes)
        return total if each else total.mean()

    def _magnitudes(self, sound: Tensor, size: int) -> Tensor:  # (B, C, T) -> (B, F, M)
        window = getattr(self, f"window_{size}")
        flat = sound.float().flatten(0, 1)
        if flat.shape[1] < size:
            flat = F.pad(flat, (0, size - flat.shape[1]))
        frames = flat.unfold(1, size, size // 4) * window
        magnitudes = torch.fft.rfft(frames).abs() * (2 / window.sum())
        bands = magnitudes @ getattr(self, f"bands_{size}")
        return bands.unflatten(0, sound.shape[:2]).flatten(1, 2)


def _log(magnitudes: Tensor) -> Tensor:
    return 0.5 * torch.log(magnitudes.square() + FLOOR**2)
