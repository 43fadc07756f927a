"""Claims speech_enhancement_*: recorded noise taken out of speech by `vqkit denoise`, beside
spectral gating.

    python benchmarks/speech_enhancement.py [--quick] [--seed 0] [--minutes 10] [--work DIR]
        [--noise recorded|white] [--json FILE]

Trains recipe speech-denoise at 8 kHz on the English and Spanish prompts of Debian's
asterisk-core-sounds but a tenth, with noise of up to 1.4 times the speech's level on what the
encoder hears. --noise recorded: that of the packages ufoai-sound, lugaru-data and
extremetuxracer-data (data.noise.source), without the kinds of noise that are tested on; white:
made, which needs no folder. Tests on 60 French prompts of 1.5 s and more, a voice and a language
that were not heard in training, with noise of lincity-ng-data, each prompt another, at 10, 5 and 0
dB over the whole prompt. Compared are narrowband PESQ and STOI against the clean prompt, of
the noisy one, of ours, of what our model makes of the clean prompt, which is the most that can be
reached, and of noisereduce 3.0.3 (spectral gating: Sainburg, Thielk & Gentner 2020) in both modes,
with windows of 1024 samples (its default) and 256, at full and at 0.7 of its strength, the best of
these eight counting at every level and for either figure. A claim is the gain over that best gate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.noises import read_noises, with_noise, write_noises
from bench.speech_scores import scores, trained
from bench.speech_sets import RATE, UNHEARD, read_all, write_prompts

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)
PARSER.add_argument("--noise", choices=("recorded", "white"), default="recorded")

MOST = 60
LEVELS = (10, 5, 0)
# Of noisereduce: whether the noise is taken to stay the same, the window, and its strength.
GATES = {
    f"gate, {'stationary' if stays else 'adaptive'}, {window}, {strength:g}": (
        stays,
        window,
        strength,
    )
    for stays in (True, False)
    for window in (1024, 256)
    for strength in (1.0, 0.7)
}
# What is done with a noisy prompt, or a clean one.
Method = Callable[[np.ndarray], np.ndarray]


def gate(stays: bool, window: int, strength: float) -> Method:
    from noisereduce import reduce_noise

    def quieter(samples: np.ndarray) -> np.ndarray:
        sound = samples.astype(np.float32) / 32768
        found = reduce_noise(
            sound, RATE, stationary=stays, n_fft=window, prop_decrease=strength, n_jobs=1
        )
        return np.rint(32768 * found).clip(-32768, 32767).astype(np.int16)

    return quieter


def removing(run: Path) -> Method:
    """What `vqkit denoise RUN` does with a recording."""
    import torch

    import vqkit
    from vqkit.apps.denoise import denoise

    model = vqkit.load(run, device="cpu")

    def quieter(samples: np.ndarray) -> np.ndarray:
        return denoise(model, torch.from_numpy(samples)[None]).values[0].numpy()

    return quieter


def noisy_prompts(work: Path, most: int, level: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Clean and noisy samples of every prompt; noises take turns."""
    noises = list(read_noises(work / "noise" / "test", RATE).values())
    prompts = read_all(work / "unheard", most)
    return {
        name: (clean, with_noise(clean, noises[number % len(noises)], level))
        for number, (name, clean) in enumerate(prompts.items())
    }


def measured(method: Method, pairs: dict, of_clean: bool = False) -> dict[str, float]:
    """Mean STOI and PESQ of what a method makes of the noisy prompts, or of the clean ones."""
    found = [scores(clean, method(clean if of_clean else noisy)) for clean, noisy in pairs.values()]
    stoi, pesq = np.mean(found, 0)
    return {"stoi": float(stoi), "pesq": float(pesq)}


def of_others(pairs: dict, quick: bool) -> dict[str, dict[str, float]]:
    names = list(GATES)[::4] if quick else list(GATES)
    found = {"noisy": measured(lambda samples: samples, pairs)}
    return found | {name: measured(gate(*GATES[name]), pairs) for name in names}


def best_gate(rows: dict[str, dict[str, float]], figure: str) -> float:
    return max(row[figure] for name, row in rows.items() if name.startswith("gate"))


def measure(work: Path, run: Path, quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Level -> method -> its figures."""
    most = 6 if quick else MOST
    ours = removing(run)
    found = {}
    for level in LEVELS:
        pairs = noisy_prompts(work, most, level)
        rows = kept(
            work / f"gates-{most}-{level}.json",
            lambda pairs=pairs: of_others(pairs, quick),
        )
        rows["ours"] = measured(ours, pairs)
        rows["ours, of clean"] = measured(ours, pairs, of_clean=True)
        found[f"{level}db"] = rows
    return found


def print_table(found: dict[str, dict[str, dict[str, float]]]) -> None:
    for level, rows in found.items():
        print(level)
        for name, row in rows.items():
            print(f"  {name:<28}{row['pesq']:>6.2f} PESQ {row['stoi']:>7.3f} STOI")


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="vqkit-enhancement-"))
    write_prompts(work)
    write_noises(work)
    minutes = None if arguments.quick else arguments.minutes
    words = [f"seed={arguments.seed}"]
    if arguments.noise == "recorded":
        words.append(f"data.noise.source={work / 'noise' / 'train'}")
    out = work / f"denoiser-{arguments.noise}-{arguments.seed}"
    # Without a coder: no file is written.
    run = trained(
        work / "train", out, minutes, ["--recipe", "speech-denoise", "coder.steps=0", *words]
    )
    found = measure(work, run, arguments.quick)
    print_table(found)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "voice": UNHEARD}
    settings |= {"noise": arguments.noise, "rows": found}
    claims = []
    for level, rows in found.items():
        for figure in ("pesq", "stoi"):
            gain = rows["ours"][figure] - best_gate(rows, figure)
            name = f"speech_enhancement_{figure}_{level}"
            claims.append(Claim(name, gain, figure.upper(), "> 0", "noisereduce", settings))
    report(claims, arguments)


if __name__ == "__main__":
    main()
