"""Kills commands at random moments, 200 times, and counts the artifacts that are whole or go on
afterwards.

    python scripts/kill.py [--quick] [--seed 0] [--json FILE]

A small set of images and tiny models. One after another, `vqkit train`, `train-coder`,
`train-prior`, `compress --bundle` and `prune` run in a process that gets SIGKILL at a moment drawn
uniformly from the time that the command takes when nothing stops it, 40 times each (--quick: 2).
Then the next command runs: the same one again, with --resume where a checkpoint waits. A kill is
survived if every artifact and bundle that was there before still loads and gives the same images,
if the next command ends well or, where a run was killed before its first checkpoint, says in one
sentence what to do, if what it leaves is whole, and if no temporary file is left. Commands run in
forks of a process that has imported everything, so that moments of work are hit and not those of
importing.

Claim kills_survived; the table is in docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from bench.claims import Claim, machine, options, report  # noqa: E402

PARSER = options(__doc__)

KILLS = 40
STEPS = 12
TINY = [
    f"train.steps={STEPS}",
    "train.batch_size=8",
    "train.checkpoint_every=3",
    "train.validate_every=6",
    "train.guard=off",
    "train.precision=float32",
    "data.image_size=null",
    "data.validation=0.1",
    "data.test=0.1",
    "model.network.width=16",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "model.quantizer.codebook_size=32",
    "coder.steps=2",
]
PRIOR = [
    f"train.steps={STEPS}",
    "train.batch_size=8",
    "train.checkpoint_every=3",
    "train.validate_every=6",
    "network.width=32",
    "network.num_blocks=1",
    "network.num_heads=2",
]


@dataclass(frozen=True)
class Work:
    """Folders of one kill: images, and a copy of the artifact that commands work on."""

    images: Path
    folder: Path
    model: Path


@dataclass(frozen=True)
class Command:
    """words: of the command line. again: those of the next command. check: raises AssertionError
    for what is broken.
    begins_anew: whether the command starts without an artifact.
    """

    name: str
    words: Callable[[Work], list[str]]
    again: Callable[[Work], list[str]]
    check: Callable[[Work], None]
    begins_anew: bool = False


# ----------------------------------------------------------------------------------------- commands


def train_words(work: Work) -> list[str]:
    return [
        "train",
        str(work.images),
        "--recipe",
        "images",
        "--out",
        str(work.folder / "run"),
        *TINY,
    ]


def train_again(work: Work) -> list[str]:
    run = work.folder / "run"
    if (run / "report.html").exists():
        return ["info", str(run)]
    if list((run / "checkpoint").glob("step-*.safetensors")):
        return ["train", str(work.images), "--out", str(run), "--resume"]
    return train_words(work)


def train_check(work: Work) -> None:
    check_artifact(work.folder / "run", ["coders.codes", "coders.values"])


def coder_words(work: Work) -> list[str]:
    return ["train-coder", str(work.model), str(work.images), "--force", "--steps", "2"]


def coder_check(work: Work) -> None:
    check_artifact(work.model, ["coders.codes", "coders.values"])
    check_files(work)


def prior_words(work: Work) -> list[str]:
    return ["train-prior", str(work.model), str(work.images), *PRIOR]


def prior_again(work: Work) -> list[str]:
    if list((work.model / "prior" / "checkpoint").glob("step-*.safetensors")):
        return ["train-prior", str(work.model), str(work.images), "--resume"]
    if (work.model / "prior" / "report.html").exists():
        return ["info", str(work.model)]
    return prior_words(work)


def prior_check(work: Work) -> None:
    check_artifact(work.model, ["prior"])
    check_files(work)


def compress_words(work: Work) -> list[str]:
    return [
        "compress",
        str(work.model),
        str(work.images),
        "--bundle",
        "--out",
        str(work.folder / "all.vq"),
    ]


def compress_again(work: Work) -> list[str]:
    if (work.folder / "all.vq").exists():
        return ["verify", str(work.folder / "all.vq"), "--model", str(work.model)]
    return compress_words(work)


def compress_check(work: Work) -> None:
    import vqkit

    with (work.folder / "all.vq").open("rb") as stream:
        assert len(list(vqkit.load(work.model).compressor.read(stream))) == len(
            list(work.images.iterdir())
        )
    check_files(work)


def prune_words(work: Work) -> list[str]:
    words = ["prune", str(work.model), "--data", str(work.images), "--tolerance", "255"]
    return [*words, "--out", str(work.folder / "pruned")]


def prune_again(work: Work) -> list[str]:
    return (
        ["info", str(work.folder / "pruned")]
        if (work.folder / "pruned").exists()
        else prune_words(work)
    )


def prune_check(work: Work) -> None:
    check_artifact(work.folder / "pruned", [])
    check_files(work)


COMMANDS = (
    Command("train", train_words, train_again, train_check, begins_anew=True),
    Command("train-coder", coder_words, coder_words, coder_check),
    Command("train-prior", prior_words, prior_again, prior_check),
    Command("compress --bundle", compress_words, compress_again, compress_check),
    Command("prune", prune_words, prune_again, prune_check),
)


# ------------------------------------------------------------------------------------------- checks


def check_artifact(folder: Path, parts: list[str]) -> None:
    """It loads without a word and has these parts."""
    from vqkit.artifact.store import load_artifact

    artifact = load_artifact(folder)
    assert not artifact.problems, artifact.problems
    for part in parts:
        value = artifact
        for name in part.split("."):
            value = getattr(value, name)
        assert value is not None, f"{folder} has no {part}"


def check_files(work: Work) -> None:
    """Files that were written with the model before the kill give the images that they gave
    then.
    """
    import vqkit

    model = vqkit.load(work.model)
    for name in ("codes", "values"):
        found = model.decompress(work.folder / f"before-{name}.vq")
        assert np.array_equal(found, np.load(work.folder / f"before-{name}.npy")), name


def leftovers(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(".tmp")
    ]


# -------------------------------------------------------------------------------------------- kills


def start(words: list[str], output: Path) -> int:
    """The command in a fork of this process, which leads a group of its own."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = ["vqkit", *words]
        import torch

        # A fork makes PyTorch's pool of threads again when it first asks for it, which two threads
        # at once must not.
        torch.set_num_threads(1)
        from vqkit.cli import main as command_line

        status = command_line(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def run(words: list[str], output: Path, after: float | None = None) -> tuple[int | None, float]:
    """Exit status, None if it was killed `after` seconds, and the seconds that it took."""
    began = time.monotonic()
    child = start(words, output)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            return os.waitstatus_to_exitcode(status), seconds
        if after is not None and seconds >= after:
            os.killpg(child, signal.SIGKILL) if _has_group(child) else os.kill(
                child, signal.SIGKILL
            )
            os.waitpid(child, 0)
            return None, seconds
        time.sleep(0.001)


def _has_group(child: int) -> bool:
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False


def one_kill(command: Command, work: Work, after: float) -> str:
    """What became of it: whole, resumed, repeated, begun anew, or what is wrong."""
    output = work.folder / "output.txt"
    status, _ = run(command.words(work), output, after)
    if status not in (None, 0):
        return f"failed: {output.read_text()[-300:]}"
    if not command.begins_anew:
        check_artifact(work.model, [])
        check_files(work)
    words = command.again(work)
    kind = "whole"
    if words[0] == command.words(work)[0]:
        kind = "resumed" if "--resume" in words else "repeated"
    status, _ = run(words, output)
    if status == 2 and command.begins_anew and kind == "repeated":
        # Before the first checkpoint there is nothing to go on from, and nothing that is replaced
        # unasked.
        said = output.read_text()
        if "choose another --out" not in said or "Traceback" in said:
            return f"says no sentence: {said[-300:]}"
        left = leftovers(work.folder)
        if left:
            return f"left over: {left}"
        shutil.rmtree(work.folder / "run")
        kind = "begun anew"
        status, _ = run(words, output)
    if status != 0:
        return f"next command failed: {' '.join(words[:1])}: {output.read_text()[-300:]}"
    command.check(work)
    left = leftovers(work.folder)
    return f"left over: {left}" if left else kind


def kills_of(command: Command, base: Path, count: int, seed: int) -> Counter:
    """Outcomes of a command that is killed `count` times."""
    random = np.random.default_rng([seed, COMMANDS.index(command)])
    outcomes: Counter = Counter()
    seconds = 0.0
    for number in range(-1, count):
        work = fresh(base, base.parent / "work")
        if number < 0:
            status, seconds = run(command.words(work), work.folder / "output.txt")
            assert status == 0, (work.folder / "output.txt").read_text()
        else:
            after = float(random.uniform(0, seconds))
            try:
                found = one_kill(command, work, after)
            except Exception as error:  # whatever is broken is counted
                found = f"broken: {type(error).__name__}: {error}"
            if found not in ("whole", "resumed", "repeated", "begun anew"):
                print(f"{command.name} after {after:.3f} of {seconds:.3f} s: {found}", flush=True)
            outcomes[found] += 1
        shutil.rmtree(work.folder)
    print(f"{command.name:<18} {seconds:5.1f} s  {dict(outcomes)}", flush=True)
    return outcomes


def fresh(base: Path, folder: Path) -> Work:
    shutil.copytree(base, folder)
    return Work(folder / "images", folder, folder / "model")


def prepared(base: Path) -> None:
    """Images, a model with coders, and files that were written with it."""
    from PIL import Image

    import vqkit

    images = base / "images"
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(48):
        smooth = np.kron(random.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(images / f"{number:02}.png")
    model = vqkit.train(images, base / "model", "images", TINY)
    image = np.asarray(Image.open(images / "00.png"))
    for name, lossless in (("codes", False), ("values", True)):
        (base / f"before-{name}.vq").write_bytes(model.compress(image, lossless=lossless))
        np.save(base / f"before-{name}.npy", model.decompress(base / f"before-{name}.vq"))


def main() -> None:
    arguments = PARSER.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    count = 2 if arguments.quick else KILLS
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        child = os.fork()
        if not child:
            # In a process of its own: what this one imports and starts must be forkable.
            import vqkit.cli

            prepared(base)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        import vqkit.cli  # noqa: F811
        import vqkit.pipelines.autoencoder
        import vqkit.pipelines.prior  # noqa: F401

        outcomes = {
            command.name: kills_of(command, base, count, arguments.seed) for command in COMMANDS
        }
    survived = ("whole", "resumed", "repeated", "begun anew")
    total = sum(outcomes.values(), Counter())
    print(f"| command | kills | {' | '.join(survived)} | lost |\n|---|---|---|---|---|---|---|")
    for name, counts in outcomes.items():
        cells = [counts[kind] for kind in survived]
        lost = counts.total() - sum(cells)
        print(f"| `{name}` | {' | '.join(map(str, [counts.total(), *cells, lost]))} |")
    settings = {**machine(), "seed": arguments.seed, "seconds": time.monotonic() - began}
    settings["outcomes"] = {name: dict(counts) for name, counts in outcomes.items()}
    number = sum(total[kind] for kind in survived)
    report(
        [
            Claim(
                "kills_survived", number, f"of {total.total()}", str(total.total()), None, settings
            )
        ],
        arguments,
    )
    print(json.dumps(settings["outcomes"]))


if __name__ == "__main__":
    main()
