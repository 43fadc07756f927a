import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vqkit.report import animation, contact_sheet

GREY = 160


def test_positions_by_hand():
    # three images of 2 x 3 pixels in two columns, eight times as large: tiles of 16 x 24, gaps of 2
    pixels = np.arange(10, 64, dtype=np.uint8).reshape(3, 2, 3, 3)
    sheet = np.asarray(contact_sheet(pixels, columns=2))
    assert sheet.shape == (2 + 2 * (16 + 2), 2 + 2 * (24 + 2), 3)
    assert (sheet[:2] == GREY).all() and (sheet[:, :2] == GREY).all() and (sheet[:, 26:28] == GREY).all()
    assert (sheet[2:10, 2:10] == pixels[0, 0, 0]).all()
    assert (sheet[10:18, 18:26] == pixels[0, 1, 2]).all()
    assert (sheet[2:10, 28:36] == pixels[1, 0, 0]).all()
    assert (sheet[20:28, 2:10] == pixels[2, 0, 0]).all()
    assert (sheet[20:, 28:] == GREY).all()  # no fourth


@pytest.mark.parametrize(
    ("num", "side", "scale", "columns"), [(64, 28, 4, 8), (64, 32, 3, 8), (1, 28, 8, 1), (10, 256, 1, 4)]
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


def test_animation_read_back():
    frames = [np.full((4, 8, 8, 1), 60 * index, np.uint8) for index in range(5)]
    with Image.open(io.BytesIO(animation(frames))) as gif:
        assert gif.format == "GIF" and gif.info["loop"] == 0
        read = [(frame.info["duration"], frame.convert("L").getpixel((5, 5))) for frame in ImageSequence.Iterator(gif)]
        assert gif.size == contact_sheet(frames[0]).size
    assert [duration for duration, _ in read] == [80] * 4 + [2000]
    assert [tone for _, tone in read] == [0, 60, 120, 180, 240]
