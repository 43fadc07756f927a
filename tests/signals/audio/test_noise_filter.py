"""The filter before the lapped transform, and a denoiser of recordings around it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from vqkit.apps.denoise import denoise
from vqkit.pipelines.autoencoder import train
from vqkit.signals.audio.config import LappedConfig
from vqkit.signals.audio.noise_filter import NoiseFilter

from .conftest import RATE, TINY, voice

HOP = 64


def drawn_filter() -> NoiseFilter:
    """One whose gains are anything."""
    torch.manual_seed(0)
    config = LappedConfig(hop=HOP, width=16, filter_blocks=2)
    noise_filter = NoiseFilter(config, RATE).double()
    torch.nn.init.normal_(noise_filter.network[-1].weight)
    return noise_filter


@pytest.mark.parametrize(("hop", "rate", "window"), [(64, 8000, 256), (512, 48000, 2048)])
def test_before_training_the_sound_stays_as_it_is(hop, rate, window):
    sound = torch.randn(2, 2, 6 * hop, dtype=torch.float64)
    noise_filter = NoiseFilter(LappedConfig(hop=hop, width=8, filter_blocks=1), rate).double()
    assert noise_filter.fourier.window == window
    assert (noise_filter(sound) - sound).abs().max() < 1e-6


def test_what_a_sample_depends_on_lies_within_the_reach():
    noise_filter = drawn_filter()
    count = 2 * noise_filter.reach + 40
    sound = torch.randn(1, 1, count * HOP, dtype=torch.float64)
    whole = noise_filter(sound)
    frames = slice(count // 2 - 10, count // 2 + 10)
    inside = slice(frames.start * HOP, frames.stop * HOP)
    first = (frames.start - noise_filter.reach) * HOP
    last = (frames.stop + noise_filter.reach) * HOP
    part = noise_filter(sound[..., first:last])
    found = part[..., inside.start - first : inside.stop - first]
    assert (found - whole[..., inside]).abs().max() < 1e-9
    # It does look further than spectra and blocks do: at the level around.
    near = (frames.start - 40) * HOP
    nearer = noise_filter(sound[..., near:last])[..., inside.start - near : inside.stop - near]
    assert (nearer - whole[..., inside]).abs().max() > 1e-6


def test_each_channel_is_filtered_by_itself():
    noise_filter = drawn_filter()
    sound = torch.randn(2, 2, 30 * HOP, dtype=torch.float64)
    both = noise_filter(sound)
    for channel in range(2):
        alone = noise_filter(sound[:, channel : channel + 1])
        assert torch.allclose(both[:, channel : channel + 1], alone, atol=1e-12)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denoiser")
    (folder / "sounds").mkdir()
    for number in range(8):
        soundfile.write(folder / "sounds" / f"{number}.wav", voice(2.0, number), RATE)
    settings = [
        *TINY,
        "data.validation=0.2",
        "data.test=0.2",
        "data.augment.level=0",
        "model.network.filter_blocks=1",
        "train.steps=80",
        "train.lr=0.005",
        "train.validate_every=80",
        "train.checkpoint_every=80",
    ]
    return train(folder / "sounds", folder / "run", "speech-denoise", settings)


def test_noise_is_taken_out_and_what_is_clean_is_kept(denoiser):
    clean = torch.from_numpy(voice(3.0, 90)).double()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).double()
    noisy = (clean + noise * clean.square().mean().sqrt()).round().to(torch.int16)

    def decibels(sound):
        return float(10 * torch.log10(clean.square().mean() / (sound - clean).square().mean()))

    assert decibels(noisy) == pytest.approx(0, abs=0.3)
    assert decibels(denoise(denoiser, noisy[None]).values[0]) > 5
    assert decibels(denoise(denoiser, clean.to(torch.int16)[None]).values[0]) > 10


def test_codes_of_a_recording_in_pieces_are_those_of_the_whole(denoiser):
    samples = torch.from_numpy(np.stack([voice(6.0, 70)]))
    whole = denoiser.tokenizer.encode(samples[None])[0]
    encoder, _ = denoiser.stream()
    codes = [encoder.push(samples[:, start : start + 777]) for start in range(0, 48000, 777)]
    codes.append(encoder.finish())
    assert torch.equal(torch.cat(codes, 1), whole)
