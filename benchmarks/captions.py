"""Claims caption_group_agreement, caption_shuffled_agreement: does a prior draw what an emoji's
caption says?

    python benchmarks/captions.py [--quick] [--seed 0] [--json FILE] [--work DIR]

Three seeds from --seed on (--quick: one, some seconds): `vqkit train emoji --recipe emoji`, `vqkit
train-prior DIR emoji`. SAMPLES images are drawn for the caption of every test emoji, none of which
was trained on. A classifier of EfficientNet-lite0 features, trained on the training emoji after
they have been through the model and back, says to which of emoji's groups (smileys, animals, food,
...) each belongs. caption_group_agreement: share of samples whose group is that of their caption.
caption_shuffled_agreement: the same for captions shuffled among the test emoji, beside the share at
which two independent labels of these frequencies agree (`chance`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.image_features import classify_features, lite0_features, train_feature_classifier
from bench.image_sets import arrays

PARSER = options(__doc__, work=True)

SOURCE = "emoji"
SAMPLES = 4
# For --quick: settings of the tokenizer and of the prior, and training images of the classifier.
SHORT = ["train.steps=60", "coder.steps=0"]
SHORT_PRIOR = ["train.steps=10", "network.width=64", "network.num_blocks=2"]
FEW = 200


def train(folder: Path, seed: int, quick: bool) -> None:
    """The artifact of one seed with its prior."""
    vqkit = [sys.executable, "-m", "vqkit"]
    seeds = f"seed={seed}"
    short = SHORT if quick else []
    short_prior = SHORT_PRIOR if quick else []
    if not (folder / "model.safetensors").exists():
        subprocess.run(
            [*vqkit, "train", SOURCE, "--recipe", SOURCE, "--out", str(folder), seeds, *short],
            check=True,
        )
    if not (folder / "prior.safetensors").exists():
        subprocess.run(
            [*vqkit, "train-prior", str(folder), SOURCE, seeds, *short_prior], check=True
        )


def measure(folder: Path, seed: int, samples: int, few: int | None) -> dict:
    """Agreement of one seed; numbers in [0, 1]. few: training images of the classifier, None for
    all.
    """
    import vqkit
    from vqkit.apps.evaluate import open_for
    from vqkit.apps.generate import generate
    from vqkit.prior.prior import Drawing

    model = vqkit.load(folder)
    data = open_for(model, SOURCE, "test")
    names = sorted(set(data.groups))
    labels = np.array([names.index(group) for group in data.groups])
    training, test = (np.asarray(data.splits[split]) for split in ("train", "test"))
    training = training[:few]
    learnt = lite0_features(model.reconstruct(arrays(data, training)))
    classifier = train_feature_classifier(learnt, labels[training], len(names), seed)
    wanted = np.repeat(labels[test], samples)
    prompts = [data.captions[index] for index in test for _ in range(samples)]
    drawn = model.signal.to_array(
        generate(model, len(prompts), drawing=Drawing(prompts=prompts, seed=seed)).values,
        model.data,
    )
    found = classify_features(classifier, lite0_features(drawn))
    shown = model.reconstruct(arrays(data, test))
    shuffled = np.repeat(labels[np.random.default_rng(seed).permutation(test)], samples)
    shares = [np.bincount(part, minlength=len(names)) / len(part) for part in (found, wanted)]
    return {
        "agreement": float((found == wanted).mean()),
        "shuffled": float((found == shuffled).mean()),
        "chance": float(shares[0] @ shares[1]),
        "accuracy_on_reconstructions": float(
            (classify_features(classifier, lite0_features(shown)) == labels[test]).mean()
        ),
        "largest_group": float(shares[1].max()),
        "samples": len(prompts),
        "prior": model.wanted_prior().metrics,
    }


def main() -> None:
    arguments = PARSER.parse_args()
    samples, few, count = (1, FEW, 1) if arguments.quick else (SAMPLES, None, 3)
    seeds = [arguments.seed + index for index in range(count)]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for seed in seeds:
            folder = work / f"{SOURCE}-{seed}"
            train(folder, seed, arguments.quick)
            rows.append(
                kept(work / f"captions-{seed}.json", partial(measure, folder, seed, samples, few))
            )
    found = []
    for name, key, goal in (
        ("caption_group_agreement", "agreement", "above shuffled"),
        ("caption_shuffled_agreement", "shuffled", "chance"),
    ):
        values = [100 * row[key] for row in rows]
        spread = stdev(values) if len(values) > 1 else None
        found.append(
            Claim(name, mean(values), "%", goal, None, {**machine(), "stdev": spread, "rows": rows})
        )
    report(found, arguments)


if __name__ == "__main__":
    main()
