"""The coder of bytes: every byte comes back, items know nothing of one another, and training texts
make files small.
"""

import json
import lzma

import numpy as np
import pytest

from tests import processes
from vqkit.coding import BytesCoder, CorruptCodes
from vqkit.coding.values import bytes as module
from vqkit.coding.values.bytes_state import NEXT, STATES


def records(count, seed=0):
    rng = np.random.default_rng(seed)
    names = ["Ada", "Grace", "Edsger", "Barbara", "Niklaus"]
    found = []
    for _ in range(count):
        tree = {
            "name": names[rng.integers(5)],
            "visits": int(rng.integers(1000)),
            "active": bool(rng.integers(2)),
        }
        found.append(json.dumps(tree).encode())
    return found


def encoded(coder, item):
    return coder.encode(np.frombuffer(item, np.uint8)[None, None].astype(np.int64))[0]


def decoded(coder, payloads, length):
    return coder.decode([payloads], (length,))[0, 0].tobytes()


@pytest.fixture(scope="module")
def coder():
    return BytesCoder.fitted(records(60))


AWKWARD = [b"\0", b"\0" * 50, bytes(range(256)), b"\xff\xfe" * 9, "Grüße, 世界".encode(), b"a" * 99]


@pytest.mark.parametrize("item", [*AWKWARD, *records(3, seed=1)], ids=range(len(AWKWARD) + 3))
def test_every_byte_comes_back(coder, item):
    assert decoded(coder, encoded(coder, item), len(item)) == item


def test_items_do_not_depend_on_what_was_coded_before(coder, monkeypatch):
    first, second = records(2, seed=2)
    alone = encoded(BytesCoder.from_tensors(coder.tensors()), second)
    for before in (first, second, bytes(300)):
        encoded(coder, before)
        decoded(coder, encoded(coder, before), len(before))
        assert encoded(coder, second) == alone
    # Items that are coded in several parts are put back as a whole.
    monkeypatch.setattr(module, "TOGETHER", 50)
    assert encoded(coder, second) == alone
    assert decoded(coder, alone, len(second)) == second
    assert encoded(coder, first + second) != alone
    assert encoded(coder, second) == alone


def test_training_texts_make_small_files(coder):
    """A record costs less than a third of what it does without them, and of what xz makes of it."""
    items = records(10, seed=3)
    cold = BytesCoder.fitted([])
    warm_bytes = sum(len(encoded(coder, item)[0]) for item in items)
    assert 3 * warm_bytes < sum(len(encoded(cold, item)[0]) for item in items)
    assert 3 * warm_bytes < sum(len(lzma.compress(item)) for item in items)


def test_bytes_that_end_too_soon_are_corrupt(coder):
    noise = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    payload = encoded(coder, noise)[0]
    with pytest.raises(CorruptCodes):
        decoded(coder, [payload[: len(payload) // 4]], len(noise))
    # The coder is as it was.
    assert decoded(coder, [payload], len(noise)) == noise


def test_states_count_what_they_have_seen():
    """From any state, equal bits lead to one where they are all that is left, and stay there."""
    assert NEXT.min() >= 0 and NEXT.max() < len(STATES) == 213
    for state in range(len(STATES)):
        for bit in (0, 1):
            counts = STATES[NEXT[state, bit]]
            assert counts[bit] >= 1
            now = state
            for _ in range(60):
                now = NEXT[now, bit]
            assert now == NEXT[now, bit] and STATES[now][bit] > STATES[now][1 - bit]


@pytest.mark.parametrize(
    "broken",
    [
        lambda tensors: tensors.pop("maps"),
        lambda tensors: tensors.update(maps=tensors["maps"][:-1]),
        lambda tensors: tensors.update(maps=tensors["maps"].astype(np.int64)),
        lambda tensors: tensors.update(history=tensors["history"][:3]),
        lambda tensors: tensors.update(buckets=tensors["buckets"][:-16]),
        # A state that there is not would be a place outside of the tables.
        lambda tensors: tensors["buckets"].__setitem__(17, 213),
        lambda tensors: tensors["matches"].__setitem__(1, 256),
        lambda tensors: tensors["final"].__setitem__(0, 1 << 28),
        lambda tensors: tensors["by_node"].__setitem__(5, (1 << 24) + 1),
    ],
)
def test_broken_tensors_are_refused(coder, broken):
    tensors = {name: value.copy() for name, value in coder.tensors().items()}
    broken(tensors)
    with pytest.raises(ValueError):
        BytesCoder.from_tensors(tensors)


BOTH = """
import sys
import numpy as np
from vqkit.coding import BytesCoder
texts = [b'{"name": "Ada", "visits": 12}', bytes(range(256)), b"one two three one two three"]
coder = BytesCoder.fitted(texts)
for tensor in coder.tensors().values():
    sys.stdout.write(f"{int(tensor.astype(np.int64).sum())} ")
for item in (b'{"name": "Grace"}', bytes(range(255, -1, -1)) * 3):
    payloads = coder.encode(np.frombuffer(item, np.uint8)[None, None].astype(np.int64))
    assert coder.decode(payloads, (len(item),))[0, 0].tobytes() == item
    sys.stdout.write(payloads[0][0].hex() + " ")
"""


def test_the_bytes_are_those_of_plain_python():
    pytest.importorskip("numba")
    compiled = processes.run(["-c", BOTH])
    plain = processes.run(["-c", BOTH], {"NUMBA_DISABLE_JIT": "1"})
    assert compiled.returncode == 0, compiled.stderr
    assert plain.returncode == 0, plain.stderr
    assert compiled.stdout == plain.stdout
