"""Speed of training and of a quantizer's step on the device that there is, beside plain PyTorch and
a peer.

    python scripts/gpu_speed.py [--quick]

Prints a line each: images a second of vqkit's loop and of the plain loop of benchmarks/training.py,
in bfloat16 where the device has it, medians of alternating windows; milliseconds of a training step
of vq with 8,192 codes of 32 dimensions on 4,096 tokens, and of VectorQuantize of
vector-quantize-pytorch. --quick: one window of one step of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

BATCH = 64
WINDOWS = 5
STEPS = 10

PARSER = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
PARSER.add_argument("--quick", action="store_true")


def waited(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def loops(device: torch.device, folder: Path) -> dict[str, Callable[[], object]]:
    """One step of each loop, on the emoji."""
    from training import PLAIN, PlainAutoencoder, trainer_steps

    from vqkit.config import load
    from vqkit.model.precision import use_bfloat16
    from vqkit.settings import Config
    from vqkit.signals.image.source import open_images

    settings = load("fashion-mnist", [*PLAIN, "data.image_size=[28,28]", "data.channels=1"], Config)
    data = open_images("emoji", settings.data, 0)
    images = data.normalisation.apply(data.read(data.splits["train"]).values).to(device)
    plain = PlainAutoencoder(settings).to(device)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    ours = trainer_steps(data, settings, folder)

    def step() -> float:
        x = images[torch.randint(len(images), (BATCH,), device=device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16("auto")):
            reconstruction, commitment = plain(x)
            loss = F.mse_loss(reconstruction, x) + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"plain PyTorch": step, "vqkit": lambda: next(ours)}


def quantizers(device: torch.device) -> dict[str, Callable[[], object]]:
    """One training step of each quantizer."""
    from vqkit.config import VQConfig
    from vqkit.model.quantizers import build_quantizer

    latents = torch.randn(1, 32, 64, 64, device=device, requires_grad=True)
    ours = build_quantizer(VQConfig(codebook_size=8192, code_dim=32, kmeans_iterations=0)).to(
        device
    )

    def our_step() -> None:
        found = ours(latents)
        (found.quantized.sum() + found.loss).backward()

    steps: dict[str, Callable[[], object]] = {"vqkit": our_step}
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        print("speed: vector-quantize-pytorch is not installed")
        return steps
    peer = VectorQuantize(dim=32, codebook_size=8192, accept_image_fmap=True).to(device)

    def their_step() -> None:
        values, _, loss = peer(latents)
        (values.sum() + loss.sum()).backward()

    return steps | {"vector-quantize-pytorch": their_step}


def seconds(
    steps: dict[str, Callable[[], object]], device: torch.device, windows: int, count: int
) -> dict[str, float]:
    """Median seconds of a step of each, in windows of `count` steps that take turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(windows):
        for name, step in steps.items():
            waited(device)
            began = time.perf_counter()
            for _ in range(count):
                step()
            waited(device)
            found[name].append((time.perf_counter() - began) / count)
    return {name: median(values) for name, values in found.items()}


def main() -> None:
    size = (1, 1) if PARSER.parse_args().quick else (WINDOWS, STEPS)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in seconds(loops(device, Path(folder)), device, *size).items():
            print(f"speed: training, {name:<24} {BATCH / value:8.0f} images/s")
    for name, value in seconds(quantizers(device), device, *size).items():
        print(f"speed: vq step 8192x32, {name:<24} {1e3 * value:8.2f} ms")


if __name__ == "__main__":
    main()
