"""Claims decode_images_per_s ... bundle_overhead_bytes: how fast .vq files are, and what they cost
beside their codes.

    python benchmarks/coding_speed.py [--quick] [--seed 0] [--json FILE] [--work DIR]

The model is DIR/fashion-mnist-SEED, as benchmarks/priors.py leaves it; if it is missing, `vqkit
train fashion-mnist` makes it, and `vqkit train-coder` its coder (--quick: both in some seconds; how
long does not change what is measured). 2,560 test images (--quick: 64) of 28x28 pixels, 49 codes
each. One process for each number of threads (1 and 2, of torch and NumPy alike), medians of 5
rounds (--quick: 2), the claims at two threads.

decode_images_per_s: bytes of a bundle in memory to pixels, with all checks;
decode_codes_images_per_s: to codes.
decode_single_ms, encode_single_ms: `Model.decompress` and `compress` of one image, after some that
warm up.
encode_images_per_s: what `vqkit compress --bundle` does after its start, from PNG files to a file.
Overheads: bytes beside those of the coder, without names: of a file, and of a bundle for each
image. numba_*_speedup: how many times as fast single images are with numba as where it is not
installed, to and from codes and lossless files, on one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays, open_set, shorten_fashion_mnist

PARSER = options(__doc__, work=True)

SOURCE = "fashion-mnist"
THREADS = (1, 2)
SINGLES = 20
LOSSLESS = 5


def prepared(folder: Path, seed: int, quick: bool) -> None:
    """A model with a coder, by the commands that users type."""
    vqkit = [sys.executable, "-m", "vqkit"]
    if not (folder / "model.safetensors").exists():
        short = ["train.steps=20", "coder.steps=5"] if quick else []
        command = [
            "train",
            SOURCE,
            "--recipe",
            SOURCE,
            "--out",
            str(folder),
            f"seed={seed}",
            *short,
        ]
        subprocess.run([*vqkit, *command], check=True)
    if not (folder / "coder.safetensors").exists():
        steps = ["--steps", "5"] if quick else []
        subprocess.run([*vqkit, "train-coder", str(folder), SOURCE, "--force", *steps], check=True)


def seconds(work: Callable[[], object], rounds: int, count: int) -> dict[str, float]:
    """Median seconds for each of `count` images: by the clock, and of the processor, all threads
    together.
    """
    clock = []
    processor = []
    for _ in range(rounds):
        began = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return {"clock": median(clock) / count, "processor": median(processor) / count}


def write_images(folder: Path, count: int) -> None:
    from PIL import Image

    data = open_set(SOURCE)
    for number, image in enumerate(arrays(data, data.splits["test"][:count])):
        Image.fromarray(image[..., 0]).save(folder / f"{number:05}.png")


def measure(folder: Path, images_folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds by what was done, and bytes of overhead."""
    from PIL import Image

    import vqkit

    model = vqkit.load(folder)
    compressor = model.compressor
    target = images_folder.parent / "all.vq"
    files = sorted(images_folder.iterdir())
    images = [np.asarray(Image.open(file)) for file in files[:SINGLES]]
    encode = seconds(lambda: write_bundle(model, files, target), rounds, len(files))
    data = target.read_bytes()
    singles = [model.compress(image) for image in images]
    for one, decoded in zip(singles, compressor.read(data), strict=False):
        (values,) = compressor.decode([decoded])
        shown = model.signal.to_array(values[None], model.data)[0]
        assert np.array_equal(model.decompress(one), shown)
    return {
        "encode_bundle": encode,
        "decode_bundle": seconds(lambda: decode_bundle(model, data), rounds, len(files)),
        "decode_bundle_codes": seconds(lambda: list(compressor.read(data)), rounds, len(files)),
        "decode_single": seconds(
            lambda: [model.decompress(one) for one in singles], rounds, SINGLES
        ),
        "encode_single": seconds(
            lambda: [model.compress(image) for image in images], rounds, SINGLES
        ),
        "bytes": overheads(singles[0], data),
    }


def write_bundle(model, files: list[Path], target: Path) -> None:
    """What `vqkit compress --bundle` does after its start."""
    from vqkit.apps.compress import compress

    codec = model.compressor.codec()
    items = ((file.name, model.signal.read(file, model.data, model.config.data)) for file in files)
    found = list(compress(model, codec, items))
    coded = [one.coded for _, one in found]
    target.write_bytes(model.compressor.write_bundle(coded, codec, [name for name, _ in found]))


def decode_bundle(model, data: bytes) -> list:
    """All images of a bundle, block by block."""
    compressor = model.compressor
    return [values for block in compressor.read_blocks(data) for values in compressor.decode(block)]


def measure_coders(folder: Path, images_folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of the coders alone, for one image at a time."""
    from PIL import Image

    import vqkit

    model = vqkit.load(folder)
    coder = model.artifact.coders.codes
    images = [np.asarray(Image.open(file)) for file in sorted(images_folder.iterdir())[:LOSSLESS]]
    codes = model.encode(np.stack(images)[..., None]).numpy()
    strings = coder.encode(codes)
    exact = [model.compress(image, lossless=True) for image in images]
    for one, image in zip(exact, images, strict=True):
        assert np.array_equal(model.decompress(one).squeeze(), image)
    return {
        "codes_decode": seconds(
            lambda: [coder.decode([one], codes.shape[2:]) for one in strings], rounds, LOSSLESS
        ),
        "lossless_decode": seconds(
            lambda: [model.decompress(one) for one in exact], rounds, LOSSLESS
        ),
        "lossless_encode": seconds(
            lambda: [model.compress(image, lossless=True) for image in images], rounds, LOSSLESS
        ),
    }


def without_numba() -> None:
    """In a new process: as if it were not installed."""
    sys.modules["numba"] = None  # type: ignore[assignment]


def overheads(file: bytes, bundle: bytes) -> dict[str, float]:
    from vqkit.coding import Bundle, read_file

    opened = Bundle(bundle)
    codes = sum(
        len(payload)
        for number in range(opened.header.num_blocks)
        for item in opened.block(number).payloads
        for payload in item
    )
    (names,) = opened.sections
    items = len(opened.header.extents)
    return {
        "file_overhead": len(file) - sum(len(stage.payload) for stage in read_file(file).stages),
        "bundle_overhead": (len(bundle) - (names.end - names.start) - codes) / items,
        "bundle_names": (names.end - names.start) / items,
        "bundle_bytes_an_image": len(bundle) / items,
    }


def alone(
    threads: int,
    work: Callable[..., dict],
    *arguments: object,
    first: Callable[[], None] | None = None,
) -> dict[str, dict[str, float]]:
    """work(*arguments) in a process of its own, as BLAS counts its threads when it is loaded."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), first) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    count, rounds = (64, 2) if arguments.quick else (2560, 5)
    with tempfile.TemporaryDirectory() as temporary:
        model = (arguments.work or Path(temporary)) / f"{SOURCE}-{arguments.seed}"
        prepared(model, arguments.seed, arguments.quick)
        folder = Path(temporary) / "images"
        folder.mkdir()
        write_images(folder, count)
        rows = {threads: alone(threads, measure, model, folder, rounds) for threads in THREADS}
        fast = alone(1, measure_coders, model, folder, rounds)
        slow = alone(1, measure_coders, model, folder, 1, first=without_numba)
    where = {
        **machine(),
        "threads": max(THREADS),
        "seed": arguments.seed,
        "images": count,
        "rows": rows,
        "numba": fast,
        "without": slow,
    }
    clock = {name: row.get("clock", 0.0) for name, row in rows[max(THREADS)].items()}
    extra = rows[max(THREADS)]["bytes"]
    claims = [
        Claim("decode_images_per_s", 1 / clock["decode_bundle"], "images/s", ">= 500", None, where),
        Claim(
            "decode_codes_images_per_s",
            1 / clock["decode_bundle_codes"],
            "images/s",
            "reported",
            None,
            where,
        ),
        Claim("decode_single_ms", 1000 * clock["decode_single"], "ms", "<= 15", None, where),
        Claim(
            "encode_images_per_s", 1 / clock["encode_bundle"], "images/s", "reported", None, where
        ),
        Claim("encode_single_ms", 1000 * clock["encode_single"], "ms", "reported", None, where),
        Claim("file_overhead_bytes", extra["file_overhead"], "bytes", "<= 26", None, where),
        Claim("bundle_overhead_bytes", extra["bundle_overhead"], "bytes", "<= 2", None, where),
    ]
    for name, row in fast.items():
        ratio = slow[name]["processor"] / row["processor"]
        claims.append(
            Claim(f"numba_{name}_speedup", ratio, "times", ">= 5", "Python and NumPy", where)
        )
        print(
            f"{name}: {1000 * row['clock']:.1f} ms with numba, {1000 * slow[name]['clock']:.1f} ms "
            "without"
        )
    report(claims, arguments)
    for threads, row in rows.items():
        print(f"{threads} thread(s): {row}")


if __name__ == "__main__":
    main()
