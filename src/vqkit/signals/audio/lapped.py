"""A lapped transform of sound, with networks around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .added import added_network, reach_of
from .config import LappedConfig
from .noise_filter import NoiseFilter

# What coefficients that were raised to a power are multiplied by: a step of one is 80 dB below full
# scale.
SCALE = 40.0


class LappedTransform(nn.Module):
    """The modified discrete cosine transform (Princen, Johnson & Bradley 1987) with a sine window:
    frames of 2 N samples that overlap by half become N coefficients each, as many as there are
    samples, and the sum of the way back is the sound.

    Frame i covers samples N (i - 1/2) to N (i + 3/2). Before the first sample and behind the last
    there is silence, so that what no second frame overlaps there, half a frame, is the sound times
    the square of the window, by which it is divided on the way back: by a half at least.
    Sound (B, C, T) -> (B, C, t, N). Two channels become mid and side.
    """

    rows: Tensor
    rising: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        # Samples of a frame that lie behind those of its latent, and at the end of what comes back
        # before the next frame is there.
        self.ahead = hop - hop // 2
        time = torch.arange(2 * hop, dtype=torch.float64)
        frequency = torch.arange(hop, dtype=torch.float64)[:, None] + 0.5
        window = torch.sin(math.pi * (time + 0.5) / (2 * hop))
        angles = math.pi / hop * (time + 0.5 + hop / 2) * frequency
        rows = torch.cos(angles) * window * math.sqrt(2 / hop)
        self.register_buffer("rows", rows.float(), persistent=False)
        # Of the samples right behind the first one.
        rising = window[hop // 2 : hop].square()
        self.register_buffer("rising", rising.float(), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        half = self.hop // 2
        padded = F.pad(_mid_and_side(sound), (half, self.hop))
        frames = padded.unfold(2, 2 * self.hop, self.hop)
        return frames[:, :, : sound.shape[2] // self.hop] @ self.rows.T

    def inverse(self, coefficients: Tensor) -> Tensor:  # (B, C, t, N) -> (B, C, t * N)
        frames = coefficients @ self.rows
        early, late = frames.split(self.hop, -1)
        whole = F.pad(early, (0, 0, 0, 1)) + F.pad(late, (0, 0, 1, 0))
        half = self.hop // 2
        sound = whole.flatten(2)[..., half : half + coefficients.shape[2] * self.hop]
        scale = torch.ones_like(sound[0, 0])
        scale[: self.ahead] = self.rising
        scale[-self.ahead :] = self.rising.flip(0)
        return _mid_and_side(sound / scale)


def _mid_and_side(sound: Tensor) -> Tensor:
    """(B, C, T) -> the same, its own inverse; one channel as it is."""
    if sound.shape[1] == 1:
        return sound
    left, right = sound.unbind(1)
    return torch.stack([left + right, left - right], 1) * math.sqrt(0.5)


class LappedEncoder(nn.Module):
    """Coefficients raised to a power, and what residual blocks over frames add.

    sound --(filter)--> transform --> power --(linear --DepthwiseResidual x encoder_blocks--> norm,
    linear, added)--> latents. The last linear starts at zero; without blocks of either nothing is
    filtered or added. rate: samples a second.
    """

    def __init__(self, config: LappedConfig, channels: int, rate: int, *, is_causal: bool) -> None:
        super().__init__()
        self.power = config.power
        self.transform = LappedTransform(config.hop)
        self.filter: NoiseFilter | None = None
        if config.filter_blocks:
            self.filter = NoiseFilter(config, rate)
        self.added: nn.Module | None = None
        if config.encoder_blocks:
            width = channels * config.hop
            self.added = added_network(config, config.encoder_blocks, width, width, is_causal)
        self.blocks = reach_of(config.encoder_blocks, is_causal)

    @property
    def back(self) -> int:
        """Latents before one whose sound it depends on."""
        return self.blocks.back + 1 + self._filtered

    @property
    def ahead(self) -> int:
        """Samples behind the end of a latent that it depends on."""
        blocks = self.blocks.ahead + self._filtered
        return blocks * self.transform.hop + self.transform.ahead

    @property
    def _filtered(self) -> int:
        """Latents to either side that the filter sees."""
        return 0 if self.filter is None else self.filter.reach

    def forward(self, x: Tensor) -> Tensor:
        if self.filter is not None:
            x = self.filter(x)
        with torch.autocast(x.device.type, enabled=False):
            coefficients = self.transform(x)
            # The power has no derivative at zero, where silence is.
            sizes = coefficients.abs().masked_fill(coefficients == 0, 1.0)
            raised = coefficients.sign() * sizes**self.power * SCALE
            latents = raised.transpose(1, 2).flatten(2)  # (B, t, C * N)
        if self.added is not None:
            latents = latents + self.added(latents).to(latents.dtype)
        return latents.transpose(1, 2)


class LappedDecoder(nn.Module):
    """The way back: what residual blocks add to the latents, powers undone, the inverse
    transform.
    """

    def __init__(self, config: LappedConfig, channels: int, *, is_causal: bool) -> None:
        super().__init__()
        self.power = config.power
        self.channels = channels
        self.transform = LappedTransform(config.hop)
        width = channels * config.hop
        self.added = added_network(config, config.decoder_blocks, width, width, is_causal)
        self.blocks = reach_of(config.decoder_blocks, is_causal)

    @property
    def back(self) -> int:
        """Latents before that of a sample that it depends on."""
        return self.blocks.back + 1

    @property
    def ahead(self) -> int:
        """Samples behind one up to which latents must be known for it."""
        return self.blocks.ahead * self.transform.hop + self.transform.ahead

    def forward(self, x: Tensor) -> Tensor:
        latents = x.transpose(1, 2)
        latents = latents + self.added(latents).to(latents.dtype)
        with torch.autocast(x.device.type, enabled=False):
            raised = latents.unflatten(2, (self.channels, -1)).transpose(1, 2) / SCALE
            # The power is not smooth at zero, where most coefficients are.
            coefficients = raised * (raised.square() + 1e-12) ** (0.5 / self.power - 0.5)
            return self.transform.inverse(coefficients)
