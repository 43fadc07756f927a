"""The .vq file format: errors, headers, single files, bundles, and items in parts.

docs/file-format.md is normative.
"""

from .bundle import Block, Bundle, BundleHeader, Extents, Item, write_bundle
from .checksums import check_block, check_stages, codes_crc, stage_crcs
from .describe import Description, describe
from .errors import (
    CorruptCodes,
    CorruptHeader,
    CorruptSection,
    FormatError,
    NewerVersion,
    NotVq,
    OutOfBounds,
    TrailingBytes,
    Truncated,
    UnknownSection,
    WrongModel,
    WrongProfile,
)
from .header import (
    BARE,
    BUNDLE,
    CODES,
    FILE,
    GAINS_PER_OCTAVE,
    MIXING,
    PARTS,
    SCALAR,
    TRANSFORMER,
    UNIT_GAIN,
    VALUES,
    Kind,
    check_model,
    gain_of,
    profile_of,
)
from .numbers import opened
from .parts import Part, Parts, PartsHeader, write_parts
from .sections import usable_name
from .single import FileHeader, Stage, VqFile, read_file, write_file

__all__ = [
    "BARE",
    "BUNDLE",
    "CODES",
    "FILE",
    "GAINS_PER_OCTAVE",
    "MIXING",
    "SCALAR",
    "TRANSFORMER",
    "UNIT_GAIN",
    "VALUES",
    "Block",
    "Bundle",
    "BundleHeader",
    "CorruptCodes",
    "CorruptHeader",
    "CorruptSection",
    "Description",
    "Extents",
    "FileHeader",
    "FormatError",
    "Item",
    "Kind",
    "NewerVersion",
    "NotVq",
    "OutOfBounds",
    "PARTS",
    "Part",
    "Parts",
    "PartsHeader",
    "Stage",
    "TrailingBytes",
    "Truncated",
    "UnknownSection",
    "VqFile",
    "WrongModel",
    "WrongProfile",
    "check_block",
    "check_model",
    "check_stages",
    "codes_crc",
    "describe",
    "gain_of",
    "opened",
    "profile_of",
    "read_file",
    "stage_crcs",
    "usable_name",
    "write_bundle",
    "write_file",
    "write_parts",
]
