"""A model gives the same codes and values in other processes, in threads, and as a copy."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from vqkit.artifact.model import Model


@pytest.fixture(scope="module")
def images(emoji) -> np.ndarray:
    return emoji.read(emoji.splits["test"][:6]).values.permute(0, 2, 3, 1).contiguous().numpy()


def both(model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of images, and what they are decoded to."""
    torch.set_num_threads(1)
    codes = model.encode(images)
    return codes.numpy(), model.decode(codes)


def assert_same(found, expected) -> None:
    for one, two in zip(found, expected, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_give_what_this_one_gives(method, model, images):
    expected = both(model, images)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        for future in [pool.submit(both, model, images) for _ in range(2)]:
            assert_same(future.result(timeout=120), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_give_what_the_original_gives(copied, model, images):
    expected = both(model, images)
    twin = copied(model)
    assert_same(both(twin, images), expected)
    assert twin.content_id == model.content_id and twin.network is not model.network
    assert twin.compress(images[0]) == model.compress(images[0])


def test_threads_give_what_one_gives(model, images):
    """Eight at once, each on other images."""
    parts = [images[index % 6 :][:2] for index in range(8)]
    expected = [both(model, part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(
            pool.map(lambda part: both(model, part), parts), expected, strict=True
        ):
            assert_same(found, wanted)
