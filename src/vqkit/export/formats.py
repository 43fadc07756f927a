"""Programs as files: ONNX, or torch.export's own."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..artifact.model import Model
from ..errors import VqkitError
from ..files import write_whole
from .programs import Program, metadata, programs

# The version of ONNX's operators: the first with all that the networks need.
OPSET = 20
# Packages of `vqkit[onnx]` that writing needs.
PACKAGES = ("onnx", "onnxscript")


def export(model: Model, kind: str, folder: Path) -> list[Path]:
    """Write encoder and decoder of a model into a folder, one file each.

    kind: `onnx` (encoder.onnx, decoder.onnx: opset 20, with what `metadata` says as metadata_props)
    or `torch-export` (encoder.pt2, decoder.pt2 for `torch.export.load`, metadata in vqkit.json
    within). Both take values as files hold them, (B, C, *extent) of any batch and whole tiles, and
    give codes (B, Q, *grid) int64, and back. VqkitError without the packages, for a model that
    cannot be exported, and for a folder that cannot be written.
    """
    suffix, write = KINDS[kind]
    if kind == "onnx":
        check_installed()
    model = model.to("cpu")
    made = programs(model)
    found = metadata(model.artifact, made)
    paths = []
    for program in made:
        path = folder / f"{program.name}{suffix}"
        try:
            write_whole(path, partial(write, program, found))
        except OSError as error:
            raise VqkitError(
                f"cannot write {path}: {error.strerror or error}; choose another --out"
            ) from error
        paths.append(path)
    return paths


def check_installed() -> None:
    """VqkitError unless the packages are there that ONNX files are written with."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise VqkitError(f"ONNX files need {', '.join(missing)}: pip install 'vqkit[onnx]'")


def _write_onnx(program: Program, found: Mapping[str, str], path: Path) -> None:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(
            program.exported,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[program.takes],
            output_names=[program.gives],
            verbose=False,
        )
    content = made.model_proto
    onnx.helper.set_model_props(content, {**found, "vqkit.part": program.name})
    content.producer_name = "vqkit"
    onnx.checker.check_model(content)
    onnx.save(content, str(path))


def _write_program(program: Program, found: Mapping[str, str], path: Path) -> None:
    buffer = io.BytesIO()
    lines = ",\n ".join(f'"{name}": {value}' for name, value in found.items())
    torch.export.save(program.exported, buffer, extra_files={"vqkit.json": "{" + lines + "}"})
    path.write_bytes(buffer.getvalue())


KINDS: dict[str, tuple[str, Callable[[Program, Mapping[str, str], Path], None]]] = {
    "onnx": (".onnx", _write_onnx),
    "torch-export": (".pt2", _write_program),
}
