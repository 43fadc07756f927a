"""`open_text`: files of text, cut into items and these into pieces, split by item."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...data.indexed import Found, IndexedDataset
from ...data.names import MAX_BAD, BadFile, PackedStrings, check_bad
from ...data.normalisation import Normalisation
from ...data.splits import derive_seed, digest, pack, split
from ...errors import VqkitError
from ...shapes import Shape
from ..paths import files_below
from .config import DataConfig, NoiseConfig
from .files import EMPTY, BadText, Bytes, is_text, load

# The middle of the 256 levels is 0 and the ends are -1 and 1, whatever files hold: networks get
# bytes back from it.
NORMALISATION = Normalisation((0.5,), (0.5,))
# Letters that noise puts in the place of others.
LETTERS = np.frombuffer(b"etaoinshrdlcumwfgypbvkjxqz ,.", np.uint8)


class Item(NamedTuple):
    """What stays in one split: bytes of all from `start` on. name: of its file and its place."""

    name: str
    start: int
    length: int


class TextData(IndexedDataset):
    """Pieces of items.

    starts, lengths, owners, places: (N,) int64 of every piece: where it begins among all bytes, how
    many of them are real, its item, and where in that it begins. num_bytes: of each split, every
    byte counted once.
    """

    in_memory = True

    def __init__(
        self, name: str, content: Bytes, items: list[Item], bad: list[BadFile], settings: DataConfig
    ) -> None:
        self.content = content
        self.items = items
        self.settings = settings
        self.num_files = 0
        self.num_bytes: dict[str, int] = {}
        pieces = _pieces(items, settings.length, settings.overlap)
        self.owners, self.places, self.lengths = pieces.T
        firsts = np.array([item.start for item in items], np.int64)
        self.starts = firsts[self.owners] + self.places
        names = []
        for owner, place in zip(self.owners.tolist(), self.places.tolist(), strict=True):
            names.append(f"{items[owner].name}@{place}" if place else items[owner].name)
        super().__init__(
            name,
            PackedStrings(names),
            Shape(1, (settings.length,)),
            bad=bad,
            num_workers=settings.num_workers,
        )
        self.normalisation = NORMALISATION

    def apart(self, name: str) -> np.ndarray:
        ids = self.splits[name]
        return ids[self.places[ids] % self.shape.extent[0] == 0]

    def read_good(self, ids: np.ndarray) -> Found:
        (length,) = self.shape.extent
        values = np.zeros((len(ids), 1, length), np.uint8)
        lengths = self.lengths[ids]
        for row, (start, real) in enumerate(zip(self.starts[ids], lengths, strict=True)):
            values[row, 0, :real] = self.content[start : start + real]
        mask = None
        if (lengths < length).any():
            mask = torch.arange(length) < torch.from_numpy(lengths)[:, None]
        return Found(ids, torch.from_numpy(values), mask, [])

    def noisy(self, values: Tensor, names: Sequence[tuple[Any, ...]]) -> Tensor | None:
        level = self.settings.noise.level
        if not level:
            return None
        return with_typos(values, level, [derive_seed(*name) for name in names])

    def for_codes(self, augment: Mapping[str, Any]) -> TextData:
        """VqkitError for any `augment`: nothing of text is changed but by noise."""
        if augment:
            raise VqkitError(
                f"augment.{next(iter(augment))}: text has no such setting; leave it out"
            )
        found = super().for_codes(augment)
        found.settings = self.settings.model_copy(update={"noise": NoiseConfig()})
        return found

    def notes_in_words(self) -> list[str]:
        said = self.num_bytes
        return [
            f"{said['train']:,} bytes of text to train on, {said['validation']:,} held out for "
            f"validation and {said['test']:,} for test"
        ]

    def texts(self, name: str) -> Iterator[bytes]:
        """All items of a split, whole, in its order."""
        owners = self.owners[self.apart(name)]
        _, first = np.unique(owners, return_index=True)
        for owner in owners[np.sort(first)].tolist():
            item = self.items[owner]
            yield self.content[item.start : item.start + item.length].tobytes()

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "images": len(self),
            "files": self.num_files,
            "items": len(self.items),
            "bytes": self.num_bytes,
            "size": list(self.shape.extent),
            "channels": 1,
            "bad": [dataclasses.asdict(bad) for bad in self.bad],
            "splits": {name: len(ids) for name, ids in self.splits.items()},
            "normalisation": self.normalisation.to_dict(),
        }


def with_typos(values: Tensor, level: float, seeds: Sequence[int]) -> Tensor:
    """Pieces (B, 1, T) of which each has a share of wrong bytes from 0 to `level`: two thirds of
    them other letters, a third what two neighbours that changed places have.
    """
    noisy = values.clone()
    length = values.shape[2]
    for row, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        piece = noisy[row, 0].numpy()
        num_wrong = round(level * rng.random() * length)
        swapped = rng.integers(0, length - 1, num_wrong // 6)
        for place in swapped.tolist():
            piece[place], piece[place + 1] = piece[place + 1], piece[place]
        replaced = rng.integers(0, length, num_wrong - 2 * len(swapped))
        # Zeros are padding, as a rule, and nobody types them.
        replaced = replaced[piece[replaced] != 0]
        piece[replaced] = rng.choice(LETTERS, len(replaced))
    return noisy


def open_text(
    source: str | Path,
    settings: DataConfig,
    seed: int,
    *,
    max_bad: float = MAX_BAD,
    progress: Callable[[float], None] | None = None,
) -> TextData:
    """Text of a file or of a folder and all below it.

    Equal items never lie in different splits. Errors: VqkitError with one sentence that says what
    is wrong and what to do.
    """
    root = Path(source).expanduser()
    paths = _paths(source, root)
    blocks: list[Bytes] = []
    items: list[Item] = []
    bad: list[BadFile] = []
    start = 0
    for number, path in enumerate(paths, 1):
        name = str(path.relative_to(root)) if path != root else path.name
        try:
            content = load(path)
        except BadText as error:
            bad.append(BadFile(name, str(error)))
            continue
        items += _items(name, content, start, settings.item)
        blocks.append(content)
        start += len(content)
        if start > settings.max_memory_mb << 20:
            raise VqkitError(
                f"{source} holds more than data.max_memory_mb={settings.max_memory_mb}: raise it, "
                "or take a part of the files"
            )
        if progress:
            progress(number / len(paths))
    # Empty files are common among those of text, and take nothing away.
    check_bad(str(source), [one for one in bad if one.reason != EMPTY], len(blocks), max_bad)
    if not items:
        raise VqkitError(f"{source} holds no text that can be used")
    data = TextData(str(source), np.concatenate(blocks), items, bad, settings)
    data.num_files = len(blocks)
    _split(data, seed)
    return data


def bad_files(source: str | Path) -> tuple[list[BadFile], int]:
    """All files of a source that cannot be used, and the number of items in the others."""
    root = Path(source).expanduser()
    bad = []
    good = 0
    for path in _paths(source, root):
        try:
            load(path)
            good += 1
        except BadText as error:
            name = str(path.relative_to(root)) if path != root else path.name
            bad.append(BadFile(name, str(error)))
    return bad, good


def _paths(source: str | Path, root: Path) -> list[Path]:
    if not root.exists():
        raise VqkitError(f"there is no file or folder '{source}'")
    paths = files_below(root, is_text) if root.is_dir() else [root]
    if not paths:
        raise VqkitError(f"{source} holds no files of text")
    return paths


def _items(name: str, content: Bytes, start: int, kind: str) -> list[Item]:
    """The items of a file whose bytes begin at `start` of all."""
    if kind == "file":
        return [Item(name, start, len(content))]
    if kind == "line":
        ends = np.append(np.flatnonzero(content == 10) + 1, len(content))
    else:
        step = int(kind.removeprefix("bytes:"))
        ends = np.append(np.arange(step, len(content), step), len(content))
    items = []
    first = 0
    for number, end in enumerate(ends.tolist(), 1):
        # A file that ends with its last line has none behind it, and an empty line is no item.
        if end > first and content[first:end].tobytes().strip():
            where = f"{name}:{number}" if kind == "line" else f"{name}:{first}"
            items.append(Item(where, start + first, end - first))
        first = end
    return items


def _pieces(items: Sequence[Item], length: int, overlap: int) -> np.ndarray:
    """Item, place in it and length of every piece, (N, 3) int64.

    Pieces that are measured begin at multiples of their length; those between them at odd places,
    so that patches of bytes are seen from every byte on.
    """
    # An odd number near a part of a piece.
    step = max(1, length // overlap) | 1
    found = []
    for owner, item in enumerate(items):
        places = np.arange(0, item.length, length)
        if overlap > 1 and item.length > length:
            between = np.arange(step, item.length - length + 1, step)
            places = np.unique(np.concatenate([places, between]))
        lengths = np.minimum(length, item.length - places)
        found.append(np.stack([np.full(len(places), owner), places, lengths], 1))
    return np.concatenate(found).astype(np.int64)


def _split(data: TextData, seed: int) -> None:
    """Splits by item; those that are measured hold every byte once."""
    settings = data.settings
    contents = []
    for item in data.items:
        contents.append(digest(data.content[item.start : item.start + item.length].tobytes()))
    keys = pack(contents)
    try:
        of_items = split(keys, keys, seed, (settings.validation, settings.test))
    except VqkitError as error:
        raise VqkitError(f"{error}; or take smaller items, such as data.item=bytes:4096") from error
    for name, ids in of_items.items():
        rank = np.full(len(data.items), -1)
        rank[ids] = np.arange(len(ids))
        wanted = rank[data.owners] >= 0
        data.num_bytes[name] = int(sum(data.items[index].length for index in ids))
        if name != "train":
            wanted &= data.places % data.shape.extent[0] == 0
        pieces = np.flatnonzero(wanted)
        order = np.argsort(rank[data.owners[pieces]], kind="stable")
        data.splits[name] = pieces[order].astype(np.int64)
