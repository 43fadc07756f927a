"""Bodies of requests, counted while they come."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request

from ..files import write_whole
from ..printable import one_line
from .limits import Limits, Refused

_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
MAX_NAME = 120


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The object that a request has. Refused for anything else."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        # Forms of other pages cannot send this type.
        raise Refused(415, "send application/json")
    content = await read_bytes(request, limits.json_bytes)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "that is no JSON") from error
    if not isinstance(found, dict):
        raise Refused(400, "that is no JSON object")
    return found


async def read_bytes(request: Request, most: int) -> bytes:
    """The body. Refused (413) for more bytes, of which none are kept."""
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(413, f"more than {most} bytes in one request")
        parts.append(part)
    return b"".join(parts)


async def write_body(request: Request, path: Path, most: int) -> int:
    """The body as a file, whole or not at all; its size. Refused (413) for more bytes."""
    content = await read_bytes(request, most)
    if not content:
        raise Refused(400, "the file is empty")
    write_whole(path, lambda temporary: temporary.write_bytes(content))
    return len(content)


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, '' for none that a file may have here."""
    found = Path(name.replace("\\", "/")).suffix.lower()
    return found if _SUFFIX.fullmatch(found) else ""


def shown_name(name: str) -> str:
    """A name that a client gave as text to be shown: no folders, no control characters, not long.
    No path is ever made of it.
    """
    last = one_line(name.replace("\\", "/").rpartition("/")[2]).strip()
    return last[-MAX_NAME:] or "unnamed"
