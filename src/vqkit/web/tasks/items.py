"""Files and sets: whether they can be used, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import VqkitError
from ...signals.registry import SIGNALS, signal_named
from .context import Context, Result, Tell

# Of a thumbnail.
MAX_SIDE = 96


def check_file(
    context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell
) -> Result:
    """args: path, positions, seconds.

    What signals a file may be of. VqkitError where it is of none, or its header says that it is
    larger than so many positions or seconds; nothing is decoded.
    """
    path = Path(args["path"])
    found = [name for name in SIGNALS if signal_named(name).can_be(path)]
    if not found and path.suffix != ".vq":
        raise VqkitError("that is no kind of file that vqkit reads")
    for name in found:
        refusal = signal_named(name).too_large(path, args["positions"], args["seconds"])
        if refusal is not None:
            raise VqkitError(refusal)
    return Result({"signals": found})


def samples(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, and set or paths with names.

    The items that a page offers, each as a small image.
    """
    from ...apps.explain.sample import shown_of

    model = context.model(args["model"])
    result = Result()
    items = []
    if "set" in args:
        for index, values in enumerate(context.offered(model, args["set"])):
            image = result.image(shown_of(model, values[None], MAX_SIDE)[0])
            items.append({"index": index, "name": f"{args['set']} {index}", "image": image})
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
