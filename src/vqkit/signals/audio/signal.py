"""Recordings as the rest of the package sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.normalisation import Normalisation
from ...errors import VqkitError
from ...model.autoencoder import Backbone, Widths
from ...shapes import Shape
from ..base import ByPeer, Peer, Signal, Suggestion
from ..paths import named_or_below
from . import display, files, forms, peers
from .config import DataConfig, LappedConfig, StftAdversary, VocoderConfig
from .discriminator import StftDiscriminator
from .files import BadSound, Target, load
from .networks import build_backbone
from .rules import suggested
from .source import AudioData, bad_files, look_at, open_audio, with_noise
from .spectra import SpectralDistance, hann_window

# Noise that a denoiser is measured at, as a share of the recording's level: 10, 5 and 0 dB.
NOISE_LEVELS = (0.32, 0.56, 1.0)
# Seconds from and to, of a gap that is to be filled.
GAP = re.compile(r"(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)")
# Seconds over which what is made anew fades in: less is heard as a click.
BLEND = 0.01
# Samples of the spectra that sound is measured by, and from one to the next.
MEASURED = 512
HOP = MEASURED // 4
# Magnitudes of such spectra that are no sound, 100 dB below those of full scale.
FAINT = 1e-5 * MEASURED / 4
# Decibels below the loudest frame in which a frame is heard.
AUDIBLE = 60.0
# Seconds in which one hears what is said, and by which one recognises a sound in its context.
FOLLOWED = 2.5
GLIMPSE = 0.5
# Bins and frames of a spectrogram that are compared as one.
COMPARED = (4, 4)


class AudioSignal(Signal):
    """See `Signal`. Values are int16 (C, T)."""

    name = "audio"
    number = 1
    item = "recording"
    suffix = ".wav"
    quality = "spectral_snr"
    quality_in_words = "spectral SNR"
    adversary = StftAdversary
    change_in_words = "% of its spectrum"

    def open(
        self,
        source: str | Path,
        settings: DataConfig,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> AudioData:
        known: dict[str, Any] = {}
        if data is not None:
            known = {"rate": data["sample_rate"], "channels": data["channels"]}
        if max_bad is not None:
            known["max_bad"] = max_bad
        return open_audio(source, settings, seed, progress=progress, **known)

    def has(self, path: Path) -> bool:
        return files.is_sound(path)

    def suggest(self, source: str | Path, minutes: float | None) -> Suggestion | None:
        look = look_at(source)
        return None if look is None else suggested(look)

    def settled(self, settings: DataConfig, data: AudioData) -> DataConfig:
        update = {"sample_rate": data.rate, "channels": data.shape.channels}
        return settings.model_copy(update=update)

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

    def describe_in_words(self, data: AudioData) -> dict[str, str]:
        minutes = {name: f"{seconds / 60:.1f}" for name, seconds in data.seconds.items()}
        parts = ", ".join(f"{name} {minutes[name]}" for name in data.seconds)
        return {
            "size": f"{self.extent_in_words(data.shape.extent)} a clip",
            "seconds": f"minutes of sound: {parts}",
        }

    def settings_of(self, settings: DataConfig, shape: Shape) -> DataConfig:
        assert settings.sample_rate is not None
        seconds = shape.extent[0] / settings.sample_rate
        return settings.model_copy(update={"seconds": seconds, "channels": shape.channels})

    # ---------------------------------------------------------------------------------------- files

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return named_or_below(paths, files.is_sound)

    def read(
        self,
        path: str | Path,
        data: Mapping[str, Any],
        settings: DataConfig,
        *,
        exact: bool = False,
    ) -> Tensor:
        return torch.from_numpy(_loaded(Path(path), _target(data, settings, exact=exact)))

    def read_content(self, content: bytes, data: Mapping[str, Any], settings: DataConfig) -> Tensor:
        try:
            return torch.from_numpy(load(content, _target(data, settings))[0])
        except BadSound as error:
            raise VqkitError(str(error)) from error

    def read_pieces(
        self, path: Path, data: Mapping[str, Any], settings: DataConfig
    ) -> Iterator[Tensor]:
        try:
            for samples, _ in files.pieces(path, _target(data, settings)):
                yield torch.from_numpy(samples)
        except BadSound as error:
            raise VqkitError(f"cannot read {path}: {error}") from error

    def expected_extent(self, path: Path, data: Mapping[str, Any]) -> tuple[int, ...] | None:
        try:
            header = files.read_header(path)
        except BadSound:
            return None
        return (round(header.frames * data["sample_rate"] / header.rate),)

    def too_large(self, file: Path | bytes, positions: int, seconds: float) -> str | None:
        try:
            header = files.read_header(file)
        except BadSound as error:
            raise VqkitError(str(error)) from error
        if header.seconds > seconds:
            return f"{header.seconds:.0f} seconds are too many here"
        return None

    def changes_in_reading(self, path: Path, data: Mapping[str, Any]) -> str | None:
        try:
            header = files.read_header(path)
        except BadSound:
            return None
        changes = []
        rate = data["sample_rate"]
        channels = data["channels"]
        if header.rate != rate:
            changes.append(f"{header.rate} samples a second are resampled to the model's {rate}")
        if header.channels > channels:
            kind = "mono" if channels == 1 else "stereo"
            changes.append(f"{header.channels} channels are mixed to the model's {kind}")
        return ", and ".join(changes) or None

    def fitted(
        self, values: Tensor, data: Mapping[str, Any], settings: DataConfig, shape: Shape
    ) -> Tensor:
        samples = values[:, : shape.extent[0]]
        return nn.functional.pad(samples, (0, shape.extent[0] - samples.shape[1]))

    def read_mask(self, said: str, extent: tuple[int, ...], data: Mapping[str, Any]) -> Tensor:
        mask = torch.zeros(extent, dtype=torch.bool)
        for gap in said.split(","):
            found = GAP.fullmatch(gap.strip())
            start, end = map(float, found.groups()) if found else (0.0, 0.0)
            if start >= end:
                raise VqkitError(
                    f"{said!r} is no gap: give the seconds from and to which a recording is made "
                    "anew, such as 0.8-1.2, several with a comma between them"
                )
            rate = data["sample_rate"]
            if round(start * rate) >= extent[0]:
                raise VqkitError(
                    f"the recording ends after {extent[0] / rate:.2f} s, before the gap {gap!r}"
                )
            mask[round(start * rate) : round(end * rate)] = True
        return mask

    def blend(self, data: Mapping[str, Any]) -> int:
        return round(BLEND * data["sample_rate"])

    def write(self, values: Tensor, data: Mapping[str, Any]) -> bytes:
        return files.encode(values.numpy(), data["sample_rate"])

    def write_pieces(
        self, path: Path, pieces: Iterable[Tensor], extent: Sequence[int], data: Mapping[str, Any]
    ) -> None:
        blocks = (piece.numpy() for piece in pieces)
        files.write(path, blocks, (data["channels"], *extent), data["sample_rate"])

    # ------------------------------------------------------------------------ forms that users have

    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False
    ) -> list[Tensor]:
        def read(path: str | Path) -> Tensor:
            return self.read(path, data, settings, exact=exact)

        return forms.to_values(given, data["channels"], read, exact=exact)

    def like(self, values: list[Tensor], given: Any, data: Mapping[str, Any]) -> Any:
        return forms.like(values, given)

    def to_array(self, values: Tensor, data: Mapping[str, Any]) -> np.ndarray:
        return values.numpy()

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
        if not isinstance(config, VocoderConfig | LappedConfig):
            raise VqkitError(f"model.network.kind={config.kind} is no network for recordings")
        if len(shape.extent) != 1:
            raise VqkitError(f"a recording has one extent, not {list(shape.extent)}")
        return build_backbone(config, settings.sample_rate, shape, widths, is_causal)

    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {"spectral_snr": spectral_snr(values, original, mask)}

    def quality_of_pieces(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        return spectral_snr_of_pieces(pairs)

    def evaluation_measures(
        self,
        values: Tensor,
        original: Tensor,
        mask: Tensor | None,
        data: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        distance = _distance(data["sample_rate"])
        values, original = _silenced(values, original, mask)
        nepers = distance(values / files.FULL, original / files.FULL, each=True)
        # 20 / ln 10 dB in a neper.
        return {"log_mel": nepers * 8.685889638, **self.measures(values, original, mask)}

    def perceptual_distance(
        self, wanted: str, normalisation: Normalisation, settings: DataConfig
    ) -> nn.Module:
        if wanted not in ("auto", "mel"):
            raise VqkitError(
                f"losses.perceptual_distance={wanted} is of images; recordings have mel"
            )
        assert settings.sample_rate is not None
        return SpectralDistance(settings.sample_rate)

    def _discriminator(
        self, settings: StftAdversary, shape: Shape, data: DataConfig
    ) -> StftDiscriminator:
        assert data.sample_rate is not None
        return StftDiscriminator(settings, shape, data.sample_rate)

    def detail(self, values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-spectral distance below zero, in dB: the root mean square over a frame's bins of
        what levels differ by, the mean of it over frames within AUDIBLE of the loudest.
        """
        levels = []
        for sound in _silenced(values, original, mask):
            levels.append(20 * torch.log10(_magnitudes(_padded(sound)).clamp(min=FAINT)))
        mine, wanted = levels
        distances = (mine - wanted).square().mean(2).sqrt()
        loudness = wanted.amax(2)
        heard = loudness > loudness.amax(1, keepdim=True) - AUDIBLE
        return -(distances * heard).sum(1) / heard.sum(1).clamp(min=1)

    def removes_noise(self, settings: DataConfig) -> bool:
        return settings.noise.level > 0

    def noise_levels(self, settings: DataConfig, values: Tensor) -> dict[str, Tensor]:
        if not self.removes_noise(settings):
            return {}
        levels = {}
        for level in NOISE_LEVELS:
            name = f"{abs(round(-20 * np.log10(level)))}db"
            levels[name] = with_noise(values, level, range(len(values)))
        return levels

    def rate_per(self, extent: tuple[int, ...], data: Mapping[str, Any]) -> tuple[str, float]:
        return "kbps", 1000 * extent[0] / data["sample_rate"]

    def peers(self, data: Mapping[str, Any]) -> list[Peer]:
        return peers.peers(data["sample_rate"], data["channels"])

    def beside(self, values: Tensor, num_bytes: int, data: Mapping[str, Any]) -> list[ByPeer]:
        return peers.of_size(values, num_bytes, data["sample_rate"])

    def display(self, values: Tensor) -> np.ndarray:
        return display.spectrograms(values)

    def compared(self, values: Tensor) -> Tensor:
        # Phases are made up: equal sounds have other samples. Means of blocks take a sixteenth of
        # the time of single bins and frames.
        loudness = F.avg_pool2d(display.loudness(values), COMPARED, ceil_mode=True)
        return 255 * loudness.double()

    media_type = "audio/flac"

    def media(self, values: Tensor, data: Mapping[str, Any]) -> list[bytes]:
        rate = data["sample_rate"]
        return [files.encode(one.numpy(), rate, "FLAC") for one in values]

    def extent_in_words(self, extent: tuple[int, ...]) -> str:
        return f"{extent[0]} samples"

    def change(self, values: Tensor, original: Tensor) -> Tensor:
        """Error of the magnitudes of the spectra in percent of those of the louder of the two, as
        phases are not heard and silence is no measure.
        """
        mine = _magnitudes(_padded(values))
        wanted = _magnitudes(_padded(original))
        error = (mine - wanted).square().sum((1, 2))
        energy = torch.maximum(mine.square().sum((1, 2)), wanted.square().sum((1, 2)))
        return 100 * (error / energy.clamp(min=1e-9)).sqrt()

    # ------------------------------------------------------------------------------ what codes mean

    def explained(self, settings: DataConfig, data: Mapping[str, Any]) -> DataConfig:
        clips = max(1, round(FOLLOWED / settings.seconds))
        return settings.model_copy(update={"seconds": clips * settings.seconds, "overlap": 1})

    def glimpse(self, shape: Shape, data: Mapping[str, Any]) -> tuple[int, ...]:
        return (min(shape.extent[0], round(GLIMPSE * data["sample_rate"])),)

    def ruler(self, data: Mapping[str, Any]) -> tuple[str, float]:
        return "ms", data["sample_rate"] / 1000


@lru_cache(maxsize=2)
def _distance(rate: int) -> SpectralDistance:
    return SpectralDistance(rate)


def _target(data: Mapping[str, Any], settings: DataConfig, *, exact: bool = False) -> Target:
    """What a model of that data takes."""
    return Target(data["sample_rate"], data["channels"], 3600 * settings.max_hours, exact=exact)


def _loaded(path: Path, target: Target) -> files.Samples:
    try:
        return load(path, target)[0]
    except BadSound as error:
        raise VqkitError(f"cannot read {path}: {error}") from error


def spectral_snr(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """Energy of the magnitudes of the original's spectra over that of the error of the magnitudes,
    in dB: the inverse of spectral convergence (Sturmel & Daudet 2011), which hears no phases.

    int16 (B, C, T) twice -> (B,).
    """
    values, original = _silenced(values, original, mask)
    return _decibels(*_energies(_padded(values), _padded(original)))


def spectral_snr_of_pieces(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """As `spectral_snr`, of int16 twice (C, n) in pieces."""
    energy = torch.zeros(1, dtype=torch.float64)
    error = torch.zeros(1, dtype=torch.float64)
    # What the next frame begins with: both, (2, C, m).
    waiting: Tensor | None = None
    for pair in chain(pairs, [None]):
        if pair is not None:
            piece = torch.stack(pair).float()
        elif waiting is not None:
            piece = waiting.new_zeros(*waiting.shape[:2], MEASURED)
        else:
            break
        if waiting is None:
            waiting = piece.new_zeros(*piece.shape[:2], MEASURED // 2)
        seen = torch.cat([waiting, piece], 2)
        num_frames = max(0, seen.shape[2] - MEASURED + HOP) // HOP
        if num_frames:
            found = _energies(*seen[:, None])
            energy += found[0]
            error += found[1]
        waiting = seen[:, :, num_frames * HOP :]
    return float(_decibels(energy, error))


def _padded(values: Tensor) -> Tensor:
    """Samples (B, C, T) with the silence around them that the first and the last frame see."""
    return nn.functional.pad(values.float(), (MEASURED // 2, MEASURED))


def _energies(values: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
    """Energies of the original's magnitudes and of their error, (B,) each, over the whole frames of
    samples (B, C, T) twice.
    """
    mine = _magnitudes(values)
    wanted = _magnitudes(original)
    return wanted.square().sum((1, 2)), (mine - wanted).square().sum((1, 2))


def _decibels(energy: Tensor, error: Tensor) -> Tensor:
    return 10 * torch.log10(energy.clamp(min=1e-9) / error.clamp(min=1e-9))


def _magnitudes(values: Tensor) -> Tensor:  # (B, C, T) -> (B, F, N)
    window = hann_window(MEASURED).to(values.device)
    sound = values.flatten(0, 1) / files.FULL
    found = torch.fft.rfft(sound.unfold(1, MEASURED, HOP) * window).abs()
    return found.unflatten(0, values.shape[:2]).flatten(1, 2)


def _silenced(values: Tensor, original: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both with silence where nothing is real."""
    if mask is None:
        return values, original
    mask = mask.to(values.device)
    return values.where(mask[:, None], 0), original.where(mask[:, None], 0)


AUDIO = AudioSignal()
