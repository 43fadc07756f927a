"""What verbs say of files of sound that they cannot use, and what only looks like one of these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from vqkit import cli
from vqkit.pipelines.autoencoder import train

from ..signals.audio.conftest import RATE, RESIDUAL, TINY, recordings, voice  # noqa: F401

IMAGE_MODEL = Path(__file__).parents[1] / "golden" / "emoji-model"


@pytest.fixture(scope="module")
def run(recordings, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("voices") / "run"
    train(recordings, folder, None, ["data.validation=0.2", "data.test=0.2", *TINY, *RESIDUAL])
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """One file of every kind that users have by mistake, and of those that only look like one."""
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (16, 16)).save(folder / "image.png")
    (folder / "image-named.wav").write_bytes((folder / "image.png").read_bytes())
    for name in ("nothing", "images", "silent"):
        (folder / name).mkdir()
    (folder / "images" / "image.png").write_bytes((folder / "image.png").read_bytes())
    soundfile.write(folder / "sound.wav", voice(0.5, 80), RATE, "PCM_16")
    sound = (folder / "sound.wav").read_bytes()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "cut.wav").write_bytes(sound[:20])
    (folder / "header.wav").write_bytes(sound[:20] + b"\xff" * 16 + sound[36:])
    (folder / "sound.png").write_bytes(sound)
    soundfile.write(folder / "no-samples.wav", np.zeros(0, np.int16), RATE)
    soundfile.write(folder / "short.wav", voice(0.01, 81), RATE)
    soundfile.write(folder / "shortest.wav", voice(0.02, 81), RATE)
    soundfile.write(folder / "silence.wav", np.zeros(RATE, np.int16), RATE)
    soundfile.write(folder / "silent" / "silence.wav", np.zeros(RATE, np.int16), RATE)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        samples = np.append(voice(0.5, 82) / 32768, value)
        soundfile.write(folder / f"{name}.wav", samples, RATE, "FLOAT")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image.png", "no sound in any format"),
        ("image-named.wav", "no sound in any format"),
        ("empty.wav", "it is empty"),
        ("missing.wav", "No such file"),
        ("cut.wav", "Malformed"),
        ("header.wav", "Malformed"),
        ("no-samples.wav", "shorter than 20 ms"),
        ("short.wav", "shorter than 20 ms"),
        ("nan.wav", "a sample is no number"),
        ("inf.wav", "a sample is no number"),
        ("nothing", "no recordings in"),
        ("images", "no recordings in"),
    ],
)
def test_what_is_no_recording_is_one_sentence(run, files, tmp_path, capsys, name, words):
    out = tmp_path / "out"
    for verb in (["compress", "--out-dir"], ["reconstruct", "--out"]):
        given = [verb[0], str(run), str(files / name), verb[1], str(out)]
        assert cli.main(given) != 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("vqkit: ") and words in line and name in line
        assert not out.exists() or not list(out.iterdir())


def test_a_model_of_the_other_signal_says_so(run, files, tmp_path, capsys):
    out = ["--out-dir", str(tmp_path)]
    for words, said in (
        (["compress", str(IMAGE_MODEL), str(files / "sound.wav"), *out], "not an image"),
        (["compress", str(IMAGE_MODEL), str(files / "silent"), *out], "no images in"),
        (["compress", str(IMAGE_MODEL), str(files / "image.png"), "--kbps", "2", *out], "--kbps"),
        (["compress", str(run), str(files / "sound.wav"), "--rate", "1e-9", *out], "smallest file"),
        (["compress", str(run), str(files / "sound.wav"), "--lossless", *out], "no lossless files"),
        (["evaluate", str(run), str(files / "images")], "no recordings"),
        (
            ["train", str(files / "nothing"), "--recipe", "speech", "--out", str(tmp_path / "r")],
            "no recordings",
        ),
        (
            ["train", str(files / "silent"), "--recipe", "speech", "--out", str(tmp_path / "r")],
            "nothing but silence",
        ),
    ):
        assert cli.main(words) != 0
        lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("vqkit: ")]
        assert len(lines) == 1 and said in lines[0], lines
    coded = tmp_path / "sound.vq"
    assert cli.main(["compress", str(run), str(files / "sound.wav"), *out]) == 0
    words = ["decompress", str(coded), "--model", str(IMAGE_MODEL), "--out", str(tmp_path / "x")]
    assert cli.main(words) != 0
    assert "model" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_rate_that_the_model_does_not_have_is_told_those_that_it_has(
    run, files, tmp_path, capsys
):
    words = ["compress", str(run), str(files / "sound.wav"), "--out-dir", str(tmp_path)]
    copy = tmp_path / "no-coder"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((run / name).read_bytes())
    words[1] = str(copy)
    assert cli.main([*words, "--rate", "low"]) == 2
    assert "rates of this model: none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["shortest.wav", "silence.wav", "sound.png"])
def test_what_only_looks_wrong_is_taken(run, files, tmp_path, name):
    """The shortest recording, silence, and sound under another name."""
    assert cli.main(["compress", str(run), str(files / name), "--out-dir", str(tmp_path)]) == 0
    coded = tmp_path / f"{Path(name).stem}.vq"
    words = ["decompress", str(coded), "--model", str(run), "--out", str(tmp_path / "back.wav")]
    assert cli.main(words) == 0
    expected = soundfile.info(files / name)
    found = soundfile.info(tmp_path / "back.wav")
    assert (found.frames, found.samplerate) == (expected.frames, RATE)


def test_what_reading_changes_is_said_once(run, tmp_path, capsys):
    for number, (rate, channels) in enumerate([(44100, 2), (44100, 2), (16000, 1), (RATE, 1)]):
        samples = np.stack([voice(0.4, number, rate)] * channels, 1)
        soundfile.write(tmp_path / f"{number}.wav", samples, rate)
    assert cli.main(["compress", str(run), str(tmp_path), "--out-dir", str(tmp_path / "out")]) == 0
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "0.wav: 44100 samples a second are resampled to the model's 8000" in first
    assert "2 channels are mixed to the model's mono" in first
    assert "2.wav: 16000 samples" in second and "channels" not in second
