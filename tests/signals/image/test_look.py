"""Settings that a look at a folder chooses: every rule, what wins over it, and hostile folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

import vqkit
from vqkit import cli
from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.pipelines.choosing import Chosen, choose_settings
from vqkit.settings import Config
from vqkit.signals.image import look, rules
from vqkit.signals.image.look import look_at_folder

from ...conftest import TINY

# Makes the image of a number.
Maker = Callable[[int], Image.Image]


def photo(number: int, size: tuple[int, int] = (200, 170)) -> Image.Image:
    """Blurred colours of size (width, height), with noise: every pixel has a colour of its own."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noise = random.integers(-4, 5, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def small_photo(number: int) -> Image.Image:
    return photo(number, (40, 40))


def grey_in_rgb(number: int) -> Image.Image:
    return small_photo(number).convert("L").convert("RGB")


def sprite(number: int) -> Image.Image:
    """A round cut-out of a photograph: antialiased, many colours, transparent corners."""
    mask = Image.new("L", (160, 160))
    ImageDraw.Draw(mask).ellipse((8, 8, 150, 150 - number % 9), fill=255)
    image = photo(number, (40, 40)).convert("RGBA")
    image.putalpha(mask.resize((40, 40), Image.Resampling.BOX))
    return image


def constant_alpha(number: int) -> Image.Image:
    image = small_photo(number).convert("RGBA")
    image.putalpha(128)
    return image


def pixel_art(number: int) -> Image.Image:
    """Sixteen pixels a side, of four colours far apart."""
    random = np.random.default_rng(number)
    palette = np.array([[0, 0, 0], [255, 255, 255], [200, 30, 30], [30, 120, 220]], np.uint8)
    return Image.fromarray(palette[random.integers(0, 4, (16, 16))])


def folder_of(path: Path, count: int, make: Maker) -> Path:
    path.mkdir(exist_ok=True)
    for number in range(count):
        make(number).save(path / f"{number:04}.png", compress_level=1)
    return path


def chosen_for(folder: Path, *overrides: str, minutes: float | None = None) -> Chosen:
    return choose_settings(folder, None, overrides, minutes)


def test_few_large_photos_are_cut_at_full_resolution(tmp_path: Path) -> None:
    config, recipe, lines = chosen_for(folder_of(tmp_path / "p", 15, photo))
    assert recipe == "photos"
    assert config.data == load("photos", [], Config).data
    assert (config.data.fit, config.data.image_size, config.data.num_scales) == (
        "patches",
        (64, 64),
        3,
    )
    assert lines[1].startswith("because: 15 images of 200x170, large: patches of 64x64")


def test_many_small_images_are_seen_whole_at_their_own_size(tmp_path: Path) -> None:
    config, recipe, _ = chosen_for(folder_of(tmp_path / "s", 120, small_photo))
    assert recipe == "images" and config.data.image_size == (40, 40)
    assert (config.data.fit, config.data.channels) == ("crop", None)
    assert config.data.interpolation == "smooth"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    # width and height of the images -> height and width that the model sees
    [
        # Most have one size, and it is kept, whatever it is.
        ([(30, 50)] * 3 + [(90, 20)], (50, 30)),
        # Small ones without a common size: medians 41 and 55, the nearest multiples of 8.
        ([(52, 40), (55, 41), (58, 44)], (40, 56)),
        # Larger ones: the short side becomes 64, the long one 64 * 155 / 110 = 90.2.
        ([(155, 110), (150, 105), (160, 115)], (64, 88)),
        # A long side of twice the short one at most.
        ([(300, 60), (304, 62), (296, 58)], (64, 128)),
    ],
)
def test_whole_images_of_several_sizes(
    sizes: list[tuple[int, int]], expected: tuple[int, int], tmp_path: Path
) -> None:
    # So many that they are not cut for being few.
    def make(number: int) -> Image.Image:
        return photo(number, sizes[number % len(sizes)])

    config = chosen_for(folder_of(tmp_path / "s", rules.FEW_IMAGES, make)).config
    assert config.data.fit == "crop" and config.data.image_size == expected


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (small_photo, None),
        (sprite, 4),
        (lambda number: sprite(number).convert("LA"), 2),
        (constant_alpha, None),
        (grey_in_rgb, 1),
        (lambda number: small_photo(number).convert("L"), 1),
        # One in colour among many without.
        (lambda number: small_photo(7) if number == 7 else grey_in_rgb(number), None),
        # Mixed: most have transparent parts; few have.
        (lambda number: sprite(number) if number % 3 else small_photo(number), 4),
        (lambda number: small_photo(number) if number % 3 else sprite(number), None),
    ],
    ids=["rgb", "rgba", "la", "constant", "grey rgb", "grey", "one red", "most", "few"],
)
def test_channels(make: Maker, channels: int | None, tmp_path: Path) -> None:
    config = chosen_for(folder_of(tmp_path / "s", 30, make)).config
    assert config.data.channels == channels


def test_pixel_art_is_never_interpolated(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "art", 40, pixel_art)
    photo(0, (48, 48)).quantize(4).convert("RGB").save(folder / "other.png")
    config = chosen_for(folder).config
    assert config.data.interpolation == "nearest" and config.data.image_size == (16, 16)
    # Nor is anything that was antialiased taken for it.
    for make in (sprite, small_photo, grey_in_rgb):
        name = tmp_path / make.__name__
        assert chosen_for(folder_of(name, 8, make)).config.data.interpolation == "smooth"


@pytest.mark.parametrize(
    ("count", "side", "patch_size", "codebook_size"),
    # 100 * 8 * 8 = 6,400 codes; 100 * 10 * 10 = 10,000; 1,000 * 16 * 16 = 256,000
    [(100, 16, 2, 256), (100, 40, 4, 256), (1000, 64, 4, 512)],
)
def test_codes_follow_size_and_count(
    count: int, side: int, patch_size: int, codebook_size: int, tmp_path: Path
) -> None:
    some = np.stack([np.asarray(photo(number, (side, side))) for number in range(10)])
    array = some[np.arange(count) % len(some)]
    np.save(tmp_path / "a.npy", array)
    config = chosen_for(tmp_path / "a.npy").config
    assert config.data.image_size == (side, side)
    assert config.model.network.patch_size == patch_size
    assert config.model.quantizer.codebook_size == codebook_size


def test_the_schedule_follows_count_and_minutes(tmp_path: Path) -> None:
    few = folder_of(tmp_path / "few", 20, small_photo)
    train = chosen_for(few).config.train
    # 300 passes are 125 steps of 48, and 2,000 the fewest.
    assert (train.steps, train.patience, train.max_minutes) == (2000, 10, 20.0)
    # With a budget it is the command's that ends it.
    assert chosen_for(few, minutes=60).config.train.max_minutes is None
    # 70 * 6 * 4 patches of 64x64, 300 passes over them are 15,750 steps of 32.
    photos = look.Look(70, [(300, 400)] * 70, 64, 0, 0, 0)
    for minutes, steps in ((None, 10_000), (15, 10_000), (60, 15_750)):
        schedule = rules.suggested(photos, minutes).choices
        assert f"train.steps={steps}" in [one for choice in schedule for one in choice.settings]
    # Short runs need steps more than they need pixels in each: 16 of 64x64 are 40 of 40x40.
    for size, batches in (((64, 64), [16, 32, 48]), ((40, 40), [40, 48, 48])):
        same = look.Look(500, [size] * 500, 64, 0, 0, 0)
        for minutes, batch in zip((2, 8, 30), batches, strict=True):
            chosen = rules.suggested(same, minutes).choices
            assert f"train.batch_size={batch}" in [s for one in chosen for s in one.settings]


def test_what_a_user_sets_wins(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "s", 30, sprite)
    config, _, lines = chosen_for(folder, "data.channels=3", "train.batch_size=7")
    assert (config.data.channels, config.train.batch_size) == (3, 7)
    assert "channels" not in lines[0] and "transparent" not in lines[1]
    # Another quantizer has no place for a size of the codebook, which was chosen.
    config, _, lines = chosen_for(folder, "model.quantizer.kind=fsq")
    assert config.model.quantizer.kind == "fsq" and "codebook_size" not in lines[0]
    # What an override leaves without effect goes back to its default.
    photos = folder_of(tmp_path / "p", 5, photo)
    assert chosen_for(photos, "data.fit=crop").config.data.num_scales == 1
    named = choose_settings(photos, "images", [])
    assert named == Chosen(load("images", [], Config), "images")
    # The recipe that a setting is unknown to is said, as nobody named it.
    with pytest.raises(VqkitError, match=r"^recipe photos, chosen for .* unknown key 'codebook_s"):
        chosen_for(photos, "model.quantizer.codebook_size=3")


def test_chosen_settings_are_those_that_the_line_says(tmp_path: Path) -> None:
    """Typed with the recipe they give the same run."""
    for make, count in ((photo, 2), (sprite, 40), (pixel_art, 30), (grey_in_rgb, 5)):
        folder = folder_of(tmp_path / make.__name__, count, make)
        config, _, lines = chosen_for(folder, minutes=3)
        option, recipe, *settings = lines[0].removeprefix("chosen:").split()
        assert option == "--recipe"
        assert choose_settings(folder, recipe, settings).config == config
        assert len(lines) == 2 and lines[1].startswith("because: ")
        assert chosen_for(folder, minutes=3) == (config, recipe, lines)


# ---------------------------------------------------------------------------- what training records


def test_training_records_what_was_chosen_and_says_why(tmp_path: Path, capsys) -> None:
    folder = folder_of(tmp_path / "art", 30, pixel_art)
    out = tmp_path / "run"
    words = ["train", str(folder), "--out", str(out), *TINY, "train.steps=4", "coder.steps=0"]
    assert cli.main(words) == 0
    told = capsys.readouterr()
    config, _, lines = chosen_for(folder, *words[4:])
    assert vqkit.load(out).config == config and config.data.interpolation == "nearest"
    assert yaml.safe_load((out / "recipe.yaml").read_text()) == config.model_dump(mode="json")
    for text in (told.out + told.err, (out / "report.html").read_text()):
        assert all(line in text for line in lines)
    assert "few colours with hard edges" in (out / "README.md").read_text()
    assert f"--recipe {out / 'recipe.yaml'}" in (out / "README.md").read_text()
    sheet = tmp_path / "sheet.png"
    assert cli.main(["data", str(folder), "--sheet", str(sheet)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert tuple(printed[:2]) == chosen_for(folder).lines


def test_a_recipe_by_name_is_not_chosen(tmp_path: Path, capsys) -> None:
    folder = folder_of(tmp_path / "denoise", 30, pixel_art)
    sheet = str(tmp_path / "sheet.png")
    assert cli.main(["data", str(folder), "--recipe", "images", "--sheet", sheet]) == 0
    assert "chosen:" not in capsys.readouterr().out


def test_a_folder_that_is_called_like_a_recipe_is_looked_at(tmp_path: Path, monkeypatch) -> None:
    folder_of(tmp_path / "denoise", 30, pixel_art)
    monkeypatch.chdir(tmp_path)
    assert choose_settings("denoise", None, []).recipe == "images"
    # A built-in set has the recipe that is named after it, or is looked at.
    assert choose_settings("emoji", None, []).config == load("emoji", [], Config)
    digits = choose_settings("digits", None, []).config.data
    assert (digits.image_size, digits.channels) == ((8, 8), 1)


# --------------------------------------------------------------------------------------- few images


@pytest.mark.parametrize(
    ("count", "splits", "told"),
    [
        (1, (1, 0, 0), "no image is held out"),
        (2, (1, 0, 1), "1 image to train on, 0 held out for validation and 1 for test"),
        (3, (1, 1, 1), "1 image to train on, 1 held out for validation and 1 for test"),
        (15, (13, 1, 1), "13 images to train on, 1 held out for validation and 1 for test"),
    ],
)
def test_few_photos_train_and_it_is_said_what_cannot_be_judged(
    count: int, splits: tuple[int, int, int], told: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "p", count, photo)
    settings = [one for one in TINY if not one.startswith(("train.valid", "model."))]
    settings += ["train.steps=2", "model.network.width=16", "coder.steps=0"]
    settings += ["model.quantizer.num_stages=1", "model.quantizer.stage.channels=6"]
    said: list[str] = []
    model = vqkit.train(folder, tmp_path / "run", None, settings, display=Listener(said))
    assert model is not None
    assert model.data["cut_from"] == dict(zip(("train", "validation", "test"), splits, strict=True))
    assert any(line.startswith(told) for line in said)
    card = (tmp_path / "run" / "README.md").read_text()
    if count == 1:
        assert "No image was held out" in card
    else:
        assert "One test image is too little to judge by" in card


class Listener:
    """A display that keeps what it is told."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def start(self, title: str) -> None: ...

    def update(self, progress: float, row: object) -> None: ...

    def stop(self) -> None: ...

    def message(self, text: str) -> None:
        self.said.append(text)


# ------------------------------------------------------------------------------------------ hostile


def test_nothing_to_look_at_gives_the_error_of_opening(tmp_path: Path) -> None:
    for name in ("empty", "missing", "text"):
        folder = tmp_path / name
        if name != "missing":
            folder.mkdir()
        if name == "text":
            (folder / "a.png").write_bytes(b"no image")
            (folder / "b.dat").write_text("no image")
        assert chosen_for(folder) == Chosen(load("images", [], Config), "images")
        with pytest.raises(VqkitError):
            vqkit.train(folder, tmp_path / "run")


def test_sizes_are_those_of_images_turned_upright(tmp_path: Path) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    exif = Image.Exif()
    # Lies on its side.
    exif[0x0112] = 6
    for number in range(12):
        photo(number, (30, 50)).save(folder / f"{number}.jpg", exif=exif)
    found = look_at_folder(folder)
    assert found is not None and found.size == (30, 50)
    assert chosen_for(folder).config.data.image_size == (30, 50)


def test_a_panorama_is_cut(tmp_path: Path) -> None:
    config, recipe, _ = chosen_for(
        folder_of(tmp_path / "p", 1, lambda number: photo(number, (20_000, 200)))
    )
    assert recipe == "photos" and (config.data.validation, config.data.test) == (0, 0)


def test_other_modes_and_broken_files(tmp_path: Path) -> None:
    deep = folder_of(
        tmp_path / "deep",
        20,
        # Twelve bits in sixteen: all of them dark, few levels in eight.
        lambda number: Image.fromarray(
            np.asarray(small_photo(number).convert("L")).astype(np.uint16) * 16
        ),
    )
    (deep / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = chosen_for(deep).config.data
    assert (data.channels, data.interpolation, data.image_size) == (1, "smooth", (40, 40))
    cmyk = tmp_path / "cmyk"
    cmyk.mkdir()
    for number in range(20):
        small_photo(number).convert("CMYK").save(cmyk / f"{number}.jpg")
    assert chosen_for(cmyk).config.data.channels is None


def test_a_look_reads_few_pixels_and_a_bounded_number_of_headers(
    tmp_path: Path, monkeypatch
) -> None:
    folder = folder_of(tmp_path / "s", 30, small_photo)
    small_photo(0).resize((10, 10)).save(folder / "0001.png")
    monkeypatch.setattr(look, "MAX_LOOKED", 4)
    monkeypatch.setattr(look, "MAX_HEADERS", 10)
    found = look_at_folder(folder)
    assert found is not None
    # The third, sixth ... of 30; the small one is not among them.
    assert (found.num_images, len(found.sizes), found.num_looked) == (30, 10, 4)
    assert found.are_alike


def test_a_parquet_file_and_a_single_image_have_the_default(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "one.png")
    assert choose_settings(tmp_path / "one.png", None, []).recipe == "images"
