"""Requests for jobs, as tasks take them: every value within bounds, every id a path."""

from __future__ import annotations

from typing import Any

from .given import Given
from .limits import Refused
from .workspace import BUILT_IN, Workspace

# Items that a page asks for at once.
MAX_NUM = 64
MAX_COMPARED = 12
MAX_MASK = 1 << 20
METHODS = ("adain", "wct", "codes", "patches")


def drawing_of(given: Given, num: int) -> dict[str, Any]:
    """How new items are drawn; num: how many where nothing is said."""
    return {
        "num": given.whole("num", num, 1, MAX_NUM),
        "seed": given.whole("seed", 0, 0, (1 << 53) - 1),
        "temperature": given.number("temperature", 1.0, 0.0, 4.0),
        "cfg": given.number("cfg", 1.0, 0.0, 10.0),
        "class": given.text("class"),
        "prompt": given.text("prompt"),
    }


class Verbs:
    """What each verb takes."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def arguments(self, verb: str, given: Given) -> dict[str, Any]:
        """The arguments of a task. Refused for what makes no sense."""
        found: dict[str, Any] = VERBS[verb](self, given)
        return found

    def _model(self, given: Given) -> dict[str, Any]:
        folder = self.workspace.model(given.get("model"))
        return {"model": str(folder), "shown": self.workspace.shown(folder)}

    def _item(self, given: Given, name: str = "item", called: str = "name") -> dict[str, Any]:
        item = given.get(name)
        return {name: self.workspace.item(item), called: self._name(item)}

    def _name(self, item: Any) -> str:
        if self.workspace.is_numbered(item["set"]):
            name = item["set"] if item["set"] in BUILT_IN else "item"
            return f"{name}-{item['index']}.png"
        return self.workspace.files(item["set"]).names[item["index"]]

    def atlas(self, given: Given) -> dict[str, Any]:
        name = given.get("set")
        names = {}
        if name not in BUILT_IN:
            files = self.workspace.files(name)
            paths = [path.name for path in files.paths]
            names = dict(zip(paths, files.names, strict=True))
        return {**self._model(given), "source": self.workspace.source(name), "names": names}

    def generate(self, given: Given) -> dict[str, Any]:
        return {**self._model(given), **drawing_of(given, 16)}

    def inpaint(self, given: Given) -> dict[str, Any]:
        mask = given.text("mask", MAX_MASK)
        return {
            **self._model(given),
            **self._item(given),
            **drawing_of(given, 4),
            "mask": mask,
        }

    def variations(self, given: Given) -> dict[str, Any]:
        strength = given.number("strength", 0.3, 0.0, 1.0)
        return {
            **self._model(given),
            **self._item(given),
            **drawing_of(given, 8),
            "strength": strength,
        }

    def interpolate(self, given: Given) -> dict[str, Any]:
        return {
            **self._model(given),
            **self._item(given),
            **self._item(given, "other", "other_name"),
            **drawing_of(given, 12),
            "codes": given.flag("codes"),
        }

    def restyle(self, given: Given) -> dict[str, Any]:
        return {
            **self._model(given),
            **self._item(given),
            **self._item(given, "other", "other_name"),
            "method": given.one_of("method", METHODS),
            "alpha": given.number("alpha", 0.7, 0.0, 1.0),
        }

    def denoise(self, given: Given) -> dict[str, Any]:
        strength = None
        if given.get("strength") is not None:
            strength = given.number("strength", 0.0, 0.0, 1.0)
        return {**self._model(given), **self._item(given), "strength": strength}

    def compress(self, given: Given) -> dict[str, Any]:
        rate: Any = given.get("rate")
        if isinstance(rate, str):
            rate = given.text("rate", 20)
        elif rate is not None:
            rate = given.number("rate", 1.0, 1e-4, 64.0)
        return {**self._model(given), **self._item(given), "rate": rate}

    def open(self, given: Given) -> dict[str, Any]:
        item = self._item(given)
        if "path" not in item["item"]:
            raise Refused(400, "that is no .vq file")
        folders = [str(folder) for folder in self.workspace.models().values()]
        return {"path": item["item"]["path"], "folders": folders, "name": item["name"]}

    def compare(self, given: Given) -> dict[str, Any]:
        models = [self.workspace.model(name) for name in given.several("models", 2)]
        if len(models) != 2:
            raise Refused(400, "two models are compared")
        items = given.several("items", MAX_COMPARED)
        named = [(self.workspace.item(item), item) for item in items]
        return {
            "models": [str(folder) for folder in models],
            "items": [[self._name(item), found] for found, item in named],
        }


VERBS = {
    "atlas": Verbs.atlas,
    "generate": Verbs.generate,
    "inpaint": Verbs.inpaint,
    "variations": Verbs.variations,
    "interpolate": Verbs.interpolate,
    "restyle": Verbs.restyle,
    "denoise": Verbs.denoise,
    "compress": Verbs.compress,
    "open": Verbs.open,
    "compare": Verbs.compare,
}
