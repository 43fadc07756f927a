"""Other codecs of images at the size of a file."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from vqkit.signals.image.peers import of_size
from vqkit.signals.image.signal import IMAGE


def saved(image: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality, **({"optimize": True} if kind == "JPEG" else {}))
    return buffer.getvalue()


def test_each_codec_has_the_best_quality_that_fits(emoji):
    values = next(iter(emoji.split("test", 1))).values[0]
    # Larger, so that qualities differ in their bytes.
    values = values.repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = Image.fromarray(values.movedim(0, -1).numpy())
    found = {one.name: one for one in of_size(values, 2500)}
    assert {"JPEG", "WebP"} <= set(found) <= {"JPEG", "WebP", "AVIF"}
    for name, kind in (("JPEG", "JPEG"), ("WebP", "WEBP")):
        fitting = [q for q in range(1, 101) if len(saved(image, kind, q)) <= 2500]
        content = saved(image, kind, max(fitting))
        assert found[name].num_bytes == len(content)
        decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert np.array_equal(found[name].values.movedim(0, -1).numpy(), decoded)


def test_where_nothing_fits_the_smallest_file_is_taken_in_grey_and_colour(emoji):
    values = next(iter(emoji.split("test", 1))).values[0]
    for given in (values, values[:1]):
        for one in IMAGE.beside(given, 10, {}):
            assert one.num_bytes > 10
            assert one.values.shape == given.shape and one.values.dtype == torch.uint8
