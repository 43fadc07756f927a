"""A filter that takes noise out of sound: a gain for every frequency of every moment."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .added import added_network
from .config import LappedConfig
from .spectra import ShortTimeFourier

# Least length of the window in seconds, which tells the harmonics of a voice apart.
WINDOW = 0.024
# Seconds to either side whose mean level is seen beside a moment: what is always there is noise.
AROUND = 0.64
# Power that is added to that of every bin, so that silence has a logarithm.
FLOOR = 1e-6
# What log magnitudes are multiplied by, so that networks see numbers about one.
SCALE = 0.3


class NoiseFilter(nn.Module):
    """Short-time spectra times gains from 0 to 2, and the way back (a mask in the sense of Wang &
    Chen 2018, arXiv 1708.07524).

    sound --spectra--> log magnitudes, and how far they lie above their mean over time around
    --linear --DepthwiseResidual x filter_blocks--> norm, linear, 2 sigmoid--> gains. The last
    linear starts at zero, so that all gains are one before training. Channels are filtered alike
    but each by itself.

    Sound (B, C, T) in units of full scale, T a multiple of the hop -> (B, C, T).
    """

    def __init__(self, config: LappedConfig, rate: int) -> None:
        super().__init__()
        hop = config.hop
        least = max(2 * hop, round(WINDOW * rate))
        self.fourier = ShortTimeFourier(1 << (least - 1).bit_length(), hop)
        self.frames_around = max(1, round(AROUND * rate / hop))
        bins = self.fourier.window // 2 + 1
        self.network = added_network(config, config.filter_blocks, 2 * bins, bins, is_causal=False)
        # Frames to either side that a sample depends on.
        self.reach = config.filter_blocks + self.frames_around + 2 * (self.fourier.window // hop)

    def forward(self, sound: Tensor) -> Tensor:
        flat = sound.flatten(0, 1)
        with torch.autocast(sound.device.type, enabled=False):
            spectra = self.fourier(flat)
            seen = self._features(spectra)
        found = self.network(seen).to(flat.dtype)
        with torch.autocast(sound.device.type, enabled=False):
            return self.fourier.inverse(spectra * (2 * torch.sigmoid(found))).view_as(sound)

    def _features(self, spectra: Tensor) -> Tensor:  # (B, F, N) -> (B, F, 2 N)
        logs = 0.5 * SCALE * torch.log(spectra.real.square() + spectra.imag.square() + FLOOR)
        around = self.frames_around
        mean = F.avg_pool1d(
            logs.transpose(1, 2), 2 * around + 1, 1, around, count_include_pad=False
        )
        return torch.cat([logs, logs - mean.transpose(1, 2)], -1)
