"""The folder of a pair, which is whole by itself.

config.json         what the halves are, the settings, format version, content ids, the licence of
                    the prior, if one was named
pair.safetensors    the prior over the codes of both; config.json repeated in its header
first/, second/     the artifacts of the halves that are not bytes
metrics.json        figures of training, for people

As in `store`, nothing of it is trusted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from .. import __version__
from ..config.loading import from_tree
from ..errors import VqkitError
from ..files import write_text
from ..prior.pairs import PairPrior
from ..settings import PairConfig
from .halves import BytesHalf, CodedHalf, Half
from .model import Model
from .pair import Pair, build_pair_network
from .record import HALVES, LICENCE, PAIR_FORMAT, Coders, tensors_id
from .store import (
    CONFIG_FILE,
    FORMAT_VERSION,
    METRICS_FILE,
    apart_from_licence,
    artifact_folder,
    check_version,
    filled,
    first_error,
    load_artifact,
    read_figures,
    save_artifact,
    tree_of,
)
from .tensor_files import read_json, reason, write_tensors

PAIR_FILE = "pair.safetensors"
ContentId = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _HalfOf(BaseModel):
    """artifact: content id of its codes; None = bytes, at most `length` of them."""

    model_config = ConfigDict(extra="forbid")

    artifact: ContentId | None = None
    length: Annotated[StrictInt, Field(ge=1, le=1 << 14)] | None = None


class _PairConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["vqkit-pair"]
    format_version: StrictInt
    version: str
    content_id: ContentId
    halves: Annotated[list[_HalfOf], Field(min_length=2, max_length=2)]
    name: str
    config: dict[str, Any]
    licence: Annotated[str, Field(pattern=LICENCE)] | None = None


def is_pair(folder: str | Path) -> bool:
    """Whether a folder is one of a pair; False for what cannot be read. One that is named
    hf://user/name is fetched: VqkitError where it cannot be.
    """
    path = artifact_folder(folder).expanduser() / CONFIG_FILE
    try:
        return read_json(path).get("format") == PAIR_FORMAT
    except VqkitError:
        return False


def save_pair(pair: Pair, folder: Path, name: str) -> None:
    """Write a pair; config.json, by which it is known, last. name: of the set that it was trained
    on. VqkitError when that fails.
    """
    halves: list[dict[str, Any]] = []
    for half, inside in zip(pair.halves, HALVES, strict=True):
        if isinstance(half, BytesHalf):
            halves.append({"length": half.length})
            continue
        assert isinstance(half, CodedHalf)
        # Codes and values are what a pair needs: no coders, and no prior of one half alone.
        alone = replace(half.model.artifact, prior=None, coders=Coders())
        save_artifact(alone, folder / inside)
        halves.append({"artifact": half.name})
    tree = {
        "format": PAIR_FORMAT,
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "content_id": tensors_id(pair.prior.network),
        "halves": halves,
        "name": name,
        "config": pair.prior.config.model_dump(mode="json"),
    }
    _write(folder, tree, pair.prior)


def name_licence_of_pair(folder: Path, licence: str) -> None:
    """Write a licence of the prior into a pair; its halves have their own. VqkitError."""
    pair = load_pair(folder, "cpu")
    _write(folder, {**read_json(folder / CONFIG_FILE), "licence": licence}, pair.prior)


def _write(folder: Path, tree: dict[str, Any], prior: PairPrior) -> None:
    text = json.dumps(tree, indent=2)
    write_tensors(folder / PAIR_FILE, prior.network.state_dict(), {"config": text})
    try:
        write_text(folder / METRICS_FILE, json.dumps(prior.metrics, indent=2))
        write_text(folder / CONFIG_FILE, text)
    except OSError as error:
        raise VqkitError(f"cannot write the pair to {folder}: {reason(error)}") from error


def load_pair(folder: str | Path, device: str | torch.device = "auto") -> Pair:
    """Read the folder of a pair, or fetch one that is named hf://user/name. VqkitError for what is
    none, damaged, or of a newer format.
    """
    folder = artifact_folder(folder).expanduser()
    path = folder / CONFIG_FILE
    tree = read_json(path)
    checked = _checked(tree, path)
    halves, problems = _halves(folder, checked, device)
    config = from_tree(checked.config, str(path), PairConfig)
    inside = folder / PAIR_FILE
    network, file = filled(
        inside, lambda: build_pair_network(config, halves), frozenset({"config"})
    )
    if apart_from_licence(tree_of(file.metadata["config"])) != apart_from_licence(tree):
        raise VqkitError(
            f"{folder}: {CONFIG_FILE} and {PAIR_FILE} do not belong together; one of the two was "
            "changed"
        )
    if tensors_id(network) != checked.content_id:
        raise VqkitError(
            f"{inside} is damaged or was replaced: its tensors are not those that {CONFIG_FILE} "
            "names"
        )
    metrics, more = read_figures(folder / METRICS_FILE)
    prior = PairPrior(config, network.eval(), metrics)
    return Pair(halves, prior, [*problems, *more], checked.licence)


def _halves(
    folder: Path, checked: _PairConfig, device: str | torch.device
) -> tuple[tuple[Half, Half], list[str]]:
    """The halves, and what could not be used of them. VqkitError."""
    found: list[Half] = []
    problems: list[str] = []
    for said, inside in zip(checked.halves, HALVES, strict=True):
        if said.artifact is None:
            if said.length is None:
                raise VqkitError(f"{folder / CONFIG_FILE} names no {inside} half")
            found.append(BytesHalf(said.length))
            continue
        artifact = load_artifact(folder / inside)
        if artifact.codes_id != said.artifact:
            raise VqkitError(
                f"{folder / inside} is another model than the pair was trained with; put back the "
                "one that was there"
            )
        problems += artifact.problems
        found.append(CodedHalf(Model(artifact, device)))
    return (found[0], found[1]), problems


def _checked(tree: dict[str, Any], path: Path) -> _PairConfig:
    check_version(tree.get("format_version"), path.parent)
    try:
        return _PairConfig.model_validate(tree)
    except ValidationError as error:
        raise VqkitError(f"cannot read {path}: {first_error(error)}") from error
