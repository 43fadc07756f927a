"""The coders of an artifact's folder: the present ones, and those that they replaced.

coder.safetensors     the network that codes are compressed with, and the rates that it offers
lossless.safetensors  the network that values are compressed with, of text what its coder learnt
coder-ID.safetensors, lossless-ID.safetensors   replaced ones, with which files that they wrote are
                                                read
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..coding import (
    UNIT_GAIN,
    BytesCoder,
    ScalarCoder,
    TransformerCoder,
    ValueNetwork,
    describe,
    opened,
)
from ..errors import VqkitError
from ..files import write_whole
from ..model.quantizers.base import Bottleneck
from .codec import CodeCoder, ValueCoder, model_id
from .operating_points import Rate
from .record import Artifact, Coders
from .tensor_files import (
    SUM,
    TensorFile,
    read_header,
    read_json,
    read_tensors,
    reason,
    write_tensors,
)

CODER_FILE = "coder.safetensors"
LOSSLESS_FILE = "lossless.safetensors"
# Bytes of a coder's file that are read at most.
MAX_BYTES = 1 << 28
_KEYS = frozenset({"content_id", "coding_id"})
CoderT = TypeVar("CoderT", bound=CodeCoder | ValueCoder)


def save_coders(artifact: Artifact, folder: Path) -> None:
    """Write the coders that the artifact has. Another coder that is there is kept beside the new
    one, under its own name, as files that it wrote need it. VqkitError when that fails.
    """
    coders = artifact.coders
    if coders.codes is not None:
        rates = {name: asdict(rate) for name, rate in coders.rates.items()}
        _save(
            folder / CODER_FILE,
            artifact.codes_id,
            coders.codes.tensors(),
            {"rates": json.dumps(rates)},
        )
    if coders.values is not None:
        _save(folder / LOSSLESS_FILE, artifact.codes_id, coders.values.tensors(), {})


def _save(
    path: Path, content_id: str, tensors: Mapping[str, np.ndarray], more: Mapping[str, str]
) -> None:
    coding_id = model_id(content_id, tensors).hex()
    if path.exists():
        older = coding_id_of(path)
        if older not in ("", coding_id):
            _keep(path, path.with_stem(f"{path.stem}-{older}"))
    metadata = {"content_id": content_id, "coding_id": coding_id, **more}
    write_tensors(
        path, {name: torch.from_numpy(value) for name, value in tensors.items()}, metadata
    )
    # It is the present one again.
    path.with_stem(f"{path.stem}-{coding_id}").unlink(missing_ok=True)


def _keep(path: Path, target: Path) -> None:
    try:
        write_whole(target, lambda where: shutil.copyfile(path, where))
    except OSError as error:
        raise VqkitError(f"cannot write {target}: {reason(error)}") from error


def coding_ids(folder: Path) -> list[str]:
    """What names, in compressed files, the model with each of its coders; those that cannot be read
    are left out.
    """
    paths = [path for name in (CODER_FILE, LOSSLESS_FILE) for path in _paths(folder / name)]
    return [name for name in map(coding_id_of, paths) if name]


def coding_id_of(path: Path) -> str:
    """What names, in compressed files, the model with the coder of a file; empty where it cannot be
    read.
    """
    try:
        return _read(path).metadata.get("coding_id", "")
    except VqkitError:
        return ""


def load_coders(
    folder: Path, content_id: str, quantizer: Bottleneck
) -> tuple[Coders, tuple[str, ...]]:
    """The coders of a model with such codes, and a sentence for each file that cannot be used."""
    problems: list[str] = []

    def loaded(path: Path, read: Callable[[Path], CoderT]) -> CoderT | None:
        try:
            return read(path)
        except VqkitError as error:
            problems.append(
                f"{error}; without it, files that it wrote are not read: delete it and run vqkit "
                "train-coder"
            )
            return None

    rates: dict[Path, dict[str, Rate]] = {}

    def of_codes(path: Path) -> CodeCoder:
        file = _checked(path, content_id)
        per_section = quantizer.codebooks_per_section
        if per_section > 1:
            scalar = _made(path, file, ScalarCoder.from_tensors)
            if (scalar.channels, scalar.sizes) != (per_section, quantizer.codebook_sizes):
                raise VqkitError(f"{path} was fitted to another model")
            rates[path] = _rates(file, scalar.num_stages, has_gains=True)
            return scalar
        coder = _made(path, file, TransformerCoder.from_tensors)
        sections = quantizer.sections
        sizes = [quantizer.codebook_sizes[section.place] for section in sections]
        if [len(vectors) - 1 for vectors in coder.vectors] != sizes:
            raise VqkitError(f"{path} was fitted to another model")
        rates[path] = _rates(file, len(sizes), has_gains=False)
        return replace(coder, sides=tuple(section.side for section in sections))

    def of_values(path: Path) -> ValueCoder:
        file = _checked(path, content_id)
        if "history" in file.tensors:
            return _made(path, file, BytesCoder.from_tensors)
        return _made(path, file, ValueNetwork.from_tensors)

    code_path = folder / CODER_FILE
    value_path = folder / LOSSLESS_FILE
    problems += _restored(code_path) + _restored(value_path)
    codes = {path: loaded(path, of_codes) for path in _paths(code_path)}
    values = {path: loaded(path, of_values) for path in _paths(value_path)}
    coders = Coders(
        codes=codes.pop(code_path, None),
        values=values.pop(value_path, None),
        older=tuple(one for one in [*codes.values(), *values.values()] if one is not None),
        rates=rates.get(code_path, {}),
    )
    return coders, tuple(problems)


def _paths(path: Path) -> list[Path]:
    """The coder's file, if it is there, and those of coders that it replaced."""
    present = [path] if path.exists() else []
    return [*present, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]


def _restored(path: Path) -> list[str]:
    """A sentence where a coder that was replaced lies in the place of the one that replaced it."""
    try:
        kept = path.with_stem(f"{path.stem}-{read_header(path)['coding_id']}")
        if not kept.exists():
            return []
    except (VqkitError, KeyError, OSError, ValueError):
        # Missing, or damaged, which is said where it is read.
        return []
    return [
        f"{path} is a copy of {kept.name}: the coder that replaced it is gone; delete {kept.name} "
        "if that was meant"
    ]


def _checked(path: Path, content_id: str) -> TensorFile:
    """The file of a coder of this model.

    VqkitError for another model's, and for what is not what its name says.
    """
    file = _read(path)
    if file.metadata["content_id"] != content_id:
        raise VqkitError(f"{path} was fitted to another model")
    check_id(path, file)
    return file


def check_id(path: Path, file: TensorFile) -> None:
    """VqkitError for numbers that are not those that the coder's name stands for."""
    coding_id = file.metadata["coding_id"]
    # A file with a sum of its own is known to be as it was written, the name of its coder included.
    is_known = SUM in file.metadata
    if (
        not is_known
        and coding_id != model_id(file.metadata["content_id"], _arrays(path, file)).hex()
    ):
        raise VqkitError(f"{path} is damaged: its numbers are not those that its name stands for")
    if path.stem not in (
        Path(CODER_FILE).stem,
        Path(LOSSLESS_FILE).stem,
    ) and not path.stem.endswith(f"-{coding_id}"):
        raise VqkitError(f"{path} was replaced: it holds the coder {coding_id}")


def _made(
    path: Path, file: TensorFile, from_tensors: Callable[[Mapping[str, np.ndarray]], CoderT]
) -> CoderT:
    try:
        return from_tensors(_arrays(path, file))
    except ValueError as error:
        raise VqkitError(f"cannot read the coder {path}: {error}") from error


def _read(path: Path) -> TensorFile:
    # Coders of before rates lay beside them have none, and those of values never do.
    holds_codes = path.stem.split("-")[0] == Path(CODER_FILE).stem
    return read_tensors(
        path, MAX_BYTES, _KEYS, frozenset({"rates"}) if holds_codes else frozenset()
    )


def _arrays(path: Path, file: TensorFile) -> dict[str, np.ndarray]:
    try:
        return {name: value.numpy() for name, value in file.tensors.items()}
    except TypeError as error:
        raise VqkitError(f"cannot read the coder {path}: {error}") from error


def _rates(file: TensorFile, num_stages: int, has_gains: bool) -> dict[str, Rate]:
    """What a coder's file says; nothing where that makes no sense, as a coder is of use without."""
    try:
        tree: Any = json.loads(file.metadata.get("rates", "{}"))
        rates = {str(name): Rate.read(point) for name, point in tree.items()}
    except (AttributeError, TypeError, ValueError, RecursionError):
        return {}
    for rate in rates.values():
        if rate.num_stages > num_stages or (rate.gain != UNIT_GAIN and not has_gains):
            return {}
    return rates


def find_artifact(source: Path, folders: Sequence[Path] = (Path(),)) -> Path:
    """The artifact that a .vq file was written with, among folders and what lies up to two levels
    below them.

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
    raise VqkitError(
        f"the model of {source} ({known}) is not below {os.curdir}; say where it is with --model "
        "DIR"
    )


def _names_of(folder: Path) -> list[str]:
    """Names, in compressed files, of an artifact with each of its coders and without any; of other
    folders, none.
    """
    try:
        tree = read_json(folder / "config.json")
    except VqkitError:
        return []
    codes_id = str(tree.get("codes_of") or tree.get("content_id"))
    return [model_id(codes_id, {}).hex(), *coding_ids(folder)]
