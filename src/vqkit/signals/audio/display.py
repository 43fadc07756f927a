"""Recordings to look at: spectrograms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .files import FULL
from .spectra import hann_window

# Extent of an image, of which the height is the bins of a spectrum.
HEIGHT = 128
MAX_WIDTH = 384
WINDOW = 2 * HEIGHT
# Decibels below full scale that are black.
RANGE = 90.0
STEP = 3.0
# Colours from black to white through which loudness goes.
COLOURS = ((0, 0, 4), (60, 15, 112), (158, 42, 99), (229, 92, 48), (251, 180, 26), (252, 255, 190))


def spectrograms(values: Tensor) -> np.ndarray:
    """int16 (B, C, T) -> uint8 (B, H, W, 3), low frequencies at the bottom, of the mean of all
    channels.
    """
    # A colour for every 3 dB: more would not be told apart, and make files of images large.
    return _coloured((loudness(values) * (RANGE / STEP)).round().numpy() * (STEP / RANGE))


def loudness(values: Tensor) -> Tensor:
    """int16 (B, C, T) -> (B, H, W): 1 is full scale, 0 is RANGE below it or less."""
    sound = values.float().mean(1) / FULL
    hop = max(32, -(-sound.shape[1] // MAX_WIDTH))
    window = hann_window(WINDOW)
    padded = F.pad(sound, (WINDOW // 2, WINDOW))
    count = -(-sound.shape[1] // hop)
    frames = padded.unfold(1, WINDOW, hop)[:, :count] * window
    magnitudes = torch.fft.rfft(frames).abs()[..., :HEIGHT] * (2 / window.sum())
    decibels = 20 * torch.log10(magnitudes.clamp(min=1e-9))
    return (1 + decibels / RANGE).clamp(0, 1).transpose(1, 2).flip(1)


def _coloured(shares: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 (...) -> uint8 (..., 3)."""
    places = np.linspace(0, 1, len(COLOURS))
    colours = np.asarray(COLOURS, np.float64)
    parts = [np.interp(shares, places, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(parts, -1)).astype(np.uint8)
