"""What the dimensions of an array are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqkit.errors import VqkitError
from vqkit.signals.image.arrays import arranged, layout_of
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images

KEEP_ALL = {"validation": 0.0, "test": 0.0}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((50, 8, 8), "NHW"),
        ((1, 64, 64), "NHW"),
        ((50, 8, 9, 3), "NHWC"),
        ((50, 8, 9, 1), "NHWC"),
        ((50, 3, 9, 8), "NCHW"),
        ((4, 8, 9, 3), "NHWC"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_clear_shapes_are_read_and_said(
    tmp_path: Path, shape: tuple[int, ...], layout: str, suffix: str
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    np.save(path, values) if suffix == "npy" else np.savez_compressed(path, values)
    data = open_images(path, DataConfig(**KEEP_ALL), seed=0)
    images = values if "C" in layout else values[..., None]
    expected = images.transpose(0, 3, 1, 2) if layout != "NCHW" else images
    assert np.array_equal(data.read(range(len(data))).values.numpy(), expected)
    assert (
        f"is read as {layout}" in data.notes[0]
        and f"of {expected.shape[3]}x{expected.shape[2]} " in data.notes[0]
    )


@pytest.mark.parametrize(
    ("shape", "choices"),
    [
        ((64, 64, 3), {"NHW", "HWC"}),
        ((64, 64, 1), {"NHW", "HWC"}),
        ((3, 64, 64), {"NHW", "CHW"}),
        ((4, 64, 3), {"NHW", "HWC", "CHW"}),
        ((50, 3, 64, 3), {"NHWC", "NCHW"}),
    ],
)
def test_ambiguous_shapes_ask(tmp_path: Path, shape: tuple[int, ...], choices: set[str]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(VqkitError) as caught:
        open_images(tmp_path / "x.npy", DataConfig(**KEEP_ALL), seed=0)
    offered = {
        name
        for name in ("NHW", "HWC", "CHW", "NHWC", "NCHW")
        if f"data.layout={name}:" in str(caught.value)
    }
    assert offered == choices
    for layout in choices:
        size = dict(zip(layout, shape, strict=True))
        data = open_images(tmp_path / "x.npy", DataConfig(layout=layout, **KEEP_ALL), seed=0)  # type: ignore[arg-type]
        assert len(data) == size.get("N", 1) and data.shape.extent == (size["H"], size["W"])
        assert data.shape.channels == min(
            3, size.get("C", 1)
        )  # alpha is left out unless it is wanted


def test_arranged_by_index() -> None:
    """Every layout, element by element."""
    lengths = {"N": 2, "H": 5, "W": 6, "C": 3}
    for layout in ("NHW", "NHWC", "NCHW", "HWC", "CHW"):
        values = np.arange(np.prod([lengths[name] for name in layout])).reshape(
            [lengths[name] for name in layout]
        )
        images = arranged(values, layout)
        for place in np.ndindex(*values.shape):
            index = dict(zip(layout, place, strict=True))
            assert images[tuple(index.get(name, 0) for name in "NHWC")] == values[place]


def test_a_layout_that_does_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(VqkitError, match="data.layout=NHWC has 4 dimensions, the array has 3"):
        open_images(tmp_path / "x.npy", DataConfig(layout="NHWC"), seed=0)
    with pytest.raises(VqkitError, match="1 to 4 channels"):
        open_images(tmp_path / "x.npy", DataConfig(layout="HWC"), seed=0)
    with pytest.raises(VqkitError, match="1 to 4 channels"):
        layout_of((5, 7, 8, 9), "x")
