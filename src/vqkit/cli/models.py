"""Commands for autoencoders: train, evaluate, reconstruct, info, recipes, data.

Heavy imports happen inside of them.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VqkitError
from . import arguments, pairing
from .printing import Commands, plain, print_figures, progress_bar, say, warn, write_new

# Items on a sample sheet.
SHEET_ITEMS = 64
# In the place of a licence.
MISSING = "missing: nobody knows what they may do with the weights"

if TYPE_CHECKING:
    from ..artifact.long_items import LongItem
    from ..artifact.model import Model
    from ..artifact.record import AdversarialStage


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser)
    arguments.add_settings(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the artifact goes; must be new or empty"
    )
    arguments.add_run(parser, "chosen by a look at DATA")
    arguments.add_licence(parser)


def _train(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..pipelines.autoencoder import train
    from ..training.engine import leave_together

    model = train(
        options.data,
        options.out,
        options.recipe,
        options.settings,
        licence=options.licence,
        **arguments.of_run(options),
    )
    leave_together()
    _say_trained(model, options.out)
    return 0


def _say_trained(model: Model | None, out: str) -> None:
    """What came of a training; nothing on ranks other than the first."""
    if model is not None:
        print_figures(model.metrics)
        say(f"artifact: {out}\nreport:   {Path(out) / 'report.html'}")


def _sharpen_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model")
    arguments.add_data(parser)
    arguments.add_settings(parser, text="settings over the model's: losses, adversary, train")
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR2",
        help="where the sharper model goes; must be new or empty",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that stopped in DIR2"
    )
    arguments.add_minutes(parser)


def _sharpen(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..pipelines.sharpen import sharpen
    from ..training.engine import leave_together

    model = sharpen(
        options.artifact,
        options.data,
        options.out,
        options.settings,
        **arguments.of_run(options),
    )
    leave_together()
    _say_trained(model, options.out)
    return 0


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_data(parser)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--likelihood", action="store_true", help="also a true bound in bits per dimension"
    )


def _evaluate(options: argparse.Namespace) -> int:
    from ..apps.evaluate import evaluate, likelihood, open_for
    from ..files import write_text

    model = arguments.load_model(options.artifact, options.device)
    data = open_for(model, options.data, options.split)
    with progress_bar("evaluating") as progress:
        result = evaluate(model, data, options.split, progress)
    metrics = {**result.metrics, "content_id": model.content_id, "data": str(options.data)}
    if options.likelihood:
        with progress_bar("likelihood") as progress:
            metrics |= likelihood(model, data, options.split, progress).metrics
    print_figures(metrics)
    if options.json:
        write_text(Path(options.json), json.dumps(metrics, indent=2) + "\n")
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="items to look at; without, the model makes some up"
    )
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"])
    parser.add_argument("--json", metavar="FILE", help="write everything that was found there")
    arguments.add_licence(parser)


def _check(options: argparse.Namespace) -> int:
    from ..files import write_text
    from ..pipelines.check import check_artifact
    from ..pipelines.licence import name_licence

    if options.licence is not None:
        name_licence(options.artifact, options.licence)
        if pairing.is_pair(options.artifact):
            # All else is checked of its halves, which are models.
            for folder, licence in pairing.licences(Path(options.artifact)).items():
                say(f"{'licence':<18} {licence or MISSING}: {folder}")
            return 0
    model = arguments.load_model(options.artifact, options.device)
    with progress_bar("checking") as progress:
        found, elsewhere = check_artifact(
            options.artifact, model, options.data, options.split, progress
        )
    for what, flips in (("codes", found.code_flips), ("values", found.value_flips)):
        for name, (count, total) in flips.items():
            say(f"{what + ' ' + name:<28} {count} of {total} differ")
    for instructions, flips in elsewhere.items():
        for what, (count, total) in flips.items():
            say(f"{what + ' with ' + instructions:<28} {count} of {total} differ")
    print_figures(found.figures)
    say(f"{'licence':<18} {model.artifact.licence or MISSING}")
    if options.json:
        everything = {**asdict(found), "elsewhere": elsewhere}
        write_text(Path(options.json), json.dumps(everything, indent=2) + "\n")
    if not found.is_invariant:
        warn("what a model gives must not depend on how it is called, and here it does: see above")
    return int(not found.is_invariant)


def _reconstruct_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_files(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR2", help="where the files go; nothing is overwritten"
    )


def _reconstruct(options: argparse.Namespace) -> int:
    from ..artifact.long_items import LongItem

    model = arguments.load_model(options.artifact, options.device)
    items = arguments.Items(model, options.files, partial(arguments.open_item, model))
    for source, values in items:
        target = Path(options.out) / f"{source.stem}{model.signal.suffix}"
        if isinstance(values, LongItem):
            try:
                _reconstruct_long(model, values, target)
            except VqkitError as error:
                items.skip(source, error)
            continue
        codes = model.tokenizer.encode(values[None])
        extent = tuple(values.shape[1:])
        found = model.tokenizer.decode(codes, extent)[0]
        target = write_new(target, model.signal.write(found, model.artifact.data), quiet=True)
        measured = model.signal.measures(found[None], values[None])
        psnr = float(measured[model.signal.quality][0])
        bits = float(model.network.quantizer.bits(codes.to(model.device)))
        _say_reconstructed(model, target, extent, psnr, bits)
        for line in model.signal.differences(found, values):
            say(line)
    return items.status


def _reconstruct_long(model: Model, item: LongItem, stem: Path) -> None:
    """As of others, in pieces. VqkitError when it cannot be read to its end."""
    from ..artifact.long_items import LongItem, Reconstruction, quality

    result = Reconstruction(model.tokenizer, item)
    extent = item.extent or (0,)
    with progress_bar("reconstructing") as progress:

        def fill(path: Path) -> None:
            pieces = result.pieces(lambda share: progress(0.8 * share))
            model.signal.write_pieces(path, pieces, extent, model.artifact.data)

        target = write_new(stem, fill, quiet=True)
        written = LongItem(model.artifact, target, extent)
        psnr = quality(item, written.pieces(lambda share: progress(0.8 + 0.2 * share)))
    _say_reconstructed(model, target, (result.length,), psnr, result.bits)


def _say_reconstructed(
    model: Model, target: Path, extent: tuple[int, ...], psnr: float, bits: float
) -> None:
    name, divisor = model.signal.rate_per(extent, model.artifact.data)
    unit = model.signal.quality_unit
    say(f"{target}  {psnr:.2f} {unit}  {bits / 8:.0f} bytes of codes  {bits / divisor:.3f} {name}")


def _info(options: argparse.Namespace) -> int:
    from ..config.loading import dump

    if pairing.is_pair(options.artifact):
        pairing.info(options.artifact, options.device)
        return 0
    model = arguments.load_model(options.artifact, options.device)
    quantizer = model.network.quantizer
    extent = model.shape.extent
    kind = model.config.model.quantizer.kind
    say(f"{options.artifact}: {kind} autoencoder, content id {model.content_id[:16]}")
    size = model.signal.extent_in_words(extent)
    say(
        f"{model.signal.item + 's':<8} {size}, {model.shape.channels} channels, trained on "
        f"{model.data['name']}"
    )
    in_codes = f" in {quantizer.num_codebooks} codes" if quantizer.num_codebooks > 1 else ""
    grid = "x".join(map(str, reversed(model.network.grid(extent))))
    say(
        f"codes    {grid} of {quantizer.bits_per_position:.4g} bits{in_codes} = "
        f"{model.network.bits_in_words(extent)} {model.signal.an_item}"
    )
    say(f"files    of model {_names_in_files(model)}")
    if model.latency is not None:
        say(f"live     {model.latency}")
    if model.artifact.codes_of is not None:
        say(f"decoder  sharpened; codes are those of model {model.artifact.codes_of[:16]}")
    if model.artifact.stage is not None:
        say(f"weights  {_stage_in_words(model.artifact.stage)}")
    print_figures(model.metrics)
    say(f"\n{dump(model.config)}", end="")
    return 0


def _stage_in_words(stage: AdversarialStage) -> str:
    """Which weights are in use of a model that was trained with an adversary."""
    text = (
        f"from {stage.in_use} the adversarial stage, which lasted from step {stage.began_at} to "
        f"{stage.ended_at}, are in use"
    )
    if stage.beside is not None:
        other = "before" if stage.in_use == "after" else "after"
        text += f"; those from {other} it lie in {stage.beside}"
    return text


def _names_in_files(model: Model) -> str:
    """What .vq files call the model, as `vqkit inspect` shows it: the coders have a part in it."""
    names = []
    for suffix, lossless in (("", False), (" (lossless)", True)):
        try:
            names.append(model.compressor.codec(lossless=lossless).model_id.hex() + suffix)
        except VqkitError:
            # No codes, or too many, for files of codes; values that lossless files do not hold.
            continue
    return ", ".join(names) or "none"


def _recipes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="print this recipe, to save and change; prior/NAME and pair/NAME too",
    )
    parser.add_argument(
        "--quantizers",
        action="store_true",
        help="list the quantizers, which every recipe can be given, and their settings",
    )


def _recipes(options: argparse.Namespace) -> int:
    from ..config.base import Root
    from ..config.loading import recipe_names, recipe_summary, recipe_text
    from ..settings import Config, PairConfig, PriorConfig

    if options.quantizers:
        say(_quantizers(), end="")
        return 0
    roots: dict[str, type[Root]] = {"prior/": PriorConfig, "pair/": PairConfig, "": Config}
    if options.name:
        prefix = next(prefix for prefix in roots if options.name.startswith(prefix))
        say(recipe_text(options.name.removeprefix(prefix), roots[prefix]), end="")
        return 0
    for prefix, root in reversed(roots.items()):
        for name in recipe_names(root):
            say(f"{prefix + name:<20} {recipe_summary(name, root)}")
    say(
        "\n'vqkit recipes NAME > mine.yaml' gives you a copy to change; train with --recipe "
        "mine.yaml"
    )
    say("those of priors are for 'vqkit train-prior', whose --recipe takes them without prior/,")
    say("and those of pairs for 'vqkit pairs'")
    say("'vqkit recipes --quantizers' lists the other quantizers that any of them can have")
    return 0


def _quantizers() -> str:
    """Every quantizer: its kind, what it is, the override to type, its settings with their
    defaults.
    """
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
    lines.append(
        "  vqkit train DATA --out DIR model.quantizer.kind=fsq model.quantizer.levels=[8,5,5]"
    )
    lines.append(
        "A new kind starts from these defaults. Settings of a quantizer inside of another need its "
        "kind:"
    )
    lines.append(
        "  model.quantizer.kind=residual model.quantizer.stage.kind=vq "
        "model.quantizer.stage.codebook_size=64"
    )
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
    from ..pipelines.choosing import choose_settings
    from ..signals.registry import signal_of

    config, _, lines = choose_settings(options.data, options.recipe, options.settings)
    signal = signal_of(config.data)
    try:
        with progress_bar("decoding") as progress:
            data = signal.open(
                options.data, config.data, config.seed, max_bad=1.0, progress=progress
            )
    except VqkitError:
        with progress_bar("looking for bad files") as progress:
            bad, num_good = signal.bad_files(options.data, config.data, progress)
        if bad:
            _print_bad(bad, num_good)
        raise
    for line in lines:
        say(line)
    _print_description(data, signal.describe_in_words(data))
    sheet = Path(options.sheet or f"{Path(data.name).stem}-samples.png")
    if sheet.exists() and not options.sheet:
        say(
            f"{'sample sheet':<14} {sheet} exists and is left alone; --sheet FILE.png writes "
            "another"
        )
        return 0
    say(f"{'sample sheet':<14} {write_new(sheet, _sample_sheet(signal, data), quiet=True)}")
    return 0


def _print_description(data: Any, words: dict[str, str]) -> None:
    for key, value in data.describe().items():
        if key == "bad":
            _print_bad([(bad["name"], bad["reason"]) for bad in value], len(data))
        else:
            say(f"{key:<14} {words.get(key) or plain(value)}")
    for note in data.notes_in_words():
        say(f"{'note':<14} {note}")


def _print_bad(bad: list[tuple[str, str]], num_good: int) -> None:
    from ..data.names import MAX_BAD

    say(f"{'bad files':<14} {len(bad)}")
    for name, reason in bad:
        say(f"{'':<14} {name}: {reason}")
    if len(bad) > MAX_BAD * (len(bad) + num_good):
        say(
            f"{'':<14} more than {MAX_BAD:.0%} of all: training on them is refused until they are "
            "mended or removed"
        )


def _sample_sheet(signal: Any, data: Any) -> bytes:
    """The first training items (the order of the split is random), for a look at them."""
    from itertools import islice

    import torch

    from ..report.images import png_bytes
    from ..report.sheets import contact_sheet

    batches = list(islice(data.split("train", SHEET_ITEMS), 1))
    return png_bytes(contact_sheet(signal.display(torch.cat([batch.values for batch in batches]))))


COMMANDS: Commands = {
    "train": (
        _train,
        "train a model on your own files, with a report at the end",
        _train_arguments,
    ),
    "sharpen": (
        _sharpen,
        "train the decoder further, with an adversary; codes and files stay as they are",
        _sharpen_arguments,
    ),
    "evaluate": (
        _evaluate,
        "measure a model: PSNR, SSIM, CIEDE2000, usage, perplexity, bits",
        _evaluate_arguments,
    ),
    "check": (
        _check,
        "whether codes are the same however it is called, and what damaged codes do",
        _check_arguments,
    ),
    "reconstruct": (_reconstruct, "send files through a model and back", _reconstruct_arguments),
    "info": (_info, "what a trained model is and how good it was", arguments.add_artifact),
    "recipes": (_recipes, "the settings that ship with vqkit", _recipes_arguments),
    "data": (
        _data,
        "what was found in DATA: counts, sizes, modes, bad files, split, sample sheet",
        _data_arguments,
    ),
}
