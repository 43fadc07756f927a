"""The verb restyle: the style of one picture on another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from . import arguments
from .printing import Commands, write_new

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..artifact import Artifact

METHODS = ("adain", "wct", "codes", "patches")
"""those of apps.restyle, which `vqkit --help` must not import"""


def _restyle_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument("--content", required=True, metavar="A.png", help="what is to be seen, at this size")
    parser.add_argument("--style", required=True, nargs="+", metavar="B.png", help="how, files or folders; are mixed")
    parser.add_argument(
        "--before",
        nargs="+",
        metavar="FILE",
        help="for each style the same thing in the style of the content, with the same file name: the content changes "
        "as they did",
    )
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="of the styles (default: all alike)")
    parser.add_argument(
        "--method",
        nargs="+",
        choices=METHODS,
        help="moments of channels, covariance (default), codes, patches of latents; of several: FILE-METHOD.png",
    )
    parser.add_argument(
        "--alpha", type=float, help="0 = the reconstruction, 1 = all style (default 0.7; with --before 0.9)"
    )
    parser.add_argument("--out", required=True, metavar="FILE.png", help="a name that is taken gets a number")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="also content, styles (not with --before) and results in a row"
    )


def _restyle(options: argparse.Namespace) -> int:
    from ..artifact import Artifact
    from ..data import picture_paths
    from ..report import contact_sheet
    from ..report.pictures import png_bytes, to_image

    artifact = Artifact.load(options.artifact)
    paths = list(picture_paths(options.style))
    content, *styles = (arguments.picture(artifact, str(path)) for path in (options.content, *paths))
    out, results = Path(options.out), _results(options, artifact, content, styles, paths)
    for method, result in results.items():
        target = out if len(results) == 1 else out.with_name(f"{out.stem}-{method}{out.suffix}")
        write_new(target, png_bytes(to_image(result)))
    if options.sheet:
        shown = [] if options.before else styles
        row = _of_one_size([to_image(pixels) for pixels in (content, *shown, *results.values())])
        write_new(Path(options.sheet), png_bytes(contact_sheet(row, len(row))))
        print(f"from the left: {', '.join(['content', *['style'] * len(shown), *results])}")
    return 0


def _results(
    options: argparse.Namespace, artifact: Artifact, content: np.ndarray, styles: list[np.ndarray], paths: list[Path]
) -> dict[str, np.ndarray]:
    """The restyled content by method."""
    from ..apps.restyle import restyle, restyle_by_pairs

    alpha = {} if options.alpha is None else {"alpha": options.alpha}
    if not options.before:
        methods = dict.fromkeys(options.method or ["wct"])
        return {
            way: restyle(artifact, content, styles, method=way, weights=options.weights, **alpha) for way in methods
        }
    if options.method or options.weights:
        raise VqkitError("--before is a method of its own: leave out --method and --weights")
    before = [arguments.picture(artifact, str(path)) for path in _partners(options.before, paths)]
    return {"pairs": restyle_by_pairs(artifact, [content], before, styles, **alpha)[0]}


def _partners(files: list[str], paths: list[Path]) -> list[Path]:
    """For each path the one of `files`, or in them, with the same name but for its suffix; one and one need no name."""
    from ..data import picture_paths

    found = {path.stem: path for path in picture_paths(files)}
    if len(found) == len(paths) == 1:
        return list(found.values())
    for path in paths:
        if path.stem not in found:
            raise VqkitError(f"{path} has no partner of that name among the pictures of --before")
    return [found[path.stem] for path in paths]


def _of_one_size(pictures: Sequence[Image.Image]) -> np.ndarray:
    """uint8 (N, H, W, C), the first as it is and the others whole but squeezed to its size."""
    import numpy as np

    from ..data.images import fit_picture

    size = pictures[0].height, pictures[0].width
    fitted = [np.asarray(fit_picture(picture, size, "resize")) for picture in pictures]
    return np.stack([pixels[..., None] if pixels.ndim == 2 else pixels for pixels in fitted])


COMMANDS: Commands = {"restyle": (_restyle, "carry the style of one picture to another", _restyle_arguments)}
