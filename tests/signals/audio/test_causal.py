"""Causal models of recordings: what they see ahead is what they say, and streams wait for no more.

Weights are random, with blocks that do something, and codes are scalar ones, which follow whatever
the networks say.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

import vqkit
from vqkit import cli
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.artifact.streaming import LatentStream
from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.model import tiling
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.audio.pitch import PitchTracker
from vqkit.signals.audio.source import normalisation_of

from .conftest import RATE, TINY, voice

BLOCKS = ["model.network.encoder_blocks=1", "model.network.decoder_blocks=2"]
VOCODER = ["model.network.width=16", *BLOCKS]
LAPPED = ["model.network={kind: lapped, hop: 80, width: 16}", *BLOCKS]


def scalar(channels: int) -> str:
    return f"model.quantizer={{kind: scalar, channels: {channels}, step: 0.5, levels: 255}}"


# By name: channels of the sound, and settings.
KINDS = {
    "vocoder": (1, [*VOCODER, scalar(136)]),
    # A latent is shorter than what windows and lines between frames see, and odd.
    "short": (
        1,
        [
            *VOCODER,
            scalar(34),
            "model.network.frames=1",
            "model.network.hop=75",
            "model.network.decoder_blocks=1",
        ],
    ),
    "lapped": (1, [*LAPPED, scalar(80)]),
    "stereo": (2, [*LAPPED, scalar(66), "model.network.hop=33"]),
    "map": (1, [*LAPPED, scalar(80), "model.transform={kind: conv, width: 8, num_blocks: 2}"]),
    "two grids": (
        1,
        [
            *LAPPED,
            "model.quantizer={kind: hierarchical, latent_dim: 80, grid_dims: 1, "
            "top: {kind: fsq, levels: [8, 8]}, bottom: {kind: fsq, levels: [8, 8, 8]}}",
        ],
    ),
}


def model_of(kind: str, is_causal: bool) -> Model:
    channels, settings = KINDS[kind]
    opened = [f"data.sample_rate={RATE}", f"data.channels={channels}"]
    config = load("speech", [*opened, *settings, f"model.causal={is_causal}".lower()], Config)
    normalisation = normalisation_of(channels)
    torch.manual_seed(0)
    network = build_model(config, Shape(channels, (RATE,)), normalisation).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if not name.startswith("quantizer"):
                value.add_(0.2 * torch.randn(value.shape))
    data = {
        "name": "sounds",
        "sample_rate": RATE,
        "channels": channels,
        "size": [RATE],
        "normalisation": normalisation.to_dict(),
    }
    return Model(Artifact(config, network, data), "cpu")


def sound(model: Model, tiles: float, seed: int = 5) -> Tensor:
    """A voice and noise, both loud, of so many tiles and what is ahead of one: int16 (C, T)."""
    length = round(tiles * model.network.tile[0]) + model.network.ahead.encoder
    generator = torch.Generator().manual_seed(seed)
    found = []
    for channel in range(model.shape.channels):
        voiced = torch.from_numpy(voice(length / RATE + 1, seed + channel))[:length]
        found.append(4.0 * voiced + 800 * torch.randn(length, generator=generator))
    return torch.stack(found).round().to(torch.int16)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "causal"])
def is_causal(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "lapped"])
def model(request: pytest.FixtureRequest, is_causal: bool) -> Model:
    """Of every kind; `map` has all that `lapped` has."""
    return model_of(request.param, is_causal)


def whole(model: Model, values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (Q, t) and sound (C, n) of an item."""
    codes = model.tokenizer.encode(values[None])
    return codes[0], model.tokenizer.decode(codes, double=True)[0]


# --------------------------------------------------------------------------------- what is ahead


def test_what_comes_after_the_stated_look_ahead_changes_nothing(model):
    """Neither codes nor, of codes, the sound."""
    values = sound(model, 14)
    encoder, decoder = model.stream()
    tile = encoder.tile
    seen = 3 * tile + encoder.ahead
    changed = values.clone()
    changed[:, seen:] = sound(model, 14, 50)[:, seen:].flip(1)
    codes, shown = whole(model, values)
    others = model.tokenizer.encode(changed[None])[0]
    cells = 3 * encoder.cells
    assert torch.equal(others[:, :cells], codes[:, :cells])
    assert not torch.equal(others, codes)
    # From the fourth tile on the codes are those of other sound.
    mixed = torch.cat([codes[:, :cells], others[:, cells:].flip(1)], 1)
    heard = model.tokenizer.decode(mixed[None], double=True)[0]
    known = max(0, 3 * tile - decoder.delay)
    assert torch.equal(heard[:, :known], shown[:, :known])
    assert not torch.equal(heard, shown)


@pytest.mark.parametrize("kind", ["vocoder", "lapped", "map"])
def test_a_model_that_is_not_causal_looks_further_ahead(kind):
    """Sound behind the look-ahead of the causal model changes its codes, and codes its sound."""
    causal = model_of(kind, True)
    plain = model_of(kind, False)
    assert plain.network.ahead.encoder > causal.network.ahead.encoder
    assert plain.network.ahead.decoder > causal.network.ahead.decoder
    values = sound(plain, 14)
    (tile,) = plain.network.tile
    seen = 3 * tile + causal.network.ahead.encoder
    changed = values.clone()
    changed[:, seen:] = sound(plain, 14, 50)[:, seen:].flip(1)
    codes, shown = whole(plain, values)
    others = plain.tokenizer.encode(changed[None])[0]
    assert not torch.equal(others[:, :3], codes[:, :3])
    mixed = torch.cat([codes[:, :8], others[:, 8:].flip(1)], 1)
    heard = plain.tokenizer.decode(mixed[None], double=True)[0]
    known = 8 * tile - causal.network.ahead.decoder
    assert not torch.equal(heard[:, :known], shown[:, :known])


def test_only_the_fixed_transforms_look_ahead_of_a_causal_model():
    """By hand, of frames of 10 ms at 8 kHz. Vocoder: what the pitch of a frame is compared with, 30
    ms and the period of 60 Hz around it, and 10 ms for the mean; of a sample, half of what a window
    of 256 samples has beside a frame, and two frames of pulses. Lapped: half a frame each.
    """
    vocoder = model_of("vocoder", True)
    compared = 240 + 133
    assert vocoder.network.ahead == (compared - (compared - 80) // 2 - 80 + 80, 88 + 2 * 80)
    assert vocoder.latency == (
        "99.38 ms: 40 ms of a code, 28.38 ms ahead of it to encode, 31 ms to decode"
    )
    assert model_of("lapped", True).network.ahead == (40, 40)


def test_the_pitch_of_a_frame_rests_on_no_later_frames_where_it_is_causal():
    sounds = torch.from_numpy(voice(1.0, 8))[None].double() / 32768
    for is_causal in (False, True):
        tracker = PitchTracker(RATE, 80, is_causal=is_causal)
        end = 51 * 80 + tracker.ahead
        other = sounds.clone()
        other[:, end:] = 0.3
        for one, two in zip(tracker(sounds), tracker(other), strict=True):
            assert torch.equal(one[:, :51], two[:, :51])
    pitch, voicing = PitchTracker(RATE, 80)(sounds)
    found, heard = PitchTracker(RATE, 80, is_causal=True)(sounds)
    voiced = (voicing > 0.7) & (heard > 0.7)
    assert voiced.sum() > 20
    assert (found - pitch)[voiced].abs().median() < 0.01


# ----------------------------------------------------------------------------------------- streams


def test_a_code_is_there_with_the_last_sample_that_it_waits_for(model):
    """Samples one at a time, codes one position at a time."""
    values = sound(model, 12.3)
    codes, shown = whole(model, values)
    encoder, decoder = model.stream()
    found = []
    heard = []
    num_codes = 0
    num_heard = 0
    worst = 0
    for count in range(1, values.shape[1] + 1):
        found.append(encoder.push(values[:, count - 1 : count]))
        if found[-1].shape[1]:
            assert found[-1].shape[1] == encoder.cells
            num_codes += found[-1].shape[1]
            position = num_codes // encoder.cells - 1
            assert count == position * encoder.tile + encoder.delay
            heard.append(decoder.push(found[-1]))
            num_heard += heard[-1].shape[1]
            assert num_heard == max(0, (position + 1) * encoder.tile - decoder.delay)
        worst = max(worst, count - num_heard)
    # Samples that have come in and are not out again: the next one makes them as many as are said.
    assert worst == encoder.delay + decoder.delay - 1
    found.append(encoder.finish())
    heard += [decoder.push(found[-1]), decoder.finish()]
    assert torch.equal(torch.cat(found, 1), codes)
    assert torch.equal(torch.cat(heard, 1), shown)


@pytest.mark.parametrize("tiles", [1, 2.5])
def test_pieces_give_the_codes_latents_and_sound_of_the_whole(model, tiles):
    values = sound(model, 15.4)
    codes, shown = whole(model, values)
    encoder, decoder = model.stream()
    latents = LatentStream(model.tokenizer)
    size = round(tiles * encoder.tile)
    found = []
    seen = []
    heard = []
    for start in range(0, values.shape[1], size):
        found.append(encoder.push(values[:, start : start + size]))
        seen.append(latents.push(values[:, start : start + size]))
        heard.append(decoder.push(found[-1]))
    found.append(encoder.finish())
    seen.append(latents.finish())
    heard += [decoder.push(found[-1]), decoder.finish()]
    assert torch.equal(torch.cat(found, 1), codes)
    assert torch.equal(torch.cat(heard, 1), shown)
    together = model.tokenizer.latents_alone(values[None])[0]
    assert torch.allclose(torch.cat(seen, 1), together, rtol=0, atol=1e-9)


def test_parts_batches_and_padding_change_nothing(model, monkeypatch):
    clips = torch.stack([sound(model, 16, seed) for seed in (1, 11)])
    pairs = [whole(model, clip) for clip in clips]
    lengths = [clips.shape[2], clips.shape[2] // 2 + 7]
    own = [
        model.tokenizer.encode(clip[None, :, :length])[0]
        for clip, length in zip(clips, lengths, strict=True)
    ]
    for network in (model.network, model.tokenizer._double):
        monkeypatch.setattr(network, "part_positions", 1)
    monkeypatch.setattr(tiling, "NUM_MARGINS", 0)
    codes = model.tokenizer.encode(clips)
    assert torch.equal(codes, torch.stack([codes for codes, _ in pairs]))
    shown = model.tokenizer.decode(codes, double=True)
    assert torch.equal(shown, torch.stack([shown for _, shown in pairs]))
    mask = torch.arange(clips.shape[2]) < torch.tensor(lengths)[:, None]
    padded = model.tokenizer.encode(clips.where(mask[:, None], 0), mask)
    for alone, found in zip(own, padded, strict=True):
        assert torch.equal(found[:, : alone.shape[1]], alone)
        assert (found[:, alone.shape[1] :] == -1).all()


# ------------------------------------------------------------------------------- the command line


def test_a_causal_model_from_the_command_line(recordings, tmp_path, capsys):
    folder = tmp_path / "live"
    words = ["train", str(recordings), "--out", str(folder), "--recipe", "speech", *TINY]
    few = ["model.quantizer.num_stages=2", "model.quantizer.stage.codebook_size=16"]
    assert cli.main([*words, *few, "model.causal=true", "data.validation=0.2"]) == 0
    assert cli.main(["info", str(folder)]) == 0
    told = capsys.readouterr().out
    latency = "99.38 ms: 40 ms of a code, 28.38 ms ahead of it to encode, 31 ms to decode"
    assert f"live     {latency}" in told
    assert re.search("^  causal: true", told, re.MULTILINE)
    assert latency in (folder / "report.html").read_text()
    assert latency in (folder / "README.md").read_text()
    model = vqkit.load(folder, device="cpu")
    assert model.config.model.causal
    assert latency in repr(model)
    assert [repr(each) for each in model.stream()] == [
        "EncodeStream(delay=68.38 ms)",
        "DecodeStream(delay=31 ms)",
    ]
    # In a file, too, every code is that of the stream.
    values = sound(model, 33.3)
    encoder, _ = model.stream("full")
    codes = torch.cat([encoder.push(values), encoder.finish()], 1)
    back = model.decompress(model.compress(values.numpy(), rate="full"))
    shown = model.tokenizer.decode(codes[None], values.shape[1:], double=True)[0]
    assert (back == shown.numpy()).all()


def test_networks_of_images_are_never_causal():
    with pytest.raises(VqkitError, match="only with networks of recordings"):
        load("images", ["model.causal=true"], Config)
    # What an override leaves without effect goes back to its default.
    config = load("speech", ["model.causal=true"], Config)
    assert config.model.causal and config.model.network.can_be_causal
