"""Decodes golden files with nothing but NumPy and `vqkit.coding`: one setting of
benchmarks/portability.py.

    python benchmarks/bench/golden_decoder.py FOLDER BATCH SHARE

FOLDER has manifest.json and, for each model, the numbers of its coder and the codes that were
written. BATCH items go together, of every SHARE-th item of each model. Prints JSON: codes that were
decoded; how many of them, and how many payloads written anew, differ from the files; a SHA-256 of
all frequencies of each item, of nothing for scalar codes, which have none; which NumPy and BLAS did
it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqkit.coding import (
    BUNDLE,
    Bundle,
    ScalarCoder,
    TransformerCoder,
    kernels,
    profile_of,
    read_file,
)
from vqkit.coding.codes import transformer_coder


@dataclass
class Item:
    """One item of a golden file: its model, grid, the payload and the expected codes of each
    stage.
    """

    grid: tuple[int, ...]
    payloads: tuple[bytes, ...]
    codes: np.ndarray
    tables: str = ""


def items_of(folder: Path, model: str, files: list[dict]) -> list[Item]:
    expected = np.load(folder / f"{model}-codes.npz")
    found = []
    for file in files:
        data = (folder / file["name"]).read_bytes()
        if profile_of(data) == BUNDLE:
            bundle = Bundle(data)
            payloads = [
                item for n in range(bundle.header.num_blocks) for item in bundle.block(n).payloads
            ]
        else:
            payloads = [tuple(stage.payload for stage in read_file(data).stages)]
        for grid, parts, codes in zip(file["grids"], payloads, expected[file["name"]], strict=True):
            found.append(Item(tuple(grid), parts, codes))
    return found


class Tables:
    """In the place of `transformer_coder.frequencies` while a batch is decoded: what it gives, and
    sums by item.
    """

    def __init__(self, count: int) -> None:
        self.sums = [hashlib.sha256() for _ in range(count)]
        self.make = transformer_coder.frequencies
        self.compiled = kernels.load

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        found = self.make(logits)
        for one, row in zip(self.sums, found, strict=True):
            one.update(np.ascontiguousarray(row, "<i8").tobytes())
        return found

    def __enter__(self) -> Tables:
        transformer_coder.frequencies = self
        kernels.load = lambda module: None  # compiled code has tables of its own
        return self

    def __exit__(self, *exception: object) -> None:
        transformer_coder.frequencies = self.make
        kernels.load = self.compiled


def coder_of(tensors: dict[str, np.ndarray]) -> TransformerCoder | ScalarCoder:
    """The coder that has these tensors."""
    kind = ScalarCoder if "levels" in tensors else TransformerCoder
    return kind.from_tensors(tensors)


def compared(prior: TransformerCoder | ScalarCoder, batch: list[Item]) -> tuple[int, int]:
    """Decode items of one grid, with NumPy and, where numba is there, compiled; write them anew:
    codes, and payloads, that differ.
    """
    payloads = [item.payloads for item in batch]
    with Tables(len(batch)) as tables:
        codes = prior.decode(payloads, batch[0].grid)
    for item, one in zip(batch, tables.sums, strict=True):
        item.tables = one.hexdigest()
    again = [tuple(parts) for parts in prior.encode(codes)]
    expected = np.stack([item.codes for item in batch])
    wrong = 0
    for found in (codes, prior.decode(payloads, batch[0].grid)):
        # Scalar codes come one item after the other.
        wrong += int((np.stack([np.asarray(one) for one in found]) != expected).sum())
    return wrong, sum(parts != item.payloads for parts, item in zip(again, batch, strict=True))


def blas_core() -> str:
    """Which kernels OpenBLAS has chosen, by its own word."""
    for path in Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"):
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_"):
            if hasattr(library, name):
                getattr(library, name).restype = ctypes.c_char_p
                return getattr(library, name)().decode()
    return "unknown"


def main() -> None:
    folder = Path(sys.argv[1])
    batch = int(sys.argv[2])
    share = int(sys.argv[3])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    found = {
        "numpy": np.__version__,
        "blas": blas_core(),
        "codes": 0,
        "wrong_codes": 0,
        "wrong_payloads": 0,
    }
    tables = []
    for model, files in manifest.items():
        prior = coder_of(dict(np.load(folder / f"{model}-coder.npz")))
        items = items_of(folder, model, files)[::share]
        for grid in sorted({item.grid for item in items}):
            alike = [item for item in items if item.grid == grid]
            for start in range(0, len(alike), batch):
                wrong, payloads = compared(prior, alike[start : start + batch])
                found["wrong_codes"] += wrong
                found["wrong_payloads"] += payloads
        found["codes"] += sum(item.codes.size for item in items)
        tables += [f"{number * share} {model} {item.tables}" for number, item in enumerate(items)]
    print(json.dumps({**found, "tables": tables}))


if __name__ == "__main__":
    main()
