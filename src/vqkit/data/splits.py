"""Train, validation and test as a pure function of what the items contain and of a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np

from ..errors import VqkitError

DIGEST_BYTES = 16
SPLITS = ("train", "validation", "test")
# Bits of a difference hash in which two images may differ that are taken for the same one, of 64.
NEAR_BITS = 4


def digest(*parts: bytes) -> bytes:
    """16 bytes of SHA-256 over the parts; what items are told apart by."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.digest()[:DIGEST_BYTES]


def pack(digests: list[bytes]) -> np.ndarray:  # (N, 16) uint8
    """Many digests in one array: flat in memory, and shared with worker processes without
    copies.
    """
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def tie(keys: np.ndarray, labels: Iterable[np.ndarray]) -> np.ndarray:  # (N, 16) uint8 -> the same
    """Keys under which items also stay together that have an equal label (int64, (N,)) in any of
    `labels`.

    Chains count: where A shares a file with B, and B its pixels with C, the three get one key. It
    is the smallest key among theirs, so that names and the order of the items do not matter.
    """
    labels = list(labels)
    if not labels or not len(keys):
        return keys
    different, owner = np.unique(keys, axis=0, return_inverse=True)
    # `different` is sorted: the smallest number in a component is that of its smallest key.
    owner = owner.reshape(-1).astype(np.int64)
    component = owner
    while True:
        before = component
        for label in [owner, *labels]:
            _, group = np.unique(label, return_inverse=True)
            smallest = np.full(int(group.max()) + 1, len(different), dtype=np.int64)
            np.minimum.at(smallest, group, component)
            component = smallest[group]
        if np.array_equal(component, before):
            return different[component]


def near(looks: np.ndarray) -> np.ndarray:  # (N,) uint64 -> (N,) int64
    """Labels that are equal for images whose difference hashes differ in at most NEAR_BITS bits,
    chains included.

    Two hashes that differ in so few bits agree in one of NEAR_BITS + 1 bands of bits, so that only
    those that share a band are compared.
    """
    different, owner = np.unique(looks, return_inverse=True)
    label = np.arange(len(different))
    bands = np.array_split(np.arange(64, dtype=np.uint64), NEAR_BITS + 1)
    for band in bands:
        part = (different >> band[0]) & np.uint64((1 << len(band)) - 1)
        order = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.diff(part[order])) + 1
        for members in np.split(order, starts):
            for position, member in enumerate(members[:-1].tolist()):
                others = members[position + 1 :]
                is_near = np.bitwise_count(different[others] ^ different[member]) <= NEAR_BITS
                for other in others[is_near].tolist():
                    _join(label, member, other)
    roots = np.array([_root(label, index) for index in range(len(different))], dtype=np.int64)
    return roots[owner.reshape(-1)]


def _root(label: np.ndarray, index: int) -> int:
    while label[index] != index:
        label[index] = label[label[index]]
        index = int(label[index])
    return index


def _join(label: np.ndarray, first: int, second: int) -> None:
    roots = (_root(label, first), _root(label, second))
    label[max(roots)] = min(roots)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from words and numbers, the same on every machine."""
    return int.from_bytes(digest(repr(parts).encode())[:8], "little") >> 1


def split(
    content: np.ndarray,  # (N, 16) uint8
    keys: np.ndarray,  # (N, 16) uint8
    seed: int,
    fractions: tuple[float, float],
    fixed_test: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Indices (int64) of the splits train, validation and test.

    Items with the same key never part. Keys are put in the order of sha256(seed, key); `fractions`
    of the number of keys (validation, test) are cut off in that order, at least one key for every
    fraction above 0. Neither names nor the order of the files matter: the indices of a split come
    in the order of sha256(seed, content), so that even a training run does not see them.
    A ready-made test set `fixed_test` is taken as it is, and only the validation share is cut from
    the rest.
    Errors: VqkitError if a split stays empty; it says how many different items are needed.
    """
    free = np.arange(len(keys))
    if fixed_test is not None:
        free = np.setdiff1d(free, fixed_test)
    order, owner = _ordered(content[free], keys[free], seed)
    num_keys = int(owner.max(initial=-1)) + 1
    validation, test = fractions
    if fixed_test is not None:
        test = 0.0
    num_validation = _num_held_out(num_keys, validation)
    num_test = _num_held_out(num_keys, test)
    if num_validation + num_test >= num_keys:
        raise VqkitError(_too_few(num_keys, validation, test))
    # Of the ranks of the keys the first are test, the next ones validation.
    is_test = owner < num_test
    is_train = owner >= num_test + num_validation
    free = free[order].astype(np.int64)
    return {
        "train": free[is_train],
        "validation": free[~is_train & ~is_test],
        "test": free[is_test] if fixed_test is None else fixed_test.astype(np.int64),
    }


def _num_held_out(num_keys: int, share: float) -> int:
    """A share of the keys, one at least if it is above 0."""
    if share <= 0:
        return 0
    return max(1, round(share * num_keys))


def _ordered(content: np.ndarray, keys: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the order of sha256(seed, content), and the rank of the key of each among all
    different keys.

    The order within a split goes by content, not by key: the members of a group would sit side by
    side.
    """
    salt = f"vqkit split {seed}:".encode()
    ranks = [digest(salt, key.tobytes()) for key in keys]
    place = {rank: position for position, rank in enumerate(sorted(set(ranks)))}
    shuffled = [digest(salt, item.tobytes()) for item in content]
    order = np.array(sorted(range(len(ranks)), key=shuffled.__getitem__), dtype=np.int64)
    owner = np.array([place[rank] for rank in ranks], dtype=np.int64)
    return order, owner[order]


def _too_few(num_keys: int, validation: float, test: float) -> str:
    requested = []
    cures = []
    for name, share in (("validation", validation), ("test", test)):
        if share > 0:
            requested.append(f"data.{name}={share:g}")
            cures.append(f"data.{name}=0")
    if validation + test >= 1:
        return f"{' and '.join(requested)} leave nothing to train on; their sum must be below 1"
    train = 1 - (validation + test)
    needed = max(len(requested) + 1, math.ceil(1 / train))
    cure = ""
    if cures and num_keys > 0:
        cure = f"; or set {' '.join(cures)}"
    return (
        f"{num_keys} different items are too few for {', '.join(['training', *requested])}: "
        f"{needed} are needed{cure}"
    )
