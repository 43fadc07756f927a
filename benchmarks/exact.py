"""Claims pixel_hashes and exact_code_flips: `--exact` gives the same pixels and codes everywhere.

    python benchmarks/exact.py [--quick] [--seed 0] [--work DIR] [--json FILE]

Three models, of patches, of several levels and of convolutions, are trained for a moment on the
built-in emoji. Patches of 96x96 of scikit-image's colour pictures are encoded, and their codes
decoded, by processes under forty settings: kernels of torch, oneDNN and MKL for the processor's own
instructions, AVX-512, AVX2, SSE4.2 and none of these with MKL's most compatible ones; 1 and 2
threads; batches of 1, 4, 16 and all.

pixel_hashes: SHA-256 sums of all decoded pixels that were seen of one model, the most of any.
exact_code_flips: codes that differ from those of the first setting, over all settings. Beside them
stand the same of float32 and float64, without `exact`; what `exact` costs in PSNR, against
float64; and its time over that of float64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.tiny_models import TINY

PARSER = options(__doc__, work=True)

KIND = "model.quantizer."
NETWORK = "model.network="
SCALAR = "model.quantizer={kind: scalar, channels: 24, step: 0.5}"
RESIDUAL = [
    "model.quantizer={kind: residual, num_stages: 4, stage: {kind: vq, codebook_size: 256}}"
]
MODELS = {
    "patches": RESIDUAL,
    "levels": [
        f"{NETWORK}{{kind: multiscale, width: 32, downsampling_factor: 8, encoder_blocks: [1, 1], "
        "decoder_blocks: [1, 1]}",
        SCALAR,
    ],
    "convolutions": [
        f"{NETWORK}{{kind: conv, width: 32, num_downsamplings: 2}}",
        f"{KIND}kind=fsq",
        f"{KIND}levels=[8,8,8,8]",
    ],
}
INSTRUCTIONS = {
    "own": {},
    "AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_CBWR": "AVX512"},
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
    "compatible": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
}
THREADS = (1, 2)
BATCHES = (1, 4, 16, 1 << 20)
SIDE = 96
NUM_IMAGES = 48
WAYS = ("float32", "float64", "exact")


def images(count: int, seed: int) -> np.ndarray:
    """uint8 (N, 96, 96, 3)."""
    from skimage import data

    rng = np.random.default_rng(seed)
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    found = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        top, left = (int(rng.integers(side - SIDE)) for side in picture.shape[:2])
        found.append(picture[top : top + SIDE, left : left + SIDE])
    return np.stack(found)


def trained(work: Path, name: str, quick: bool, seed: int) -> Path:
    import vqkit

    folder = work / name
    if not (folder / "report.html").exists():
        own = [one for one in TINY if "network" not in one or name == "patches"]
        steps = [f"train.steps={10 if quick else 300}", "train.max_minutes=null"]
        vqkit.train("emoji", folder, "emoji", [*own, *steps, *MODELS[name], f"seed={seed}"])
    return folder


# ------------------------------------------------------------------------- in a process of its own


def run(folder: Path, pixels: Path, codes: Path, out: Path) -> None:
    """Codes and pixels of every way and batch, into out-*.npy and sums."""
    import hashlib

    import torch

    import vqkit

    model = vqkit.load(folder, device="cpu")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    values = torch.from_numpy(np.load(pixels)).permute(0, 3, 1, 2).contiguous()
    given = torch.from_numpy(np.load(codes).astype(np.int64)) if codes.exists() else None
    if given is None:
        given = model.exactly.tokenizer.encode(values)
        np.save(codes, given.numpy().astype(np.int32))
    found: dict = {"hashes": {}, "flips": {}, "seconds": {}, "psnr": {}, "codes": given.numel()}
    for way in WAYS:
        tokenizer = (model.exactly if way == "exact" else model).tokenizer
        for size in BATCHES:
            start = time.perf_counter()
            shown = torch.cat(
                [
                    tokenizer.decode(part, (SIDE, SIDE), double=way == "float64")
                    for part in given.split(size)
                ]
            )
            found["seconds"][way] = time.perf_counter() - start
            if way != "float64":
                encoded = torch.cat([tokenizer.encode(part) for part in values.split(size)])
                found["flips"][f"{way} {size}"] = int((encoded != given).sum())
            key = f"{way} {size}"
            found["hashes"][key] = hashlib.sha256(shown.numpy().tobytes()).hexdigest()
            error = (shown.double() - values.double()).square().mean((1, 2, 3))
            found["psnr"][way] = float((10 * torch.log10(255**2 / error)).mean())
    out.write_text(json.dumps(found))


def started(folder: Path, work: Path, instructions: str, threads: int) -> dict:
    out = work / "found" / f"{folder.name}-{instructions}-{threads}.json"
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        environment = {**os.environ, **INSTRUCTIONS[instructions], "OMP_NUM_THREADS": str(threads)}
        paths = [folder, work / "images.npy", work / f"{folder.name}-codes.npy", out]
        command = [sys.executable, __file__, "--run", *map(str, paths)]
        subprocess.run(command, env=environment, check=True)
    return json.loads(out.read_text())


# --------------------------------------------------------------------------------------- figures


def figures(folder: Path, work: Path) -> dict:
    """Of one model, over all settings."""
    found = []
    for instructions in INSTRUCTIONS:
        for threads in THREADS:
            found.append(started(folder, work, instructions, threads))
    row: dict = {"settings": len(found) * len(BATCHES), "codes": found[0]["codes"]}
    for way in WAYS:
        keys = [f"{way} {size}" for size in BATCHES]
        row[way] = {
            "pixel_hashes": len({one["hashes"][key] for one in found for key in keys}),
            "seconds": sum(one["seconds"][way] for one in found),
            "psnr": found[0]["psnr"][way],
        }
        if way != "float64":
            row[way]["flips"] = sum(one["flips"][key] for one in found for key in keys)
    row["time"] = row["exact"]["seconds"] / row["float64"]["seconds"]
    row["psnr_lost"] = row["float64"]["psnr"] - row["exact"]["psnr"]
    print(folder.name, json.dumps(row), flush=True)
    return row


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run(*map(Path, sys.argv[2:]))
        return
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    np.save(work / "images.npy", images(4 if arguments.quick else NUM_IMAGES, arguments.seed))
    names = list(MODELS)[:1] if arguments.quick else list(MODELS)
    rows = {}
    for name in names:
        folder = trained(work, name, arguments.quick, arguments.seed)
        rows[name] = figures(folder, work)
    where = {**machine(), "seed": arguments.seed, "models": rows}
    hashes = max(row["exact"]["pixel_hashes"] for row in rows.values())
    flips = sum(row["exact"]["flips"] for row in rows.values())
    lost = max(row["psnr_lost"] for row in rows.values())
    slower = max(row["time"] for row in rows.values())
    report(
        [
            Claim("pixel_hashes", hashes, "sums", "1", "float32 and float64", where),
            Claim("exact_code_flips", flips, "codes", "0", "float32", where),
            Claim("exact_psnr_lost", lost, "dB", "<= 0.3", "float64", where),
            Claim("exact_time", slower, "x", "<= 10", "float64", where),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
