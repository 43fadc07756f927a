"""Settings without effect: refused where a user sets them, back at their defaults where what they
need is switched off.

Which settings need which others stands beside them, in the `conditions` of every section.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple, TypeVar

from ..errors import VqkitError
from .base import ActsOnly, Root, Section

RootT = TypeVar("RootT", bound=Root)


class Idle(NamedTuple):
    """A setting that has another value than its default, and no effect.

    key: written with dots. beside: what it would need, in words.
    """

    key: str
    default: Any
    beside: str


def idle_settings(section: Section, at: str = "") -> list[Idle]:
    """Settings without effect, each once, and none below another; `at` are the keys that lead to
    the section.
    """
    found: list[Idle] = []
    for condition in section.conditions:
        if not condition.holds(section):
            _add(found, (_idle(section, name, condition, at) for name in condition.names))
    for name, value in section:
        if isinstance(value, Section):
            _add(found, idle_settings(value, f"{at}{name}."))
    return found


def _idle(section: Section, name: str, condition: ActsOnly, at: str) -> Idle | None:
    """A setting whose condition does not hold; None where it has its default."""
    *parents, last = name.split(".")
    holder = reduce(getattr, parents, section)
    default = type(holder).model_fields[last].default
    if getattr(holder, last) == default:
        return None
    return Idle(f"{at}{name}", default, condition.beside.format(at=at))


def _add(found: list[Idle], more: Iterable[Idle | None]) -> None:
    """Those that are not in the list yet, nor below one that is."""
    for one in more:
        if one and not any(f"{one.key}.".startswith(f"{outer.key}.") for outer in found):
            found.append(one)


def refuse_idle(found: Iterable[Idle], where: str) -> None:
    """VqkitError naming the settings without effect, and what each would need."""
    lines = [
        f"{key} has no effect here, it acts only with {beside}: set that too, or leave {key} at "
        f"{_in_words(default)}"
        for key, default, beside in found
    ]
    if lines:
        raise VqkitError(f"{where}: " + "; ".join(lines))


def at_defaults(config: RootT, found: Iterable[Idle]) -> RootT:
    """The settings with those without effect at their defaults."""
    tree = config.model_dump(mode="json")
    for key, default, _ in found:
        *parents, last = key.split(".")
        holder = reduce(dict.__getitem__, parents, tree)
        holder[last] = _plain(default)
    return type(config).model_validate(tree)


def _in_words(default: Any) -> str:
    """As one types it: null, true, [8, 8]."""
    return json.dumps(_plain(default)).replace('"', "")


def _plain(default: Any) -> Any:
    return default.model_dump(mode="json") if isinstance(default, Section) else default
