"""The lapped transform, and a codec of stereo sound around it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from vqkit.pipelines.autoencoder import train
from vqkit.signals.audio.lapped import LappedTransform

from .conftest import RATE, TINY, voice


@pytest.mark.parametrize(("hop", "channels"), [(64, 1), (80, 2), (34, 2)])
def test_the_sound_comes_back_and_energy_is_kept_inside(hop, channels):
    sound = torch.randn(2, channels, 12 * hop, dtype=torch.float64)
    transform = LappedTransform(hop).double()
    coefficients = transform(sound)
    assert coefficients.shape == (2, channels, 12, hop)
    assert (transform.inverse(coefficients) - sound).abs().max() < 1e-5
    middle = torch.zeros_like(sound)
    middle[..., 4 * hop : 8 * hop] = sound[..., 4 * hop : 8 * hop]
    assert float(transform(middle).square().sum()) == pytest.approx(
        float(middle.square().sum()), rel=1e-5
    )


def test_a_coefficient_is_that_of_the_formula():
    """Princen, Johnson & Bradley 1987, with a sine window."""
    hop = 16
    sound = torch.randn(1, 1, 8 * hop, dtype=torch.float64)
    found = LappedTransform(hop).double()(sound)[0, 0, 3, 5]
    first = 3 * hop - hop // 2
    wanted = 0.0
    for place in range(2 * hop):
        window = np.sin(np.pi * (place + 0.5) / (2 * hop))
        angle = np.pi / hop * (place + 0.5 + hop / 2) * 5.5
        wanted += window * float(sound[0, 0, first + place]) * np.cos(angle)
    assert float(found) == pytest.approx(wanted * np.sqrt(2 / hop), abs=1e-5)


def test_stereo_sound_is_coded_in_parts_as_in_one(tmp_path):
    (tmp_path / "sounds").mkdir()
    for number in range(6):
        both = np.stack([voice(1.5, number), voice(1.5, number + 50)], 1)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", both, RATE)
    settings = [
        "data.channels=2",
        "data.validation=0.2",
        "data.test=0.2",
        "model.network={kind: lapped, hop: 80, width: 16, decoder_blocks: 1}",
        "model.quantizer={kind: scalar, channels: 160, step: 1.0, levels: 255}",
        "model.max_gain=4",
        *(one for one in TINY if "network" not in one),
    ]
    model = train(tmp_path / "sounds", tmp_path / "run", "speech", settings)
    assert model is not None
    # Most of the sound is there with hardly any training.
    assert model.metrics["spectral_snr"] > 8
    samples = np.stack([voice(2.0, 70), voice(2.0, 71)])
    whole = model.tokenizer.encode(torch.from_numpy(samples)[None])[0]
    encoder, decoder = model.stream()
    codes = []
    heard = []
    for start in range(0, samples.shape[1], 777):
        codes.append(encoder.push(torch.from_numpy(samples[:, start : start + 777])))
        heard.append(decoder.push(codes[-1]))
    codes.append(encoder.finish())
    heard += [decoder.push(codes[-1]), decoder.finish()]
    assert torch.equal(torch.cat(codes, 1), whole)
    assert torch.equal(torch.cat(heard, 1), model.tokenizer.decode(whole[None], double=True)[0])
    data = model.compress(samples)
    assert model.decompress(data).shape == (2, 16000)
    found = model.decompress(data, exact=True)
    assert np.abs(found.astype(int) - model.decompress(data)).max() <= 1
    assert torch.equal(model.encode(samples, exact=True)[0], model.exactly.encode(samples)[0])
