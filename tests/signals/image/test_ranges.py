"""Values of more than 8 bits: one scale for a whole set, whatever form it comes in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.files import load_image, survey_file
from vqkit.signals.image.ranges import Extent, ValueRange
from vqkit.signals.image.source import ImageData, bad_files, open_images

TYPES = {"u2": np.uint16, "i4": np.int32, "f4": np.float32}


def levels(data: ImageData) -> dict[str, np.ndarray]:
    """Name -> grey levels (H, W)."""
    return {
        name: image[0].numpy()
        for name, image in zip(data.names, data.read(range(len(data))).values, strict=True)
    }


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.rint((values.astype(np.float64) - low) / (high - low) * 255), 0, 255)


@pytest.fixture(scope="module")
def sensor() -> np.ndarray:  # (20, 16, 16) uint16
    """12-bit images of very different exposure: the darkest has the maximum 1, the brightest
    4095.
    """
    random = np.random.default_rng(0)
    values = random.random((20, 16, 16))
    highest = np.linspace(1, 4095, 20)[:, None, None]
    images = np.rint(values * highest).astype(np.uint16)
    images[:, 0, 0] = highest[:, 0, 0]
    return images


def write(folder: Path, images: np.ndarray, kind: type, suffix: str) -> None:
    for number, values in enumerate(images):
        Image.fromarray(values.astype(kind)).save(folder / f"{number:02}.{suffix}")


@pytest.mark.parametrize(
    ("kind", "suffix"), [("u2", "png"), ("u2", "tif"), ("i4", "tif"), ("f4", "tif")]
)
@pytest.mark.parametrize("memory", [1024, 1])
def test_files_share_one_scale(
    sensor: np.ndarray, tmp_path: Path, kind: str, suffix: str, memory: int
) -> None:
    images = sensor if memory > 1 else np.tile(sensor, (1, 16, 16))
    write(tmp_path, images, TYPES[kind], suffix)
    data = open_images(tmp_path, DataConfig(max_memory_mb=memory), seed=0)
    assert data.in_memory == (memory > 1)
    assert data.describe()["value_range"] == [0, 4095]
    for number, values in enumerate(images):
        assert np.array_equal(levels(data)[f"{number:02}.{suffix}"], scaled(values, 0, 4095))
    assert levels(data)[f"00.{suffix}"].max() == 0  # a maximum of 1 of 4095 is black, not white
    assert len(np.unique(levels(data)[f"19.{suffix}"])) > 100


@pytest.mark.parametrize("layout", ["npy", "npz"])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_arrays_share_one_scale(
    sensor: np.ndarray, tmp_path: Path, kind: type, layout: str
) -> None:
    path = tmp_path / f"x.{layout}"
    np.save(path, sensor.astype(kind)) if layout == "npy" else np.savez_compressed(
        path, sensor.astype(kind)
    )
    data = open_images(path, DataConfig(), seed=0)
    assert data.describe()["value_range"] == [0, 4095]
    assert np.array_equal(data.read(range(20)).values[:, 0].numpy(), scaled(sensor, 0, 4095))


def test_patches_share_one_scale(sensor: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path, sensor, np.uint16, "png")
    data = open_images(tmp_path, DataConfig(fit="patches", image_size=(8, 8)), seed=0)
    assert data.describe()["value_range"] == [0, 4095]
    assert np.array_equal(levels(data)["07.png:8,0"], scaled(sensor[7, 8:, :8], 0, 4095))


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.array([3, 200], np.uint16), 0, 255),
        (np.array([3, 256], np.uint16), 0, 511),
        (np.array([0, 1023], np.int64), 0, 1023),
        (np.array([0, 70000], np.int32), 0, 131071),
        (np.array([-5, 70], np.int16), -5, 70),
        (np.array([0.25, 0.5]), 0, 1),
        (np.array([0.0, 1.5]), 0, 1.5),
        (np.array([-0.5, 0.5], np.float32), -0.5, 0.5),
        (np.array([True, False]), 0, 1),
    ],
)
def test_range_that_is_found(values: np.ndarray, low: float, high: float) -> None:
    extent = Extent()
    for value in values:
        extent.add(np.array([value]))
    assert extent.range() == ValueRange(low, high)


def test_plain_sets_have_no_range(folder: Path) -> None:
    for source in (folder, "digits"):
        data = open_images(source, DataConfig(value_range=(0, 10)), seed=0)
        assert "value_range" not in data.describe() and data.range_in_words() == []


def test_8_bit_images_among_others_stay_as_they_are(sensor: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path, sensor, np.uint16, "png")
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(levels(open_images(tmp_path, DataConfig(), seed=0))["grey.png"], grey)


def test_the_range_can_be_set(sensor: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path, sensor, np.float32, "tif")
    config = load(
        "images", ["data.value_range=[1000, 3000]", "data.image_size=[16, 16]"], Config
    ).data
    data = open_images(tmp_path, config, seed=0)
    assert data.describe()["value_range"] == [1000, 3000] and "as set" in data.range_in_words()[0]
    assert np.array_equal(levels(data)["15.tif"], scaled(sensor[15], 1000, 3000))
    for wrong in ("[3, 3]", "[4, 1]", "[0, .inf]", "[.nan, 1]", "[0]"):
        with pytest.raises(VqkitError, match="value_range"):
            load("images", [f"data.value_range={wrong}"], Config)


def test_a_trained_model_brings_its_own_range(sensor: np.ndarray, tmp_path: Path) -> None:
    """Other sets are scaled as the training set was, and refused when most of them lies
    elsewhere.
    """
    trained = open_images("digits", DataConfig(), seed=0).normalisation
    write(tmp_path, sensor[:10], np.uint16, "png")
    data = open_images(tmp_path, DataConfig(), 0, trained, ValueRange(0, 4095))
    assert np.array_equal(levels(data)["09.png"], scaled(sensor[9], 0, 4095))
    for number, values in enumerate(sensor[:10]):
        Image.fromarray((values.astype(np.int32) * 100 + 5000).astype(np.uint16)).save(
            tmp_path / f"{number:02}.png"
        )
    with pytest.raises(VqkitError, match="0 to 4095, ?.*|range 0 to 4095"):
        open_images(tmp_path, DataConfig(), 0, trained, ValueRange(0, 4095))
    # A model of 8-bit images takes the whole range of the type.
    data = open_images(tmp_path, DataConfig(), 0, trained)
    stored = np.asarray(Image.open(tmp_path / "03.png"))
    assert np.array_equal(levels(data)["03.png"], scaled(stored, 0, 65535))


def test_nan_in_one_file_is_named(sensor: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path, np.tile(sensor, (2, 1, 1)), np.float32, "tif")
    broken = sensor[0].astype(np.float32)
    broken[3, 3] = np.nan
    Image.fromarray(broken).save(tmp_path / "07.tif")
    data = open_images(tmp_path, DataConfig(), seed=0)
    assert [bad.name for bad in data.bad] == ["07.tif"] and "NaN" in data.bad[0].reason
    assert data.describe()["value_range"] == [0, 4095]


def test_the_survey_of_8_bit_files_reads_headers_alone(
    tmp_path: Path, pictures: np.ndarray
) -> None:
    """A file whose pixels are missing passes it, and is found when files are decoded."""
    path = tmp_path / "x.png"
    Image.fromarray(pictures[0]).save(path)
    path.write_bytes(path.read_bytes()[:60])
    assert survey_file(path).headers[0].size == (32, 32)
    bad, num_good = bad_files(tmp_path, DataConfig())
    assert [each.name for each in bad] == ["x.png"] and num_good == 0


# ------------------------------------------------------------------------------ colours of 16 bits


def deep_png(values: np.ndarray, kinds: str = "01234", *, more: bytes = b"") -> bytes:
    """A PNG file of values (H, W, 3 or 4) uint16, written by the rules of its specification: rows
    are filtered by each of the five kinds in turn.
    """
    height, width, count = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    step = 2 * count
    above = np.zeros_like(rows[0])
    written = b""
    for number, row in enumerate(rows):
        left, corner = (np.concatenate([np.zeros(step, int), one[:-step]]) for one in (row, above))
        estimate = left + above - corner
        near = np.abs(np.stack([estimate - left, estimate - above, estimate - corner])).argmin(0)
        kind = int(kinds[number % len(kinds)])
        predicted = [
            np.zeros_like(row),
            left,
            above,
            (left + above) // 2,
            np.choose(near, [left, above, corner]),
        ][kind]
        written += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[count], 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(written))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.fixture(scope="module")
def deep() -> np.ndarray:  # (11, 9, 4) uint16
    return np.random.default_rng(1).integers(0, 65536, (11, 9, 4), dtype=np.uint16)


@pytest.mark.parametrize("count", [3, 4])
def test_all_bits_of_colours_count(deep: np.ndarray, count: int) -> None:
    values = deep[:, :, :count]
    for used in (None, ValueRange(100, 40_000, chosen=True)):
        low, high = (0, 65535) if used is None else (used.low, used.high)
        expected = scaled(values, low, high)
        # Alpha is no value of the set.
        expected[:, :, 3:] = scaled(values[:, :, 3:], 0, 65535)
        assert np.array_equal(load_image(deep_png(values), count, value_range=used), expected)


def test_dark_colours_share_the_scale_of_their_set(deep: np.ndarray, tmp_path: Path) -> None:
    """12 bits in files of 16: by their upper bytes alone they would be of 16 levels."""
    for number in range(12):
        values = np.roll(deep[:, :, :3] >> 4, number, 1)
        (tmp_path / f"{number:02}.png").write_bytes(deep_png(values))
    data = open_images(str(tmp_path), DataConfig(image_size=(11, 9)), seed=0)
    assert data.describe()["value_range"] == [0, 4095]
    found = data.read([0]).values[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, scaled(deep[:, :, :3] >> 4, 0, 4095))
    assert not any("16 bits" in note for note in data.notes_in_words())


def test_deep_colours_are_turned_and_lie_under_a_background(deep: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = deep_png(deep[:, :, :3], more=chunk(b"eXIf", exif.tobytes()[6:]))
    expected = np.rot90(scaled(deep[:, :, :3], 0, 65535), -1)
    assert np.array_equal(load_image(turned, 3), expected)
    clear = deep.copy()
    clear[:, :, 3] = 0
    assert (load_image(deep_png(clear), 3, (1, 2, 3)) == (1, 2, 3)).all()


def test_a_transparent_colour_of_16_bits_is_cut_and_said(deep: np.ndarray) -> None:
    with_colour = deep_png(deep[:, :, :3], more=chunk(b"tRNS", bytes(6)))
    for stored, is_cut in ((with_colour, True), (deep_png(deep), False)):
        assert survey_file(stored).is_cut is is_cut


def test_damaged_deep_colours_are_one_sentence(deep: np.ndarray, monkeypatch) -> None:
    whole = deep_png(deep)
    place = whole.index(b"IDAT") + 20
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    for broken in (flipped, whole[:-40]):
        with pytest.raises(VqkitError, match="cannot read image: "):
            load_image(broken, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(VqkitError, match="decompression bomb"):
        load_image(whole, 4)
