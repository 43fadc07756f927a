"""A model of speech, pitch and voicing and an envelope, with networks around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .added import added_network, reach_of
from .config import VocoderConfig
from .files import FULL
from .pitch import USUAL, PitchTracker
from .spectra import ShortTimeFourier, cosine_rows, mel_bands

# What latents are multiples of: a step of one is about 2 in the log energies of a block, 6 % of the
# pitch, a third of the voicing.
ENERGY_SCALE = 0.54
PITCH_SCALE = 10.8
VOICING_SCALE = 1.8
USUAL_VOICING = 0.7
# Log energy that latents of zero stand for: soft, so that what is left out is not loud.
SOFT = -6.0
# Parts of a cycle that phases are counted in: all below are whole numbers in float32.
CYCLE = 1 << 24
# Samples after which the noise comes again.
NOISE = 1 << 16
# Pitch in octaves above 100 Hz.
PITCHES = (math.log2(0.6), math.log2(4.1))


class SpeechModel(nn.Module):
    """The fixed part of both networks: sound -> frames' pitch, voicing and log energies in bands,
    as channels of a latent, and what a channel says of pitch and the like.

    Channels of a latent: the cosine transform over its frames of the pitch, of the voicing, and of
    the log energies, over frames and bands.
    """

    pooling: Tensor
    spreading: Tensor
    over_frames: Tensor
    over_bands: Tensor

    def __init__(self, config: VocoderConfig, rate: int, hop: int, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.hop = hop
        self.frames = config.frames
        self.bands = config.bands
        self.rate = rate
        self.fourier = ShortTimeFourier(1 << (3 * hop - 1).bit_length(), hop)
        self.num_bins = self.fourier.window // 2 + 1
        self.tracker = PitchTracker(rate, hop, is_causal=is_causal)
        triangles = mel_bands(config.bands, self.num_bins, rate) + 1e-6
        self.register_buffer("pooling", triangles / triangles.sum(0), persistent=False)
        spread = triangles / triangles.sum(1, keepdim=True)
        self.register_buffer("spreading", spread, persistent=False)
        self.register_buffer("over_frames", cosine_rows(config.frames), persistent=False)
        self.register_buffer("over_bands", cosine_rows(config.bands), persistent=False)

    @property
    def tile(self) -> int:
        """Samples of a latent."""
        return self.hop * self.frames

    @property
    def num_channels(self) -> int:
        """Channels of a latent."""
        return self.frames * (self.bands + 2)

    @property
    def num_features(self) -> int:
        """Numbers of a latent that the encoder sees."""
        return self.frames * (self.num_bins + self.bands + 2)

    def analyse(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Sound (B, T) -> latents (B, t, channels) and features (B, t, num_features)."""
        magnitudes = self.fourier(sound).abs()
        energies = 0.5 * torch.log(magnitudes.square() @ self.pooling + 1e-8)
        pitch, voicing = self.tracker(sound)
        pitch = pitch - USUAL
        frames = (len(sound), -1, self.frames)
        in_blocks = energies.unflatten(1, (-1, self.frames))
        envelope = self.over_frames @ ((in_blocks - SOFT) @ self.over_bands.T) * ENERGY_SCALE
        pitches = pitch.reshape(frames) @ self.over_frames.T * PITCH_SCALE
        voicings = (voicing - USUAL_VOICING).reshape(frames) @ self.over_frames.T * VOICING_SCALE
        latents = torch.cat([pitches, voicings, envelope.flatten(2)], -1)
        details = torch.log(magnitudes + 1e-4)
        beside = torch.stack([pitch, voicing], -1)
        features = torch.cat([0.3 * details, 0.3 * energies, beside], -1)
        return latents, features.unflatten(1, (-1, self.frames)).flatten(2)

    def frequencies(self, latents: Tensor) -> Tensor:
        """Latents (B, t, channels) -> the pitch of every frame (B, F) in cycles a sample."""
        pitch = latents[..., : self.frames] / PITCH_SCALE @ self.over_frames + USUAL
        octaves = (pitch - math.log2(100)).clamp(*PITCHES).flatten(1)
        return (100 / self.rate) * 2 ** octaves.double()

    def envelopes(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, t, channels) -> log amplitudes (B, F, N) of both parts, harmonic and
        noisy.
        """
        channels = latents[..., self.frames : 2 * self.frames]
        voicing = (channels / VOICING_SCALE @ self.over_frames + USUAL_VOICING).flatten(1)
        blocks = latents[..., 2 * self.frames :].unflatten(-1, (self.frames, self.bands))
        energies = self.over_frames.T @ (blocks / ENERGY_SCALE) @ self.over_bands + SOFT
        whole = energies.flatten(1, 2) @ self.spreading.T
        # The more voice, the higher the frequency from which on there is but noise.
        bins = torch.linspace(0, 1, self.num_bins, dtype=latents.dtype, device=latents.device)
        border = 1.15 * ((voicing - 0.35) / 0.4).clamp(0, 1)
        share = torch.sigmoid(12 * (border[..., None] - bins - 0.05))
        harmonic = whole + 0.5 * torch.log(share + 1e-4)
        noisy = whole + 0.5 * torch.log(1 - share + 1e-4)
        return harmonic, noisy


class VocoderEncoder(nn.Module):
    """What the fixed part says, and what residual blocks over its frames add.

    sound --analysis--> linear --DepthwiseResidual x encoder_blocks--> norm, linear, added to the
    channels of the analysis --> latents. The last linear starts at zero; without blocks nothing is
    added.
    """

    def __init__(self, config: VocoderConfig, speech: SpeechModel) -> None:
        super().__init__()
        self.speech = speech
        self.added: nn.Module | None = None
        if config.encoder_blocks:
            self.added = added_network(
                config,
                config.encoder_blocks,
                speech.num_features,
                speech.num_channels,
                speech.is_causal,
            )
        self.blocks = reach_of(config.encoder_blocks, speech.is_causal)

    @property
    def back(self) -> int:
        """Latents before one whose sound it depends on."""
        speech = self.speech
        return self.blocks.back + -(-(speech.tracker.reach + speech.fourier.window) // speech.tile)

    @property
    def ahead(self) -> int:
        """Samples behind the end of a latent that it depends on."""
        speech = self.speech
        return self.blocks.ahead * speech.tile + max(speech.tracker.ahead, speech.fourier.ahead)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            latents, features = self.speech.analyse(x[:, 0])
        if self.added is not None:
            latents = latents + self.added(features).to(latents.dtype)
        return latents.transpose(1, 2)


class VocoderDecoder(nn.Module):
    """A train of pulses at the pitch and noise, each shaped by an envelope frame by frame and
    added: a harmonic plus noise model (Stylianou 2001) whose envelopes are what latents say
    and residual blocks add.

    latents --> linear --DepthwiseResidual x decoder_blocks--> norm, linear, added to the envelopes
    --> spectra of pulses and noise, times them --> sound. The last linear starts at zero.

    The clock of a position: the phase of the pulses at its first sample, in parts of a cycle, and
    the place of that sample in the noise.
    """

    noise: Tensor

    def __init__(self, config: VocoderConfig, speech: SpeechModel) -> None:
        super().__init__()
        self.speech = speech
        outputs = config.frames * 2 * speech.num_bins
        self.added = added_network(
            config, config.decoder_blocks, speech.num_channels, outputs, speech.is_causal
        )
        self.blocks = reach_of(config.decoder_blocks, speech.is_causal)
        # Even noise, of whole numbers, is the same on every machine.
        drawn = torch.randint(-FULL, FULL + 1, (NOISE,), generator=torch.Generator().manual_seed(0))
        noise = drawn.double() * (math.sqrt(3) / FULL)
        self.register_buffer("noise", noise.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            latents = x[:, :-2].transpose(1, 2)
            clock = x[:, -2:].double()
        added = self.added(latents).to(latents.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self._sound(latents, clock, added)[:, None]

    @property
    def back(self) -> int:
        """Latents before that of a sample that it depends on.

        Windows that hold a sample begin in frames before it, theirs hold pulses of still earlier
        ones, and the first of those has its frequency from the one before.
        """
        fourier = self.speech.fourier
        frames = -(-fourier.ahead // fourier.hop) - (-fourier.margin // fourier.hop) + 1
        return self.blocks.back + -(-frames // self.speech.frames)

    @property
    def ahead(self) -> int:
        """Samples behind one up to which latents must be known for it.

        The last window that holds it needs what blocks see behind its frame, and pulses up to its
        end, with their frequency: of their frame, and without `is_causal` of the next one.
        """
        speech = self.speech
        frames = -(-speech.fourier.ahead // speech.hop) + (0 if speech.is_causal else 1)
        return speech.fourier.margin + max(self.blocks.ahead * speech.tile, frames * speech.hop)

    @torch.no_grad()
    def passing(self, latents: Tensor) -> Tensor:
        """What each position of latents (B, D, t) adds to the clock, (B, 2, t) int64."""
        cycles = self._cycles(latents.transpose(1, 2)).unflatten(1, (-1, self.speech.frames)).sum(2)
        samples = torch.full_like(cycles, self.speech.hop * self.speech.frames)
        return torch.stack([cycles, samples], 1)

    def _sound(self, latents: Tensor, clock: Tensor, added: Tensor) -> Tensor:  # (B, T)
        speech = self.speech
        changes = added.unflatten(-1, (speech.frames, 2, speech.num_bins)).flatten(1, 2)
        harmonic, noisy = speech.envelopes(latents)
        # Spectra of noise of power 1 have this magnitude.
        level = torch.log(speech.fourier.hann.square().sum()) / 2
        pulses = speech.fourier(self._pulses(latents, clock[:, 0]).to(latents.dtype))
        noise = speech.fourier(self._noise(clock[:, 1]).to(latents.dtype))
        # Nothing is louder than full scale by far.
        loud = torch.exp((harmonic + changes[:, :, 0] - level).clamp(max=8))
        hiss = torch.exp((noisy + changes[:, :, 1] - level).clamp(max=8))
        return speech.fourier.inverse(pulses * loud + noise * hiss)

    def _cycles(self, latents: Tensor) -> Tensor:
        """Whole parts of a cycle that pass in every frame (B, F) int64."""
        return (self.speech.frequencies(latents) * self.speech.hop * CYCLE).round().long()

    @torch.no_grad()
    def _pulses(self, latents: Tensor, start: Tensor) -> Tensor:
        """A train of pulses of power 1 (B, T): all harmonics below half the rate, in phase."""
        speech = self.speech
        cycles = self._cycles(latents)
        counts = cycles.unflatten(1, (-1, speech.frames))
        before = (counts.cumsum(2) - counts).flatten(1)
        first = start.repeat_interleave(speech.frames, 1) + before
        # The frequency goes in lines from the middle of a frame to that of the next one, half a
        # frame later where that one is not known yet, and is scaled so that the phase is right at
        # the borders.
        wanted = speech.frequencies(latents)
        if speech.is_causal:
            wanted = F.pad(wanted, (1, 0), mode="replicate")
        line = F.interpolate(wanted[:, None], scale_factor=speech.hop, mode="linear")[:, 0]
        if speech.is_causal:
            line = line[:, speech.hop // 2 :][:, : cycles.shape[1] * speech.hop]
        line = line.unflatten(1, (-1, speech.hop))
        passed = line.cumsum(2)
        share = cycles.double() / CYCLE / passed[..., -1]
        phase = first[..., None] / CYCLE + (passed - line) * share[..., None]
        return _pulse_train(phase.flatten(1), line.flatten(1))

    def _noise(self, start: Tensor) -> Tensor:
        """Noise of power 1 (B, T)."""
        length = self.speech.hop * self.speech.frames
        places = start.long()[..., None] + torch.arange(length, device=start.device)
        return self.noise[(places % NOISE).flatten(1)]


def _pulse_train(phase: Tensor, frequency: Tensor) -> Tensor:
    """The sum of all cosines of multiples of a phase in cycles that lie below half the rate, of
    power 1: Dirichlet's kernel. frequency: cycles a sample.
    """
    count = torch.floor(0.499 / frequency)
    angle = math.pi * (phase - phase.round())
    below = torch.sin(angle)
    is_peak = below.abs() < 1e-6
    ratio = torch.sin((2 * count + 1) * angle) / below.masked_fill(is_peak, 1.0)
    total = torch.where(is_peak, 2 * count + 1, ratio) - 1
    return total * frequency.sqrt()
