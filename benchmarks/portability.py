"""Claims portability_differences, portability_codes, audio_portability_differences: .vq files give
the same codes and bytes everywhere.

    python benchmarks/portability.py [--quick] [--seed 0] [--sound] [--json FILE] [--work DIR]

Sixteen models, one of every family of quantizers and of several grids, codebook sizes and numbers
of stages, are trained for a moment on the built-in emoji, each with its coder. Each writes fifteen
golden files: ten of single images of random sizes, five bundles; 10^6 codes in all (--quick: three
models, 10^4 codes). They are decoded and written anew by processes that have NumPy and
`vqkit.coding` alone, under every combination of: the processor's own instructions, AVX-512, AVX2,
SSE4.2 and SSE3 (kernels of OpenBLAS and of NumPy, and the variables of torch's libraries, although
none of those is loaded); NumPy 1.26.4 (for Python 3.13 and later an early one that it can have), in
an environment that is made under --work, and the one that is installed; 1 and 2 threads, batches of
64 and of 1. All items are decoded with one thread in batches of 64, a sample of them in the other
ways (RUNS).

Three codecs of recordings, one of codebooks and two of scalar codes, are trained for a moment on
voices that are made by formula. Each writes three recordings, of which the longest is coded in
parts, and two bundles, which are decoded under the same settings: audio_portability_differences.
--sound measures these alone.

portability_differences: codes that differ from those that were written, payloads that differ when
they are written anew, and items whose frequencies (SHA-256 of all of them; there are none of scalar
codes) differ from the first setting's, over all settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from bench.claims import Claim, kept, machine, options, report
from bench.image_sets import arrays, open_set
from bench.tiny_models import TINY

PARSER = options(__doc__, work=True)
PARSER.add_argument("--sound", action="store_true")

ROOT = Path(__file__).resolve().parents[1]
KIND = "model.quantizer."
MODELS = {
    "vq": [f"{KIND}codebook_size=512"],
    "vq-2": [f"{KIND}codebook_size=2"],
    "vq-cosine": [f"{KIND}distance=cosine", f"{KIND}codebook_size=1024"],
    "simvq": [f"{KIND}kind=simvq", f"{KIND}codebook_size=100"],
    "fsq": [f"{KIND}kind=fsq", f"{KIND}levels=[8,8,8]"],
    "lfq": [f"{KIND}kind=lfq", f"{KIND}bits=12"],
    "bsq": [f"{KIND}kind=bsq", f"{KIND}bits=9"],
    "bins": [f"{KIND}kind=gaussian_codebook", f"{KIND}levels=[5,5,5,5]"],
    "draws": [f"{KIND}kind=gaussian_codebook", f"{KIND}layout=draws", f"{KIND}codebook_size=300"],
    "residual": [
        f"{KIND}kind=residual",
        f"{KIND}num_stages=4",
        f"{KIND}stage.kind=vq",
        f"{KIND}stage.codebook_size=64",
    ],
    "residual-fsq": [f"{KIND}kind=residual", f"{KIND}num_stages=8", f"{KIND}stage.kind=fsq"],
    "product": [f"{KIND}kind=product", f"{KIND}num_groups=2"],
    "hierarchical": [
        f"{KIND}kind=hierarchical",
        f"{KIND}bottom.kind=vq",
        f"{KIND}bottom.codebook_size=128",
    ],
    "three-grids": [
        f"{KIND}kind=hierarchical",
        f"{KIND}top.kind=hierarchical",
        f"{KIND}bottom.kind=vq",
        f"{KIND}bottom.codebook_size=16",
    ],
    "pyramid": [
        f"{KIND}kind=pyramid",
        f"{KIND}stage.kind=vq",
        f"{KIND}stage.codebook_size=64",
    ],
    "scalar": [f"{KIND}kind=scalar", f"{KIND}channels=24"],
    "residual-scalar": [
        f"{KIND}kind=residual",
        f"{KIND}num_stages=3",
        f"{KIND}stage={{kind: scalar, channels: 12, levels: 63}}",
    ],
}
# Those of --quick.
QUICK = ("vq", "residual", "residual-scalar")
SOUND_MODELS = {
    "speech": [f"{KIND}num_stages=3", f"{KIND}stage.codebook_size=64"],
    "speech-scalar": [f"{KIND[:-1]}={{kind: scalar, channels: 136, step: 1.0, levels: 255}}"],
    "lapped": [
        "model.network={kind: lapped, hop: 64, width: 16, decoder_blocks: 1}",
        f"{KIND[:-1]}={{kind: scalar, channels: 64, levels: 255}}",
    ],
}
# Those of --quick.
QUICK_SOUND = ("speech",)
TINY_SOUND = [
    "train.precision=float32",
    "train.steps=6",
    "train.batch_size=4",
    "train.guard=off",
    "model.network.width=16",
    "model.network.decoder_blocks=1",
    "data.validation=0.2",
    "data.test=0.2",
    "coder.steps=4",
]
RATE = 8000
# Seconds of the recordings of one codec, of which the last is coded in parts; and of the items of
# its bundles, with their number.
SOUNDS = (0.02, 7.3, 170.0)
SOUND_BUNDLES = ((0.9, 40), (3.1, 12))
# Files of each model, and codes of its bundles.
SINGLES = 10
BUNDLES = 5
CODES = 72_000

WIDE = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
INSTRUCTIONS = {
    "own": {},
    "AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "AVX2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": WIDE,
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
    },
    "SSE4.2": {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": f"{WIDE} AVX2 FMA3 X86_V3",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    "SSE3": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": f"{WIDE} AVX2 FMA3 X86_V3",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
}
# Of those that ship for this Python.
OLD_NUMPY = {11: "1.26.4", 12: "1.26.4", 13: "2.1.0"}.get(sys.version_info.minor, "2.3.2")
# Threads; items that are decoded together; of which only every so many-th.
RUNS = ((1, 64, 1), (1, 1, 200), (2, 64, 20), (2, 1, 200))


# ------------------------------------------------------------------------------------- golden files


def write_golden(folder: Path, models: dict[str, list[str]], codes: int, seed: int) -> dict:
    """Golden files with manifest.json: of each model the files, and of each file the grids of its
    items.
    """
    files = {}
    for name, overrides in models.items():
        model = trained(folder, name, "emoji", "emoji", [*TINY, *overrides], seed)
        files[name] = write_files(folder, name, model, codes, np.random.default_rng(seed))
    return files


def write_golden_sound(folder: Path, models: dict[str, list[str]], seed: int) -> dict:
    """The same of codecs of recordings."""
    rng = np.random.default_rng(seed)
    files = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(10):
            soundfile.write(Path(temporary) / f"{number}.wav", voice(3.0, rng), RATE, "PCM_16")
        for name, overrides in models.items():
            model = trained(folder, name, temporary, "speech", [*TINY_SOUND, *overrides], seed)
            files[name] = write_sound_files(folder, name, model, rng)
    return files


def trained(folder: Path, name: str, source: str, recipe: str, settings: list[str], seed: int):
    """A model; the numbers of its coder are in the folder."""
    import vqkit

    with tempfile.TemporaryDirectory() as temporary:
        model = vqkit.train(source, Path(temporary) / "run", recipe, [*settings, f"seed={seed}"])
    assert model is not None and model.artifact.coders.codes is not None
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}-coder.npz", **model.artifact.coders.codes.tensors())
    return model


def write_sound_files(folder: Path, kind: str, model, rng: np.random.Generator) -> list[dict]:
    items = [(seconds, 1) for seconds in SOUNDS] + list(SOUND_BUNDLES)
    written = []
    expected = {}
    for number, (seconds, count) in enumerate(items):
        sounds = np.stack([voice(seconds, rng)[None] for _ in range(count)])
        found = model.encode(sounds).numpy()
        name = f"{kind}-{number:02}.vq"
        data = model.compress(sounds[0])
        if count > 1:
            data = bundle(model, data, sounds.shape[2:], found)
        (folder / name).write_bytes(data)
        written.append({"name": name, "grids": [list(found.shape[2:])] * count})
        expected[name] = found.astype(np.uint16)
    np.savez_compressed(folder / f"{kind}-codes.npz", **expected)
    return written


def voice(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A vowel that glides, with hiss and pauses: int16 (T,)."""
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 * 2 ** (rng.uniform(0, 1) + 0.2 * np.sin(2 * np.pi * times / 1.3))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    vowel = np.zeros_like(times)
    for harmonic in range(1, 18):
        vowel += np.cos(harmonic * phase) / (1 + abs(harmonic * pitch - 700) / 300)
    loud = np.sin(2 * np.pi * times / 0.9 + rng.uniform(0, 6)) > 0
    sound = 0.05 * vowel * loud + 0.003 * rng.standard_normal(len(times))
    return np.rint(32768 * sound).clip(-32768, 32767).astype(np.int16)


def write_files(folder: Path, kind: str, model, codes: int, rng: np.random.Generator) -> list[dict]:
    sheet = mosaic(model.config.seed)
    written = []
    expected = {}
    for number in range(SINGLES + BUNDLES):
        count, limit = (1, 128) if number < SINGLES else (codes // BUNDLES, 32)
        height, width = rng.integers(limit // 4, limit + 1, 2).tolist()
        count = -(-count // model.encode(sheet[:height, :width])[0].numel())
        images = np.stack([cut(sheet, height, width, rng) for _ in range(count)])
        found = model.encode(images).numpy()
        name = f"{kind}-{number:02}.vq"
        data = model.compress(images[0])
        if number >= SINGLES:
            data = bundle(model, data, images.shape[1:3], found)
        (folder / name).write_bytes(data)
        written.append({"name": name, "grids": [list(found.shape[2:])] * count})
        expected[name] = found.astype(np.uint16)
    np.savez_compressed(folder / f"{kind}-codes.npz", **expected)
    return written


def bundle(model, first: bytes, extent: tuple[int, ...], codes: np.ndarray) -> bytes:
    """A bundle of codes (N, Q, *grid) of items of one extent; first: the file of one of them."""
    from vqkit.coding import Block, BundleHeader, Extents, codes_crc, read_file, write_bundle

    one = read_file(first).header
    payloads = model.artifact.coders.codes.encode(codes)
    sizes = Extents([extent] * len(codes))
    header = BundleHeader(sizes, one.num_codebooks, one.coder, one.model_id, signal=one.signal)
    spans = [
        slice(items.start, items.stop) for items in map(header.items, range(header.num_blocks))
    ]
    blocks = [
        Block(codes_crc(codes[span], number), tuple(map(tuple, payloads[span])))
        for number, span in enumerate(spans)
    ]
    return write_bundle(header, blocks)


def mosaic(seed: int) -> np.ndarray:  # (384, 384, 3)
    """144 emoji side by side."""
    images = arrays(open_set("emoji", seed), range(144))
    return images.reshape(12, 12, 32, 32, 3).swapaxes(1, 2).reshape(384, 384, 3)


def cut(sheet: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (
        int(rng.integers(sheet.shape[axis] - side + 1)) for axis, side in enumerate((height, width))
    )
    return sheet[top : top + height, left : left + width].copy()


# ----------------------------------------------------------------------------------------- settings


def pythons(work: Path) -> dict[str, Path]:
    """Interpreters by NumPy: the one that runs this, and one that has OLD_NUMPY and nothing
    else.
    """
    old = work / f"numpy-{OLD_NUMPY}"
    if not (old / "pyvenv.cfg").exists():
        venv.create(old, with_pip=True)
        command = [old / "bin" / "python", "-m", "pip", "install", "--quiet", f"numpy=={OLD_NUMPY}"]
        subprocess.run(command, check=True)
    return {"installed": Path(sys.executable), OLD_NUMPY: old / "bin" / "python"}


def decoded(
    python: Path, golden: Path, variables: dict[str, str], threads: int, batch: int, share: int
) -> dict:
    """What bench/golden_decoder.py says under these settings, and nothing that this process happens
    to have set.
    """
    blas = ("OPENBLAS_", "OMP_", "MKL_", "NPY_", "ATEN_", "ONEDNN_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(blas)}
    environment |= {
        "PYTHONPATH": str(ROOT / "src"),
        "OPENBLAS_NUM_THREADS": str(threads),
        **variables,
    }
    command = [
        str(python),
        "-W",
        "ignore",
        str(ROOT / "benchmarks" / "bench" / "golden_decoder.py"),
        str(golden),
        str(batch),
        str(share),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def measured(work: Path, golden: str, instructions: list[str]) -> list[dict]:
    """A row for each setting under which the files of a folder below `work` were decoded."""
    rows = []
    tables = dict[str, str]()
    prefix = "decoded" if golden == "golden" else f"decoded-{golden}"
    for (numpy, python), name, (threads, batch, share) in product(
        pythons(work).items(), instructions, RUNS
    ):
        row = {"python": numpy, "instructions": name, "threads": threads, "batch": batch}
        file = work / f"{prefix}-{numpy}-{name}-{threads}-{batch}.json"
        settings = INSTRUCTIONS[name]
        decode = partial(decoded, python, work / golden, settings, threads, batch, share)
        found = kept(file, decode)
        these = dict(line.rsplit(" ", 1) for line in found.pop("tables"))
        tables = tables or these
        differing = sum(tables[item] != sum_ for item, sum_ in these.items())
        rows.append({**row, **found, "wrong_tables": differing})
        print(rows[-1], flush=True)
    return rows


def differences(rows: list[dict]) -> int:
    keys = ("wrong_codes", "wrong_payloads", "wrong_tables")
    return sum(row[key] for row in rows for key in keys)


def main() -> None:
    arguments = PARSER.parse_args()
    models = {name: MODELS[name] for name in QUICK} if arguments.quick else MODELS
    codes = 3_000 if arguments.quick else CODES
    # Without it the processor refuses what is forced on it.
    wide = "avx512f" in Path("/proc/cpuinfo").read_text()
    instructions = (
        ["own", "SSE3"]
        if arguments.quick
        else [one for one in INSTRUCTIONS if wide or one != "AVX-512"]
    )
    seed = arguments.seed
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        if not arguments.sound:
            claims += of_images(work, models, codes, instructions, seed)
        names = QUICK_SOUND if arguments.quick else tuple(SOUND_MODELS)
        claims.append(
            of_sound(work, {name: SOUND_MODELS[name] for name in names}, instructions, seed)
        )
    report(claims, arguments)


def of_images(
    work: Path, models: dict[str, list[str]], codes: int, instructions: list[str], seed: int
) -> list[Claim]:
    golden = work / "golden"
    kept(golden / "manifest.json", lambda: write_golden(golden, models, codes, seed))
    rows = measured(work, "golden", instructions)
    files = len(list(golden.glob("*.vq")))
    where = {**machine(), "seed": seed, "files": files, "models": list(models), "rows": rows}
    return [
        Claim("portability_differences", differences(rows), "", "0", None, where),
        Claim("portability_codes", rows[0]["codes"], "codes", ">= 1e6", None, where),
        Claim("portability_files", files, "files", ">= 200", None, where),
        Claim("portability_settings", len(rows), "", "reported", None, where),
    ]


def of_sound(work: Path, models: dict[str, list[str]], instructions: list[str], seed: int) -> Claim:
    sound = work / "sound"
    kept(sound / "manifest.json", lambda: write_golden_sound(sound, models, seed))
    rows = measured(work, "sound", instructions)
    where = {**machine(), "seed": seed, "models": list(models), "rows": rows}
    return Claim("audio_portability_differences", differences(rows), "", "0", None, where)


if __name__ == "__main__":
    main()
