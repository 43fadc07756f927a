import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vqkit.report.sheets import animation, contact_sheet, write_prior_images

from .summaries import prior_summary

GREY = 160


def test_positions_by_hand():
    # three images of 2 x 3 pixels in two columns, eight times as large: tiles of 16 x 24, gaps of 2
    pixels = np.arange(10, 64, dtype=np.uint8).reshape(3, 2, 3, 3)
    sheet = np.asarray(contact_sheet(pixels, columns=2))
    assert sheet.shape == (2 + 2 * (16 + 2), 2 + 2 * (24 + 2), 3)
    assert (
        (sheet[:2] == GREY).all()
        and (sheet[:, :2] == GREY).all()
        and (sheet[:, 26:28] == GREY).all()
    )
    assert (sheet[2:10, 2:10] == pixels[0, 0, 0]).all()
    assert (sheet[10:18, 18:26] == pixels[0, 1, 2]).all()
    assert (sheet[2:10, 28:36] == pixels[1, 0, 0]).all()
    assert (sheet[20:28, 2:10] == pixels[2, 0, 0]).all()
    assert (sheet[20:, 28:] == GREY).all()  # no fourth


@pytest.mark.parametrize(
    ("num", "side", "scale", "columns"),
    [(64, 28, 4, 8), (64, 32, 3, 8), (1, 28, 8, 1), (10, 256, 1, 4)],
)
def test_whole_factor_and_square_grid(num, side, scale, columns):
    sheet = contact_sheet(np.zeros((num, side, side, 1), np.uint8))
    rows = -(-num // columns)
    assert sheet.size == (2 + columns * (side * scale + 2), 2 + rows * (side * scale + 2))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_lies_over_white(channels):
    pixels = np.zeros((1, 4, 4, channels), np.uint8)
    pixels[0, 0, 0, -1] = 255
    sheet = np.asarray(contact_sheet(pixels))
    assert (sheet[2:10, 2:10] == 0).all() and (sheet[10:34, 10:34] == 255).all()


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        contact_sheet(np.zeros((0, 8, 8, 3), np.uint8))


def film(frames):
    """The frames of the animation, read back: RGB (H, W, 3) each."""
    with Image.open(io.BytesIO(animation(frames))) as gif:
        return [
            np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)
        ]


def test_animation_read_back():
    frames = [np.full((4, 8, 8, 1), 60 * index, np.uint8) for index in range(5)]
    with Image.open(io.BytesIO(animation(frames))) as gif:
        assert gif.format == "GIF" and gif.info["loop"] == 0
        read = [
            (frame.info["duration"], frame.convert("L").getpixel((5, 5)))
            for frame in ImageSequence.Iterator(gif)
        ]
        assert gif.size == contact_sheet(frames[0]).size
    assert [duration for duration, _ in read] == [80] * 4 + [2000]
    assert [tone for _, tone in read] == [0, 60, 120, 180, 240]


def test_animation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        animation([])


def test_colours_that_stay_do_not_flicker(emoji):
    images = emoji.read(emoji.splits["train"][:32]).values.permute(0, 2, 3, 1).contiguous().numpy()
    # 16 emoji stay, in two full rows of six and a third; behind them others fade into noise of all
    # colours
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 32, 32, 3), dtype=np.uint8)
    read = film(
        [
            np.concatenate([images[:16], images[16:] // 6 * step + noise[step] // 6])
            for step in range(6)
        ]
    )
    still = contact_sheet(images[:12], columns=6).height
    assert len(read) == 6 and all(np.array_equal(frame[:still], read[0][:still]) for frame in read)


def test_colours_of_the_last_frame_are_those_of_the_sheet(emoji):
    images = emoji.read(emoji.splits["train"][:64]).values.permute(0, 2, 3, 1).contiguous().numpy()
    last = film([images // 8 * step for step in range(8)] + [images])[-1]
    apart = np.abs(last - np.asarray(contact_sheet(images)))
    # one palette for each frame: mean 3.0, 99 of 100 below 27
    assert apart.mean() < 4 and np.quantile(apart, 0.99) < 24


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_animations_are_exact(channels):
    ramp = np.full((1, 16, 16, channels), 255, np.uint8)
    ramp[0, :, :, 0] = np.arange(256).reshape(16, 16)
    for frame, images in zip(film([ramp, ramp[:, ::-1]]), [ramp, ramp[:, ::-1]], strict=True):
        assert np.array_equal(frame, contact_sheet(images))


def test_pictures_of_a_prior(tmp_path):
    summary = prior_summary()
    write_prior_images(summary, tmp_path)
    names = {f"{name}.png" for name in ("samples", "scattered", "nearest", "bits")}
    assert {path.name for path in tmp_path.iterdir()} == names
    with Image.open(tmp_path / "scattered.png") as sheet:
        assert np.array_equal(sheet, contact_sheet(summary.scattered))
