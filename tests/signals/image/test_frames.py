"""Files with several pages or frames."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import ImageData, open_images

COUNT = 5


def stack(pictures: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.fromarray(pixels) for pixels in pictures]
    how = {"webp": {"lossless": True}, "gif": {"disposal": 2}}.get(kind, {})
    first.save(file, kind, save_all=True, append_images=others, **how)
    return file.getvalue()


def write_stacks(pictures: np.ndarray, folder: Path, kind: str, count: int = 12) -> None:
    for number in range(count):
        (folder / f"{number:02}.{kind}").write_bytes(
            stack(pictures[COUNT * number : COUNT * (number + 1)], kind)
        )


def homes(data: ImageData) -> dict[str, set[str]]:
    """File -> the splits that its images lie in."""
    found: dict[str, set[str]] = {}
    for split, indices in data.splits.items():
        for index in indices.tolist():
            found.setdefault(data.names[index].split(":")[0], set()).add(split)
    return found


@pytest.mark.parametrize("kind", ["tiff", "png", "webp", "gif"])
@pytest.mark.parametrize("memory", [1024, 1])
def test_all_frames_in_one_split(
    pictures: np.ndarray, tmp_path: Path, kind: str, memory: int
) -> None:
    write_stacks(pictures, tmp_path, kind)
    side = 32 if memory > 1 else 128
    config = DataConfig(
        frames="all", validation=0.25, test=0.25, max_memory_mb=memory, image_size=(side, side)
    )
    data = open_images(tmp_path, config, seed=0)
    assert data.in_memory == (memory > 1)
    assert len(data) == 12 * COUNT and data.names[7] == f"01.{kind}:2"
    assert all(len(splits) == 1 for splits in homes(data).values())
    assert [sum(split in splits for splits in homes(data).values()) for split in data.splits] == [
        6,
        3,
        3,
    ]
    assert f"{12 * COUNT} images lie in 12 files" in " ".join(data.notes)
    if memory > 1:
        read = data.read(range(len(data))).values.permute(0, 2, 3, 1).numpy().astype(int)
        error = np.abs(read - pictures[: 12 * COUNT].astype(int)).mean()
        # A GIF has 256 colours.
        assert error == 0 if kind != "gif" else error < 3


@pytest.mark.parametrize("kind", ["tiff", "png", "webp", "gif"])
def test_the_first_alone_is_said(pictures: np.ndarray, tmp_path: Path, kind: str) -> None:
    write_stacks(pictures, tmp_path, kind)
    data = open_images(tmp_path, DataConfig(), seed=0)
    assert len(data) == 12
    assert (
        f"12 files hold {12 * COUNT} images; the first of each is used, data.frames=all"
        in " ".join(data.notes)
    )


def test_files_with_an_image_in_common_stay_together(pictures: np.ndarray, tmp_path: Path) -> None:
    """Chains, too: 00 shares one page with 01, which shares another with 02."""
    for number in range(20):
        pages = pictures[3 * number : 3 * number + 3].copy()
        if number in (1, 2):
            pages[0] = pictures[3 * number - 1]
        (tmp_path / f"{number:02}.tiff").write_bytes(stack(pages, "tiff"))
    for seed in range(4):
        data = open_images(tmp_path, DataConfig(frames="all", validation=0.3, test=0.3), seed)
        assert len(set.union(*(homes(data)[f"{number:02}.tiff"] for number in range(3)))) == 1


def test_frames_of_one_file_and_of_parquet(pictures: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "x.tiff").write_bytes(stack(pictures[:COUNT], "tiff"))
    first = open_images(tmp_path / "x.tiff", DataConfig(image_size=(8, 8)), seed=0)
    assert len(first) == 16 and f"holds {COUNT} images; the first is used" in first.notes[0]
    every = open_images(tmp_path / "x.tiff", DataConfig(image_size=(8, 8), frames="all"), seed=0)
    place = list(every.names).index("x.tiff:3:8,16")
    assert len(every) == 16 * COUNT
    assert np.array_equal(
        every.read([place]).values[0].permute(1, 2, 0).numpy(), pictures[3, 8:16, 16:24]
    )
    contents = [
        stack(pictures[COUNT * number : COUNT * (number + 1)], "tiff") for number in range(6)
    ]
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), tmp_path / "x.parquet")
    data = open_images(
        tmp_path / "x.parquet", DataConfig(frames="all", validation=0.2, test=0.2), seed=0
    )
    assert np.array_equal(data.read(range(30)).values.permute(0, 2, 3, 1).numpy(), pictures[:30])


def test_pages_of_other_modes_and_sizes(pictures: np.ndarray, tmp_path: Path) -> None:
    pages = [
        Image.fromarray(pictures[0]),
        Image.fromarray(pictures[1]).resize((40, 24)),
        Image.new("L", (32, 32), 9),
    ]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    for number in range(3):
        Image.fromarray(pictures[number + 2]).save(tmp_path / f"{number}.png")
    data = open_images(
        tmp_path, DataConfig(frames="all", image_size=(32, 32), validation=0.2, test=0), seed=0
    )
    assert data.modes == {"RGB": 5, "L": 1} and data.sizes == {"32x32": 5, "40x24": 1}


def test_a_wide_page_anywhere_counts_for_the_range(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pages = [
        Image.fromarray(random.integers(0, high, (16, 16)).astype(np.uint16))
        for high in (100, 1000, 4000)
    ]
    for number in range(4):
        pages[0].save(tmp_path / f"{number}.tiff", save_all=True, append_images=pages[1:])
        pages = [page.rotate(90) for page in pages]
    first = open_images(tmp_path, DataConfig(validation=0, test=0), seed=0)
    every = open_images(tmp_path, DataConfig(frames="all", validation=0, test=0), seed=0)
    assert first.describe()["value_range"] == [0, 255] and every.describe()["value_range"] == [
        0,
        4095,
    ]
