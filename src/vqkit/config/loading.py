"""From YAML files and overrides to checked settings, and back to commented YAML."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..errors import VqkitError
from .base import Root, Section
from .conditions import at_defaults, idle_settings, refuse_idle

# Settings that say which section is meant where there are several.
TAGS = ("kind", "signal")
RootT = TypeVar("RootT", bound=Root)
# Folder of recipes -> the command that takes them.
_COMMANDS = {"recipes": "train", "recipes/prior": "train-prior", "recipes/pair": "pairs"}


def recipe_names(root: type[Root]) -> list[str]:
    """Names of the recipes of a kind of run that ship with vqkit, sorted."""
    return _names_in(root.recipe_folder)


def _names_in(name: str) -> list[str]:
    folder = resources.files("vqkit") / name
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def recipe_text(name: str, root: type[Root]) -> str:
    """YAML text of the built-in recipe `name`. VqkitError if there is none."""
    known = recipe_names(root)
    if name not in known:
        for folder, verb in _COMMANDS.items():
            if name in _names_in(folder):
                raise VqkitError(
                    f"recipe '{name}' is one of 'vqkit {verb}'; 'vqkit recipes' lists all"
                )
        raise VqkitError(
            f"no recipe '{name}'{_did_you_mean(name, known)}; 'vqkit recipes' lists them"
        )
    return (resources.files("vqkit") / root.recipe_folder / f"{name}.yaml").read_text(
        encoding="utf-8"
    )


def recipe_summary(name: str, root: type[Root]) -> str:
    """First comment line of a recipe: what it is for."""
    return recipe_text(name, root).split("\n", 1)[0].lstrip("# ")


def load(recipe: str | Path, overrides: Iterable[str], root: type[RootT]) -> RootT:
    """Settings from a recipe name or a YAML file and overrides written `train.lr=1e-3`.

    root: settings.Config for an autoencoder, PriorConfig for a prior, PairConfig for one of pairs.

    An override of a section's `kind` starts that section again from the defaults of the new kind.
    Such overrides come first, the outer before the inner, so that their order does not matter.
    Settings of the recipe that overrides leave without effect go back to their defaults.
    Errors: VqkitError naming every wrong key (with a suggestion), every wrong value (with what is
    allowed) and every setting without effect (with what it needs).
    """
    is_file = str(recipe).endswith((".yaml", ".yml"))
    try:
        text = (
            Path(recipe).read_text(encoding="utf-8") if is_file else recipe_text(str(recipe), root)
        )
        tree = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise VqkitError(f"cannot read recipe {recipe}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise VqkitError(
            f"recipe {recipe} must hold settings such as 'train: {{lr: 0.001}}', not "
            f"{type(tree).__name__}"
        )
    where = f"recipe {recipe}"
    config = from_tree(tree, where, root)
    refuse_idle(idle_settings(config), where)
    return with_overrides(config, overrides, where)


def from_tree(tree: Mapping[str, Any], where: str, root: type[RootT]) -> RootT:
    """Checked settings from nested dictionaries (a parsed recipe or an artifact's config.json)."""
    try:
        return root.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item, root) for item in error.errors(include_url=False)]
        raise VqkitError(f"{where}: " + "; ".join(lines)) from error


def with_overrides(config: RootT, overrides: Iterable[str], where: str = "settings") -> RootT:
    """Settings with overrides written `train.lr=1e-3`. Errors as `load`."""
    ordered = sorted(overrides, key=_rank_of_override)
    if not ordered:
        return config
    tree = config.model_dump(mode="json")
    for override in ordered:
        _apply_override(tree, override)
    changed = from_tree(tree, where, type(config))
    keys = [override.partition("=")[0] for override in ordered]
    while idle := idle_settings(changed):
        refuse_idle((one for one in idle if any(_leads_to(key, one.key) for key in keys)), where)
        changed = at_defaults(changed, idle)
    return changed


def _leads_to(key: str, other: str) -> bool:
    """Whether one of two keys is the other, or of a section that holds it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def dump(config: Section) -> str:
    """YAML text of all settings, each with its description as a comment; `load` reads it back
    unchanged.
    """
    return _dump_section(config, 0)


def _rank_of_override(override: str) -> tuple[bool, int]:
    """Kinds before all else, as each resets its section, and the kind of a section before those
    inside.
    """
    key = override.partition("=")[0]
    is_kind = key.rpartition(".")[2] in TAGS
    return not is_kind, key.count(".") if is_kind else 0


def default_override(section: type[Section], name: str) -> str:
    """The override that sets a field to its default, as one types it: `levels=[8, 8, 8]`."""
    default = section.model_fields[name].default
    if isinstance(default, Section):
        chosen = {
            "kind": _kind(type(default)),
            **default.model_dump(mode="json", exclude_defaults=True),
        }
        return f"{name}={_flow(chosen)}"
    return f"{name}={_flow(default)}"


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise VqkitError(
            f"cannot read '{override}': settings are written key.subkey=value, for example "
            "train.lr=1e-3"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VqkitError(f"{key}: cannot read the value '{text}'") from error
    *parents, last = key.split(".")
    for parent in parents:
        value_or_section = tree.setdefault(parent, {})
        if parents == ["losses", parent] and isinstance(value_or_section, int | float):
            value_or_section = tree[parent] = {
                "peak": value_or_section
            }  # the long form of a weight
        tree = value_or_section
        if not isinstance(tree, dict):
            raise VqkitError(f"unknown key '{key}': '{parent}' is a value, not a section")
    if last in TAGS and tree.get(last) != value:
        tree.clear()
    tree[last] = value


def _sections_at(
    root: type[Section], location: Iterable[str]
) -> tuple[list[str], list[type[Section]]]:
    """Where a location of pydantic leads: its keys without the kinds in it, and the sections it may
    be.

    A location goes through a section of several kinds by its key and the kind: model, quantizer,
    vq. There is more than one section at its end where the kind is not said, and none at a value.
    """
    keys: list[str] = []
    sections: list[type[Section]] = [root]
    for part in location:
        by_kind = {_kind(section): section for section in sections}
        if len(sections) > 1 and part in by_kind:
            sections = [by_kind[part]]
            continue
        keys.append(part)
        field = sections[0].model_fields.get(part) if sections else None
        members = [] if field is None else get_args(field.annotation) or (field.annotation,)
        sections = [
            member for member in members if isinstance(member, type) and issubclass(member, Section)
        ]
    return keys, sections


def _kind(section: type[Section]) -> str | None:
    """The name by which a section is told from others in its place."""
    tags = [section.model_fields[tag].default for tag in TAGS if tag in section.model_fields]
    return tags[0] if tags else None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f", did you mean '{close[0]}'?" if close else ""


def _explain(item: ErrorDetails, root: type[Section]) -> str:
    location = [str(part) for part in item["loc"]]
    keys, sections = _sections_at(root, location)
    path = ".".join(keys)
    if item["type"] == "extra_forbidden":
        parents, holders = _sections_at(root, location[:-1])
        known = holders[0].model_fields if holders else {}
        hint = _did_you_mean(location[-1], known) or f" (known: {', '.join(known)})"
        where = f" in {'.'.join(parents)}" if parents else ""
        return f"unknown key '{location[-1]}'{hint}{where}"
    if item["type"] == "union_tag_not_found":
        kinds = [str(_kind(section)) for section in sections]
        return f"{path}.kind is missing: set it too, to one of {', '.join(kinds)}"
    if item["type"] == "tuple_type":
        value = item.get("input")
        example = f"[{value}, {value}]" if isinstance(value, int | float) else "[8, 8]"
        return f"{path}: write a list in brackets, such as {example}; got {value!r}"
    if item["type"] == "value_error":
        return f"{path}: {item['ctx']['error']}"
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{path}: {message}, got {item.get('input')!r}"


def _dump_section(section: Section, depth: int) -> str:
    indent = "  " * depth
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        data = value.model_dump(mode="json") if isinstance(value, Section) else value
        # A section may be written as one number: a weight that does not change.
        is_nested = isinstance(value, Section) and isinstance(data, dict)
        line = f"{indent}{name}:" if is_nested else f"{indent}{name}: {_flow(data)}"
        lines.append(_commented(line, field.description or "", indent))
        if is_nested:
            lines.append(_dump_section(value, depth + 1).rstrip())
    return "\n".join(lines) + "\n"


def _commented(line: str, description: str, indent: str) -> str:
    """A line with its description behind it, or above it where that would be too wide."""
    comment = " ".join(description.split())
    if not comment:
        return line
    beside = f"{line:<34}# {comment}"
    if len(beside) <= 140:
        return beside
    above = [f"{indent}# {part}" for part in textwrap.wrap(comment, 136 - len(indent))]
    return "\n".join([*above, line])


def _flow(data: Any) -> str:
    """A value on one line of YAML."""
    flow = yaml.safe_dump(
        list(data) if isinstance(data, tuple) else data, default_flow_style=True, width=10**6
    )
    return flow.removesuffix("\n").removesuffix("\n...")
