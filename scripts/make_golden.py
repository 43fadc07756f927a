"""Writes tests/coding/golden: .vq files, what is in them as .npy, and the weights of their coder.

    python scripts/make_golden.py

Only this script writes these files. They pin version 1 of the format: that the package still writes
exactly these bytes, and that both decoders read them, is tested in
tests/coding/test_second_decoder.py. Other bytes are another format, so do not run this to make a
test pass.

A file NAME.vq has its codes (items, stages, *grid), uint16, in NAME.npy. All of them use
coder.safetensors, which has two stages, but for three-stages.vq, which uses
coder-three.safetensors as those of several grids, `PYRAMID_FILES`, of coder 0 do; the files of
context mixing, `MIXED_FILES`, of which two use lossless.safetensors, and those of scalar codes,
`SCALAR_FILES`, of which most use the tensors in scalar-coder.npz: a megabyte that is nearly all
alike, packed. Signal 0 is images; the others stand
for any signals.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from vqkit.coding import (
    CODES,
    MIXING,
    SCALAR,
    TRANSFORMER,
    UNIT_GAIN,
    VALUES,
    Block,
    BundleHeader,
    Extents,
    FileHeader,
    MixingCoder,
    Part,
    PartsHeader,
    ScalarCoder,
    Stage,
    TransformerCoder,
    ValueNetwork,
    codes_crc,
    stage_crcs,
    write_bundle,
    write_file,
    write_parts,
)
from vqkit.coding.codes.transformer import StageTransformer, TransformerLayer
from vqkit.coding.codes.transformer_coder import context_offsets
from vqkit.coding.grids import finer, join, split
from vqkit.coding.values.network import MIXED, ChannelNetwork, num_inputs

FOLDER = Path(__file__).parents[1] / "tests/coding/golden"
MODEL = bytes.fromhex("a1b2c3d4e5f60718")
TRAINED = (3, 4)  # grid of training
LENGTH = 6
CHANNELS = 32
HIDDEN = 16
CODERS = {"coder": (40, 12), "coder-three": (40, 12, 25)}  # codes of each stage


@dataclass(frozen=True)
class Golden:
    """grid: of codes, of an item that is 8 times as long along each axis. items, block_size: of a
    bundle.

    lost: bytes that are cut off from the end.
    """

    stages: int
    grid: tuple[int, ...] = TRAINED
    coder: str = "coder"
    name: str | None = None
    bare: bool = False
    items: int = 0
    block_size: int = 256
    lost: int = 0
    signal: int = 0

    @property
    def extent(self) -> tuple[int, ...]:
        """Of the original item; not a multiple of 8."""
        return self.grid[0] * 8 - 3, *(side * 8 for side in self.grid[1:])


GOLDEN = {
    "one-stage": Golden(1),
    "two-stages": Golden(2, name="pictures/ä.png"),
    "three-stages": Golden(3, coder="coder-three"),
    "bare": Golden(2, bare=True),
    "odd-grid": Golden(2, (7, 5)),
    "single-code": Golden(2, (1, 1)),
    "truncated": Golden(2, (5, 6), name="cut.png", lost=7),
    "bundle": Golden(2, items=7, block_size=3, name="{}.png"),
    "truncated-bundle": Golden(1, items=5, block_size=2, lost=3),
    "sequence": Golden(2, (11,), name="sound.wav", signal=1),
    "volume": Golden(2, (2, 2, 3), name="volume.npy", signal=2),
    "sequence-bundle": Golden(1, (5,), items=5, block_size=2, name="{}.wav", signal=1),
    # Longer than attention sees.
    "recording": Golden(3, (270,), coder="coder-three", name="talk.wav", signal=1),
    "volume-bundle": Golden(1, (2, 1, 2, 2), items=4, block_size=3, name="{}.npy", signal=7),
}


@dataclass(frozen=True)
class GoldenMixed:
    """A file of context mixing. num_codes: K of each stage. grid: of codes, or the extent of the
    values.
    """

    num_codes: tuple[int, ...]
    grid: tuple[int, ...] = (9, 11)
    signal: int = 0
    holds: int = VALUES
    has_network: bool = False

    @property
    def extent(self) -> tuple[int, ...]:
        """Of the original item."""
        return self.grid if self.holds == VALUES else tuple(8 * side for side in self.grid)


MIXED_FILES = {
    "mixed-codes": GoldenMixed((300, 5), holds=CODES),
    "pixels-untrained": GoldenMixed((256,)),
    "pixels": GoldenMixed((256,) * 3, has_network=True),
    "sequence-values": GoldenMixed((256,), (70,), signal=1),
    "mixed-recording": GoldenMixed((300, 5, 40), (61,), signal=1, holds=CODES),
    "volume-values": GoldenMixed((256,) * 3, (2, 3, 7), signal=2, has_network=True),
}
NETWORK = "lossless"


@dataclass(frozen=True)
class GoldenScalar:
    """A file of scalar codes: S, C and K, and whether its coder was fitted. grid: of codes, of an
    item that is 8 times as long along each axis.

    items: of a bundle, in blocks of 2. part: positions of each part but the last, of an item in
    parts. lost: bytes that are cut off from the end.
    """

    shape: tuple[int, int, int]
    is_fitted: bool = False
    grid: tuple[int, ...] = (3, 4)
    stages: int = 0
    items: int = 0
    lost: int = 0
    signal: int = 0
    gain: int = UNIT_GAIN
    part: int = 0

    @property
    def extent(self) -> tuple[int, ...]:
        """Of the original item."""
        return tuple(8 * side for side in self.grid)


@dataclass(frozen=True)
class GoldenPyramid:
    """A file whose stages have grids of several resolutions. coder: transformer or context mixing.
    grid: of codes, of an item that is 8 times as long along each axis. sides: of each stage, how
    many times finer its grid is.

    items: of a bundle, in blocks of 2. lost: bytes that are cut off from the end.
    """

    grid: tuple[int, ...]
    coder: int = TRANSFORMER
    sides: tuple[int, ...] = (1, 2, 4)
    items: int = 0
    lost: int = 0
    signal: int = 0

    @property
    def num_codes(self) -> tuple[int, ...]:
        """K of each stage."""
        return CODERS["coder-three"][: len(self.sides)]

    @property
    def extent(self) -> tuple[int, ...]:
        """Of the original item."""
        return tuple(8 * side for side in self.grid)


PYRAMID_FILES = {
    "pyramid": GoldenPyramid((2, 1)),
    "pyramid-truncated": GoldenPyramid((1, 2), lost=2),
    "pyramid-bundle": GoldenPyramid((1, 1), items=3),
    "pyramid-volume": GoldenPyramid((1, 2, 1), sides=(1, 2), signal=2),
    "pyramid-mixed": GoldenPyramid((2, 3), MIXING),
    "pyramid-mixed-sequence": GoldenPyramid((7,), MIXING, signal=1),
}


def make_pyramid_codes(name: str) -> np.ndarray:
    """(items, Q, *grid), those of each stage random around the code of the position that holds
    them.
    """
    golden = PYRAMID_FILES[name]
    rng = np.random.default_rng(list(name.encode()))
    stages: list[np.ndarray] = []
    for size, side in zip(golden.num_codes, golden.sides, strict=True):
        grid = [side * length for length in golden.grid]
        codes = rng.integers(0, 4, (max(1, golden.items), *grid))
        if stages:
            codes += finer(stages[-1], side // golden.sides[len(stages) - 1])
        stages.append(codes % size)
    return join(stages, golden.sides, golden.grid).astype(np.uint16)


def make_pyramid(name: str, prior: TransformerCoder, codes: np.ndarray) -> bytes:
    """The bytes of a golden file of several grids, with a coder that has at least its stages."""
    golden = PYRAMID_FILES[name]
    coder: TransformerCoder | MixingCoder = MixingCoder(golden.num_codes, sides=golden.sides)
    if golden.coder == TRANSFORMER:
        coder = replace(prior.first(len(golden.sides)), sides=golden.sides)
    payloads = coder.encode(codes.astype(np.int64))
    stages = split(codes, golden.sides)
    if golden.items:
        extents = Extents([golden.extent] * golden.items)
        header = BundleHeader(extents, len(stages), golden.coder, MODEL, 2, golden.signal)
        blocks = []
        for number in range(header.num_blocks):
            items = header.items(number)
            flat = [stage[item].ravel() for item in items for stage in stages]
            crc = codes_crc(np.concatenate(flat), number)
            parts = payloads[items.start : items.stop]
            blocks.append(Block(crc, tuple(map(tuple, parts))))
        return write_bundle(header, blocks, [f"{item}.png" for item in range(golden.items)])
    written = []
    sums = stage_crcs([stage[0] for stage in stages])
    for crc, payload in zip(sums, payloads[0], strict=True):
        written.append(Stage(crc, payload))
    header = FileHeader(golden.extent, len(stages), golden.coder, MODEL, golden.signal)
    data = write_file(header, written, f"{name}.png")
    return data[: len(data) - golden.lost]


SCALAR_SHAPE = (3, 9, 63)
SCALAR_FILES = {
    "scalar": GoldenScalar(SCALAR_SHAPE, is_fitted=True),
    "scalar-untrained": GoldenScalar((1, 2, 1023), grid=(4, 3)),
    "scalar-first-stage": GoldenScalar(SCALAR_SHAPE, is_fitted=True, stages=1, gain=115),
    "scalar-truncated": GoldenScalar(SCALAR_SHAPE, is_fitted=True, lost=3),
    "scalar-bundle": GoldenScalar(SCALAR_SHAPE, is_fitted=True, grid=(2, 2), items=3, gain=255),
    "scalar-recording": GoldenScalar(SCALAR_SHAPE, is_fitted=True, grid=(19,), signal=1, gain=120),
    "scalar-volume": GoldenScalar((2, 17, 3), grid=(2, 2, 3), signal=2),
    "scalar-parts": GoldenScalar(
        SCALAR_SHAPE, is_fitted=True, grid=(9,), signal=1, gain=110, part=4
    ),
    "scalar-parts-truncated": GoldenScalar(
        SCALAR_SHAPE, is_fitted=True, grid=(9,), signal=1, part=4, lost=30
    ),
}
SCALAR_CODER = "scalar-coder"


def make_scalar_codes(name: str) -> np.ndarray:
    """(items, S * C, *grid): few codes beside the middle one, in the last channels next to none,
    rising lines in channel 0, and the outermost codes in a corner.
    """
    golden = SCALAR_FILES[name]
    rng = np.random.default_rng(list(name.encode()))
    num_stages, channels, levels = golden.shape
    shape = (max(1, golden.items), num_stages, channels, *golden.grid)
    spread = 4 / (1 + np.arange(channels)).reshape(channels, *[1] * len(golden.grid))
    values = np.round(rng.laplace(0, 1, shape) * spread).astype(np.int64)
    values[:, 0, 0] = np.cumsum(values[:, 0, 0], -1)
    values[:, 0, 0].reshape(len(values), -1)[:, :3] = levels // 2, -levels, levels
    middle = levels // 2
    codes = values.clip(-middle, middle) + middle
    return codes.reshape(len(values), -1, *golden.grid).astype(np.uint16)


def make_scalar_coder() -> ScalarCoder:
    """Fitted to the codes of its first file."""
    codes = make_scalar_codes("scalar").astype(np.int64)
    return ScalarCoder.new(*SCALAR_SHAPE).fitted([*codes, *codes])


def make_scalar(name: str, fitted: ScalarCoder, codes: np.ndarray) -> bytes:
    """The bytes of a golden file of scalar codes."""
    golden = SCALAR_FILES[name]
    coder = fitted if golden.is_fitted else ScalarCoder.new(*golden.shape)
    num_stages, channels, _ = golden.shape
    if golden.part:
        return make_in_parts(name, coder, codes.astype(np.int64))
    payloads = coder.encode(codes.astype(np.int64))
    if golden.items:
        header = BundleHeader(
            Extents([golden.extent] * golden.items),
            num_stages,
            SCALAR,
            MODEL,
            2,
            golden.signal,
            gain=golden.gain,
        )
        blocks = []
        for number in range(header.num_blocks):
            part = slice(header.items(number).start, header.items(number).stop)
            crc = codes_crc(codes[part], number)
            blocks.append(Block(crc, tuple(map(tuple, payloads[part]))))
        return write_bundle(header, blocks, [f"{item}.png" for item in range(golden.items)])
    kept = golden.stages or num_stages
    staged = codes.reshape(num_stages, -1)[:kept]
    stages = []
    for crc, payload in zip(stage_crcs(staged), payloads[0][:kept], strict=True):
        stages.append(Stage(crc, payload))
    header = FileHeader(golden.extent, kept, SCALAR, MODEL, golden.signal, gain=golden.gain)
    data = write_file(header, stages, f"{name}.png")
    return data[: len(data) - golden.lost]


def make_in_parts(name: str, coder: ScalarCoder, codes: np.ndarray) -> bytes:
    golden = SCALAR_FILES[name]
    parts = []
    for number, first in enumerate(range(0, *golden.grid, golden.part)):
        part = codes[..., first : first + golden.part]
        (payloads,) = coder.encode(part)
        parts.append(Part(codes_crc(part, number), tuple(payloads)))
    header = PartsHeader(
        *golden.extent,
        8 * golden.part,
        golden.shape[0],
        SCALAR,
        MODEL,
        golden.signal,
        golden.gain,
    )
    data = write_parts(header, parts, f"{name}.wav")
    return data[: len(data) - golden.lost]


def make_network() -> ValueNetwork:
    """Random weights of three channels, which bring every clip and rounding about; a few are the
    largest there are.
    """
    rng = np.random.default_rng(7)
    width = 8

    def weights(*shape: int) -> np.ndarray:
        found = rng.integers(-600, 601, shape).astype(np.int16)
        found.flat[:: found.size // 3] = 32767
        return found

    def biases(*shape: int) -> np.ndarray:
        return rng.integers(-(1 << 17), 1 << 17, shape).astype(np.int32)

    return ValueNetwork(
        [
            ChannelNetwork(
                weights(num_inputs(plane), width),
                biases(5, width),
                biases(4, width),
                weights(width, width),
                biases(width),
                weights(width, width),
                biases(width),
                weights(width, 3 * MIXED),
                biases(3 * MIXED),
            )
            for plane in range(3)
        ]
    )


def make_mixed(name: str, network: ValueNetwork) -> tuple[bytes, np.ndarray]:
    """A golden file of context mixing and its codes (1, stages, *grid): rising lines with noise."""
    golden = MIXED_FILES[name]
    rng = np.random.default_rng(list(name.encode()))
    num_codes = golden.num_codes
    shape = (len(num_codes), *golden.grid)
    steps = np.cumsum(rng.integers(0, 9, shape), -1) + rng.integers(0, 3, shape)
    codes = steps % np.array(num_codes).reshape(-1, *[1] * len(golden.grid))
    coder = MixingCoder(num_codes, network if golden.has_network else None)
    payloads = coder.encode(codes[None])[0]
    stages = [Stage(crc, one) for crc, one in zip(stage_crcs(codes), payloads, strict=True)]
    header = FileHeader(golden.extent, len(num_codes), MIXING, MODEL, golden.signal, golden.holds)
    data = write_file(header, stages, f"{name}.png")
    return data, codes[None].astype(np.uint16)


def grid_of(*extent: int) -> tuple[int, ...]:
    """What the model would know: a code for every 8 positions along each axis."""
    return tuple(-(-length // 8) for length in extent)


def make_coder(name: str) -> TransformerCoder:
    """Random weights over their whole range, so that every clip and rounding takes place; of two
    layers to none.
    """
    rng = np.random.default_rng(len(CODERS[name]))
    sizes = CODERS[name]

    def bytes_of(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape).astype(np.int8)

    def biases(*shape: int) -> np.ndarray:
        return rng.integers(-(1 << 16), 1 << 16, shape).astype(np.int32)

    def layer() -> TransformerLayer:
        shapes = (
            (CHANNELS, 3 * CHANNELS),
            (CHANNELS, CHANNELS),
            (CHANNELS, HIDDEN),
            (HIDDEN, CHANNELS),
        )
        return TransformerLayer(*(bytes_of(*shape) for shape in shapes))

    stages = [
        StageTransformer(
            np.array(offsets),
            bytes_of(len(offsets) * LENGTH, CHANNELS),
            biases(TRAINED[0], CHANNELS),
            biases(TRAINED[1], CHANNELS),
            tuple(layer() for _ in range(max(0, 4 - len(sizes) - number))),
            bytes_of(CHANNELS, size) // 16,
            biases(size) // 64,
        )
        for number, (offsets, size) in enumerate(
            zip(map(context_offsets, range(len(sizes))), sizes, strict=True)
        )
    ]
    return TransformerCoder(TRAINED, [bytes_of(size + 1, LENGTH) for size in sizes], stages)


def make_codes(name: str) -> np.ndarray:
    """(items, stages, *grid): random, but every second item of a bundle has code 3 alone."""
    golden = GOLDEN[name]
    rng = np.random.default_rng(list(name.encode()))
    shape = (max(1, golden.items), *golden.grid)
    codes = np.stack(
        [rng.integers(0, size, shape) for size in CODERS[golden.coder][: golden.stages]], 1
    )
    codes[1::2] = 3
    return codes.astype(np.uint16)


def item_extents(golden: Golden) -> list[tuple[int, ...]]:
    """Of the items of a bundle: the last two are shorter than the others, which their grid does not
    show.
    """
    first, *others = golden.extent
    return [golden.extent] * (golden.items - 2) + [(first - 1, *others)] * 2


def make_file(name: str, prior: TransformerCoder, codes: np.ndarray) -> bytes:
    """The bytes of a golden file, with a coder that has at least its stages."""
    golden = GOLDEN[name]
    first = TransformerCoder(
        prior.grid, prior.vectors[: golden.stages], prior.stages[: golden.stages]
    )
    payloads = first.encode(codes.astype(np.int64))
    if golden.items:
        extents = Extents(item_extents(golden))
        header = BundleHeader(
            extents, golden.stages, TRANSFORMER, MODEL, golden.block_size, golden.signal
        )
        parts = [
            slice(header.items(number).start, header.items(number).stop)
            for number in range(header.num_blocks)
        ]
        blocks = [
            Block(codes_crc(codes[part], number), tuple(map(tuple, payloads[part])))
            for number, part in enumerate(parts)
        ]
        names = [golden.name.format(item) for item in range(golden.items)] if golden.name else None
        data = write_bundle(header, blocks, names)
    else:
        header = FileHeader(
            golden.extent, golden.stages, TRANSFORMER, None if golden.bare else MODEL, golden.signal
        )
        stages = [
            Stage(crc, one) for crc, one in zip(stage_crcs(codes[0]), payloads[0], strict=True)
        ]
        data = write_file(header, stages, golden.name)
    return data[: len(data) - golden.lost]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    priors = {name: make_coder(name) for name in CODERS}
    for name, prior in priors.items():
        tensors = {key: np.ascontiguousarray(value) for key, value in prior.tensors().items()}
        (FOLDER / f"{name}.safetensors").write_bytes(save(tensors))
    for name, golden in GOLDEN.items():
        codes = make_codes(name)
        np.save(FOLDER / f"{name}.npy", codes)
        (FOLDER / f"{name}.vq").write_bytes(make_file(name, priors[golden.coder], codes))
    network = make_network()
    (FOLDER / f"{NETWORK}.safetensors").write_bytes(save(network.tensors()))
    for name in MIXED_FILES:
        data, codes = make_mixed(name, network)
        np.save(FOLDER / f"{name}.npy", codes)
        (FOLDER / f"{name}.vq").write_bytes(data)
    for name in PYRAMID_FILES:
        codes = make_pyramid_codes(name)
        np.save(FOLDER / f"{name}.npy", codes)
        data = make_pyramid(name, priors["coder-three"], codes)
        (FOLDER / f"{name}.vq").write_bytes(data)
    fitted = make_scalar_coder()
    np.savez_compressed(FOLDER / f"{SCALAR_CODER}.npz", **fitted.tensors())
    for name in SCALAR_FILES:
        codes = make_scalar_codes(name)
        np.save(FOLDER / f"{name}.npy", codes)
        (FOLDER / f"{name}.vq").write_bytes(make_scalar(name, fitted, codes))


if __name__ == "__main__":
    main()
