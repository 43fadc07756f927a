"""Recordings that are not held in memory: the files and the sound of those that are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vqkit import cli
from vqkit.artifact import long_items
from vqkit.artifact import parts as parts_module
from vqkit.artifact.streaming import side_by_side
from vqkit.coding import (
    SCALAR,
    CorruptCodes,
    CorruptHeader,
    FormatError,
    OutOfBounds,
    Parts,
    Truncated,
    WrongModel,
    describe,
    write_parts,
)
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
    monkeypatch.setattr(parts_module, "CODES_TOGETHER", 10)
    monkeypatch.setattr(parts_module, "PART_CODES", 3000)


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
    (item,) = codec.compressor.read(whole)
    in_parts = codec.compressor.codec().coder == SCALAR
    if in_parts:
        # Its scalar codes, part by part, are those of the whole.
        (found,) = codec.compressor.read(coded.read_bytes())
        parts = list(map(np.asarray, found.codes))
        assert len(parts) > 5 and np.array_equal(np.concatenate(parts, 1), np.asarray(item.codes))
        assert found.extent == item.extent and found.name == item.name == "talk.wav"
        assert np.array_equal(codec.decompress(coded), codec.decompress(whole))
        whole = coded.read_bytes()
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


def test_rates_by_name_and_by_number(codec, codec_folder, talk, small_pieces, monkeypatch):  # noqa: F811
    # Of 40 bytes a part, its check sum and lengths are too many.
    monkeypatch.setattr(parts_module, "PART_CODES", 1 << 14)
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


@pytest.fixture
def in_parts(codec, codec_folder, talk, small_pieces) -> bytes:  # noqa: F811
    """A file of scalar codes of the talk."""
    return codec.compress(str(talk), "talk.wav")


@pytest.mark.parametrize("codec_folder", ["scalar"], indirect=True)
def test_parts_that_are_there_are_the_beginning(codec, codec_folder, talk, in_parts, capsys):  # noqa: F811
    parts = Parts(in_parts)
    whole = codec.decompress(in_parts)
    assert describe(in_parts).profile == "parts" and describe(in_parts).positions == whole.shape[1]
    coded = talk.with_suffix(".vq")
    coded.write_bytes(in_parts[: parts.span(2)[1] + 5])
    back = talk.parent / "back.wav"
    words = ["decompress", str(coded), "--model", str(codec_folder), "--out", str(back)]
    assert cli.main(words) == 1
    assert "only the beginning is left" in capsys.readouterr().out
    samples = samples_of(back)
    length = 3 * parts.header.part_length
    # The last sound before the cut overlaps with what is lost.
    inside = length - codec.tokenizer.network.tile[0] * 4
    assert samples.shape[1] == length
    assert np.array_equal(samples[:, :inside], whole[:, :inside])
    assert cli.main(["inspect", str(coded), "--model", str(codec_folder)]) == 1
    assert "cut off" in capsys.readouterr().out
    assert cli.main(["verify", str(coded), "--model", str(codec_folder)]) == 1
    with pytest.warns(UserWarning, match="shorter"):
        assert codec.decompress(coded).shape == (1, length)
    # Without its name alone it is as long as it was.
    coded.write_bytes(in_parts[:-3])
    assert cli.main([*words, "--force"]) == 1
    assert np.array_equal(samples_of(back), whole)
    with pytest.raises(Truncated):
        list(codec.compressor.read(in_parts[: parts.span(0)[1] - 1]))


@pytest.mark.parametrize("codec_folder", ["scalar"], indirect=True)
def test_damage_in_any_part_is_found(codec, codec_folder, talk, in_parts, capsys):  # noqa: F811
    parts = Parts(in_parts)
    coded = talk.with_suffix(".vq")
    out = talk.parent / "back"
    coded.write_bytes(in_parts)
    verify = ["verify", str(coded), "--model", str(codec_folder)]
    assert cli.main(verify) == 0 and "1 item" in capsys.readouterr().out
    for number in (0, 3, parts.num_blocks - 1):
        damaged = bytearray(in_parts)
        damaged[parts.span(number)[1] - 4] ^= 64
        coded.write_bytes(damaged)
        with pytest.raises(CorruptCodes, match=f"part {number + 1} "):
            codec.decompress(coded)
        assert cli.main(verify) == 1 and "BAD" in capsys.readouterr().out
        words = ["decompress", str(coded), "--model", str(codec_folder), "--out-dir", str(out)]
        assert cli.main(words) == 1
        assert not out.exists() or not list(out.iterdir())
    # A part in the place of another: its codes are right, its number is not.
    first, second = (parts.part(number) for number in (1, 2))
    others = [parts.part(number) for number in range(parts.num_blocks)]
    others[1:3] = second, first
    with pytest.raises(CorruptCodes):
        codec.decompress(write_parts(parts.header, others))


@pytest.mark.parametrize("codec_folder", ["scalar"], indirect=True)
def test_parts_that_this_model_cannot_have(codec, in_parts):  # noqa: F811
    parts = Parts(in_parts)
    held = [parts.part(number) for number in range(parts.num_blocks)]

    def refused(error, match, count=None, **changes):
        header = replace(parts.header, **changes)
        with pytest.raises(error, match=match):
            list(codec.compressor.read(write_parts(header, held[:count])))

    part = parts.header.part_length
    refused(CorruptHeader, "such parts", part_length=part - 1, length=part * len(held) - len(held))
    refused(WrongModel, "signal", signal=2)
    refused(WrongModel, "model", model_id=bytes(8))
    refused(OutOfBounds, "more than", count=1, length=1 << 33, part_length=1 << 33)
    with pytest.raises(OutOfBounds, match="number of parts"):
        write_parts(replace(parts.header, length=1 << 33, part_length=1 << 12), held)
    with pytest.raises(OutOfBounds, match="signal 0"):
        write_parts(replace(parts.header, signal=0), held)
    with pytest.raises(ValueError, match="parts are given"):
        write_parts(parts.header, held[1:])
    with pytest.raises(ValueError, match="name"):
        write_parts(parts.header, held, "../x")
    with pytest.raises(FormatError):
        Parts(write_parts(parts.header, held) + b"\0\0")


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_a_header_that_claims_days_is_refused_before_anything_is_decoded(codec, codec_folder):  # noqa: F811
    from vqkit.coding import FileHeader, Stage, write_file

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
