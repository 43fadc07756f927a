"""Stages on grids of several resolutions: where codes lie, what a stage sees of coarser ones, and
what that saves.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.coding.test_integer_prior import random_prior
from vqkit.coding import CorruptCodes, MixingCoder
from vqkit.coding.codes import mixing, transformer_coder
from vqkit.coding.grids import beside, finer, join, split
from vqkit.model.quantizers.cells import fold, unfold

SIZES = (40, 12, 25)
SIDES = (1, 2, 4)
GRIDS = [(5,), (3, 2), (1, 1), (2, 1, 2)]


def random_codes(count, grid, sizes=SIZES, sides=SIDES, seed=0):
    """(N, Q, *grid)"""
    rng = np.random.default_rng(seed)
    parts = []
    for size, side in zip(sizes, sides, strict=True):
        parts.append(rng.integers(0, size, (count, side ** len(grid), *grid)))
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("grid", GRIDS)
def test_codes_lie_as_quantizers_lay_them(grid):
    codes = random_codes(3, grid)
    stages = split(codes, SIDES)
    counts = [side ** len(grid) for side in SIDES]
    for stage, part, side in zip(
        stages, torch.from_numpy(codes).split(counts, 1), SIDES, strict=True
    ):
        expected = unfold(part, side)
        assert np.array_equal(stage, expected[:, 0])
        assert np.array_equal(join([stage], [side], grid), fold(expected, side))
    assert np.array_equal(join(stages, SIDES, grid), codes)
    assert np.array_equal(join(stages[:2], SIDES, grid), codes[:, : sum(counts[:2])])


def test_a_part_of_a_stage_is_refused():
    codes = random_codes(1, (2, 2))
    for wrong in (codes[:, :4], np.concatenate([codes, codes[:, :1]], 1)):
        with pytest.raises(ValueError, match="codes a cell"):
            split(wrong, SIDES)


def test_what_a_stage_sees_of_a_coarser_one():
    coarse = np.arange(4).reshape(1, 2, 2)
    assert np.array_equal(finer(coarse, 2)[0], np.kron(coarse[0], np.ones((2, 2), int)))
    fine = np.arange(16).reshape(1, 4, 4)
    seen = beside([coarse, fine], (1, 2))
    assert seen.shape == (1, 2, 4, 4)
    assert np.array_equal(seen[0, 0], finer(coarse, 2)[0]) and np.array_equal(seen[0, 1], fine[0])
    volume = np.arange(2).reshape(1, 1, 1, 2)
    assert beside([volume, finer(volume, 2)], (1, 2))[0, 0].tolist() == [[0, 0, 1, 1]] * 4


def coders():
    mixing = MixingCoder(SIZES, sides=SIDES)
    transformer = replace(random_prior(SIZES, grid=(12, 8)), sides=SIDES)
    return {"mixing": mixing, "transformer": transformer}


@pytest.mark.parametrize("has_numba", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["mixing", "transformer"])
def test_every_stage_comes_back_and_the_first_ones_alone(name, grid, has_numba, monkeypatch):
    coder = coders()[name]
    codes = random_codes(2, grid)
    expected = coder.encode(codes)
    if not has_numba:
        monkeypatch.setattr("vqkit.coding.kernels.load", lambda name: None)
    payloads = coder.encode(codes)
    assert payloads == expected and [len(item) for item in payloads] == [3, 3]
    assert np.array_equal(coder.decode(payloads, grid), codes)
    for count in (1, 2):
        first = [item[:count] for item in payloads]
        num_codes = sum(side ** len(grid) for side in SIDES[:count])
        assert np.array_equal(coder.decode(first, grid), codes[:, :num_codes])


@pytest.mark.parametrize("has_numba", [True, False])
@pytest.mark.parametrize("name", ["mixing", "transformer"])
def test_a_row_in_parts_has_the_bytes_of_the_whole(name, has_numba, monkeypatch):
    """Parts of a prime number of slots, so that they cut through cells; attention reaches farther
    back than a part.
    """
    coder = coders()[name]
    codes = random_codes(2, (40,))
    whole = coder.encode(codes)
    if not has_numba:
        monkeypatch.setattr("vqkit.coding.kernels.load", lambda name: None)
    monkeypatch.setattr(transformer_coder, "WINDOW_SLOTS", 7)
    monkeypatch.setattr(mixing, "TOGETHER", 7)
    assert coder.encode(codes) == whole
    assert np.array_equal(coder.decode(whole, (40,)), codes)
    # Bytes that end too soon are refused where they end.
    with pytest.raises(CorruptCodes):
        coder.decode([[part[: len(part) // 2] for part in whole[0]]], (40,))


def test_a_transformer_of_the_first_stages_writes_their_bytes():
    coder = coders()["transformer"]
    codes = random_codes(2, (2, 3))
    first = coder.first(2).encode(codes[:, :5])
    assert first == [item[:2] for item in coder.encode(codes)]


@pytest.mark.parametrize("has_numba", [True, False])
def test_codes_are_chosen_grid_by_grid(has_numba, monkeypatch):
    """Every choice against the cost of each code under what was chosen before it, the codes of the
    coarser positions among it.
    """
    if not has_numba:
        monkeypatch.setattr("vqkit.coding.kernels.load", lambda name: None)
    coder = coders()["transformer"]
    grid = (2, 1)
    rng = np.random.default_rng(1)
    far = [rng.random((2, 2 * side**2, size)) for size, side in zip(SIZES, SIDES, strict=True)]
    shown = {}

    def distances(items, before, slots):
        number = before.shape[1]
        for item, codes in zip(range(items.start, items.stop), before, strict=True):
            shown[number, item] = codes.copy()
        return far[number][items, slots]

    codes = coder.assign(distances, 2, grid, 3, 0.1)
    stages = split(codes, SIDES)
    for number, stage in enumerate(stages):
        ((_, _, table),) = coder.tables(codes, number)
        cost = far[number] + 0.1 * (16 - np.log2(table))
        assert np.array_equal(stage.reshape(2, -1), cost.argmin(2))
    # The last stage was shown the codes of the positions that hold its own.
    for item in range(2):
        held = beside([one[item : item + 1] for one in stages], SIDES)[0, :2]
        assert np.array_equal(shown[2, item].reshape(2, 8, 4), held)


def test_a_coarse_code_tells_of_the_finer_ones():
    """Fine codes that follow from the coarse ones cost a fraction of what they do by themselves."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 16, (1, 24, 24))
    fine = finer(coarse, 2) * 7 % 16
    codes = join([coarse, fine], (1, 2), (24, 24))
    together = MixingCoder((16, 16), sides=(1, 2)).encode(codes)[0][1]
    alone = MixingCoder((16,)).encode(fine[:, None])[0][0]
    assert len(together) < 0.5 * len(alone)
