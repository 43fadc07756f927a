from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqkit.errors import VqkitError
from vqkit.signals.image.config import AugmentConfig, DataConfig
from vqkit.signals.image.source import ImageData, open_images

AUGMENT = AugmentConfig(shift=2, flip=True, crop=0.8, colour=0.2)
MEMORY = DataConfig(augment=AUGMENT)
STREAM = DataConfig(augment=AUGMENT, max_memory_mb=1, num_workers=0)
WORKERS = DataConfig(augment=AUGMENT, max_memory_mb=1, num_workers=2)


@pytest.fixture(scope="module")
def data(folder: Path) -> ImageData:
    return open_images(folder, MEMORY, seed=0)


@pytest.fixture(scope="module")
def streamed(folder: Path) -> ImageData:
    return open_images(folder, STREAM, seed=0)


def changed(data: ImageData, config: DataConfig) -> ImageData:
    """The same images under other settings of augmentation and workers."""
    data = copy.copy(data)
    data.settings = config
    data.num_workers = config.num_workers
    return data


def take(
    data: ImageData,
    count: int,
    config: DataConfig = MEMORY,
    size: int = 64,
    step: int = 0,
    seed: int = 5,
    **ranks: int,
) -> list[torch.Tensor]:
    batches = changed(data, config).train(step, size, seed, **ranks)
    return [batch.values for batch in islice(batches, count)]


def split_batches(
    data: ImageData, name: str, size: int, workers: int = 0
) -> list[tuple[np.ndarray, torch.Tensor]]:
    """Numbers and values of the batches of a split."""
    reader = copy.copy(data)
    reader.num_workers = workers
    return [(batch.ids, batch.values) for batch in reader.split(name, size)]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


def test_order_is_a_function_of_seed_and_step(data: ImageData) -> None:
    torch.manual_seed(1)
    first = take(data, 8)
    torch.manual_seed(2)
    assert same(first, take(data, 8)) and not same(first, take(data, 8, seed=6))
    assert first[0].shape == (64, 3, 32, 32) and first[0].dtype == torch.uint8


@pytest.mark.parametrize(
    "start", [1, 3, 5, 6, 50]
)  # 360 images: the first epoch ends inside step 5
def test_resuming_continues_the_same_order(data: ImageData, start: int) -> None:
    assert same(take(data, start + 3)[start:], take(data, 3, step=start))


def test_every_image_once_per_epoch(data: ImageData) -> None:
    plain = torch.cat(take(data, 90, DataConfig(), size=8))  # 720 images: two epochs
    train = {image.numpy().tobytes() for image in data.read(data.splits["train"]).values}
    epochs = [
        [image.numpy().tobytes() for image in plain[start : start + 360]] for start in (0, 360)
    ]
    assert (
        set(epochs[0]) == set(epochs[1]) == train and len(train) == 360 and epochs[0] != epochs[1]
    )


def test_batches_larger_than_the_set(data: ImageData) -> None:
    (batch,) = take(data, 1, DataConfig(), size=800)
    assert batch.shape[0] == 800 and torch.equal(
        batch[:360], torch.cat(take(data, 45, DataConfig(), size=8))
    )


@pytest.mark.parametrize("config", [MEMORY, STREAM])
def test_two_ranks_see_what_one_would(
    data: ImageData, streamed: ImageData, config: DataConfig
) -> None:
    chosen = data if config is MEMORY else streamed
    ranks = [take(chosen, 4, config, step=3, rank=rank, ranks=2) for rank in range(2)]
    assert same([torch.cat(parts) for parts in zip(*ranks, strict=True)], take(data, 4, step=3))
    with pytest.raises(VqkitError, match="multiple of the 3 processes"):
        take(data, 1, ranks=3)


@pytest.mark.parametrize("config", [STREAM, WORKERS])
def test_streaming_equals_memory_bit_for_bit(
    data: ImageData, streamed: ImageData, config: DataConfig
) -> None:
    assert (
        data.in_memory and not streamed.in_memory and streamed.normalisation == data.normalisation
    )
    assert all(np.array_equal(data.splits[name], streamed.splits[name]) for name in data.splits)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert same(take(data, 7, step=2), take(streamed, 7, config, step=2))
    for workers in (0, config.num_workers):
        pairs = split_batches(streamed, "validation", 7, workers)
        assert [len(indices) for indices, _ in pairs] == [7, 7, 6]
        assert np.array_equal(
            np.concatenate([indices for indices, _ in pairs]), data.splits["validation"]
        )
        assert torch.equal(
            torch.cat([images for _, images in pairs]), data.read(data.splits["validation"]).values
        )
    assert torch.equal(torch.get_rng_state(), before)  # the global generator belongs to the caller


def test_split_batches_from_memory(data: ImageData) -> None:
    pairs = split_batches(data, "test", 12)
    assert [images.shape[0] for _, images in pairs] == [12, 8]
    assert torch.equal(pairs[1][1], data.read(data.splits["test"][12:]).values)
    empty = open_images("digits", DataConfig(validation=0), seed=0)
    assert split_batches(empty, "validation", 12) == []


def whole_folder(pictures: np.ndarray, folder: Path) -> None:
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:03}.png", compress_level=1)


def damage(folder: Path, names: list[str]) -> None:
    """Break the pixels of files that were whole when the folder was opened."""
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_fail_on_the_way_are_replaced_and_noted(
    pictures: np.ndarray, tmp_path: Path, workers: int
) -> None:
    broken = [f"{number:03}.png" for number in (7, 8, 9, 200)]
    whole_folder(pictures, tmp_path)
    config = DataConfig(max_memory_mb=1, num_workers=workers, validation=0.2, test=0)
    data = open_images(tmp_path, config, seed=0)
    damage(tmp_path, broken)
    assert len(data) == 400
    runs = [torch.cat(take(data, 5, config)) for _ in range(2)]
    assert torch.equal(*runs) and runs[0].shape[0] == 320
    seen = {image.permute(1, 2, 0).numpy().tobytes() for image in runs[0]}
    assert seen <= {pixels.tobytes() for pixels in pictures}
    shown = np.concatenate(
        [indices for indices, _ in split_batches(data, "validation", 16, workers)]
    )
    missing = {
        data.names[index] for index in set(data.splits["validation"].tolist()) - set(shown.tolist())
    }
    assert {bad.name for bad in data.bad} == set(broken) and missing <= set(broken)
    assert len(shown) + len(missing) == 80
    with pytest.raises(VqkitError, match="007.png"):
        data.read([7])


def test_too_many_failures_on_the_way_stop(pictures: np.ndarray, tmp_path: Path) -> None:
    whole_folder(pictures, tmp_path)
    config = DataConfig(max_memory_mb=1, num_workers=0)
    data = open_images(tmp_path, config, seed=0)
    damage(tmp_path, [f"{number:03}.png" for number in range(100)])
    with pytest.raises(VqkitError, match="more than 5 %"):
        take(data, 100, config)
