"""How a .vq file begins: profile, model, signal, coder, and the extents of what was compressed.

The signal is a number here, of which nothing is known but how many extents it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import NewerVersion, NotVq, WrongModel
from .numbers import Reader, Source, check_bounds, varint

MAGIC = b"\x96vq"
VERSION = 1
MODEL_ID_BYTES = 8

# Profiles.
BARE = 0
FILE = 1
BUNDLE = 2
PARTS = 3
PROFILES = ("bare", "file", "bundle", "parts")

# What a file holds: codes that a model made of a signal, or the signal's own values.
CODES = 0
VALUES = 1

# Coders.
TRANSFORMER = 0
MIXING = 1
SCALAR = 2

# What the latents of scalar codes were multiplied by, as a byte: this one stands for 1, one that is
# so much larger for twice that.
UNIT_GAIN = 128
GAINS_PER_OCTAVE = 16

NUM_SIGNALS = 8
MAX_EXTENTS = 4
# Signal 0 has two extents, which are not preceded by their number, of 2^20 at most.
PLANAR_SIGNAL = 0
MAX_PLANAR_EXTENT = 1 << 20
MAX_PLANAR_POSITIONS = 1 << 28
# Of any other signal: 49 hours of sound at 48,000 samples a second.
MAX_POSITIONS = 1 << 33
MAX_CODEBOOKS = 64


@dataclass(frozen=True)
class Kind:
    """What a file is.

    profile: BARE, FILE, BUNDLE or PARTS. model_id: 8 bytes, None when bare. signal: a number below
    NUM_SIGNALS. holds: CODES or VALUES. coder: TRANSFORMER, MIXING or SCALAR. gain: a byte, told
    with coder SCALAR alone; see UNIT_GAIN.
    """

    profile: int
    model_id: bytes | None
    signal: int
    holds: int
    coder: int
    gain: int = UNIT_GAIN

    def written(self) -> bytes:
        """The first bytes of the file. ValueError for what they cannot say."""
        if self.model_id is not None and len(self.model_id) != MODEL_ID_BYTES:
            raise ValueError(f"a model id has {MODEL_ID_BYTES} bytes, not {len(self.model_id)}")
        if not (0 <= self.signal < NUM_SIGNALS and self.holds in (CODES, VALUES)):
            raise ValueError(f"there is no signal {self.signal}, or none that holds {self.holds}")
        if self.coder != SCALAR and self.gain != UNIT_GAIN:
            raise ValueError(f"coder {self.coder} has no gain")
        first = MAGIC + bytes([VERSION << 4 | self.profile]) + (self.model_id or b"")
        last = bytes([self.gain]) if self.coder == SCALAR else b""
        return first + bytes([(2 * self.signal + self.holds) << 4 | self.coder]) + last


def gain_of(byte: int) -> float:
    """What a gain's byte stands for."""
    return float(2 ** ((byte - UNIT_GAIN) / GAINS_PER_OCTAVE))


def profile_of(source: Source) -> int:
    """Profile of a file: BARE, FILE, BUNDLE or PARTS. NotVq, NewerVersion."""
    return _read_profile(Reader(source))


def _read_profile(reader: Reader) -> int:
    magic = reader.take(min(len(MAGIC) + 1, reader.remaining))
    if len(magic) <= len(MAGIC) or not magic.startswith(MAGIC) or magic[-1] >> 4 == 0:
        what = "" if magic else ": it is empty"
        raise NotVq(f"this is not a .vq file{what}")
    version, profile = divmod(magic[-1], 16)
    if version > VERSION:
        raise NewerVersion(
            f"the file has version {version}; this vqkit reads up to {VERSION}: update vqkit"
        )
    if profile >= len(PROFILES):
        raise NewerVersion(
            f"the file has profile {profile}, which this vqkit does not know: update vqkit"
        )
    return profile


def read_kind(reader: Reader) -> Kind:
    """The first bytes of a file. NotVq, NewerVersion, Truncated."""
    profile = _read_profile(reader)
    model_id = None if profile == BARE else reader.take(MODEL_ID_BYTES)
    content, coder = divmod(reader.take(1)[0], 16)
    signal, holds = divmod(content, 2)
    if coder > SCALAR or (holds == VALUES and (coder != MIXING or profile == PARTS)):
        what = "values" if holds == VALUES else "codes"
        raise NewerVersion(
            f"the file has {what} under coder {coder}: update vqkit, or the file is corrupt"
        )
    gain = reader.take(1)[0] if coder == SCALAR else UNIT_GAIN
    return Kind(profile, model_id, signal, holds, coder, gain)


def check_model(kind: Kind, model_id: bytes, signal: int) -> None:
    """WrongModel unless a file is of that model, an id of 8 bytes, and of the model's signal.

    A bare stream has no model id to check.
    """
    if kind.model_id not in (None, model_id):
        found = kind.model_id.hex()
        raise WrongModel(f"the file was written with model {found}; this model is {model_id.hex()}")
    if kind.signal != signal:
        raise WrongModel(f"the file holds signal {kind.signal}; this model is of signal {signal}")


# ---------------------------------------------------------------------------------------- extents


def check_extent(extent: Sequence[int], signal: int) -> None:
    """OutOfBounds unless an item of a signal may be that long along each of its axes.

    ValueError for another number of axes than the signal may have.
    """
    expected = [2] if signal == PLANAR_SIGNAL else range(1, MAX_EXTENTS + 1)
    if len(extent) not in expected:
        raise ValueError(f"signal {signal} has no items with {len(extent)} extents")
    for number, length in enumerate(extent, 1):
        check_bounds(length, _largest(signal), f"extent {number}")
    _check_product(extent, signal)


def _largest(signal: int) -> int:
    return MAX_PLANAR_EXTENT if signal == PLANAR_SIGNAL else MAX_POSITIONS


def _check_product(extent: Sequence[int], signal: int) -> None:
    largest = MAX_PLANAR_POSITIONS if signal == PLANAR_SIGNAL else MAX_POSITIONS
    check_bounds(math.prod(extent), largest, "the product of the extents")


def num_extents_bytes(num_extents: int, signal: int) -> bytes:
    """How many extents items have, as it is stored: nothing for signal 0."""
    return b"" if signal == PLANAR_SIGNAL else varint(num_extents)


def read_num_extents(reader: Reader, signal: int) -> int:
    """How many extents the items of a file have. OutOfBounds, Truncated."""
    if signal == PLANAR_SIGNAL:
        return 2
    return reader.varint("the number of extents", MAX_EXTENTS, smallest=1)


def read_extent(reader: Reader, signal: int, num_extents: int) -> tuple[int, ...]:
    """The extent of an item. OutOfBounds, Truncated."""
    largest = _largest(signal)
    extent = []
    for number in range(1, num_extents + 1):
        extent.append(reader.varint(f"extent {number}", largest, smallest=1))
    _check_product(extent, signal)
    return tuple(extent)
