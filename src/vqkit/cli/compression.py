"""Verbs about compressed files: train-coder, compress, decompress, inspect, verify."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from ..printable import one_line
from . import arguments
from .printing import Commands, progress_bar, say, warn
from .streams import STANDARD, standard_streams, write_output

if TYPE_CHECKING:
    from torch import Tensor

    from ..apps.compress import Compressed
    from ..artifact.codec import Codec
    from ..artifact.compressor import Decoded
    from ..artifact.long_items import LongItem
    from ..artifact.model import Model

SUFFIX = ".vq"
# Bytes of a stored name that are taken for a file's: systems have 255, of which suffixes and
# numbers need some.
MAX_STEM = 220


def _train_coder_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_data(parser, ", as a rule that of the model")
    parser.add_argument(
        "--steps",
        type=arguments.COUNT,
        help="optimiser steps (default: coder.steps of the artifact)",
    )
    parser.add_argument(
        "--force", action="store_true", help="a new coder; the old one is kept for its files"
    )
    arguments.add_minutes(parser)


def _train_coder(options: argparse.Namespace) -> int:
    from ..pipelines.coders import train_coder

    model = train_coder(
        options.artifact,
        options.data,
        steps=options.steps,
        force=options.force,
        minutes=options.minutes,
        display=arguments.display_of_run(),
        started=arguments.STARTED,
    )
    metrics = model.metrics
    if model.artifact.coders.codes:
        name = model.compressor.model_id.hex()
        # A coder of scalar codes learns without a validation pass.
        bits = metrics.get("coder_bits_per_code")
        figure = "" if bits is None else f"{bits:.3f} bits a code on the validation split; "
        say(f"{figure}files of model {name}")
    if model.artifact.coders.values:
        bits = metrics["lossless_bits_per_value"]
        name = model.compressor.codec(lossless=True).model_id.hex()
        say(f"{bits:.3f} bits a value there; lossless files of model {name}")
    return 0


# ----------------------------------------------------------------------------------------- compress


def _compress_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    arguments.add_files(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out-dir", metavar="D", help="where the .vq files go, one for each file")
    where.add_argument(
        "--out",
        metavar="X.vq",
        help="the file of a single one, or with --bundle of all; - for the standard output",
    )
    parser.add_argument(
        "--bundle", action="store_true", help="all in one file: fewer bytes for each"
    )
    parser.add_argument(
        "--lossless", action="store_true", help="keep every value: larger files, exact copies"
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument(
        "--kbps",
        type=arguments.POSITIVE,
        metavar="N",
        help="of recordings: the most kilobits a second that a file may have, all of it counted",
    )
    rates.add_argument(
        "--rate",
        type=arguments.rate,
        metavar="RATE",
        help="smaller files, coarser reconstructions: lowest, low, medium, high or full; or a "
        "number, the most bits that a file may have for each position, such as a pixel",
    )
    parser.add_argument(
        "--effort",
        type=int,
        default=0,
        metavar="N",
        help="0 (default) to 9: search longer for codes: scalar ones that make files smaller or "
        "better, and those of text with which fewer bytes come back wrong",
    )
    _force_argument(parser)


def _force_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def _compress(options: argparse.Namespace) -> int:
    if options.bundle and not options.out:
        raise VqkitError("--bundle writes one file; name it with --out X.vq")
    with standard_streams(options):
        return _compress_files(options)


def _compress_files(options: argparse.Namespace) -> int:
    from ..artifact.long_items import LongItem

    model = arguments.load_model(options.artifact, options.device)
    if options.kbps is not None:
        options.rate = _bits_of(options.kbps, model)
    if _is_bits(options) and (options.bundle or options.lossless):
        what = "a bundle has one rate for all: name it" if options.bundle else "leave --rate out"
        raise VqkitError(f"--rate {options.rate:g} is for files of one item with codes; {what}")
    named = None if _is_bits(options) else options.rate
    codec = model.compressor.codec(lossless=options.lossless, rate=named, effort=options.effort)

    def read(path: Path) -> Tensor | LongItem:
        if options.lossless or options.bundle:
            values = arguments.read_item(model, path, exact=options.lossless)
        else:
            opened = arguments.open_item(model, path)
            if isinstance(opened, LongItem):
                return opened
            values = opened
        grid = codec.grid(values.shape[1:])
        if options.bundle:
            codec.check_block([grid])
        return values

    items = arguments.Items(model, options.files, read)
    _check_target(options, len(items.paths))
    write = _bundle if options.bundle else _singles
    with progress_bar("compressing") as progress:

        def tell(done: float) -> None:
            progress(done / len(items.paths))

        num_positions, size = write(options, model, codec, items, tell)
    if num_positions:
        say(f"{size} bytes, {_rate_in_words(model, size, (num_positions,))} in all")
    return items.status


def _bits_of(kbps: float, model: Model) -> float:
    """Bits for each position. VqkitError for a model of no recordings."""
    name, positions = model.signal.rate_per((1,), model.artifact.data)
    if name != "kbps":
        raise VqkitError(
            f"--kbps is of recordings, and this model is of {model.signal.item}s: use --rate with "
            "bits for each position"
        )
    return kbps * positions


def _is_bits(options: argparse.Namespace) -> bool:
    """Whether the rate is a number of bits."""
    return isinstance(options.rate, float)


def _check_target(options: argparse.Namespace, count: int) -> None:
    """All that can be refused before any file is read."""
    if options.out and not options.bundle and count > 1:
        raise VqkitError(f"{count} files do not fit in one; add --bundle, or use --out-dir")
    is_file = options.out and options.out != STANDARD
    if is_file and Path(options.out).exists() and not options.force:
        raise VqkitError(f"{options.out} exists; choose another name, or add --force to replace it")


def _singles(
    options: argparse.Namespace,
    model: Model,
    codec: Codec,
    items: arguments.Items,
    progress: Callable[[float], None],
) -> tuple[int, int]:
    """A file for each item; positions and bytes of all."""
    from ..apps.compress import compress
    from ..files import free_name

    if _is_bits(options):
        compressed = _within(options, model, items, progress)
    else:
        compressed = compress(model, codec, items, progress, items.skip)

    # Two items of one name must not replace each other, even with force, which gives the same names
    # every time.
    written: set[Path] = set()
    positions = 0
    size = 0
    is_taken = written.__contains__ if options.force else Path.exists
    for source, found in compressed:
        if options.out:
            path = Path(options.out)
        else:
            path = Path(options.out_dir) / f"{source.stem}{SUFFIX}"
        path = free_name(path, is_taken)
        written.add(path)
        coded = found.coded
        name = _stored_name(source)
        data = found.codec.file_of(coded, name)
        write_output(options, path, data)
        positions += math.prod(coded.extent)
        size += len(data)
        rate = _rate_in_words(model, len(data), coded.extent)
        quality = _quality(options, model, found.psnr)
        say(f"{arguments.shown_name(source)} -> {path}: {len(data)} bytes, {rate}, {quality}")
    return positions, size


def _rate_in_words(model: Model, size: int, extent: tuple[int, ...]) -> str:
    """What a file of so many bytes takes of every second, or of every position."""
    name, divisor = model.signal.rate_per(extent, model.artifact.data)
    if name == "kbps":
        return f"{8 * size / divisor:.2f} kbps"
    return f"{8 * size / math.prod(extent):.3f} bits per position"


def _within(
    options: argparse.Namespace,
    model: Model,
    items: arguments.Items,
    progress: Callable[[float], None],
) -> Iterator[tuple[Path, Compressed]]:
    """Items in as many bits as their files may have; those of which no file is so small are
    skipped.
    """
    from ..apps.compress import compress_within

    for number, (source, values) in enumerate(items, 1):
        name = _stored_name(source)
        try:
            found = compress_within(model, values, options.rate, name, options.effort)
        except VqkitError as error:
            items.skip(source, error)
            continue
        yield source, found
        progress(number)


def _bundle(
    options: argparse.Namespace,
    model: Model,
    codec: Codec,
    items: arguments.Items,
    progress: Callable[[float], None],
) -> tuple[int, int]:
    """One file of all items; positions and bytes of it."""
    from ..apps.compress import compress

    coded = []
    names: list[str] = []
    for source, found in compress(model, codec, items, progress):
        names.append(_stored_name(source) or f"{len(names)}{model.signal.suffix}")
        coded.append(found.coded)
        say(f"{source}: {_quality(options, model, found.psnr)}")
    if not coded:
        raise VqkitError("none of the files could be read; nothing was written")
    data = model.compressor.write_bundle(coded, codec, names)
    write_output(options, Path(options.out), data)
    return sum(math.prod(one.extent) for one in coded), len(data)


def _quality(options: argparse.Namespace, model: Model, psnr: float) -> str:
    return "exact" if options.lossless else f"{psnr:.2f} {model.signal.quality_unit}"


def _stored_name(source: Path) -> str | None:
    from ..coding import usable_name

    if source.name == STANDARD or not usable_name(source.name):
        return None
    return source.name


# --------------------------------------------------------------------------------------- decompress


def _sources_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILES.vq", help="compressed files or bundles")
    parser.add_argument(
        "--model", metavar="DIR", help="folder of the model (default: looked for below this folder)"
    )
    arguments.add_device(parser)


def _decompress_arguments(parser: argparse.ArgumentParser) -> None:
    _sources_arguments(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out-dir", metavar="D", help="where the files go")
    where.add_argument(
        "--out", metavar="X", help="the file of a single item; - for the standard output"
    )
    parser.add_argument(
        "--item", metavar="N", help="one item of a bundle alone: its number from 0, or stored name"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="the same values on every machine, not just the same codes; takes longer",
    )
    _force_argument(parser)


def _decompress(options: argparse.Namespace) -> int:
    if options.out and len(options.files) > 1:
        raise VqkitError(f"{len(options.files)} files do not fit in one; use --out-dir")
    if options.out and options.out != STANDARD and Path(options.out).exists() and not options.force:
        raise VqkitError(f"{options.out} exists; choose another name, or add --force to replace it")
    with standard_streams(options):
        return _decompress_files(options)


def _decompress_files(options: argparse.Namespace) -> int:
    failed = 0
    models: dict[str | Path, Model] = {}
    with progress_bar("decompressing") as progress:
        for source in map(Path, options.files):
            try:
                model = _model(options, source, models)
                if options.exact:
                    model = model.exactly
                failed += _decompress_file(options, source, model, progress)
            except VqkitError as error:
                failed += 1
                warn(one_line(f"{arguments.shown_name(source)}: {error}"))
    return 1 if failed else 0


def _decompress_file(
    options: argparse.Namespace, source: Path, model: Model, progress: Callable[[float], None]
) -> int:
    """Write the items of a file; how many are not what they were.

    VqkitError, of a bundle behind the whole ones.
    """
    from ..coding import opened
    from ..files import free_name

    written: set[Path] = set()
    is_taken = written.__contains__ if options.force else Path.exists
    lost = 0
    if options.out and options.item is None:
        _check_single(source)
    with opened(source) as stream:
        for block in _blocks(model, stream, options.item):
            for decoded, write in zip(block, _writers(model, block, progress), strict=True):
                if options.out:
                    target = Path(options.out)
                else:
                    stem = _stem(source, decoded)
                    suffix = model.signal.suffix
                    if model.signal.is_verbatim:
                        suffix = Path(decoded.name or "").suffix or suffix
                    target = Path(options.out_dir) / f"{stem}{suffix}"
                    target = free_name(target, is_taken)
                written.add(target)
                write_output(options, target, write)
                lost += decoded.truncated
                say(f"{arguments.shown_name(source)} -> {target}{_cut_off(decoded)}")
    return lost


def _writers(
    model: Model, block: list[Decoded], progress: Callable[[float], None]
) -> list[bytes | Callable[[Path], None]]:
    """What writes each item: its bytes, or of a long one a function that fills a file."""
    from ..artifact.long_items import is_long
    from ..artifact.parts import values_in_pieces

    (first, *others) = block
    if others or not is_long(model.shape.channels, first.extent):
        data = model.artifact.data
        return [model.signal.write(values, data) for values in model.compressor.decode(block)]

    def fill(path: Path) -> None:
        values = values_in_pieces(
            model.compressor.tokenizer, first.codec, first.codes, first.extent, progress
        )
        model.signal.write_pieces(path, values, first.extent, model.artifact.data)

    return [fill]


def _check_single(source: Path) -> None:
    """VqkitError, before anything is written, for a file of several items."""
    from ..coding import BundleHeader, describe, opened

    with opened(source) as stream:
        header = describe(stream).header
    if isinstance(header, BundleHeader) and len(header.extents) > 1:
        count = len(header.extents)
        raise VqkitError(f"it holds {count} items: choose one with --item N, or use --out-dir")


def _cut_off(decoded: Decoded) -> str:
    """What a file that is cut off means for one of its items, in words after its name."""
    if not decoded.truncated:
        return ""
    if decoded.is_coarser:
        return ": the file is cut off, coarser than it was"
    if decoded.is_shorter:
        return ": the file is cut off, only the beginning is left"
    return ": the file is cut off, but this item is complete"


def _blocks(model: Model, stream: object, item: str | None) -> Iterator[list[Decoded]]:
    if item is None:
        yield from model.compressor.read_blocks(stream)  # type: ignore[arg-type]
    else:
        yield [model.compressor.read_item(stream, item)]  # type: ignore[arg-type]


def _stem(source: Path, decoded: Decoded) -> str:
    """The stored name, else, and where that is too long for a file, that of the source with a
    number.
    """
    stem = Path(decoded.name or "").stem
    if 0 < len(stem.encode()) <= MAX_STEM:
        return stem
    if not decoded.number:
        return source.stem
    return f"{source.stem}-{decoded.number}"


def _model(options: argparse.Namespace, source: Path, models: dict[str | Path, Model]) -> Model:
    """The model of a file; each is loaded once."""
    from ..artifact.coder_files import find_artifact

    folder = options.model or find_artifact(source)
    if folder not in models:
        models[folder] = arguments.load_model(folder, options.device)
    return models[folder]


def _verify(options: argparse.Namespace) -> int:
    from ..apps.compress import Verdict, verify
    from ..coding import opened

    failed = 0
    models: dict[str | Path, Model] = {}
    with progress_bar("verifying"):
        for source in map(Path, options.files):
            try:
                model = _model(options, source, models)
                with opened(source) as stream:
                    found = verify(model, stream)
            except VqkitError as error:
                found = Verdict.failed(error)
            failed += bool(found.error) or found.truncated
            state = "cut off" if found.truncated else "ok"
            if found.error:
                state = f"{'BAD' if found.checked else 'not checked'}, {found.error}"
            say(f"{source}: {state} ({found.items} {'item' if found.items == 1 else 'items'})")
    return 1 if failed else 0


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="X.vq", help="compressed file or bundle; the model is not needed"
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="folder of the model, which knows how many positions a second has",
    )


def _inspect(options: argparse.Namespace) -> int:
    from ..coding import SCALAR, BundleHeader, PartsHeader, describe, gain_of, opened

    with opened(options.file) as stream:
        found = describe(stream)
    header = found.header
    model_id = header.kind.model_id
    rows: list[tuple[str, object]] = [
        ("profile", found.profile),
        ("model", model_id.hex() if model_id else "not said"),
        ("coder", ("transformer", "context mixing", "scalar", "bytes")[header.coder]),
        ("holds", ("codes", "values: lossless")[header.holds]),
        ("stages", header.num_codebooks),
    ]
    if isinstance(header, BundleHeader):
        rows += [("items", len(header.extents)), ("blocks", header.num_blocks)]
    elif isinstance(header, PartsHeader):
        rows += [("extent", header.length), ("parts", header.num_parts)]
    else:
        rows += [("extent", "x".join(map(str, header.extent)))]
    if header.coder == SCALAR:
        rows.append(("gain", f"{gain_of(header.gain):.3g}"))
    rows += [(f"bytes of {name}", size) for name, size in found.parts]
    rows += [("bytes", found.size), ("bits per position", f"{found.bits_per_position:.4f}")]
    if options.model:
        model = arguments.load_model(options.model, "cpu")
        name, divisor = model.signal.rate_per((found.positions,), model.artifact.data)
        rows.append((name, f"{8 * found.size / divisor:.4f}"))
    if found.truncated:
        rows.append(("state", "cut off"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name:<{width}}  {value}")
    return 1 if found.truncated else 0


COMMANDS: Commands = {
    "train-coder": (
        _train_coder,
        "fit the coder of a model's compressed files",
        _train_coder_arguments,
    ),
    "compress": (_compress, "files to .vq files, as small as the model can", _compress_arguments),
    "decompress": (
        _decompress,
        ".vq files back to what they were made from",
        _decompress_arguments,
    ),
    "inspect": (
        _inspect,
        "what is in a .vq file: header, sizes by section, bits per position",
        _inspect_arguments,
    ),
    "verify": (_verify, "decode .vq files and compare their check sums", _sources_arguments),
}
