"""Text: lossless files beside zstd, xz, bzip2 and gzip, what codes of five bits a byte give back
with and without a search for them, and how many wrong bytes a denoiser makes right.

    python benchmarks/text.py [--only codes|denoise] [--minutes M] [--json FILE]

Records are functions of PyTorch's Python sources (nn, optim, utils) and the entries of a JSON file
of it, 100 to 1,000 bytes each; nine of ten are trained on, and the others are one bundle. zstd has
a dictionary made of the same training records, of the size that serves it best. The stream is every
twelfth file of Debian's fortunes, joined, the others being trained on. Every byte of a file counts,
and every file is decoded and compared.
"""

from __future__ import annotations

import ast
import bz2
import json
import lzma
import random
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from bench.claims import Claim, machine, options, report
from bench.debian_packages import unpacked

PARSER = options(__doc__)
PARSER.add_argument("--minutes", type=float, default=10.0, help="of training the tokenizer")
PARSER.add_argument("--only", choices=["codes", "denoise"], help="this part alone")

RECORD = range(100, 1001)
# Bytes that are right or wrong together.
RUN = 64
NUM_FUNCTIONS = 3000
# Parts of PyTorch whose sources are read.
PARTS = ("nn", "optim", "utils")
# Sizes of dictionaries that zstd is given to choose from.
DICTIONARIES = (1 << 14, 1 << 15, 1 << 16, 112_640, 1 << 18)
FORTUNES = ("fortunes", "fortunes-min")
# Of the files in order, which are for test.
EVERY = 12
TESTED = 5
# Shares of wrong bytes in what is repaired: two thirds of them other letters, the others neighbours
# that changed places.
NOISES = (0.02, 0.05)
# Of `vqkit compress --effort`, with which files of codes are written.
EFFORTS = (0, 1, 3)
# Nothing of the tokenizer is in lossless files but its name.
NO_CODES = [
    "train.steps=1",
    "train.max_minutes=null",
    "coder.steps=1",
    "data.test=0",
    "model.network={kind: bytes, width: 16, embedding: 4, encoder_blocks: 0, decoder_blocks: 0}",
]


def functions() -> list[bytes]:
    """Functions of PyTorch's sources, no two alike, in an order that a seed decides."""
    import torch

    found = set()
    root = Path(torch.__file__).parent
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        lines = source.splitlines(keepends=True)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                text = "".join(lines[node.lineno - 1 : node.end_lineno]).encode()
                if len(text) in RECORD:
                    found.add(text)
    return shuffled(found)[:NUM_FUNCTIONS]


def entries() -> list[bytes]:
    """Entries of PyTorch's list of what its compiler cannot do, as lines of JSON."""
    import torch

    path = Path(torch.__file__).parent / "_dynamo" / "graph_break_registry.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    lines = {json.dumps(entry).encode() for group in tree.values() for entry in group}
    return shuffled(line for line in lines if len(line) in RECORD)


def shuffled(records) -> list[bytes]:
    found = sorted(records)
    random.Random(0).shuffle(found)
    return found


def write_records(folder: Path, records: Sequence[bytes], suffix: str) -> None:
    folder.mkdir(parents=True)
    for number, record in enumerate(records):
        (folder / f"{number:05}{suffix}").write_bytes(record)


def fitted(source: Path, out: Path, overrides: Sequence[str]):
    """A model that lossless files are written with."""
    import vqkit

    return vqkit.train(source, out, recipe="text", overrides=[*NO_CODES, *overrides])


def zstd_bytes(train: Sequence[bytes], test: Sequence[bytes]) -> tuple[int, int]:
    """Bytes of all records, a frame each without anything that can be left out, and the size of the
    dictionary that gives the fewest.
    """
    import zstandard

    found = []
    for size in DICTIONARIES:
        try:
            dictionary = zstandard.train_dictionary(size, list(train), level=19)
        except zstandard.ZstdError:
            continue
        compressor = zstandard.ZstdCompressor(
            level=19,
            dict_data=dictionary,
            write_checksum=False,
            write_content_size=False,
            write_dict_id=False,
        )
        found.append((sum(len(compressor.compress(one)) for one in test), size))
    return min(found)


def records_measured(name: str, records: list[bytes], suffix: str, work: Path) -> dict:
    from vqkit import cli

    num_train = len(records) * 9 // 10
    train, test = records[:num_train], records[num_train:]
    write_records(work / name / "train", train, suffix)
    write_records(work / name / "test", test, suffix)
    model = work / name / "model"
    fitted(work / name / "train", model, ["data.validation=0"])
    files = sorted(map(str, (work / name / "test").iterdir()))
    bundle = work / name / "all.vq"
    assert not cli.main(
        ["compress", str(model), *files, "--lossless", "--bundle", "--out", str(bundle)]
    )
    back = work / name / "back"
    words = ["decompress", str(bundle), "--model", str(model), "--out-dir", str(back)]
    assert not cli.main(words)
    for path in (work / name / "test").iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes(), path
    theirs, dictionary = zstd_bytes(train, test)
    return {
        "records": len(test),
        "trained_on": len(train),
        "bytes": sum(map(len, test)),
        "ours": bundle.stat().st_size,
        "zstd": theirs,
        "dictionary": dictionary,
        "xz": sum(len(lzma.compress(one, preset=9)) for one in test),
    }


def fortunes(folder: Path) -> None:
    """Files for training and for test, in folders of those names."""
    found: dict[str, bytes] = {}
    for package in FORTUNES:
        with unpacked(package) as files:
            for path in (files / "usr/share/games/fortunes").iterdir():
                if not path.suffix and not path.is_symlink():
                    found[path.name] = path.read_bytes()
    for number, name in enumerate(sorted(found)):
        part = "test" if number % EVERY == TESTED else "train"
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{name}.txt").write_bytes(found[name])


def main() -> None:
    chosen = PARSER.parse_args()
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if chosen.only:
            fortunes(work / "fortunes")
            measure = code_claims if chosen.only == "codes" else denoise_claims
            report(measure(work / "fortunes", chosen), chosen)
            return
        sets = {"python": (functions(), ".py"), "json": (entries(), ".json")}
        measured = {}
        for name, (records, suffix) in sets.items():
            if chosen.quick:
                records = records[:300]
            measured[name] = records_measured(name, records, suffix, work)
            print(name, measured[name], flush=True)
        totals = [sum(one[key] for one in measured.values()) for key in ("ours", "zstd")]
        claims.append(
            Claim(
                "text_record_bytes_vs_zstd_dict",
                totals[0] / totals[1],
                "share",
                "<= 0.65",
                "zstd -19 with a dictionary",
                measured | machine(),
            )
        )
        fortunes(work / "fortunes")
        claims += stream_claims(work / "fortunes")
        claims += code_claims(work / "fortunes", chosen)
        claims += denoise_claims(work / "fortunes", chosen)
    report(claims, chosen)


def stream_claims(folder: Path) -> list[Claim]:
    """Bits a byte of the test files, joined, and how fast they are decoded."""
    model = fitted(folder / "train", folder / "lossless", ["data.validation=0"])
    content = b"".join(path.read_bytes() for path in sorted((folder / "test").iterdir()))
    file = model.compress(content, lossless=True)
    # The kernel is compiled and loaded by now.
    began = time.process_time()
    back = model.decompress(file)
    seconds = time.process_time() - began
    assert bytes(back) == content
    sizes = {
        "gzip -9": len(zlib.compress(content, 9)),
        "bzip2 -9": len(bz2.compress(content, 9)),
        "xz -9e": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
    }
    try:
        import zstandard

        sizes["zstd -19"] = len(zstandard.compress(content, 19))
    except ImportError:
        pass
    bits = {name: 8 * size / len(content) for name, size in sizes.items()}
    ours = 8 * len(file) / len(content)
    print("stream", len(content), ours, bits, seconds, flush=True)
    settings = {"bytes": len(content), "peers": bits, **machine()}
    return [
        Claim("text_stream_bits_per_byte", ours, "bits/byte", "<= 2.2", "xz", settings),
        Claim("text_decode_kb_per_s", len(content) / 1e3 / seconds, "kB/s", ">= 200", None, {}),
    ]


def overrides(chosen) -> list[str]:
    found = [f"seed={chosen.seed}", "data.item=bytes:16384", "data.test=0", "coder.steps=0"]
    if chosen.quick:
        return [*found, "train.steps=20", "train.max_minutes=null"]
    return [*found, f"train.max_minutes={chosen.minutes}"]


def code_claims(folder: Path, chosen) -> list[Claim]:
    """What comes back of the test files through five bits a byte, after minutes of training: of
    pieces as they are trained on, and of whole files by effort.
    """
    import vqkit
    from vqkit.apps.evaluate import evaluate, open_for

    model = vqkit.train(
        folder / "train", folder / "codes", recipe="text", overrides=overrides(chosen)
    )
    data = open_for(model, folder / "test", "all")
    found = evaluate(model, data, "all").metrics
    print("codes", found, flush=True)
    settings = {**found, "minutes": chosen.minutes, "steps": model.metrics["step"], **machine()}
    accuracy, exact = found["byte_accuracy"], found["exact_64_bytes"]
    claims = [
        Claim("text_byte_accuracy", accuracy, "%", ">= 99", None, settings),
        Claim("text_exact_64_bytes", exact, "%", ">= 60", None, {}),
    ]
    for effort in EFFORTS[:2] if chosen.quick else EFFORTS:
        files = [path.read_bytes() for path in sorted((folder / "test").iterdir())]
        measured = files_measured(model, [files[0][:1024]] if chosen.quick else files, effort)
        print(f"effort {effort}", measured, flush=True)
        accuracy, exact = measured["byte_accuracy"], measured["exact_64_bytes"]
        name = f"effort_{effort}"
        claims += [
            Claim(f"text_byte_accuracy_{name}", accuracy, "%", ">= 99", None, measured),
            Claim(f"text_exact_64_bytes_{name}", exact, "%", ">= 60", None, {}),
        ]
    return claims


def files_measured(model, texts: Sequence[bytes], effort: int) -> dict:
    """What comes back of files of codes that are written with an effort, and what they take."""
    import numpy as np

    size = 0
    seconds = 0.0
    wrong, runs = [], []
    for content in texts:
        began = time.process_time()
        file = model.compress(content, effort=effort)
        seconds += time.process_time() - began
        back = np.frombuffer(bytes(model.decompress(file)), np.uint8)
        found = back != np.frombuffer(content, np.uint8)
        size += len(file)
        wrong.append(found)
        # The last run of a file is what is left.
        runs.append(np.pad(found, (0, -len(found) % RUN)).reshape(-1, RUN).any(1))
    count = sum(map(len, wrong))
    return {
        "bytes": count,
        "byte_accuracy": 100 * (1 - float(np.concatenate(wrong).mean())),
        "exact_64_bytes": 100 * (1 - float(np.concatenate(runs).mean())),
        "bits_per_byte": 8 * size / count,
        "kb_per_s": count / 1e3 / seconds,
        "s_per_kb": 1e3 * seconds / count,
    }


def denoise_claims(folder: Path, chosen) -> list[Claim]:
    """Points of byte accuracy that `vqkit denoise` gains on the test files."""
    import numpy as np
    import torch

    import vqkit
    from vqkit.apps.denoise import denoise

    model = vqkit.train(
        folder / "train", folder / "clean", recipe="text-denoise", overrides=overrides(chosen)
    )
    content = b"".join(path.read_bytes() for path in sorted((folder / "test").iterdir()))
    clean = np.frombuffer(content[: 1 << 14 if chosen.quick else None], np.uint8)
    claims = []
    for share in (0.0, *NOISES):
        noisy = with_noise(clean, share, chosen.seed)
        found = denoise(model, torch.from_numpy(noisy)[None]).values[0].numpy()
        before, after = (100 * float(np.mean(each == clean)) for each in (noisy, found))
        wrong = noisy != clean
        settings = {
            "before": before,
            "after": after,
            "made_right": 100 * float(np.mean(found[wrong] == clean[wrong])) if share else 0.0,
            "made_wrong": 100 * float(np.mean(found[~wrong] != clean[~wrong])),
            "steps": model.metrics["step"],
            "minutes": chosen.minutes,
            **machine(),
        }
        print(f"noise of {share:.0%}", settings, flush=True)
        if share:
            name = f"text_denoise_points_at_{share:.0%}".replace("%", "")
            claims.append(Claim(name, after - before, "points", "> 0", None, settings))
    return claims


def with_noise(clean, share: float, seed: int):
    """Bytes (N,) of which so many are wrong."""
    import numpy as np

    rng = np.random.default_rng(seed)
    noisy = clean.copy()
    num_wrong = round(share * len(clean))
    for place in rng.integers(0, len(clean) - 1, num_wrong // 6).tolist():
        noisy[[place, place + 1]] = noisy[[place + 1, place]]
    replaced = rng.integers(0, len(clean), num_wrong - 2 * (num_wrong // 6))
    noisy[replaced] = rng.choice(
        np.frombuffer(b"etaoinshrdlcumwfgypbvkjxqz ,.", np.uint8), len(replaced)
    )
    return noisy


if __name__ == "__main__":
    main()
