"""Commands for priors: train-prior, and what one does with them.

Heavy imports happen inside of them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VqkitError
from . import arguments, pairing
from .printing import (
    Commands,
    plain,
    print_figures,
    progress_bar,
    say,
    warn,
    write_items,
    write_new,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..artifact.model import Model
    from ..prior.prior import Drawing
    from ..prior.sampling import Sampling

# Up to the next comma: a name in double quotes, or one that does not begin with a quote, without
# blanks around it.
_CLASS_NAME = re.compile(
    r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>(?:[^",\s][^,]*?)?))\s*(?:,|\Z)', re.DOTALL
)


def _train_prior_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser, "; the prior is added to it")
    arguments.add_data(parser, ", as a rule that of the model")
    arguments.add_settings(parser)
    arguments.add_run(parser, "by DATA, else prior")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="where there is a prior, train another, which takes its place once it is complete",
    )


def _train_prior(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..pipelines.prior import FOLDER, train_prior
    from ..training.engine import leave_together

    model = train_prior(
        options.artifact,
        options.data,
        options.recipe,
        options.settings,
        replace_prior=options.replace,
        **arguments.of_run(options),
    )
    leave_together()
    if model is not None:
        metrics = model.wanted_prior().metrics
        print_figures({key: value for key, value in metrics.items() if key != "bits_quantiles"})
        say(f"prior:  {Path(options.artifact) / 'prior.safetensors'}")
        say(f"look:   {Path(options.artifact) / FOLDER / 'report.html'}")
    return 0


# ------------------------------------------------------------------------------- options of drawing


def _drawing_arguments(
    parser: argparse.ArgumentParser, num: int, *, must_write: bool = True
) -> None:
    arguments.add_artifact(parser, " with a prior")
    parser.add_argument(
        "--num", type=arguments.COUNT, default=num, help=f"how many (default {num})"
    )
    parser.add_argument(
        "--out",
        required=must_write,
        metavar="FILE.png",
        help="the sheet; a name that is taken gets a number",
    )
    parser.add_argument("--each", metavar="DIR2", help="write every item as a file there too")
    parser.add_argument(
        "--seed", type=arguments.SEED, default=0, help="same seed, same items (default 0)"
    )
    parser.add_argument(
        "--temperature",
        type=arguments.NOT_NEGATIVE,
        default=1.0,
        help="below 1 safer, above 1 wilder; 0 = likeliest",
    )
    parser.add_argument(
        "--top-k", type=arguments.WHOLE, default=0, help="only the likeliest k codes; 0 = all"
    )
    parser.add_argument(
        "--top-p",
        type=arguments.Number(float, 0, 1, above=True),
        default=1.0,
        help="only the likeliest codes that sum up to this",
    )
    parser.add_argument(
        "--steps",
        type=arguments.COUNT,
        help="draw in so many steps, scattered; default: code after code",
    )


def _condition_arguments(parser: argparse.ArgumentParser) -> None:
    _class_argument(parser, "classes, taken in turn")
    parser.add_argument(
        "--prompt", metavar="TEXT", action="append", help="caption; several are taken in turn"
    )
    parser.add_argument(
        "--cfg",
        type=arguments.NOT_NEGATIVE,
        default=1.0,
        help="guidance by class or prompt; 1 = none, 2 to 4 = strong",
    )
    parser.add_argument(
        "--cfg-interval",
        type=_interval,
        metavar="FROM,TO",
        default=(0.0, 1.0),
        help="share of the drawing it acts in",
    )
    parser.add_argument(
        "--cfg-ramp", choices=["constant", "linear"], default="constant", help="linear rises from 1"
    )


def _class_argument(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--class",
        dest="classes",
        metavar="NAME[,NAME]",
        action="append",
        default=[],
        help=f"{text}; a name with a comma in it stands in double quotes",
    )


def _interval(text: str) -> tuple[float, float]:
    """Two shares, the second above the first."""
    try:
        first, last = (arguments.SHARE(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} must be two numbers from 0 to 1, such as 0.2,0.8"
        ) from error
    if not first < last:
        raise argparse.ArgumentTypeError(f"{text} must rise, from 0 at least to 1 at most")
    return first, last


def _drawing(options: argparse.Namespace) -> Drawing:
    """What the options ask for. VqkitError for values that make no sense together."""
    from ..prior.prior import Drawing
    from ..prior.sampling import Sampling

    given = vars(options)
    classes = _classes(options)
    prompts = given.get("prompt") or []
    cfg = given.get("cfg", 1.0)
    interval = given.get("cfg_interval", (0.0, 1.0))
    ramp = given.get("cfg_ramp", "constant")
    if cfg != 1 and not classes and not prompts:
        raise VqkitError(f"--cfg={cfg:g} guides by a class or prompt: give --class or --prompt too")
    if cfg == 1 and (interval != (0.0, 1.0) or ramp != "constant"):
        raise VqkitError(
            "--cfg-interval and --cfg-ramp say when guidance acts: give --cfg, 2 to 4, too"
        )
    sampling = Sampling(options.temperature, options.top_k, options.top_p, cfg, interval, ramp)
    return Drawing(classes, prompts, options.steps, options.seed, sampling)


def _classes(options: argparse.Namespace) -> list[str]:
    """Names of classes: several options, or several names in one, with commas between them.

    In double quotes, which may be doubled inside, a name is taken as it is. VqkitError for a quote
    that is not closed.
    """
    names: list[str] = []
    for given in vars(options).get("classes") or []:
        names += _class_names(given)
    return names


def _class_names(given: str) -> Iterator[str]:
    start = 0
    while start < len(given):
        part = _CLASS_NAME.match(given, start)
        if part is None:
            raise VqkitError(
                f"--class={given}: a name in double quotes ends with one, as in '\"red, "
                "small\",blue'"
            )
        name = part["plain"] if part["quoted"] is None else part["quoted"].replace('""', '"')
        if name:
            yield name
        start = part.end()


def _repeat_warning(model: Model) -> None:
    """What speaks against the prior, by the figures of its training; behind what it made."""
    if model.prior is None:
        return
    warning = model.prior.metrics.get("warning")
    if warning:
        warn(f"vqkit: this prior was not healthy when it was trained: {warning}")


# ---------------------------------------------------------------------------------------- the verbs


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    _drawing_arguments(parser, 64, must_write=False)
    _condition_arguments(parser)
    parser.add_argument("--gif", metavar="FILE.gif", help="the drawing as an animation")
    parser.add_argument(
        "--from",
        dest="from_",
        metavar="FILE|TEXT",
        help="of a pair: what items of its other half are made of; text is printed without --out",
    )


def _generate(options: argparse.Namespace) -> int:
    from ..apps.generate import generate
    from ..report.sheets import animation

    if pairing.is_pair(options.artifact):
        pairing.generate(options, _pair_sampling(options), options.num)
        return 0
    if options.from_ is not None:
        raise VqkitError(f"--from is of pairs, and {options.artifact} is none: see vqkit pairs")
    if options.out is None:
        raise VqkitError("say where the items go, with --out")
    drawing = _drawing(options)
    model = arguments.load_model(options.artifact, options.device)
    with progress_bar("drawing") as progress:
        found = generate(
            model, options.num, drawing=drawing, frames=bool(options.gif), progress=progress
        )
    write_items(options, model.signal, model.data, found.values)
    if options.gif:
        shown = [model.signal.display(frame) for frame in found.frames]
        write_new(Path(options.gif), animation(shown))
    bits = found.bits
    say(
        f"{'bits an item':<18} {plain(float(bits.mean()))} (between {bits.min():.0f} and "
        f"{bits.max():.0f})"
    )
    _repeat_warning(model)
    return 0


def _pair_sampling(options: argparse.Namespace) -> Sampling:
    """How the codes of a pair are drawn. VqkitError for options that do nothing there."""
    from ..prior.sampling import Sampling

    idle = {
        "--class": options.classes,
        "--prompt": options.prompt,
        "--steps": options.steps,
        "--gif": options.gif,
    }
    for name, value in idle.items():
        if value:
            raise VqkitError(f"{name} is not for pairs: --from says what items are made of")
    return Sampling(
        options.temperature,
        options.top_k,
        options.top_p,
        options.cfg,
        options.cfg_interval,
        options.cfg_ramp,
    )


def _anew_arguments(parser: argparse.ArgumentParser, num: int) -> None:
    _drawing_arguments(parser, num)
    _condition_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="of any size")


def _blend_argument(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument(
        "--blend",
        type=arguments.WHOLE,
        help=f"positions {where} in which old and new are mixed (default: 2, 10 ms of sound)",
    )


def _anew(options: argparse.Namespace, verb: str, make: Callable[..., Tensor]) -> int:
    """Write what `make(model, values, num=, drawing=, progress=)` makes of FILE."""
    drawing = _drawing(options)
    model = arguments.load_model(options.artifact, options.device)
    values = arguments.read_item(model, options.file)
    with progress_bar(verb) as progress:
        made = make(model, values, num=options.num, drawing=drawing, progress=progress)
    write_items(options, model.signal, model.data, made)
    _repeat_warning(model)
    return 0


def _inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 1)
    parser.add_argument(
        "--mask",
        required=True,
        metavar="MASK",
        help="an image of the same size, white where it is made anew; of recordings gaps in "
        "seconds, such as 0.8-1.2; of text spans of bytes, such as 120-180",
    )
    _blend_argument(parser, "around the mask")


def _inpaint(options: argparse.Namespace) -> int:
    from ..apps.inpaint import inpaint

    def make(model: Model, values: Tensor, **how: Any) -> Tensor:
        extent = tuple(values.shape[1:])
        mask = model.signal.read_mask(options.mask, extent, model.artifact.data)
        return inpaint(model, values, mask, blend=options.blend, **how).values

    return _anew(options, "inpainting", make)


def _outpaint_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 1)
    parser.add_argument(
        "--expand", type=arguments.COUNT, required=True, metavar="N", help="added on every side"
    )
    _blend_argument(parser, "at the old edge")


def _outpaint(options: argparse.Namespace) -> int:
    from ..apps.inpaint import outpaint

    def make(model: Model, values: Tensor, **how: Any) -> Tensor:
        return outpaint(model, values, options.expand, blend=options.blend, **how).values

    return _anew(options, "outpainting", make)


def _variations_arguments(parser: argparse.ArgumentParser) -> None:
    _anew_arguments(parser, 8)
    parser.add_argument(
        "--strength",
        type=arguments.SHARE,
        default=0.3,
        help="share of the codes that are new, 0 to 1",
    )


def _variations(options: argparse.Namespace) -> int:
    from ..apps.variations import variations

    return _anew(options, "drawing", partial(variations, strength=options.strength))


def _interpolate_arguments(parser: argparse.ArgumentParser) -> None:
    _drawing_arguments(parser, 8)
    parser.add_argument("first", metavar="A", help="file")
    parser.add_argument("second", metavar="B", help="file of the same size")
    parser.add_argument(
        "--gif", metavar="FILE.gif", help="both ways, side by side, as an animation"
    )


def _interpolate(options: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from ..apps.interpolate import interpolate
    from ..report.sheets import animation

    drawing = _drawing(options)
    model = arguments.load_model(options.artifact, options.device)
    first = arguments.read_item(model, options.first)
    second = arguments.read_item(model, options.second)
    with progress_bar("interpolating") as progress:
        found = interpolate(
            model, first, second, num=options.num, drawing=drawing, progress=progress
        )
    rows = [found.latents]
    told = "row 1: through latents (no prior)"
    if found.morph is not None:
        rows.append(found.morph)
        told = "row 1: through latents; row 2: through codes, with the prior"
    write_items(options, model.signal, model.data, torch.cat(rows), columns=options.num)
    if options.gif:
        shown = np.stack([model.signal.display(row) for row in rows], 1)
        write_new(Path(options.gif), animation(list(shown)))
    say(told)
    return 0


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser, " with a prior, or of a pair")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILES",
        help="files, or folders of them; of a pair an item of one half and items of the other, "
        "text as it is",
    )
    _class_argument(parser, "what all of them show")
    parser.add_argument("--prompt", metavar="TEXT", action="append", help="caption of all of them")
    parser.add_argument(
        "--maps",
        metavar="DIR2",
        help="write a surprise map for each, red where its codes are unlikely",
    )


def _score(options: argparse.Namespace) -> int:
    from ..apps.score import score, surprise_map
    from ..report.images import png_bytes, to_image

    if pairing.is_pair(options.artifact):
        return pairing.score(options)
    model = arguments.load_model(options.artifact, options.device)

    def read(path: Path) -> Tensor:
        values = arguments.read_item(model, path)
        return model.signal.fitted(values, model.data, model.config.data, model.shape)

    items = arguments.Items(model, options.files, read)
    with progress_bar("scoring") as progress:
        found = []
        for one in score(model, items, classes=_classes(options), prompts=options.prompt or []):
            found.append(one)
            progress(len(found) / len(items.paths))
    found.sort(key=lambda one: -one.bits)
    say(f"{'rank':>4}  {'bits':>8}  {'bits/dim':>8}  {'unusual':>7}  file")
    for rank, one in enumerate(found, 1):
        share = "-" if one.percentile is None else f"{one.percentile:.1%}"
        say(f"{rank:>4}  {one.bits:>8.1f}  {one.bits_per_dim:>8.4f}  {share:>7}  {one.key}")
        if options.maps:
            content = png_bytes(to_image(surprise_map(model, one)))
            write_new(Path(options.maps) / f"{one.key.stem}.png", content, quiet=True)
    if found and found[0].percentile is not None:
        number = "" if found[0].held_out is None else f"{found[0].held_out} "
        say(f"unusual: share of the {number}held-out items of training that cost fewer bits")
    _repeat_warning(model)
    return items.status


COMMANDS: Commands = {
    "train-prior": (
        _train_prior,
        "train a prior over a model's codes, with a report at the end",
        _train_prior_arguments,
    ),
    "generate": (_generate, "make new items", _generate_arguments),
    "inpaint": (_inpaint, "make a part of an image anew", _inpaint_arguments),
    "outpaint": (_outpaint, "make an image wider on every side", _outpaint_arguments),
    "variations": (_variations, "make images like a given one", _variations_arguments),
    "interpolate": (_interpolate, "go from one image to another", _interpolate_arguments),
    "score": (_score, "how likely images are: bits, anomaly rank, surprise maps", _score_arguments),
}
