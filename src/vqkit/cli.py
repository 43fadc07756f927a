"""The command line: parse, call one function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import VqkitError

EPILOG = """examples:
  vqkit train photos --out runs/photos             train on a folder of pictures
  vqkit train emoji --out runs/emoji train.max_minutes=5 model.quantizer.codebook_size=256
  vqkit reconstruct runs/photos cat.jpg --out cats

DATA is a folder of pictures, one picture, IDX, .npy, .npz, .parquet, or built in: emoji, fashion-mnist, digits."""


class Parser(argparse.ArgumentParser):
    """Suggests the nearest command or option when one is misspelt."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: '" in message:
            word, *known = re.findall("'([^']*)'", message)
            message = message.replace("argument command: invalid choice:", "unknown command")
            message += _did_you_mean(word, known)
        raise VqkitError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 when some inputs failed, 2 for a mistake, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        options, rest = _parser().parse_known_args([word for word in arguments if word != "--debug"])
        if options.command is None:
            _parser().print_help()
            return 0
        _check_rest(options, rest)
        return int(COMMANDS[options.command][0](options))
    except KeyboardInterrupt:
        print("vqkit: interrupted", file=sys.stderr)
        return 130
    except VqkitError as error:
        if debug:
            raise
        print(f"vqkit: {error}", file=sys.stderr)
        return 130 if type(error).__name__ == "Interrupted" else 2
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(f"vqkit: {error} (--debug shows where)", file=sys.stderr)
        return 2


def _parser() -> Parser:
    parser = Parser(
        prog="vqkit",
        description="Train a discrete autoencoder on your own files, see that it is healthy, and use it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vqkit {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    for name, (_, text, add_arguments) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=text, description=text))
    return parser


def _check_rest(options: argparse.Namespace, rest: list[str]) -> None:
    """What argparse left over: settings behind options are settings, all else is a mistake."""
    settings = [word for word in rest if "=" in word and not word.startswith("-") and hasattr(options, "settings")]
    if settings:
        options.settings = [*options.settings, *settings]
    wrong = [word for word in rest if word not in settings]
    if wrong:
        known = ["--out", "--recipe", "--resume", "--split", "--json", "--sheet", "--debug"]
        raise VqkitError(f"unknown argument '{wrong[0]}'{_did_you_mean(wrong[0], known)}")


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


# ----------------------------------------------------------------------------------------------------------- commands


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="folder, file or built-in set")
    parser.add_argument(
        "settings", nargs="*", default=[], metavar="key.subkey=value", help="settings over the recipe's"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the artifact goes; must be new or empty")
    parser.add_argument("--recipe", metavar="NAME|FILE.yaml", help="see 'vqkit recipes'; default: by DATA, else images")
    parser.add_argument("--resume", action="store_true", help="go on with the run that stopped in DIR")


def _train(options: argparse.Namespace) -> int:
    if int(os.environ.get("RANK", "0")) == 0:
        print("loading ...", file=sys.stderr)
    from .run import train
    from .training.progress import display_for_terminal

    artifact = train(
        options.data,
        options.out,
        options.recipe,
        options.settings,
        resume=options.resume,
        display=display_for_terminal(),
    )
    if artifact is not None:
        _print_figures(artifact.metrics)
        print(f"artifact: {options.out}\nreport:   {Path(options.out) / 'report.html'}")
    return 0


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model")
    parser.add_argument("data", metavar="DATA", help="folder, file or built-in set")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")


def _evaluate(options: argparse.Namespace) -> int:
    from .apps.evaluate import evaluate, open_for
    from .artifact import Artifact
    from .files import write_text

    artifact = Artifact.load(options.artifact)
    data = open_for(artifact, options.data, options.split)
    with _progress("evaluating") as progress:
        result = evaluate(artifact, data, options.split, progress)
    metrics = {**result.metrics, "content_id": artifact.content_id, "data": str(options.data)}
    _print_figures(metrics)
    if options.json:
        write_text(Path(options.json), json.dumps(metrics, indent=2) + "\n")
    return 0


def _reconstruct_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model")
    parser.add_argument("files", nargs="+", metavar="FILES", help="pictures, or folders of them")
    parser.add_argument("--out", required=True, metavar="DIR2", help="where the PNG files go; nothing is overwritten")


def _reconstruct(options: argparse.Namespace) -> int:
    from .apps.reconstruct import reconstruct
    from .artifact import Artifact

    failed = 0
    for item in reconstruct(Artifact.load(options.artifact), options.files, Path(options.out)):
        if item.error:
            failed += 1
            print(f"vqkit: skipped: {item.error}", file=sys.stderr)
            continue
        bpp = item.bits / (item.size[0] * item.size[1])
        print(f"{item.target}  {item.psnr:.2f} dB  {item.bits / 8:.0f} bytes of codes  {bpp:.3f} bpp")
    return 1 if failed else 0


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model")


def _info(options: argparse.Namespace) -> int:
    from .artifact import Artifact
    from .config import dump

    artifact = Artifact.load(options.artifact)
    quantizer, grid = artifact.model.quantizer, artifact.model.grid(artifact.size)
    height, width = artifact.size
    print(
        f"{options.artifact}: {artifact.config.model.quantizer.kind} autoencoder, content id {artifact.content_id[:16]}"
    )
    print(f"images   {height}x{width}, {artifact.channels} channels, trained on {artifact.data['name']}")
    in_codes = f" in {quantizer.num_codebooks} codes" if quantizer.num_codebooks > 1 else ""
    print(
        f"codes    {grid[0]}x{grid[1]} of {quantizer.bits_per_position:.4g} bits{in_codes}"
        f" = {artifact.model.bits_per_image(artifact.size):.0f} bits an image"
    )
    _print_figures(artifact.metrics)
    print(f"\n{dump(artifact.config)}", end="")
    return 0


def _recipes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe, to save and change")


def _recipes(options: argparse.Namespace) -> int:
    from .config import recipe_names, recipe_summary, recipe_text

    if options.name:
        print(recipe_text(options.name), end="")
        return 0
    for name in recipe_names():
        print(f"{name:<16} {recipe_summary(name)}")
    print("\n'vqkit recipes NAME > mine.yaml' gives you a copy to change; train with --recipe mine.yaml")
    return 0


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="folder, file or built-in set")
    parser.add_argument("settings", nargs="*", default=[], metavar="data.key=value", help="settings, as for train")
    parser.add_argument("--recipe", metavar="NAME|FILE.yaml", help="whose data settings to use")
    parser.add_argument("--sheet", metavar="FILE.png", help="sample sheet (default: NAME-samples.png)")


def _data(options: argparse.Namespace) -> int:
    from .data import open_images, sample_sheet
    from .run import load_settings

    config = load_settings(options.data, options.recipe, options.settings)
    data = open_images(options.data, config.data, config.seed)
    for key, value in data.describe().items():
        if key == "bad":
            print(f"{'bad files':<14} {len(value)}")
            for bad in value[:20]:
                print(f"{'':<14} {bad['name']}: {bad['reason']}")
        else:
            print(f"{key:<14} {_plain(value)}")
    sheet = Path(options.sheet or f"{Path(data.name).stem}-samples.png")
    if sheet.exists() and not options.sheet:
        print(f"{'sample sheet':<14} {sheet} exists and is left alone; --sheet FILE.png writes another")
        return 0
    sample_sheet(data).save(sheet)
    print(f"{'sample sheet':<14} {sheet}")
    return 0


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": (_train, "train a model on your own files, with a report at the end", _train_arguments),
    "evaluate": (_evaluate, "measure a model: PSNR, SSIM, usage, perplexity, bits", _evaluate_arguments),
    "reconstruct": (_reconstruct, "send pictures through a model and back", _reconstruct_arguments),
    "info": (_info, "what a trained model is and how good it was", _info_arguments),
    "recipes": (_recipes, "the settings that ship with vqkit", _recipes_arguments),
    "data": (_data, "what was found in DATA: counts, sizes, modes, bad files, split, sample sheet", _data_arguments),
}


# ----------------------------------------------------------------------------------------------------------- printing


def _plain(value: Any) -> str:
    """A value in words: numbers short, tables as 'key value' pairs."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in list(value.items())[:12]) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " x ".join(map(_plain, value))
    return str(value)


def _print_figures(metrics: Mapping[str, Any]) -> None:
    for key, value in metrics.items():
        if value is not None:
            print(f"{key:<18} {_plain(value)}")


class _progress:
    """A bar on the error stream while something takes long; nothing when that is not a terminal."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self.task = self.bar.add_task(what, total=1.0)

    def __enter__(self) -> Callable[[float], None]:
        self.bar.start()
        return lambda share: self.bar.update(self.task, completed=share)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
