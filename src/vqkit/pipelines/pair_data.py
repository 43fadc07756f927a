"""From a source to pairs: items of one half, and what belongs to each of the other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..apps.evaluate import open_for
from ..artifact.halves import CodedHalf, Half
from ..artifact.pair import Pairs
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..printable import one_line
from ..tables import check_group, pyarrow

# Items whose codes are found together.
BATCH_SIZE = 64
# Names of items without the other half that are told.
NUM_NAMED = 5
# Columns of a table that are text about its items, before others.
TEXT_COLUMNS = ("caption", "text", "transcript", "sentence")
WANTED = (
    "pairs are a built-in set with captions, images or recordings with a .txt of the same name "
    "beside each, images with recordings of the same name, or parquet with a column of images and "
    "one of text"
)


class Opened(NamedTuple):
    """Pairs, and what a user should know of how they were found, a sentence each."""

    pairs: Pairs
    notes: list[str]


def open_pairs(
    halves: tuple[Half, Half],
    source: str | Path,
    progress: Callable[[float], None] | None = None,
) -> Opened:
    """The pairs of a source, split as the model of the leading half splits its items.

    VqkitError for halves that make no pair, and for a source without pairs.
    """
    lead = leading(halves)
    half = halves[lead]
    assert isinstance(half, CodedHalf)
    other = halves[1 - lead]
    data = open_for(half.model, source, "train", progress)
    root = Path(source).expanduser()
    is_built_in = str(source) in half.signal.sets
    partners = _partners(data, root, other)
    firsts = data.firsts()
    there = np.array([index for index in firsts.tolist() if partners[index] is not None], np.int64)
    if not len(there):
        raise VqkitError(
            f"{source} holds no pairs: none of its {len(firsts)} {half.signal.item}s has "
            f"{other.signal.an_item}; {WANTED}"
        )
    codes, notes = _encoded(other, partners, there, len(data))
    missing = [str(data.names[index]) for index in firsts.tolist() if partners[index] is None]
    notes = [
        *_missing_in_words(missing, half, other),
        *([] if is_built_in else _alone_in_words(data, root, half, other)),
        *notes,
        *_cut_in_words(data, there, half),
    ]
    splits = {}
    for name, ids in data.splits.items():
        splits[name] = ids[np.isin(ids, there)]
    if not len(splits["train"]):
        raise VqkitError(f"{source} holds too few pairs to train on: {len(there)}; {WANTED}")
    data.splits = splits
    return Opened(Pairs(data, halves, lead, codes), notes)


def leading(halves: tuple[Half, Half]) -> int:
    """The half whose items a set is opened by: the one that is not text, of two the first.

    VqkitError for halves of one kind.
    """
    kinds = [half.signal.name for half in halves]
    if kinds[0] == kinds[1]:
        raise VqkitError(
            f"a pair is of two kinds of signal, and both are {kinds[0]}: name one model of images "
            "or recordings, and one of another kind or the word bytes"
        )
    return next(index for index, half in enumerate(halves) if not half.is_text)


# ------------------------------------------------------------------------------ what belongs to it


def _partners(data: Dataset, root: Path, other: Half) -> Sequence[Any]:
    """What belongs to each item, in a form that its half encodes; None where nothing does."""
    if other.is_text and data.captions is not None:
        return [caption.strip() or None for caption in data.captions]
    if root.suffix == ".parquet" or (root.is_dir() and any(root.glob("*.parquet"))):
        if other.is_text:
            return _from_tables(data, root)
        raise VqkitError(f"{root}: of tables, columns of images and of text make pairs")
    return _beside(data, root, other)


def _beside(data: Dataset, root: Path, other: Half) -> list[Path | None]:
    """Files of the same name beside those of the items."""
    by_stem = _by_stem(root, other)
    return [by_stem.get(stem) for stem in _stems(data, root)]


def _by_stem(root: Path, half: Half) -> dict[Path, Path]:
    """Files of a half below a folder by their path without suffix."""
    found: dict[Path, Path] = {}
    for path in sorted(root.rglob("*")) if root.is_dir() else []:
        if half.signal.can_be(path) and path.is_file():
            found.setdefault(path.with_suffix(""), path)
    return found


def _stems(data: Dataset, root: Path) -> list[Path]:
    """The file of each item, without suffix."""
    found = []
    for name in data.files():
        # An image of a file with several has its number behind the name.
        path = root / name if (root / name).is_file() else root / name.rpartition(":")[0]
        found.append(path.with_suffix(""))
    return found


def _from_tables(data: Dataset, root: Path) -> list[str | None]:
    """The text of the row that each image lies in; names of images are FILE:ROW."""
    files = [root] if root.is_file() else sorted(root.glob("*.parquet"))
    texts: dict[str, str] = {}
    for path in files:
        for row, text in enumerate(_text_column(path)):
            if text and text.strip():
                texts[f"{path.name}:{row}"] = text.strip()
    found = []
    for name in data.names:
        text = texts.get(str(name))
        # An image of a row with several has its number behind that of the row.
        found.append(text or texts.get(str(name).rpartition(":")[0]))
    return found


def _text_column(path: Path) -> Iterable[str | None]:
    """The column of a table that is text. VqkitError where it is not known which is meant."""
    library = pyarrow()
    try:
        table = library.parquet.ParquetFile(path)
        columns = [
            column.name
            for column in table.schema_arrow
            if str(column.type) in ("string", "large_string")
        ]
        known = [name for name in TEXT_COLUMNS if name in columns] or columns
        if not known or (len(known) > 1 and known == columns):
            raise VqkitError(
                f"{path} has {len(columns)} columns of text: call the one that is meant caption"
            )
        for group in range(table.num_row_groups):
            check_group(path, table.metadata.row_group(group), known[:1])
            yield from table.read_row_group(group, columns=known[:1]).column(0).to_pylist()
    except (library.ArrowException, OSError) as error:
        raise VqkitError(f"cannot read {path}: {one_line(error)}") from error


# ----------------------------------------------------------------------------------- codes, counts


def _encoded(
    other: Half, partners: Sequence[Any], there: np.ndarray, count: int
) -> tuple[torch.Tensor, list[str]]:
    """Codes (count, L) of what belongs to the items `there`; the rest is padding."""
    codes: torch.Tensor | None = None
    num_cut = 0
    for start in range(0, len(there), BATCH_SIZE):
        ids = there[start : start + BATCH_SIZE]
        coded = other.encode([partners[index] for index in ids.tolist()])
        if codes is None:
            codes = torch.full((count, coded.codes.shape[1]), -1)
        codes[torch.from_numpy(ids)] = coded.codes
        num_cut += coded.num_cut
    assert codes is not None
    if not num_cut:
        return codes, []
    return codes, [f"{num_cut} {other.signal.item}s are longer than the pair takes and were cut"]


def _missing_in_words(missing: Sequence[str], half: Half, other: Half) -> list[str]:
    if not missing:
        return []
    named = ", ".join(itertools.islice(missing, NUM_NAMED))
    more = ", ..." if len(missing) > NUM_NAMED else ""
    return [
        f"{len(missing)} {half.signal.item}s without {other.signal.an_item} are left out: "
        f"{named}{more}"
    ]


def _alone_in_words(data: Dataset, root: Path, half: Half, other: Half) -> list[str]:
    """Files of the other half that lie beside no item."""
    used = set(_stems(data, root))
    alone = [path.name for stem, path in _by_stem(root, other).items() if stem not in used]
    return _missing_in_words(alone, other, half)


def _cut_in_words(data: Dataset, there: np.ndarray, half: Half) -> list[str]:
    """Of recordings that come in several clips the first is used."""
    files = data.files()
    pieces = Counter(files)
    num_cut = sum(pieces[files[index]] > 1 for index in there.tolist())
    if not num_cut:
        return []
    return [f"{num_cut} {half.signal.item}s are longer than the pair takes and were cut"]
