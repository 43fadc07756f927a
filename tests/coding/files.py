"""Files for the tests: a coder that knows nothing (all codes alike), so that damage is found by
check sums alone.
"""

import numpy as np

from vqkit.coding import (
    Block,
    Bundle,
    BundleHeader,
    Extents,
    FileHeader,
    RangeDecoder,
    RangeEncoder,
    Stage,
    check_block,
    check_stages,
    codes_crc,
    read_file,
    stage_crcs,
    write_bundle,
    write_file,
)

MODEL = bytes(range(8))
FREQUENCY = 64
"""of each of 1024 codes"""


def payload(codes):
    encoder = RangeEncoder()
    for code in codes.ravel().tolist():
        encoder.encode(code * FREQUENCY, FREQUENCY)
    return encoder.finish()


def decoded(data, count):
    decoder, codes = RangeDecoder(data), []
    for _ in range(count):
        codes.append(decoder.target() // FREQUENCY)
        decoder.advance(codes[-1] * FREQUENCY, FREQUENCY)
    return np.array(codes, np.int64)


def write_codes(codes, name=None, model_id=MODEL):
    """A file of codes (Q, positions), of an image of 28 x 28 pixels."""
    stages = [Stage(crc, payload(one)) for crc, one in zip(stage_crcs(codes), codes, strict=True)]
    return write_file(FileHeader((28, 28), len(codes), 0, model_id), stages, name)


def read_codes(data, count):
    """Codes (stages that are there, positions), each checked; and whether the file says that it is
    cut off.
    """
    found = read_file(data)
    codes = np.array([decoded(stage.payload, count) for stage in found.stages])
    check_stages(codes, [stage.crc for stage in found.stages])
    return codes, found.truncated


def write_many(codes, block_size=256, names=None, size=(28, 28)):
    """A bundle of codes (items, Q, positions)."""
    header = BundleHeader(Extents([size] * len(codes)), codes.shape[1], 0, MODEL, block_size)
    blocks = []
    for number in range(header.num_blocks):
        part = codes[header.items(number).start : header.items(number).stop]
        blocks.append(
            Block(codes_crc(part, number), tuple(tuple(map(payload, item)) for item in part))
        )
    return write_bundle(header, blocks, names)


def read_block(bundle: Bundle, number, count):
    """Codes of a block (items, Q, positions), checked."""
    block = bundle.block(number)
    codes = np.array([[decoded(one, count) for one in item] for item in block.payloads])
    check_block(codes, number, block.crc)
    return codes
