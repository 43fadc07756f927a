"""From a source to pairs: items of one half, and what belongs to each of the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..apps.evaluate import open_for
from ..artifact.halves import CodedHalf, Half
from ..artifact.pair import Pairs
from ..artifact.tensor_files import reason
from ..data.dataset import Dataset
from ..errors import VqkitError
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
    half, other = halves[lead], halves[1 - lead]
    assert isinstance(half, CodedHalf)
    data = open_for(half.model, source, "train", progress)
    root = Path(source).expanduser()
    partners = _partners(data, root, other)
    firsts = data.firsts()
    there = np.array([index for index in firsts.tolist() if partners[index] is not None], np.int64)
    splits = {name: ids[np.isin(ids, there)] for name, ids in data.splits.items()}
    if not len(splits["train"]):
        raise VqkitError(
            f"{source} holds {'too few' if len(there) else 'no'} pairs: {len(there)} of its "
            f"{len(firsts)} {half.signal.item}s have {other.signal.an_item}; {WANTED}"
        )
    notes = data.remarks()
    missing = [str(data.names[index]) for index in firsts.tolist() if partners[index] is None]
    notes += _missing_in_words(missing, half, other)
    if str(source) not in half.signal.sets:
        notes += _missing_in_words(_alone(data, root, other), other, half)
    codes, num_cut = _encoded(other, partners, there, len(data))
    notes += [*_cut_in_words(num_cut, other), *_cut_in_words(_num_cut(data, there), half)]
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
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error


# ----------------------------------------------------------------------------------- codes, counts


def _encoded(
    other: Half, partners: Sequence[Any], there: np.ndarray, count: int
) -> tuple[torch.Tensor, int]:
    """Codes (count, L) int32 of what belongs to the items `there`, the rest padding, and how many
    were cut.
    """
    codes = torch.zeros(0, dtype=torch.int32)
    num_cut = 0
    for start in range(0, len(there), BATCH_SIZE):
        ids = there[start : start + BATCH_SIZE]
        coded = other.encode([partners[index] for index in ids.tolist()])
        if not start:
            codes = torch.full((count, coded.codes.shape[1]), -1, dtype=torch.int32)
        codes[torch.from_numpy(ids)] = coded.codes.int()
        num_cut += coded.num_cut
    return codes, num_cut


def _alone(data: Dataset, root: Path, other: Half) -> list[str]:
    """Files of the other half that lie beside no item."""
    used = set(_stems(data, root))
    return [path.name for stem, path in _by_stem(root, other).items() if stem not in used]


def _num_cut(data: Dataset, there: np.ndarray) -> int:
    """Of how many recordings, which come in several clips, the first is used."""
    files = data.files()
    pieces = Counter(files)
    return sum(pieces[files[index]] > 1 for index in there.tolist())


def _missing_in_words(missing: Sequence[str], half: Half, other: Half) -> list[str]:
    if not missing:
        return []
    named = ", ".join(missing[:NUM_NAMED]) + (", ..." if len(missing) > NUM_NAMED else "")
    verb = "is" if len(missing) == 1 else "are"
    counted = _counted(len(missing), half)
    return [f"{counted} without {other.signal.an_item} {verb} left out: {named}"]


def _cut_in_words(num_cut: int, half: Half) -> list[str]:
    if not num_cut:
        return []
    verb = "is" if num_cut == 1 else "are"
    return [f"{_counted(num_cut, half)} {verb} longer than the pair takes, and cut"]


def _counted(count: int, half: Half) -> str:
    return f"{count} {half.signal.item}{'' if count == 1 else 's'}"
