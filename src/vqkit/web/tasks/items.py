"""Files and sets: whether they can be used, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.shards import Entry, find_shards, has_samples, read_shard
from ...errors import VqkitError
from ...signals.registry import SIGNALS, signal_named
from .context import Context, Result, Tell

# Of a thumbnail.
MAX_SIDE = 96
# Samples of an archive or a table that are looked at.
NUM_LOOKED_AT = 64


def check_file(
    context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell
) -> Result:
    """args: path, positions, seconds.

    What signals a file may be of, and whether it is a shard, which holds many images. VqkitError
    where it is of none, or its header says that it is larger than so many positions or seconds;
    nothing is decoded.
    """
    path = Path(args["path"])
    bounds = (args["positions"], args["seconds"])
    if path.suffix in (".tar", ".tgz") or path.suffix == ".parquet" and has_samples(path):
        _check_shard(path, *bounds)
        return Result({"signals": ["image"], "is_shard": True})
    found = [name for name in SIGNALS if signal_named(name).can_be(path)]
    if not found and path.suffix != ".vq":
        raise VqkitError("that is no kind of file that vqkit reads")
    for name in found:
        refusal = signal_named(name).too_large(path, *bounds)
        if refusal is not None:
            raise VqkitError(refusal)
    return Result({"signals": found, "is_shard": False})


def _check_shard(path: Path, positions: int, seconds: float) -> None:
    """VqkitError for one that training cannot read, and where none of its first samples is an
    image, or one is too large.
    """
    if path.suffix == ".tgz":
        raise VqkitError("archives are read as .tar, not compressed: unpack it with gunzip")
    image = signal_named("image")
    (shard,) = find_shards(str(path), image.has)
    found = islice(read_shard(shard, image.has), NUM_LOOKED_AT)
    contents = [entry.content for entry in found if isinstance(entry, Entry)]
    if not contents:
        raise VqkitError(
            "an archive or a table is read where it holds images, and none is among the first "
            f"{NUM_LOOKED_AT} samples of this one: unpack it, and drop the folder"
        )
    for content in contents:
        refusal = image.too_large(content, positions, seconds)
        if refusal is not None:
            raise VqkitError(refusal)


def samples(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, and either set with what its items are called, or paths with names.

    The items that a page offers, each as a small image.
    """
    from ...apps.explain.sample import shown_of

    model = context.model(args["model"])
    result = Result()
    items = []
    if "set" in args:
        for index, values in enumerate(context.offered(model, args["set"])):
            image = result.image(shown_of(model, values[None], MAX_SIDE)[0])
            items.append({"index": index, "name": f"{args['called']} {index}", "image": image})
        return Result({"items": items}, result.files)
    skipped = []
    for index, path in args["paths"]:
        try:
            values = context.item(model, {"path": path})
        except VqkitError as error:
            skipped.append({"index": index, "reason": str(error)})
            continue
        image = result.image(shown_of(model, values[None], MAX_SIDE)[0])
        items.append({"index": index, "image": image})
    return Result({"items": items, "skipped": skipped}, result.files)
