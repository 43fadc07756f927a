"""What codes tell about a label: mutual information, codes that mark a class, a linear probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...artifact.model import Model
from ...data.dataset import Dataset
from ...errors import VqkitError
from .atlas import Book
from .sample import BATCH_VALUES, Sample

NUM_PERMUTATIONS = 199
MAX_LABELS = 256
# Ridge of the probe, in units of the mean square of the features; the eigenvalues add up to as many
# as there are items.
PENALTIES = 10.0 ** np.arange(-3, 3)
# Significance level, after the correction for the number of tests.
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Information:
    """I(code; label) at P places, bits, by counting; of items that begin anywhere, at any position.

    bits: (P,) float64, as counted: too high, since finite samples look dependent. chance: (P,) the
    mean of the same over permuted labels. p_values: (P,) share of permutations whose largest place
    reaches this one's bits (the largest of all places: that corrects for their number; Westfall and
    Young 1993). p_value: of the mean over places.
    """

    bits: np.ndarray
    chance: np.ndarray
    p_values: np.ndarray
    p_value: float

    @property
    def net(self) -> np.ndarray:
        """(P,) bits above chance, at least 0."""
        return np.maximum(self.bits - self.chance, 0)


@dataclass(frozen=True)
class Mark:
    """A code that occurs in the items of a label more often than by chance.

    row: of the code in its Book. items: with this code; of_label: those of them that have the
    label. lift: P(label | code) / P(label). p_value: exact (hypergeometric), times the number of
    tests.
    """

    label: int
    row: int
    items: int
    of_label: int
    lift: float
    p_value: float


@dataclass(frozen=True)
class Labels:
    """What is known about a label column.

    names: of the labels; numbers: (N,) int64, that of each item of the sample. entropy_bits:
    H(label). information: bits (Q, *grid) in Information's fields, of items that begin anywhere
    (Q,). marks: for each codebook. presence: for each codebook (S, L), items of each label that
    have the code.
    """

    column: str
    names: list[str]
    numbers: np.ndarray
    entropy_bits: float
    information: Information
    marks: list[list[Mark]]
    presence: list[np.ndarray]


def find_column(data: Dataset, column: str | None) -> tuple[str, Sequence[str]] | None:
    """Name and values, one for each item of `data`.

    Of None the groups, or nothing if there are none.

    Errors: VqkitError for a column that DATA does not have, and for one with too few or too many
    different values.
    """
    known = {"group": data.groups, "caption": data.captions}
    labels = known.get(column or "group")
    if labels is None:
        if column is None:
            return None
        have = ", ".join(name for name, values in known.items() if values) or "none"
        raise VqkitError(
            f"{data.name} has no label column '{column}' (it has: {have}); leave --label-column out"
        )
    different = len(set(labels))
    if not 2 <= different <= MAX_LABELS:
        if column is None:
            return None
        raise VqkitError(
            f"label column '{column}' of {data.name} has {different} different values; labels with "
            f"2 to {MAX_LABELS} of them can be explained"
        )
    return column or "group", labels


def explain_labels(
    sample: Sample,
    books: Sequence[Book],
    places: list[list[int]],
    column: tuple[str, Sequence[str]],
    seed: int,
    *,
    by_position: bool,
) -> Labels:
    """Everything in Labels. `places`: along Q, of each book. by_position: whether a position means
    the same in every item.
    """
    column_name, labels = column
    values = [labels[int(index)] for index in sample.indices]
    names = sorted(set(values))
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.array([number_of[value] for value in values], np.int64)
    totals = np.bincount(numbers, minlength=len(names))
    shape = sample.codes.shape[1:] if by_position else sample.codes.shape[1:2]
    together = sample.codes.flatten(1)[..., None] if by_position else sample.codes.flatten(2)
    flat = information(together.numpy(), numbers, np.random.default_rng(seed))
    by_place = Information(
        flat.bits.reshape(shape),
        flat.chance.reshape(shape),
        flat.p_values.reshape(shape),
        flat.p_value,
    )
    presence = []
    marks = []
    for book, where in zip(books, places, strict=True):
        codes = sample.codes[:, where].flatten(1).numpy()
        presence.append(presence_of(codes, book.codes, numbers, len(names)))
        marks.append(marks_of(presence[-1], totals))
    return Labels(column_name, names, numbers, _entropy(totals), by_place, marks, presence)


# ------------------------------------------------------------------------------- mutual information


def information(
    codes: np.ndarray, labels: np.ndarray, generator: np.random.Generator
) -> Information:
    """Of codes (N, P, n), n of which are counted together at each place, and labels (N,), both
    int64; -1 is padding where codes are counted together. Labels are permuted NUM_PERMUTATIONS
    times.
    """
    num_labels = int(labels.max()) + 1
    several = codes.shape[2] > 1
    # Codes of each place as numbers from 0 on, without gaps, and the items that have them.
    found = []
    for column in codes.swapaxes(0, 1):
        items, slots = np.nonzero(column >= 0 if several else np.ones_like(column))
        dense = np.unique(column[items, slots], return_inverse=True)[1]
        found.append((dense, items, _entropy(np.bincount(dense))))

    def bits(labels: np.ndarray) -> np.ndarray:
        """H(code) + H(label) - H(code, label) at each place."""
        result = []
        for dense, items, of_code in found:
            of_items = labels[items]
            joint = _entropy(np.bincount(dense * num_labels + of_items))
            result.append(of_code + _entropy(np.bincount(of_items)) - joint)
        return np.array(result)

    seen = bits(labels)
    shuffles = [generator.permutation(labels) for _ in range(NUM_PERMUTATIONS)]
    permuted = np.stack(list(map(bits, shuffles)))  # (R, P)
    # Sums of the same numbers in another order differ in their last bits.
    slack = 1e-12
    largest = permuted.max(1)
    means = permuted.mean(1)
    p_values = (1 + (largest[:, None] >= seen - slack).sum(0)) / (1 + NUM_PERMUTATIONS)
    p_value = (1 + (means >= seen.mean() - slack).sum()) / (1 + NUM_PERMUTATIONS)
    return Information(seen, permuted.mean(0), p_values, float(p_value))


def _entropy(counts: np.ndarray) -> float:
    """Bits, of counts (n,)."""
    counts = counts[counts > 0]
    total = counts.sum()
    return float(np.log2(total) - (counts * np.log2(counts)).sum() / total)


# -------------------------------------------------------------------------------------------- marks


def presence_of(
    codes: np.ndarray, shown: np.ndarray, labels: np.ndarray, num_labels: int
) -> np.ndarray:
    """(S, L) int64: items of each label in which each of the codes `shown` (S,) occurs.

    codes (N, n), labels (N,).
    """
    row_of = np.full(max(int(codes.max()), int(shown.max())) + 2, -1)
    row_of[shown] = np.arange(len(shown))
    # Padding, -1, takes the last entry, which belongs to no code.
    rows = row_of[codes]
    items = np.broadcast_to(np.arange(len(codes))[:, None], rows.shape)
    pairs = np.unique(np.stack([rows[rows >= 0], items[rows >= 0]]), axis=1)
    keys = pairs[0] * num_labels + labels[pairs[1]]
    return np.bincount(keys, minlength=len(shown) * num_labels).reshape(len(shown), num_labels)


def marks_of(presence: np.ndarray, totals: np.ndarray) -> list[Mark]:
    """The codes that mark a label, by label and then the surest first.

    `totals` (L,) are the items of each label.

    A code can mark the label that it lifts most. The number of tests is codes times labels
    (Bonferroni).
    """
    num = int(totals.sum())
    items = presence.sum(1)
    lifts = presence / np.maximum(items, 1)[:, None] * (num / np.maximum(totals, 1))
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num + 1)))])
    marks = []
    for row in np.nonzero(items)[0]:
        label = int(lifts[row].argmax())
        with_code = int(items[row])
        of_label = int(presence[row, label])
        chance = hypergeometric_tail(of_label, with_code, int(totals[label]), log_factorials)
        p_value = min(1.0, chance * presence.size)
        if p_value <= SIGNIFICANT:
            lift = float(lifts[row, label])
            marks.append(Mark(label, int(row), with_code, of_label, lift, p_value))
    return sorted(marks, key=lambda mark: (mark.label, mark.p_value, -mark.lift))


def hypergeometric_tail(seen: int, drawn: int, special: int, log_factorials: np.ndarray) -> float:
    """P(X >= seen) where `drawn` of N are drawn and `special` of the N count.

    log_factorials (N + 1,).
    """
    num = len(log_factorials) - 1

    def log_choose(n: int, k: np.ndarray) -> np.ndarray:
        return log_factorials[n] - log_factorials[k] - log_factorials[n - k]

    hits = np.arange(seen, min(drawn, special) + 1)
    hits = hits[drawn - hits <= num - special]
    logs = log_choose(special, hits) + log_choose(num - special, drawn - hits)
    logs -= log_choose(num, np.array([drawn]))
    return float(min(1.0, np.exp(logs).sum()))


# -------------------------------------------------------------------------------------------- probe


@dataclass(frozen=True)
class Probe:
    """Accuracy of a linear classifier on items that had no part in it.

    accuracy: by what the classifier sees. error: half the width of the 95 % interval, by the same
    key. majority: of always naming the commonest label. items: train, validation and test.
    """

    accuracy: dict[str, float]
    error: dict[str, float]
    majority: float
    items: tuple[int, int, int]


@torch.no_grad()
def probe(model: Model, samples: Sequence[Sample], labels: Sequence[str]) -> Probe | None:
    """Ridge regression to the labels from what the encoder saw, from the vectors of the codes, and
    from the codes themselves; of items that begin anywhere from means over all positions, and from
    their latents in place of their values.

    samples: train, validation (which chooses the strength of the penalty) and test. labels: of all
    items of the data. None where one of the samples is empty.
    """
    if not all(len(sample) for sample in samples):
        return None
    told = [_labels_of(sample, labels) for sample in samples]
    names = np.unique(told[0])
    train = torch.from_numpy(np.eye(len(names))[np.searchsorted(names, told[0])])
    if model.signal.is_aligned:
        similarities = _by_position(model, samples)
    else:
        similarities = _by_means(model, samples)
    count = len(told[2])
    accuracy = {}
    error = {}
    for kind, grams in similarities.items():
        share = _ridge_accuracy(grams, train, names, told)
        accuracy[kind] = share
        error[kind] = 1.96 * math.sqrt(share * (1 - share) / count)
    majority = names[int(train.sum(0).argmax())]
    sizes = (len(told[0]), len(told[1]), count)
    return Probe(accuracy, error, float((told[2] == majority).mean()), sizes)


def _labels_of(sample: Sample, labels: Sequence[str]) -> np.ndarray:
    return np.array([labels[int(index)] for index in sample.indices])


def _by_position(model: Model, samples: Sequence[Sample]) -> dict[str, list[Tensor]]:
    """By what is seen: the similarity (n, N) of the items of each sample to those of the first."""
    values = []
    vectors = []
    for sample in samples:
        values.append(model.tokenizer.standardise(sample.values).cpu().flatten(1).double())
        vectors.append(model.artifact.network.quantizer.decode(sample.codes).flatten(1).double())
    unit, _ = model.signal.ruler(model.data)
    return {
        unit: _products(values),
        "vectors of the codes": _products(vectors),
        "codes": [_matches(sample, samples[0]) for sample in samples],
    }


def _by_means(model: Model, samples: Sequence[Sample]) -> dict[str, list[Tensor]]:
    """As `_by_position`, from means over the positions of an item that are real."""
    quantizer = model.artifact.network.quantizer
    latents = []
    vectors = []
    shares = []
    for sample in samples:
        real = (sample.codes[:, 0] >= 0).flatten(1).double()
        weights = real / real.sum(1, keepdim=True)
        latents.append(torch.cat(_mean_latents(model, sample, weights)))
        vectors.append(_weighed(quantizer.decode(sample.codes), weights))
        shares.append(_shares(sample.codes, quantizer.codebook_sizes, weights))
    return {
        "latents": _products(latents),
        "vectors of the codes": _products(vectors),
        "codes": _products(shares),
    }


def _mean_latents(model: Model, sample: Sample, weights: Tensor) -> list[Tensor]:
    found = []
    step = max(1, BATCH_VALUES // max(1, sample.values[0].numel()))
    for start in range(0, len(sample), step):
        batch = slice(start, start + step)
        x = model.tokenizer.standardise(sample.values[batch])
        found.append(_weighed(model.network.latents(x).cpu(), weights[batch]))
    return found


def _weighed(latents: Tensor, weights: Tensor) -> Tensor:
    """Latents (N, D, *grid), with as many positions as weights (N, n) or a multiple of it, -> their
    means (N, D) float64.
    """
    cells = latents.flatten(2).double().unflatten(2, (weights.shape[1], -1)).mean(3)
    return torch.einsum("ndt,nt->nd", cells, weights)


def _shares(codes: Tensor, sizes: Sequence[int], weights: Tensor) -> Tensor:
    """How often an item has each code (N, sum of the sizes) float64, its square root, which makes
    frequent codes count less.
    """
    found = []
    for place, size in enumerate(sizes):
        counts = torch.zeros(len(codes), size + 1, dtype=torch.float64)
        # Padding has a column of its own, which is left out.
        counts.scatter_add_(1, codes[:, place].flatten(1) + 1, weights)
        found.append(counts[:, 1:].sqrt())
    return torch.cat(found, 1)


def _products(features: Sequence[Tensor]) -> list[Tensor]:
    return [one @ features[0].T for one in features]


def _matches(first: Sample, second: Sample) -> Tensor:
    """At how many places two items have the same code: the product of one-hot vectors."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64)
    for left, right in zip(first.codes.flatten(1).T, second.codes.flatten(1).T, strict=True):
        total += left[:, None] == right
    return total


def _ridge_accuracy(
    grams: list[Tensor], train: Tensor, names: np.ndarray, told: list[np.ndarray]
) -> float:
    """Accuracy on the last of `told`, with the penalty that is best on the one before it.

    Best by squared error, which ridge regression minimises and which changes smoothly with the
    penalty; the share of right answers of some hundred items jumps, and picks penalties by chance.

    grams: similarity (n, N) of each sample to the training items. Features are centred by centring
    these products.
    """
    own = grams[0]
    columns = own.mean(0)
    centred = [gram - gram.mean(1, keepdim=True) - columns + own.mean() for gram in grams]
    scale = centred[0].diagonal().mean()
    identity = torch.eye(len(train), dtype=torch.float64)
    mean = train.mean(0)
    wanted = torch.from_numpy((told[1][:, None] == names).astype(np.float64))

    best = math.inf
    on_test = 0.0
    for strength in PENALTIES:
        factor = torch.linalg.cholesky(centred[0] + strength * scale * identity)
        weights = torch.cholesky_solve(train - mean, factor)
        error = float((centred[1] @ weights + mean - wanted).square().mean())
        if error < best:
            best = error
            guesses = names[(centred[2] @ weights + mean).argmax(1).numpy()]
            on_test = float((guesses == told[2]).mean())
    return on_test
