"""Commands for autoencoders: train, evaluate, reconstruct, info, recipes, data. Heavy imports happen inside of them."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from . import arguments
from .printing import Commands, plain, print_figures, progress_bar, write_new

if TYPE_CHECKING:
    from ..artifact import Artifact


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser)
    arguments.add_settings(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="where the artifact goes; must be new or empty")
    arguments.add_run(parser, "images")


def _train(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..run import train

    artifact = arguments.run_training(train, (options.data, options.out), options)
    if artifact is not None:
        print_figures(artifact.metrics)
        print(f"artifact: {options.out}\nreport:   {Path(options.out) / 'report.html'}")
    return 0


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_data(parser)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--likelihood", action="store_true", help="also a true bound in bits per dimension")


def _evaluate(options: argparse.Namespace) -> int:
    from ..apps.evaluate import evaluate, likelihood, open_for
    from ..artifact import Artifact
    from ..files import write_text

    artifact = Artifact.load(options.artifact)
    data = open_for(artifact, options.data, options.split)
    with progress_bar("evaluating") as progress:
        result = evaluate(artifact, data, options.split, progress)
    metrics = {**result.metrics, "content_id": artifact.content_id, "data": str(options.data)}
    if options.likelihood:
        with progress_bar("likelihood") as progress:
            metrics |= likelihood(artifact, data, options.split, progress).metrics
    print_figures(metrics)
    if options.json:
        write_text(Path(options.json), json.dumps(metrics, indent=2) + "\n")
    return 0


def _reconstruct_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_files(parser)
    parser.add_argument("--out", required=True, metavar="DIR2", help="where the PNG files go; nothing is overwritten")


def _reconstruct(options: argparse.Namespace) -> int:
    from ..apps.reconstruct import reconstruct
    from ..artifact import Artifact

    failed = 0
    for item in reconstruct(Artifact.load(options.artifact), options.files, Path(options.out)):
        if item.error:
            failed += 1
            print(f"vqkit: skipped: {item.error}", file=sys.stderr)
            continue
        bpp = item.bits / (item.size[0] * item.size[1])
        print(f"{item.target}  {item.psnr:.2f} dB  {item.bits / 8:.0f} bytes of codes  {bpp:.3f} bpp")
    return 1 if failed else 0


def _info(options: argparse.Namespace) -> int:
    from ..artifact import Artifact
    from ..config import dump

    artifact = Artifact.load(options.artifact)
    quantizer, grid = artifact.model.quantizer, artifact.model.grid(artifact.size)
    height, width = artifact.size
    print(
        f"{options.artifact}: {artifact.config.model.quantizer.kind} autoencoder, content id {artifact.content_id[:16]}"
    )
    size = f"{width}x{height} pixels (width x height)"
    print(f"images   {size}, {artifact.channels} channels, trained on {artifact.data['name']}")
    in_codes = f" in {quantizer.num_codebooks} codes" if quantizer.num_codebooks > 1 else ""
    print(
        f"codes    {grid[1]}x{grid[0]} of {quantizer.bits_per_position:.4g} bits{in_codes}"
        f" = {artifact.model.bits_per_image(artifact.size):.0f} bits an image"
    )
    print(f"files    of model {_names_in_files(artifact)}")
    print_figures(artifact.metrics)
    print(f"\n{dump(artifact.config)}", end="")
    return 0


def _names_in_files(artifact: Artifact) -> str:
    """What .vq files call the model, as `vqkit inspect` shows it: the coders have a part in it."""
    lossless = f"{artifact.codec(lossless=True).model_id.hex()} (lossless)"
    try:
        return f"{artifact.coding_id.hex()}, {lossless}"
    except VqkitError:  # no codes, or too many, for files of codes
        return lossless


def _recipes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe, to save and change; prior/NAME too")
    parser.add_argument(
        "--quantizers",
        action="store_true",
        help="list the quantizers, which every recipe can be given, and their settings",
    )


def _recipes(options: argparse.Namespace) -> int:
    from ..config import Config, PriorConfig, recipe_names, recipe_summary, recipe_text

    if options.quantizers:
        print(_quantizers(), end="")
        return 0
    if options.name:
        is_prior = options.name.startswith("prior/")
        print(recipe_text(options.name.removeprefix("prior/"), PriorConfig if is_prior else Config), end="")
        return 0
    for root, prefix in ((Config, ""), (PriorConfig, "prior/")):
        for name in recipe_names(root):
            print(f"{prefix + name:<20} {recipe_summary(name, root)}")
    print("\n'vqkit recipes NAME > mine.yaml' gives you a copy to change; train with --recipe mine.yaml")
    print("those of priors are for 'vqkit train-prior', whose --recipe takes them without prior/")
    print("'vqkit recipes --quantizers' lists the other quantizers that any of them can have")
    return 0


def _quantizers() -> str:
    """Every quantizer: its kind, what it is, the override to type, its settings with their defaults."""
    from ..config import default_override
    from ..config.quantizers import QUANTIZERS

    lines = []
    for section in QUANTIZERS:
        fields = dict(section.model_fields)
        kind = fields.pop("kind").default
        summary = " ".join((section.__doc__ or "").split())
        lines.append(f"{kind}: {summary}")
        lines.append(f"  model.quantizer.kind={kind}")
        for name, field in fields.items():
            about = " ".join((field.description or "").split())
            text = f"{default_override(section, name):<29} {about}"
            lines += textwrap.wrap(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 34)
        lines.append("")
    lines.append("Type settings behind model.quantizer., for any recipe:")
    lines.append("  vqkit train DATA --out DIR model.quantizer.kind=fsq model.quantizer.levels=[8,5,5]")
    lines.append("A new kind starts from these defaults. Settings of a quantizer inside of another need its kind:")
    lines.append("  model.quantizer.kind=residual model.quantizer.stage.kind=vq model.quantizer.stage.codebook_size=64")
    return "\n".join(lines) + "\n"


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser)
    arguments.add_settings(parser, "data.key=value", "settings, as for train")
    arguments.add_recipe(parser, "whose data settings to use")
    parser.add_argument(
        "--sheet",
        metavar="FILE.png",
        help="sample sheet (default: NAME-samples.png); a name that is taken gets a number",
    )


def _data(options: argparse.Namespace) -> int:
    from ..data import open_images, sample_sheet
    from ..report.pictures import png_bytes
    from ..run import load_settings

    config = load_settings(options.data, options.recipe, options.settings)
    data = open_images(options.data, config.data, config.seed)
    for key, value in data.describe().items():
        if key == "bad":
            print(f"{'bad files':<14} {len(value)}")
            for bad in value[:20]:
                print(f"{'':<14} {bad['name']}: {bad['reason']}")
        else:
            shown = value[::-1] if key == "size" else value  # the width first, as in all that is printed
            print(f"{key:<14} {plain(shown)}" + (" (width x height)" if key in ("size", "sizes") else ""))
    sheet = Path(options.sheet or f"{Path(data.name).stem}-samples.png")
    if sheet.exists() and not options.sheet:
        print(f"{'sample sheet':<14} {sheet} exists and is left alone; --sheet FILE.png writes another")
        return 0
    print(f"{'sample sheet':<14} {write_new(sheet, png_bytes(sample_sheet(data)), quiet=True)}")
    return 0


COMMANDS: Commands = {
    "train": (_train, "train a model on your own files, with a report at the end", _train_arguments),
    "evaluate": (_evaluate, "measure a model: PSNR, SSIM, usage, perplexity, bits", _evaluate_arguments),
    "reconstruct": (_reconstruct, "send pictures through a model and back", _reconstruct_arguments),
    "info": (_info, "what a trained model is and how good it was", arguments.add_artifact),
    "recipes": (_recipes, "the settings that ship with vqkit", _recipes_arguments),
    "data": (_data, "what was found in DATA: counts, sizes, modes, bad files, split, sample sheet", _data_arguments),
}
