"""Folders of recordings: clips, splits, classes, captions, and what is left out."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
import torch

from vqkit.errors import VqkitError
from vqkit.signals.audio.config import AugmentConfig, DataConfig, NoiseConfig
from vqkit.signals.audio.source import bad_files, open_audio

from .conftest import RATE, voice

SHARES = {"validation": 0.2, "test": 0.2}


def opened(folder, **settings):
    return open_audio(folder, DataConfig(**{**SHARES, "seconds": 0.64, **settings}), 0)


def recording_of(data, index):
    return data.names[index].rpartition("@")[0]


def test_a_recording_lies_in_one_split(recordings):
    data = opened(recordings)
    parts = {
        name: {recording_of(data, index) for index in ids} for name, ids in data.splits.items()
    }
    assert sorted(map(len, parts.values())) == [2, 2, 8]
    assert len(set.union(*parts.values())) == 12
    assert sum(data.seconds.values()) == pytest.approx(2 * sum(0.4 + 0.5 * n for n in range(6)))


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_split_holds_every_sample_once(recordings, name):
    data = opened(recordings, overlap=4)
    count = 0
    for batch in data.split(name, 5):
        real = torch.ones(batch.values.shape[::2], dtype=torch.bool)
        count += int((real if batch.mask is None else batch.mask).sum())
    assert count == round(data.seconds[name] * RATE)
    assert len(data.splits["train"]) > len(data.apart("train"))


def test_equal_recordings_lie_in_one_split(recordings, tmp_path):
    shutil.copytree(recordings, tmp_path / "twice")
    for path in sorted((tmp_path / "twice" / "ada").glob("*.wav")):
        shutil.copy(path, tmp_path / "twice" / "ben" / f"copy-{path.name}")
    data = opened(tmp_path / "twice")
    where = {}
    for name, ids in data.splits.items():
        for index in ids:
            where[recording_of(data, index)] = name
    for number in range(6):
        assert where[f"ada/{number}.wav"] == where[f"ben/copy-{number}.wav"]


def test_a_folder_can_be_held_out_whole(recordings, tmp_path):
    shutil.copytree(recordings, tmp_path / "three")
    shutil.copytree(recordings / "ada", tmp_path / "three" / "cid")
    for number, path in enumerate(sorted((tmp_path / "three" / "cid").glob("*.wav"))):
        soundfile.write(path, voice(1.0, 100 + number), RATE)
    data = opened(tmp_path / "three", split_by="folder")
    groups = [{data.groups[index] for index in ids} for ids in data.splits.values()]
    assert [len(each) for each in groups] == [1, 1, 1]
    with pytest.raises(VqkitError, match="split_by=folder needs several folders"):
        opened(recordings / "ada", split_by="folder")


def test_clips_are_the_samples_of_their_place(recordings):
    data = opened(recordings)
    batch = data.read(np.arange(len(data)))
    (length,) = data.shape.extent
    assert length == 5120
    for row, index in enumerate(batch.ids):
        name, _, place = data.names[index].rpartition("@")
        samples, _ = soundfile.read(recordings / name, dtype="int16")
        start = round(float(place[:-1]) * RATE)
        wanted = samples[start : start + length]
        assert (batch.values[row, 0, : len(wanted)].numpy() == wanted).all()
        assert not batch.values[row, 0, len(wanted) :].any()
        assert int(batch.mask[row].sum()) == len(wanted)


def test_what_is_measured_holds_every_sample_once(recordings):
    data = opened(recordings)
    for name in ("validation", "test"):
        batch = data.read(data.splits[name])
        seconds = int(batch.mask.sum()) / RATE if batch.mask is not None else 0
        assert seconds == pytest.approx(data.seconds[name], abs=1e-3)


def test_classes_and_captions_come_from_names(recordings):
    data = opened(recordings)
    assert set(data.groups) == {"ada", "ben"}
    captions = {recording_of(data, index): data.captions[index] for index in range(len(data))}
    assert captions["ada/0.wav"] == "one two"
    assert captions["ben/0.wav"] == ""


def test_large_sets_lie_on_disk_and_are_the_same(recordings, monkeypatch, tmp_path):
    small = opened(recordings)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # Not one megabyte may be kept in memory.
    settings = DataConfig(**SHARES, seconds=0.64).model_copy(update={"max_memory_mb": 0})
    large = open_audio(recordings, settings, 0)
    assert isinstance(large.kept.samples, np.memmap)
    ids = np.arange(len(small))
    assert (small.read(ids).values == large.read(ids).values).all()
    assert large.fingerprint == small.fingerprint


def test_bad_files_are_named_and_many_stop_it(recordings, tmp_path):
    shutil.copytree(recordings, tmp_path / "some")
    soundfile.write(tmp_path / "some" / "silent.wav", np.zeros(8000, np.int16), RATE)
    bad, good = bad_files(tmp_path / "some", DataConfig())
    assert [(one.name, one.reason) for one in bad] == [("silent.wav", "nothing but silence")]
    assert good == 12
    with pytest.raises(VqkitError, match="1 of 13 files .*silent.wav: nothing but silence"):
        opened(tmp_path / "some")
    data = open_audio(tmp_path / "some", DataConfig(**SHARES), 0, max_bad=0.2)
    assert data.bad[0].name == "silent.wav"


def test_empty_folders_and_missing_ones(tmp_path):
    with pytest.raises(VqkitError, match="holds no recordings"):
        opened(tmp_path)
    with pytest.raises(VqkitError, match="there is no file or folder"):
        opened(tmp_path / "missing")


def test_other_rates_and_channels_are_said_once(recordings, tmp_path):
    shutil.copytree(recordings, tmp_path / "mixed")
    wide = np.stack([voice(1.0, 50, 16000)] * 2, 1)
    soundfile.write(tmp_path / "mixed" / "wide.wav", wide, 16000)
    data = opened(tmp_path / "mixed")
    assert data.rate == RATE and data.shape.channels == 1
    assert data.remarks()[:2] == [
        "1 recordings were resampled to 8000 samples a second",
        "1 recordings were mixed down to 1 channel(s)",
    ]


def test_levels_change_and_no_sample_leaves_its_range(recordings):
    data = opened(recordings, augment=AugmentConfig(level=24.0, invert=True))
    plain = opened(recordings)
    changed = next(data.train(0, 16, 0))
    same = next(plain.train(0, 16, 0))
    assert (changed.ids == same.ids).all()
    ratios = []
    for one, other in zip(changed.values, same.values, strict=True):
        loudest = int(other.abs().argmax())
        ratios.append(float(one.flatten()[loudest]) / float(other.flatten()[loudest]))
    assert min(ratios) < 0 < max(ratios)
    assert max(map(abs, ratios)) > 1.2 and min(map(abs, ratios)) < 0.8
    assert int(changed.values.int().abs().max()) <= 32767


@pytest.fixture
def hum(tmp_path):
    """A folder with two recordings of noise, one of them at another rate: a hum of 200 Hz each."""
    (tmp_path / "hum").mkdir()
    for number, rate in enumerate((RATE, 16000)):
        tone = np.sin(2 * np.pi * 200 * np.arange(3 * rate) / rate)
        soundfile.write(tmp_path / "hum" / f"{number}.wav", 0.1 * tone, rate)
    return tmp_path / "hum"


def test_recorded_noise_is_mixed_in_at_shares_of_a_clips_own_level(recordings, hum):
    noise = NoiseConfig(level=1.0, source=str(hum))
    data = opened(recordings, noise=noise)
    batch = next(data.train(0, 16, 0))
    assert batch.target is not None
    again = next(opened(recordings, noise=noise).train(0, 16, 0))
    assert (again.values == batch.values).all()
    plain = next(opened(recordings).train(0, 16, 0))
    assert (plain.values == batch.target).all()
    added = (batch.values.double() - batch.target)[:, 0].numpy()
    levels = batch.target.double()[:, 0].square().mean(1).sqrt().numpy()
    shares = np.sqrt((added**2).mean(1)) / levels
    assert shares.max() <= 1.01 and shares.max() - shares.min() > 0.5
    # All of it is the hum, but for what rounding to whole numbers adds.
    loud = added[shares > 0.3]
    power = np.abs(np.fft.rfft(loud * np.hanning(loud.shape[1]))) ** 2
    hertz = np.fft.rfftfreq(loud.shape[1], 1 / RATE)
    near = np.abs(hertz - 200) < 30
    assert (power[:, near].sum(1) > 0.95 * power.sum(1)).all()
    # Clips begin at places of their own in it.
    angles = np.angle(np.fft.rfft(loud)[:, round(200 * loud.shape[1] / RATE)])
    assert len(set(np.round(angles, 1))) > len(loud) // 2


def test_recorded_noise_is_needed_to_train_and_for_nothing_else(recordings, hum, tmp_path):
    missing = NoiseConfig(level=1.0, source=str(tmp_path / "nowhere"))
    with pytest.raises(VqkitError, match="there is no file or folder .*nowhere"):
        opened(recordings, noise=missing)
    settings = DataConfig(**SHARES, noise=missing)
    used = open_audio(recordings, settings, 0, rate=RATE, channels=1)
    assert next(used.split("test", 2)).target is None
    # A run that goes on with other noise would be another run.
    first = opened(recordings, noise=NoiseConfig(level=1.0, source=str(hum)))
    soundfile.write(hum / "2.wav", voice(1.0, 9), RATE)
    second = opened(recordings, noise=NoiseConfig(level=1.0, source=str(hum)))
    assert first.fingerprint != second.fingerprint
    assert "noise" not in opened(recordings).fingerprint
