"""Caches of made-up codes, for tests that need no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vqkit.tokens import cache
from vqkit.tokens.cache import ModelInfo, Receipt, Sample, ShardWriter

MODEL = ModelInfo("ab" * 32, "/nowhere/model", "image", (10, 500), (0, 1))


def sample(number: int, model: ModelInfo = MODEL, grid: tuple[int, ...] = (2, 3)) -> Sample:
    """Codes that a number alone decides."""
    random = np.random.default_rng(number)
    codes = np.stack([random.integers(0, size, grid) for size in model.codebook_sizes])
    label = f"class {number % 3}" if number % 4 else None
    texts = {"caption": f"number {number} \u00e9", "other": "x"} if number % 5 else {}
    return Sample(f"../{number}/a b", codes, [8 * side - 1 for side in grid], label, texts)


def write_cache(folder: Path, shards: list[list[Sample]], model: ModelInfo = MODEL) -> Path:
    """A cache that is whole."""
    receipts = []
    for number, samples in enumerate(shards):
        path = folder / cache.shard_file(number)
        folder.mkdir(parents=True, exist_ok=True)
        writer = ShardWriter(path, model)
        for one in samples:
            writer.add(one)
        writer.close()
        receipt = Receipt(
            model.codes_id,
            f"source-{number}",
            "stamp",
            writer.num_samples,
            writer.num_codes,
            0,
            (),
            path.stat().st_size,
            cache.sha256_of(path),
        )
        cache.write_receipt(folder, number, receipt)
        receipts.append(receipt)
    cache.write_manifest(folder, model, "source", receipts)
    return folder
