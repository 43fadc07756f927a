"""Claims mutations, mutations_silent, mutations_crashed, mutations_hung: what becomes of damaged
.vq files.

    python benchmarks/damage.py [--quick] [--seed 0] [--json FILE]

100,000 mutations (--quick: 1,000) of fourteen kinds of files, of codes, of a rate and of values,
single, bare and bundles, through the whole decoder: `Compressor.read`, and `describe`, which `vqkit
inspect` shows. Three models that were trained for a moment on the built-in emoji make them, one
with a codebook, one with three residual stages, one with two residual stages of scalar codes;
images are 12x16 pixels, so that a mutation takes some milliseconds. A mutation is a pure function
of the seed and its number.

Every outcome is one of: a named error (a FormatError); `same`, the codes and size that were
written, in files that were cut off their whole stages or blocks, and the decoder says so; `mixed`,
images of the second file that was spliced in, whole, with all of their stages or, in a bundle,
their block; `resized`, the right codes in a bare stream, of which the header has no check sum, with
another size. What is none of them counts as silent. A name may be lost or another, as names have no
check sum. Any other exception is a crash, and a mutation that takes more than DEADLINE seconds of
processor time hangs.
mutations_memory: by how much resident memory was at its peak above what it was before the first
mutation.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays, open_set, values_of
from bench.tiny_models import TINY

PARSER = options(__doc__)

DEADLINE = 10.0
SIZE = (12, 16)
STAGES = 3
MODELS = {
    "file": ["model.quantizer.codebook_size=64"],
    "residual file": [
        "model.quantizer.kind=residual",
        f"model.quantizer.num_stages={STAGES}",
        "model.quantizer.stage={kind: vq, codebook_size: 8}",
        "model.quantizer.quantizer_dropout=0.25",
    ],
    "scalar file": [
        "model.quantizer.kind=residual",
        "model.quantizer.num_stages=2",
        "model.quantizer.stage={kind: scalar, channels: 10, levels: 63}",
    ],
}


@dataclass(frozen=True)
class Subject:
    """One kind of file. model: reads it; files: two of it, with codes (items, Q, h, w) each;
    foreign: a file of the same kind that another model wrote; cuts: where the sections or blocks of
    the first file begin and end.
    """

    model: object
    files: tuple[bytes, bytes]
    codes: tuple[np.ndarray, np.ndarray]
    foreign: bytes
    cuts: list[int]


# ----------------------------------------------------------------------------------------- subjects


def subjects(folder: Path, seed: int) -> dict[str, Subject]:
    """Models are trained by processes of their own, so that the memory of this one is that of
    reading.
    """
    import vqkit

    images = arrays(open_set("emoji", seed), range(12))[:, : SIZE[0], 8 : 8 + SIZE[1]].copy()
    found = {}
    for name, more in MODELS.items():
        first = folder / name
        second = folder / f"{name}-other"
        train = ("train", "emoji", "--recipe", "emoji", *TINY, *more)
        vqkit_run(*train, "--out", str(first), f"seed={seed}")
        if name == "scalar file":
            # A coder of scalar codes has no seed: another one is that of another model.
            vqkit_run(*train, "--out", str(second), f"seed={seed + 1}")
        else:
            shutil.copytree(
                first,
                second,
                ignore=shutil.ignore_patterns("coder.safetensors", "lossless.safetensors"),
            )
            vqkit_run("train-coder", str(second), "emoji", "--steps", "2")
        both = vqkit.load(first), vqkit.load(second)
        found[name] = subject(*both, images, Form())
        found[f"bare {name}"] = subject(*both, images, Form(bare=True))
        if name == "file":
            found["bundle"] = subject(*both, images, Form(bundle=True))
            found["lossless file"] = subject(*both, images, Form(lossless=True))
            found["bare lossless file"] = subject(*both, images, Form(lossless=True, bare=True))
            found["lossless bundle"] = subject(*both, images, Form(lossless=True, bundle=True))
        else:
            rate = next(iter(both[0].artifact.coders.rates))
            assert rate != "full", "a model without lower rates"
            kind = "scalar " if name == "scalar file" else ""
            found[f"{kind}file of a rate"] = subject(*both, images, Form(rate=rate))
            found[f"{kind}bundle of a rate"] = subject(*both, images, Form(rate=rate, bundle=True))
    return found


def vqkit_run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "vqkit", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


@dataclass(frozen=True)
class Form:
    """What is written of images: values or codes, at a rate or all of them; one file or a bundle;
    bare or not.
    """

    lossless: bool = False
    rate: str | None = None
    bundle: bool = False
    bare: bool = False


def subject(model, other, images: np.ndarray, form: Form) -> Subject:
    halves = np.split(images, 2) if form.bundle else (images[:1], images[1:2])
    first, second = (write(model, half, form) for half in halves)
    foreign = write(other, halves[0], replace(form, rate=None))
    codec = model.compressor.codec(lossless=form.lossless, rate=form.rate)
    codes = [model.compressor.held(values_of(half), codec) for half in halves]
    wholes = tuple(np.stack([np.asarray(item) for item in half]) for half in codes)
    return Subject(model, (first, second), wholes, foreign, boundaries(first))


def write(model, images: np.ndarray, form: Form) -> bytes:
    """A file of the first image, or a bundle of all of them in blocks of two items, with names."""
    from vqkit.coding import (
        Block,
        BundleHeader,
        Extents,
        codes_crc,
        read_file,
        write_bundle,
        write_file,
    )

    how = {"lossless": form.lossless, "rate": form.rate}
    if not form.bundle:
        data = model.compress(images[0], "folder/image.png", **how)
        file = read_file(data)
        return write_file(replace(file.header, model_id=None), file.stages) if form.bare else data
    codes = model.compressor.held(values_of(images), model.compressor.codec(**how))
    files = [read_file(model.compress(image, **how)) for image in images]
    one = files[0].header
    extents = Extents([one.extent] * len(codes))
    header = BundleHeader(
        extents,
        one.num_codebooks,
        one.coder,
        one.model_id,
        block_size=2,
        signal=one.signal,
        holds=one.holds,
    )
    payloads = [tuple(stage.payload for stage in file.stages) for file in files]
    blocks = []
    for number in range(header.num_blocks):
        span = slice(header.items(number).start, header.items(number).stop)
        crc = codes_crc(map(np.asarray, codes[span]), number)
        blocks.append(Block(crc, tuple(payloads[span])))
    return write_bundle(header, blocks, [f"{number}.png" for number in range(len(codes))])


def boundaries(data: bytes) -> list[int]:
    from vqkit.coding import BUNDLE, Bundle, profile_of
    from vqkit.coding.format.single import read_layout

    if profile_of(data) == BUNDLE:
        bundle = Bundle(data)
        return [
            bundle.span(0)[0],
            *(bundle.span(number)[1] for number in range(bundle.whole_blocks)),
            len(data),
        ]
    sections = read_layout(data).sections
    return [sections[0].start, *(one.end for one in sections)]


# ---------------------------------------------------------------------------------------- mutations


def flipped(one: Subject, rng: np.random.Generator) -> bytes:
    changed = bytearray(one.files[0])
    for place in rng.integers(0, len(changed), rng.integers(1, 4)).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(one: Subject, rng: np.random.Generator) -> bytes:
    return one.files[0][: int(rng.integers(len(one.files[0])))]


def spliced(one: Subject, rng: np.random.Generator) -> bytes:
    """A beginning of the first file and an end of the second; half of them meet where they
    should.
    """
    first, second = one.files
    start = int(rng.integers(len(first) + 1))
    return (
        first[:start] + second[start if rng.integers(2) else int(rng.integers(len(second) + 1)) :]
    )


def inserted(one: Subject, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(one.files[0]) + 1))
    return one.files[0][:place] + rng.bytes(int(rng.integers(1, 9))) + one.files[0][place:]


def deleted(one: Subject, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(one.files[0])))
    return one.files[0][:place] + one.files[0][place + int(rng.integers(1, 9)) :]


def zeroed(one: Subject, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(one.files[0])))
    length = int(rng.integers(1, 17))
    end = min(place + length, len(one.files[0]))
    return one.files[0][:place] + bytes(end - place) + one.files[0][end:]


def emptied(one: Subject, rng: np.random.Generator) -> bytes:
    """Nothing, the magic bytes alone, noise, or noise behind the magic bytes."""
    return one.files[0][: int(rng.choice([0, 0, 4]))] + rng.bytes(int(rng.choice([0, 5, 200])))


def foreign(one: Subject, rng: np.random.Generator) -> bytes:
    """Another model's file, or an end of it behind our header."""
    return (
        one.foreign if rng.integers(2) else one.files[0][: one.cuts[0]] + one.foreign[one.cuts[0] :]
    )


def swapped(one: Subject, rng: np.random.Generator) -> bytes:
    """Sections or blocks in another order, some of them twice or not at all."""
    data = one.files[0]
    cuts = one.cuts
    parts = [data[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]
    chosen = (
        rng.integers(0, len(parts), rng.integers(0, len(parts) + 2))
        if rng.integers(2)
        else rng.permutation(len(parts))
    )
    return data[: cuts[0]] + b"".join(parts[place] for place in chosen.tolist())


def exchanged(one: Subject, rng: np.random.Generator) -> bytes:
    """Sections or blocks of the first file, some of them those of the second in the same place,
    whole.
    """
    both = [[data[start:end] for start, end in pairwise(boundaries(data))] for data in one.files]
    chosen = [parts[int(rng.integers(2))] for parts in zip(*both, strict=True)]
    return one.files[0][: one.cuts[0]] + b"".join(chosen)


MUTATIONS = (
    flipped,
    truncated,
    spliced,
    inserted,
    deleted,
    zeroed,
    emptied,
    foreign,
    swapped,
    exchanged,
)


# ----------------------------------------------------------------------------------------- outcomes


def outcome(one: Subject, data: bytes) -> str:
    """Name of the error, or same, mixed, resized, silent, crashed, hung: see above."""
    from vqkit.coding import FormatError, describe

    found = []
    error = ""
    signal.setitimer(signal.ITIMER_VIRTUAL, DEADLINE)
    try:
        describe(data)
        for decoded in one.model.compressor.read(data):
            found.append(decoded)
    except FormatError as problem:
        error = type(problem).__name__
    except TimeoutError:
        print(f"hung: {data.hex()}")
        return "hung"
    except Exception as problem:  # what is counted here is what must not be
        print(f"crash: {problem!r} for {data.hex()}")
        return f"crashed: {type(problem).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    judged = judge(one, found, complete=not error)
    if judged == "silent":
        print(f"silent: {data.hex()}")
    # An error may come behind images that are right, as in a bundle that was cut off: they must be
    # right all the same.
    return judged if judged == "silent" or not error else error


def judge(one: Subject, found: list, complete: bool) -> str:
    """Images that were given against those that were written; complete: no error says that some are
    missing.
    """
    wholes = one.codes
    mixed = False
    resized = False
    numbers = [decoded.number for decoded in found]
    if numbers != sorted(set(numbers)) or (complete and numbers != list(range(len(wholes[0])))):
        return "silent"
    for decoded in found:
        if decoded.number >= len(wholes[0]):
            return "silent"
        # Without stages that are marked as missing: they were cut off, or never in a file of that
        # rate.
        codes = np.asarray(decoded.codes)
        given = codes[(codes >= 0).all((1, 2))]
        if len(given) == 0 or (len(given) < wholes[0].shape[1] and not decoded.truncated):
            return "silent"
        of_first, of_second = (
            np.array_equal(given, whole[decoded.number, : len(given)]) for whole in wholes
        )
        if not (of_first or of_second):
            return "silent"
        mixed |= not of_first
        resized |= decoded.extent != SIZE
    if resized:
        return (
            "resized" if one.files[0][3] % 16 == 0 else "silent"
        )  # the low bits are the profile: 0 is bare
    return "mixed" if mixed else "same"


def run(count: int, seed: int) -> tuple[dict[str, Counter], float]:
    """Outcomes by mutation and kind of file, and growth of the peak of resident memory, MB."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGVTALRM, stop)
    with tempfile.TemporaryDirectory() as folder:
        kinds = subjects(Path(folder), seed)
    for one in kinds.values():
        assert outcome(one, one.files[0]) == "same"
    before = kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    outcomes: dict[str, Counter] = {}
    pairs = [(name, mutate) for name in kinds for mutate in MUTATIONS]
    for number in range(count):
        name, mutate = pairs[number % len(pairs)]
        data = mutate(kinds[name], np.random.default_rng([seed, number]))
        outcomes.setdefault(f"{name}, {mutate.__name__}", Counter())[
            outcome(kinds[name], data)
        ] += 1
    return outcomes, (kibibytes("VmHWM") - before) * 1024 / 1e6


def kibibytes(what: str) -> int:
    """Resident memory of this process: VmRSS, now, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    arguments = PARSER.parse_args()
    count = 1_000 if arguments.quick else 100_000
    began = time.perf_counter()
    outcomes, memory = run(count, arguments.seed)
    total = sum(outcomes.values(), Counter())
    crashed = sum(number for name, number in total.items() if name.startswith("crashed"))
    where = {
        **machine(),
        "seed": arguments.seed,
        "seconds": time.perf_counter() - began,
        "outcomes": dict(total),
    }
    where["by_kind"] = {name: dict(counts.most_common()) for name, counts in outcomes.items()}
    print("\n".join(f"{name:<20} {number}" for name, number in total.most_common()))
    claims = [
        Claim("mutations", total.total(), "", ">= 100000", None, where),
        Claim("mutations_silent", total["silent"], "", "0", None, where),
        Claim("mutations_crashed", crashed, "", "0", None, where),
        Claim("mutations_hung", total["hung"], "", "0", None, where),
        Claim("mutations_memory", memory, "MB", "reported", None, where),
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
