"""What happens when codes change (swaps, importance, residual stages), and what is unlikely."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...artifact.model import Model
from ...errors import VqkitError
from .atlas import Book
from .sample import BATCH_SIZE, Sample, decoded, shrunk

# Codes that are swapped for one another, and how many of the most used they are chosen from.
NUM_SWAPPED = 8
NUM_COMMON = 64
# Pixels along a side of an image on the page.
MAX_SIDE = 96
# Images that are decoded to measure importance.
MAX_DECODED = 4096
NUM_SHOWN = 12
MAX_STAGES = 8
# Codes that the prior is asked about.
MAX_SCORED = 1 << 15


@dataclass(frozen=True)
class Swap:
    """Code `code` replaced by `other` in one real image, at the first place of the first codebook.

    image: row of the sample, or of the training images. place: (row, column) of the one that is
    swapped. places: (h, w) bool, all of them. here and everywhere: root mean square of the change
    in levels, over the whole image. shown: uint8 (3, H, W, C), as it was, swapped here, swapped
    everywhere.
    """

    code: int
    other: int
    image: int
    place: tuple[int, int]
    places: np.ndarray
    here: float
    everywhere: float
    shown: np.ndarray


@dataclass(frozen=True)
class Peel:
    """A residual model decoded from its first stages: counts of stages, PSNR in dB and bits of an
    image (T,) each.

    originals: uint8 (n, H, W, C). shown: uint8 (T, n, H, W, C).
    """

    stages: list[int]
    psnr: list[float]
    bits: list[float]
    originals: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Surprise:
    """Images and what their codes cost under the prior, the least likely first.

    shown: uint8 (n, H, W, C). bits: (n, h, w) float64, over all codes of a position. ranks: (n,)
    among `images`, 1 for the least likely. names: (n,).
    """

    shown: np.ndarray
    bits: np.ndarray
    ranks: list[int]
    names: list[str]
    images: int


# -------------------------------------------------------------------------------------------- swaps


@torch.no_grad()
def swaps(
    model: Model, sample: Sample, book: Book, wanted: Sequence[tuple[int, int]], training: Sample
) -> list[Swap]:
    """Much used codes that differ for one another, and those that are `wanted`: (code, other)
    pairs.

    A code that is wanted but in no image of the sample is looked for in those of training, which
    the book counts.
    Errors: VqkitError for a code that is not in the codebook, or in none of the images.
    """
    size = len(book.counts)
    swapped: dict[tuple[int, int], Swap] = {}
    for code, other in wanted:
        if not (0 <= code < size and 0 <= other < size):
            raise VqkitError(
                f"--swap {code} {other}: codes of the first codebook are 0 to {size - 1}"
            )
        if (sample.codes[:, 0] == code).any():
            images = sample
        elif (training.codes[:, 0] == code).any():
            images = training
        else:
            raise VqkitError(f"--swap {code} {other}: code {code} occurs in none of the images")
        swapped[code, other] = _swap(model, images, code, other)
    for code, other in itertools.permutations(_different(model, sample.codes[:, 0]), 2):
        if (code, other) not in swapped:
            swapped[code, other] = _swap(model, sample, code, other)
    return list(swapped.values())


def _different(model: Model, codes: Tensor) -> list[int]:
    """NUM_SWAPPED of the NUM_COMMON most used codes: the most used, then each time the one farthest
    from all taken.
    """
    counts = torch.bincount(codes[codes >= 0], minlength=NUM_SWAPPED)
    num_used = int((counts > 0).sum())
    common = counts.argsort(descending=True, stable=True)[: min(NUM_COMMON, num_used)]
    vectors = model.artifact.network.quantizer.parts()[0].lookup(common[:, None])
    apart = torch.cdist(vectors, vectors)
    taken = [0]
    while len(taken) < min(NUM_SWAPPED, len(common)):
        taken.append(int(apart[taken].amin(0).argmax()))
    return [int(common[place]) for place in sorted(taken)]


def _swap(model: Model, sample: Sample, code: int, other: int) -> Swap:
    """In the image that has the code most often; here: the occurrence nearest to the middle."""
    is_code = sample.codes[:, 0] == code
    image = int(is_code.flatten(1).sum(1).argmax())
    places = is_code[image]
    high, wide = places.shape
    rows, columns = places.nonzero().T
    from_middle = (rows - (high - 1) / 2) ** 2 + (columns - (wide - 1) / 2) ** 2
    nearest = int(from_middle.argmin())
    row = int(rows[nearest])
    column = int(columns[nearest])
    # As it was, swapped here, swapped everywhere.
    variants = sample.codes[image].repeat(3, 1, 1, 1)
    variants[1, 0, row, column] = other
    variants[2, 0][places] = other
    values = decoded(model, variants)
    changes = values[1:].float() - values[:1].float()
    here, everywhere = changes.square().flatten(1).mean(1).sqrt().tolist()
    shown = shrunk(values, MAX_SIDE)
    return Swap(code, other, image, (row, column), places.numpy(), here, everywhere, shown)


# --------------------------------------------------------------------------------------- importance


@torch.no_grad()
def importance(
    model: Model, sample: Sample, progress: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """(h, w) float64: how far an image changes when the codes of a position are another image's.

    Root mean square over images and values, in levels.
    """
    rows, columns = sample.codes.shape[2:]
    codes = sample.codes[: max(4, MAX_DECODED // (rows * columns))]
    before = decoded(model, codes).float()
    others = codes.roll(1, 0)
    changes = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            swapped = codes.clone()
            swapped[:, :, row, column] = others[:, :, row, column]
            change = decoded(model, swapped).float() - before
            changes[row, column] = float(change.square().double().mean().sqrt())
        progress((row + 1) / rows)
    return changes


# --------------------------------------------------------------------------------------------- peel


@torch.no_grad()
def peel(model: Model, sample: Sample) -> Peel | None:
    """None for models whose first stages cannot be decoded alone."""
    quantizer = model.artifact.network.quantizer
    prefixes = quantizer.prefixes
    total = len(prefixes)
    if total < 2:
        return None
    counts = sorted({round(count) for count in np.linspace(1, total, min(total, MAX_STAGES))})
    cells = sample.codes[0, 0].numel()
    order = torch.arange(quantizer.num_codebooks)[:, None, None]
    figures: list[float] = []
    shown: list[np.ndarray] = []
    for count in counts:
        codes = sample.codes.where(order < prefixes[count - 1], -1)
        values = []
        for start in range(0, len(codes), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            measured = model.signal.measures(decoded(model, codes[part]), sample.images[part])
            values.append(measured[model.signal.quality])
        figures.append(float(torch.cat(values).double().mean()))
        shown.append(shrunk(decoded(model, codes[:NUM_SHOWN]), MAX_SIDE))
    sizes = np.log2(quantizer.codebook_sizes)
    bits = [float(sizes[: prefixes[count - 1]].sum()) * cells for count in counts]
    return Peel(counts, figures, bits, shrunk(sample.images[:NUM_SHOWN], MAX_SIDE), np.stack(shown))


# ----------------------------------------------------------------------------------------- surprise


@torch.no_grad()
def surprise(model: Model, sample: Sample, names: Sequence[str]) -> Surprise | None:
    """The least and the most likely images, told nothing; None without a prior.

    `names`: of all items of the data.
    """
    if model.prior is None:
        return None
    num = max(NUM_SHOWN, MAX_SCORED // sample.codes[0].numel())
    bits = model.prior.code_bits(sample.codes[:num]).sum(1)  # (n, h, w)
    order = bits.flatten(1).sum(1).argsort(descending=True)
    half = NUM_SHOWN // 2
    # Both ends, of which neither takes what the other one has.
    ranks = torch.arange(len(order))
    ranks = torch.cat([ranks[:half], ranks[half:][-half:]])
    kept = order[ranks]
    labels = [names[int(sample.indices[int(image)])] for image in kept]
    shown = shrunk(sample.images[kept], MAX_SIDE)
    return Surprise(shown, bits[kept].numpy(), (ranks + 1).tolist(), labels, len(order))
