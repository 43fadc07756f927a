"""How close bytes are to what they were: accuracy, exact runs, valid UTF-8, edit distance."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Bytes that are looked at as one: about a line.
RUN = 64
# Bytes that an edit distance is counted over at most.
COMPARED = 1024


def byte_accuracy(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """Per cent of the bytes (B, 1, T) that are those of the original: (B,)."""
    same = (values == original).all(1)
    if mask is None:
        return 100 * same.float().mean(1)
    mask = mask.to(same.device)
    return 100 * (same & mask).float().sum(1) / mask.sum(1).clamp(min=1)


def exact_runs(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """Per cent of the runs of RUN bytes, one behind the other, without any error: (B,); the last
    one is what is left, an item shorter than RUN one run.
    """
    wrong = (values != original).any(1)
    length = wrong.shape[1]
    real = torch.ones_like(wrong) if mask is None else mask.to(wrong.device)
    padding = (0, -length % RUN)
    wrong = torch.nn.functional.pad(wrong & real, padding).unflatten(1, (-1, RUN)).any(2)
    counted = torch.nn.functional.pad(real, padding).unflatten(1, (-1, RUN)).any(2)
    good = (~wrong & counted).sum(1)
    return 100 * good.float() / counted.sum(1).clamp(min=1)


def is_utf8(data: bytes) -> bool:
    """Whether bytes are a part of UTF-8: a character may be cut at either end."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    try:
        # What begins a character at the end may go on.
        getincrementaldecoder("utf-8")().decode(data[start:], final=False)
    except UnicodeDecodeError:
        return False
    return True


def valid_utf8(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """100 where an item is valid UTF-8, else 0: (B,); NaN where the original is not."""
    found = []
    pairs = zip(real_bytes(values, mask), real_bytes(original, mask), strict=True)
    for mine, wanted in pairs:
        share = 100.0 if is_utf8(mine) else 0.0
        found.append(share if is_utf8(wanted) else float("nan"))
    return torch.tensor(found)


def real_bytes(values: Tensor, mask: Tensor | None = None) -> list[bytes]:
    """Items (B, 1, T) without what is padded behind them."""
    rows = values[:, 0].cpu().numpy().astype(np.uint8)
    lengths = [rows.shape[1]] * len(rows)
    if mask is not None:
        lengths = mask.sum(1).tolist()
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def edit_distance(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bytes that must be inserted, deleted or replaced (Levenshtein 1966) to make the original of
    an item, for each 100 of it: (B,). Of long items parts of COMPARED bytes are compared, which may
    give a little more.
    """
    wanted = real_bytes(original, mask)
    found = []
    for mine, other in zip(real_bytes(values, mask), wanted, strict=True):
        starts = range(0, len(other), COMPARED)
        parts = [[text[start : start + COMPARED] for start in starts] for text in (mine, other)]
        found.append(100 * levenshtein(*parts).sum() / max(1, len(other)))
    return torch.tensor(found, dtype=torch.float32)


def levenshtein(left: Sequence[bytes], right: Sequence[bytes]) -> NDArray[np.int64]:
    """Fewest insertions, deletions and replacements of bytes that turn one into the other, (n,) of
    n pairs.
    """
    pairs = [_differing(*pair) for pair in zip(left, right, strict=True)]
    left = [first for first, _ in pairs]
    right = [second for _, second in pairs]
    ends = np.array([len(one) for one in right], np.int64)
    given = _padded(right)
    others = _padded(left)
    places = np.arange(given.shape[1] + 1)
    row = np.broadcast_to(places, (len(given), len(places)))
    found = row[np.arange(len(given)), ends].astype(np.int64)
    for count in range(1, others.shape[1] + 1):
        # Without insertions; these are a running minimum, one dearer with every place.
        reached = np.empty(row.shape, np.int64)
        reached[:, 0] = count
        replaced = row[:, :-1] + (given != others[:, count - 1, None])
        reached[:, 1:] = np.minimum(replaced, row[:, 1:] + 1)
        row = np.minimum.accumulate(reached - places, 1) + places
        for number in np.flatnonzero([len(one) == count for one in left]):
            found[number] = row[number, ends[number]]
    return found


def _differing(left: bytes, right: bytes) -> tuple[bytes, bytes]:
    """Both without what they begin and end with alike."""
    start = 0
    shorter = min(len(left), len(right))
    while start < shorter and left[start] == right[start]:
        start += 1
    end = 0
    while end < shorter - start and left[-1 - end] == right[-1 - end]:
        end += 1
    return left[start : len(left) - end], right[start : len(right) - end]


def _padded(texts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Texts as rows, with zeros behind them."""
    width = max((len(one) for one in texts), default=0)
    joined = b"".join(one.ljust(width, b"\0") for one in texts)
    return np.frombuffer(joined, np.uint8).reshape(len(texts), width)
