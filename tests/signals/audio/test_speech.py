"""The fixed model of speech: pitch, spectra and what is made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqkit.signals.audio.pitch import PitchTracker
from vqkit.signals.audio.signal import spectral_snr
from vqkit.signals.audio.spectra import (
    ShortTimeFourier,
    SpectralDistance,
    cosine_rows,
    mel_bands,
)
from vqkit.signals.audio.vocoder import _pulse_train

RATE = 8000


@pytest.mark.parametrize("hertz", [75, 120, 200, 333])
def test_the_pitch_of_a_buzz_is_found(hertz):
    times = torch.arange(RATE, dtype=torch.float64) / RATE
    harmonics = range(1, int(3500 / hertz))
    sound = sum(0.02 * torch.cos(2 * math.pi * hertz * k * times) for k in harmonics)
    pitch, voicing = PitchTracker(RATE, 80)(sound[None])
    inside = slice(10, 90)
    assert (2 ** pitch[0, inside] / hertz - 1).abs().max() < 0.01
    # Between two lags of whole samples less than all of it is alike.
    assert voicing[0, inside].min() > 0.8


def test_noise_has_no_voice_and_a_level_line_for_its_pitch():
    sound = 0.1 * torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    pitch, voicing = PitchTracker(RATE, 80)(sound)
    assert voicing.mean() < 0.45
    # A raw maximum jumps by octaves from frame to frame.
    assert pitch.diff().abs().median() < 0.05


def test_a_frame_is_blind_beyond_its_reach():
    tracker = PitchTracker(RATE, 80)
    sound = 0.1 * torch.randn(1, 8000, dtype=torch.float64)
    other = sound.clone()
    at = 50 * 80 + 40
    other[:, : at - tracker.reach] = 0.3
    other[:, at + tracker.reach :] = -0.2
    for one, two in zip(tracker(sound), tracker(other), strict=True):
        assert torch.equal(one[:, 50], two[:, 50])


@pytest.mark.parametrize(("window", "hop"), [(256, 80), (512, 160), (64, 32)])
def test_spectra_go_back_to_the_sound(window, hop):
    sound = torch.randn(2, 20 * hop, dtype=torch.float64)
    fourier = ShortTimeFourier(window, hop).double()
    spectra = fourier(sound)
    assert spectra.shape == (2, 20, window // 2 + 1)
    assert torch.allclose(fourier.inverse(spectra), sound, atol=1e-9)


def test_a_frame_is_centred_where_it_is_said_to_be():
    sound = torch.zeros(1, 800)
    sound[0, 5 * 80 + 40] = 1.0
    energy = ShortTimeFourier(256, 80)(sound).abs().square().sum(-1)[0]
    assert int(energy.argmax()) == 5
    assert float(energy[4]) == pytest.approx(float(energy[6]), rel=1e-4)


def test_mel_bands_sum_to_one_between_the_first_and_the_last_peak():
    bands = mel_bands(20, 257, RATE)
    peaks = bands.argmax(0)
    inside = bands[int(peaks[0]) + 1 : int(peaks[-1])]
    assert torch.allclose(inside.sum(1), torch.ones(len(inside)), atol=1e-5)
    # 1000 Hz is 1000 mel, by the scale's definition.
    hertz = torch.arange(257) * RATE / 512
    mels = 1127 * torch.log(1 + hertz[peaks] / 700)
    assert mels.diff().std() < 12


def test_the_cosine_transform_is_orthonormal_and_scipy_agrees():
    rows = cosine_rows(12).double()
    assert torch.allclose(rows @ rows.T, torch.eye(12, dtype=torch.float64), atol=1e-6)
    by_hand = [math.sqrt(2 / 12) * math.cos(math.pi * 3 * (n + 0.5) / 12) for n in range(12)]
    assert rows[3].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_pulses_are_the_sum_of_all_harmonics():
    frequency = torch.full((2000,), 0.013, dtype=torch.float64)
    phase = frequency.cumsum(0)
    found = _pulse_train(phase, frequency)
    harmonics = range(1, int(0.499 / 0.013) + 1)
    wanted = sum(torch.cos(2 * math.pi * k * phase) for k in harmonics)
    assert torch.allclose(found, 2 * wanted * math.sqrt(0.013), atol=1e-6)
    assert float(found.square().mean()) == pytest.approx(1.0, abs=0.05)


def test_the_distance_is_that_of_levels_in_nepers():
    """Of sound that is twice as loud in every band: ln 2, far above the floor."""
    sound = 0.2 * torch.randn(3, 1, RATE, generator=torch.Generator().manual_seed(1))
    distance = SpectralDistance(RATE)(2 * sound, sound, each=True)
    assert distance.shape == (3,)
    assert torch.allclose(distance, torch.full((3,), math.log(2)), atol=0.01)
    assert float(SpectralDistance(RATE)(sound, sound)) == 0.0


def test_spectral_snr_by_hand():
    """Of sound at another level: 1 / (1 - a)^2, whatever the phases."""
    rng = np.random.default_rng(0)
    sound = torch.from_numpy(rng.integers(-8000, 8000, (2, 1, 4000)).astype(np.int16))
    found = spectral_snr((sound.float() * -0.9).round().to(torch.int16), sound)
    assert torch.allclose(found, torch.full((2,), 20.0), atol=0.05)
