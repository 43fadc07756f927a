"""The verb denoise: pictures without their noise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import arguments
from .printing import Commands, progress_bar, write_new


def _denoise_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="pictures, or folders of them, of any size")
    parser.add_argument("--out", required=True, metavar="D", help="folder; names that are taken get a number")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--strength", type=float, metavar="S", help="0 = all that the codes can say, 1 = smoothest")
    how.add_argument("--levels", type=int, metavar="K", help="stages of a residual model; fewer are smoother")
    how.add_argument("--continuous", action="store_true", help="decode the latents without quantising them")
    how.add_argument(
        "--sigma",
        default="auto",
        metavar="auto|N",
        help="deviation of the noise in levels of 0 to 255; auto (default): levels by what predicts hidden pixels best",
    )
    parser.add_argument("--sheet", metavar="FILE.png", help="also every picture beside its result, the first 8 of them")


def _denoise(options: argparse.Namespace) -> int:
    import numpy as np

    from ..apps.denoise import denoise, num_levels
    from ..artifact import Artifact
    from ..data import picture_paths
    from ..errors import VqkitError
    from ..report import contact_sheet
    from ..report.pictures import png_bytes, to_image

    sigma = _sigma(options.sigma)
    artifact = Artifact.load(options.artifact)
    if not artifact.config.data.noise.sigma:
        print("this model never saw noise in training, and may keep it: --recipe denoise trains one", file=sys.stderr)
    sources, failed, rows = list(picture_paths(options.files)), 0, list[np.ndarray]()
    if not sources:
        raise VqkitError(f"no pictures in {', '.join(options.files)}")
    how = {"strength": options.strength, "levels": options.levels, "continuous": options.continuous, "sigma": sigma}
    for source in sources:
        try:
            image = arguments.picture(artifact, str(source))
        except VqkitError as error:
            print(f"skipped: {error}", file=sys.stderr)
            failed += 1
            continue
        with progress_bar(source.name) as progress:
            found = denoise(artifact, image, **how, progress=progress)
        write_new(Path(options.out) / f"{source.stem}.png", png_bytes(to_image(found.pixels)))
        used = "not quantised" if found.levels is None else f"{found.levels} of {num_levels(artifact)} levels"
        print(f"  took out noise of deviation {found.sigma:.1f}; {used}")
        if len(rows) < 16 and (not rows or image.shape == rows[0].shape):
            rows += [image, found.pixels]
    if options.sheet and rows:
        write_new(Path(options.sheet), png_bytes(contact_sheet(np.stack(rows), 2)))
    return 1 if failed else 0


def _sigma(text: str) -> float | None:
    from ..errors import VqkitError

    try:
        return None if text == "auto" else float(text)
    except ValueError as error:
        raise VqkitError(f"--sigma {text} is neither auto nor a number") from error


COMMANDS: Commands = {"denoise": (_denoise, "take the noise out of pictures", _denoise_arguments)}
