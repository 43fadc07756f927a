"""Claims integer_prior_excess, saving_vs_fixed_length: what the integer-only transformer of files
costs beside floats.

    python benchmarks/integer_prior.py [--quick] [--work DIR] [--json FILE]

Fits the coder of tokenizers of Fashion-MNIST (49 codes, K = 512; three seeds) with 3000 steps,
about 20 minutes of a core each, and measures bits a code of the 10,000 test images: by the bytes of
payloads; by the frequencies of the integers; by the float twin, the same network without any
rounding. --work is that of benchmarks/priors.py, whose tokenizers and whose float transformers,
trained for 20 minutes of a core too and not told the class, are beside it.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.image_sets import shorten_fashion_mnist

PARSER = options(__doc__, work=True)

SEEDS = 3
STEPS = 3000
# Bits of a code of 512 without entropy coding.
FIXED = 9


def measure(folder: Path, steps: int, count: int) -> dict:
    """One tokenizer's coder, in bits a code of `count` test images."""
    import torch

    import vqkit
    from vqkit.apps.evaluate import open_for
    from vqkit.training.loop import fit
    from vqkit.training.tasks.code_coder import CodeCoderTask

    model = vqkit.load(folder)
    data = open_for(model, "fashion-mnist", "test")
    parts = [model.tokenizer.encode(batch.values) for batch in data.split("test", 256)]
    test = torch.cat(parts)[:count]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        finished = fit(CodeCoderTask(model.tokenizer, data, steps), Path(work))
    assert finished is not None
    seconds = time.process_time() - began
    # The same network without any rounding.
    network = finished.model
    network.dtype = torch.float32
    network.whole = False
    with torch.no_grad():
        twin = float(torch.cat([network(part).flatten() for part in test.split(256)]).mean())
    coder = network.integers()
    payloads = coder.encode(test.numpy())
    num_bytes = sum(len(part) for item in payloads for part in item)
    validated = [row["bits_per_code"] for row in finished.history if row["split"] == "validation"]
    return {
        "validation": min(validated),
        "payload_bits": 8 * num_bytes / test.numel(),
        "integer_bits": ideal(coder, test.numpy()),
        "twin_bits": twin,
        "core_seconds": seconds,
        "bytes": sum(value.nbytes for value in coder.tensors().values()),
    }


def ideal(coder, codes: np.ndarray) -> float:
    """Bits a code by the integers' frequencies, without the ends of strings."""
    bits = []
    for part in np.array_split(codes, -(-len(codes) // 32)):
        for number in range(len(coder.stages)):
            wanted = part[:, number].reshape(len(part), -1, 1)
            for items, slots, table in coder.tables(part, number):
                chosen = np.take_along_axis(table, wanted[items, slots], 2)
                bits.append(16 - np.log2(chosen).ravel())
    return float(np.concatenate(bits).mean())


def main() -> None:
    args = PARSER.parse_args()
    if args.quick:
        shorten_fashion_mnist()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        rows = [one(work, seed, args.quick) for seed in range(1 if args.quick else SEEDS)]
    for seed, row in enumerate(rows):
        print(seed, json.dumps(row))
    names = ("payload_bits", "integer_bits", "twin_bits")
    payload, integer, twin = (np.array([row[name] for row in rows]) for name in names)
    settings = {**machine(), "seeds": len(rows), "rows": rows}
    claims = [
        Claim(
            "integer_prior_excess",
            float(100 * (integer / twin - 1).mean()),
            "%",
            "<= 0.5",
            "float twin",
            settings,
        ),
        Claim(
            "saving_vs_fixed_length",
            float(100 * (1 - payload / FIXED).mean()),
            "%",
            ">= 50",
            None,
            settings,
        ),
    ]
    floats = [row["transformer_bits"] for row in rows if row["transformer_bits"]]
    if len(floats) == len(rows):
        excess = float(100 * (integer / np.array(floats) - 1).mean())
        claims.append(
            Claim(
                "integer_prior_vs_transformer", excess, "%", "<= 2", "float transformer", settings
            )
        )
    report(claims, args)


def one(work: Path, seed: int, quick: bool) -> dict:
    import vqkit

    folder = work / f"fashion-mnist-{seed}"
    if not (folder / "config.json").exists():
        short = ["train.steps=60"] if quick else []
        vqkit.train("fashion-mnist", folder, overrides=["coder.steps=0", f"seed={seed}", *short])
    steps, count = (40, 200) if quick else (STEPS, 10_000)
    row = kept(work / f"coder-{steps}-{seed}.json", lambda: measure(folder, steps, count))
    prior = vqkit.load(folder).prior
    return {**row, "transformer_bits": prior and prior.metrics.get("bits_per_code_untold")}


if __name__ == "__main__":
    main()
