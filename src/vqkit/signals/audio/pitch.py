"""The pitch of speech, frame by frame, from nothing but the samples around."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOWEST = 60.0
HIGHEST = 400.0
# Samples that are compared with those a period later, in seconds.
WIDTH = 0.03
# What a frame's own evidence must reach for its pitch to count.
VOICED = 0.5
# Frames to either side that voiceless ones take their pitch from.
REACH = 12


class PitchTracker(nn.Module):
    """Where sound resembles itself most: the largest normalised cross-correlation over lags of 60
    to 400 Hz (Talkin 1995, "A robust algorithm for pitch tracking"), helped by that of neighbouring
    frames and a little in favour of short lags, so that multiples of a period lose.

    Sound (B, T) in units of full scale -> log2 of the pitch in Hz and voicing from 0 to 1, both
    (B, F), for so many frames as hops fit into T. Where there is no voice, the pitch is a mean of
    that around: a line that costs few bits. is_causal: frames that help a frame, or that it takes
    its pitch from, come before it.
    """

    weights: Tensor
    nearness: Tensor
    lags: Tensor

    def __init__(self, rate: int, hop: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.rate = rate
        self.hop = hop
        self.width = round(WIDTH * rate)
        self.shortest = max(2, round(rate / HIGHEST))
        self.longest = round(rate / LOWEST)
        self.register_buffer(
            "lags", torch.arange(self.shortest, self.longest + 1), persistent=False
        )
        near = torch.tensor([0.25, 0.5, 1.0, 0.5, 0.25])
        if is_causal:
            near[3:] = 0
        self.register_buffer("weights", near / near.sum(), persistent=False)
        # In float64 and rounded, as all tables are.
        distance = torch.arange(-REACH, REACH + 1, dtype=torch.float64).abs()
        nearness = torch.exp(-distance / 3.0).float()
        if is_causal:
            nearness[REACH + 1 :] = 0
        self.register_buffer("nearness", nearness, persistent=False)

    def forward(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        mean = F.avg_pool1d(sound[:, None], self._odd, 1, self._odd // 2)[:, 0]
        similar = self._correlation(sound - mean)
        pitch, voicing = self._best(similar)
        return self._joined(pitch, voicing), voicing

    @property
    def reach(self) -> int:
        """Samples to either side that a frame depends on."""
        return self.width + self.longest + self._odd + (REACH + 2) * self.hop

    @property
    def ahead(self) -> int:
        """Samples behind the end of a frame that it depends on."""
        neighbours = 0 if self.is_causal else (REACH + 2) * self.hop
        return self._seen - self._before - self.hop + self._odd // 2 + neighbours

    @property
    def _seen(self) -> int:
        """Samples that are compared for a frame."""
        return self.width + self.longest

    @property
    def _before(self) -> int:
        """Those of them that lie before the frame: as many as behind it."""
        return (self._seen - self.hop) // 2

    @property
    def _odd(self) -> int:
        """Samples of 20 ms, an odd number."""
        return round(0.01 * self.rate) * 2 + 1

    def _correlation(self, sound: Tensor) -> Tensor:  # (B, T) -> (B, F, lags)
        seen = self._seen
        count = sound.shape[1] // self.hop
        padded = F.pad(sound, (self._before, seen))
        frames = padded.unfold(1, seen, self.hop)[:, :count]
        size = 1 << (seen + self.width - 1).bit_length()
        own = torch.fft.rfft(frames[..., : self.width], size)
        products = torch.fft.irfft(own.conj() * torch.fft.rfft(frames, size), size)
        energy = F.pad(frames.square().cumsum(-1), (1, 0))
        first = energy[..., self.width : self.width + 1]
        later = energy[..., self.lags + self.width] - energy[..., self.lags]
        # 60 dB below full scale: what is softer has no pitch.
        quiet = self.width * 1e-6
        return products[..., self.lags] / (first * later + quiet**2).sqrt()

    def _best(self, similar: Tensor) -> tuple[Tensor, Tensor]:
        """log2 of the pitch, and the correlation there: (B, F) each."""
        around = F.max_pool1d(similar.flatten(0, 1)[:, None], 5, 1, 2).view_as(similar)
        columns = F.pad(around.transpose(1, 2), (2, 2), mode="replicate").flatten(0, 1)
        smooth = F.conv1d(columns[:, None], self.weights[None, None].to(columns.dtype))
        smooth = smooth.view(len(similar), similar.shape[2], -1).transpose(1, 2)
        periods = self.lags / self.rate
        score = 0.5 * (similar + smooth) - 12.0 * (periods - periods[0])
        best = score.argmax(-1).clamp(1, similar.shape[2] - 2)
        left, middle, right = (
            similar.gather(-1, (best + step)[..., None])[..., 0] for step in (-1, 0, 1)
        )
        # The top of the parabola through the three.
        bend = (left - 2 * middle + right).clamp(max=-1e-6)
        lag = self.lags[best] + (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
        return torch.log2(self.rate / lag), middle.clamp(0, 1)

    def _joined(self, pitch: Tensor, voicing: Tensor) -> Tensor:
        weight = voicing**6
        weight = torch.where(voicing > VOICED, weight, 0.02 * weight)
        total = self._spread(weight)
        local = self._spread(weight * pitch) / total.clamp(min=1e-4)
        known = (total * 100).clamp(max=1)
        local = local * known + (1 - known) * USUAL
        own = (8 * weight).clamp(max=1)
        return own * pitch + (1 - own) * local

    def _spread(self, values: Tensor) -> Tensor:  # (B, F), each with those around it
        padded = F.pad(values[:, None], (REACH, REACH), mode="replicate")
        return F.conv1d(padded, self.nearness[None, None].to(values.dtype))[:, 0]


# log2 of the pitch that nothing is known of: 187 Hz.
USUAL = 7.55
