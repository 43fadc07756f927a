"""Commands for priors: train-prior, and what one does with them. Heavy imports happen inside of them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VqkitError
from . import arguments
from .printing import Commands, plain, print_figures, progress_bar, write_new

if TYPE_CHECKING:
    import numpy as np

    from ..artifact import Artifact
    from ..model.prior import Drawing


# Up to the next comma: a name in double quotes, or one that does not begin with a quote, without blanks around it.
_CLASS_NAME = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>(?:[^",\s][^,]*?)?))\s*(?:,|\Z)', re.DOTALL)


def _train_prior_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser, "; the prior is added to it")
    arguments.add_data(parser, ", as a rule that of the model")
    arguments.add_settings(parser)
    arguments.add_run(parser, "prior")


def _train_prior(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..run_prior import FOLDER, train_prior

    artifact = arguments.run_training(train_prior, (options.artifact, options.data), options)
    if artifact is not None:
        shown = {key: value for key, value in artifact.wanted_prior().metrics.items() if key != "bits_quantiles"}
        print_figures(shown)
        print(f"prior:  {Path(options.artifact) / 'prior.safetensors'}")
        print(f"look:   {Path(options.artifact) / FOLDER / 'report.html'}")
    return 0


# ------------------------------------------------------------------------------------------------- options of drawing


def _drawing_arguments(parser: argparse.ArgumentParser, num: int) -> None:
    arguments.add_artifact(parser, " with a prior")
    parser.add_argument("--num", type=int, default=num, help=f"how many (default {num})")
    parser.add_argument(
        "--out", required=True, metavar="FILE.png", help="the sheet; a name that is taken gets a number"
    )
    parser.add_argument("--each", metavar="DIR2", help="write every picture as a file there too")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pictures (default 0)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 safer, above 1 wilder; 0 = likeliest")
    parser.add_argument("--top-k", type=int, default=0, help="only the likeliest k codes; 0 = all")
    parser.add_argument("--top-p", type=float, default=1.0, help="only the likeliest codes that sum up to this")
    parser.add_argument("--steps", type=int, help="draw in so many steps, scattered; default: code after code")


def _condition_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--class",
        dest="classes",
        metavar="NAME[,NAME]",
        help="classes, taken in turn; a name with a comma in double quotes: --class '\"red, small\",blue'",
    )
    parser.add_argument("--prompt", metavar="TEXT", action="append", help="caption; several are taken in turn")
    parser.add_argument("--cfg", type=float, default=1.0, help="guidance by class or prompt; 1 = none, 2 to 4 = strong")
    parser.add_argument("--cfg-interval", metavar="FROM,TO", default="0,1", help="share of the drawing it acts in")
    parser.add_argument("--cfg-ramp", choices=["constant", "linear"], default="constant", help="linear rises from 1")


def _drawing(options: argparse.Namespace) -> Drawing:
    """What the options ask for. VqkitError for values that make no sense."""
    from ..model.prior import Drawing, Sampling

    given, classes = vars(options), _classes(options)
    prompts = given.get("prompt") or []
    cfg, blend = given.get("cfg", 1.0), given.get("blend", 0)
    first, last = _pair(given.get("cfg_interval", "0,1"), "--cfg-interval")
    ramp = given.get("cfg_ramp", "constant")
    shaped = (first, last) != (0, 1) or ramp != "constant"
    checks = [
        (options.num >= 1, f"--num={options.num} must be at least 1"),
        (options.temperature >= 0, f"--temperature={options.temperature} must be at least 0"),
        (options.top_k >= 0, f"--top-k={options.top_k} must be at least 0"),
        (0 < options.top_p <= 1, f"--top-p={options.top_p} must lie in (0, 1]"),
        (options.seed >= 0, f"--seed={options.seed} must be at least 0"),
        (options.steps is None or options.steps >= 1, f"--steps={options.steps} must be at least 1"),
        (cfg == 1 or classes or prompts, f"--cfg={cfg:g} guides by a class or prompt: give --class or --prompt too"),
        (0 <= first < last <= 1, f"--cfg-interval={first:g},{last:g} must rise, from 0 at least to 1 at most"),
        (cfg != 1 or not shaped, "--cfg-interval and --cfg-ramp say when guidance acts: give --cfg, 2 to 4, too"),
        (blend >= 0, f"--blend={blend} must be at least 0"),
    ]
    for is_good, message in checks:
        if not is_good:
            raise VqkitError(message)
    guidance = cfg, (first, last), ramp
    sampling = Sampling(options.temperature, options.top_k, options.top_p, *guidance)
    return Drawing(classes, prompts, options.steps, options.seed, sampling)


def _classes(options: argparse.Namespace) -> list[str]:
    """Names of --class, separated by commas. In double quotes, which may be doubled inside, a name is taken as it is.

    VqkitError for a quote that is not closed.
    """
    given = vars(options).get("classes") or ""
    names, start = list[str](), 0
    while start < len(given):
        part = _CLASS_NAME.match(given, start)
        if part is None:
            raise VqkitError(f"--class={given}: a name in double quotes ends with one, as in '\"red, small\",blue'")
        names.append(part["plain"] if part["quoted"] is None else part["quoted"].replace('""', '"'))
        start = part.end()
    return [name for name in names if name]


def _pair(text: str, option: str) -> tuple[float, float]:
    try:
        first, last = map(float, text.split(","))
    except ValueError as error:
        raise VqkitError(f"{option}={text} must be two numbers such as 0.2,0.8") from error
    return first, last


def _artifact(options: argparse.Namespace) -> Artifact:
    from ..artifact import Artifact

    return Artifact.load(options.artifact)


# --------------------------------------------------------------------------------------------------------- the verbs


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    _drawing_arguments(parser, 64)
    _condition_arguments(parser)
    parser.add_argument("--gif", metavar="FILE.gif", help="the drawing as an animation")


def _generate(options: argparse.Namespace) -> int:
    from ..apps.generate import generate
    from ..report import animation

    drawing, artifact = _drawing(options), _artifact(options)
    with progress_bar("drawing") as progress:
        found = generate(artifact, options.num, drawing=drawing, frames=bool(options.gif), progress=progress)
    _write_sheet(options, found.images)
    if options.gif:
        write_new(Path(options.gif), animation(found.frames))
    bits = found.bits
    print(f"{'bits an image':<18} {plain(float(bits.mean()))} (between {bits.min():.0f} and {bits.max():.0f})")
    return 0


def _anew_arguments(parser: argparse.ArgumentParser, num: int) -> None:
    _drawing_arguments(parser, num)
    _condition_arguments(parser)
    parser.add_argument("image", metavar="IMAGE", help="picture of any size")


def _blend_argument(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument("--blend", type=int, default=2, help=f"pixels {where} in which old and new are mixed")


def _anew(options: argparse.Namespace, verb: str, make: Callable[..., np.ndarray]) -> int:
    """Write what `make(artifact, image, num=, drawing=, progress=)` makes of the picture IMAGE."""
    drawing, artifact = _drawing(options), _artifact(options)
    image = arguments.picture(artifact, options.image)
    with progress_bar(verb) as progress:
        images = make(artifact, image, num=options.num, drawing=drawing, progress=progress)
    _write_sheet(options, images)
    return 0


def _inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 1)
    parser.add_argument("--mask", required=True, metavar="MASK.png", help="of the same size; white is made anew")
    _blend_argument(parser, "around the mask")


def _inpaint(options: argparse.Namespace) -> int:
    from ..apps.inpaint import inpaint
    from ..data import load_picture

    def make(artifact: Artifact, image: np.ndarray, **how: Any) -> np.ndarray:
        mask = load_picture(options.mask, 1)[..., 0] >= 128
        return inpaint(artifact, image, mask, blend=options.blend, **how).images

    return _anew(options, "inpainting", make)


def _outpaint_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 1)
    parser.add_argument("--expand", type=int, required=True, metavar="PIXELS", help="added on every side")
    _blend_argument(parser, "at the old edge")


def _outpaint(options: argparse.Namespace) -> int:
    from ..apps.inpaint import outpaint

    def make(artifact: Artifact, image: np.ndarray, **how: Any) -> np.ndarray:
        return outpaint(artifact, image, options.expand, blend=options.blend, **how).images

    return _anew(options, "outpainting", make)


def _variations_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 8)
    parser.add_argument("--strength", type=float, default=0.3, help="share of the codes that are new, 0 to 1")


def _variations(options: argparse.Namespace) -> int:
    from ..apps.variations import variations

    return _anew(options, "drawing", partial(variations, strength=options.strength))


def _interpolate_arguments(parser: argparse.ArgumentParser) -> None:
    _drawing_arguments(parser, 8)
    parser.add_argument("first", metavar="A", help="picture")
    parser.add_argument("second", metavar="B", help="picture of the same size")
    parser.add_argument("--gif", metavar="FILE.gif", help="both ways, side by side, as an animation")


def _interpolate(options: argparse.Namespace) -> int:
    import numpy as np

    from ..apps.interpolate import interpolate
    from ..report import animation

    drawing, artifact = _drawing(options), _artifact(options)
    first, second = (arguments.picture(artifact, path) for path in (options.first, options.second))
    with progress_bar("interpolating") as progress:
        found = interpolate(artifact, first, second, num=options.num, drawing=drawing, progress=progress)
    rows = [found.latents] if found.morph is None else [found.latents, found.morph]
    _write_sheet(options, np.concatenate(rows), columns=options.num)
    if options.gif:
        write_new(Path(options.gif), animation([np.stack(frame) for frame in zip(*rows, strict=True)]))
    print("row 1: through latents" + ("; row 2: through codes, with the prior" if len(rows) == 2 else " (no prior)"))
    return 0


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser, " with a prior")
    arguments.add_files(parser)
    parser.add_argument("--class", dest="classes", metavar="NAME", help="what all of them show")
    parser.add_argument("--prompt", metavar="TEXT", action="append", help="caption of all of them")
    parser.add_argument(
        "--maps", metavar="DIR2", help="write a surprise map for each, red where its codes are unlikely"
    )


def _score(options: argparse.Namespace) -> int:
    from ..apps.score import score, surprise_map
    from ..data import picture_paths
    from ..report.pictures import png_bytes, to_image

    artifact, files = _artifact(options), list(picture_paths(options.files))
    found = list(score(artifact, files, classes=_classes(options), prompts=options.prompt or []))
    good = sorted((item for item in found if not item.error), key=lambda item: -item.bits)
    for item in found:
        if item.error:
            print(f"vqkit: skipped: {item.error}", file=sys.stderr)
    print(f"{'rank':>4}  {'bits':>8}  {'bits/dim':>8}  {'unusual':>7}  file")
    for rank, item in enumerate(good, 1):
        share = "-" if item.percentile is None else f"{item.percentile:.1%}"
        print(f"{rank:>4}  {item.bits:>8.1f}  {item.bits_per_dim:>8.4f}  {share:>7}  {item.source}")
        if options.maps:
            write_new(
                Path(options.maps) / f"{item.source.stem}.png", png_bytes(to_image(surprise_map(item))), quiet=True
            )
    if good and good[0].percentile is not None:
        number = "" if good[0].held_out is None else f"{good[0].held_out} "
        print(f"unusual: share of the {number}held-out images of training that cost fewer bits")
    return 1 if len(good) < len(found) else 0


# ---------------------------------------------------------------------------------------------------------- writing


def _write_sheet(options: argparse.Namespace, images: np.ndarray, columns: int | None = None) -> None:
    """The pictures on one sheet, a single one as it is, and, if wanted, each in a file."""
    from ..report import contact_sheet
    from ..report.pictures import png_bytes, to_image

    sheet = contact_sheet(images, columns) if len(images) > 1 else to_image(images[0])
    write_new(Path(options.out), png_bytes(sheet))
    if options.each:
        stem = Path(options.out).stem
        for index, image in enumerate(images):
            write_new(Path(options.each) / f"{stem}-{index:03}.png", png_bytes(to_image(image)), quiet=True)
        print(options.each)


COMMANDS: Commands = {
    "train-prior": (
        _train_prior,
        "train a prior over a model's codes, with a report at the end",
        _train_prior_arguments,
    ),
    "generate": (_generate, "make new pictures", _generate_arguments),
    "inpaint": (_inpaint, "make a part of a picture anew", _inpaint_arguments),
    "outpaint": (_outpaint, "make a picture wider on every side", _outpaint_arguments),
    "variations": (_variations, "make pictures like a given one", _variations_arguments),
    "interpolate": (_interpolate, "go from one picture to another", _interpolate_arguments),
    "score": (_score, "how likely pictures are: bits, anomaly rank, surprise maps", _score_arguments),
}
