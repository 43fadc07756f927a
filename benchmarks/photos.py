"""Photographs: `vqkit train FOLDER` without an option, its files beside JPEG, WebP and AVIF.

    python benchmarks/photos.py [--quick] [--seed 0] [--minutes 20] [--photos N] [--curves]
        [--work DIR] [--json FILE] [--sheet FILE.webp]

Trains on the photographs of Debian's mate-backgrounds and ukui-wallpapers but four, and tests on
these four, on scikit-image's and scikit-learn's colour pictures at 256x256, and on the larger of
them at 1024x768. Points of ours: stages and gains, of which the convex hull over the mean of all
images counts. One file an image, every byte of it; PSNR of RGB, the mean of each image's; BD-rates
where both curves are, between 0.1 and 1 bit a pixel of ours. CIEDE2000 is the mean over the
smooth blocks of all images, at 0.6 bits a pixel. Gradients are three images of 512x512, their bytes
over those of WebP at the same PSNR, the worst of all points where WebP has one. Lossless files are
those of the 256x256 images beside JPEG XL at effort 7. Seams are steps between pixels on borders
of 16, over those elsewhere, over the same of the original, the worst of the large images, peers at
no fewer bytes. Speeds are of a process that has loaded its
model. Peaks of resident memory, and speeds beside them, are those of an image of 48 megapixels,
tiled of the photographs, and of one of 20000x200, at rate `full`, each written and read by a
process of its own, with Python and PyTorch. With --photos, only so many of the photographs are
learnt from, the first by name; with --curves, only the rates beside the peers' are measured. The
sheet shows all 256x256 images, ours at a quarter of a bit a pixel at most and peers at no more
bytes each, or at their fewest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.debian_packages import unpacked
from bench.image_codecs import bd_rate, codecs, decoded, errors, mixtures, psnr, with_rate
from PIL import Image, ImageDraw

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=20.0)
PARSER.add_argument("--photos", metavar="N", type=int)
PARSER.add_argument("--curves", action="store_true")
PARSER.add_argument("--sheet", metavar="FILE", type=Path)

PACKAGES = {"mate-backgrounds": "mate/nature/*.jpg", "ukui-wallpapers": "*.*"}
HELD_OUT = ("Garden", "LadyBird", "Storm", "Blinds")
# Of scikit-image; the last three are larger than 1024x768 or nearly so.
FROM_SKIMAGE = (
    "astronaut",
    "cat",
    "coffee",
    "rocket",
    "immunohistochemistry",
    "retina",
    "hubble_deep_field",
)
LARGE = ("Garden", "LadyBird", "Storm", "Blinds", "retina", "hubble_deep_field")
RATES = (0.1, 1.0)
# Bits a pixel of ours beyond which no more points are measured.
MOST = 2.0
PEERS = ("jpeg", "webp", "avif")
# Bits a pixel of a sheet, and pixels for the words above an image.
SHEET_RATE = 0.25
CAPTION = 16
GRADIENT_SIDE = 512
# Side in pixels of what becomes one latent, and of the blocks of WebP and of AVIF; JPEG's are half.
SQUARE = 16
# Width and height of images whose memory is measured, and rows of each photograph in them.
LARGEST = ((8000, 6000), (20000, 200))
TILE_ROWS = 700
# Colours of three gradients, from one end to the other.
SKY = ((20, 60, 140), (150, 190, 235), (250, 235, 210))
GLOW = ((255, 240, 180), (200, 80, 60), (30, 10, 60))
SLOPE = ((10, 160, 140), (90, 20, 120))
# Bits a pixel at which one figure is given.
AT = 0.6


def write_folders(work: Path, num_photos: int | None) -> None:
    """work/train with the photographs to learn from, work/held-out with those to test on."""
    for folder in (work / "train", work / "held-out"):
        folder.mkdir(parents=True)
    for package, pattern in PACKAGES.items():
        with unpacked(package) as files:
            for path in sorted((files / "usr/share/backgrounds").glob(pattern)):
                if path.suffix in (".jpg", ".png") and not path.is_symlink():
                    held = path.stem in HELD_OUT
                    shutil.copy(path, work / ("held-out" if held else "train"))
    if num_photos:
        for path in sorted((work / "train").iterdir())[num_photos:]:
            path.unlink()


def test_images(work: Path) -> dict[str, np.ndarray]:
    """uint8 (N, 256, 256, 3) and (N, 768, 1024, 3): the middle of each image, scaled."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = {name: Image.fromarray(getattr(data, name)()) for name in FROM_SKIMAGE}
    samples = load_sample_images()
    for name, image in zip(samples.filenames, samples.images, strict=True):
        found[Path(name).stem] = Image.fromarray(image)
    for name in HELD_OUT:
        (path,) = (work / "held-out").glob(f"{name}.*")
        found[name] = Image.open(path).convert("RGB")
    return {
        "256x256": np.stack([_middle(image, 256, 256) for image in found.values()]),
        "1024x768": np.stack([_middle(found[name], 1024, 768) for name in LARGE]),
    }


def _middle(image: Image.Image, width: int, height: int) -> np.ndarray:
    scale = min(image.width / width, image.height / height)
    wide = round(width * scale)
    high = round(height * scale)
    left = (image.width - wide) // 2
    top = (image.height - high) // 2
    cut = image.crop((left, top, left + wide, top + high))
    return np.asarray(cut.resize((width, height), Image.Resampling.LANCZOS))


def trained(work: Path, minutes: float, seed: int) -> tuple[Path, float]:
    """The run, and seconds of the command."""
    out = work / f"run-{seed}"
    started = time.perf_counter()
    if not out.exists():
        command = [sys.executable, "-m", "vqkit", "train", str(work / "train"), "--out", str(out)]
        subprocess.run([*command, "--minutes", str(minutes), f"seed={seed}"], check=True)
    return out, time.perf_counter() - started


# ---------------------------------------------------------------------------------------- measuring


def curve(encode, decode, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Bits a pixel (N,) and dB (N,) of files of their own, and what they decode to."""
    bits = []
    levels = []
    shown = []
    for image in images:
        data = encode(image)
        back = decode(data)
        bits.append(8 * len(data) / image[..., 0].size)
        levels.append(float(psnr(np.square(back.astype(float) - image).mean())))
        shown.append(back)
    return np.array(bits), np.array(levels), shown


def theirs(images: np.ndarray, quick: bool) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    kinds = codecs(chroma="4:2:0")
    for name in PEERS:
        encode, qualities = kinds[name]
        for quality in qualities[:: 3 if quick else 1]:
            bits, levels, shown = curve(
                lambda image, q=quality, e=encode: e(image, q),
                lambda data: decoded(data, False),
                images,
            )
            colour = colour_errors(shown, images)
            found.setdefault(name, []).append(
                {"point": quality, "bpp": bits.mean(), "db": levels.mean(), "colour": colour}
            )
    return found


def ours(model, images: np.ndarray, every: int, effort: int = 0) -> list[dict]:
    """Points by growing size: every so many-th rate that a file may have, those above two bits a
    pixel left out.
    """
    from vqkit.artifact.operating_points import ladder
    from vqkit.coding import gain_of

    artifact = model.artifact
    codec = model.compressor.codec()
    found: list[dict] = []
    for rate in ladder(
        codec.engine, codec.num_stages, codec.has_prefixes, artifact.network.max_gain
    )[::every]:
        if found and found[-1]["bpp"] > MOST:
            break
        one = with_rate(model, rate.num_stages, gain=rate.gain)
        bits, levels, shown = curve(
            lambda image, m=one: m.compress(image, rate="here", effort=effort),
            model.decompress,
            images,
        )
        colour = colour_errors(shown, images)
        place = f"{rate.num_stages} stages, gain {gain_of(rate.gain):.2f}"
        found.append({"point": place, "bpp": bits.mean(), "db": levels.mean(), "colour": colour})
    return found


def hull(points: list[dict]) -> list[dict]:
    """The points that no mixture of two others beats."""
    kept: list[dict] = []
    for point in points:
        if kept and point["db"] <= kept[-1]["db"]:
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-2], point):
            kept.pop()
        kept.append(point)
    return kept


def _slope(one: dict, other: dict) -> float:
    return (other["db"] - one["db"]) / (other["bpp"] - one["bpp"])


def colour_errors(shown: list[np.ndarray], images: np.ndarray) -> float:
    """Mean CIEDE2000 over the smooth blocks of all images."""
    import torch

    from vqkit.signals.image.measures import smooth_errors

    found = []
    for back, image in zip(shown, images, strict=True):
        values, original = (torch.from_numpy(one).permute(2, 0, 1) for one in (back, image))
        found.append(smooth_errors(values, original))
    errors = torch.cat(found)
    return float(errors.mean()) if len(errors) else 0.0


def arrays(points: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one["bpp"] for one in points]), np.array([one["db"] for one in points])


def at(points: list[dict], bpp: float, what: str) -> float:
    """A figure of a curve at bits a pixel, by a line between two points."""
    return float(np.interp(bpp, *(np.array([one[key] for one in points]) for key in ("bpp", what))))


def speeds(model, image: np.ndarray) -> dict[str, float]:
    """Megapixels a second of the point nearest to AT, best of three."""
    pixels = image[..., 0].size / 1e6
    encoding = []
    decoding = []
    for _ in range(4):
        started = time.perf_counter()
        data = model.compress(image, rate="medium")
        encoding.append(time.perf_counter() - started)
        started = time.perf_counter()
        model.decompress(data)
        decoding.append(time.perf_counter() - started)
    return {"encode": pixels / min(encoding), "decode": pixels / min(decoding)}


def tiled(work: Path, width: int, height: int) -> np.ndarray:
    """The photographs side by side in rows, as many as it takes: uint8 (height, width, 3)."""
    paths = sorted((work / "train").iterdir()) + sorted((work / "held-out").iterdir())
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    whole = np.zeros((height, width, 3), np.uint8)
    number = 0
    for top in range(0, height, TILE_ROWS):
        left = 0
        while left < width:
            part = images[number % len(images)][: min(TILE_ROWS, height - top), : width - left]
            whole[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1]
            number += 1
    return whole


def of_large(work: Path, run: Path, width: int, height: int) -> dict[str, dict[str, float]]:
    """Peaks in MB and megapixels a second of writing and of reading an image so large."""
    np.save(work / "large.npy", tiled(work, width, height))
    found = {}
    for what in ("write", "read"):
        command = [sys.executable, __file__, "--large", what, str(work), str(run)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(done.stdout)
        print(f"{width}x{height} {what}: {found[what]}")
    return found


def measure_large(what: str, work: Path, run: Path) -> dict[str, float]:
    """One of the two, in this process."""
    from vqkit import load

    model = load(run)
    # Compiled, or their machine code loaded, before.
    model.decompress(model.compress(np.zeros((64, 64, 3), np.uint8)))
    started = time.perf_counter()
    if what == "write":
        image = np.load(work / "large.npy")
        (work / "large.vq").write_bytes(model.compress(image, rate="full"))
    else:
        image = model.decompress(work / "large.vq")
    pixels = image[..., 0].size / 1e6
    speed = pixels / (time.perf_counter() - started)
    # Not that of getrusage, which a parent that was larger passes on.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {"mb": peak * 1024 / 1e6, "mp_per_s": speed}


def seams(back: np.ndarray, image: np.ndarray) -> float:
    """Mean step between pixels on the borders of squares of SQUARE pixels, over that elsewhere, of
    what a file gives back, over the same of the original: across or downwards, whichever is worse.
    """
    ratios = []
    for axis in (0, 1):
        of_both = []
        for one in (back.astype(float), image.astype(float)):
            steps = abs(np.diff(one, axis=axis)).mean((1 - axis, 2))
            border = np.arange(1, len(steps) + 1) % SQUARE == 0
            of_both.append(steps[border].mean() / steps[~border].mean())
        ratios.append(of_both[0] / of_both[1])
    return float(max(ratios))


def worst_seams(model, images: np.ndarray, rate: str) -> dict[str, float]:
    """Of ours at a rate, and of the smallest file of each peer that has no fewer bytes, or its
    largest.
    """
    kinds = codecs(chroma="4:2:0")
    worst = dict.fromkeys(("vqkit", *PEERS), 0.0)
    for image in images:
        mine = model.compress(image, rate=rate)
        found = {"vqkit": model.decompress(mine)}
        for name in PEERS:
            encode, qualities = kinds[name]
            files = [encode(image, quality) for quality in qualities]
            enough = [data for data in files if len(data) >= len(mine)]
            chosen = min(enough, key=len) if enough else max(files, key=len)
            found[name] = decoded(chosen, False)
        for name, back in found.items():
            worst[name] = max(worst[name], seams(back, image))
    return worst


def gradients() -> list[np.ndarray]:
    """Downwards, around a point, and across: uint8 (512, 512, 3) each."""
    down, right = np.mgrid[:GRADIENT_SIDE, :GRADIENT_SIDE] / (GRADIENT_SIDE - 1)
    around = np.clip(1.3 * np.hypot(right - 0.5, down - 0.4), 0, 1)
    found = []
    for place, colours in ((down, SKY), (around, GLOW), ((down + right) / 2, SLOPE)):
        ends = np.linspace(0, 1, len(colours))
        channels = [np.interp(place, ends, values) for values in zip(*colours, strict=True)]
        found.append(np.stack(channels, -1).round().astype(np.uint8))
    return found


def gradient_bytes(model) -> float:
    """Bytes over those of WebP at the same PSNR, the worst of all gradients and numbers of stages
    whose PSNR WebP reaches.
    """
    encode, qualities = codecs(chroma="4:2:0")["webp"]
    quantizer = model.network.quantizer
    worst = 0.0
    for image in gradients():
        points = []
        for quality in (*qualities, 100):
            data = encode(image, quality)
            points.append((float(psnr(errors(decoded(data, False)[None], image[None]))[0]), data))
        points.sort(key=lambda point: point[0])
        theirs = [level for level, _ in points]
        sizes = [np.log(len(data)) for _, data in points]
        for depth in range(1, quantizer.num_codebooks // quantizer.codebooks_per_section + 1):
            data = with_rate(model, depth).compress(image, rate="here")
            level = float(psnr(errors(model.decompress(data)[None], image[None]))[0])
            if theirs[0] <= level <= theirs[-1]:
                worst = max(worst, len(data) / np.exp(np.interp(level, theirs, sizes)))
    return worst


def lossless_bytes(model, images: np.ndarray) -> float:
    """Bytes of lossless files over those of JPEG XL at effort 7; NaN without imagecodecs."""
    try:
        import imagecodecs
    except ImportError:
        return float("nan")
    ours = 0
    theirs = 0
    for image in images:
        data = model.compress(image, lossless=True)
        assert np.array_equal(model.decompress(data), image)
        ours += len(data)
        theirs += len(imagecodecs.jpegxl_encode(image, lossless=True, effort=7))
    return ours / theirs


def sheet(model, images: np.ndarray) -> Image.Image:
    """Every image in a row: itself, ours, and the peers at its bytes; PSNR above each."""
    height = images.shape[1] + CAPTION
    width = images.shape[2]
    whole = Image.new("RGB", (width * (2 + len(PEERS)), height * len(images)), "white")
    draw = ImageDraw.Draw(whole)
    for row, image in enumerate(images):
        data = model.compress(image, rate=SHEET_RATE)
        cells = [(f"original, {len(data)} bytes follow", image)]
        cells.append(("vqkit", model.decompress(data)))
        for name in PEERS:
            cells.append((name, decoded(_at_most(name, image, len(data)), False)))
        for column, (words, shown) in enumerate(cells):
            if column:
                words += f" {float(psnr(errors(shown[None], image[None]))[0]):.2f} dB"
            draw.text((column * width + 4, row * height + 2), words, fill="black")
            whole.paste(Image.fromarray(shown), (column * width, row * height + CAPTION))
    return whole


def _at_most(name: str, image: np.ndarray, size: int) -> bytes:
    """The largest file of a peer that has no more bytes, else its smallest."""
    encode, _ = codecs(chroma="4:2:0")[name]
    qualities = range(100)
    # Files grow with the quality.
    count = bisect_right(qualities, size, key=lambda quality: len(encode(image, quality)))
    return encode(image, qualities[max(count - 1, 0)])


def main() -> None:
    if sys.argv[1:2] == ["--large"]:
        print(json.dumps(measure_large(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
        return
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp())
    if not (work / "train").exists():
        write_folders(work, arguments.photos)
    from vqkit import load

    minutes = 1.0 if arguments.quick else arguments.minutes
    run, seconds = trained(work, minutes, arguments.seed)
    model = load(run)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "seconds": seconds}
    sets = test_images(work)
    if arguments.quick:
        sets = {name: images[:2] for name, images in sets.items()}
    every = 12 if arguments.quick else 4
    claims = []
    curves = {}
    for name, images in sets.items():
        curves[name] = hull(ours(model, images, every))
        peers = theirs(images, arguments.quick)
        show(name, curves[name], peers)
        claims += compared(name, curves[name], peers, settings)
    if arguments.sheet:
        sheet(model, sets["256x256"]).save(arguments.sheet, quality=90, method=6)
    if not arguments.curves:
        slow = hull(ours(model, sets["256x256"], 4 * every, effort=9))
        show("256x256 slow", slow, {})
        value = slower(curves["256x256"], slow)
        claims.append(Claim("bd_rate_photo_effort", value, "%", "<= -10", None, settings))
        claims += of_files(model, sets, settings)
        sizes = ((2000, 1500), (5000, 50)) if arguments.quick else LARGEST
        claims += of_memory(work, run, sizes, settings)
    report(claims, arguments)


def of_files(model, sets: dict[str, np.ndarray], settings: dict) -> list[Claim]:
    """Speed, borders, and bytes of lossless files and of gradients."""
    value = lossless_bytes(model, sets["256x256"])
    claims = [Claim("photo_lossless_vs_jxl", value, "x", "<= 1.0", "jxl", settings)]
    large = sets["1024x768"]
    for what, value in speeds(model, large[0]).items():
        claims.append(Claim(f"photo_{what}_mp_per_s", value, "MP/s", ">= 1", None, settings))
    for rate in ("medium", "full"):
        for name, value in worst_seams(model, large, rate).items():
            goal, peer = ("<= 1.02", None) if name == "vqkit" else ("published", name)
            claims.append(Claim(f"photo_seams_{rate}", value, "ratio", goal, peer, settings))
    value = gradient_bytes(model)
    claims.append(Claim("photo_gradient_bytes", value, "x", "<= 1.0", "webp", settings))
    return claims


def of_memory(work: Path, run: Path, sizes, settings: dict) -> list[Claim]:
    claims = []
    for width, height in sizes:
        for what, found in of_large(work, run, width, height).items():
            name = f"photo_{what}_{width}x{height}"
            claims.append(Claim(f"{name}_mb", found["mb"], "MB", "<= 1000", None, settings))
            value = found["mp_per_s"]
            claims.append(Claim(f"{name}_mp_per_s", value, "MP/s", ">= 1", None, settings))
    return claims


def slower(fast: list[dict], slow: list[dict]) -> float:
    """BD-rate of files at effort 9 to those at effort 0."""
    where = (at(fast, RATES[0], "db"), at(fast, RATES[1], "db"))
    return bd_rate(mixtures(*arrays(slow)), mixtures(*arrays(fast)), where)


def compared(
    name: str, mine: list[dict], peers: dict[str, list[dict]], settings: dict
) -> list[Claim]:
    goals = {"jpeg": "<= -30", "webp": "<= 0", "avif": "<= 40"}
    where = (at(mine, RATES[0], "db"), at(mine, RATES[1], "db"))
    found = []
    for peer, points in peers.items():
        value = bd_rate(mixtures(*arrays(mine)), arrays(points), where)
        found.append(Claim(f"bd_rate_photo_{peer}_{name}", value, "%", goals[peer], peer, settings))
    found.append(
        Claim(f"photo_db_{name}_at_{AT}_bpp", at(mine, AT, "db"), "dB", ">= 29", None, settings)
    )
    colour = at(mine, AT, "colour")
    found.append(Claim(f"photo_ciede2000_{name}", colour, "dE", "<= 2.5", None, settings))
    return found


def show(name: str, mine: list[dict], peers: dict[str, list[dict]]) -> None:
    for codec, points in {"vqkit": mine, **peers}.items():
        for one in points:
            place = f"{codec}, {one['point']}"
            print(
                f"{name:<10} {place:<24} {one['bpp']:.3f} bpp  {one['db']:.2f} dB  "
                f"dE {one['colour']:.2f}"
            )


if __name__ == "__main__":
    main()
