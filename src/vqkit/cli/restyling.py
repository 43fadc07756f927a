"""The verb restyle: the style of one picture on another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .printing import Commands, write_new

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

METHODS = ("adain", "wct", "codes", "patches")
"""those of apps.restyle, which `vqkit --help` must not import"""


def _restyle_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument("--content", required=True, metavar="A.png", help="what is to be seen, at this size")
    parser.add_argument("--style", required=True, nargs="+", metavar="B.png", help="how; several are mixed")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="of the styles (default: all alike)")
    parser.add_argument(
        "--method",
        nargs="+",
        default=["wct"],
        choices=METHODS,
        help="moments of channels, covariance (default), codes, patches of latents; of several: FILE-METHOD.png",
    )
    parser.add_argument("--alpha", type=float, default=0.7, help="0 = the reconstruction, 1 = all style (default 0.7)")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="a name that is taken gets a number")
    parser.add_argument("--sheet", metavar="FILE.png", help="also content, styles and results in a row")


def _restyle(options: argparse.Namespace) -> int:
    from ..apps.restyle import restyle
    from ..artifact import Artifact
    from ..report import contact_sheet
    from ..report.pictures import png_bytes, to_image

    artifact = Artifact.load(options.artifact)
    content, *styles = (arguments.picture(artifact, path) for path in (options.content, *options.style))
    out, methods = Path(options.out), list(dict.fromkeys(options.method))
    results = [
        restyle(artifact, content, styles, method=method, alpha=options.alpha, weights=options.weights)
        for method in methods
    ]
    for method, result in zip(methods, results, strict=True):
        target = out if len(methods) == 1 else out.with_name(f"{out.stem}-{method}{out.suffix}")
        write_new(target, png_bytes(to_image(result)))
    if options.sheet:
        row = _of_one_size([to_image(pixels) for pixels in (content, *styles, *results)])
        write_new(Path(options.sheet), png_bytes(contact_sheet(row, len(row))))
        print(f"from the left: content, {'style' if len(styles) == 1 else 'styles'}, {', '.join(methods)}")
    return 0


def _of_one_size(pictures: Sequence[Image.Image]) -> np.ndarray:
    """uint8 (N, H, W, C), the first as it is and the others whole but squeezed to its size."""
    import numpy as np

    from ..data.images import fit_picture

    size = pictures[0].height, pictures[0].width
    fitted = [np.asarray(fit_picture(picture, size, "resize")) for picture in pictures]
    return np.stack([pixels[..., None] if pixels.ndim == 2 else pixels for pixels in fitted])


COMMANDS: Commands = {"restyle": (_restyle, "carry the style of one picture to another", _restyle_arguments)}
