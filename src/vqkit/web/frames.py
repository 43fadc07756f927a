"""What a server and its worker say to one another: JSON, and bytes behind it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

from ..errors import VqkitError

# Length of the JSON.
_HEAD = struct.Struct("<I")
MAX_JSON = 1 << 26
# A worker reads files of strangers: what it says is bounded as they are.
MAX_BYTES = 1 << 29


def packed(message: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    text = json.dumps({**message, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join([_HEAD.pack(len(text)), text, *blobs])


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """A message and its bytes; None at the end."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (length,) = _HEAD.unpack(head)
    message = json.loads(stream.read(length))
    return message, [stream.read(size) for size in message.pop("blobs")]


async def received(stream: asyncio.StreamReader) -> tuple[dict[str, Any], list[bytes]]:
    """As `read`, within bounds.

    asyncio.IncompleteReadError at the end; VqkitError for what no worker says.
    """
    (length,) = _HEAD.unpack(await stream.readexactly(_HEAD.size))
    if length > MAX_JSON:
        raise VqkitError("the worker said what it never says")
    message = json.loads(await stream.readexactly(length))
    sizes = message.pop("blobs")
    if sum(sizes) > MAX_BYTES:
        raise VqkitError("that result is too large for a page")
    return message, [await stream.readexactly(size) for size in sizes]
