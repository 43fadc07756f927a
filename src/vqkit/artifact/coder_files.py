"""The coders of an artifact's folder: the present ones, and those that they replaced.

coder.safetensors     the network that codes are compressed with, and the rates that it offers
lossless.safetensors  the network that values are compressed with
coder-ID.safetensors, lossless-ID.safetensors   replaced ones: files that they wrote are read with them
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..coding import TransformerCoder, ValueNetwork, describe, opened
from ..errors import VqkitError
from ..files import write_whole
from .codec import model_id
from .operating_points import Rate
from .record import Artifact, Coders
from .tensor_files import read_json, read_tensors, reason, write_tensors

CODER_FILE = "coder.safetensors"
LOSSLESS_FILE = "lossless.safetensors"
# Bytes of a coder's file that are read at most.
MAX_BYTES = 1 << 28
_KEYS = frozenset({"content_id", "coding_id"})
CoderT = TypeVar("CoderT", TransformerCoder, ValueNetwork)


def save_coders(artifact: Artifact, folder: Path) -> None:
    """Write the coders that the artifact has. Another coder that is there is kept beside the new one, under its own
    name, as files that it wrote need it. VqkitError when that fails."""
    coders = artifact.coders
    if coders.codes is not None:
        rates = {name: asdict(rate) for name, rate in coders.rates.items()}
        _save(folder / CODER_FILE, artifact.content_id, coders.codes.tensors(), {"rates": json.dumps(rates)})
    if coders.values is not None:
        _save(folder / LOSSLESS_FILE, artifact.content_id, coders.values.tensors(), {})


def _save(path: Path, content_id: str, tensors: Mapping[str, np.ndarray], more: Mapping[str, str]) -> None:
    coding_id = model_id(content_id, tensors).hex()
    if path.exists():
        older = coding_id_of(path)
        if older not in ("", coding_id):
            _keep(path, path.with_stem(f"{path.stem}-{older}"))
    metadata = {"content_id": content_id, "coding_id": coding_id, **more}
    write_tensors(path, {name: torch.from_numpy(value) for name, value in tensors.items()}, metadata)


def _keep(path: Path, target: Path) -> None:
    try:
        write_whole(target, lambda where: shutil.copyfile(path, where))
    except OSError as error:
        raise VqkitError(f"cannot write {target}: {reason(error)}") from error


def coding_ids(folder: Path) -> list[str]:
    """What names, in compressed files, the model with each of its coders; those that cannot be read are left out."""
    paths = [path for name in (CODER_FILE, LOSSLESS_FILE) for path in _paths(folder / name)]
    return [name for name in map(coding_id_of, paths) if name]


def coding_id_of(path: Path) -> str:
    """What names, in compressed files, the model with the coder of a file; empty where it cannot be read."""
    try:
        return _read(path)[1].get("coding_id", "")
    except VqkitError:
        return ""


def load_coders(folder: Path, content_id: str, sizes: Sequence[int]) -> tuple[Coders, tuple[str, ...]]:
    """The coders of a model with codebooks of such sizes, and a sentence for each file that cannot be used."""
    problems: list[str] = []

    def loaded(path: Path, read: Callable[[Path, str], CoderT]) -> CoderT | None:
        try:
            return read(path, content_id)
        except VqkitError as error:
            problems.append(
                f"{error}; without it, files that it wrote are not read: delete it and run vqkit train-coder"
            )
            return None

    def of_codes(path: Path, owner: str) -> TransformerCoder:
        coder = _load(path, owner, TransformerCoder.from_tensors)
        if [len(vectors) - 1 for vectors in coder.vectors] != list(sizes):
            raise VqkitError(f"{path} was fitted to another model")
        return coder

    def of_values(path: Path, owner: str) -> ValueNetwork:
        return _load(path, owner, ValueNetwork.from_tensors)

    code_path = folder / CODER_FILE
    value_path = folder / LOSSLESS_FILE
    codes = {path: loaded(path, of_codes) for path in _paths(code_path)}
    values = {path: loaded(path, of_values) for path in _paths(value_path)}
    current = codes.pop(code_path, None)
    coders = Coders(
        codes=current,
        values=values.pop(value_path, None),
        older=tuple(one for one in [*codes.values(), *values.values()] if one is not None),
        rates={} if current is None else _rates(code_path, len(sizes)),
    )
    return coders, tuple(problems)


def _paths(path: Path) -> list[Path]:
    """The coder's file, if it is there, and those of coders that it replaced."""
    present = [path] if path.exists() else []
    return [*present, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]


def _load(path: Path, content_id: str, from_tensors: Callable[[Mapping[str, np.ndarray]], CoderT]) -> CoderT:
    tensors, metadata = _read(path)
    if metadata["content_id"] != content_id:
        raise VqkitError(f"{path} was fitted to another model")
    if metadata["coding_id"] != model_id(content_id, tensors).hex():
        raise VqkitError(f"{path} is damaged: its numbers are not those that its name stands for")
    try:
        return from_tensors(tensors)
    except ValueError as error:
        raise VqkitError(f"cannot read the coder {path}: {error}") from error


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    keys = _KEYS | {"rates"} if path.stem.split("-")[0] == Path(CODER_FILE).stem else _KEYS
    try:
        file = read_tensors(path, MAX_BYTES, keys)
    except VqkitError:
        # Coders of before rates lay beside them have none.
        file = read_tensors(path, MAX_BYTES, _KEYS)
    try:
        return {name: value.numpy() for name, value in file.tensors.items()}, file.metadata
    except TypeError as error:
        raise VqkitError(f"cannot read the coder {path}: {error}") from error


def _rates(path: Path, num_stages: int) -> dict[str, Rate]:
    """What a coder's file says; nothing where that makes no sense, as a coder is of use without."""
    try:
        tree: Any = json.loads(_read(path)[1].get("rates", "{}"))
        rates = {str(name): Rate.read(point) for name, point in tree.items()}
    except (AttributeError, TypeError, ValueError, RecursionError):
        return {}
    return rates if all(rate.num_stages <= num_stages for rate in rates.values()) else {}


def find_artifact(source: Path, folders: Sequence[Path] = (Path(),)) -> Path:
    """The artifact that a .vq file was written with, among folders and what lies up to two levels below them.

    Errors: VqkitError when there is none, and for what is no .vq file.
    """
    with opened(source) as stream:
        wanted = describe(stream).header.kind.model_id
    known = wanted.hex() if wanted else "not said in the file"
    for folder in folders:
        for depth in ("", "*/", "*/*/"):
            for path in sorted(folder.glob(depth + "config.json")):
                if wanted and known in _names_of(path.parent):
                    return path.parent
    raise VqkitError(f"the model of {source} ({known}) is not below {os.curdir}; say where it is with --model DIR")


def _names_of(folder: Path) -> list[str]:
    """Names, in compressed files, of an artifact with each of its coders and without any; of other folders, none."""
    try:
        content_id = str(read_json(folder / "config.json").get("content_id"))
    except VqkitError:
        return []
    return [model_id(content_id, {}).hex(), *coding_ids(folder)]
