"""Recordings that are not held in memory: the files and the sound of those that are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vqkit import cli
from vqkit.artifact import long_items
from vqkit.artifact.streaming import side_by_side
from vqkit.signals.audio import files as sound_files
from vqkit.signals.audio.signal import spectral_snr, spectral_snr_of_pieces

from ..signals.audio.conftest import (  # noqa: F401
    RATE,
    codec,
    codec_folder,
    recordings,
    voice,
)

SECONDS = 9.3


@pytest.fixture
def small_pieces(monkeypatch):
    """Whatever is longer than two seconds is long, and comes in pieces of about a third of one."""
    monkeypatch.setattr(long_items, "LONG", 2 * RATE)
    monkeypatch.setattr(sound_files, "PIECE", 2500)
    monkeypatch.setattr(sound_files, "BLOCK", 1024)
    monkeypatch.setattr(long_items, "CODES_TOGETHER", 10)


@pytest.fixture
def talk(tmp_path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, voice(SECONDS, 70), RATE, "PCM_16")
    return path


def samples_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16", always_2d=True)[0].T


def test_files_and_sound_are_those_of_the_whole(
    codec,  # noqa: F811
    codec_folder,  # noqa: F811
    talk,
    small_pieces,
    monkeypatch,
):
    folder = talk.parent
    model = str(codec_folder)
    whole = codec.compress(samples_of(talk), "talk.wav")
    coded = folder / "talk.vq"
    assert cli.main(["compress", model, str(talk), "--out", str(coded)]) == 0
    assert coded.read_bytes() == whole
    assert isinstance(long_items.open_item(codec.artifact, talk), long_items.LongItem)
    # From Python neither, where reading the whole is an error here.
    with monkeypatch.context() as patched:
        patched.setattr(type(codec), "to_values", None)
        assert codec.compress(str(talk), "talk.wav") == whole
    back = folder / "back.wav"
    assert cli.main(["decompress", str(coded), "--model", model, "--out", str(back)]) == 0
    assert np.array_equal(samples_of(back), codec.decompress(whole))
    assert cli.main(["reconstruct", model, str(talk), "--out", str(folder / "out")]) == 0
    assert np.array_equal(samples_of(folder / "out" / "talk.wav"), codec.decompress(whole))


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_the_bar_moves_while_codes_are_found_and_while_they_are_coded(codec, talk, small_pieces):  # noqa: F811
    item = long_items.open_item(codec.artifact, talk)
    shares: list[float] = []
    long_items.code(codec.compressor, item, codec.compressor.codec(), shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert sum(share <= long_items.FINDING for share in shares) > 3
    assert sum(share > long_items.FINDING for share in shares) == codec.tokenizer.num_codebooks


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_rates_by_name_and_by_number(codec, codec_folder, talk, small_pieces):  # noqa: F811
    words = ["compress", str(codec_folder), str(talk), "--out-dir", str(talk.parent)]
    coded = talk.with_suffix(".vq")
    sizes = {}
    for name in codec.artifact.coders.rates:
        assert cli.main([*words, "--rate", name, "--force"]) == 0
        sizes[name] = coded.stat().st_size
        assert codec.decompress(coded).shape == (1, round(SECONDS * RATE))
    *smaller, largest = sizes.values()
    assert smaller and max(smaller) < largest
    for size in sizes.values():
        kbps = 8e-3 * size / SECONDS
        assert cli.main([*words, "--kbps", f"{kbps + 1e-6}", "--force"]) == 0
        assert 0.8 * size <= coded.stat().st_size <= size
    before = coded.read_bytes()
    assert cli.main([*words, "--kbps", "0.01", "--force"]) == 1
    assert coded.read_bytes() == before


def test_a_bundle_of_long_recordings(codec, codec_folder, talk, small_pieces):  # noqa: F811
    bundle = talk.parent / "all.vq"
    words = ["compress", str(codec_folder), str(talk), str(talk), "--bundle", "--out", str(bundle)]
    assert cli.main(words) == 0
    first, second = codec.compressor.read(bundle.read_bytes())
    assert np.array_equal(np.asarray(first.codes), np.asarray(second.codes))
    assert torch.equal(
        torch.from_numpy(np.asarray(first.codes).astype(np.int64)), codec.encode(talk)[0]
    )


def test_what_is_wrong_at_the_end_leaves_nothing_behind(
    codec_folder,  # noqa: F811
    talk,
    small_pieces,
    capsys,
):
    samples = samples_of(talk)[0] / 32768
    bad = talk.parent / "bad.wav"
    soundfile.write(bad, np.append(samples, np.nan), RATE, "FLOAT")
    out = talk.parent / "out"
    words = ["compress", str(codec_folder), str(bad), str(talk), "--out-dir", str(out)]
    assert cli.main(words) == 1
    assert "skipped: cannot read" in (said := capsys.readouterr().err) and "no number" in said
    assert [path.name for path in out.iterdir()] == ["talk.vq"]
    words = ["reconstruct", str(codec_folder), str(bad), "--out", str(out / "sound")]
    assert cli.main(words) == 1
    assert "no number" in capsys.readouterr().err
    assert not list((out / "sound").iterdir())


def test_a_damaged_file_leaves_nothing_behind(codec, codec_folder, talk, small_pieces):  # noqa: F811
    data = bytearray(codec.compress(samples_of(talk)))
    data[-20] ^= 4
    coded = talk.with_suffix(".vq")
    coded.write_bytes(data)
    out = talk.parent / "back"
    words = ["decompress", str(coded), "--model", str(codec_folder), "--out-dir", str(out)]
    assert cli.main(words) == 1
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_a_header_that_claims_days_is_refused_before_anything_is_decoded(codec, codec_folder):  # noqa: F811
    from vqkit.coding import FileHeader, OutOfBounds, Stage, write_file

    found = codec.compressor.codec()
    stages = [Stage(0, b"")] * found.num_stages
    for hours in (1000, 290):
        header = FileHeader(
            (hours * 3600 * RATE,), found.num_stages, found.coder, found.model_id, found.signal
        )
        if hours * 3600 * RATE > 1 << 33:
            with pytest.raises(OutOfBounds, match="extent"):
                write_file(header, stages)
            continue
        # 290 hours are 26 million positions of three codes.
        with pytest.raises(OutOfBounds, match="more than"):
            list(codec.compressor.read(write_file(header, stages)))


def test_pieces_are_what_the_whole_file_gives(tmp_path, monkeypatch):
    """Resampled, too: in pieces and by one call of soxr."""
    import soxr

    stereo = np.stack([voice(3.0, 71, 44100), voice(3.0, 72, 44100)], 1)
    path = tmp_path / "both.wav"
    soundfile.write(path, stereo, 44100, "PCM_16")
    target = sound_files.Target(8000, 1)
    whole, _ = sound_files.load(path, target)
    mixed = (stereo.astype(np.float32).mean(1) / np.float32(32768)).astype(np.float32)
    at_once = np.rint(32768 * soxr.resample(mixed, 44100, 8000, "HQ"))
    assert whole.shape[1] == len(at_once)
    assert np.abs(whole[0] - at_once).max() <= 1
    monkeypatch.setattr(sound_files, "PIECE", 5000)
    monkeypatch.setattr(sound_files, "BLOCK", 999)
    pieces = [samples for samples, _ in sound_files.pieces(path, target)]
    assert len(pieces) > 3
    assert np.array_equal(np.concatenate(pieces, 1), whole)


@pytest.mark.parametrize("sizes", [(1, 700, 3, 0, 96), (800,), (512, 288), (300, 300, 200)])
def test_the_measure_of_pieces_is_that_of_the_whole(sizes):
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(-9000, 9000, (2, sum(sizes))).astype(np.int16))
    original = torch.from_numpy(rng.integers(-9000, 9000, (2, sum(sizes))).astype(np.int16))
    pairs = zip(values.split(sizes, 1), original.split(sizes, 1), strict=True)
    whole = float(spectral_snr(values[None], original[None])[0])
    assert spectral_snr_of_pieces(pairs) == pytest.approx(whole, abs=1e-4)


def test_two_items_side_by_side():
    first = torch.arange(10)[None]
    second = 100 + torch.arange(13)[None]
    found = list(side_by_side(first.split([3, 0, 7], 1), second.split([1, 8, 4], 1)))
    assert [one.shape[1] for one, _ in found] == [other.shape[1] for _, other in found]
    assert torch.equal(torch.cat([one for one, _ in found], 1), first)
    assert torch.equal(torch.cat([other for _, other in found], 1), second[:, :10])
