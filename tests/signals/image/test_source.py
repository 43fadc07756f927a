from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from vqkit.cli.models import _sample_sheet
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import ImageData, open_images


def save_all(pictures: np.ndarray, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def everything(data: ImageData) -> np.ndarray:  # (N, H, W, C)
    return data.read(range(len(data))).values.permute(0, 2, 3, 1).numpy()


# ----------------------------------------------------------------------------------- files, folders


def test_sizes_have_the_width_first(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("RGB", (40 + index % 2, 24), (index, 0, 0)).save(tmp_path / f"{index}.png")
    data = open_images(tmp_path, DataConfig(image_size=(24, 40), test=0.1, validation=0.1), seed=0)
    assert data.sizes == {"40x24": 10, "41x24": 10} and data.shape.extent == (24, 40)
    with pytest.raises(VqkitError, match=r"different sizes \(width x height: 40x24, 41x24\)"):
        open_images(tmp_path, DataConfig(image_size=None), seed=0)


def test_folder_is_read_recursively(folder: Path, pictures: np.ndarray) -> None:
    (data := open_images(folder, DataConfig(), seed=0)).read([0])
    assert (
        len(data) == 400
        and data.kind == "folder"
        and data.shape.extent == (32, 32)
        and data.shape.channels == 3
    )
    assert data.names[0] == "a/000.png" and data.names[-1] == "b/399.png" and data.in_memory
    assert data.modes == {"RGB": 400} and data.sizes == {"32x32": 400} and data.bad == []
    assert np.array_equal(everything(data), np.concatenate([pictures[::2], pictures[1::2]]))


def test_folders_right_below_are_classes(
    folder: Path, pictures: np.ndarray, tmp_path: Path
) -> None:
    data = open_images(folder, DataConfig(), seed=0)
    assert data.groups == ["a"] * 200 + ["b"] * 200 and data.describe()["classes"] == {
        "a": 200,
        "b": 200,
    }
    for name in ("one/two/", "three/"):
        (tmp_path / name).mkdir(parents=True)
        save_all(pictures[:15], tmp_path / name)
    broken = tmp_path / "one" / "two" / "001.png"
    broken.write_bytes(broken.read_bytes()[:-300])
    data = open_images(tmp_path, DataConfig(), seed=0)  # classes of what is left out are, too
    assert data.groups == [name.split("/")[0] for name in data.names] and len(data) == 29
    save_all(pictures[3:4], tmp_path)  # beside the folders: they are no classes
    assert open_images(tmp_path, DataConfig(), seed=0).groups is None


def test_patches_at_full_resolution(photos: Path, tmp_path: Path) -> None:
    """Those of one image stay together, none is scaled, and a bound on memory is one on patches."""
    for number, name in enumerate(("astronaut", "coffee", "camera", "chelsea")):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{name}.png").write_bytes(
            (photos / f"{name}.png").read_bytes()
        )
    config = DataConfig(
        fit="patches", image_size=(100, 200), channels=3, validation=0.25, test=0.25
    )
    data = open_images(tmp_path, config, seed=0)
    assert len(data) == 10 + 12 + 10 + 6 and data.in_memory and data.shape.extent == (100, 200)
    image = np.asarray(Image.open(photos / "coffee.png"))
    index = list(data.names).index("b/coffee.png:200,400")
    assert (
        np.array_equal(everything(data)[index], image[200:300, 400:600])
        and data.groups[index] == "b"
    )
    owners = [
        {data.names[index].split(":")[0] for index in data.splits[name]} for name in data.splits
    ]
    assert [len(names) for names in owners] == [2, 1, 1] and len(set.union(*owners)) == 4
    few = open_images(tmp_path, config.model_copy(update={"max_memory_mb": 1}), seed=0)
    assert len(few) == 4 * ((1 << 20) // 60_000 // 4) and set(few.names) < set(data.names)
    large = open_images(tmp_path, config.model_copy(update={"image_size": (600, 600)}), seed=0)
    assert len(large) == 4 and large.shape.extent == (600, 600)  # each scaled to one


def test_description_is_json(folder: Path) -> None:
    description = open_images(folder, DataConfig(), seed=0).describe()
    assert json.loads(json.dumps(description)) == description
    assert description["splits"] == {"train": 360, "validation": 20, "test": 20}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_number_of_channels(folder: Path, channels: int) -> None:
    data = open_images(folder, DataConfig(channels=channels), seed=0)
    assert (
        data.read([3, 4]).values.shape == (2, channels, 32, 32)
        and len(data.normalisation.mean) == channels
    )
    if channels in (2, 4):  # opaque everywhere: a constant channel must not divide by zero
        assert data.normalisation.std[-1] == 1 and bool((data.read([0]).values[:, -1] == 255).all())
    with Image.open(io.BytesIO(_sample_sheet(IMAGE, data))) as sheet:
        first = np.asarray(sheet.convert("RGB"))
    assert min(first.shape[:2]) > 8 * 32 and first.std() > 10, "a square of 64 images"


def test_grey_is_chosen_when_most_are_grey(pictures: np.ndarray, tmp_path: Path) -> None:
    save_all(pictures[:8], tmp_path)
    for number in range(5):
        Image.open(tmp_path / f"{number:03}.png").convert("LA").save(tmp_path / f"{number:03}.png")
    assert open_images(tmp_path, DataConfig(), seed=0).shape.channels == 1


def test_mixed_sizes_need_a_size(photos: Path, tmp_path: Path) -> None:
    for name in ("astronaut", "coffee", "camera"):
        Image.open(photos / f"{name}.png").save(tmp_path / f"{name}.png", compress_level=1)
    with pytest.raises(VqkitError, match=r"set data.image_size=\[64, 64\]"):
        open_images(tmp_path, DataConfig(), seed=0)
    data = open_images(tmp_path, DataConfig(image_size=(48, 64)), seed=0)
    assert data.read([0, 1, 2]).values.shape == (3, 3, 48, 64) and data.sizes == {
        "512x512": 2,
        "600x400": 1,
    }
    assert data.modes == {"RGB": 2, "L": 1}


def test_large_jpeg_is_shrunk_like_a_png(photos: Path, tmp_path: Path) -> None:
    """Decoding a JPEG at a fraction of its size must not cost quality."""
    (tmp_path / "jpeg").mkdir()
    photo = Image.open(photos / "astronaut.png").convert("RGB")
    for number in range(3):
        photo.rotate(90 * number).save(
            tmp_path / "jpeg" / f"{number}.jpg", quality=95, subsampling=0
        )
    data = open_images(tmp_path / "jpeg", DataConfig(image_size=(32, 32)), seed=0)
    expected = np.asarray(photo.resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    error = np.square(everything(data)[0].astype(int) - expected).mean()
    assert 10 * np.log10(255**2 / error) > 35  # dB; undersampling gives below 25


def test_one_picture_becomes_patches(photos: Path) -> None:
    data = open_images(photos / "astronaut.png", DataConfig(), seed=0)
    photo = np.asarray(Image.open(photos / "astronaut.png").convert("RGB"))
    assert len(data) == 256 and data.kind == "image" and data.sizes == {"512x512": 1}
    assert data.names[17] == "astronaut.png:32,32" and np.array_equal(
        everything(data)[17], photo[32:64, 32:64]
    )
    assert (
        open_images(photos / "camera.png", DataConfig(image_size=(64, 128)), seed=0).shape.channels
        == 1
    )
    with pytest.raises(VqkitError, match="too few for one patch"):
        open_images(photos / "astronaut.png", DataConfig(image_size=(1024, 1024)), seed=0)


# ---------------------------------------------------------------------------------------- bad files


def test_bad_files_are_counted(folder: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    save_all(pictures[:97], tmp_path)
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "cut.png").write_bytes(
        png(pictures[99])[:-60]
    )  # the header is fine, the pixels end early
    (tmp_path / "empty.gif").touch()
    (tmp_path / "notes.txt").write_text("not called an image, so not counted")
    data = open_images(tmp_path, DataConfig(), seed=0)
    assert len(data) == 97 and {bad.name for bad in data.bad} == {
        "text.jpg",
        "cut.png",
        "empty.gif",
    }
    assert all(bad.reason for bad in data.bad) and np.array_equal(everything(data), pictures[:97])


def test_many_bad_files_stop(pictures: np.ndarray, tmp_path: Path) -> None:
    save_all(pictures[:90], tmp_path)
    for number in range(10):
        (tmp_path / f"bad{number}.png").write_text("no")
    with pytest.raises(VqkitError, match=r"10 of 100 .*more than 5 %.*bad0.png.*and 7 more"):
        open_images(tmp_path, DataConfig(), seed=0)


def test_empty_missing_constant(tmp_path: Path) -> None:
    with pytest.raises(VqkitError, match="holds no images"):
        open_images(tmp_path, DataConfig(), seed=0)
    with pytest.raises(VqkitError, match="no file or folder.*emoji, fashion-mnist, digits"):
        open_images(tmp_path / "emojis", DataConfig(), seed=0)
    constant = np.full((40, 8, 8, 3), 7, dtype=np.uint8)
    np.save(tmp_path / "flat.npy", constant)
    with pytest.raises(VqkitError, match="constant|different items"):
        open_images(tmp_path / "flat.npy", DataConfig(), seed=0)
    constant[:, 0, 0, 0] = np.arange(40) // 39 * 8 + 7
    np.save(tmp_path / "flat.npy", constant[:-1])
    with pytest.raises(VqkitError, match="constant"):
        open_images(tmp_path / "flat.npy", DataConfig(validation=0, test=0), seed=0)


def test_too_few_images(pictures: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", pictures[:2])
    with pytest.raises(VqkitError, match="3 are needed; or set data.validation=0 data.test=0"):
        open_images(tmp_path / "two.npy", DataConfig(), seed=0)
    data = open_images(tmp_path / "two.npy", DataConfig(validation=0, test=0), seed=0)
    assert (
        len(data.splits["train"]) == 2
        and len(data.splits["validation"]) == len(data.splits["test"]) == 0
    )
    with pytest.raises(VqkitError, match="leave nothing to train on"):
        open_images(tmp_path / "two.npy", DataConfig(validation=0.5, test=0.5), seed=0)


# ------------------------------------------------------------------------------------ standardising


def test_train_has_mean_0_and_deviation_1(folder: Path) -> None:
    data = open_images(folder, DataConfig(validation=0.3), seed=0)
    images = data.read(data.splits["train"]).values
    standardised = data.normalisation.apply(images)
    assert standardised.dtype == torch.float32
    assert torch.allclose(standardised.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(standardised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)
    back = data.normalisation.undo(standardised)
    assert torch.equal(back.mul(255).round().to(torch.uint8), images)
    assert data.normalisation != open_images(folder, DataConfig(validation=0), seed=0).normalisation


def test_given_normalisation_is_kept(folder: Path) -> None:
    given = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert open_images(folder, DataConfig(), 0, given).normalisation == given
    assert Normalisation.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    with pytest.raises(VqkitError, match="set data.channels=3"):
        open_images(folder, DataConfig(channels=1), 0, given)
    for wrong in (
        {"mean": [0.5]},
        {"mean": [0.5], "std": [0.0]},
        {"mean": [0.5], "std": [1.0, 1.0]},
        {"mean": 1, "std": 2},
    ):
        with pytest.raises(VqkitError, match="normalisation"):
            Normalisation.from_dict(wrong)


# ------------------------------------------------------------------------------------------ parquet


@pytest.mark.parametrize("layout", ["struct", "binary"])
def test_parquet(pictures: np.ndarray, tmp_path: Path, layout: str) -> None:
    contents = [png(pixels) for pixels in pictures[:50]]
    column = (
        [{"bytes": content, "path": "x.png"} for content in contents]
        if layout == "struct"
        else contents
    )
    for part in range(2):
        table = pyarrow.table(
            {"label": list(range(25)), "image": column[25 * part : 25 * part + 25]}
        )
        pyarrow.parquet.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=10)
    data = open_images(tmp_path, DataConfig(), seed=0)
    assert data.kind == "parquet" and data.names[26] == "part-1.parquet:1"
    assert np.array_equal(everything(data), pictures[:50])
    one = open_images(tmp_path / "part-1.parquet", DataConfig(), seed=0)
    assert np.array_equal(everything(one), pictures[25:50])


def test_parquet_without_pictures(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(VqkitError, match="no column of samples"):
        open_images(tmp_path, DataConfig(), seed=0)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(VqkitError, match="cannot read .*a.parquet"):
        open_images(tmp_path, DataConfig(), seed=0)


# ----------------------------------------------------------------------------------------- built in


def test_emoji(emoji: ImageData) -> None:
    assert len(emoji) > 3000 and emoji.shape.extent == (32, 32) and emoji.shape.channels == 3
    assert emoji.captions is not None and emoji.groups is not None
    grapes = emoji.captions.index("grapes")
    assert emoji.names[grapes] == "1f347" and emoji.groups[grapes] == "food-drink"
    red, green, blue = emoji.read([grapes]).values[0, :, 14:22, 10:20].float().mean((1, 2)).tolist()
    assert red > green and blue > green  # the image under the name is the right one: purple
    assert bool(
        (emoji.read([grapes]).values[0, :, 0, 0] == 255).all()
    )  # transparent corners are white


def test_digits() -> None:
    data = open_images("digits", DataConfig(), seed=0)
    assert len(data) == 1797 and data.shape.extent == (8, 8) and data.shape.channels == 1
    assert data.groups is not None and data.groups[:3] == ["0", "1", "2"]
    assert int(everything(data).max()) == 255


def test_a_path_wins_over_a_built_in_set_only_with_a_separator(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert open_images("digits", DataConfig(), seed=0).kind == "digits"
    assert open_images("./digits", DataConfig(), seed=0).kind == "folder"
