"""Hand-made results for the tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from vqkit.report.summary import PriorSummary, Ranked, RunSummary

EVIL = '"><img src=x onerror=alert(1)>|`*.png'


def images(
    count: int = 9, channels: int = 3, side: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    originals = generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return originals, (originals // 16 * 16).astype(np.uint8)


def history(train: Any = None, validation: Any = None, steps: int = 1000) -> list[dict[str, Any]]:
    """Rows every 20 steps, validation every 50; the arguments map the progress 0..1 to a loss."""
    train = train or (lambda progress: 0.1 + np.exp(-20 * progress))
    validation = validation or train
    rows: list[dict[str, Any]] = []
    for step in range(20, steps + 1, 10):
        for split, every, loss in (("train", 20, train), ("validation", 50, validation)):
            if step % every == 0:
                value = float(loss(step / steps))
                terms = {
                    "loss": 1.1 * value,
                    "loss/reconstruction": value,
                    "loss/commitment": 0.4 * value,
                }
                rows.append(
                    {
                        "step": step,
                        "split": split,
                        **terms,
                        "psnr": 20.0,
                        "usage": 0.9,
                        "perplexity": 12,
                    }
                )
    return rows


def summary(**changes: Any) -> RunSummary:
    """A healthy run of 16 codes; `changes` replaces its parts."""
    channels = changes.pop("channels", 3)
    originals, reconstructions = images(channels=channels)
    names = [f"image{index}.png" for index in range(9)]
    metrics = {
        "psnr": 26.44,
        "ssim": 0.91,
        "usage": 1.0,
        "perplexity": 14.2,
        "bits_per_item": 441.2,
        "split": "test",
        "items": 40,
        "training_seconds": 83.0,
        "parameters": 1_234_567,
        "version": "0.1.0",
    }
    parts: dict[str, Any] = {
        "title": "Nine images",
        "command": "vqkit train images --out run",
        "config_yaml": "seed: 0  # of all\n",
        "metrics": metrics,
        "history": history(),
        "events": [{"step": 20, "level": "info", "message": "began"}],
        "data": {
            "name": "nine",
            "counts": {"train": 900, "test": 40},
            "sizes": {"8x8": 940},
            "bad_files": [],
        },
        "code_counts": np.arange(100, 116)[None],
        "originals": originals,
        "reconstructions": reconstructions,
        "names": names,
        "psnr_per_image": np.linspace(20.0, 33.0, 40),
        "worst": Ranked(names[:2], [20.0, 21.0], originals[:2], reconstructions[:2]),
        "best": Ranked(names[2:4], [33.0, 32.0], originals[2:4], reconstructions[2:4]),
    }
    return RunSummary(**(parts | changes))


def prior_history(train: Any, validation: Any, steps: int = 1000) -> list[dict[str, Any]]:
    """Rows every 20 steps, validation every 100; the arguments map the progress 0..1 to bits per
    code.
    """
    rows: list[dict[str, Any]] = []
    for step in range(20, steps + 1, 20):
        bits = float(train(step / steps))
        rows.append(
            {
                "step": step,
                "split": "train",
                "loss": 0.7 * bits,
                "bits_per_code": bits,
                "bits_per_code_any_order": bits + 0.5,
                "lr": 0.001,
                "grad_norm": 1.0,
            }
        )
        if step % 100 == 0:
            rows.append(
                {
                    "step": step,
                    "split": "validation",
                    "bits_per_code": float(validation(step / steps)),
                }
            )
    return rows


def prior_summary(**changes: Any) -> PriorSummary:
    """A healthy prior with nine samples, none of them near a training image; `changes` replaces its
    parts.
    """
    channels = changes.pop("channels", 3)
    samples, nearest = images(channels=channels)
    metrics = {
        "split": "test",
        "items": 40,
        "bits_per_code": 3.04,
        "bits_per_item": 149.0,
        "label_bits": None,
        "bits_per_code_untold": 3.2,
        "order0_bits": 4.0,
        "saving_vs_order0": 0.24,
        "step": 1000,
        "stopped_by": "max_minutes",
        "training_seconds": 83.0,
        "parameters": 1_234_567,
    }
    parts: dict[str, Any] = {
        "title": "Nine priors",
        "command": "vqkit train-prior run images",
        "config_yaml": "seed: 0  # of all\n",
        "metrics": metrics,
        "history": prior_history(lambda progress: 3.0, lambda progress: 3.06),
        "events": [{"step": 20, "level": "info", "message": "began"}],
        "samples": samples,
        "scattered": samples[::-1].copy(),
        "num_steps": 12,
        "labels": [f"class {index}" for index in range(9)],
        "nearest": nearest,
        "distances": np.linspace(58.0, 50.0, 9),
        "reconstructed_distances": np.arange(20.0, 120.0),
        "held_out_distances": np.arange(40.0, 140.0),
    }
    return PriorSummary(**(parts | changes))
