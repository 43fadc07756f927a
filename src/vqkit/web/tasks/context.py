"""What a worker keeps from one task to the next, and how results become files that pages show."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import VqkitError

if TYPE_CHECKING:
    from torch import Tensor

    from ...artifact.model import Model

# Models, and items with their codes, that are kept.
NUM_MODELS = 3
NUM_ITEMS = 64
# Values of an item that is kept.
MAX_KEPT = 1 << 23
# Items of a set that a page offers.
NUM_OFFERED = 24

Tell = Callable[[float], None]
FoundT = TypeVar("FoundT")


@dataclass
class Result:
    """values: plain. files: bytes, which values name by their number."""

    values: dict[str, Any] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)

    def add(self, content: bytes, media_type: str) -> dict[str, Any]:
        """A file, as values name it."""
        self.files.append(content)
        return {"file": len(self.files) - 1, "type": media_type, "bytes": len(content)}

    def image(self, shown: Any) -> dict[str, Any]:
        """uint8 (H, W, C) as a file."""
        from ...report.images import png_bytes, to_image

        named = self.add(png_bytes(to_image(shown)), "image/png")
        return {**named, "height": shown.shape[0], "width": shown.shape[1]}

    def item(self, model: Model, values: Tensor) -> dict[str, Any]:
        """Values (C, *extent) as a page shows them: an image, and what can be played or read."""
        shown: dict[str, Any] = {"image": self.image(model.signal.display(values[None])[0])}
        for content in model.signal.media(values[None], model.data):
            shown["sound"] = self.add(content, model.signal.media_type)
        for before, now in model.signal.passages(values[None], values[None]):
            shown["text"] = {"before": before, "now": now}
        return shown

    def compared(self, model: Model, values: Tensor, original: Tensor) -> dict[str, Any]:
        """As `item`, with how it measures beside the original, and of texts what differs."""
        shown = self.item(model, values)
        measured = model.signal.measures(values[None], original[None])
        quality = float(measured[model.signal.quality][0])
        # JSON has no other numbers.
        shown["quality"] = quality if math.isfinite(quality) else None
        shown["is_exact"] = bool((values == original).all())
        for before, now in model.signal.passages(original[None], values[None]):
            shown["text"] = {"before": before, "now": now}
        return shown


class Context:
    """Models, sets and items that were used last."""

    def __init__(self) -> None:
        self._models: _Latest = _Latest(NUM_MODELS)
        self._sets: _Latest = _Latest(NUM_MODELS)
        self._items: _Latest = _Latest(NUM_ITEMS)
        self._codes: _Latest = _Latest(NUM_ITEMS)

    def model(self, folder: str) -> Model:
        """The model of a folder, loaded anew when its files are others."""
        from ...artifact.model import Model
        from ...artifact.store import load_artifact

        names = ("config.json", "model.safetensors", "prior.safetensors", "coder.safetensors")
        times = tuple(_changed(Path(folder) / name) for name in names)
        key = (folder, times)
        return self._models.get(key, lambda: Model(load_artifact(folder), "cpu"))

    def offered(self, model: Model, source: str) -> Tensor:
        """The first held-out items (N, C, *extent) of a set, in the order of its split."""

        def read() -> Tensor:
            from ...apps.explain import open_data

            data = open_data(model, source)
            split = next(name for name in ("test", "validation", "train") if len(data.splits[name]))
            return next(iter(data.split(split, NUM_OFFERED))).values

        return self._sets.get((model.content_id, source), read)

    def data_of_run(self, folder: str, read: Callable[[], FoundT]) -> FoundT:
        """The items of a run, as far as `read` gives any."""
        found = self._sets.get(("run", folder), read)
        if found is None:
            self._sets.forget(("run", folder))
        return found

    def item(self, model: Model, item: dict[str, Any]) -> Tensor:
        """Values (C, *extent) of {"set": a set that `open` knows by name, "index": of those that
        are offered} or of {"path": a file}. VqkitError.
        """

        def read() -> Tensor:
            if "set" in item:
                offered = self.offered(model, item["set"])
                if not 0 <= item["index"] < len(offered):
                    raise VqkitError("there is no such item in the set")
                return offered[item["index"]]
            return model.signal.read(Path(item["path"]), model.data, model.config.data)

        key = _key(model, item)
        values = self._items.get(key, read)
        if values.numel() > MAX_KEPT:
            self._items.forget(key)
        return values

    def codes(self, model: Model, item: dict[str, Any]) -> Tensor:
        """Codes (1, Q, *grid) of an item, as `item` names it."""

        def encode() -> Tensor:
            return model.tokenizer.encode(self.item(model, item)[None])

        return self._codes.get(_key(model, item), encode)


class _Latest:
    """Values by key, of which those that were used last are kept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], FoundT]) -> FoundT:
        if key in self.kept:
            self.kept.move_to_end(key)
        else:
            self.kept[key] = make()
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        found: FoundT = self.kept[key]
        return found

    def forget(self, key: Hashable) -> None:
        self.kept.pop(key, None)


def _key(model: Model, item: dict[str, Any]) -> Hashable:
    return (model.content_id, *sorted(item.items()))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def nothing(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """Loads what all others need, so that the first of them need not wait for it."""
    from ...apps import explain  # noqa: F401
    from ...artifact import model, store  # noqa: F401
    from ...report import images  # noqa: F401
    from ...signals.registry import signal_named

    signal_named("image")
    return Result()
