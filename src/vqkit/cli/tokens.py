"""The verbs tokenize and tokens: codes of many samples, and the files that trainers read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VqkitError
from ..printable import one_line
from . import arguments
from .printing import Commands, progress_bar, say, warn, write_new

if TYPE_CHECKING:
    from ..pipelines.tokenize import Ranks, Tokenized
    from ..tokens.cache import Cache
    from ..tokens.dataset import TokenSet

# Skipped samples that are named on the terminal; receipts name more.
MOST_SAID = 10
# Ids of a file with tokens at most, in bytes.
MAX_IDS = 1 << 26
FORMS = ("megatron", "datatrove", "parquet", "webdataset", "bin16", "jsonl")
ORDERS = ("raster", "coarse-first", "delay")
BASE = arguments.Number(int, 0, 1 << 31)


def _tokenize_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_artifact(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder, tar shards (WebDataset), parquet, a folder of Hugging Face datasets, a "
        "pattern in quotes, a list of files (.txt), or what training takes",
    )
    parser.add_argument("--out", required=True, metavar="D", help="folder of the cache")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="default: local, processes"
    )
    parser.add_argument(
        "--workers", type=arguments.COUNT, metavar="N", help="default: one a core, or one a GPU"
    )
    parser.add_argument(
        "--resume", action="store_true", help="do the shards that are missing in the cache"
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="bring every item to the size of training, as training does; default: its own size",
    )
    parser.add_argument(
        "--rank",
        type=arguments.WHOLE,
        metavar="R",
        help="of several processes with one --out, which this is; default: RANK, else 0",
    )
    parser.add_argument(
        "--world", type=arguments.COUNT, metavar="N", help="how many; default: WORLD_SIZE, else 1"
    )


def _tokenize(options: argparse.Namespace) -> int:
    ranks = _ranks(options.rank, options.world)
    arguments.announce_loading()
    from ..pipelines.tokenize import tokenize

    try:
        with progress_bar("tokens") as progress:
            found = tokenize(
                options.artifact,
                options.source,
                options.out,
                engine=options.engine,
                num_workers=options.workers,
                resume=options.resume,
                device=options.device,
                fit=options.fit,
                ranks=ranks,
                progress=progress,
            )
    except KeyboardInterrupt:
        warn(f"{options.out} keeps the shards that are done; --resume does the others")
        raise
    _say_skipped(found, options.out)
    if found.cache is None:
        say(f"{found.num_done} of {found.num_shards} shards are done, other ranks do the rest")
        return 0
    _say_cache(found.cache)
    return 1 if found.cache.num_skipped else 0


def _ranks(rank: int | None, world: int | None) -> Ranks:
    from ..pipelines.tokenize import Ranks

    try:
        rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        world = int(os.environ.get("WORLD_SIZE", "1")) if world is None else world
    except ValueError as error:
        raise VqkitError("RANK and WORLD_SIZE of the environment are no numbers") from error
    return Ranks(rank, world)


def _say_skipped(found: Tokenized, folder: str) -> None:
    for name, reason in found.skipped[:MOST_SAID]:
        warn(f"vqkit: skipped: {one_line(name)}: {one_line(reason)}")
    more = found.num_skipped - len(found.skipped[:MOST_SAID])
    if more:
        warn(f"vqkit: skipped: {more} more, see the files shard-*.json in {folder}")


def _say_cache(cache: Cache) -> None:
    say(f"{cache.folder}")
    say(f"samples     {cache.num_samples}, and {cache.num_skipped} skipped")
    say(f"codes       {cache.num_codes}")
    say(f"shards      {len(cache.shards)}")
    say(f"source      {one_line(cache.source)}")
    say(f"codebooks   {_sizes(cache.model.codebook_sizes)}")
    say(f"model       {cache.model.codes_id[:16]}, {one_line(cache.model.folder)}")


def _sizes(sizes: tuple[int, ...]) -> str:
    if len(set(sizes)) == 1:
        return f"{len(sizes)} of {sizes[0]} codes" if len(sizes) > 1 else f"{sizes[0]} codes"
    return ", ".join(map(str, sizes))


# ------------------------------------------------------------------------------------------- tokens


def _tokens_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (_, text, add_arguments) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        add_arguments(action)
        action.set_defaults(known=[each.option_strings for each in action._actions])


def _tokens(options: argparse.Namespace) -> int:
    return ACTIONS[options.action][0](options)


def _materialize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cache", metavar="TOKENS", help="folder that tokenize wrote")
    parser.add_argument("--to", required=True, choices=FORMS, help="what trainers read")
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="raster",
        help="position by position (default), codebook by codebook, or codebooks delayed",
    )
    parser.add_argument(
        "--base",
        type=BASE,
        default=0,
        metavar="N",
        help="the first id: the size of the vocabulary that these tokens go behind (default: 0)",
    )
    parser.add_argument(
        "--row-ends",
        action="store_true",
        help="a token behind every row of positions, for items of several grids (order raster)",
    )
    parser.add_argument(
        "--text-column", metavar="NAME", help="the text that goes with the tokens, such as caption"
    )
    parser.add_argument("--out", required=True, metavar="D", help="a new folder")


def _materialize(options: argparse.Namespace) -> int:
    from ..tokens.cache import open_cache
    from ..tokens.dataset import materialize

    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise VqkitError(f"{out} is not empty; choose another --out")
    cache = open_cache(Path(options.cache))
    try:
        with progress_bar(options.to) as progress:
            found = materialize(
                cache,
                out,
                options.to,
                options.order,
                base=options.base,
                row_ends=options.row_ends,
                text=options.text_column,
                progress=progress,
            )
    except OSError as error:
        raise VqkitError(f"cannot write {out}: {error.strerror or error}") from error
    _say_set(found)
    if not _shows_its_grids(found):
        warn(
            "vqkit: items have several grids, and tokens do not show how wide: for a model that "
            "draws, use --row-ends (in the order raster), or tokenize with --fit"
        )
    return 0


def _shows_its_grids(found: TokenSet) -> bool:
    """Whether the grid of an item follows from its tokens, as far as its manifest tells."""
    several = len(found.manifest["grids"]) > 1
    has_rows = len(found.commonest_grid) > 1
    return found.sequences.vocabulary.has_row_ends or not (several and has_rows)


def _say_set(found: TokenSet) -> None:
    manifest = found.manifest
    vocabulary = found.sequences.vocabulary
    special = ", ".join(f"{name} {number}" for name, number in vocabulary.special.items())
    say(f"{found.folder}")
    say(f"items       {found.num_items}")
    say(f"tokens      {manifest.get('num_tokens')} of {found.dtype.name}")
    say(f"form        {found.form}, order {found.sequences.order}")
    say(f"vocabulary  {vocabulary.size} ids: codes from {vocabulary.base} on, {special}")
    say(f"codebooks   {_sizes(vocabulary.codebook_sizes)}")
    say(f"grids       {_grids(manifest.get('grids'))}")
    say(f"model       {found.model.codes_id[:16]}, {one_line(found.model.folder)}")


def _grids(grids: Any) -> str:
    if not isinstance(grids, dict):
        return "unknown"
    shown = ", ".join(
        f"{one_line(grid)} ({count} items)" for grid, count in list(grids.items())[:5]
    )
    return shown + (f" and {len(grids) - 5} more" if len(grids) > 5 else "")


def _decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="DS", help="folder that materialize wrote")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--item", type=arguments.WHOLE, metavar="N", help="an item of it, numbered from 0"
    )
    which.add_argument(
        "--ids",
        metavar="FILE",
        help="ids of one item that a language model wrote, with spaces or commas between them; "
        "of the grid that its row ends say, without them of the one that most items have",
    )
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument(
        "--model", metavar="DIR", help="the model; default: where it was when tokens were made"
    )
    arguments.add_device(parser)


def _decode(options: argparse.Namespace) -> int:
    from ..tokens.dataset import open_dataset

    found = open_dataset(Path(options.set))
    if options.item is not None:
        item = found.item(options.item)
        codes = found.codes(item.tokens, item.grid)
        extent: tuple[int, ...] | None = item.extent
        name = f"{item.id}" + (f" ({item.label})" if item.label else "")
    else:
        codes = found.codes(_ids(options.ids))
        extent = None
        name = options.ids
    model = _model_of(found, options)
    import torch

    values = model.tokenizer.decode(torch.from_numpy(codes)[None], extent)[0]
    target = write_new(
        Path(options.out), model.signal.write(values, model.artifact.data), quiet=True
    )
    say(f"{target}: {one_line(name)}")
    return 0


def _ids(path: str) -> Any:
    import numpy as np

    from ..files import read_bounded

    try:
        words = read_bounded(path, MAX_IDS).decode("ascii").replace(",", " ").split()
        return np.array([int(word) for word in words], np.int64)
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise VqkitError(f"{path} holds no ids: whole numbers with spaces between them") from error


def _model_of(found: TokenSet, options: argparse.Namespace) -> Any:
    folder = options.model or found.model.folder
    if not options.model and not Path(folder).is_dir():
        raise VqkitError(
            f"the model of these tokens was in {one_line(folder)}, and is not there any more: say "
            "where it is with --model DIR"
        )
    model = arguments.load_model(folder, options.device)
    if model.artifact.codes_id != found.model.codes_id:
        raise VqkitError(
            f"{folder} is model {model.artifact.codes_id[:16]}, and these tokens are of "
            f"{found.model.codes_id[:16]}: give that one with --model DIR"
        )
    return model


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="what tokenize or materialize wrote")


def _info(options: argparse.Namespace) -> int:
    from ..tokens.cache import Cache
    from ..tokens.dataset import open_either

    found = open_either(Path(options.folder))
    if isinstance(found, Cache):
        _say_cache(found)
    else:
        _say_set(found)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ..tokens.dataset import verify

    with progress_bar("verify") as progress:
        wrong = verify(Path(options.folder), progress)
    for sentence in wrong:
        warn(f"vqkit: {one_line(sentence)}")
    if not wrong:
        say(f"{options.folder}: every file is what was written")
    return 1 if wrong else 0


ACTIONS: Commands = {
    "materialize": (_materialize, "write tokens as trainers read them", _materialize_arguments),
    "decode": (_decode, "an item of tokens back as a file", _decode_arguments),
    "info": (_info, "what a folder of tokens holds", _folder_arguments),
    "verify": (_verify, "hold a folder of tokens against its digests", _folder_arguments),
}
COMMANDS: Commands = {
    "tokenize": (_tokenize, "codes of many samples, into a cache", _tokenize_arguments),
    "tokens": (
        _tokens,
        "such codes for trainers of language models: materialize, decode, info, verify",
        _tokens_arguments,
    ),
}
