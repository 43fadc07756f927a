"""Files of sound of every kind that can be read, and those that cannot."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from vqkit.signals.audio.files import BadSound, Target, encode, is_sound, load, read_header
from vqkit.signals.paths import files_below

from .conftest import RATE, voice

WHOLE = Target(None, None)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_S8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_depth_gives_the_samples_that_were_written(tmp_path, subtype):
    samples = voice(0.5, 1)
    path = tmp_path / ("sound.aiff" if subtype == "PCM_S8" else "sound.wav")
    soundfile.write(path, samples / 32768, RATE, subtype)
    found, rate = load(path, WHOLE)
    assert rate == RATE
    # Of 8 bits, half of one of them is lost when the file is written.
    error = np.abs(found[0].astype(int) - samples)
    assert error.max() <= (256 if subtype == "PCM_S8" else 0)


@pytest.mark.parametrize(
    ("name", "format"), [("a.flac", "FLAC"), ("b.ogg", "OGG"), ("c.mp3", "MP3")]
)
def test_compressed_formats_are_read(tmp_path, name, format):
    samples = voice(1.0, 2, 16000)
    soundfile.write(tmp_path / name, samples, 16000, format=format)
    found, rate = load(tmp_path / name, WHOLE)
    assert rate == 16000
    count = min(len(samples), found.shape[1])
    assert abs(found.shape[1] - len(samples)) < 2500
    if format == "FLAC":
        assert (found[0] == samples).all()
    assert np.corrcoef(np.abs(found[0, :count]), np.abs(samples[:count]))[0, 1] > 0.5


def test_a_wrong_suffix_does_not_matter(tmp_path):
    path = tmp_path / "sound.mp3"
    soundfile.write(path, voice(0.2, 3), RATE, "PCM_16", format="WAV")
    assert read_header(path).subtype == "PCM_16"
    assert load(path, WHOLE)[0].shape == (1, 1600)


def test_resampling_keeps_a_tone(tmp_path):
    """A tone of 500 Hz stays as it is at another rate; one beyond half the rate goes."""
    times = np.arange(48000) / 48000
    tones = 0.2 * np.sin(2 * np.pi * 500 * times) + 0.2 * np.sin(2 * np.pi * 9000 * times)
    soundfile.write(tmp_path / "tones.wav", tones, 48000, "FLOAT")
    (found,), rate = load(tmp_path / "tones.wav", Target(8000, 1))
    assert rate == 8000 and abs(len(found) - 8000) <= 1
    middle = found[1000:7000] / 32768
    wanted = 0.2 * np.sin(2 * np.pi * 500 * np.arange(1000, 7000) / 8000)
    assert np.abs(middle - wanted).max() < 0.005


def test_stereo_is_mixed_to_its_mean_and_mono_is_doubled(tmp_path):
    left = voice(0.3, 4)
    right = voice(0.3, 5)
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], 1), RATE, "PCM_16")
    mono, _ = load(tmp_path / "both.wav", Target(None, 1))
    assert np.abs(mono[0] - (left.astype(float) + right) / 2).max() <= 0.5
    soundfile.write(tmp_path / "one.wav", left, RATE, "PCM_16")
    stereo, _ = load(tmp_path / "one.wav", Target(None, 2))
    assert (stereo == left).all()


def test_what_is_too_loud_is_clipped(tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.array([0.0, 3.0, -3.0] * 200), RATE, "FLOAT")
    found, _ = load(tmp_path / "loud.wav", WHOLE)
    assert found[0, :3].tolist() == [0, 32767, -32768]


def test_bad_files_are_told_apart(tmp_path):
    def reason(name: str, target: Target = WHOLE) -> str:
        with pytest.raises(BadSound) as error:
            load(tmp_path / name, target)
        return str(error.value)

    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "words.wav").write_bytes(b"no sound at all" * 10)
    assert reason("empty.wav") and reason("words.wav") and reason("missing.wav")
    soundfile.write(tmp_path / "short.wav", voice(0.01, 6), RATE)
    assert reason("short.wav") == "shorter than 20 ms"
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan] * 500), RATE, "FLOAT")
    assert reason("nan.wav") == "a sample is no number"
    soundfile.write(tmp_path / "long.wav", voice(2.0, 7), RATE)
    assert "longer than" in reason("long.wav", Target(None, None, max_seconds=1.0))


def test_what_would_lose_anything_is_refused_where_that_is_asked(tmp_path):
    soundfile.write(tmp_path / "deep.wav", voice(0.2, 8), RATE, "PCM_24")
    soundfile.write(tmp_path / "plain.wav", voice(0.2, 8), RATE, "PCM_16")
    assert load(tmp_path / "plain.wav", Target(RATE, 1, exact=True))[0].shape == (1, 1600)
    for name, target in (
        ("deep.wav", Target(RATE, 1, exact=True)),
        ("plain.wav", Target(16000, 1, exact=True)),
        ("plain.wav", Target(RATE, 2, exact=True)),
    ):
        with pytest.raises(BadSound):
            load(tmp_path / name, target)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, voice(1.0, 9), RATE, "PCM_16")
    path.write_bytes(path.read_bytes()[:4044])
    assert load(path, WHOLE)[0].shape == (1, 2000)


def test_what_is_written_is_read_back(tmp_path):
    samples = np.stack([voice(0.3, 10), voice(0.3, 11)])
    (tmp_path / "back.wav").write_bytes(encode(samples, 22050))
    found, rate = load(tmp_path / "back.wav", WHOLE)
    assert rate == 22050 and (found == samples).all()


def test_hidden_files_and_others_are_no_recordings(tmp_path):
    for name in ("a.wav", "sub/b.FLAC", ".hidden/c.wav", ".d.wav", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert [path.name for path in files_below(tmp_path, is_sound)] == ["a.wav", "b.FLAC"]
