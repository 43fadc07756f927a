"""The verb denoise: items without their noise."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .printing import Commands, progress_bar, say, warn, write_new

if TYPE_CHECKING:
    from torch import Tensor

# Pairs of noisy and clean that a sheet shows.
SHEET_PAIRS = 8
_LEVELS = arguments.Number(float, 0, 255)


def _denoise_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="files, or folders of them, of any size"
    )
    parser.add_argument(
        "--out", required=True, metavar="D", help="folder; names that are taken get a number"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--strength",
        type=arguments.SHARE,
        metavar="S",
        help="0 = all that the codes can say, 1 = smoothest; of text 0 = letters are replaced "
        "where the model is sure (default), 1 = by what it finds likeliest",
    )
    how.add_argument(
        "--levels",
        type=arguments.COUNT,
        metavar="K",
        help="stages of a residual model, or grids of a pyramid; fewer are smoother",
    )
    how.add_argument(
        "--continuous", action="store_true", help="decode the latents without quantising them"
    )
    how.add_argument(
        "--sigma",
        type=_sigma,
        metavar="auto|N",
        help="deviation of the noise in levels of 0 to 255; auto (default): levels by what "
        "predicts hidden pixels best",
    )
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="also every item beside its result, the first 8 of them"
    )


def _sigma(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return _LEVELS(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither auto nor a number from 0 up to 255"
        ) from error


def _denoise(options: argparse.Namespace) -> int:
    import torch

    from ..apps.denoise import denoise, num_levels
    from ..report.images import png_bytes
    from ..report.sheets import contact_sheet

    model = arguments.load_model(options.artifact, options.device)
    if not model.signal.removes_noise(model.config.data):
        warn(
            "this model never saw noise in training, and may keep it: --recipe denoise trains one "
            "of images that did, --recipe speech-denoise one of recordings, --recipe text-denoise "
            "one of text"
        )
    items = arguments.Items(model, options.files, partial(arguments.read_item, model))
    rows: list[Tensor] = []
    for source, values in items:
        with progress_bar(source.name) as progress:
            found = denoise(
                model,
                values,
                strength=options.strength,
                levels=options.levels,
                continuous=options.continuous,
                sigma=options.sigma,
                progress=progress,
            )
        target = Path(options.out) / f"{source.stem}{model.signal.suffix}"
        write_new(target, model.signal.write(found.values, model.artifact.data))
        if model.signal.has_symbols:
            changed = float(model.signal.change(found.values[None], values[None])[0])
            say(f"  changed {changed:.2f} {model.signal.change_in_words}")
        else:
            used = "not quantised"
            if found.levels is not None:
                used = f"{found.levels} of {num_levels(model)} levels"
            say(f"  took out noise of deviation {found.sigma:.1f}; {used}")
        for line in model.signal.differences(found.values, values):
            say(line)
        if len(rows) < 2 * SHEET_PAIRS and (not rows or values.shape == rows[0].shape):
            rows += [values, found.values]
    if options.sheet and rows:
        sheet = contact_sheet(model.signal.display(torch.stack(rows)), 2)
        write_new(Path(options.sheet), png_bytes(sheet))
    return items.status


COMMANDS: Commands = {
    "denoise": (
        _denoise,
        "take the noise out of images or recordings, or mistyped letters out of text",
        _denoise_arguments,
    )
}
