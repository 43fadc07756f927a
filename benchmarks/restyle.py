"""Claims restyle_*: emoji of one artist as another draws them, beside the other's own drawing.

    python benchmarks/restyle.py --artists DIR [--quick] [--seed 0] [--work DIR] [--json FILE]

DIR holds twitter/ and google/, the npm packages emoji-datasource-twitter and -google 16.0.0 (`npm
pack`, unpacked); --quick without DIR takes the built-in emoji, and the same in inverted colours for
the second artist's. Three seeds from --seed on (--quick: one): a residual tokenizer of the training
emoji of both artists, MINUTES on one core, and classifiers of artist and group, trained on these
images and their reconstructions. Every second test emoji is restyled in both directions: by pairs
(all training emoji by both artists), and by adain, wct, codes and patches with the STYLES training
images of the other artist that are nearest in latents. Baselines in pixels: AdaIN and histograms of
the same images. End points: the reconstruction; the nearest style image itself; the other artist's
drawing.
Style: share taken for the other artist's. Group: share whose group is recognised, of contents whose
group was. The alpha of the claims is the one of ALPHAS with the largest lesser share on validation
emoji.
"""

from __future__ import annotations

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from bench import style_measures
from bench.artists import Artists, load, made_up
from bench.claims import Claim, kept, machine, options, report
from bench.image_sets import values_of
from bench.short_runs import in_parallel

PARSER = options(__doc__, work=True)
PARSER.add_argument("--artists", type=Path, metavar="DIR")

MINUTES = 5.0
STEPS = (800, 1500)
QUICK_MINUTES = 0.1
QUICK_STEPS = (10, 100)
ALPHAS = 0.5, 0.7, 0.8, 0.9, 1.0
STYLES = 4
METHODS = "adain", "wct", "codes", "patches"
MODEL = [
    "data.test=0",
    "coder.steps=0",
    "train.steps=20000",
    "model.quantizer.kind=residual",
    "model.quantizer.stage={kind: vq, codebook_size: 256}",
    "model.quantizer.num_stages=4",
    "model.quantizer.quantizer_dropout=0.25",
]
SHOWN = 14
# Emoji of --quick without artists.
MADE_UP = 300


@dataclasses.dataclass
class Judge:
    """Classifiers of one seed, and the emoji of a split: contents and truths uint8 (2, n, H, W, 3),
    by artist.
    """

    artist: torch.nn.Module
    group: torch.nn.Module
    contents: np.ndarray
    groups: np.ndarray

    def measure(self, results: np.ndarray) -> dict[str, float]:
        """Of results (2, n, H, W, 3), those of the first artist's contents first; means over both
        directions.
        """
        rows = []
        for number, found in enumerate(results):
            content = self.contents[number]
            truth = self.contents[1 - number]
            known = style_measures.classified(self.group, content) == self.groups
            kept_groups = style_measures.classified(self.group, found) == self.groups
            rows.append(
                {
                    "style": float(
                        (style_measures.classified(self.artist, found) == 1 - number).mean()
                    ),
                    "group": float(kept_groups[known].mean()),
                    "edges": style_measures.edge_agreement(found, content),
                    "ssim": style_measures.luminance_ssim(found, content),
                    **style_measures.style_distances(found, truth),
                    "to truth": float(
                        np.sqrt(((found.astype(float) - truth) ** 2).mean((1, 2, 3))).mean()
                    ),
                }
            )
        return {name: mean(row[name] for row in rows) for name in rows[0]}


def learn(folder: Path, both: Artists, seed: int, quick: bool):
    """Tokenizer and classifiers of a seed."""
    import vqkit

    train = both.images[:, both.splits["train"]]
    if not (folder / "model" / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "train.npy", train.reshape(-1, *train.shape[2:]))
        minutes = QUICK_MINUTES if quick else MINUTES
        vqkit.train(
            str(folder / "train.npy"),
            folder / "model",
            "emoji",
            [*MODEL, f"train.max_minutes={minutes}", f"seed={seed}"],
        )
    model = vqkit.load(folder / "model")
    seen = np.concatenate([train, np.stack([model.reconstruct(one) for one in train])], 1)
    labels = np.tile(both.groups[both.splits["train"]], 4)
    steps = QUICK_STEPS if quick else STEPS
    flat = seen.reshape(-1, *seen.shape[2:])
    artist = style_measures.train_classifier(flat, np.repeat([0, 1], seen.shape[1]), steps[0], seed)
    return model, artist, style_measures.train_classifier(flat, labels, steps[1], seed)


def by_pairs(model, both: Artists, contents: np.ndarray, alphas: tuple[float, ...]) -> dict:
    """Results (2, n, H, W, 3) for each alpha."""
    from vqkit.apps.restyle import blended, pair_targets

    train = both.images[:, both.splits["train"]]
    found: dict[float, list] = {alpha: [] for alpha in alphas}
    for number, given in enumerate(contents):
        wanted = list(values_of(given))
        targets = pair_targets(
            model, wanted, list(values_of(train[number])), list(values_of(train[1 - number]))
        )
        for alpha, rows in found.items():
            made = [
                blended(model, *pair, alpha, one) for pair, one in zip(targets, wanted, strict=True)
            ]
            rows.append(model.signal.to_array(torch.stack(made), model.data))
    return {alpha: np.array(rows) for alpha, rows in found.items()}


def nearest_styles(model, both: Artists, contents: np.ndarray) -> np.ndarray:
    """(2, n, STYLES, H, W, 3): training images of the other artist, nearest in latents first."""

    def latents(images: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            given = model.tokenizer.standardise(values_of(images))
            return torch.cat([model.network.latents(part).flatten(1) for part in given.split(256)])

    train = both.images[:, both.splits["train"]]
    found = []
    for number, one in enumerate(contents):
        order = torch.cdist(latents(one), latents(train[1 - number])).argsort(1)[:, :STYLES]
        found.append(train[1 - number][order.numpy()])
    return np.stack(found)


def baseline(name: str, content: np.ndarray, styles: np.ndarray, alpha: float) -> np.ndarray:
    """Moments, or histograms, of each channel of the pixels of all styles."""
    from skimage.exposure import match_histograms

    plain = content.astype(float)
    pixels = styles.reshape(-1, 1, 3).astype(float)
    if name == "pixel adain":
        target = (plain - plain.mean((0, 1))) / plain.std((0, 1)).clip(1) * pixels.std(
            (0, 1)
        ) + pixels.mean((0, 1))
    else:
        target = match_histograms(content, styles.reshape(-1, content.shape[1], 3), channel_axis=2)
    return (plain + alpha * (target - plain)).round().clip(0, 255).astype(np.uint8)


def frontier(
    model, both: Artists, contents: np.ndarray, alphas: tuple[float, ...]
) -> dict[str, np.ndarray]:
    """Results of every method and alpha, and the end points."""
    from vqkit.apps.restyle import restyle

    styles = nearest_styles(model, both, contents)
    found = {
        "identity": np.stack([model.reconstruct(one) for one in contents]),
        "style copy": styles[:, :, 0],
        "truth": np.stack([model.reconstruct(one) for one in contents[::-1]]),
    }

    def in_latents(method: str, content: np.ndarray, given: np.ndarray, alpha: float) -> np.ndarray:
        made = restyle(
            model, values_of(content[None])[0], list(values_of(given)), method=method, alpha=alpha
        )
        return model.signal.to_array(made[None], model.data)[0]

    ways = {method: partial(in_latents, method) for method in METHODS}
    ways |= {name: partial(baseline, name) for name in ("pixel adain", "pixel histogram")}
    found |= {
        f"pairs {alpha}": rows for alpha, rows in by_pairs(model, both, contents, alphas).items()
    }
    for alpha in alphas:
        for name, way in ways.items():
            rows = [
                [way(*pair, alpha) for pair in zip(*one, strict=True)]
                for one in zip(contents, styles, strict=True)
            ]
            found[f"{name} {alpha}"] = np.array(rows)
    return found


def measured(place: Path | None, folder: Path, seed: int, quick: bool) -> dict:
    """All rows of one seed on test emoji, and the alpha that validation emoji choose."""
    both = load(place) if place else made_up(MADE_UP)
    both.splits["train"] = both.splits["train"][: 100 if quick else None]
    model, artist, group = learn(folder, both, seed, quick)
    splits = {name: both.splits[name][: 32 if quick else None : 2] for name in ("val", "test")}
    judges = {
        name: Judge(artist, group, both.images[:, split], both.groups[split])
        for name, split in splits.items()
    }
    on_val = by_pairs(model, both, judges["val"].contents, ALPHAS)
    shares = {alpha: judges["val"].measure(found) for alpha, found in on_val.items()}
    best = max(shares, key=lambda alpha: min(shares[alpha]["style"], shares[alpha]["group"]))
    results = frontier(
        model, both, judges["test"].contents, tuple(sorted({*ALPHAS[:: 4 if quick else 1], best}))
    )
    show(folder / "pairs.png", judges["test"].contents, results[f"pairs {best}"])
    rows = {name: judges["test"].measure(found) for name, found in results.items()}
    return {"alpha": best, "rows": rows, "claimed": rows[f"pairs {best}"]}


def show(file: Path, contents: np.ndarray, results: np.ndarray) -> None:
    """The first emoji in both directions: content, result, and the other artist's own drawing
    below.
    """
    from PIL import Image

    blocks = [np.stack([contents[n], results[n], contents[1 - n]])[:, :SHOWN] for n in (0, 1)]
    sheet = np.concatenate(blocks).transpose(0, 2, 1, 3, 4)  # rows, height, images, width, channels
    image = Image.fromarray(sheet.reshape(sheet.shape[0] * sheet.shape[1], -1, 3))
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(file)


def job(work: tuple) -> dict:
    place, folder, seed, quick = work
    return kept(folder / "figures.json", lambda: measured(place, folder, seed, quick))


def main() -> None:
    given = PARSER.parse_args()
    if not (given.artists or given.quick):
        PARSER.error(
            "--artists DIR is missing, which holds the images; --help says how to get them"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        seeds = range(given.seed, given.seed + (1 if given.quick else 3))
        found = in_parallel(
            job, [(given.artists, work / f"restyle-{seed}", seed, given.quick) for seed in seeds]
        )
    print_table(found)
    setting = {
        "seeds": list(seeds),
        "minutes": MINUTES,
        "alphas": [one["alpha"] for one in found],
        **machine(),
    }
    figures = [one["claimed"] for one in found]
    ratio = mean(
        one["claimed"]["to truth"] / one["rows"]["pixel adain 1.0"]["to truth"] for one in found
    )
    report(
        [
            Claim(
                "restyle_style_agreement",
                mean(one["style"] for one in figures),
                "share",
                ">= 0.8",
                None,
                setting,
            ),
            Claim(
                "restyle_group_kept",
                mean(one["group"] for one in figures),
                "share",
                ">= 0.8",
                None,
                setting,
            ),
            Claim(
                "restyle_pair_distance_vs_adain", ratio, "ratio", "< 1", "AdaIN in pixels", setting
            ),
        ],
        given,
    )


def print_table(found: list[dict]) -> None:
    """Means over the seeds."""
    columns = list(found[0]["claimed"])
    print(f"{'':<20}" + "".join(f"{name:>11}" for name in columns))
    for name in found[0]["rows"]:
        rows = [one["rows"][name] for one in found]
        print(
            f"{name:<20}"
            + "".join(f"{mean(row[column] for row in rows):>11.3f}" for column in columns)
        )
    for one in found:
        print(
            f"{'pairs, alpha ' + str(one['alpha']):<20}"
            + "".join(f"{one['claimed'][name]:>11.3f}" for name in columns)
        )


if __name__ == "__main__":
    main()
