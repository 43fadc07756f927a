"""Both decoders give the same codes and refuse the same files, and the package writes what it
always wrote.
"""

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.coding import second_decoder as second
from tests.coding.second_mixing import Mixing
from tests.coding.second_scalar import Scalar
from tests.coding.test_integer_prior import random_codes, random_prior
from vqkit.coding import (
    BUNDLE,
    MIXING,
    TRANSFORMER,
    VALUES,
    Block,
    Bundle,
    BundleHeader,
    CorruptHeader,
    Extents,
    FileHeader,
    FormatError,
    MixingCoder,
    OutOfBounds,
    Parts,
    ScalarCoder,
    Stage,
    TransformerCoder,
    ValueNetwork,
    WrongModel,
    check_block,
    check_model,
    check_stages,
    codes_crc,
    describe,
    profile_of,
    read_file,
    stage_crcs,
    write_bundle,
    write_file,
)
from vqkit.coding.format.numbers import varint
from vqkit.coding.format.sections import section

GOLDEN = Path(__file__).parent / "golden"
MIXED = [
    "mixed-codes",
    "mixed-recording",
    "pixels",
    "pixels-untrained",
    "sequence-values",
    "volume-values",
]
SCALAR_NAMES = sorted(path.stem for path in GOLDEN.glob("scalar*.vq"))
PYRAMIDS = sorted(path.stem for path in GOLDEN.glob("pyramid*.vq"))
NAMES = sorted({path.stem for path in GOLDEN.glob("*.vq")} - {*MIXED, *SCALAR_NAMES, *PYRAMIDS})
MODEL = bytes(range(8))
BOTH_FIT = {
    "NewerVersion",
    "WrongProfile",
}  # a bare stream with a wrong bit becomes a bundle of an unknown coder


def grid_of(*extent):
    return tuple(-(-length // 8) for length in extent)


def coder_bytes(prior):
    return save({name: np.ascontiguousarray(values) for name, values in prior.tensors().items()})


def one_file(prior, codes, model_id=MODEL, name=None):
    """A file of codes (Q, h, w) of all stages of the prior."""
    payloads = prior.encode(codes[None])[0]
    stages = [Stage(crc, payload) for crc, payload in zip(stage_crcs(codes), payloads, strict=True)]
    height, width = codes.shape[1] * 8 - 5, codes.shape[2] * 8
    return write_file(FileHeader((height, width), len(stages), TRANSFORMER, model_id), stages, name)


def one_bundle(prior, items, block_size, names=None):
    """A bundle of codes, each (Q, h, w)."""
    sizes = Extents([(codes.shape[1] * 8, codes.shape[2] * 8 - 7) for codes in items])
    header = BundleHeader(sizes, len(prior.stages), TRANSFORMER, MODEL, block_size)
    blocks = []
    for number in range(header.num_blocks):
        part = [items[item] for item in header.items(number)]
        flat = np.concatenate([codes.ravel() for codes in part])
        payloads = tuple(tuple(prior.encode(codes[None])[0]) for codes in part)
        blocks.append(Block(codes_crc(flat, number), payloads))
    return write_bundle(header, blocks, names)


def checked_header(header, prior):
    """What the format leaves to those who know the model."""
    if header.coder != TRANSFORMER:
        raise NotImplementedError
    if header.num_codebooks > len(prior.stages):
        raise CorruptHeader("more stages than the model has")


def first_bundle(data, prior):
    """Codes of the items of the whole blocks, read with the package, and whether the bundle is cut
    off.
    """
    bundle, found = Bundle(data), []
    checked_header(bundle.header, prior)
    for number in range(bundle.whole_blocks):
        block, items = bundle.block(number), bundle.header.items(number)
        sizes = [bundle.header.extents[item] for item in items]
        part = [
            prior.decode([payloads], grid_of(*size))[0]
            for payloads, size in zip(block.payloads, sizes, strict=True)
        ]
        check_block(np.concatenate([codes.ravel() for codes in part]), number, block.crc)
        found += part
    return found, bundle.truncated


def first_file(data, prior):
    """As `first_bundle`, of one image."""
    file = read_file(data)
    checked_header(file.header, prior)
    codes = prior.decode([[stage.payload for stage in file.stages]], grid_of(*file.header.extent))[
        0
    ]
    check_stages(codes, [stage.crc for stage in file.stages])
    return [codes], file.truncated


def verdicts(data, prior, coder, bundle):
    """What each decoder makes of a file: the name of an error, or codes; and whether the package
    calls it cut off.
    """
    truncated = False
    try:
        first, truncated = (first_bundle if bundle else first_file)(data, prior)
    except (FormatError, NotImplementedError) as error:
        first = type(error).__name__
    try:
        other = (
            second.decode_bundle(data, coder, grid_of)
            if bundle
            else [second.decode_file(data, coder, grid_of)]
        )
    except second.Refused as error:
        other = error.kind
    except NotImplementedError as error:
        other = type(error).__name__
    return first, other, truncated


def same(left, right):
    """Whether two verdicts are one."""
    if isinstance(left, str) or isinstance(right, str):
        return (
            isinstance(left, str)
            and isinstance(right, str)
            and (left == right or {left, right} == BOTH_FIT)
        )
    return len(left) == len(right) and all(map(np.array_equal, left, right))


def agreed(data, prior, coder, bundle=False):
    """The verdict of both decoders, and whether the file is cut off."""
    first, other, truncated = verdicts(data, prior, coder, bundle)
    assert same(first, other), (data.hex(), first, other)
    return first, truncated


def test_the_second_decoder_shares_nothing_with_the_first():
    tree = ast.parse(Path(second.__file__).read_text())
    found = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found == {
        "collections.abc",
        "dataclasses",
        "itertools",
        "json",
        "math",
        "numpy",
        "types",
        "zlib",
    }


def test_the_examples_of_the_document():
    decoder = second.RangeDecoder(bytes.fromhex("2ffff8"))
    for start, frequency in [(0, 16384), (16384, 32768), (65535, 1), (49152, 16384)]:
        assert start <= decoder.target() < start + frequency
        decoder.advance(start, frequency)
    data = bytes.fromhex(
        "96767111 0001020304050607 01 1c ac02 01 433130fa 02 05 612e706e67 01 05 d7975e16 ab"
    )
    header, bodies, _ = second.read_file(data)
    assert (
        header.runs == [(1, (28, 300))] and header.stages == 1 and second.file_name(data) == "a.png"
    )
    assert bodies == [second.codes_crc([np.array([5, 6])], 0).to_bytes(4, "little") + b"\xab"]


@pytest.mark.parametrize("sizes", [(40,), (40, 12), (12, 40, 2, 300, 7)])
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (7, 5), (2, 9)])
@pytest.mark.parametrize("model_id", [MODEL, None])
def test_files(sizes, grid, model_id):
    prior = random_prior(sizes)
    codes = random_codes(1, sizes, grid)[0]
    data = one_file(prior, codes, model_id, "ä/b.png")
    found, truncated = agreed(data, prior, coder_bytes(prior))
    assert np.array_equal(found[0], codes) and not truncated
    assert second.file_name(data) == "ä/b.png"


def test_wide_layers():
    """The largest sums that the format allows."""
    prior = random_prior((500, 500), length=31, channels=1024)
    codes = random_codes(1, (500, 500))[0]
    found, _ = agreed(one_file(prior, codes), prior, coder_bytes(prior))
    assert np.array_equal(found[0], codes)


def test_grids_with_more_codes_than_attention_sees():
    prior, codes = random_prior(channels=32), random_codes(1, grid=(22, 31))[0]
    found, _ = agreed(one_file(prior, codes), prior, coder_bytes(prior))
    assert np.array_equal(found[0], codes)


def test_a_file_of_the_first_stages_of_a_model():
    prior, codes = random_prior(), random_codes(1)[0]
    first = TransformerCoder(prior.grid, prior.vectors[:1], prior.stages[:1])
    found, truncated = agreed(one_file(first, codes[:1]), prior, coder_bytes(prior))
    assert np.array_equal(found[0], codes[:1]) and not truncated
    assert agreed(one_file(prior, codes), first, coder_bytes(first))[0] == "CorruptHeader"


@pytest.mark.parametrize("model_id", [MODEL, None])
def test_files_that_are_cut_off(model_id):
    sizes = (40, 12, 30)
    prior, codes = random_prior(sizes), random_codes(1, sizes)[0]
    data, counts = one_file(prior, codes, model_id, "a.png"), set()
    for end in range(len(data)):
        found, truncated = agreed(data[:end], prior, coder_bytes(prior))
        if not isinstance(found, str):
            assert truncated and np.array_equal(found[0], codes[: len(found[0])])
            counts.add(len(found[0]))
    assert counts == {1, 2}


def mixed_items():
    """Codes of items with three grids, in runs and alone."""
    grids = [(3, 4), (3, 4), (2, 2), (5, 3), (5, 3), (5, 3), (3, 4)]
    return [random_codes(1, grid=grid, seed=number)[0] for number, grid in enumerate(grids)]


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 256])
def test_bundles(block_size):
    prior, items = random_prior(), mixed_items()
    names = [f"{number}.png" for number in range(len(items))]
    data = one_bundle(prior, items, block_size, names)
    found, truncated = agreed(data, prior, coder_bytes(prior), bundle=True)
    assert same(found, items) and not truncated
    assert second.bundle_names(data) == names == Bundle(data).names()


def test_bundles_that_are_cut_off():
    prior, items = random_prior(), mixed_items()
    data, counts = one_bundle(prior, items, 3, ["a", "b", "c", "d", "e", "f", "g"]), set()
    for end in range(0, len(data), 3):
        found, truncated = agreed(data[:end], prior, coder_bytes(prior), bundle=True)
        if not isinstance(found, str):
            assert same(found, items[: len(found)])
            assert truncated or len(found) == 7
            counts.add(len(found))
    assert counts == {3, 6, 7}


def flipped(data):
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def small_files():
    prior, codes = random_prior(), random_codes(1, grid=(2, 2))[0]
    yield "file", one_file(prior, codes, name="a.png"), [codes]
    yield "bare", one_file(prior, codes, None), [codes]
    yield "truncated", one_file(prior, codes)[:-2], [codes[:1]]
    items = [
        random_codes(1, grid=grid, seed=number)[0]
        for number, grid in enumerate([(1, 2), (1, 2), (2, 1)])
    ]
    yield "bundle", one_bundle(prior, items, 2, ["a", "b", "c"]), items


@pytest.mark.parametrize("case", range(4))
def test_one_wrong_bit_is_found_by_both(case):
    """Refused, or the same codes; a wrong length may look like a file that was cut off, and then it
    is called so.
    """
    prior = random_prior()
    coder = coder_bytes(prior)
    _, data, right = list(small_files())[case]
    bundle = profile_of(data) == BUNDLE
    for changed in flipped(data):
        found, truncated = agreed(changed, prior, coder, bundle)
        if isinstance(found, str):
            continue
        if bundle:
            assert same(found, right[: len(found)]) and (truncated or len(found) == len(right))
        else:
            assert np.array_equal(found[0], right[0][: len(found[0])])
            assert truncated or len(found[0]) == len(right[0])


def test_broken_coders_are_refused():
    prior = random_prior()
    data, coder = one_file(prior, random_codes(1)[0]), coder_bytes(prior)
    for broken in (b"", coder[:-1], coder[:100], (1 << 40).to_bytes(8, "little") + coder[8:]):
        with pytest.raises(ValueError):
            second.decode_file(data, broken, grid_of)


def make_golden():
    path = Path(__file__).parents[2] / "scripts" / "make_golden.py"
    spec = importlib.util.spec_from_file_location("make_golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_golden_files_are_those_of_the_script():
    script = make_golden()
    assert NAMES == sorted(script.GOLDEN) and script.FOLDER == GOLDEN
    assert sorted(script.MIXED_FILES) == MIXED
    assert sorted(script.SCALAR_FILES) == SCALAR_NAMES
    assert sorted(script.PYRAMID_FILES) == PYRAMIDS
    assert [path.stem for path in GOLDEN.glob("*.npz")] == [script.SCALAR_CODER]
    coders = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))
    assert coders == sorted([*script.CODERS, script.NETWORK])
    sizes = {path.name: path.stat().st_size for path in GOLDEN.iterdir()}
    recordings = sum(sizes.pop(name) for name in list(sizes) if "recording" in name)
    scalar = sum(sizes.pop(name) for name in list(sizes) if name.startswith("scalar"))
    assert sum(sizes.values()) < 60_000 and scalar < 25_000 and recordings < 5_000


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_are_still_written_and_read(name):
    script, data, codes = (
        make_golden(),
        (GOLDEN / f"{name}.vq").read_bytes(),
        np.load(GOLDEN / f"{name}.npy"),
    )
    golden = script.GOLDEN[name]
    coder = (GOLDEN / f"{golden.coder}.safetensors").read_bytes()
    prior = TransformerCoder.from_tensors(load(coder))
    assert script.make_file(name, prior, codes) == data
    found, truncated = agreed(data, prior, coder, bundle=golden.items > 0)
    assert truncated == (golden.lost > 0)
    assert all(
        np.array_equal(one, wanted[: len(one)]) for one, wanted in zip(found, codes, strict=False)
    )
    assert truncated or (len(found) == len(codes) and found[0].shape == codes[0].shape)


@pytest.mark.parametrize("name", MIXED)
def test_golden_files_of_context_mixing_are_still_written_and_read(name):
    """With the network of the golden folder: that of the script is made of random numbers, which
    NumPy may change.
    """
    script, data, codes = (
        make_golden(),
        (GOLDEN / f"{name}.vq").read_bytes(),
        np.load(GOLDEN / f"{name}.npy"),
    )
    golden, tensors = (
        script.MIXED_FILES[name],
        (GOLDEN / f"{script.NETWORK}.safetensors").read_bytes(),
    )
    network = ValueNetwork.from_tensors(load(tensors)) if golden.has_network else None
    file, coder = read_file(data), MixingCoder(golden.num_codes, network)
    assert (file.header.extent, file.header.signal) == (golden.extent, golden.signal)
    payloads = [stage.payload for stage in file.stages]
    assert np.array_equal(coder.decode([payloads], codes.shape[2:]), codes)
    assert coder.encode(codes.astype(np.int64)) == [payloads]
    found = second.decode_file(
        data,
        tensors if network else None,
        lambda *size: codes.shape[2:],
        lambda *given: Mixing(*given, golden.num_codes),
    )
    assert np.array_equal(found, codes[0])


@pytest.mark.parametrize("name", SCALAR_NAMES)
def test_golden_files_of_scalar_codes_are_still_written_and_read(name):
    """With the coder of the golden folder: how one is fitted is not part of the format."""
    script = make_golden()
    data = (GOLDEN / f"{name}.vq").read_bytes()
    codes = np.load(GOLDEN / f"{name}.npy")
    golden = script.SCALAR_FILES[name]
    tensors = dict(np.load(GOLDEN / f"{script.SCALAR_CODER}.npz"))
    fitted = ScalarCoder.from_tensors(tensors)
    assert script.make_scalar(name, fitted, codes) == data
    coder = save(tensors) if golden.is_fitted else None

    def make(*given):
        return Scalar(*given, golden.shape)

    num_stages, channels, _ = golden.shape
    if golden.part:
        parts = second.decode_parts(data, coder, grid_of, make)
        count = 2 if golden.lost else 3
        assert len(parts) == count and Parts(data).truncated == (golden.lost > 0)
        staged = codes.reshape(num_stages, channels, -1)[..., : count * golden.part]
        assert np.array_equal(np.concatenate(parts, -1), staged)
        return
    if golden.items:
        found = second.decode_bundle(data, coder, grid_of, make)
    else:
        found = [second.decode_file(data, coder, grid_of, make)]
    kept = golden.stages or num_stages - (golden.lost > 0)
    wanted = codes.reshape(-1, num_stages, channels, *golden.grid)[:, :kept]
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_golden_files_of_several_grids_are_still_written_and_read(name):
    """Every stage on its own grid, in both decoders."""
    script = make_golden()
    golden = script.PYRAMID_FILES[name]
    data = (GOLDEN / f"{name}.vq").read_bytes()
    codes = np.load(GOLDEN / f"{name}.npy")
    tensors = (GOLDEN / "coder-three.safetensors").read_bytes()
    prior = TransformerCoder.from_tensors(load(tensors))
    assert script.make_pyramid(name, prior, codes) == data
    sides = golden.sides
    if golden.coder == MIXING:
        coder = MixingCoder(golden.num_codes, sides=sides)

        def make(_, header):
            return Mixing(None, header, golden.num_codes, sides)

    else:
        coder = replace(prior.first(len(sides)), sides=sides)

        def make(data, header):
            return second.Prior(data, header, sides)

    if golden.items:
        found = second.decode_bundle(data, tensors, grid_of, make)
        bundle = Bundle(data)
        blocks = map(bundle.block, range(bundle.whole_blocks))
        payloads = [item for block in blocks for item in block.payloads]
    else:
        found = [second.decode_file(data, tensors, grid_of, make)]
        payloads = [[stage.payload for stage in read_file(data).stages]]
    kept = len(sides) - (golden.lost > 0)
    # By hand: the code of a fine position is that of its place within the cell.
    for item, one in enumerate(found):
        assert len(one) == kept
        place = 0
        for stage, side in zip(one, sides, strict=False):
            for where in np.ndindex(stage.shape):
                within = [index % side for index in where]
                inside = np.ravel_multi_index(within, [side] * len(where))
                cell = tuple(index // side for index in where)
                assert stage[where] == codes[(item, place + inside, *cell)]
            place += side ** len(golden.grid)
    decoded = coder.decode(payloads, golden.grid)
    assert np.array_equal(decoded, codes[:, : decoded.shape[1]])
    assert decoded.shape[1] == place


# ------------------------------------------------------------------------ other signals than images

EXTENTS = [(1, (9,)), (2, (3, 5)), (3, (2, 3, 4)), (7, (2, 1, 3, 2)), (4, (1, 1, 1))]


@pytest.mark.parametrize(("signal", "grid"), EXTENTS)
def test_files_and_bundles_of_any_number_of_dimensions(signal, grid):
    """Both decoders, of files and bundles; the bytes of stages are those of rows and columns by
    hand.
    """
    prior = random_prior()
    codes = random_codes(3, grid=grid)
    payloads = prior.encode(codes)
    rows = codes.reshape(3, 2, -1, grid[-1])
    assert prior.encode(rows) == payloads
    assert np.array_equal(prior.decode(payloads, grid), codes)
    extent = tuple(8 * side - 5 for side in grid)
    stages = [
        Stage(crc, payload) for crc, payload in zip(stage_crcs(codes[0]), payloads[0], strict=True)
    ]
    header = FileHeader(extent, 2, TRANSFORMER, MODEL, signal)
    data = write_file(header, stages)
    assert read_file(data).header == header
    found, _ = agreed(data, prior, coder_bytes(prior))
    assert np.array_equal(found[0], codes[0])
    several = BundleHeader(Extents([extent] * 3), 2, TRANSFORMER, MODEL, 2, signal)
    blocks = [
        Block(codes_crc(codes[:2], 0), tuple(map(tuple, payloads[:2]))),
        Block(codes_crc(codes[2:], 1), (tuple(payloads[2]),)),
    ]
    data = write_bundle(several, blocks)
    found, _ = agreed(data, prior, coder_bytes(prior), bundle=True)
    assert same(found, list(codes))
    assert describe(data).positions == 3 * np.prod(extent)


@pytest.mark.parametrize(("signal", "grid"), EXTENTS)
def test_context_mixing_of_any_number_of_dimensions(signal, grid):
    codes = random_codes(2, grid=grid)
    coder = MixingCoder((40, 12))
    payloads = coder.encode(codes)
    assert coder.encode(codes.reshape(2, 2, -1, grid[-1])) == payloads
    assert np.array_equal(coder.decode(payloads, grid), codes)
    stages = [
        Stage(crc, payload) for crc, payload in zip(stage_crcs(codes[0]), payloads[0], strict=True)
    ]
    data = write_file(FileHeader(grid, 2, MIXING, MODEL, signal, VALUES), stages)
    found = second.decode_file(
        data, None, lambda *extent: extent, lambda *given: Mixing(*given, (40, 12))
    )
    assert np.array_equal(found, codes[0])


def start_of(signal, numbers):
    """A bare stream of that signal with these numbers behind its beginning, and a stage."""
    written = b"\x96vq\x10" + bytes([2 * signal << 4]) + b"".join(map(varint, numbers))
    return written + section(1, bytes(4) + b"abc")


OUTSIDE = [
    (0, (1 << 20 | 1, 1, 1)),
    (0, (1 << 14, 1 << 15, 1)),
    (1, (0, 5, 1)),
    (1, (5, 1, 1, 1, 1, 1, 1)),
    (1, (1, (1 << 33) + 1, 1)),
    (1, (1, 0, 1)),
    (2, (4, 1 << 8, 1 << 8, 1 << 8, 1 << 10, 1)),
    (2, (3, 1 << 27, 1 << 27, 1 << 27, 1)),
]


@pytest.mark.parametrize(("signal", "numbers"), OUTSIDE)
def test_extents_have_bounds_in_both_decoders(signal, numbers):
    data = start_of(signal, numbers)
    with pytest.raises(OutOfBounds):
        read_file(data)
    with pytest.raises(second.Refused, match="OutOfBounds"):
        second.read_file(data)


def test_the_largest_extents_are_read():
    for signal, extent in (
        (0, (1 << 20, 1 << 8)),
        (1, (1 << 33,)),
        (5, (1, 1 << 17, 1, 1 << 16)),
    ):
        axes = (len(extent),) if signal else ()
        data = start_of(signal, (*axes, *extent, 1))
        assert read_file(data).header.extent == extent
        assert second.read_file(data)[0].runs == [(1, extent)]


@pytest.mark.parametrize(("signal", "extent"), [(0, (5,)), (0, (1, 1, 1)), (1, ()), (3, (1,) * 5)])
def test_an_extent_that_its_signal_cannot_have_is_refused(signal, extent):
    with pytest.raises(ValueError, match="extents"):
        write_file(FileHeader(extent, 1, TRANSFORMER, MODEL, signal), [Stage(0, b"")])
    with pytest.raises(ValueError, match="extents"):
        write_bundle(
            BundleHeader(Extents([extent]), 1, TRANSFORMER, MODEL, 1, signal), [Block(0, ((b"",),))]
        )


def test_extents_of_one_bundle_have_as_many_axes():
    with pytest.raises(ValueError, match="axes"):
        Extents([(3, 4), (3,)])


def test_another_signal_is_not_of_this_model():
    file = read_file(write_file(FileHeader((5,), 1, MIXING, MODEL, 3), [Stage(0, b"")]))
    check_model(file.header.kind, MODEL, 3)
    with pytest.raises(WrongModel, match="signal 3"):
        check_model(file.header.kind, MODEL, 1)
