"""DnCNN (Zhang et al.

2017, arXiv 1608.03981): 3x3 convolutions with batch normalisation that predict the noise.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.image_sets import open_set

# 0.26 M parameters, as many as the recipe denoise has; the paper's blind one has 20 layers of 64.
DEPTH = 9
WIDTH = 64
LR = 1e-3
BATCH = 32


def network(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(DEPTH - 2):
        layers += [
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, channels, 3, padding=1)).to(
        memory_format=torch.channels_last
    )


def train(source: str, settings, seconds: float, seed: int, file: Path) -> nn.Module:
    """The network of `file`; if it is not there, trained for this much processor time on the
    batches that ours sees.
    """
    data = open_set(source, seed, settings)
    torch.manual_seed(seed)
    model = network(data.shape.channels)
    if file.exists():
        model.load_state_dict(load_file(file))
        return model.eval()
    optimizer = torch.optim.Adam(model.parameters(), LR)
    start = time.process_time()
    for batch in data.train(0, BATCH, seed):
        progress = (time.process_time() - start) / seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * progress))
        assert batch.target is not None
        x = _scaled(batch.values)
        clean = _scaled(batch.target)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(x)
        loss = F.mse_loss(x - predicted.float(), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return model.eval()


def _scaled(values: Tensor) -> Tensor:
    """Values from 0 to 255 as numbers from 0 to 1, in the memory layout that convolutions are
    fastest in.
    """
    return values.float().div(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def denoise(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) -> the same."""
    x: Tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    clean = (x - model(x))[0].permute(1, 2, 0)
    return (255 * clean).round().clamp(0, 255).to(torch.uint8).numpy()
