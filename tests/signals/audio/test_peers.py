"""Other codecs beside a model: their bytes, and sound that is where it was."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch

from vqkit.apps.evaluate import open_for
from vqkit.apps.peers import beside_peers
from vqkit.artifact.model import Model
from vqkit.errors import VqkitError
from vqkit.signals.audio.peers import _opus, peers
from vqkit.signals.audio.signal import AUDIO

from .conftest import RATE


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_opus_has_the_rates_of_its_names_and_keeps_sound_in_its_place(rate, channels):
    sound = np.repeat(np.random.default_rng(0).normal(0, 3000, rate * 4)[None], channels, 0)
    # Low frequencies, which every rate keeps.
    smooth = np.apply_along_axis(np.convolve, 1, sound, np.ones(32) / 32, "same")
    values = torch.from_numpy(np.rint(smooth).astype(np.int16))
    found = [peer for peer in peers(rate, channels) if peer.name.startswith("Opus")]
    for peer in found:
        size, decoded = peer.code(values)
        asked = float(peer.name.removeprefix("Opus ").removesuffix("k"))
        assert decoded.shape == values.shape and decoded.dtype == torch.int16
        # Variable rates, and pages of the container.
        assert 0.3 * asked < 8e-3 * size / 4 < 1.5 * asked + 2
    shifts = range(-40, 41)
    wanted, given = values[0].double(), decoded[0].double()
    best = max(shifts, key=lambda shift: float(wanted @ given.roll(shift)))
    assert abs(best) <= 1


def test_a_model_and_its_peers_are_measured_on_the_same_sound(codec: Model, recordings):
    data = open_for(codec, recordings, "train", None)
    rows = beside_peers(codec, data, "train")
    assert [row.rate for row in rows] == sorted(row.rate for row in rows)
    batch = next(data.split("train", 24))
    parts = [one[:, kept] for one, kept in zip(batch.values, batch.mask, strict=True)]
    sound = torch.cat(parts, 1)
    seconds = sound.shape[1] / RATE
    ours = [row for row in rows if row.is_ours]
    assert len(ours) == max(1, len(codec.artifact.coders.rates))
    file = codec.compress(sound.numpy(), rate=ours[-1].name.removeprefix("vqkit").strip() or None)
    assert ours[-1].rate == pytest.approx(8e-3 * len(file) / seconds)
    decoded = torch.from_numpy(codec.decompress(file))[None]
    measured = AUDIO.measures(decoded, sound[None])["spectral_snr"]
    assert ours[-1].measures["spectral_snr"] == pytest.approx(float(measured), abs=1e-4)
    opus = next(row for row in rows if row.name == "Opus 12k")
    buffer = io.BytesIO()
    soundfile.write(buffer, sound[0].numpy(), RATE, "OPUS", format="OGG", compression_level=0.976)
    assert 8e-3 * buffer.tell() / seconds == pytest.approx(opus.rate, rel=0.02)


def test_opus_of_a_size_is_the_largest_that_fits():
    sound = np.random.default_rng(0).normal(0, 3000, RATE * 2)
    values = torch.from_numpy(np.rint(sound).astype(np.int16))[None]
    (found,) = AUDIO.beside(values, 6000, {"sample_rate": RATE, "channels": 1})
    kbps = int(found.name.removeprefix("Opus ").removesuffix("k"))
    sizes = {rate: _opus(rate, RATE, values)[0] for rate in (kbps, kbps + 1)}
    assert found.num_bytes == sizes[kbps] <= 6000 < sizes[kbps + 1]
    (least,) = AUDIO.beside(values, 10, {"sample_rate": RATE, "channels": 1})
    assert least.name == "Opus 6k" and least.num_bytes > 10


def test_recordings_are_refused_by_their_header(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(RATE * 3, np.float32), RATE)
    assert AUDIO.too_large(path, 1, 3.0) is None
    assert "3 seconds" in AUDIO.too_large(path, 1, 2.9)
    path.write_bytes(b"RIFF")
    with pytest.raises(VqkitError, match="no sound"):
        AUDIO.too_large(path, 1, 3.0)
