"""Items as files and back, beside files of other codecs; and two models beside one another."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...apps.compress import Compressed, compress_within
from ...apps.compress import compress as compressed
from ...artifact.coder_files import find_artifact
from ...artifact.long_items import is_long
from ...artifact.model import Model
from ...coding import FormatError, opened, usable_name
from ...errors import VqkitError
from .context import Context, Result, Tell

# Items of a bundle that a page shows.
MAX_OPENED = 24
LOSSLESS = "lossless"


def compress(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, rate: a name of the model's, LOSSLESS, or bits a position.

    The file, what comes back of it, and the same by other codecs in as many bytes.
    """
    model = context.model(args["model"])
    values = context.item(model, args["item"])
    name = args["name"] if usable_name(args["name"]) else None
    found = _compressed(model, values, args["rate"], name)
    content = found.codec.file_of(found.coded, name)
    shown = model.compressor.values_of(found.codec, [found.coded.codes], found.coded.extent)[0]
    tell(0.5)
    rate_name, divisor = model.signal.rate_per(tuple(values.shape[1:]), model.data)
    result = Result()
    ours = {"name": "vqkit", "bytes": len(content), "is_ours": True}
    rows = [{**ours, **result.compared(model, shown, values)}]
    for other in model.signal.beside(values, len(content), model.data):
        row = {"name": other.name, "bytes": other.num_bytes, "is_ours": False}
        rows.append({**row, **result.compared(model, other.values, values)})
    result.values = {
        "original": result.item(model, values),
        "rows": rows,
        "rate_name": rate_name.replace("_", " "),
        "bits_of_a_byte": 8 / divisor,
        "raw_bytes": values.numel() * values.element_size(),
        "unit": model.signal.quality_unit,
        "file": result.add(content, "application/octet-stream"),
        "name": f"{Path(args['name']).stem}.vq",
        **_told(args),
    }
    return result


def _compressed(
    model: Model, values: Tensor, rate: str | float | None, name: str | None
) -> Compressed:
    if isinstance(rate, float):
        return compress_within(model, values, rate, name)
    is_lossless = rate == LOSSLESS
    codec = model.compressor.codec(lossless=is_lossless, rate=None if is_lossless else rate)
    codec.grid(tuple(values.shape[1:]))
    ((_, found),) = compressed(model, codec, [(name, values)])
    return found


def _told(args: dict[str, Any]) -> dict[str, str]:
    """The command and the Python that give the same file."""
    rate = args["rate"]
    out = f"{Path(args['name']).stem}.vq"
    words = ["vqkit", "compress", args["shown"], args["name"], "--out", out]
    how = ""
    if rate == LOSSLESS:
        words.append("--lossless")
        how = ", lossless=True"
    elif rate is not None:
        words += ["--rate", f"{rate:g}" if isinstance(rate, float) else rate]
        how = f", rate={rate!r}"
    name = repr(args["name"])
    python = "\n".join(
        [
            "from pathlib import Path",
            "",
            "import vqkit",
            "",
            f"model = vqkit.load({args['shown']!r})",
            f"content = model.compress(Path({name}), name={name}{how})",
            f"Path({out!r}).write_bytes(content)",
        ]
    )
    return {"command": shlex.join(words), "python": python}


def open_file(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: path of a .vq file, folders: in which its model may lie, name.

    Its items.
    """
    try:
        folder = find_artifact(Path(args["path"]), [Path(folder) for folder in args["folders"]])
    except VqkitError as error:
        if isinstance(error, FormatError):
            raise
        raise VqkitError("the model that this file was written with is not here") from error
    model = context.model(str(folder))
    result = Result()
    items = []
    truncated = False
    with opened(args["path"]) as stream:
        for decoded in model.compressor.read(stream):
            if is_long(model.shape.channels, decoded.extent):
                raise VqkitError("that is too long for a page: vqkit decompress opens it")
            (values,) = model.compressor.decode([decoded])
            shown = result.item(model, values)
            shown["name"] = decoded.name or ""
            shown["save"] = result.add(
                model.signal.write(values, model.data), "application/octet-stream"
            )
            shown["extent"] = model.signal.extent_in_words(decoded.extent)
            items.append(shown)
            truncated = truncated or decoded.truncated
            if len(items) == MAX_OPENED:
                break
    result.values = {
        "items": items,
        "suffix": model.signal.suffix,
        "bytes": Path(args["path"]).stat().st_size,
        "truncated": truncated,
        "command": shlex.join(["vqkit", "decompress", args["name"], "--out-dir", "opened"]),
    }
    return result


def compare(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: models (two folders), items with names.

    Each item by both, with quality and bits; of items that one of them does not read, why.
    """
    models = [context.model(folder) for folder in args["models"]]
    if models[0].signal is not models[1].signal:
        kinds = " and ".join(f"{model.signal.item}s" for model in models)
        raise VqkitError(f"these models are of {kinds}: they read none of the same files")
    result = Result()
    rows = []
    for number, (name, item) in enumerate(args["items"], 1):
        row: dict[str, Any] = {"name": name, "by": []}
        for model in models:
            values = context.item(model, item)
            codes = context.codes(model, item)
            extent = tuple(values.shape[1:])
            shown = model.tokenizer.decode(codes, extent)[0]
            found = result.compared(model, shown, values)
            found["bits"] = float(model.network.quantizer.bits(codes.to(model.device)))
            rate_name, divisor = model.signal.rate_per(extent, model.data)
            found["rate"] = found["bits"] / divisor
            row["by"].append(found)
            row.setdefault("original", result.item(model, values))
            row["rate_name"] = rate_name.replace("_", " ")
        rows.append(row)
        tell(number / len(args["items"]))
    means = []
    for place in range(2):
        by = [row["by"][place] for row in rows]
        means.append(
            {
                "quality": _mean([one["quality"] for one in by]),
                "rate": _mean([one["rate"] for one in by]),
            }
        )
    signal = models[0].signal
    result.values = {
        "rows": rows,
        "means": means,
        "unit": signal.quality_unit,
        "measure": signal.quality_in_words,
    }
    return result


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
