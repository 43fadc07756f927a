"""Verbs about compressed files: train-coder, compress, decompress, inspect, verify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .printing import Commands, progress_bar

if TYPE_CHECKING:
    from ..artifact import Artifact


def _train_coder_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_data(parser, ", as a rule that of the model")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: coder.steps of the artifact)")
    parser.add_argument("--force", action="store_true", help="a new coder; the old one is kept for its files")


def _train_coder(options: argparse.Namespace) -> int:
    from ..run import train_coder
    from ..training.progress import display_for_terminal

    how = {"steps": options.steps, "force": options.force}
    fitted = train_coder(options.artifact, options.data, **how, display=display_for_terminal())
    if fitted.coder:
        print(
            f"{fitted.metrics['coder_bits_per_code']:.3f} bits a code on the validation split; files of model ", end=""
        )
        print(fitted.coding_id.hex())
    if fitted.lossless:
        bits, name = fitted.metrics["lossless_bits_per_value"], fitted.codec(lossless=True).model_id.hex()
        print(f"{bits:.3f} bits a pixel and channel there; lossless files of model {name}")
    return 0


def _compress_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_files(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out-dir", metavar="D", help="where the .vq files go, one for each picture")
    where.add_argument("--out", metavar="X.vq", help="the file of a single picture, or with --bundle of all")
    parser.add_argument("--bundle", action="store_true", help="all pictures in one file: fewer bytes for each")
    parser.add_argument("--lossless", action="store_true", help="keep every pixel: larger files, exact pictures")
    parser.add_argument(
        "--rate", metavar="NAME", help="smaller files, coarser pictures: lowest, low, medium, high or full"
    )
    _force_argument(parser)


def _force_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def _compress(options: argparse.Namespace) -> int:
    from ..apps.compress import compress
    from ..artifact import Artifact
    from ..errors import VqkitError

    if options.bundle and not options.out:
        raise VqkitError("--bundle writes one file; name it with --out X.vq")
    artifact = Artifact.load(options.artifact)
    target, folder = options.out and Path(options.out), options.out_dir and Path(options.out_dir)
    how = {"bundle": options.bundle, "lossless": options.lossless, "rate": options.rate, "force": options.force}
    failed = pixels = size = 0
    with progress_bar("compressing"):
        for row in compress(artifact, options.files, folder=folder, target=target, **how):
            pixels, size, failed = pixels + row.pixels, size + row.size, failed + bool(row.error)
            quality = "exact" if options.lossless else f"{row.psnr:.2f} dB"
            if row.error:
                print(f"{row.source}: {row.error}", file=sys.stderr)
            elif options.bundle:
                print(f"{row.source}: {quality}")
            else:
                bpp = 8 * row.size / row.pixels
                print(f"{row.source} -> {row.target}: {row.size} bytes, {bpp:.3f} bits per pixel, {quality}")
    if pixels:
        size = Path(options.out).stat().st_size if options.bundle else size
        print(f"{size} bytes, {8 * size / pixels:.3f} bits per pixel in all")
    return 1 if failed else 0


def _sources_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILES.vq", help="compressed files or bundles")
    parser.add_argument("--model", metavar="DIR", help="folder of the model (default: looked for below this folder)")


def _decompress_arguments(parser: argparse.ArgumentParser) -> None:
    _sources_arguments(parser)
    parser.add_argument("--out-dir", required=True, metavar="D", help="where the PNG files go")
    parser.add_argument("--item", metavar="N", help="one image of a bundle alone: its number from 0, or stored name")
    _force_argument(parser)


def _decompress(options: argparse.Namespace) -> int:
    from ..apps.compress import decompress
    from ..errors import VqkitError

    failed = 0
    models: dict[Path, Artifact] = {}
    with progress_bar("decompressing"):
        for source in map(Path, options.files):
            try:
                model, folder = _model(options, source, models), Path(options.out_dir)
                for target, lost in decompress(model, source, folder, item=options.item, force=options.force):
                    print(f"{source} -> {target}" + (f": {lost}" if lost else ""))
                    failed += bool(lost)
            except VqkitError as error:
                failed += 1
                print(f"{source}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _model(options: argparse.Namespace, source: Path, models: dict[Path, Artifact]) -> Artifact:
    """The model of a file; each is loaded once."""
    from ..apps.compress import find_model
    from ..artifact import Artifact

    folder = Path(options.model) if options.model else find_model(source)
    if folder not in models:
        models[folder] = Artifact.load(folder)
    return models[folder]


def _verify(options: argparse.Namespace) -> int:
    from ..apps.compress import Verdict, verify
    from ..errors import VqkitError

    failed = 0
    models: dict[Path, Artifact] = {}
    with progress_bar("verifying"):
        for source in map(Path, options.files):
            try:
                found = verify(_model(options, source, models), source)
            except VqkitError as error:
                found = Verdict.failed(source, error)
            failed += bool(found.error) or found.truncated
            what = "BAD" if found.checked else "not checked"
            state = f"{what}, {found.error}" if found.error else "cut off" if found.truncated else "ok"
            print(f"{source}: {state} ({found.images} {'image' if found.images == 1 else 'images'})")
    return 1 if failed else 0


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="X.vq", help="compressed file or bundle; the model is not needed")


def _inspect(options: argparse.Namespace) -> int:
    from ..coding import BundleHeader, describe
    from ..errors import VqkitError

    try:
        with open(options.file, "rb") as stream:
            found = describe(stream)
    except OSError as error:
        raise VqkitError(f"cannot read {options.file}: {error.strerror}") from error
    header = found.header
    model_id = header.kind.model_id
    rows: list[tuple[str, object]] = [
        ("profile", found.profile),
        ("model", model_id.hex() if model_id else "not said"),
        ("coder", ("integer prior", "context mixing")[header.coder]),
        ("holds", ("codes", "pixels: lossless")[header.holds]),
        ("codebooks", header.num_codebooks),
    ]
    if isinstance(header, BundleHeader):
        rows += [("images", len(header.extents)), ("blocks", header.num_blocks)]
    else:
        rows += [("image", f"{header.extent[1]}x{header.extent[0]} pixels (width x height)")]
    rows += [(f"bytes of {name}", size) for name, size in found.parts]
    rows += [("bytes", found.size), ("bits per pixel", f"{found.bits_per_position:.4f}")]
    rows += [("state", "cut off")] if found.truncated else []
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return 1 if found.truncated else 0


COMMANDS: Commands = {
    "train-coder": (_train_coder, "fit the coder of a model's compressed files", _train_coder_arguments),
    "compress": (_compress, "pictures to .vq files, as small as the model can", _compress_arguments),
    "decompress": (_decompress, ".vq files to pictures", _decompress_arguments),
    "inspect": (_inspect, "what is in a .vq file: header, sizes by section, bits per pixel", _inspect_arguments),
    "verify": (_verify, "decode .vq files and compare their check sums", _sources_arguments),
}
