"""The integer prior on random weights: exact sums, proper frequencies, the same codes back."""

import importlib.util
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vqkit.coding import CorruptCodes, kernels
from vqkit.coding.codes import transformer_coder
from vqkit.coding.codes.transformer import (
    EXP2,
    MAX_FAN_IN,
    TOTAL,
    StageTransformer,
    TransformerLayer,
    frequencies,
    normalised,
)
from vqkit.coding.codes.transformer_coder import TransformerCoder, context_offsets


def random_prior(
    sizes=(40, 12), grid=(3, 4), length=6, channels=64, layers=2, seed=0
) -> TransformerCoder:
    """Weights over their whole range, so that every clip and rounding takes place."""
    rng = np.random.default_rng(seed)

    def bytes_of(*shape):
        return rng.integers(-127, 128, shape).astype(np.int8)

    def biases(*shape):
        return rng.integers(-(1 << 16), 1 << 16, shape).astype(np.int32)

    def layer():
        return TransformerLayer(
            bytes_of(channels, 3 * channels),
            bytes_of(channels, channels),
            bytes_of(channels, 48),
            bytes_of(48, channels),
        )

    stages = [
        StageTransformer(
            np.array(context_offsets(number)),
            bytes_of(len(context_offsets(number)) * length, channels),
            biases(grid[0], channels),
            biases(grid[1], channels),
            tuple(layer() for _ in range(layers)),
            bytes_of(channels, size) // 16,
            biases(size) // 64,
        )
        for number, size in enumerate(sizes)
    ]
    return TransformerCoder(grid, [bytes_of(size + 1, length) for size in sizes], stages)


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
    assert np.array_equal(
        (left @ right).astype(np.int64), left.astype(np.int64) @ right.astype(np.int64)
    )


def test_the_table_is_the_exponential_rounded_down():
    """v = floor(2^(20 - i/32)) for i < 32, in whole numbers: v^32 <= 2^(640 - i) < (v + 1)^32; then
    halves of it.
    """
    table = [int(value) for value in EXP2]
    for index, value in enumerate(table[:32]):
        assert value**32 <= 2 ** (640 - index) < (value + 1) ** 32
    assert (
        all(table[index] == table[index % 32] >> index // 32 for index in range(len(table) - 1))
        and table[-1] == 0
    )


def test_division_by_the_root_mean_square_is_that_of_whole_numbers():
    """Against Python's integers, up to the largest that a stream may hold."""
    rng = np.random.default_rng(0)
    for size in (3, 32, 1040):
        limits = (1 << 20, 4000, 30)
        stream = np.stack(
            [rng.integers(-limit, limit + 1, size) for limit in limits] + [np.zeros(size, np.int64)]
        )
        found = normalised(stream.astype(np.float64)).astype(int)
        for row, got in zip(stream.tolist(), found.tolist(), strict=True):
            root = max(1, math.isqrt(sum(value * value for value in row)))
            scale = math.isqrt(1024 * size)
            assert got == [
                max(-127, min(127, (2 * scale * value + root) // (2 * root))) for value in row
            ]


def test_frequencies_by_hand():
    """Logits 64, 32, 0 are 4 : 2 : 1 in TOTAL - 3 that are shared, one for each on top, the rest to
    the first.
    """
    shared = TOTAL - 3
    expected = [1 + int(Fraction(weight, 7) * shared) for weight in (4, 2, 1)]
    expected[0] += TOTAL - sum(expected)
    assert frequencies(np.array([[64.0, 32.0, 0.0]])).tolist() == [expected]
    assert frequencies(np.array([[0.0, 10_000.0]]))[0].tolist() == [1, TOTAL - 1]


def test_every_code_can_be_coded():
    found = frequencies(
        np.random.default_rng(0).integers(-3000, 3000, (50, 500)).astype(np.float64)
    )
    assert found.min() >= 1 and (found.sum(1) == TOTAL).all()


def test_context_is_never_behind_the_slot_and_within_the_exact_fan_in():
    for stage in range(64):
        offsets = context_offsets(stage)
        assert len(set(offsets)) == len(offsets) and len(offsets) * 16 <= MAX_FAN_IN
        assert all(
            (back, down, right) < (0, 0, 0) and stage + back >= 0 for back, down, right in offsets
        )


def test_wrong_bytes_give_codes_or_end_too_soon():
    """12 codes of 16 bits at most need 24 bytes at most; bytes that end too soon are found one by
    one and together.
    """
    prior, rng = random_prior(), np.random.default_rng(0)
    payloads = [[rng.bytes(int(rng.integers(24, 60))) for _ in range(2)] for _ in range(200)]
    codes = prior.decode(payloads, (3, 4))
    assert (codes >= 0).all() and (codes[:, 0] < 40).all() and (codes[:, 1] < 12).all()
    with pytest.raises(CorruptCodes):
        prior.decode([*payloads, [b"", b""]], (30, 40))


def test_a_short_string_cannot_claim_millions_of_codes():
    """Decoding stops where the bytes end: 2^20 codes would take a minute."""
    for count in (1, 16):
        with pytest.raises(CorruptCodes):
            random_prior().decode([[b"\x5a" * 50, b""]] * count, (1 << 10, 1 << 10))


SCRIPT = """
import hashlib
import numpy as np
from tests.coding.test_integer_prior import random_codes, random_prior
from vqkit.coding import kernels
from vqkit.coding.codes import transformer_coder
tables, frequencies = hashlib.sha256(), transformer_coder.frequencies

def noted(logits):
    found = frequencies(logits)
    tables.update(found.astype("<i8").tobytes())
    return found

transformer_coder.frequencies, kernels.load = noted, lambda module: None
codes, prior = random_codes(20, grid=(5, 5)), random_prior(length=32)
payloads = prior.encode(codes)
assert np.array_equal(prior.decode(payloads, (5, 5)), codes)
assert np.array_equal(np.concatenate([prior.decode([one], (5, 5)) for one in payloads]), codes)
print(tables.hexdigest(), hashlib.sha256(repr(payloads).encode()).hexdigest())
"""


def test_other_instruction_sets_have_the_same_frequencies_bytes_and_codes(monkeypatch):
    """Many items at once and one by one; benchmarks/portability.py does it at length."""

    def run(settings):
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    features = {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3 X86_V3 X86_V4"}
    usual = run({})
    assert run({"OPENBLAS_CORETYPE": "Prescott", **features}) == usual
    assert run({"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}) == usual
    if (
        "avx512f" in Path("/proc/cpuinfo").read_text()
    ):  # else the processor refuses the instructions
        assert run({"OPENBLAS_CORETYPE": "SkylakeX"}) == usual


NUMBA = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed"
)


@NUMBA
@pytest.mark.parametrize(
    ("settings", "grid"),
    [
        ({}, (3, 4)),
        ({"layers": 0}, (1, 1)),
        ({"layers": 1, "channels": 32}, (22, 31)),  # more codes than attention sees
        (
            {"sizes": (500, 2), "length": 31, "channels": 1024},
            (3, 5),
        ),  # the largest sums of the format
        ({"sizes": (40, 12, 30), "length": 5}, (7, 5)),
    ],
)
def test_compiled_and_not_the_same_bytes_come_of_codes_and_codes_of_any_bytes(
    settings, grid, monkeypatch
):
    prior, sizes = random_prior(**settings), settings.get("sizes", (40, 12))
    codes, rng = random_codes(2, sizes, grid), np.random.default_rng(2)
    enough = 2 * math.prod(grid)  # 16 bits a code at most
    payloads = prior.encode(codes) + [
        [rng.bytes(enough + int(rng.integers(50))) for _ in sizes] for _ in range(2)
    ]
    compiled = prior.decode(payloads, grid)
    monkeypatch.setattr(kernels, "load", lambda module: None)
    assert np.array_equal(compiled[:2], codes)
    assert np.array_equal(compiled, prior.decode(payloads, grid))
    assert prior.encode(codes) == payloads[:2]


@NUMBA
def test_compiled_and_not_the_same_codes_are_chosen(monkeypatch):
    """Costs of the second stage depend on the first; they are asked for in several parts."""
    prior, grid, rng = random_prior(), (5, 6), np.random.default_rng(3)
    first, second = rng.random((3, 30, 40)), rng.random((3, 30, 40, 12))

    def distances(items, before, slots):
        if not before.shape[1]:
            return first[items, slots]
        chosen = before[:, 0].reshape(len(before), -1)[:, slots, None, None]
        return np.take_along_axis(second[items, slots], chosen, 2)[:, :, 0]

    monkeypatch.setattr(transformer_coder, "MAX_COSTS", 200)
    compiled = prior.assign(distances, 3, grid, 2, 0.1)
    monkeypatch.setattr(kernels, "load", lambda module: None)
    assert np.array_equal(compiled, prior.assign(distances, 3, grid, 2, 0.1))
    assert not np.array_equal(compiled, prior.assign(distances, 3, grid, 2, 0.0))


def test_a_prior_comes_back_from_its_tensors_and_broken_ones_are_refused():
    prior, codes = random_prior(), random_codes(4)
    tensors = prior.tensors()
    assert TransformerCoder.from_tensors(tensors).encode(codes) == prior.encode(codes)
    behind = tensors["1.context"].copy()
    behind[0] = 0, 0, 1
    for name, value in {
        "1.context": behind,
        "0.first": tensors["0.first"][:-1],
        "0.last": tensors["0.last"].astype(np.int32),
        "0.1.up": np.full_like(tensors["0.1.up"], -128),
        "1.rows": tensors["1.rows"] + (1 << 22),
        "1.vectors": tensors["1.vectors"][:, :-1],
        "0.0.qkv": tensors["0.0.qkv"][:, :-1],
        "0.0.down": tensors["0.0.down"][:, :-1],
        "grid": np.array([0, 4], np.int32),
        "more": np.zeros(1, np.int8),
    }.items():
        with pytest.raises(ValueError):
            TransformerCoder.from_tensors({**tensors, name: value})
    for name in tensors:
        with pytest.raises(ValueError):
            TransformerCoder.from_tensors(
                {key: value for key, value in tensors.items() if key != name}
            )
