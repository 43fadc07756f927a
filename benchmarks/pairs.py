"""Claims pair_text_to_image_group, pair_image_to_text_group, pair_retrieval_top1: does one prior
over emoji and their captions go both ways?

    python benchmarks/pairs.py [--quick] [--seed 0] [--seeds 1] [--minutes 30] [--json FILE]
        [--work DIR]

For each seed: `vqkit train emoji --recipe emoji`, `vqkit pairs MODEL bytes emoji`, a network of
width 128 and four blocks. What is measured are the test emoji, whose captions were not trained on;
guidance and temperature are chosen on the validation emoji, among SAMPLINGS.

text to image: SAMPLES images for each caption; a classifier of EfficientNet-lite0 features,
trained on the training emoji after they have been through the model and back, says to which group
(smileys, animals, food, ...) each belongs. image to text: SAMPLES captions for each image; a
classifier of the words and letters of training captions says of which group each is. Both beside
groups shuffled among the test emoji, the share at which independent labels agree (`chance`), and
what the classifiers make of the real test images and captions. Retrieval: which of 100 test
captions fits an image best, and which image a caption, by the bits that `vqkit score` sorts by.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zlib
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.image_features import classify_features, lite0_features, train_feature_classifier
from bench.image_sets import arrays

from vqkit.prior.sampling import Sampling

PARSER = options(__doc__, work=True)
PARSER.add_argument("--seeds", type=int, default=1)
PARSER.add_argument("--minutes", type=float, default=30.0)

SOURCE = "emoji"
SAMPLES = 4
SAMPLINGS = [
    Sampling(cfg=cfg, temperature=temperature)
    for cfg in (1.0, 2.0, 4.0)
    for temperature in (1.0, 0.5)
]
# Samples for each validation item, by which one of them is chosen.
CHOOSING = 2
RETRIEVED = 100
SETTINGS = [
    "network.width=128",
    "network.num_blocks=4",
    "train.batch_size=32",
    "train.lr=0.01",
    "train.max_minutes=null",
    "train.patience=15",
]
# For --quick: settings of the tokenizer and of the pair, and items that are looked at.
SHORT = ["train.steps=60", "coder.steps=0"]
SHORT_PAIR = ["train.steps=10", "network.width=64", "network.num_blocks=2"]
FEW = 40
# Numbers that words and runs of letters of a caption are hashed to.
NUM_HASHED = 4096


def train(work: Path, seed: int, minutes: float, quick: bool) -> tuple[Path, Path]:
    """The model of emoji and the pair of one seed."""
    vqkit = [sys.executable, "-m", "vqkit"]
    model, pair = work / f"{SOURCE}-{seed}", work / f"pair-{seed}"
    seeds = f"seed={seed}"
    if not (model / "model.safetensors").exists():
        short = SHORT if quick else []
        command = ["train", SOURCE, "--recipe", SOURCE, "--out", str(model), seeds, *short]
        subprocess.run([*vqkit, *command], check=True)
    if not (pair / "config.json").exists():
        how = SHORT_PAIR if quick else [*SETTINGS, "--minutes", str(minutes)]
        command = ["pairs", str(model), "bytes", SOURCE, "--out", str(pair), seeds, *how]
        subprocess.run([*vqkit, *command], check=True)
    return model, pair


def caption_features(captions: list[str]) -> np.ndarray:
    """Which words, and which runs of three and four letters, a caption has: (N, NUM_HASHED)."""
    found = np.zeros((len(captions), NUM_HASHED), np.float32)
    for row, caption in enumerate(captions):
        text = f" {caption.lower()} "
        parts = text.split()
        parts += [text[at : at + size] for size in (3, 4) for at in range(len(text) - size + 1)]
        for part in parts:
            found[row, zlib.crc32(part.encode()) % NUM_HASHED] = 1
    return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1)


def agreement(found: np.ndarray, wanted: np.ndarray, num_groups: int, seed: int) -> dict:
    """Shares in [0, 1] of groups found (N * k,) that are those wanted (N,), and controls."""
    times = len(found) // len(wanted)
    shuffled = np.random.default_rng(seed).permutation(wanted)
    shares = [np.bincount(part, minlength=num_groups) / len(part) for part in (found, wanted)]
    return {
        "agreement": float((found == np.repeat(wanted, times)).mean()),
        "shuffled": float((found == np.repeat(shuffled, times)).mean()),
        "chance": float(shares[0] @ shares[1]),
        "largest_group": float(shares[1].max()),
        "drawn": len(found),
    }


class Emoji:
    """The emoji as the model of a pair sees them, and classifiers of their groups."""

    def __init__(self, folder: Path, seed: int, few: int | None) -> None:
        import vqkit
        from vqkit.apps.evaluate import open_for

        self.pair = vqkit.load(folder, device="cpu")
        self.model = self.pair.halves[0].model
        self.data = open_for(self.model, SOURCE, "train")
        self.few = few
        names = sorted(set(self.data.groups))
        self.num_groups = len(names)
        self.labels = np.array([names.index(group) for group in self.data.groups])
        training = self.ids("train", None if few is None else 5 * few)
        learnt = lite0_features(self.model.reconstruct(arrays(self.data, training)))
        self._images = train_feature_classifier(
            learnt, self.labels[training], self.num_groups, seed
        )
        self._captions = train_feature_classifier(
            caption_features(self.captions(training)), self.labels[training], self.num_groups, seed
        )

    def ids(self, split: str, few: int | None = None) -> np.ndarray:
        return np.asarray(self.data.splits[split])[: few or self.few]

    def captions(self, ids: np.ndarray) -> list[str]:
        return [self.data.captions[index] for index in ids]

    def of_images(self, images: np.ndarray) -> np.ndarray:
        return classify_features(self._images, lite0_features(images))

    def of_captions(self, captions: list[str]) -> np.ndarray:
        return classify_features(self._captions, caption_features(captions))

    def codes(self, ids: np.ndarray) -> tuple:
        """Codes of images and of captions, (N, L) each."""
        images = self.model.tokenizer.encode(self.data.read(ids).values).flatten(1)
        return images, self.pair.halves[1].encode(self.captions(ids)).codes

    def drawn(self, half: int, given, how: Sampling, samples: int, seed: int) -> np.ndarray:
        """Groups of what is drawn for given codes, `samples` for each."""
        many = given.repeat_interleave(samples, 0)
        codes = self.pair.prior.draw(half, many, how, seed)
        made = self.pair.halves[half].array(self.pair.halves[half].decode(codes))
        return self.of_images(made) if half == 0 else self.of_captions(made)


def directions(folder: Path, seed: int, quick: bool) -> dict:
    """Both directions of one seed."""
    emoji = Emoji(folder, seed, FEW if quick else None)
    samples = 1 if quick else SAMPLES
    validation, test = emoji.ids("validation"), emoji.ids("test")
    known, wanted = emoji.labels[validation], emoji.labels[test]
    row: dict = {"prior": emoji.pair.prior.metrics}
    for half, name in ((0, "text_to_image"), (1, "image_to_text")):
        given = emoji.codes(validation)[1 - half]
        on_validation = []
        for how in SAMPLINGS:
            found = emoji.drawn(half, given, how, CHOOSING, seed + 1)
            on_validation.append(float((found == np.repeat(known, CHOOSING)).mean()))
        how = SAMPLINGS[int(np.argmax(on_validation))]
        found = emoji.drawn(half, emoji.codes(test)[1 - half], how, samples, seed)
        row[name] = agreement(found, wanted, emoji.num_groups, seed)
        row[name] |= {"guidance": how.cfg, "temperature": how.temperature}
        row[name]["on_validation"] = {
            f"{one.cfg:g}, {one.temperature:g}": share
            for one, share in zip(SAMPLINGS, on_validation, strict=True)
        }
    images = emoji.model.reconstruct(arrays(emoji.data, test))
    row["classifier_on_images"] = float((emoji.of_images(images) == wanted).mean())
    found = emoji.of_captions(emoji.captions(test))
    row["classifier_on_captions"] = float((found == wanted).mean())
    return row


def retrieval(folder: Path, quick: bool) -> dict:
    """Shares of test items whose own caption, or image, fits best of all."""
    import torch

    import vqkit
    from vqkit.apps.evaluate import open_for

    pair = vqkit.load(folder, device="cpu")
    data = open_for(pair.halves[0].model, SOURCE, "train")
    ids = np.asarray(data.splits["test"])[: 10 if quick else RETRIEVED]
    images = pair.halves[0].model.tokenizer.encode(data.read(ids).values).flatten(1)
    captions = pair.halves[1].encode([data.captions[index] for index in ids]).codes
    count = len(ids)
    both = torch.cat([images.repeat_interleave(count, 0), captions.repeat(count, 1)], 1)
    costs = pair.prior.costs(both)
    told = (costs[:, :2] - costs[:, 2:]).reshape(count, count, 2)
    saved = {"fit": told.mean(2), "image": told[..., 0], "caption": told[..., 1]}
    right = torch.arange(count)
    found: dict = {"candidates": count}
    for name, bits in saved.items():
        found[f"caption_of_image_by_{name}"] = float((bits.argmax(1) == right).double().mean())
        found[f"image_of_caption_by_{name}"] = float((bits.argmax(0) == right).double().mean())
    ranks = (saved["fit"] > saved["fit"].diagonal()[:, None]).sum(1)
    found["caption_among_first_5"] = float((ranks < 5).double().mean())
    return found


def main() -> None:
    arguments = PARSER.parse_args()
    quick = arguments.quick
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for seed in range(arguments.seed, arguments.seed + (1 if quick else arguments.seeds)):
            _, folder = train(work, seed, arguments.minutes, quick)
            both = kept(work / f"both-{seed}.json", partial(directions, folder, seed, quick))
            of_hundred = partial(retrieval, folder, quick)
            rows.append(both | {"retrieval": kept(work / f"retrieval-{seed}.json", of_hundred)})
    figures = (
        ("pair_text_to_image_group", ("text_to_image", "agreement"), ">= 70"),
        ("pair_text_to_image_shuffled", ("text_to_image", "shuffled"), "chance"),
        ("pair_image_to_text_group", ("image_to_text", "agreement"), ">= 70"),
        ("pair_image_to_text_shuffled", ("image_to_text", "shuffled"), "chance"),
        ("pair_retrieval_top1_captions", ("retrieval", "caption_of_image_by_fit"), ">= 20"),
        ("pair_retrieval_top1_images", ("retrieval", "image_of_caption_by_fit"), ">= 20"),
    )
    claims = []
    for name, (part, key), goal in figures:
        values = [100 * row[part][key] for row in rows]
        spread = stdev(values) if len(values) > 1 else None
        where = {**machine(), "stdev": spread, "rows": rows}
        claims.append(Claim(name, mean(values), "%", goal, None, where))
    report(claims, arguments)


if __name__ == "__main__":
    main()
