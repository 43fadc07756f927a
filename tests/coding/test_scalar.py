"""Scalar codes: every code comes back, as a second decoder reads it too; what was fitted has
bounds; damaged and hostile bytes end in errors of the format.
"""

import itertools
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.coding import second_decoder as second
from tests.coding.second_scalar import Scalar
from vqkit.coding import (
    SCALAR,
    CorruptCodes,
    FileHeader,
    NewerVersion,
    ScalarCoder,
    ScalarCodes,
    Stage,
    check_stages,
    read_file,
    stage_crcs,
    write_file,
)
from vqkit.coding.codes.scalar_state import (
    FITTED_COUNT,
    LEVELS,
    SIZES,
    relation_shapes,
    state_shapes,
)

MODEL = bytes(range(8))


def laplacian(shape, levels, seed=0):
    """Codes of any shape, most of them the middle one, a few the outermost."""
    rng = np.random.default_rng(seed)
    values = rng.laplace(0, 1, shape).round().astype(np.int64)
    values.flat[:: max(7, values.size // 5)] = levels
    values.flat[3 :: max(9, values.size // 4)] = -levels
    return values.clip(-(levels // 2), levels // 2) + levels // 2


def rising(shape, levels):
    """Codes that grow along the last axis, so that differences are smaller than they are."""
    steps = np.random.default_rng(0).integers(0, 3, shape)
    return np.cumsum(steps, -1).clip(0, levels - 1)


def checkered(shape, levels):
    """The outermost codes in turn, whose differences are twice the range."""
    return np.indices(shape).sum(0) % 2 * (levels - 1)


def file_of(coder, codes, model_id=MODEL):
    """A file of codes (S * C, *grid)."""
    payloads = coder.encode(codes[None])[0]
    staged = codes.reshape(coder.num_stages, -1)
    stages = [Stage(crc, one) for crc, one in zip(stage_crcs(staged), payloads, strict=True)]
    return write_file(FileHeader((8, 8), len(stages), SCALAR, model_id), stages)


def by_hand(data, tensors, grid, shape):
    """What the second decoder makes of a file."""
    coder = None if tensors is None else save(tensors)
    return second.decode_file(data, coder, lambda *size: grid, lambda *given: Scalar(*given, shape))


SHAPES = [
    # S, C, K and the grid.
    (1, 1, 3, (5,)),
    (2, 4, 3, (1, 1)),
    (3, 9, 63, (4, 5)),
    (2, 8, 1023, (3, 4)),
    (3, 17, 127, (2, 2, 3)),
    (1, 12, 255, (9, 1)),
    (4, 2, 31, (1, 2, 1, 3)),
]


@pytest.mark.parametrize(("stages", "channels", "levels", "grid"), SHAPES)
def test_codes_come_back_and_so_do_the_first_stages(stages, channels, levels, grid):
    shape = (stages * channels, *grid)
    codes = np.stack(
        [
            laplacian(shape, levels),
            rising(shape, levels),
            checkered(shape, levels),
            np.zeros(shape, np.int64),
            np.full(shape, levels // 2),
        ]
    )
    new = ScalarCoder.new(stages, channels, levels)
    for coder in (new, new.fitted(codes[:3])):
        payloads = coder.encode(codes)
        assert np.array_equal(coder.decode(payloads, grid), codes)
        assert coder.encode(codes[1:2]) == payloads[1:2], "each item is coded alone"
        first = [item[:1] for item in payloads]
        assert np.array_equal(coder.decode(first, grid), codes[:, :channels])
        assert coder.first(1).encode(codes[:, :channels]) == first
        assert np.array_equal(coder.first(1).decode(first, grid), codes[:, :channels])


@pytest.mark.parametrize(("stages", "channels", "levels", "grid"), SHAPES)
@pytest.mark.parametrize("fitted", [False, True])
def test_the_second_decoder_reads_them(stages, channels, levels, grid, fitted):
    shape = (stages * channels, *grid)
    for codes in (laplacian(shape, levels), rising(shape, levels), checkered(shape, levels)):
        coder = ScalarCoder.new(stages, channels, levels)
        if fitted:
            coder = coder.fitted([codes, laplacian(shape, levels, 1)])
        data = file_of(coder, codes)
        tensors = coder.tensors() if fitted else None
        found = by_hand(data, tensors, grid, (stages, channels, levels))
        assert np.array_equal(found.reshape(shape), codes)


@pytest.mark.parametrize("levels", [3, 1023])
def test_differences_may_be_twice_the_range(levels):
    """Of predicted channels, from one end of the codes to the other and back."""
    lines = rising((9, 8, 40), levels)
    assert ScalarCoder.new(1, 9, 3).fitted([rising((9, 8, 40), 3)]).predicted[8] == 0
    coder = ScalarCoder.new(1, 9, levels).fitted([lines])
    forced = ScalarCoder.from_tensors(
        coder.tensors() | {"predicted": np.array([1] * 8 + [0], np.uint8)}
    )
    codes = np.zeros((9, 4, 6), np.int64)
    codes[:, 1::2, ::2] = levels - 1
    codes[:, ::2, 1::3] = levels - 1
    data = file_of(forced, codes)
    payloads = [stage.payload for stage in read_file(data).stages]
    assert np.array_equal(forced.decode([payloads], (4, 6))[0], codes)
    found = by_hand(data, forced.tensors(), (4, 6), (1, 9, levels))
    assert np.array_equal(found[0], codes)


def test_channels_that_follow_their_neighbours_are_predicted_and_smaller():
    """Channel 1 rises evenly, channel 0 is noise, and channel 9 rises behind the first group."""
    codes = np.random.default_rng(0).integers(0, 255, (10, 6, 12))
    codes[[1, 9]] = np.add.outer(np.arange(6), 3 * np.arange(12)) * 4 + 3
    new = ScalarCoder.new(1, 10, 255)
    fitted = new.fitted([codes])
    assert fitted.predicted.nonzero()[0].tolist() == [1]
    sizes = [len(coder.encode(codes[None])[0][0]) for coder in (new, fitted)]
    assert sizes[1] < sizes[0]


def test_channels_of_zeros_cost_next_to_nothing():
    """96 channels at 64 positions take three bytes, and fewer once it is known."""
    codes = np.full((96, 8, 8), 31)
    codes[0] = 32
    new = ScalarCoder.new(1, 96, 63)
    size = len(new.encode(codes[None])[0][0])
    assert size <= 3
    assert len(new.fitted([codes] * 4).encode(codes[None])[0][0]) < size


def test_sizes_are_half_octaves():
    for total, size in enumerate(SIZES.tolist()):
        assert size == (0 if total == 0 else int(np.floor(np.log2(total) * 2 + 1e-9)) + 1)
    assert SIZES[-1] == 11 and SIZES[-2] < 11


def test_levels_are_quarter_octaves():
    """1024 stands for one, and lies in the middle of the range."""
    numbers = np.arange(1, len(LEVELS))
    wanted = (np.floor(np.log2(numbers) * 4 + 1e-9) + 1 - 20).clip(0, 31)
    assert np.array_equal(LEVELS[1:], wanted) and LEVELS[0] == 0
    assert LEVELS[1024] == 21 and LEVELS[8191] == 31


def test_channels_that_go_together_are_found_and_cheaper():
    """Channel 40 has the magnitudes and signs of channel 3 at its position, channel 41 those that
    channel 5 has one position before; 42 is as they are, and goes with none.
    """
    rng = np.random.default_rng(0)
    codes = np.zeros((8, 48, 9, 9), np.int64)
    codes[:, [3, 5, 42]] = rng.integers(-2, 3, (8, 3, 9, 9)) * (rng.random((8, 3, 9, 9)) < 0.3)
    codes[:, 40] = codes[:, 3]
    codes[:, 41, :, 1:] = codes[:, 5, :, :-1]
    codes += 15
    new = ScalarCoder.new(1, 48, 31)
    coder = new.fitted(codes[:7])
    relations = coder.relations
    assert relations.partners[0, 40, 0] == 3 and relations.magnitudes[0, 12, 40] > 1000
    assert relations.partners[0, 41, 6] == 5 and relations.magnitudes[0, 18, 41] > 500
    # Site 0 is its own position, site 1 the one before.
    assert relations.signs[0, 40, 0] == 3
    assert relations.signs[0, 41, 0] == 48 + 5

    def cost(channel):
        """Bytes that the channel's codes take."""
        without = codes[7:].copy()
        without[:, channel] = 15
        return len(coder.encode(codes[7:])[0][0]) - len(coder.encode(without)[0][0])

    assert cost(40) < 0.8 * cost(42)


@pytest.mark.parametrize("grid", [(40,), (20, 2), (5, 8)])
def test_parts_are_coded_as_one(monkeypatch, grid):
    """Of rows, or several rows: however many positions go together, the bytes are the same."""
    from vqkit.coding.codes import scalar

    codes = laplacian((6, *grid), 31)[None]
    coder = ScalarCoder.new(2, 3, 31)
    whole = coder.encode(codes)
    for together in (1, 21, 50):
        monkeypatch.setattr(scalar, "_TOGETHER", together)
        assert coder.encode(codes) == whole
        assert np.array_equal(coder.decode(whole, grid), codes)


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("grid", [(11, 6), (1, 9), (5, 1), (7,), (3, 4, 5)])
def test_rows_that_go_through_all_stages_together_are_coded_as_one(monkeypatch, stages, grid):
    """One row, several or all: bytes are those of whole stages, one after the other, as the format
    has them. The first channels are coded as differences, which ask for the item's first row.
    """
    from vqkit.coding.codes import scalar

    channels = 9
    codes = np.stack(
        [rising((stages * channels, *grid), 31), laplacian((stages * channels, *grid), 31)]
    )
    coder = ScalarCoder.new(stages, channels, 31).fitted(codes)
    coder = replace(coder, predicted=np.arange(channels) < 3)
    monkeypatch.setattr(scalar, "_WINDOW", 1 << 30)
    whole = coder.encode(codes)
    of_text = by_hand(file_of(coder, codes[0]), coder.tensors(), grid, (stages, channels, 31))
    assert np.array_equal(np.reshape(of_text, codes[0].shape), codes[0])
    for rows in (1, 2, 3):
        monkeypatch.setattr(scalar, "_WINDOW", rows * stages * channels * grid[-1])
        assert coder.encode(codes) == whole
        assert np.array_equal(coder.decode(whole, grid), codes)
        shorter = [parts[:1] for parts in whole]
        assert np.array_equal(coder.decode(shorter, grid), codes[:, :channels])


def test_many_rows_take_the_memory_of_a_few(monkeypatch):
    """Those at hand, of 50,000 rows with 1.6 million codes."""
    from vqkit.coding.codes import scalar

    monkeypatch.setattr(scalar, "_WINDOW", 1 << 14)
    monkeypatch.setattr(scalar, "_TOGETHER", 1 << 10)
    coder = ScalarCoder.new(1, 16, 511)
    grid = (50_000, 2)
    codes = ScalarCodes(16, grid, 511)
    codes.put([(0, 1), (0, 2)], np.full((16, 1, 2), 256))
    coder.decode(coder.encode([ScalarCodes(16, (2, 2), 511)]), (2, 2))
    tracemalloc.start()
    payloads = coder.encode([codes])
    (found,) = coder.decode(payloads, grid)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found[3], codes[3])
    assert peak < 1 << 20


def test_codes_of_boxes_are_those_of_the_whole():
    """Of numbers that fit in a byte and others, and of none, in boxes that cover the grid."""
    rng = np.random.default_rng(0)
    codes = rng.integers(200, 311, (5, 7, 9))
    codes[1] = 255
    codes[2, 3:, 4:] = rng.integers(0, 511, (4, 5))
    packed = ScalarCodes(5, (7, 9), 511)
    for spans in itertools.product([(0, 3), (3, 7)], [(0, 4), (4, 9)]):
        (top, bottom), (left, right) = spans
        packed.put(spans, codes[:, top:bottom, left:right])
    assert packed.shape == codes.shape and packed.size == codes.size
    assert np.array_equal(packed, codes) and np.asarray(packed).dtype == np.int16
    assert np.array_equal(np.asarray(packed, np.int64), codes)
    assert all(np.array_equal(one, other) for one, other in zip(packed, codes, strict=True))
    for spans in ([(0, 7), (0, 9)], [(2, 5), (3, 6)], [(6, 7), (8, 9)], [(0, 3), (4, 9)]):
        (top, bottom), (left, right) = spans
        assert np.array_equal(packed.codes(spans), codes[:, top:bottom, left:right])
        assert np.array_equal(packed.numbers(spans), codes[:, top:bottom, left:right] - 255)
    with pytest.raises(IndexError):
        packed[5]


def test_zeros_take_no_memory_and_small_numbers_a_byte():
    tracemalloc.start()
    packed = ScalarCodes(64, (100, 100), 511)
    codes = np.full((64, 100, 100), 255, np.int16)
    codes[3] += 127
    codes[5] -= 128
    before = tracemalloc.get_traced_memory()[0]
    packed.put([(0, 100), (0, 100)], codes)
    assert tracemalloc.get_traced_memory()[0] - before < 31_000
    tracemalloc.stop()
    assert np.array_equal(packed, codes)


def test_a_long_row_takes_memory_for_a_part_of_it(monkeypatch):
    """Room for the bytes that are being written is that of a part: 80 bytes a code."""
    from vqkit.coding.codes import scalar

    monkeypatch.setattr(scalar, "_TOGETHER", 64)
    coder = ScalarCoder.new(1, 2, 3)
    codes = np.ones((1, 2, 10_000), np.int64)
    coder.encode(codes[:, :, :9])
    tracemalloc.start()
    coder.encode(codes)
    assert tracemalloc.get_traced_memory()[1] < 60 * codes.size
    tracemalloc.stop()


# ------------------------------------------------------------------------- codes that are chosen


def wanted_codes(stages=2, channels=20, grid=(9, 8), levels=31):
    """Codes of stages, the last those nearest to what is wanted of it, and that (C, *grid)."""
    rng = np.random.default_rng(0)
    scale = 1.5 / (1 + np.arange(channels))[:, None, None]
    codes = laplacian((stages * channels, *grid), levels)
    wanted = rng.laplace(0, scale, (channels, *grid))
    half = levels // 2
    codes[-channels:] = np.floor(wanted + 0.5).clip(-half, half) + half
    return codes, wanted


def error_of(codes, wanted):
    """Squared error in steps of the last stage of codes of 31 levels."""
    return float(np.square(np.asarray(codes)[-len(wanted) :] - 15 - wanted).sum())


def bits_of(coder, codes):
    return 8 * len(coder.encode([codes])[0][-1])


@pytest.mark.parametrize("predicted", [0, 3])
def test_codes_that_are_chosen_cost_less(predicted):
    """Squared error and weighed bits of the file, beside those of the nearest codes and of a fixed
    dead zone; the heavier bits are, the fewer.
    """
    codes, wanted = wanted_codes()
    coder = ScalarCoder.new(2, 20, 31).fitted([codes])
    coder = replace(coder, predicted=np.arange(20) < predicted)
    sizes = []
    for weight in (0.05, 0.1, 0.2):
        found = coder.choose(ScalarCodes.of(codes, 31), wanted, weight)
        assert np.array_equal(np.asarray(found)[:20], codes[:20])
        assert np.abs(np.asarray(found)[20:] - codes[20:]).max() >= 1
        dead = codes.copy()
        toward_zero = np.abs(wanted) - np.floor(np.abs(wanted)) < 0.6
        shorter = np.sign(wanted) * (np.floor(np.abs(wanted)) + ~toward_zero)
        dead[20:] = shorter.clip(-15, 15) + 15
        cost = error_of(found, wanted) + weight * bits_of(coder, found)
        for other in (codes, dead):
            assert cost < error_of(other, wanted) + weight * bits_of(coder, other)
        sizes.append(bits_of(coder, found))
    assert sizes[0] > sizes[1] > sizes[2]


def test_bits_that_weigh_nothing_leave_the_nearest_codes():
    """But zeros of groups in which no value is beyond half a step."""
    codes, wanted = wanted_codes()
    coder = ScalarCoder.new(2, 20, 31)
    found = coder.choose(ScalarCodes.of(codes, 31), wanted, 0.0)
    near = np.abs(wanted - np.floor(wanted) - 0.5) > 1 / 64
    assert np.array_equal(np.asarray(found)[20:][near], codes[20:][near])


def test_a_lone_code_that_costs_more_than_it_is_worth_is_left_out():
    """In a grid of zeros a value of one step costs far more than ten bits, which weigh 0.2 each;
    one of three steps is worth them.
    """
    wanted = np.zeros((24, 12, 12))
    wanted[17, 9, 9] = 1.0
    wanted[20, 10, 3] = 3.0
    codes = np.full(wanted.shape, 15) + wanted.astype(int)
    coder = ScalarCoder.new(1, 24, 31).fitted([np.full(wanted.shape, 15)] * 3)
    found = np.asarray(coder.choose(ScalarCodes.of(codes, 31), wanted, 0.2))
    assert found[17, 9, 9] == 15 and found[20, 10, 3] == 18
    assert (found != 15).sum() == 1


def test_rows_are_chosen_from_as_one_whole(monkeypatch):
    from vqkit.coding.codes import scalar

    codes, wanted = wanted_codes(stages=3)
    coder = ScalarCoder.new(3, 20, 31).fitted([codes])
    whole = coder.choose(ScalarCodes.of(codes, 31), wanted, 0.1)
    for rows in (1, 2, 4):
        monkeypatch.setattr(scalar, "_WINDOW", rows * 3 * 20 * 8)
        assert np.array_equal(coder.choose(ScalarCodes.of(codes, 31), wanted, 0.1), whole)


# -------------------------------------------------------------------------------- codes and tensors


@pytest.mark.parametrize("wrong", [-1, 63, 1 << 20])
def test_codes_out_of_range_are_refused(wrong):
    codes = np.zeros((1, 2, 3, 3), np.int64)
    codes[0, 1, 2, 2] = wrong
    with pytest.raises(ValueError, match="0 to 62"):
        ScalarCoder.new(1, 2, 63).encode(codes)


@pytest.mark.parametrize(
    ("stages", "channels", "levels"),
    [(0, 4, 63), (65, 4, 63), (1, 0, 63), (1, 1025, 63), (64, 1024, 63), (1, 4, 62), (1, 4, 1)]
    + [(1, 4, 1025), (1, 4, -3)],
)
def test_sizes_that_no_coder_has_are_refused(stages, channels, levels):
    with pytest.raises(ValueError):
        ScalarCoder.new(stages, channels, levels)


def test_tensors_give_the_same_coder():
    codes = laplacian((6, 5, 5), 31)
    coder = ScalarCoder.new(2, 3, 31).fitted([codes])
    again = ScalarCoder.from_tensors(coder.tensors())
    assert again.encode(codes[None]) == coder.encode(codes[None])
    assert again.sizes == (31,) * 6 and again.channels == 3
    for name, value in coder.tensors().items():
        assert np.array_equal(again.tensors()[name], value) and again.tensors()[name].dtype == (
            value.dtype
        )


def test_a_coder_learns_from_no_file():
    codes = laplacian((1, 6, 5, 5), 31)
    coder = ScalarCoder.new(2, 3, 31).fitted(codes)
    before = {name: value.copy() for name, value in coder.tensors().items()}
    payloads = coder.encode(codes)
    coder.decode(payloads, (5, 5))
    assert all(np.array_equal(before[name], value) for name, value in coder.tensors().items())


def test_items_are_learnt_from_while_there_is_time():
    codes = [laplacian((4, 5, 5), 31, seed) for seed in range(3)]
    new = ScalarCoder.new(1, 4, 31)
    answers = iter([True, True, False])
    two = new.fitted(codes, lambda: next(answers))
    # What goes with what is fitted to all three, and then two are learnt from.
    learning = new._related(codes)
    for one in codes[:2]:
        learning._encode_item(one, learning.state)
    found = two.tensors()
    assert np.array_equal(found["counts"], (learning.state.entries & 255).clip(max=FITTED_COUNT))
    assert np.array_equal(found["probabilities"], learning.state.entries >> 8)
    assert not np.array_equal(found["counts"], new.fitted(codes).tensors()["counts"])


GOOD = ScalarCoder.new(2, 9, 31).tensors()


def changed(name, value):
    return GOOD | {name: value}


def with_one(name, value):
    """GOOD with one number changed, the last."""
    found = GOOD[name].copy()
    found.flat[-1] = value
    return changed(name, found)


BROKEN = {
    "missing": {name: value for name, value in GOOD.items() if name != "counts"},
    "one more": GOOD | {"more": GOOD["levels"]},
    "no levels": changed("levels", np.zeros(0, np.int32)),
    "two levels": changed("levels", np.array([31, 31], np.int32)),
    "levels of another type": changed("levels", np.array([31], np.int64)),
    "even levels": with_one("levels", 30),
    "one level": with_one("levels", 1),
    "negative levels": with_one("levels", -31),
    "many levels": with_one("levels", 1025),
    "no channels": changed("predicted", np.zeros(0, np.uint8)),
    "a channel less": changed("predicted", GOOD["predicted"][:-1]),
    "predicted of another type": changed("predicted", GOOD["predicted"].astype(np.bool_)),
    "predicted as a number": changed("predicted", GOOD["predicted"][0]),
    "predicted as a matrix": changed("predicted", GOOD["predicted"][None]),
    "predicted by two": changed("predicted", np.array([2] + [0] * 8, np.uint8)),
    "predicted behind the first group": with_one("predicted", 1),
    "a table less": changed("probabilities", GOOD["probabilities"][:-1]),
    "an entry less": changed("probabilities", GOOD["probabilities"][:, :-1]),
    "probabilities of another type": changed(
        "probabilities", GOOD["probabilities"].astype(np.int16)
    ),
    "a small probability": with_one("probabilities", 23),
    "a large probability": with_one("probabilities", 65513),
    "a probability that wraps": with_one("probabilities", (1 << 16) + 100),
    "counts of another type": changed("counts", GOOD["counts"].astype(np.int32)),
    "counts in a row": changed("counts", GOOD["counts"].ravel()),
    "a large count": with_one("counts", 251),
    "weights of another type": changed("weights", GOOD["weights"].astype(np.int64)),
    "weights as a number": changed("weights", GOOD["weights"][0, 0]),
    "no weights": changed("weights", GOOD["weights"][:0]),
    "a set less": changed("weights", GOOD["weights"][:-1]),
    "a stage less": changed("weights", GOOD["weights"][: 7 * (9 + 144)]),
    "weights of five tables": changed("weights", GOOD["weights"][:, :-1]),
    "a large weight": with_one("weights", (1 << 24) + 1),
    "a low weight": with_one("weights", -(1 << 24) - 1),
    "the lowest weight": with_one("weights", -(1 << 31)),
}
for related, above in {
    "partners": 9,
    "signs": 63,
    "magnitudes": 1 << 15,
    "groups": 1 << 15,
}.items():
    BROKEN |= {
        f"{related}: one below zero": with_one(related, -1),
        f"{related}: one that is too large": with_one(related, above),
        f"{related} of a stage less": changed(related, GOOD[related][:1]),
        f"{related} of another type": changed(related, GOOD[related].astype(np.int64)),
        f"{related} in a row": changed(related, GOOD[related].ravel()),
        f"no {related}": {name: value for name, value in GOOD.items() if name != related},
    }


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tensors_are_refused(name):
    ScalarCoder.from_tensors(GOOD)
    with pytest.raises(ValueError):
        ScalarCoder.from_tensors(BROKEN[name])


def test_small_tensors_that_claim_a_large_coder_take_no_memory():
    claims = GOOD | {
        "predicted": np.zeros(1024, np.uint8),
        "weights": np.zeros((64 * 7 * (1024 + 144), 6), np.int32),
    }
    fewer = claims | {"weights": np.zeros((8 * 7 * (1024 + 144), 6), np.int32)}
    tracemalloc.start()
    refused = 0
    for tensors in (claims, fewer):
        try:
            ScalarCoder.from_tensors(tensors)
        except ValueError:
            refused += 1
    assert refused == 2 and tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()


def test_the_largest_coder_fits_in_its_file():
    """Its tensors take less than a coder's file may."""
    from vqkit.artifact.coder_files import MAX_BYTES

    for stages, channels in ((64, 128), (8, 1024)):
        entries, sets = state_shapes(stages, channels)
        relations = sum(map(np.prod, relation_shapes(stages, channels).values()))
        assert 5 * np.prod(entries) + 4 * np.prod(sets) + 4 * relations < MAX_BYTES


# --------------------------------------------------------------------------------- damaged payloads


def test_any_bytes_decode_to_codes_that_exist_or_end():
    rng = np.random.default_rng(0)
    coder = ScalarCoder.new(2, 9, 31).fitted([laplacian((18, 5, 5), 31)])
    ended = 0
    for number in range(12):
        try:
            found = coder.decode([[rng.bytes(5 + 400 * (number % 3)) for _ in range(2)]], (5, 5))
        except CorruptCodes:
            ended += 1
            continue
        assert np.min(found) >= 0 and np.max(found) < 31
    assert 0 < ended < 12


def test_truncated_payloads_give_codes_or_an_error_and_never_the_same():
    codes = laplacian((1, 9, 5, 5), 255)
    coder = ScalarCoder.new(1, 9, 255)
    payload = coder.encode(codes)[0][0]
    ended = 0
    for length in range(0, len(payload), 5):
        try:
            found = coder.decode([[payload[:length]]], (5, 5))
        except CorruptCodes:
            ended += 1
            continue
        assert not np.array_equal(found, codes)
    assert ended > 5


def test_bytes_that_end_stop_the_decoding_at_once():
    """Bytes that cost much: a grid of 2^22 positions ends at one of its first."""
    coder = ScalarCoder.new(1, 16, 255)
    with pytest.raises(CorruptCodes, match="more of them than their bytes"):
        coder.decode([[b"\xff" * 8]], (1 << 11, 1 << 11))


def test_one_wrong_bit_is_found_and_both_decoders_say_the_same():
    """By the check sum of the stage, or by bytes that end."""
    codes = laplacian((4, 2, 2), 31)
    coder = ScalarCoder.new(2, 2, 31)
    file = read_file(file_of(coder, codes))
    payloads = [stage.payload for stage in file.stages]
    by_text = Scalar(None, second.read_file(file_of(coder, codes))[0], (2, 2, 31))
    for place in range(8 * len(payloads[0])):
        broken = bytearray(payloads[0])
        broken[place // 8] ^= 1 << place % 8
        parts = [bytes(broken), payloads[1]]
        try:
            found = np.asarray(coder.decode([parts], (2, 2))[0])
        except CorruptCodes:
            with pytest.raises(second.Refused, match="CorruptCodes"):
                by_text.decode(parts, (2, 2))
            continue
        assert np.array_equal(by_text.decode(parts, (2, 2)).reshape(4, 2, 2), found)
        # A wrong bit behind the last decision changes nothing.
        if not np.array_equal(found, codes):
            with pytest.raises(CorruptCodes):
                check_stages(found.reshape(2, -1), [stage.crc for stage in file.stages])


def test_values_under_this_coder_are_not_known():
    data = bytearray(file_of(ScalarCoder.new(1, 2, 3), np.zeros((2, 1, 1), np.int64), None))
    assert read_file(bytes(data)).header.coder == SCALAR
    data[4] |= 1 << 4
    with pytest.raises(NewerVersion):
        read_file(bytes(data))
    with pytest.raises(second.Refused, match="NewerVersion"):
        second.read_file(bytes(data))
    data[4] = 3
    with pytest.raises(NewerVersion):
        read_file(bytes(data))
    with pytest.raises(second.Refused, match="NewerVersion"):
        second.read_file(bytes(data))


# --------------------------------------------------------------------------- with and without numba

SCRIPT = """
import sys
if sys.argv[1] == "plain":
    sys.modules["numba"] = None
import numpy as np
from tests.coding.test_scalar import checkered, laplacian, rising
from vqkit.coding import ScalarCoder, ScalarCodes, kernels
shape = (3 * 11, 7, 6)
codes = np.stack([laplacian(shape, 1023), rising(shape, 1023), checkered(shape, 1023)])
coder = ScalarCoder.new(3, 11, 1023).fitted(codes)
for one in (coder, ScalarCoder.new(3, 11, 1023)):
    payloads = one.encode(codes)
    assert np.array_equal(one.decode(payloads, (7, 6)), codes)
    print(*(part.hex() for item in payloads for part in item))
    wanted = np.random.default_rng(0).laplace(0, 2, (11, 7, 6))
    print(np.asarray(one.choose(ScalarCodes.of(codes[0], 1023), wanted, 0.1)).tobytes().hex())
print({name: value.sum() for name, value in coder.tensors().items()})
print(kernels.usable(), file=sys.stderr)
"""


def test_the_bytes_are_the_same_with_numba_and_without():
    pytest.importorskip("numba")
    root = Path(__file__).parents[2]
    runs = []
    for how in ("plain", "compiled"):
        command = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=root, env=os.environ, check=True
        )
        runs.append(done)
    assert [run.stderr.split()[-1] for run in runs] == ["False", "True"]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) > 1000
