"""Context mixing: every code and pixel comes back, with numba and without; the network is what was
fitted.
"""

import io
import math
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save

from tests import processes
from tests.coding import second_decoder as second
from tests.coding.second_mixing import Mixing
from vqkit.coding import (
    CODES,
    MIXING,
    VALUES,
    Block,
    BundleHeader,
    Extents,
    FileHeader,
    MixingCoder,
    NewerVersion,
    Stage,
    ValueNetwork,
    codes_crc,
    read_file,
    stage_crcs,
    write_bundle,
    write_file,
)
from vqkit.coding.codes.linear_kernel import learn_value, predict_value
from vqkit.coding.codes.mixing_state import first_linear, neighbours
from vqkit.coding.logistic import LIMIT, SQUASH, STRETCH
from vqkit.coding.rangecoder import RangeEncoder
from vqkit.coding.values.network import ChannelNetwork, inputs, num_inputs
from vqkit.training.tasks.value_coder import ChannelTwin

MODEL = bytes(range(8))


def random_network(planes=1, hidden=12, sides=(5, 7), seed=0):
    """Weights that bring every clip and rounding about, a few of them the largest there are."""
    rng = np.random.default_rng(seed)

    def small(*shape):
        found = rng.integers(-600, 601, shape).astype(np.int16)
        found.flat[:: found.size // 3] = 32767
        return found

    def large(*shape):
        return rng.integers(-(1 << 17), 1 << 17, shape).astype(np.int32)

    return ValueNetwork(
        [
            ChannelNetwork(
                small(num_inputs(plane), hidden),
                large(sides[0], hidden),
                large(sides[1], hidden),
                small(hidden, hidden),
                large(hidden),
                small(hidden, hidden),
                large(hidden),
                small(hidden, 12),
                large(12),
            )
            for plane in range(planes)
        ]
    )


def smooth(shape, seed=0):
    """Pixels (planes, h, w) with edges and noise, as in images."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.integers(-9, 10, shape), axis=-1) + 40 * np.cumsum(
        rng.integers(0, 2, shape), axis=-2
    )
    return np.clip(values, 0, 255)


SHAPES = [(1, 1, 1), (1, 1, 9), (3, 9, 1), (2, 5, 4), (4, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("trained", [False, True])
def test_pixels_come_back(shape, trained):
    coder = MixingCoder((256,) * shape[0], random_network(shape[0]) if trained else None)
    images = np.stack(
        [smooth(shape), np.random.default_rng(1).integers(0, 256, shape), np.full(shape, 255)]
    )
    payloads = coder.encode(images)
    assert np.array_equal(coder.decode(payloads, shape[1:]), images)
    assert coder.encode(images[1:2]) == payloads[1:2], "each item is coded alone"


@pytest.mark.parametrize("sizes", [(1, 2, 3), (512,), (1 << 20, 5), (40, 12, 12, 7)])
@pytest.mark.parametrize("grid", [(1, 1), (7, 5)])
def test_codes_of_any_codebook_come_back_and_so_do_the_first_stages(sizes, grid):
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, (2, *grid)) for size in sizes], 1)
    codes[:, :, 0, 0] = np.array(sizes) - 1
    coder = MixingCoder(sizes)
    payloads = coder.encode(codes)
    assert np.array_equal(coder.decode(payloads, grid), codes)
    first = [item[:1] for item in payloads]
    assert np.array_equal(coder.decode(first, grid), codes[:, :1])


def test_any_bytes_decode_to_codes_that_exist():
    rng, sizes = np.random.default_rng(0), (5, 1, 300)
    found = MixingCoder(sizes).decode([[rng.bytes(40) for _ in sizes] for _ in range(4)], (6, 6))
    assert all(
        0 <= found[:, stage].min() and found[:, stage].max() < size
        for stage, size in enumerate(sizes)
    )


def test_what_repeats_becomes_cheap():
    """Codes that follow from their neighbours cost next to nothing, random ones not more than their
    bits.
    """
    rng = np.random.default_rng(0)
    row = rng.integers(0, 512, 16)
    rows = np.stack([np.roll(row, shift) for shift in range(32)])[None, None]
    noise = rng.integers(0, 512, (1, 1, 32, 16))
    sizes = [len(MixingCoder((512,)).encode(codes)[0][0]) for codes in (rows, noise)]
    assert sizes[0] < 0.4 * rows.size * 9 / 8 and sizes[1] < 1.08 * noise.size * 9 / 8


def test_a_photograph_without_a_network_is_smaller_than_its_png(photo):
    """Images that no model was trained on, from the first pixel without any knowledge."""
    picture = Image.open(photo).convert("L").resize((64, 64))
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    pixels = np.array(picture, np.int64)[None, None]
    assert len(MixingCoder((256,)).encode(pixels)[0][0]) < len(png.getvalue())


def test_a_photograph_in_colour_is_far_smaller_with_what_its_linear_prediction_learns(photo):
    """The network says nothing: all of its weights are 0."""
    picture = Image.open(photo).convert("RGB").resize((64, 64))
    pixels = np.array(picture, np.int64).transpose(2, 0, 1)[None]
    tensors = {name: 0 * values for name, values in random_network(3, 4).tensors().items()}
    predicted = MixingCoder((256,) * 3, ValueNetwork.from_tensors(tensors)).encode(pixels)
    alone = MixingCoder((256,) * 3).encode(pixels)
    assert sum(map(len, predicted[0])) < 0.8 * sum(map(len, alone[0]))


def test_the_linear_prediction_comes_near_least_squares():
    """Values that depend on their neighbours, and noise: squared errors of the last third, beside
    those of weights that least squares finds when it has seen everything.
    """
    rng = np.random.default_rng(0)
    padded = np.zeros((2, 46, 46), np.int64)
    padded[0, 3:-3, 3:-3] = rng.integers(60, 190, (40, 40))
    linear = first_linear([(0, 0, -1), (0, -1, 0), (0, -1, 1), (-1, 0, 0)], 40)
    given, values, predicted = [], [], []
    for y, x in product(range(3, 43), repeat=2):
        west, north, here = padded[1, y, x - 1], padded[1, y - 1, x], padded[0, y, x]
        padded[1, y, x] = np.clip(0.3 * west + 0.2 * north + 0.4 * here + rng.normal(0, 3), 0, 255)
        predict_value(padded, 1, y, x, linear)
        given.append(linear.given.copy())
        values.append(padded[1, y, x] - linear.noted[0])
        predicted.append(linear.noted[1] / 8 - linear.noted[0])
        learn_value(padded[1, y, x], y, x, linear)
    best = np.array(given) @ np.linalg.lstsq(np.array(given, float), np.array(values, float))[0]
    ours, theirs = (np.square(np.array(values) - one)[-533:].sum() for one in (predicted, best))
    assert theirs < ours < 1.1 * theirs


def test_squash_is_the_logistic_function_and_stretch_its_inverse():
    steps = np.arange(-LIMIT, LIMIT)
    exact = 65536 / (1 + 2.0 ** (-steps / 256))
    assert np.abs(SQUASH - exact).max() <= 1
    assert (SQUASH[STRETCH[1:65535] + LIMIT] >= np.arange(1, 65535))[: SQUASH.max()].all()
    inner = STRETCH[2:65535]
    assert (SQUASH[inner + LIMIT - 1] < np.arange(2, 65535)).all()


@pytest.mark.parametrize("plane", [0, 2])
def test_the_distribution_rises_from_0_to_all_and_gives_every_level_a_share(plane):
    network, rng = random_network(3), np.random.default_rng(0)
    values = rng.integers(0, 256, (64, len(neighbours(plane))))
    values[:4] = 0
    below = network.distribution(values, plane, np.arange(64) % 9, np.arange(64) % 11, (9, 11))
    assert (below[:, 0] == 0).all() and (below[:, -1] == 1 << 24).all()
    assert np.diff(below, axis=1).min() >= 256


@pytest.mark.parametrize("plane", [0, 1])
def test_the_twin_says_what_the_integers_cost(plane):
    """Bits by the twin, in floating point, and by the integers' distribution."""
    torch.manual_seed(0)
    twin, rng = ChannelTwin(plane, (6, 6)), np.random.default_rng(0)
    for parameter in twin.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    values = (
        rng.integers(0, 200, (200, 1)) + rng.integers(0, 40, (200, len(neighbours(plane))))
    ).clip(20)
    levels, places = (values[:, 0] + rng.integers(-20, 20, 200)).clip(0, 255), np.arange(200) % 6
    given = [torch.from_numpy(array) for array in (*inputs(values, plane), places, places, levels)]
    with torch.no_grad():
        expected = twin(*given).numpy() / math.log(2)
    network = ValueNetwork([ChannelTwin(0, (6, 6)).integers()] * plane + [twin.integers()])
    below = network.distribution(values, plane, places, places, (6, 6))
    bits = 24 - np.log2(below[np.arange(200), levels + 1] - below[np.arange(200), levels])
    likely = expected < 10
    assert likely.sum() > 100 and np.allclose(bits[likely], expected[likely], atol=0.2)
    assert abs((bits - expected)[likely].mean()) < 0.01


def broken(name, change):
    tensors = random_network().tensors()
    return tensors | {f"0.{name}": change(tensors[f"0.{name}"])}


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"0.first": np.zeros((49, 4), np.int16)},
        random_network(2).tensors() | {"2.first": np.zeros((1, 1), np.int16)},
        broken("first", lambda old: old[:-1]),
        broken("first", lambda old: old.astype(np.int32)),
        broken("last", lambda old: np.full_like(old, -32768)),
        broken("third", lambda old: old[:, :-1]),
        broken("rows", lambda old: old + (1 << 29)),
        broken("rows", lambda old: old[:0]),
        broken("columns", lambda old: old[0, 0]),
        broken("second_bias", lambda old: old[:0]),
    ],
)
def test_broken_networks_are_refused(tensors):
    with pytest.raises(ValueError):
        ValueNetwork.from_tensors(tensors)


def test_networks_are_read_as_they_were_written():
    network = random_network(2)
    images = smooth((2, 6, 5))[None]
    again = ValueNetwork.from_tensors(network.tensors())
    assert MixingCoder((256,) * 2, again).encode(images) == MixingCoder((256,) * 2, network).encode(
        images
    )


# ------------------------------------------------------------------------------- the second decoder


def one_file(coder, codes, holds, size, model_id=MODEL):
    payloads = coder.encode(codes[None])[0]
    stages = [Stage(crc, one) for crc, one in zip(stage_crcs(codes), payloads, strict=True)]
    return write_file(FileHeader(size, len(stages), MIXING, model_id, holds=holds), stages)


@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("trained", [False, True])
def test_the_second_decoder_reads_files_of_pixels(shape, trained):
    network = random_network(shape[0]) if trained else None
    data = one_file(MixingCoder((256,) * shape[0], network), smooth(shape), VALUES, shape[1:])
    tensors = save(network.tensors()) if network else None
    found = second.decode_file(
        data, tensors, lambda *size: size, lambda *a: Mixing(*a, (256,) * shape[0])
    )
    assert np.array_equal(found, smooth(shape))


@pytest.mark.parametrize("sizes", [(40, 12, 3), (1, 700)])
def test_the_second_decoder_reads_files_of_codes(sizes):
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, (4, 5)) for size in sizes])
    data = one_file(MixingCoder(sizes), codes, CODES, (32, 40), None)
    found = second.decode_file(data, None, lambda *size: (4, 5), lambda *a: Mixing(*a, sizes))
    assert np.array_equal(found, codes)


def test_the_second_decoder_reads_bundles_of_pixels():
    network, shapes = random_network(), [(1, 4, 5), (1, 4, 5), (1, 2, 3)]
    coder, images = (
        MixingCoder((256,), network),
        [smooth(shape, seed) for seed, shape in enumerate(shapes)],
    )
    header = BundleHeader(Extents(shape[1:] for shape in shapes), 1, MIXING, MODEL, 2, holds=VALUES)
    blocks = [
        Block(
            codes_crc(np.concatenate([image.ravel() for image in part]), number),
            tuple(tuple(coder.encode(image[None])[0]) for image in part),
        )
        for number, part in enumerate([images[:2], images[2:]])
    ]
    data = write_bundle(header, blocks)
    found = second.decode_bundle(
        data, save(network.tensors()), lambda *size: size, lambda *a: Mixing(*a, (256,))
    )
    assert all(np.array_equal(one, image) for one, image in zip(found, images, strict=True))


def test_pixels_under_the_integer_prior_are_not_known():
    data = bytearray(one_file(MixingCoder((256,)), smooth((1, 2, 2)), VALUES, (2, 2), None))
    assert read_file(bytes(data)).header.holds == VALUES
    data[4] = VALUES << 4
    with pytest.raises(NewerVersion):
        read_file(bytes(data))
    with pytest.raises(second.Refused, match="NewerVersion"):
        second.read_file(bytes(data))


# --------------------------------------------------------------------------- with and without numba

SCRIPT = """
import sys
if sys.argv[1] == "plain":
    sys.modules["numba"] = None
from tests.coding.test_context_mixing import random_network, smooth
from vqkit.coding import MixingCoder, ValueNetwork, kernels
import numpy as np
images = smooth((2, 20, 20))[None]
# All is certain, and then nothing: the largest numbers that the linear prediction comes upon.
hard = images[:, :1] * 0
hard[..., 12:, :] = 255 * np.random.default_rng(0).integers(0, 2, (8, 20))
network = random_network(2)
for coder, given in (
    (MixingCoder((256, 256), network), images),
    (MixingCoder((256,), ValueNetwork(network.channels[:1])), hard),
    (MixingCoder((256, 256)), images),
):
    payloads = coder.encode(given)
    assert np.array_equal(coder.decode(payloads, (20, 20)), given)
    print(*(one.hex() for one in payloads[0]))
print(kernels.usable(), file=sys.stderr)
"""


def test_the_bytes_are_the_same_with_numba_and_without():
    pytest.importorskip("numba")
    runs = []
    for how in ("plain", "compiled", "disabled"):
        variables = {"NUMBA_DISABLE_JIT": "1"} if how == "disabled" else {}
        runs.append(processes.run(["-c", SCRIPT, how], variables))
    assert [run.returncode for run in runs] == [0, 0, 0], runs
    assert [run.stderr.split()[-1] for run in runs] == ["False", "True", "False"]
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout and len(runs[0].stdout) > 100


def test_compiled_symbols_become_the_bytes_of_the_encoder():
    """So many that some carries run on over a byte of 255, which one in 256 of them does."""
    compiled = pytest.importorskip("vqkit.coding.rangecoder_kernel")
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 1 << rng.integers(1, 17, 40_000))
    symbols = np.stack([rng.integers(0, (1 << 16) - sizes + 1), sizes], 1)
    encoder, state, out = (
        RangeEncoder(),
        np.array([0, 1 << 32, 0]),
        np.zeros(2 * len(symbols), np.uint8),
    )
    for start, size in symbols.tolist():
        encoder.encode(start, size)
    for part in symbols.reshape(40, -1):
        compiled.encode_symbols(part, state, out)
    low, width, count = state.tolist()
    assert RangeEncoder(low, width, out[:count].tobytes()).finish() == encoder.finish()
