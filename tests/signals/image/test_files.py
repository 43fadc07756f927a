from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqkit.errors import VqkitError
from vqkit.signals.image.files import fit_image, load_image, patches, survey_file
from vqkit.signals.image.ranges import ValueRange


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "jpeg":  # as near to the original as JPEG comes: colours at full resolution
        options = {"quality": 95, "subsampling": 0, **options}
    elif kind == "webp":
        options = {"lossless": True, **options}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def close(left: np.ndarray, right: np.ndarray, tolerance: float) -> bool:
    return (
        left.shape == right.shape
        and np.abs(left.astype(int) - right.astype(int)).mean() <= tolerance
    )


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "tiff", "ppm", "tga", "jpeg2000"])
def test_lossless_rgb_comes_back(astronaut: Image.Image, kind: str) -> None:
    assert np.array_equal(load_image(encoded(astronaut, kind)), np.asarray(astronaut))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "png"), ("1", "png"), ("P", "png"), ("CMYK", "tiff"), ("YCbCr", "jpeg")],
)
def test_modes_reach_grey_and_rgb(astronaut: Image.Image, mode: str, kind: str) -> None:
    stored = encoded(astronaut.convert(mode), kind)
    rgb, grey = load_image(stored, 3), load_image(stored, 1)
    assert rgb.shape == (64, 64, 3) and grey.shape == (64, 64, 1) and rgb.dtype == np.uint8
    expected = np.asarray(astronaut.convert(mode).convert("RGB"))
    assert close(rgb, expected, 3 if kind == "jpeg" else 0)
    assert close(grey[:, :, 0], np.asarray(Image.fromarray(rgb).convert("L")), 0.51)


def test_cmyk_jpeg_keeps_its_colours(astronaut: Image.Image) -> None:
    assert close(load_image(encoded(astronaut.convert("CMYK"), "jpeg")), np.asarray(astronaut), 4)


def test_lab_becomes_rgb() -> None:
    lab = Image.new("LAB", (4, 4), (200, 128, 128))  # L* 78, neutral: a grey
    pixel = load_image(encoded(lab, "tiff"))[0, 0].astype(int)
    assert abs(pixel - 193).max() <= 3


def test_sixteen_bits_use_their_full_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = np.rint(ramp / 257)  # 65535 = 255 * 257
    for stored in (encoded(Image.fromarray(ramp), "png"), encoded(Image.fromarray(ramp), "tiff")):
        assert np.array_equal(load_image(stored, 1)[:, :, 0], expected)
    pgm = b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes()
    assert np.array_equal(load_image(pgm, 1)[:, :, 0], expected)


def png16(kind: int, values: int) -> bytes:
    """A PNG of 2 x 2 pixels of 16 bits, of a colour type with so many values a pixel; Pillow writes
    none.
    """
    rows = (b"\0" + bytes(range(4 * values))) * 2

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette(*colours: tuple[int, ...]) -> Image.Image:
    """A palette image of as many pixels as colours."""
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(range(len(colours)))
    return image


@pytest.mark.parametrize(
    ("stored", "channels", "words"),
    [
        (png16(0, 1), 1, "16-bit, .* 8-bit grey only"),
        (png16(2, 3), 3, "16-bit RGB, .* 8-bit RGB only"),
        (png16(6, 4), 4, "16-bit RGBA"),
        (b"P6 1 1 65535\n" + bytes(6), 3, "16-bit RGB"),
        (b"P5 1 1 65535\n" + bytes(2), 3, "16-bit"),
        (encoded(Image.new("RGB", (2, 2)), "jpeg2000"), 3, "JPEG2000"),
        (encoded(Image.new("F", (2, 2)), "tiff"), 1, "of mode F"),
        (encoded(Image.new("CMYK", (2, 2)), "tiff"), 3, "of mode CMYK"),
        (encoded(Image.new("RGB", (2, 2), (7, 7, 8)), "png"), 1, "8-bit RGB, .* 8-bit grey only"),
        (encoded(Image.new("RGBA", (2, 2)), "png"), 1, "8-bit RGBA"),
        (encoded(Image.new("RGBA", (2, 2)), "png"), 3, "8-bit RGBA, .* 8-bit RGB only"),
        (encoded(Image.new("LA", (2, 2)), "png"), 1, "8-bit grey with alpha, .* 8-bit grey only"),
        (
            encoded(Image.new("RGB", (2, 2)), "png", transparency=(0, 0, 0)),
            3,
            "8-bit RGB with transparency",
        ),
        (encoded(palette((9, 9, 9), (1, 2, 3)), "png"), 1, "palette"),
        (
            encoded(palette((9, 9, 9), (1, 2, 3)), "png", transparency=1),
            3,
            "palette with transparency",
        ),
    ],
)
def test_what_would_lose_anything_is_refused_where_all_must_come_back(
    stored: bytes, channels: int, words: str
) -> None:
    assert load_image(stored, channels).shape[2] == channels
    with pytest.raises(VqkitError, match=words):
        load_image(stored, channels, exact=True)


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (Image.new("1", (3, 2), 1), 1),
        (Image.new("L", (3, 2), 77), 3),
        (palette((9, 9, 9), (200, 200, 200)), 1),
        (palette((9, 8, 7), (1, 2, 3)), 3),
        (Image.new("RGBA", (3, 2), (1, 2, 3, 4)), 4),
        (Image.new("LA", (3, 2), (1, 2)), 2),
        (Image.new("RGBA", (3, 2), (1, 2, 3, 255)), 3),
        (Image.new("LA", (3, 2), (1, 255)), 1),
        (Image.new("RGB", (3, 2), (7, 7, 7)), 1),
    ],
)
def test_what_loses_nothing_passes_where_all_must_come_back(
    image: Image.Image, channels: int
) -> None:
    found = load_image(encoded(image, "png"), channels, exact=True)
    back = Image.fromarray(found[:, :, 0] if channels == 1 else found)
    assert np.array_equal(back.convert("RGBA"), image.convert("RGBA"))


def test_floats_by_their_range() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for scale, known in (
        (1, None),
        (255, ValueRange(0, 255)),
        (7, ValueRange(0, 7)),
        (1e6, ValueRange(0, 1e6)),
    ):
        stored = encoded(Image.fromarray(ramp * np.float32(scale)), "tiff")
        assert np.array_equal(load_image(stored, 1, value_range=known)[:, :, 0], expected)


def test_an_image_is_never_scaled_by_its_own_maximum() -> None:
    """The same value is the same level in a dark image and in a bright one."""
    known = ValueRange(0, 4095)
    dark = np.full((4, 4), 100, dtype=np.uint16)
    bright = dark.copy()
    bright[0] = 4095
    for kind in (np.uint16, np.int32, np.float32):
        levels = [
            load_image(encoded(Image.fromarray(values.astype(kind)), "tiff"), 1, value_range=known)[
                3, 3, 0
            ]
            for values in (dark, bright)
        ]
        assert levels == [6, 6]  # 100 / 4095 * 255 = 6.2


def test_values_outside_of_the_range() -> None:
    """A few are clipped, as hot pixels are.

    More are of another kind, unless the user chose the range.
    """
    values = np.full((20, 20), 2000, dtype=np.uint16)
    values[0, :4] = 60000
    few = encoded(Image.fromarray(values), "png")
    found = load_image(few, 1, value_range=ValueRange(0, 4095))
    assert found[0, 0, 0] == 255 and found[5, 5, 0] == round(2000 / 4095 * 255)
    values[:2] = 60000
    many = encoded(Image.fromarray(values), "png")
    with pytest.raises(VqkitError, match=r"2000 to 60000.*10% .*0 to 4095"):
        load_image(many, 1, value_range=ValueRange(0, 4095))
    window = load_image(many, 1, value_range=ValueRange(1000, 3000, chosen=True))
    assert window[0, 0, 0] == 255 and window[5, 5, 0] == 128


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN"), (1000.0, "1000"), (-1.0, "-1")])
def test_floats_without_a_known_range_are_refused(value: float, words: str) -> None:
    values = np.full((4, 4), value, dtype=np.float32)
    with pytest.raises(VqkitError, match=words):
        load_image(encoded(Image.fromarray(values), "tiff"))


def test_32_bit_integers_beyond_16_bits_are_refused() -> None:
    with pytest.raises(VqkitError, match="70000"):
        load_image(encoded(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "tiff"), 1)


def half_transparent() -> Image.Image:
    """Left half opaque red, right half fully transparent green."""
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((0, 255, 0, 0), (4, 0, 8, 4))
    return image


def test_alpha_shows_the_background() -> None:
    pixels = load_image(encoded(half_transparent(), "png"), 3, (10, 20, 30))
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[0, 7].tolist() == [10, 20, 30]


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept_when_asked(channels: int) -> None:
    pixels = load_image(encoded(half_transparent(), "png"), channels)
    assert pixels.shape[2] == channels and pixels[0, 0, -1] == 255 and pixels[0, 7, -1] == 0


def test_opaque_pictures_get_full_alpha(astronaut: Image.Image) -> None:
    pixels = load_image(encoded(astronaut, "png"), 4)
    assert (pixels[:, :, 3] == 255).all() and np.array_equal(
        pixels[:, :, :3], np.asarray(astronaut)
    )


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (2, 0, 4, 4))
    pixels = load_image(encoded(palette, "png", transparency=1), 3, (9, 9, 9))
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[0, 3].tolist() == [9, 9, 9]


def test_grey_with_alpha_and_grey_with_a_transparent_value() -> None:
    faded = Image.new("LA", (2, 2), (100, 0))
    assert load_image(encoded(faded, "png"), 1, (50, 50, 50))[0, 0, 0] == 50
    keyed = Image.new("L", (2, 2), 100)
    assert load_image(encoded(keyed, "png", transparency=100), 1, (50, 50, 50))[0, 0, 0] == 50


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(astronaut: Image.Image, orientation: int, kind: str) -> None:
    """All eight ways of storing an upright image give the upright image, and the probed size
    agrees.
    """
    upright = astronaut.crop((0, 0, 64, 40))
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][
        orientation
    ]  # Image.Transpose that stores the upright image turned
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, kind, exif=exif)
    assert survey_file(io.BytesIO(content)).headers[0].size == (40, 64)
    assert close(load_image(content), np.asarray(upright), 3 if kind == "jpeg" else 0)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert load_image(content)[0, 0].tolist() == [255, 0, 0]


def test_errors_name_the_file(tmp_path: Path, astronaut: Image.Image) -> None:
    with pytest.raises(VqkitError, match="nothing.png: there is no such file"):
        load_image(tmp_path / "nothing.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded(astronaut, "png")[:2000])
    with pytest.raises(VqkitError, match="broken.png"):
        load_image(broken)
    with pytest.raises(VqkitError, match="not an image"):
        load_image(b"hello")


def test_documents_under_the_name_of_a_picture_are_not_run(
    tmp_path: Path, astronaut: Image.Image
) -> None:
    (tmp_path / "image.png").write_bytes(encoded(astronaut.resize((8, 8)), "eps"))
    with pytest.raises(VqkitError, match="image.png: not an image"):
        load_image(tmp_path / "image.png")
    with pytest.raises(Image.UnidentifiedImageError), (tmp_path / "image.png").open("rb") as file:
        survey_file(file)


def bomb(side: int = 20000) -> bytes:
    """A PNG of a few bytes that promises side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10000, 20000])  # Pillow warns at the first and refuses the second
def test_decompression_bombs_are_refused(side: int) -> None:
    with pytest.raises(VqkitError, match="decompression bomb"):
        load_image(bomb(side))


def test_crop_cuts_the_middle_exactly(astronaut: Image.Image) -> None:
    wide = astronaut.crop((0, 0, 64, 32))
    assert np.array_equal(np.asarray(fit_image(wide, (32, 32))), np.asarray(astronaut)[:32, 16:48])


def test_crop_keeps_shapes_and_resize_squeezes(astronaut: Image.Image) -> None:
    wide = astronaut.crop((0, 0, 64, 32))
    cropped = np.asarray(fit_image(wide, (16, 16), "crop"))
    expected = np.asarray(
        astronaut.crop((16, 0, 48, 32)).resize((16, 16), Image.Resampling.LANCZOS)
    )
    assert close(cropped, expected, 2)  # the filter sees the pixels outside the window
    squeezed = np.asarray(fit_image(wide, (16, 16), "resize"))
    assert np.array_equal(squeezed, np.asarray(wide.resize((16, 16), Image.Resampling.LANCZOS)))


def test_shrinking_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], dtype=np.uint8), (64, 32)))
    small = np.asarray(fit_image(stripes, (8, 8))).astype(int)
    assert abs(small - 127.5).max() < 8


def test_transparent_colours_do_not_bleed_when_scaled() -> None:
    small = np.asarray(fit_image(half_transparent(), (2, 4)))
    visible = small[small[:, :, 3] > 0]
    assert (visible[:, 1] == 0).all()  # no green from the transparent half


def test_patches_tile_the_picture(astronaut: Image.Image) -> None:
    pixels = np.asarray(astronaut)
    cut, places = patches(pixels[:60], (16, 32))
    assert cut.shape == (6, 16, 32, 3) and places[:3] == ["0,0", "0,32", "16,0"]
    assert np.array_equal(cut[3], pixels[16:32, 32:64])
