"""Claims artifact_damage, artifact_damage_crashed, artifact_check_cost: artifacts whose files were
damaged or replaced.

    python benchmarks/artifact_damage.py [--quick] [--seed 0] [--json FILE]

Two models with a prior, coders and a coder that was replaced are trained for a moment on the
built-in emoji, and two of scalar codes. 2,000 times (--quick: 200), half of them for either pair,
one file of the first is damaged in one of KINDS' ways:
bits anywhere; the dtype of a tensor; values of a tensor that become NaN, infinite, random or those
of another tensor; sizes of files and tensors, tensors that are missing or too many; files in the
place of others; settings and the data section of config.json. Damage is a pure function of the seed
and its number.

artifact_damage counts artifacts that load without an error and without a word in
`Artifact.problems`, although a tensor, a setting or a figure that the program uses is another one.
Where all of those are equal the changed bytes meant nothing; their number is reported.
artifact_damage_crashed: loads that end in anything but a VqkitError.
artifact_check_cost: processor time of loading with all checks over that without sums, content id
and search for values that are not finite, medians of alternating loads.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from unittest.mock import PropertyMock, patch

import numpy as np
import torch
from bench.claims import Claim, machine, options, report
from bench.tiny_models import STAGES, train_tiny
from safetensors import safe_open
from safetensors.torch import save_file

PARSER = options(__doc__)

FILES = (
    "model.safetensors",
    "prior.safetensors",
    "coder.safetensors",
    "lossless.safetensors",
    "config.json",
)
TENSOR_FILES = FILES[:-1]
DTYPES = (
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
)
# What settings are replaced by: other numbers, numbers that are none, and other kinds of values.
VALUES = (
    0,
    1,
    -1,
    2,
    7,
    1 << 40,
    0.5,
    1e400,
    -1e300,
    float("nan"),
    True,
    None,
    "",
    "other",
    [],
    {},
    [1, 1],
    [0, 0],
)


# ------------------------------------------------------------------------------------------- damage


class Tensors:
    """The tensors and the metadata of a file, to be written back changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, "pt") as file:
            self.metadata = file.metadata()
            self.values = {name: file.get_tensor(name) for name in file.keys()}

    def any_name(self, rng: np.random.Generator) -> str:
        names = sorted(name for name, value in self.values.items() if value.numel())
        return names[int(rng.integers(len(names)))]

    def write(self) -> None:
        save_file(
            {name: value.contiguous() for name, value in self.values.items()},
            self.path,
            self.metadata,
        )


def tensors_of(folder: Path, rng: np.random.Generator) -> Tensors:
    return Tensors(folder / TENSOR_FILES[int(rng.integers(len(TENSOR_FILES)))])


def bits(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """One to three bits of one file."""
    path = folder / FILES[int(rng.integers(len(FILES)))]
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), rng.integers(1, 4)).tolist():
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def header_bits(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """One bit in the header of a file of tensors."""
    path = folder / TENSOR_FILES[int(rng.integers(len(TENSOR_FILES)))]
    content = bytearray(path.read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    content[int(rng.integers(length))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def dtypes(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """A tensor as another type."""
    file = tensors_of(folder, rng)
    name = file.any_name(rng)
    wanted = [dtype for dtype in DTYPES if dtype != file.values[name].dtype]
    file.values[name] = file.values[name].to(wanted[int(rng.integers(len(wanted)))])
    file.write()


def values(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """One value of a tensor, or all of them, by others of the same type."""
    file = tensors_of(folder, rng)
    name = file.any_name(rng)
    value = file.values[name].clone()
    flat = value.view(-1)
    place = slice(None) if rng.integers(2) else slice(int(rng.integers(len(flat))), None)
    ways = [
        lambda: flat[place].flip(0),
        lambda: torch.zeros_like(flat[place]),
        lambda: flat[place] + 1,
    ]
    if value.is_floating_point():
        ways += [
            lambda made=made: torch.full_like(flat[place], made)
            for made in (np.nan, np.inf, -np.inf)
        ]
        ways += [lambda: torch.randn(flat[place].shape).to(value.dtype)]
    flat[place] = ways[int(rng.integers(len(ways)))]()
    file.values[name] = value
    file.write()


def exchanged(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """A tensor of the other model in its place, or two of one file in each other's."""
    file = tensors_of(folder, rng)
    name = file.any_name(rng)
    if rng.integers(2):
        file.values[name] = Tensors(other / file.path.name).values.get(name, file.values[name] * 0)
    else:
        second = file.any_name(rng)
        file.values[name], file.values[second] = file.values[second], file.values[name]
    file.write()


def sizes(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """A file that is cut off or too long; a tensor of another shape, one too many or too few."""
    choice = int(rng.integers(6))
    if choice < 2:
        path = folder / FILES[int(rng.integers(len(FILES)))]
        content = path.read_bytes()
        path.write_bytes(
            content[: int(rng.integers(len(content)))] if choice else content + rng.bytes(8)
        )
        return
    file = tensors_of(folder, rng)
    name = file.any_name(rng)
    value = file.values.pop(name)
    if choice == 2:
        file.values[name] = value.reshape(-1)[:-1]
    elif choice == 3:
        file.values[name] = value.reshape(1, *value.shape)
    elif choice == 4:
        file.values |= {name: value, f"{name}.more": value.clone()}
    file.write()


def swapped(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """A file of the other model, or another file of this one, in the place of a file."""
    names = [*FILES, *(path.name for path in folder.glob("coder-*"))]
    name = names[int(rng.integers(len(names)))]
    if rng.integers(2) and (other / name).exists():
        shutil.copyfile(other / name, folder / name)
        return
    choices = [each for each in names if each != name]
    second = folder / choices[int(rng.integers(len(choices)))]
    content = (folder / name).read_bytes()
    if rng.integers(2):
        (folder / name).write_bytes(second.read_bytes())
    second.write_bytes(content)


def settings(folder: Path, other: Path, rng: np.random.Generator) -> None:
    """A value of config.json, at any depth, that is another one or gone."""
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    places = list(leaves(tree))
    parent, key = places[int(rng.integers(len(places)))]
    if rng.integers(4):
        parent[key] = VALUES[int(rng.integers(len(VALUES)))]
    else:
        del parent[key]
    path.write_text(json.dumps(tree, indent=2))


def leaves(tree: dict | list):
    """Every place in a tree, inner ones too."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from leaves(tree[key])


Damage = Callable[[Path, Path, np.random.Generator], None]
KINDS: tuple[Damage, ...] = (bits, header_bits, dtypes, values, exchanged, sizes, swapped, settings)


# ----------------------------------------------------------------------------------------- outcomes


def meaning(artifact) -> dict[str, object]:
    """All that the program uses of an artifact, as plain values and tensors."""
    coders = artifact.coders
    found: dict[str, object] = {
        "config": artifact.config.model_dump(),
        "data": dict(artifact.data),
        "rates": dict(coders.rates),
        "older": [sorted(one.tensors()) for one in coders.older],
    }
    found |= {f"model {name}": value for name, value in artifact.network.state_dict().items()}
    for kind, coder in {"codes": coders.codes, "values": coders.values}.items():
        tensors = {} if coder is None else coder.tensors()
        found |= {
            f"{kind} {name}": torch.from_numpy(np.asarray(value)) for name, value in tensors.items()
        }
    for number, coder in enumerate(coders.older):
        found |= {
            f"older {number} {name}": torch.from_numpy(value)
            for name, value in coder.tensors().items()
        }
    prior = artifact.prior
    if prior is not None:
        found["prior"] = (
            prior.config.model_dump(),
            prior.classes,
            prior.has_captions,
            prior.metrics,
        )
        found |= {f"prior {name}": value for name, value in prior.network.state_dict().items()}
    return found


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    if one.keys() != other.keys():
        return False
    return all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def outcome(folder: Path, whole: dict[str, object]) -> str:
    """refused, reported, equal, silent or crashed."""
    from vqkit.artifact.store import load_artifact
    from vqkit.errors import VqkitError

    try:
        artifact = load_artifact(folder)
    except VqkitError:
        return "refused"
    except Exception as error:  # what is counted here is what must not be
        return f"crashed: {type(error).__name__}: {error}"
    if artifact.problems:
        return "reported"
    return "equal" if same(meaning(artifact), whole) else "silent"


def damaged(folder: Path, other: Path, work: Path, count: int, seed: int) -> dict[str, Counter]:
    """Outcomes of every kind of damage."""
    from vqkit.artifact.store import load_artifact

    whole = load_artifact(folder)
    assert (
        not whole.problems
        and whole.prior
        and whole.coders.codes
        and whole.coders.values
        and whole.coders.older
    )
    wanted = meaning(whole)
    assert same(wanted, meaning(load_artifact(folder)))
    outcomes: dict[str, Counter] = {kind.__name__: Counter() for kind in KINDS}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        copy = work / "damaged"
        shutil.copytree(
            folder, copy, ignore=shutil.ignore_patterns("report.html", "samples", "prior")
        )
        kind(copy, other, np.random.default_rng([seed, number]))
        found = outcome(copy, wanted)
        if found.startswith(("crashed", "silent")):
            print(f"{found}: {kind.__name__} {number}", flush=True)
        outcomes[kind.__name__][found.split(":")[0]] += 1
        shutil.rmtree(copy)
    return outcomes


class AnySum(str):
    """Equal to every sum: what a file says is believed."""

    def __ne__(self, other: object) -> bool:
        return False


def check_cost(folder: Path, rounds: int) -> tuple[float, dict]:
    """Seconds of loading with the checks over those without, and both."""
    from vqkit.artifact import coder_files, record, store, tensor_files

    known = json.loads((folder / "config.json").read_text())["content_id"]
    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds):
        for name in times:
            with ExitStack() as stack:
                if name == "without":
                    stack.enter_context(
                        patch.object(
                            record.Artifact, "content_id", PropertyMock(return_value=known)
                        )
                    )
                    stack.enter_context(patch.object(tensor_files, "check_values", lambda *_: None))
                    stack.enter_context(patch.object(tensor_files, "file_sum", lambda *_: AnySum()))
                    stack.enter_context(
                        patch.object(coder_files, "check_id", lambda path, file: None)
                    )
                began = time.process_time()
                store.load_artifact(folder)
                times[name].append(time.process_time() - began)
    seconds = {name: median(values) for name, values in times.items()}
    return seconds["with"] / seconds["without"], seconds


def main() -> None:
    arguments = PARSER.parse_args()
    count = 200 if arguments.quick else 2000
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        outcomes = {}
        for name, stage in STAGES.items():
            first = train_tiny(work / name, arguments.seed, stage)
            second = train_tiny(work / f"{name}-other", arguments.seed + 1, stage)
            found = damaged(first, second, work, count // len(STAGES), arguments.seed)
            outcomes |= {f"{name}, {kind}": counts for kind, counts in found.items()}
        first = work / "codebooks"
        ratio, seconds = check_cost(first, 5 if arguments.quick else 31)
    for name, counts in outcomes.items():
        print(
            f"{name:<24} {', '.join(f'{found} {number}' for found, number in counts.most_common())}"
        )
    total = sum(outcomes.values(), Counter())
    where = {**machine(), "seed": arguments.seed, "damaged": count, "load_seconds": seconds}
    where["outcomes"] = {name: dict(counts) for name, counts in outcomes.items()}
    report(
        [
            Claim("artifact_damage", total["silent"], "", "0", None, where),
            Claim("artifact_damage_crashed", total["crashed"], "", "0", None, where),
            Claim("artifact_damage_meaningless", total["equal"], "", "reported", None, where),
            Claim("artifact_check_cost", ratio, "x", "<= 1.1", "no checks", where),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
