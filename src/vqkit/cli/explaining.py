"""Verbs about what codes mean: explain, prune."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

from . import arguments
from .printing import Commands, print_figures, progress_bar, say


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_data(parser, ", as a rule that of the model")
    parser.add_argument(
        "--out", required=True, metavar="FILE.html", help="the page; nothing is overwritten"
    )
    parser.add_argument(
        "--label-column", metavar="NAME", help="group or caption (default: group where DATA has it)"
    )
    parser.add_argument(
        "--num",
        type=arguments.COUNT,
        default=4096,
        help="training items to look at (default: 4096)",
    )
    parser.add_argument(
        "--swap",
        nargs=2,
        type=arguments.WHOLE,
        action="append",
        default=[],
        metavar=("K", "J"),
        help="also show code K as code J",
    )


def _explain(options: argparse.Namespace) -> int:
    from ..apps.explain import explain, open_data
    from ..config.loading import dump
    from ..files import free_name
    from ..report.explain_page import write_explanation
    from ..report.figures import check_installed

    # Before the work, not behind it.
    check_installed()
    model = arguments.load_model(options.artifact, options.device)
    data = open_data(model, options.data)
    pairs = [(code, other) for code, other in options.swap]
    with progress_bar("explaining") as progress:
        found = explain(
            model,
            data,
            label_column=options.label_column,
            num=options.num,
            swap=pairs,
            progress=progress,
        )
    target = free_name(Path(options.out))
    write_explanation(
        dataclasses.asdict(found),
        target,
        title=f"What the codes of {Path(options.artifact).resolve().name} mean",
        command=_command(options),
        settings=dump(model.config),
    )
    print_figures(found.metrics)
    say(f"page: {target}")
    return 0


def _command(options: argparse.Namespace) -> str:
    words = [
        "vqkit",
        "explain",
        options.artifact,
        options.data,
        "--out",
        options.out,
        "--num",
        str(options.num),
    ]
    words += ["--label-column", options.label_column] if options.label_column else []
    words += [word for pair in options.swap for word in ("--swap", *map(str, pair))]
    return shlex.join(words)


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser, "; it stays as it is")
    parser.add_argument(
        "--data", metavar="DATA", help="its training data (default: where they were)"
    )
    parser.add_argument(
        "--out", metavar="DIR2", help="the new model; must be new or empty (default: DIR-pruned)"
    )
    parser.add_argument(
        "--tolerance",
        type=arguments.Number(int, 0, 255),
        default=1,
        help="levels of 255 by which a pixel may change (default: 1)",
    )


def _prune(options: argparse.Namespace) -> int:
    from ..apps.evaluate import open_for
    from ..apps.prune import prune
    from ..artifact.store import save_artifact
    from ..errors import VqkitError
    from ..files import write_folder

    model = arguments.load_model(options.artifact, options.device)
    target = _new_folder(options)
    source = options.data or model.data["name"]
    try:
        data = open_for(model, source, "train")
    except VqkitError as error:
        raise VqkitError(f"{error}; say where the training data are with --data DATA") from error
    with progress_bar("pruning") as progress:
        found = prune(model, data, tolerance=options.tolerance, progress=progress)
    try:
        write_folder(target, lambda folder: save_artifact(found.artifact, folder))
    except OSError as error:
        raise VqkitError(
            f"cannot write the artifact to {target}: {error.strerror or error}"
        ) from error
    before = model.network.quantizer.codebook_size
    say(
        f"{before} codes -> {len(found.kept)}: {found.dead} dead, {found.merged} merged into near "
        "duplicates"
    )
    for name, seen in (
        ("training items, which decided", found.proof),
        ("test items, which did not", found.held_out),
    ):
        if seen:
            say(
                f"{seen.images} {name}: the largest change of a value is {seen.largest} of 255 "
                f"levels, {seen.changed:.3%} of the codes changed, {seen.beyond} items are beyond "
                "the tolerance"
            )
    commands = {"coder": "train-coder", "prior": "train-prior"}
    for name in found.dropped:
        say(
            f"its {name} knows the old codes and was left out; run: vqkit {commands[name]} "
            f"{target} {source}"
        )
    say(f"artifact: {target}")
    return 0


def _new_folder(options: argparse.Namespace) -> Path:
    from ..artifact.hub import own_folder
    from ..errors import VqkitError
    from ..files import free_name

    if options.out is None:
        own_folder(options.artifact)
        folder = Path(options.artifact).resolve()
        return free_name(folder.with_name(f"{folder.name}-pruned"))
    target = Path(options.out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise VqkitError(f"{target} is not empty; choose another --out")
    return target


COMMANDS: Commands = {
    "explain": (_explain, "a page that shows what the codes of a model mean", _explain_arguments),
    "prune": (
        _prune,
        "take dead and duplicate codes out of a model, and measure that reconstructions stay",
        _prune_arguments,
    ),
}
