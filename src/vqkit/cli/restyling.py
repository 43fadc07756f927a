"""The verb restyle: the style of one image on another."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from . import arguments
from .printing import Commands, progress_bar, say, write_new

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..artifact.model import Model

# Those of apps.restyle, which `vqkit --help` must not import.
METHODS = ("adain", "wct", "codes", "patches")


def _restyle_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument(
        "--content", required=True, metavar="A.png", help="what is to be seen, at this size"
    )
    parser.add_argument(
        "--style",
        required=True,
        nargs="+",
        metavar="B.png",
        help="how, files or folders; are mixed",
    )
    parser.add_argument(
        "--before",
        nargs="+",
        metavar="FILE",
        help="for each style the same thing in the style of the content, with the same file name: "
        "the content changes as they did",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=arguments.NOT_NEGATIVE,
        metavar="W",
        help="of the styles (default: all alike)",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        help="moments of channels, covariance (default), codes, patches of latents; of several: "
        "FILE-METHOD.png",
    )
    parser.add_argument(
        "--alpha",
        type=arguments.SHARE,
        help="0 = the reconstruction, 1 = all style (default 0.7; with --before 0.9)",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE.png", help="a name that is taken gets a number"
    )
    parser.add_argument(
        "--sheet",
        metavar="FILE.png",
        help="also content, styles (not with --before) and results in a row",
    )


def _restyle(options: argparse.Namespace) -> int:
    from ..report.images import png_bytes
    from ..report.sheets import contact_sheet

    model = arguments.load_model(options.artifact, options.device)
    paths = list(model.signal.find(options.style))
    content = arguments.read_item(model, options.content)
    styles = [arguments.read_item(model, path) for path in paths]
    out = Path(options.out)
    with progress_bar("restyling") as progress:
        results = _results(options, model, content, styles, paths, progress)
    for method, result in results.items():
        target = out if len(results) == 1 else out.with_name(f"{out.stem}-{method}{out.suffix}")
        write_new(target, model.signal.write(result, model.artifact.data))
    if options.sheet:
        shown = [] if options.before else styles
        row = _of_one_size(model, [content, *shown, *results.values()])
        write_new(Path(options.sheet), png_bytes(contact_sheet(row, len(row))))
        say(f"from the left: {', '.join(['content', *['style'] * len(shown), *results])}")
    return 0


def _results(
    options: argparse.Namespace,
    model: Model,
    content: Tensor,
    styles: list[Tensor],
    paths: list[Path],
    progress: Callable[[float], None],
) -> dict[str, Tensor]:
    """The restyled content by method."""
    from ..apps.restyle import restyle, restyle_by_pairs

    alpha = {} if options.alpha is None else {"alpha": options.alpha}
    if options.before:
        if options.method or options.weights:
            raise VqkitError("--before is a method of its own: leave out --method and --weights")
        partners = _partners(model, options.before, paths)
        before = [arguments.read_item(model, path) for path in partners]
        changed = restyle_by_pairs(model, [content], before, styles, **alpha, progress=progress)
        return {"pairs": changed[0]}
    results = {}
    # A method that is named twice is used once.
    for method in dict.fromkeys(options.method or ["wct"]):
        results[method] = restyle(
            model,
            content,
            styles,
            method=method,
            weights=options.weights,
            **alpha,
            progress=progress,
        )
    return results


def _partners(model: Model, files: list[str], paths: list[Path]) -> list[Path]:
    """For each path the one of `files`, or in them, with the same name but for its suffix.

    One and one need no name.
    """
    found = {path.stem: path for path in model.signal.find(files)}
    if len(found) == len(paths) == 1:
        return list(found.values())
    for path in paths:
        if path.stem not in found:
            raise VqkitError(f"{path} has no partner of that name among the files of --before")
    return [found[path.stem] for path in paths]


def _of_one_size(model: Model, items: list[Tensor]) -> np.ndarray:
    """uint8 (N, H, W, C), the first as it is and the others whole but squeezed to its size."""
    import numpy as np
    import torch

    extent = items[0].shape[1:]
    fitted = []
    for values in items:
        if values.shape[1:] != extent:
            resized = torch.nn.functional.interpolate(
                values[None].float(), extent, mode="bilinear", antialias=True
            )
            values = resized[0].round().clamp(0, 255).to(items[0].dtype)
        fitted.append(model.signal.display(values[None])[0])
    return np.stack(fitted)


COMMANDS: Commands = {
    "restyle": (_restyle, "carry the style of one image to another", _restyle_arguments)
}
