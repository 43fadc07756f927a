"""Claims music_*: stereo music at 44.1 kHz, its files beside Opus at equal bytes.

    python benchmarks/music.py [--quick] [--seed 0] [--minutes 10] [--recipe music] [--work DIR]
        [--json FILE] [SETTING ...]

Trains a recipe on the orchestral tracks of Debian's wesnoth-1.16-music but a tenth by name, two
hours. Tests on excerpts of ten seconds: of the ringtones and notifications of lomiri-sounds,
electronic and acoustic music from elsewhere, for which the goals hold, and of that tenth. A file an
excerpt, every byte counted. Measured are the distance of log energies in 80 bands of the mel scale,
in dB, of both channels, and zimtohrli 0.2.1 (a model of hearing; 0 = no difference), of their mean;
less is better in both. Opus 1.3.1 (--music, frames of 20 ms, its container counted) has a curve of
its own from 6 to 96 kbit/s, and is read off it by lines over the logarithm of the rate where ours
has its bytes; below its lowest rate it keeps that one, and the bytes of it. SETTINGs are of the
training, such as model.network.width=384.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.music_sets import RATE, log_mel_distance, read_music, write_music, zimtohrli
from bench.speech_codecs import opus
from bench.speech_scores import trained

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)
PARSER.add_argument("--recipe", default="music")
PARSER.add_argument("settings", nargs="*", metavar="SETTING")

MOST = 20
# Kilobits a second that are asked for at most, and those of Opus.
RATES = (6.0, 12.0, 24.0, 48.0)
PEERS = (6, 8, 12, 16, 24, 32, 48, 64, 96)
FIGURES = ("log_mel", "zimtohrli")
UNHEARD = "unheard"
Coded = Callable[[np.ndarray], tuple[np.ndarray, float]]


def measured(excerpts: dict[str, np.ndarray], coded: Coded) -> dict[str, float]:
    """Kilobits a second of all files, and means over excerpts of both figures."""
    size = 0.0
    seconds = 0.0
    found = []
    for excerpt in excerpts.values():
        heard, num_bytes = coded(excerpt)
        size += num_bytes
        seconds += len(excerpt) / RATE
        found.append((log_mel_distance(excerpt, heard), zimtohrli(excerpt, heard)))
    distances = np.mean(found, 0)
    return {"kbps": 8e-3 * size / seconds, **dict(zip(FIGURES, map(float, distances), strict=True))}


def ours(run: Path, excerpts: dict[str, np.ndarray], rates: tuple[float, ...]) -> list[dict]:
    """Our codec at most at each of some rates; those that it has no file for are left out."""
    import vqkit

    model = vqkit.load(run, device="cpu")

    def at_most(kbps: float) -> Coded:
        def coded(samples: np.ndarray) -> tuple[np.ndarray, float]:
            # Bits are asked for each place in time, of both channels together.
            data = model.compress(samples.T.copy(), rate=1000 * kbps / RATE)
            heard = model.decompress(data)
            # A model of one channel gives both the same.
            return np.broadcast_to(heard.T, samples.shape), len(data)

        return coded

    found = []
    for kbps in rates:
        try:
            found.append({"asked": kbps, **measured(excerpts, at_most(kbps))})
        except vqkit.VqkitError as error:
            print(f"{kbps:g} kbps: {error}")
    return found


def theirs(excerpts: dict[str, np.ndarray], rates: tuple[int, ...]) -> list[dict]:
    with opus() as encode:
        return [
            measured(excerpts, lambda samples, k=kbps: encode(samples, k, RATE, "music"))
            for kbps in rates
        ]


def at_equal_bytes(points: list[dict], kbps: float, figure: str) -> float:
    """A figure of a curve at a rate, by lines over the logarithm of rates; its ends beyond it."""
    places = np.log([point["kbps"] for point in points])
    return float(np.interp(np.log(kbps), places, [point[figure] for point in points]))


def print_table(found: dict) -> None:
    for name, points in found["ours"].items():
        print(f"{name}: {found['excerpts'][name]} excerpts")
        rows = [("vqkit", point) for point in points]
        rows += [("opus", point) for point in found["peers"][name]]
        for codec, point in rows:
            distances = "  ".join(f"{figure} {point[figure]:.4f}" for figure in FIGURES)
            print(f"  {codec:<8}{point['kbps']:>7.2f} kbps  {distances}")


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="vqkit-music-"))
    write_music(work, arguments.quick)
    minutes = None if arguments.quick else arguments.minutes
    words = ["--recipe", arguments.recipe, f"seed={arguments.seed}", *arguments.settings]
    run = trained(work / "train", work / f"run-{arguments.seed}", minutes, words)
    most = 1 if arguments.quick else MOST
    sets = {name: read_music(work / name, most) for name in (UNHEARD, "held-out")}
    sets = {name: each for name, each in sets.items() if each}
    rates = (1000.0,) if arguments.quick else RATES
    found: dict = {"excerpts": {name: len(each) for name, each in sets.items()}}
    found["ours"] = {name: ours(run, each, rates) for name, each in sets.items()}
    their_rates = PEERS[::4] if arguments.quick else PEERS
    found["peers"] = kept(
        work / f"peers-{most}.json",
        lambda: {name: theirs(each, their_rates) for name, each in sets.items()},
    )
    print_table(found)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "rows": found}
    settings |= {"recipe": arguments.recipe, "settings": arguments.settings}
    claims = []
    for point in found["ours"][UNHEARD]:
        for figure, unit in zip(FIGURES, ("dB", ""), strict=True):
            rival = at_equal_bytes(found["peers"][UNHEARD], point["kbps"], figure)
            name = f"music_{figure}_{point['asked']:g}kbps_over_opus"
            claims.append(Claim(name, point[figure] - rival, unit, "< 0", "opus", settings))
    report(claims, arguments)


if __name__ == "__main__":
    main()
