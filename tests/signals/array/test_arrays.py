"""Arrays: their files, how they are cut, split and measured, their networks, and every verb on
small models of series and volumes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.fft
import torch
from torch import nn
from torch.nn import functional as F

import vqkit
from vqkit import VqkitError, cli
from vqkit.config.loading import from_tree
from vqkit.model.likelihood import Likelihood
from vqkit.settings import Config
from vqkit.signals.array.config import ArrayConfig, SeriesData, VolumeData
from vqkit.signals.array.files import BadArray, Target, read, write
from vqkit.signals.array.network import (
    ArrayEncoder,
    cosine_rows,
    from_channels,
    to_channels,
)
from vqkit.signals.array.signal import SERIES, VOLUME, squared_error

from ..checked import assert_invariant

SERIES_FILES = Target(1, None, SeriesData())
TINY = [
    "train.steps=30",
    "train.max_minutes=null",
    "train.batch_size=8",
    "train.guard=off",
    "train.precision=float32",
    "model.network.width=16",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "coder.steps=4",
]


def beats(length: int, seed: int, channels: int = 1) -> np.ndarray:
    """Something like a pulse, (T, C), at another level and unit in every channel."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(rng.normal(0.2, 0.01, length)) + rng.uniform(0, 6)
    wave = np.maximum(np.sin(phase), 0) ** 3
    found = [wave * 10.0**channel + 100 * channel for channel in range(channels)]
    return np.stack(found, 1) + rng.normal(0, 0.01, (length, channels))


# ------------------------------------------------------------------------------------------ files


def test_arrays_of_either_layout(tmp_path):
    values = beats(50, 0, 3)
    np.save(tmp_path / "first.npy", values)
    np.save(tmp_path / "last.npy", values.T)
    np.save(tmp_path / "one.npy", values[:, 0])
    found = read(tmp_path / "first.npy", SERIES_FILES)
    assert found.dtype == np.float32 and np.allclose(found, values.T)
    other = Target(1, None, SeriesData(layout="channels_first"))
    assert np.array_equal(read(tmp_path / "last.npy", other), found)
    assert np.array_equal(read(tmp_path / "one.npy", SERIES_FILES), found[:1])
    for target, name in ((SERIES_FILES, "first.npy"), (other, "last.npy")):
        (tmp_path / "back.npy").write_bytes(write(found, target))
        assert np.allclose(np.load(tmp_path / "back.npy"), np.load(tmp_path / name))


def test_tables_with_names_and_gaps(tmp_path):
    (tmp_path / "a.csv").write_text(
        "when,pulse,unit,temp\n0,60,bpm,36.5\n1,,bpm,36.6\n2,62,bpm,NA\n"
    )
    found = read(tmp_path / "a.csv", SERIES_FILES)
    expected = [[0, 1, 2], [60, np.nan, 62], [36.5, 36.6, np.nan]]
    assert np.allclose(found, np.array(expected), equal_nan=True)
    chosen = Target(1, None, SeriesData(columns=("temp", "pulse")))
    assert np.allclose(read(tmp_path / "a.csv", chosen), np.array(expected)[[2, 1]], equal_nan=True)
    with pytest.raises(BadArray, match="no column 'weight'"):
        read(tmp_path / "a.csv", Target(1, None, SeriesData(columns=("weight",))))
    with pytest.raises(BadArray, match="'unit' holds no numbers"):
        read(tmp_path / "a.csv", Target(1, None, SeriesData(columns=("unit",))))
    (tmp_path / "b.csv").write_text("1;2\n3;4\n5;6\n")
    assert read(tmp_path / "b.csv", SERIES_FILES).tolist() == [[1, 3, 5], [2, 4, 6]]
    table = pyarrow.table(
        {"pulse": [60, None, 62], "unit": ["a", "b", "c"], "temp": [1.5, 2.5, 3.5]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", SERIES_FILES)
    assert np.allclose(found, [[60, np.nan, 62], [1.5, 2.5, 3.5]], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"x,y\n1,2\n3\n", "line 3 has 1 cells"),
        ("a.csv", b"\xff\xfe1", "UTF-8"),
        ("a.csv", b"name\nanna\nben\n", "no column of numbers"),
        ("a.npy", b"\x93NUMPY", "no .npy file"),
        ("a.npy", b"not an array", "no .npy file"),
        ("a.parquet", b"PAR1", "no parquet file"),
        ("a.txt", b"1", "holds no array"),
        ("a.csv", b"v\n1\ninf\n", "infinite"),
        ("a.csv", b"v,w\n,\n,\n", "no column of numbers|missing"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadArray, match=reason):
        read(tmp_path / name, SERIES_FILES)


def test_pickles_and_shapes_of_other_things_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadArray, match="no .npy file|not numbers"):
        read(tmp_path / "objects.npy", SERIES_FILES)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(BadArray, match="not numbers"):
        read(tmp_path / "words.npy", SERIES_FILES)
    np.save(tmp_path / "four.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(BadArray, match="has_channels"):
        read(tmp_path / "four.npy", Target(3, None, VolumeData()))
    assert read(tmp_path / "four.npy", Target(3, None, VolumeData(has_channels=True))).shape == (
        5,
        2,
        3,
        4,
    )
    # A header that claims more than there may be, of a file of a few bytes.
    claim = np.lib.format.magic(1, 0)
    header = (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000,), }".ljust(117) + b"\n"
    )
    (tmp_path / "large.npy").write_bytes(claim + len(header).to_bytes(2, "little") + header)
    with pytest.raises(BadArray, match="no .npy file|more than"):
        read(tmp_path / "large.npy", SERIES_FILES)


# -------------------------------------------------------------------------------------------- sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 series of two channels; some values of two of them are missing."""
    found = tmp_path_factory.mktemp("series")
    for number in range(24):
        values = beats(300 + 37 * number, number, 2)
        if number % 9 == 0:
            values[40:55, 1] = np.nan
        np.save(found / f"{number:02}.npy", values)
    return found


def test_items_cover_their_series_and_stay_in_one_split(folder):
    settings = SeriesData(length=128, validation=0.2, test=0.2)
    data = SERIES.open(folder, settings, 0)
    split_of: dict[str, set[str]] = {}
    for name, ids in data.splits.items():
        for index in ids:
            split_of.setdefault(data.names[index].split("@")[0], set()).add(name)
    assert all(len(names) == 1 for names in split_of.values()) and len(split_of) == 24
    for name in ("validation", "test"):
        seen: dict[str, int] = {}
        for index in data.splits[name]:
            file = data.names[index].split("@")[0]
            found = data.read_good(np.array([index]))
            known = torch.ones(1, 2, 128, dtype=torch.bool)
            if found.mask is not None:
                known &= found.mask[:, None]
            if found.known is not None:
                known &= found.known
            seen[file] = seen.get(file, 0) + int(known.sum())
        for file, count in seen.items():
            values = np.load(folder / file)
            assert count == int((~np.isnan(values)).sum())


def test_the_scale_is_that_of_what_is_there_in_training(folder):
    data = SERIES.open(folder, SeriesData(length=128, validation=0.2, test=0.2), 0)
    files = sorted({data.names[index].split("@")[0] for index in data.splits["train"]})
    joined = np.concatenate([np.load(folder / file) for file in files]).astype(np.float32)
    assert np.allclose(data.scale.mean, np.nanmean(joined, 0), rtol=1e-5)
    assert np.allclose(data.scale.std, np.nanstd(joined, 0), rtol=1e-4)
    values = joined[:50].T
    values[0, 3] = np.nan
    standardised = data.scale.standardised(values)
    assert standardised[0, 3] == 0
    back = data.scale.restored(standardised)
    there = ~np.isnan(values)
    assert np.allclose(back[there], values[there], atol=1e-4)


def test_few_files_are_cut_and_said_so(tmp_path):
    np.save(tmp_path / "one.npy", beats(5000, 1))
    data = SERIES.open(tmp_path, SeriesData(length=64), 0)
    assert all(len(ids) for ids in data.splits.values())
    assert any("parts of one file" in note for note in data.remarks())
    places = [set(), set()]
    for number, name in enumerate(("train", "test")):
        for index in data.splits[name]:
            places[number].add(data.names[index].split("@")[0])
    assert not places[0] & places[1]


def test_what_cannot_be_used_is_named(tmp_path, folder):
    with pytest.raises(VqkitError, match="no arrays"):
        SERIES.open(tmp_path, SeriesData(), 0)
    with pytest.raises(VqkitError, match="no file or folder"):
        SERIES.open(tmp_path / "nothing", SeriesData(), 0)
    np.save(tmp_path / "a.npy", np.ones((500, 1)))
    with pytest.raises(VqkitError, match="constant|different items"):
        SERIES.open(tmp_path, SeriesData(length=32), 0)
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", beats(500, number, 1 + number % 2))
    with pytest.raises(VqkitError, match="channels, where"):
        SERIES.open(tmp_path, SeriesData(length=32), 0)
    with pytest.raises(VqkitError, match="max_memory_mb"):
        for number in range(2):
            np.save(tmp_path / f"{number}.npy", np.zeros((400_000, 2)))
        SERIES.open(tmp_path, SeriesData(length=32, max_memory_mb=1), 0, max_bad=1.0)


# ---------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_cubes_become_channels_and_back(dims):
    x = torch.arange(2 * 3 * 6**dims).double().view(2, 3, *(6,) * dims)
    found = to_channels(x, 2)
    assert found.shape == (2, 3 * 2**dims, *(3,) * dims)
    assert torch.equal(from_channels(found, 2), x)
    if dims == 2:
        assert torch.equal(found, F.pixel_unshuffle(x, 2))
    # A convolution whose kernel is as large as its stride sees one cube.
    kernel = torch.randn(5, 3, *(2,) * dims, dtype=torch.float64)
    convolution = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    expected = convolution(x, kernel, stride=2)
    by_cubes = torch.einsum("oc,bc...->bo...", kernel.flatten(1), found)
    assert torch.allclose(by_cubes, expected, atol=1e-8)


def test_an_untrained_encoder_is_a_linear_map():
    encoder = ArrayEncoder(ArrayConfig(patch=4, width=8), 1, 6, 1)
    x, y = torch.randn(2, 1, 1, 32)
    bias = encoder(torch.zeros(1, 1, 32))
    linear = encoder(x) + encoder(y) - bias
    assert torch.allclose(encoder(x + y), linear, atol=1e-5)
    assert isinstance(encoder.linear, nn.Linear)


@pytest.mark.parametrize(("channels", "side", "dims"), [(1, 16, 1), (3, 4, 1), (2, 4, 3)])
def test_the_cosine_transform_is_that_of_scipy(channels, side, dims):
    dct = scipy.fft.dctn
    rows = cosine_rows(channels, side, dims)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
    cube = torch.randn(channels, *(side,) * dims)
    found = rows @ to_channels(cube[None], side).flatten()
    expected = [dct(one.numpy(), norm="ortho").ravel() for one in cube]
    assert np.allclose(np.sort(found), np.sort(np.concatenate(expected)), atol=1e-4)
    means = [one[0] for one in expected]
    assert np.allclose(found[:channels], means, atol=1e-4)


def test_errors_are_of_what_is_real():
    original = torch.zeros(1, 2, 4)
    values = torch.tensor([[[1.0, 9, 1, 1], [1, 9, 1, 1]]])
    mask = torch.tensor([[True, False, True, True]])
    assert squared_error(values, original, mask).tolist() == [1.0]
    assert SERIES.measures(10 * values, 10 * original, mask)["snr"].tolist() == pytest.approx([-20])
    of_values = torch.tensor([[[True, True, False, False], [True, False, False, False]]])
    assert squared_error(values, original, of_values).tolist() == [(1 + 81 + 1) / 3]


def test_a_missing_channel_takes_nothing_from_the_others(tmp_path):
    series = beats(400, 1, 2)
    series[40:60, 0] = np.nan
    series[50:70, 1] = np.nan
    np.save(tmp_path / "a.npy", series)
    data = SERIES.open(tmp_path / "a.npy", SeriesData(length=100, overlap=1, test=0), seed=0)
    numbers = [index for index, name in enumerate(data.names) if "#0@0" in name]
    batch = data.read(numbers)
    assert torch.equal(batch.known[0], torch.from_numpy(~np.isnan(series[:100].T)))
    assert torch.equal(batch.mask[0], batch.known[0].any(0))
    assert not batch.values[~batch.known].any() and (~batch.mask[0]).sum() == 10
    whole = data.read([index for index, name in enumerate(data.names) if "#2@0" in name])
    assert whole.known is None and whole.mask is None and whole.counted is None


def test_the_loss_is_that_of_known_values_and_hears_of_no_others(run):
    model = vqkit.load(run, device="cpu")
    x = torch.randn(2, 2, 128, generator=torch.Generator().manual_seed(0))
    known = torch.ones(2, 2, 128, dtype=torch.bool)
    known[0, :, 30:50] = False
    # Where all channels are missing, a position is.
    expected = model.network(x, mask=known[:, 0])
    found = model.network(x.where(known, 99.0), mask=known)
    assert found.terms == expected.terms and torch.equal(found.codes, expected.codes)
    known[1, 0, 60:80] = False
    one, other = (model.network(x.where(known, lost), mask=known) for lost in (9.0, -3.0))
    assert one.terms == other.terms and torch.equal(one.codes, other.codes)
    assert one.terms != expected.terms
    output = torch.randn(2, 3, 16)
    target = torch.randn(2, 3, 16)
    known = torch.rand(2, 3, 16) > 0.3
    by_hand = ((output - target) ** 2)[known].mean()
    lost = target.where(known, 1e6)
    assert torch.isclose(Likelihood("mse", (1.0,) * 3, dims=1)(output, lost, known), by_hand)


# ------------------------------------------------------------------------------------------- verbs


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    words = ["train", str(folder), "--out", str(out), "--recipe", "signal", "data.length=128"]
    sizes = ["data.validation=0.2", "data.test=0.2", "model.network.patch=8"]
    assert cli.main([*words, *sizes, *TINY]) == 0
    return out


def test_a_series_goes_through_every_verb(run, folder, tmp_path, capsys):
    model = vqkit.load(run, device="cpu")
    path = folder / "05.npy"
    values = np.load(path).T.astype(np.float32)
    shown = model.reconstruct(values)
    assert shown.shape == values.shape
    # In the units of the file: the second channel lies at 100.
    assert abs(shown[1].mean() - values[1].mean()) < 2
    std = np.array(model.data["scale"]["std"])[:, None]
    assert (((shown - values) / std) ** 2).mean() < 0.5
    assert cli.main(["compress", str(run), str(path), "--out", str(tmp_path / "a.vq")]) == 0
    words = ["decompress", str(tmp_path / "a.vq"), "--model", str(run)]
    assert cli.main([*words, "--out", str(tmp_path / "a.npy")]) == 0
    assert np.allclose(np.load(tmp_path / "a.npy"), shown.T, atol=1e-3)
    data = model.compress(values)
    assert np.array_equal(
        model.decompress(data), model.decompress((tmp_path / "a.vq").read_bytes())
    )
    assert (model.encode(values, exact=True) == model.encode(values)).float().mean() > 0.99
    assert cli.main(["evaluate", str(run), str(folder), "--json", str(tmp_path / "e.json")]) == 0
    figures = json.loads((tmp_path / "e.json").read_text())
    assert 0 < figures["rmse"] < 0.7 and figures["bits_per_sample"] > 0
    encoder, decoder = model.stream()
    pieces = torch.from_numpy(model.to_values(values)[0].numpy()).split(100, 1)
    codes = torch.cat([*(encoder.push(piece) for piece in pieces), encoder.finish()], 1)
    assert torch.equal(codes[None], model.encode(values))
    assert decoder.push(codes).shape[0] == 2
    sheet = tmp_path / "sheet.png"
    assert cli.main(["reconstruct", str(run), str(path), "--out", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "05.npy").shape == values.T.shape
    assert cli.main(["data", str(folder), "--recipe", "signal", "--sheet", str(sheet)]) == 0
    assert sheet.exists() and "values are missing" in capsys.readouterr().out
    # What is missing comes back as something near what was likely.
    gaps = np.load(folder / "00.npy").T.astype(np.float32)
    assert np.isfinite(model.reconstruct(gaps)).all()


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("scans")
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 20)] * 3, indexing="ij"))
    for number in range(8):
        rng = np.random.default_rng(number)
        centre = rng.uniform(-0.3, 0.3, (3, 1, 1, 1))
        ball = np.exp(-3 * ((grid - centre) ** 2).sum(0)) * 200
        np.save(found / f"{number}.npy", (ball + rng.normal(0, 2, ball.shape)).astype(np.float32))
    return found


def test_a_volume_goes_through_every_verb(scans, tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = ["train", str(scans), "--out", str(run), "--recipe", "volume", "data.size=[8,8,8]"]
    sizes = ["data.validation=0.2", "data.test=0.2", "model.quantizer.stage.channels=16"]
    assert cli.main([*words, *sizes, *TINY, "train.steps=80"]) == 0
    model = vqkit.load(run, device="cpu")
    volume = np.load(scans / "3.npy")
    shown = model.reconstruct(volume)
    assert shown.shape == (20, 20, 20)
    assert np.corrcoef(shown.ravel(), volume.ravel())[0, 1] > 0.9
    data = model.compress(scans / "3.npy", "3.npy")
    assert np.allclose(model.decompress(data)[0], shown, atol=0.05)
    (tmp_path / "x.vq").write_bytes(data)
    words = ["decompress", str(tmp_path / "x.vq"), "--model", str(run), "--out-dir", str(tmp_path)]
    assert cli.main(words) == 0
    assert np.allclose(np.load(tmp_path / "3.npy"), shown, atol=0.05)
    assert_invariant(run, scans, tmp_path, monkeypatch)
    with pytest.raises(VqkitError, match="shape"):
        model.reconstruct(str(_flat(tmp_path)))


def _flat(folder: Path) -> Path:
    np.save(folder / "flat.npy", np.zeros((5, 5)))
    return folder / "flat.npy"


def test_networks_of_other_signals_are_refused(folder, tmp_path):
    config = from_tree(
        {"data": {"signal": "series"}, "model": {"network": {"kind": "patch"}}}, "x", Config
    )
    with pytest.raises(VqkitError, match="model.network.kind=array"):
        SERIES.backbone(config.model.network, None, None, config.data)  # type: ignore[arg-type]
    assert VOLUME.an_item == "a volume" and SERIES.an_item == "a trace"
    assert cli.main(["train", str(folder), "--out", str(tmp_path / "r"), "--recipe", "images"]) != 0
    with pytest.raises(VqkitError, match="--recipe signal"):
        vqkit.train(folder, tmp_path / "r")
