"""A trained codec of recordings, from files to files."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from vqkit import cli
from vqkit.apps.denoise import denoise
from vqkit.config import load
from vqkit.data.dataset import Batch
from vqkit.errors import VqkitError
from vqkit.pipelines.choosing import choose_settings
from vqkit.pipelines.coders import measure_rates
from vqkit.settings import Config
from vqkit.signals.audio.look import quiet_share
from vqkit.signals.audio.signal import AUDIO
from vqkit.signals.registry import recognised

from .conftest import RATE, voice


def speech(seconds: float, seed: int) -> torch.Tensor:
    return torch.from_numpy(voice(seconds, seed))[None]


def test_a_folder_of_recordings_is_recognised(recordings, tmp_path):
    assert recognised(recordings) == "audio"
    assert recognised(recordings / "ada" / "0.wav") == "audio"
    (tmp_path / "a.png").write_bytes(b"")
    assert recognised(tmp_path) == "image"
    assert recognised("emoji") == "image"


def test_sounds_with_other_phases_are_compared_as_equal():
    one = speech(1.0, 3)[None]
    same, louder = AUDIO.compared(torch.cat([-one, 0.5 * one])) - AUDIO.compared(one)
    assert same.abs().max() == 0
    # 6 dB of 90 are 17 of 255, wherever there is sound.
    assert louder.abs().max() == pytest.approx(17, abs=3)


def test_a_gap_is_said_in_seconds():
    data = {"sample_rate": 1000}
    mask = AUDIO.read_mask("0.1-0.2, 0.5-9", (600,), data)
    assert mask.nonzero()[:, 0].tolist() == [*range(100, 200), *range(500, 600)]
    for said, why in (
        ("x", "is no gap"),
        ("0.2-0.1", "is no gap"),
        ("0.7-0.9", "ends after 0.60 s"),
    ):
        with pytest.raises(VqkitError, match=why):
            AUDIO.read_mask(said, (600,), data)


def test_settings_follow_the_sound(recordings, tmp_path):
    plain = choose_settings(recordings, None, [])
    assert plain.config.model.network.kind == "vocoder"
    assert plain.config.data.sample_rate is None
    wide = np.stack([voice(1.0, 60, 44100)] * 2, 1)
    soundfile.write(tmp_path / "wide.wav", wide, 44100)
    chosen = choose_settings(tmp_path, None, [])
    assert (chosen.config.data.sample_rate, chosen.config.data.channels) == (16000, 1)
    assert "mixed to mono" in chosen.lines[1]
    kept = choose_settings(tmp_path, None, ["data.sample_rate=44100"])
    assert kept.config.data.sample_rate == 44100
    assert choose_settings(tmp_path / "none", None, []).config.data.signal == "image"


def test_sound_without_pauses_is_music_unless_it_comes_by_telephone(tmp_path):
    time = np.arange(4 * 44100) / 44100
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220, 277, 330))
    for rate, kind in ((44100, "lapped"), (8000, "vocoder")):
        (tmp_path / str(rate)).mkdir()
        soundfile.write(tmp_path / str(rate) / "chord.wav", 0.2 * chord[: 4 * rate], rate)
        chosen = choose_settings(tmp_path / str(rate), None, [])
        assert chosen.config.model.network.kind == kind


def test_quiet_frames_are_those_below_half_of_the_second_around_them(tmp_path):
    # Half a second of sound and half a second without, by turns; silence at both ends is not heard.
    tone = np.sin(2 * np.pi * 200 * np.arange(4000) / 8000)
    gaps = np.concatenate([np.zeros(8000), *[tone, 0.01 * tone] * 5, np.zeros(8000)])
    soundfile.write(tmp_path / "gaps.wav", 0.5 * gaps, 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    share = quiet_share([tmp_path / "gaps.wav", tmp_path / "broken.wav"])
    assert share == pytest.approx(0.5, abs=0.02)
    assert quiet_share([tmp_path / "broken.wav"]) is None


def test_what_was_left_open_is_in_the_recipe(codec_folder):
    settings = load(codec_folder / "recipe.yaml", (), Config)
    assert settings.data.sample_rate == RATE
    assert settings.data.channels == 1
    assert settings.model.network.kind == "vocoder"


def test_an_untrained_decoder_follows_pitch_and_level(codec):
    """Scalar codes say what was spoken: the spectra are close, training or not."""
    if codec.config.model.quantizer.kind != "scalar":
        return
    measured = codec.signal.evaluation_measures(
        codec.tokenizer.reconstruct(speech(2.0, 40)[None]),
        speech(2.0, 40)[None],
        None,
        codec.artifact.data,
    )
    assert float(measured["spectral_snr"]) > 4
    assert float(measured["log_mel"]) < 6


@pytest.mark.parametrize("size", [1, 79, 320, 1000, 4097, 50000])
def test_pieces_give_the_codes_and_the_sound_of_the_whole(codec, size):
    values = speech(0.6 if size == 1 else 3.1, 41)
    whole = codec.tokenizer.encode(values[None])[0]
    sound = codec.tokenizer.decode(whole[None], double=True)[0]
    encoder, decoder = codec.stream()
    codes = []
    heard = []
    for start in range(0, values.shape[1], size):
        codes.append(encoder.push(values[:, start : start + size]))
        heard.append(decoder.push(codes[-1]))
        waiting = start + size - 320 * sum(one.shape[1] for one in codes)
        assert waiting <= encoder.delay + size
    codes.append(encoder.finish())
    heard += [decoder.push(codes[-1]), decoder.finish()]
    assert torch.equal(torch.cat(codes, 1), whole)
    assert torch.equal(torch.cat(heard, 1), sound)


def test_batches_padding_and_threads_change_no_code(codec):
    clips = torch.stack([speech(1.0, seed) for seed in range(6)])
    alone = torch.cat([codec.tokenizer.encode(clip[None]) for clip in clips])
    assert torch.equal(codec.tokenizer.encode(clips), alone)
    # Cut off in the middle of the sound, where the encoder looks ahead.
    lengths = [8000, 6543, 5000, 5000, 1, 7999]
    padded = torch.nn.functional.pad(clips, (0, 3200))
    mask = torch.arange(padded.shape[2]) < torch.tensor(lengths)[:, None]
    found = codec.tokenizer.encode(padded.where(mask[:, None], 0), mask)
    for clip, length, codes in zip(clips, lengths, found, strict=True):
        own = codec.tokenizer.encode(clip[None, :, :length])[0]
        assert torch.equal(codes[..., : own.shape[1]], own)
        assert (codes[..., own.shape[1] :] == -1).all()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(codec.tokenizer.encode(clips), alone)
    finally:
        torch.set_num_threads(before)


def test_files_of_a_rate_keep_it_and_hold_what_was_decoded(codec):
    samples = voice(4.0, 42)
    sizes = []
    finest = 8e-3 * len(codec.compress(samples)) / 4.0
    for share in (0.6, 0.8, 1.01):
        kbps = share * finest
        data = codec.compress(samples, rate=1000 * kbps / RATE)
        assert 8 * len(data) / 4.0 <= 1000 * kbps
        assert codec.decompress(data).shape == (1, 32000)
        sizes.append(len(data))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    with pytest.raises(VqkitError, match="smallest file"):
        codec.compress(samples, rate=1e-4)


def test_forms_of_a_recording(codec, recordings):
    path = recordings / "ada" / "3.wav"
    samples, _ = soundfile.read(path, dtype="int16")
    codes = codec.encode(path)
    assert torch.equal(codec.encode(samples), codes)
    assert torch.equal(codec.encode(samples[None]), codes)
    assert torch.equal(codec.encode(samples.astype(np.float64) / 32768), codes)
    assert torch.equal(codec.encode(torch.from_numpy(samples)), codes)
    assert codec.reconstruct(samples).dtype == np.int16
    assert codec.reconstruct(samples / np.float32(32768)).dtype == np.float32
    assert codec.reconstruct(samples).shape == samples.shape
    for wrong in (samples.astype(np.int64), samples.astype(float) * np.nan, 7):
        with pytest.raises(ValueError):
            codec.encode(wrong)


def run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "vqkit", *words], input=data, capture_output=True)


def test_standard_input_to_standard_output(codec, codec_folder):
    buffer = io.BytesIO()
    samples = voice(2.0, 43)
    soundfile.write(buffer, samples, RATE, format="WAV")
    words = ("compress", str(codec_folder), "-", "--out", "-", "--kbps", "20")
    coded = run(*words, data=buffer.getvalue())
    assert coded.returncode == 0, coded.stderr
    assert b"kbps" in coded.stderr and b"/tmp" not in coded.stderr
    assert 0 < 8 * len(coded.stdout) / 2.0 <= 20000
    back = run("decompress", "-", "--model", str(codec_folder), "--out", "-", data=coded.stdout)
    assert back.returncode == 0, back.stderr
    found, rate = soundfile.read(io.BytesIO(back.stdout), dtype="int16")
    assert rate == RATE
    assert (found == codec.decompress(coded.stdout)[0]).all()


def test_networks_say_what_they_cannot_take(recordings, tmp_path):
    from vqkit.pipelines.autoencoder import train

    for number, (override, words) in enumerate(
        (
            ("data.channels=2", "models one voice"),
            ("data.seconds=0.1", "fewer than 8 latents"),
            ("model.network.bands=20", "has 88 channels of latents, not 136"),
            ("model.network={kind: patch}", "is no network for recordings"),
            ("losses.perceptual_distance=bands", "is of images"),
        )
    ):
        folder = tmp_path / str(number)
        with pytest.raises(VqkitError, match=words):
            train(recordings, folder, "speech", [override, "train.steps=1"])
        assert not (folder / "model.safetensors").exists()


def test_denoising_keeps_the_first_stages_and_the_clock(codec):
    values = speech(40.0, 44)
    stages = len(codec.network.quantizer.prefixes)
    found = denoise(codec, values, levels=1)
    codes = codec.tokenizer.encode(values[None])
    codes[:, codec.network.quantizer.prefixes[0] :] = -1
    assert torch.equal(found.values, codec.tokenizer.decode(codes, values.shape[1:])[0])
    assert found.levels == 1
    assert denoise(codec, values, strength=0.0).levels == stages
    with pytest.raises(VqkitError, match="strength or levels alone"):
        denoise(codec, values, continuous=True)


def test_several_items_do_not_go_into_one_file(codec_folder, recordings, tmp_path):
    bundle = tmp_path / "all.vq"
    words = ["compress", str(codec_folder), str(recordings / "ada"), "--bundle"]
    assert cli.main([*words, "--out", str(bundle)]) == 0
    words = ["decompress", str(bundle), "--model", str(codec_folder)]
    assert cli.main([*words, "--out", str(tmp_path / "one.wav")]) == 1
    assert not (tmp_path / "one.wav").exists()
    assert cli.main([*words, "--out", str(tmp_path / "one.wav"), "--item", "2"]) == 0
    assert soundfile.info(tmp_path / "one.wav").samplerate == RATE


def test_a_recipe_of_another_signal_names_those_that_fit(recordings, tmp_path):
    said = "recipe denoise is for images, .* holds recordings: take one of music, speech, speech-d"
    with pytest.raises(VqkitError, match=said):
        choose_settings(recordings, "denoise", [])
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(VqkitError, match="recipe speech is for recordings, .* holds images"):
        choose_settings(tmp_path, "speech", [])
    # Nothing is known of files with other suffixes, which may be anything.
    (tmp_path / "a.png").rename(tmp_path / "a.dat")
    assert choose_settings(tmp_path, "speech", []).recipe == "speech"


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_rates_of_recordings_that_are_all_short_are_those_of_the_longest(codec):
    length = codec.shape.extent[0]
    values = torch.zeros(3, 1, length, dtype=torch.int16)
    mask = torch.zeros(3, length, dtype=torch.bool)
    for row, samples in enumerate((length // 4, length // 2, length // 3)):
        values[row, 0, :samples] = torch.from_numpy(voice(samples / RATE, row)[:samples])
        mask[row, :samples] = True

    def rates(batch):
        return measure_rates(codec, SimpleNamespace(split=lambda name, size: iter([batch])), "test")

    found = rates(Batch(values, np.arange(3), mask=mask))

    assert found and found == rates(Batch(values[1:2], np.arange(1)))
