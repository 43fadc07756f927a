import io

import numpy as np
import pytest
from PIL import Image

from vqkit.report.images import (
    CODE_COLOUR,
    DEAD_COLOUR,
    code_map,
    comparison_sheet,
    png_bytes,
    to_image,
    with_palette,
)

from .summaries import images


def test_positions_by_hand():
    # three pairs of 2 x 3 pixels, scale 4, two columns: a pair is 12 wide and 8 + 2 + 8 high,
    # gutters are 6
    originals = np.zeros((3, 2, 3, 3), np.uint8)
    reconstructions = np.zeros_like(originals)
    originals[..., 0] = np.arange(10, 28).reshape(3, 2, 3)
    reconstructions[..., 1] = np.arange(110, 128).reshape(3, 2, 3)
    sheet = np.asarray(comparison_sheet(originals, reconstructions, columns=2, scale=4))
    assert sheet.shape == (6 + 2 * (18 + 6), 6 + 2 * (12 + 6), 3)
    assert (sheet[:6] == 255).all() and (sheet[:, :6] == 255).all() and (sheet[14:16] == 255).all()
    assert (sheet[6:10, 6:10] == [10, 0, 0]).all()  # first original, first pixel
    assert (sheet[10:14, 14:18] == [15, 0, 0]).all()  # its last pixel
    assert (sheet[16:20, 6:10] == [0, 110, 0]).all()  # the reconstruction below it
    assert (sheet[6:10, 24:28] == [16, 0, 0]).all()  # second pair, beside the first
    assert (sheet[30:34, 6:10] == [22, 0, 0]).all()  # third pair, in the next row
    assert (sheet[40:44, 10:14] == [0, 123, 0]).all()
    assert (sheet[30:, 24:] == 255).all()  # no fourth


def test_alpha_lies_on_a_checkerboard():
    clear, opaque = np.zeros((1, 16, 16, 4), np.uint8), np.full((1, 16, 16, 4), 255, np.uint8)
    opaque[..., 1:3] = 0
    sheet = np.asarray(comparison_sheet(clear, opaque, scale=1))
    assert (
        (sheet[6:14, 6:14] == 255).all()
        and (sheet[6:14, 14:22] == 208).all()
        and (sheet[14:22, 14:22] == 255).all()
    )
    assert (sheet[24:40, 6:22] == [255, 0, 0]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_channel_count_and_default_scale(channels):
    sheet = comparison_sheet(*images(3, channels), columns=8)
    assert sheet.mode == "RGB" and sheet.size == (6 + 3 * (96 + 6), 6 + 2 * 96 + 2 + 6)


def test_grey_with_half_alpha():
    pixels = np.full((1, 8, 8, 2), (0, 128), np.uint8)
    sheet = np.asarray(comparison_sheet(pixels, pixels, scale=1))
    assert np.abs(sheet[6, 6].astype(int) - 127).max() <= 1  # half black over white


def test_what_does_not_pair_is_refused():
    originals, reconstructions = images()
    with pytest.raises(ValueError, match="cannot pair"):
        comparison_sheet(originals, reconstructions[:3])
    with pytest.raises(ValueError, match="cannot pair"):
        comparison_sheet(originals[:0], reconstructions[:0])


SHAPES = [(2, 2, 1), (8, 4, 2), (500, 32, 16), (512, 32, 16), (262144, 1024, 256)]


@pytest.mark.parametrize(("size", "columns", "rows"), SHAPES)
def test_code_map(size, columns, rows):
    counts = np.arange(size)
    cells = np.asarray(code_map(counts))
    assert cells.shape == (rows, columns, 4)
    flat = cells.reshape(-1, 4)
    assert tuple(flat[0]) == (*DEAD_COLOUR, 255)
    assert tuple(flat[size - 1]) == (*CODE_COLOUR, 255)
    assert (flat[1:size, :3] == CODE_COLOUR).all() and (
        np.diff(flat[1:size, 3].astype(int)) >= 0
    ).all()
    assert (flat[size:, 3] == 0).all()


def test_drawings_of_few_colours_come_back_exactly_and_are_shorter():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (40, 3), dtype=np.uint8)
    drawing = colours[random.integers(0, 40, (32, 50)) // 4]
    image = with_palette(drawing)
    assert image.mode == "P" and (np.asarray(image.convert("RGB")) == drawing).all()
    back = Image.open(io.BytesIO(png_bytes(image)))
    assert (np.asarray(back.convert("RGB")) == drawing).all()
    assert len(png_bytes(image)) < len(png_bytes(to_image(drawing)))
    # 300 colours, and grey, stay as they are.
    many = np.arange(900, dtype=np.uint16).reshape(15, 20, 3).astype(np.uint8)
    many[..., 1] = np.arange(300).reshape(15, 20) // 256
    assert (np.asarray(with_palette(many)) == many).all() and with_palette(many).mode == "RGB"
    assert with_palette(drawing[..., :1]).mode == "L"
