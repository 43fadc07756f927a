"""The integer prior on random weights: exact sums, proper frequencies, the same codes back."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from vqkit.coding.integer_prior import EXP2, MAX_FAN_IN, TOTAL, IntegerPrior, Stage, context_offsets, frequencies


def random_prior(sizes=(40, 12), grid=(3, 4), length=6, hidden=16, seed=0) -> IntegerPrior:
    """Weights over their whole range, so that every clip and rounding takes place."""
    rng = np.random.default_rng(seed)

    def bytes_of(*shape):
        return rng.integers(-127, 128, shape).astype(np.int8)

    def biases(*shape):
        return rng.integers(-(1 << 16), 1 << 16, shape).astype(np.int32)

    stages = [
        Stage(
            np.array(context_offsets(number)), bytes_of(len(context_offsets(number)) * length, hidden),
            biases(grid[0], hidden), biases(grid[1], hidden), bytes_of(hidden, hidden), biases(hidden),
            bytes_of(hidden, size), biases(size), (10, 9, 6),
        )
        for number, size in enumerate(sizes)
    ]  # fmt: skip
    return IntegerPrior(grid, [bytes_of(size + 1, length) for size in sizes], stages)


def random_codes(count, sizes=(40, 12), grid=(3, 4), seed=1):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, (count, *grid)) for size in sizes], 1)


@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (7, 5), (2, 9)])
def test_codes_come_back_in_batches_of_any_size_and_on_any_grid(grid):
    prior, codes = random_prior(), random_codes(9, grid=grid)
    payloads = prior.encode(codes)
    assert np.array_equal(prior.decode(payloads, grid), codes)
    for index in (0, 8):
        assert prior.encode(codes[index : index + 1]) == payloads[index : index + 1]
        assert np.array_equal(prior.decode(payloads[index : index + 1], grid)[0], codes[index])


def test_the_first_stages_alone_are_a_prefix():
    prior, codes = random_prior(), random_codes(3)
    first = [item[:1] for item in prior.encode(codes)]
    assert np.array_equal(prior.decode(first, (3, 4)), codes[:, :1])
    assert prior.decode([], (3, 4)).shape == (0, 0, 3, 4) and prior.encode(codes[:0]) == []


def test_sums_of_the_largest_numbers_are_exact():
    """In float32, whatever the order: the bound on the fan-in is what the format rests on."""
    rng = np.random.default_rng(0)
    left = rng.choice([-127, 127], (64, MAX_FAN_IN)).astype(np.float32)
    right = left[:32].T.copy()  # sums up to 127^2 * MAX_FAN_IN
    assert np.array_equal((left @ right).astype(np.int64), left.astype(np.int64) @ right.astype(np.int64))


def test_the_table_is_the_exponential_rounded_down():
    """v = floor(2^(30 - i/32)) for i < 32, in whole numbers: v^32 <= 2^(960 - i) < (v + 1)^32; then halves of it."""
    for index, value in enumerate(EXP2[:32].tolist()):
        assert value**32 <= 2 ** (960 - index) < (value + 1) ** 32
    assert all(EXP2[index] == EXP2[index % 32] >> index // 32 for index in range(len(EXP2) - 1)) and EXP2[-1] == 0


def test_frequencies_by_hand():
    """Logits 64, 32, 0 are 4 : 2 : 1 in TOTAL - 3 that are shared, one for each on top, the rest to the first."""
    shared = TOTAL - 3
    expected = [1 + int(Fraction(weight, 7) * shared) for weight in (4, 2, 1)]
    expected[0] += TOTAL - sum(expected)
    assert frequencies(np.array([[64, 32, 0]])).tolist() == [expected]
    assert frequencies(np.array([[0, 10_000]]))[0].tolist() == [1, TOTAL - 1]


def test_every_code_can_be_coded():
    found = frequencies(np.random.default_rng(0).integers(-3000, 3000, (50, 500)))
    assert found.min() >= 1 and (found.sum(1) == TOTAL).all()


def test_context_is_never_behind_the_slot_and_within_the_exact_fan_in():
    for stage in range(64):
        offsets = context_offsets(stage)
        assert len(set(offsets)) == len(offsets) and len(offsets) * 16 <= MAX_FAN_IN
        assert all((back, down, right) < (0, 0, 0) and stage + back >= 0 for back, down, right in offsets)


def test_wrong_bytes_give_codes_and_nothing_else():
    prior, rng = random_prior(), np.random.default_rng(0)
    payloads = [[rng.bytes(int(rng.integers(0, 40))) for _ in range(2)] for _ in range(200)]
    codes = prior.decode(payloads, (3, 4))
    assert (codes >= 0).all() and (codes[:, 0] < 40).all() and (codes[:, 1] < 12).all()


SCRIPT = """
import hashlib
from tests.coding.test_integer_prior import random_codes, random_prior
codes = random_codes(20, grid=(5, 5))
print(hashlib.sha256(repr(random_prior(length=32, hidden=200).encode(codes)).encode()).hexdigest())
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3"},
        {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    ],
)
def test_other_instruction_sets_write_the_same_bytes(settings, monkeypatch):
    def run():
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    usual = run()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run() == usual


def test_a_prior_comes_back_from_its_tensors_and_broken_ones_are_refused():
    prior, codes = random_prior(), random_codes(4)
    tensors = prior.tensors()
    assert IntegerPrior.from_tensors(tensors).encode(codes) == prior.encode(codes)
    behind = tensors["1.context"].copy()
    behind[0] = 0, 0, 1
    for name, value in {
        "1.context": behind,
        "0.first": tensors["0.first"][:-1],
        "0.last": tensors["0.last"].astype(np.int32),
        "0.second": np.full_like(tensors["0.second"], -128),
        "1.rows": tensors["1.rows"] + (1 << 22),
        "1.vectors": tensors["1.vectors"][:, :-1],
        "0.shifts": np.array([1, 2, 40], np.int8),
        "grid": np.array([0, 4], np.int32),
        "more": np.zeros(1, np.int8),
    }.items():
        with pytest.raises(ValueError):
            IntegerPrior.from_tensors({**tensors, name: value})
    for name in tensors:
        with pytest.raises(ValueError):
            IntegerPrior.from_tensors({key: value for key, value in tensors.items() if key != name})
