"""Values that a request may have, each within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .limits import Refused


class Given:
    """An object of JSON that came from a client. Every method raises Refused (400) for a value that
    is no such thing.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        found = self.values.get(name, default)
        if type(found) not in (int, float) or not math.isfinite(found):
            raise Refused(400, f"{name} is a number")
        if not low <= found <= high:
            raise Refused(400, f"{name} lies between {low:g} and {high:g}")
        return float(found)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        found = self.values.get(name, default)
        if type(found) is not int or not low <= found <= high:
            raise Refused(400, f"{name} is a whole number from {low} to {high}")
        return found

    def text(self, name: str, most: int = 400) -> str:
        """'' where there is none."""
        found = self.values.get(name) or ""
        if not isinstance(found, str) or len(found) > most:
            raise Refused(400, f"{name} is a text of {most} letters at most")
        return found

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        found = self.values.get(name)
        if found not in choices:
            raise Refused(400, f"{name} is one of {', '.join(choices)}")
        return str(found)

    def flag(self, name: str) -> bool:
        return self.values.get(name) is True

    def several(self, name: str, most: int) -> list[Any]:
        found = self.values.get(name)
        if not isinstance(found, list) or not 1 <= len(found) <= most:
            raise Refused(400, f"{name} is a list of {most} at most")
        return found
