"""What a model gives in a process that has fewer instructions of the processor, as on an older
machine.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..artifact.model import Model
from ..artifact.store import load_artifact
from ..errors import VqkitError

# Kernels of torch, of oneDNN and of MKL, each by its own variable.
INSTRUCTIONS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
    },
    "SSE4.2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "SSE4_2",
    },
}
# Items that are looked at.
NUM_ITEMS = 16
CODE = "import sys; from vqkit.pipelines.elsewhere import main; main(*sys.argv[1:])"

# By what is compared: how many numbers differ, of how many.
Flips = dict[str, tuple[int, int]]


def flips_elsewhere(folder: str | Path, model: Model, items: Sequence[Tensor]) -> dict[str, Flips]:
    """For each set of instructions: codes, values, and both of `Model.exactly` where the model has
    it, that differ from those of this process. Nothing on processors other than x86.

    folder: of the model. VqkitError.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return {}
    some = list(items[:NUM_ITEMS])
    here = _numbers(model, some)
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary) / "items.npz"
        np.savez(given, *[item.numpy() for item in some])
        for name, variables in INSTRUCTIONS.items():
            out = Path(temporary) / f"{name}.npz"
            command = [sys.executable, "-c", CODE, str(folder), str(given), str(out)]
            done = subprocess.run(
                command, env={**os.environ, **variables}, capture_output=True, text=True
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise VqkitError(f"the check with {name} failed in its process: {last}")
            with np.load(out) as there:
                found[name] = _differences(here, there)
    return found


def main(folder: str, given: str, out: str) -> None:
    """What `_numbers` finds of items in a file, into another one."""
    with np.load(given) as arrays:
        items = [torch.from_numpy(arrays[name]) for name in arrays.files]
    found = _numbers(Model(load_artifact(folder), "cpu"), items)
    np.savez(out, **found)  # type: ignore[arg-type]


def _numbers(model: Model, items: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Codes and values of all items, one behind the other, by the names of `flips_elsewhere`."""
    found = _both(Model(model.artifact, "cpu"), items)
    try:
        exact = _both(model.exactly, items)
    except VqkitError:
        return found
    return found | {f"exact {name}": numbers for name, numbers in exact.items()}


def _both(model: Model, items: Sequence[Tensor]) -> dict[str, np.ndarray]:
    tokenizer = model.tokenizer
    codes = [tokenizer.encode(item[None]) for item in items]
    values = []
    for one, item in zip(codes, items, strict=True):
        values.append(tokenizer.decode(one, item.shape[1:], double=True))
    joined = {"codes": codes, "values": values}
    return {name: torch.cat([one.flatten() for one in all]).numpy() for name, all in joined.items()}


def _differences(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> Flips:
    return {
        name: (int((numbers != there[name]).sum()), numbers.size) for name, numbers in here.items()
    }
