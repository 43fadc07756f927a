"""Codebook collapse, made on purpose: is it detected, and does the guard cure it?

    python benchmarks/collapse.py [--quick] [--seed 0] [--json FILE]

Five settings that collapse, on the built-in emoji, each trained with train.guard=warn (before) and
train.guard=act (after). Detected = an event or an error within 200 steps. Cured = at the end the
validation split uses three times as many codes as with warn, and at least 0.9 of what a healthy run
uses: the recipe's own settings with a codebook of that size (a large one cannot be used up by a
small split, of which much is background). A codebook outside of the optimiser is an error under
either setting: detected, and not for the guard to cure. Claims: collapse_detected, collapse_cured.
Without --quick the curves are drawn in docs/figures/collapse.png.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench.claims import Claim, machine, options, report

import vqkit
from vqkit.training import task
from vqkit.training.guard import BrokenCodebook, reachable_usage
from vqkit.training.tasks import autoencoder

PARSER = options(__doc__)

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "collapse.png"
# The emoji recipe in seconds.
SMALL = [
    "train.optimizer=adamw",
    "train.batch_size=32",
    "train.validate_every=50",
    "train.checkpoint_every=100000",
    "train.log_every=10",
    "model.network.width=32",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
]
# Nothing that helps a codebook on its own.
BARE = ["model.quantizer.kmeans_iterations=0", "model.quantizer.revive_threshold=0"]


@contextmanager
def scattered_codes() -> Iterator[None]:
    """Codes begin a thousand times too far out: the innermost one wins everything."""
    build = autoencoder.build_model

    def scattered(*arguments: Any) -> Any:
        model = build(*arguments)
        with torch.no_grad():
            model.quantizer.codebook.mul_(1000.0)
        return model

    with patch.object(autoencoder, "build_model", scattered):
        yield


@contextmanager
def without_codebook() -> Iterator[None]:
    """The optimiser is not given the codebook."""
    build = task.build_optimizers

    def incomplete(model: Any, settings: Any) -> Any:
        optimizers = build(model, settings)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [
                    value for value in group["params"] if value is not model.quantizer.codebook
                ]
        return optimizers

    with patch.object(task, "build_optimizers", incomplete):
        yield


@contextmanager
def nothing() -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Case:
    """Settings that make a codebook of some size collapse, and what must be done to the run
    besides.
    """

    name: str
    overrides: list[str]
    codebook_size: int = 64
    sabotage: Callable[[], Any] = nothing


CASES = [
    Case("bad initialisation", BARE, sabotage=scattered_codes),
    Case("huge codebook", ["model.quantizer.revive_threshold=0"], codebook_size=16384),
    Case(
        "learning rate too high",
        ["model.quantizer.revive_threshold=0", "train.lr=0.1", "train.warmup=0"],
    ),
    Case("perplexity 1.0", [*BARE, "model.quantizer.update=gradient", "losses.commitment=10"]),
    Case("not in the optimiser", ["model.quantizer.update=gradient"], sabotage=without_codebook),
]


@dataclass
class Outcome:
    """One run. detected: step of the first warning, remedy or error, None without any. usage: on
    the validation split at the end, as a share of what uniform draws reach there; nan after an
    error, as is psnr (dB). rows: of the log.
    """

    detected: int | None
    usage: float
    psnr: float
    said: list[str]
    rows: list[dict[str, Any]]


def run(case: Case, guard: str, steps: int, seed: int) -> Outcome:
    """Train a case with a setting of the guard."""
    settings = [
        *SMALL,
        f"train.steps={steps}",
        f"train.guard={guard}",
        f"seed={seed}",
        "coder.steps=0",
    ]
    settings += [f"model.quantizer.codebook_size={case.codebook_size}", *case.overrides]
    with tempfile.TemporaryDirectory() as folder, case.sabotage():
        try:
            model = vqkit.train("emoji", Path(folder) / "run", overrides=settings)
        except BrokenCodebook as error:
            model = None
            said = [f"error: {error}"]
            detected = int(re.findall(r"step (\d+)", str(error))[0])
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    if model is None:
        return Outcome(detected, math.nan, math.nan, said, rows)
    events = [row for row in rows if row.get("level") in ("warning", "action", "recovered")]
    last = [row for row in rows if row.get("split") == "validation"][-1]
    tokens = model.data["splits"]["validation"] * math.prod(model.network.grid(model.shape.extent))
    usage = last["usage"] / reachable_usage(tokens, model.network.quantizer.codebook_size)
    said = [f"step {event['step']}: {event['level']}: {event['message']}" for event in events]
    return Outcome(events[0]["step"] if events else None, usage, last["psnr"], said, rows)


def healthy(case: Case, steps: int, seed: int) -> Outcome:
    """The recipe with a codebook of the same size, and no guard."""
    return run(Case("healthy", [], case.codebook_size), "off", steps, seed)


def is_cured(before: Outcome, after: Outcome, reference: Outcome) -> bool:
    """Nearly as many codes in use as in a healthy run, and three times as many as without
    remedies.
    """
    return after.usage >= 0.9 * reference.usage and after.usage >= 3 * before.usage


def draw(outcomes: dict[str, tuple[Outcome, ...]], file: Path) -> None:
    """Usage over the window of training, a panel for each case, warn against act, with a mark where
    the guard spoke.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(outcomes), 2.9), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(outcomes), sharey=True)
    for axes, (name, pair) in zip(panels, outcomes.items(), strict=True):
        for outcome, label, colour in zip(
            pair[:2], ("warn", "act"), ("#d55e00", "#0072b2"), strict=True
        ):
            curve = [
                (row["step"], 100 * row["usage"])
                for row in outcome.rows
                if row.get("split") == "train" and "usage" in row
            ]
            axes.plot(
                *zip(*curve, strict=True), color=colour, linewidth=1.9, label=f"train.guard={label}"
            )
            if outcome.detected and label == "act":
                axes.axvline(outcome.detected, color="#6b7078", linewidth=1, linestyle=(0, (3, 3)))
        if math.isnan(pair[0].usage):
            axes.text(
                0.52,
                0.5,
                "stopped with\nan error",
                transform=axes.transAxes,
                ha="right",
                fontsize=9,
            )
        axes.set_title(name, loc="left", fontsize=10.5, fontweight="bold")
        axes.set_xlabel("step")
        axes.set_xlim(0, 200)
        axes.set_ylim(0, 103)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("codes in use, %")
    panels[0].legend(frameon=False, fontsize=9, loc="center right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    arguments = PARSER.parse_args()
    steps = 120 if arguments.quick else 200
    outcomes: dict[str, tuple[Outcome, ...]] = {}
    references: dict[int, Outcome] = {}
    titles = f"{'usage warn':>12}{'act':>8}{'healthy':>9}{'PSNR warn':>11}{'act':>7}{'healthy':>9}"
    print(f"{'':<24}{'detected':>9}{titles}")
    for case in CASES:
        if case.codebook_size not in references:
            references[case.codebook_size] = healthy(case, steps, arguments.seed)
        runs = [run(case, guard, steps, arguments.seed) for guard in ("warn", "act")]
        before, after, best = outcomes[case.name] = (*runs, references[case.codebook_size])
        figures = f"{before.usage:>12.1%}{after.usage:>8.1%}{best.usage:>9.1%}"
        figures += f"{before.psnr:>11.2f}{after.psnr:>7.2f}{best.psnr:>9.2f}"
        print(f"{case.name:<24}{before.detected or '-':>9}{figures}")
        print("".join(f"    {line}\n" for line in after.said), end="")
    settings = {
        **machine(),
        "steps": steps,
        "seed": arguments.seed,
        "data": "emoji",
        "order": "warn, act, healthy",
    }
    settings["cases"] = {
        name: {
            key: [getattr(outcome, key) for outcome in three]
            for key in ("detected", "usage", "psnr")
        }
        for name, three in outcomes.items()
    }
    detected = sum(
        all(one.detected and one.detected <= 200 for one in three[:2])
        for three in outcomes.values()
    )
    cured = sum(is_cured(*three) for three in outcomes.values())
    if not arguments.quick:
        draw(outcomes, FIGURE)
    claims = [Claim("collapse_detected", detected, "of 5", "5", None, settings)]
    claims.append(Claim("collapse_cured", cured, "of 5", ">= 4", None, settings))
    report(claims, arguments)


if __name__ == "__main__":
    main()
