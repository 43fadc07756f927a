"""What `vqkit serve` does: contents of files to codes and back, without a path anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...apps.generate import generate as generated
from ...artifact.model import Model
from ...errors import VqkitError
from .context import Context, Result, Tell
from .making import drawing_of

Args = dict[str, Any]


def about(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model. What it is. Loads it, and compiles what codes files, so that no request waits
    for that.
    """
    model = context.model(args["model"])
    values = model.tokenizer.sample(1)[0]
    coders = model.artifact.coders
    for lossless, coder in ((False, coders.codes), (True, coders.values)):
        if coder is not None:
            content = model.compressor.write(values, lossless=lossless)
            model.compressor.decode([model.compressor.read_item(content, "0")])
    prior = model.prior
    return Result(
        {
            "id": model.content_id,
            "signal": model.signal.name,
            "channels": model.shape.channels,
            "extent": list(model.shape.extent),
            "grid": list(model.tokenizer.grid(model.shape.extent)),
            "codebook_sizes": list(model.network.quantizer.codebook_sizes),
            "suffix": model.signal.suffix,
            "rates": list(model.artifact.coders.rates),
            "lossless": model.artifact.coders.values is not None,
            "generates": prior is not None,
            "classes": [] if prior is None else list(prior.classes),
        }
    )


def encode(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, positions, seconds. blobs: contents of files.

    For each its codes as JSON, or what is wrong with it: those of one size go through the network
    together, which changes none of their codes.
    """
    model = context.model(args["model"])
    found: list[dict[str, Any]] = []
    alike: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for place, content in enumerate(blobs):
        found.append({})
        try:
            values = _values(model, content, args)
        except VqkitError as error:
            found[place]["error"] = str(error)
            continue
        alike.setdefault(values.shape, []).append((place, values))
    result = Result({"items": found})
    for items in alike.values():
        codes = model.tokenizer.encode(torch.stack([values for _, values in items]))
        for (place, values), one in zip(items, codes, strict=True):
            answer = {"codes": one.tolist(), "extent": list(values.shape[1:])}
            found[place] = result.add(json.dumps(answer).encode(), "application/json")
    return result


def decode(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, codes, extent or None. The item as a file."""
    model = context.model(args["model"])
    try:
        codes = torch.tensor(args["codes"], dtype=torch.int64)[None]
        values = model.tokenizer.decode(codes, args["extent"], double=True)[0]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise VqkitError(f"these are no codes of this model: {error}") from error
    return _file(model, values)


def compress(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, positions, seconds, rate, lossless. blobs: content of a file. Its .vq file."""
    model = context.model(args["model"])
    values = _values(model, blobs[0], args)
    content = model.compressor.write(
        values, None, lossless=args["lossless"], rate=args["rate"], effort=0
    )
    result = Result()
    result.values = result.add(content, "application/octet-stream")
    return result


def decompress(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model. blobs: a .vq file with one item. Its item as a file."""
    import io

    model = context.model(args["model"])
    decoded = model.compressor.read_item(io.BytesIO(blobs[0]), "0")
    (values,) = model.compressor.decode([decoded])
    result = _file(model, values)
    result.values["truncated"] = decoded.truncated
    return result


def generate(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, num, and those of a drawing. New items as files in JSON, in base64."""
    model = context.model(args["model"])
    found = generated(model, args["num"], drawing=drawing_of(args), progress=tell)
    files = [model.signal.write(values, model.data) for values in found.values]
    answer = {
        "items": [base64.b64encode(content).decode() for content in files],
        "suffix": model.signal.suffix,
        "bits": found.bits.tolist(),
    }
    result = Result()
    result.values = result.add(json.dumps(answer).encode(), "application/json")
    return result


def _values(model: Model, content: bytes, args: Args) -> Tensor:  # (C, *extent)
    """The item in a file. VqkitError for what is none, or by its header is too large."""
    refusal = model.signal.too_large(content, args["positions"], args["seconds"])
    if refusal is not None:
        raise VqkitError(refusal)
    return model.signal.read_content(content, model.data, model.config.data)


def _file(model: Model, values: Tensor) -> Result:
    result = Result()
    content = model.signal.write(values, model.data)
    result.values = result.add(content, model.signal.media_type or "application/octet-stream")
    return result
