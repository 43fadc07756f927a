"""The command pairs, and what generate, score and info do with a pair.

Heavy imports happen inside of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from ..printable import one_line
from . import arguments
from .printing import Commands, print_figures, progress_bar, say, warn, write_items, write_new

if TYPE_CHECKING:
    from ..artifact.pair import Pair
    from ..prior.sampling import Sampling


def _pairs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "first", metavar="FIRST", help="folder of a trained model, or hf://user/name"
    )
    parser.add_argument(
        "second",
        metavar="SECOND",
        help="one of another kind of signal, or the word bytes: text as it is",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="images or recordings with a .txt of the same name beside each, images with "
        "recordings of the same name, parquet with an image and a text column, or emoji",
    )
    arguments.add_settings(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the pair goes; must be new or empty"
    )
    arguments.add_run(parser, "by DATA, else pair")


def _pairs(options: argparse.Namespace) -> int:
    arguments.announce_loading()
    from ..pipelines.pairs import train_pairs
    from ..training.engine import leave_together

    pair = train_pairs(
        options.first,
        options.second,
        options.data,
        options.out,
        options.recipe,
        options.settings,
        **arguments.of_run(options),
    )
    leave_together()
    if pair is not None:
        print_figures(pair.prior.metrics)
        say(f"pair:   {options.out}\nreport: {Path(options.out) / 'report.html'}")
    return 0


def load_pair(folder: str | Path, device: str = "auto") -> Pair:
    """The pair of a folder; what could not be read of it is said."""
    from ..artifact.pair_store import load_pair

    pair = load_pair(folder, device)
    for problem in pair.problems:
        warn(f"vqkit: {one_line(problem)}")
    return pair


def is_pair(folder: str | Path) -> bool:
    """Whether a folder is one of a pair."""
    from ..artifact.pair_store import is_pair

    return is_pair(folder)


def licences(folder: Path) -> dict[Path, str | None]:
    """Of a pair, and of those of its halves that are models, by their folders."""
    from ..artifact.halves import CodedHalf
    from ..artifact.record import HALVES

    pair = load_pair(folder, "cpu")
    found = {folder: pair.licence}
    for half, inside in zip(pair.halves, HALVES, strict=True):
        if isinstance(half, CodedHalf):
            found[folder / inside] = half.model.artifact.licence
    return found


def info(folder: str | Path, device: str) -> None:
    """What a pair is and how good it was."""
    from ..artifact.halves import CodedHalf
    from ..config.loading import dump

    pair = load_pair(folder, device)
    say(f"{folder}: a pair, one prior over the codes of two halves")
    for name, half, layout in zip(
        ("first", "second"), pair.halves, pair.prior.layout.halves, strict=True
    ):
        of = f"bytes, at most {layout.length}"
        if isinstance(half, CodedHalf):
            of = f"model {half.name[:16]} in {Path(folder) / name}"
        say(f"{name:<8} {half.signal.item}s: {layout.length} codes, {of}")
    say("takes    vqkit generate --from, vqkit score; its halves take every other verb")
    print_figures(pair.prior.metrics)
    say(f"\n{dump(pair.prior.config)}", end="")


def generate(options: argparse.Namespace, sampling: Sampling, num: int) -> None:
    """Write, or print, what is made of --from. VqkitError for what is of neither half."""
    import torch

    pair = load_pair(options.artifact, options.device)
    if options.from_ is None:
        kinds = " or ".join(half.signal.an_item for half in pair.halves)
        raise VqkitError(f"{options.artifact} is a pair: say of what, with --from: {kinds}")
    half = pair.halves[1 - pair.half_of(options.from_)]
    if options.out is None and not half.is_text:
        raise VqkitError(f"{half.signal.an_item} is made of that: say where it goes, with --out")
    with progress_bar("drawing") as progress:
        _, values = pair.drawn(options.from_, num, sampling, options.seed, progress)
    if not half.is_text:
        write_items(options, half.signal, half.data, torch.stack(values))
    elif options.out is None:
        say("\n".join(half.array(values)))
    else:
        write_new(Path(options.out), "".join(f"{text}\n" for text in half.array(values)).encode())


def score(options: argparse.Namespace) -> int:
    """Print how well items of one half fit an item of the other, the best first.

    VqkitError unless there is one of a half, and one or more of the other.
    """
    pair = load_pair(options.artifact, options.device)
    sides: tuple[list[str], list[str]] = ([], [])
    for given in options.files:
        sides[pair.half_of(given)].append(given)
    if not all(sides) or min(map(len, sides)) > 1:
        kinds = " and ".join(half.signal.item for half in pair.halves)
        raise VqkitError(
            f"{options.artifact} is a pair of {kinds}: give one item of either, or one of a kind "
            f"and several of the other; these are {len(sides[0])} and {len(sides[1])}"
        )
    one = 0 if len(sides[0]) == 1 else 1
    found = pair.scores(*sides)
    rows = sorted(zip(sides[1 - one], found, strict=True), key=lambda row: -row[1].fit)
    say(f"{'rank':>4}  {'fit':>8}  {'alone':>8}  {'told':>8}  item")
    for rank, (item, bits) in enumerate(rows, 1):
        alone, told = bits.first, bits.first_given_second
        if one == 0:
            alone, told = bits.second, bits.second_given_first
        say(f"{rank:>4}  {bits.fit:>8.1f}  {alone:>8.1f}  {told:>8.1f}  {item}")
    say(f"bits: of an item alone, told {sides[one][0]}, and what the two save one another (fit)")
    return 0


COMMANDS: Commands = {
    "pairs": (
        _pairs,
        "train one prior over two models' codes: text to image and back, with a report",
        _pairs_arguments,
    ),
}
