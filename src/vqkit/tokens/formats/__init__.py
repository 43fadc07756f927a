"""Forms in which tokens are written, by the name that `--to` has for them."""

from __future__ import annotations

from .base import TokenFormat
from .binary import Bin16, Datatrove, Megatron
from .columns import Jsonl, Parquet
from .webdataset import WebDataset

FORMATS: dict[str, type[TokenFormat]] = {
    "megatron": Megatron,
    "datatrove": Datatrove,
    "parquet": Parquet,
    "webdataset": WebDataset,
    "bin16": Bin16,
    "jsonl": Jsonl,
}
