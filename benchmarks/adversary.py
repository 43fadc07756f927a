"""Claims gan_kid_gain, gan_guard and gan_sharpen_codes_changed: what an adversarial stage gains,
that its guard keeps it from harm, and that a sharpened decoder leaves every code as it is.

    python benchmarks/adversary.py [--quick] [--seed 0] [--work DIR] [--json FILE]

gan_kid_gain: a model of the emoji (recipe emoji) and one of photographs (patches of Debian's
wallpapers; tested on patches of 13 photographs from elsewhere), sharpened by `vqkit sharpen`,
beside a twin whose decoder trained on for as many steps without perceptual and adversarial terms.
Bits are equal, as all codes are. The figure is the smaller gain of the two sets in KID-lite1, the
kernel distance (arXiv 1801.01404) between reconstructions and originals that were not trained on,
in features of EfficientNet-lite1, a network that is in no loss: 1 - sharpened / twin. The fall in
PSNR stands beside it.

gan_guard: eight runs on the emoji that go wrong on purpose. A run counts when the guard said so,
and what it ended with is no worse than what the stage began with: the same weights, or PSNR within
adversary.max_fall and KID-lite1 no higher.

gan_sharpen_codes_changed: codes of all emoji and of all test photographs that differ between a
model and its sharpened one, plus compressed files that do not decode to the same codes with both.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench.claims import Claim, kept, machine, options, report
from bench.photographs import test_images, training_patches

PARSER = options(__doc__, work=True)

PATCH = 32
# Settings of the first training, of sharpening, and of runs that go wrong.
FULL = {
    "train": ["train.steps=4000", "train.max_minutes=null"],
    "sharpen": ["train.steps=2000"],
    "wrong": [
        "train.steps=400",
        "train.validate_every=50",
        "adversary.alone=50",
        "adversary.ramp=100",
    ],
}
# A discriminator that has learned something after a few steps.
FEW = ["adversary.alone=16", "adversary.ramp=10", "adversary.width=16", "adversary.lr=0.005"]
QUICK = {
    "train": [
        "train.steps=60",
        "train.max_minutes=null",
        "model.network.width=32",
        "coder.steps=4",
    ],
    "sharpen": [*FEW, "train.steps=40"],
    "wrong": [*FEW, "train.steps=40", "train.validate_every=10"],
}
# KID of a few hundred images is known to about this share of itself.
NOISE = 0.05
FILES = 20


@dataclass(frozen=True)
class Settings:
    train: list[str]
    sharpen: list[str]
    wrong: list[str]
    num_images: int


def chosen(arguments) -> Settings:
    settings = QUICK if arguments.quick else FULL
    seed = f"seed={arguments.seed}"
    # Images that are measured at most.
    count = 100 if arguments.quick else 10_000
    return Settings([*settings["train"], seed], settings["sharpen"], settings["wrong"], count)


def photographs(work: Path, quick: bool) -> Path:
    """Patches to train on; for the quick form those to test on, which need no download."""
    if not quick:
        return training_patches(work / "photographs.npy")
    path = work / "few-photographs.npy"
    np.save(path, test_patches()[:, 0].numpy())
    return path


def test_patches() -> torch.Tensor:
    """uint8 (832, 1, 32, 32)."""
    images = test_images()
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 1, PATCH, PATCH).contiguous()


# ---------------------------------------------------------------------------------------- measuring


def reconstructions(model, values: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.tokenizer.reconstruct(part) for part in values.split(128)])


def measured(model, values: torch.Tensor) -> dict[str, float]:
    """PSNR, detail beside the originals, and KID-lite1 of images (N, C, H, W)."""
    from bench.image_features import kid, lite1_features

    from vqkit.model.bands import detail

    made = reconstructions(model, values)
    features = [lite1_features(images.permute(0, 2, 3, 1)) for images in (made, values)]
    return {
        "psnr": float(model.signal.measures(made, values)["psnr"].mean()),
        "detail": float(detail(made, values).mean()),
        "kid": kid(*features),
        "images": len(values),
    }


def held_out(name: str, model) -> torch.Tensor:
    """Images of a set that nothing was trained on."""
    if name == "photographs":
        return test_patches()
    data = opened(model, "emoji")
    return data.read(np.concatenate([data.splits["test"], data.splits["validation"]])).values


def opened(model, source):
    from vqkit.apps.evaluate import open_for

    return open_for(model, source, "train")


# --------------------------------------------------------------------------------------------- gain


def trained(name: str, source, settings: Settings, work: Path):
    """A model of a set, from `work` where it is there already."""
    import vqkit

    folder = work / name
    if not (folder / "report.html").exists():
        recipe = "emoji"
        vqkit.train(source, folder, recipe, [*settings.train, "data.image_size=[32, 32]"])
    return vqkit.load(folder, device="cpu"), folder


def sharpened(name: str, source, settings: Settings, work: Path):
    import vqkit

    folder = work / f"{name}-sharp"
    if not (folder / "report.html").exists():
        vqkit.sharpen(work / name, source, folder, settings.sharpen)
    return vqkit.load(folder, device="cpu")


def twin(name: str, source, model, settings: Settings, work: Path):
    """The model with its decoder trained on for as many steps, as before."""
    import vqkit

    folder = work / f"{name}-twin"
    if not (folder / "report.html").exists():
        steps = [setting for setting in settings.sharpen if setting.startswith("train.")]
        off = ["adversary.kind=none", "losses.perceptual=0"]
        vqkit.sharpen(work / name, source, folder, [*steps, *off])
    return vqkit.load(folder, device="cpu")


def gains(name: str, source, settings: Settings, work: Path) -> dict:
    model, _ = trained(name, source, settings, work)
    values = held_out(name, model)[: settings.num_images]
    rows = {"before": measured(model, values)}
    rows["sharpened"] = measured(sharpened(name, source, settings, work), values)
    rows["twin"] = measured(twin(name, source, model, settings, work), values)
    rows["gain"] = 1 - rows["sharpened"]["kid"] / rows["twin"]["kid"]
    rows["psnr_fall"] = rows["twin"]["psnr"] - rows["sharpened"]["psnr"]
    return rows


# -------------------------------------------------------------------------------------------- codes


def codes_changed(name: str, work: Path) -> dict:
    """Codes that differ between a model and its sharpened one, and files that do not decode."""
    import vqkit

    old = vqkit.load(work / name, device="cpu")
    new = vqkit.load(work / f"{name}-sharp", device="cpu")
    values = test_patches()
    if name == "emoji":
        data = opened(old, "emoji")
        values = data.read(np.arange(len(data))).values
    changed = 0
    total = 0
    for part in values.split(256):
        first = old.tokenizer.encode(part)
        changed += int((first != new.tokenizer.encode(part)).sum())
        total += first.numel()
    bad = 0
    for image in values[:: max(1, len(values) // FILES)]:
        pixels = old.signal.to_array(image[None], old.data)[0]
        codes = old.tokenizer.encode(image[None])
        wanted = new.decode(codes, tuple(image.shape[1:]), double=True)[0]
        file = old.compress(pixels)
        bad += file != new.compress(pixels) or not np.array_equal(new.decompress(file), wanted)
    return {"codes": total, "changed": changed, "bad_files": bad}


# -------------------------------------------------------------------------------------------- guard


def sabotages(settings: Settings, work: Path) -> dict[str, tuple[list[str], str]]:
    """Eight ways to go wrong: settings and data of each."""
    from PIL import Image

    import vqkit

    model = vqkit.load(work / "emoji", device="cpu")
    one = work / "one.png"
    image = held_out("emoji", model)[0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(one)
    lr = model.config.train.lr
    muon_lr = model.config.train.muon_lr
    # Beside a decoder that hardly moves.
    strong = ["adversary.lr=0.005", "adversary.width=64", "adversary.augment=false"]
    strong += [f"train.lr={0.003 * lr}", f"train.muon_lr={0.003 * muon_lr}"]
    # Of what the model was trained with, of which sharpening takes a third.
    tenfold = [f"train.lr={10 * lr}", f"train.muon_lr={10 * muon_lr}", "adversary.lr=0.005"]
    return {
        "a discriminator far too strong": (strong, "emoji"),
        "tenfold learning rate": (tenfold, "emoji"),
        "hundredfold weight": (["adversary.weight=50"], "emoji"),
        "a start at step 0": ([], "emoji"),
        "a frozen discriminator": (["adversary.lr=1e-12"], "emoji"),
        "a set of one image": (["data.validation=0", "data.test=0"], str(one)),
        "overflow in bfloat16": (["adversary.weight=1e38", "train.precision=bfloat16"], "emoji"),
        "resumed in the middle": ([], "emoji"),
    }


class Stops:
    """A silent display that sends Ctrl-C once, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, title: str) -> None:
        pass

    def update(self, progress, row) -> None:
        if row.get("step") == self.step:
            self.step = -1
            signal.raise_signal(signal.SIGINT)

    def message(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


def guarded(name: str, wrong: list[str], source: str, settings: Settings, work: Path) -> dict:
    """One run that goes wrong: what was said, and what it ended with beside what it began with."""
    import vqkit

    folder = work / "guard" / name.replace(" ", "-")
    overrides = [*settings.wrong, *wrong, "train.log_every=1"]
    old = vqkit.load(work / "emoji", device="cpu")
    if name == "a start at step 0":
        return from_scratch(folder, settings)
    if name == "resumed in the middle":
        return resumed(folder, overrides, source, work)
    values = held_out("emoji", old)[: settings.num_images]
    if source.endswith(".png"):
        values = values[:1]
    model = vqkit.sharpen(work / "emoji", source, folder, overrides)
    said = warnings_of(folder)
    same = model.artifact.content_id == old.content_id
    row = {"said": said, "went_back": same}
    if not same:
        row["before"] = compared(old, values)
        row["after"] = compared(model, values)
    max_fall = model.config.adversary.max_fall
    row["ok"] = bool(said) and (same or is_no_worse(row["before"], row["after"], max_fall))
    return row


def compared(model, values: torch.Tensor) -> dict[str, float]:
    """As `measured`; of a single image there is no kernel distance."""
    if len(values) > 1:
        return measured(model, values)
    made = reconstructions(model, values)
    return {"psnr": float(model.signal.measures(made, values)["psnr"].mean()), "kid": 0.0}


def is_no_worse(before: dict, after: dict, max_fall: float) -> bool:
    is_as_true = after["psnr"] >= before["psnr"] - max_fall
    return is_as_true and after["kid"] <= (1 + NOISE) * before["kid"]


def from_scratch(folder: Path, settings: Settings) -> dict:
    """A model whose stage begins with its training: it must still learn."""
    import vqkit

    alone = [setting for setting in settings.wrong if not setting.startswith("train.")]
    overrides = [*settings.train, "coder.steps=0", "train.steps=400", "adversary.kind=patch"]
    overrides += ["adversary.start=0", "train.validate_every=50", *alone]
    if "train.steps=60" in settings.train:
        overrides.append("train.steps=60")
    model = vqkit.train("emoji", folder, "emoji", overrides)
    rows = figures_of(folder)
    first = next(row["psnr"] for row in rows if row.get("split") == "validation")
    last = [row["psnr"] for row in rows if row.get("split") == "validation"][-1]
    said = warnings_of(folder)
    return {"said": said, "before": first, "after": last, "ok": bool(said) and last > first} | {
        "psnr": model.metrics["psnr"]
    }


def resumed(folder: Path, overrides: list[str], source: str, work: Path) -> dict:
    """Stopped half-way and resumed: the weights of a run that was not, to the bit."""
    import vqkit
    from vqkit.training.loop import Interrupted

    whole = vqkit.sharpen(work / "emoji", source, folder / "whole", overrides)
    steps = whole.config.train.steps
    try:
        vqkit.sharpen(
            work / "emoji", source, folder / "broken", overrides, display=Stops(steps // 2)
        )
    except Interrupted:
        pass
    else:
        raise AssertionError("the run was not interrupted")
    again = vqkit.sharpen(work / "emoji", source, folder / "broken", resume=True)
    same = again.content_id == whole.content_id
    return {"said": ["resumed"], "same_weights": same, "ok": same}


def figures_of(folder: Path) -> list[dict]:
    import json

    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def warnings_of(folder: Path) -> list[str]:
    rows = figures_of(folder)
    return [row["message"] for row in rows if row.get("level") in ("warning", "action")]


# --------------------------------------------------------------------------------------------- main


def run(arguments, work: Path) -> list[Claim]:
    settings = chosen(arguments)
    sources = {"emoji": "emoji", "photographs": str(photographs(work, arguments.quick))}
    found = {}
    for name, source in sources.items():
        found[name] = kept(
            work / f"{name}-gain.json",
            lambda name=name, source=source: gains(name, source, settings, work),
        )
        print(name, found[name], flush=True)
    codes = {name: codes_changed(name, work) for name in sources}
    guard = {}
    for name, (wrong, source) in sabotages(settings, work).items():
        guard[name] = kept(
            work / "guard" / f"{name.replace(' ', '-')}.json",
            lambda name=name, wrong=wrong, source=source: guarded(
                name, wrong, source, settings, work
            ),
        )
        print(name, guard[name], flush=True)
    where = {**machine(), "seed": arguments.seed}
    gain = min(row["gain"] for row in found.values())
    changed = sum(row["changed"] + row["bad_files"] for row in codes.values())
    good = sum(row["ok"] for row in guard.values())
    beside = "the same decoder trained on without a stage"
    return [
        Claim("gan_kid_gain", gain, "share", ">= 0.4", beside, {**where, "sets": found}),
        Claim(
            "gan_guard", good, f"of {len(guard)}", str(len(guard)), None, {**where, "runs": guard}
        ),
        Claim("gan_sharpen_codes_changed", changed, "codes", "0", None, {**where, "sets": codes}),
    ]


def main() -> int:
    arguments = PARSER.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
        report(run(arguments, arguments.work), arguments)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report(run(arguments, Path(folder)), arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
