"""A signal along one dimension, with items of different lengths: residual codes of tones that rise
or fall, padded to one length and masked.

    python examples/sequences.py [--steps 300]

Prints the error with one, two and all four stages of codes: one model has every rate.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from vqkit.nn import ResidualVQ

# Samples of a latent, and the longest item.
HOP = 16
LENGTH = 1024


def tones(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sound (count, LENGTH) with silence behind the end of an item, and which latents are real,
    (count, LENGTH / HOP) bool.
    """
    lengths = HOP * torch.randint(16, LENGTH // HOP + 1, (count, 1), generator=generator)
    first, last = 0.02 + 0.2 * torch.rand(2, count, 1, generator=generator)
    time = torch.arange(LENGTH)
    phase = (first + (last - first) * time / LENGTH).cumsum(1)
    real = time < lengths
    return torch.sin(phase) * real, real[:, ::HOP]


class Codec(nn.Module):
    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(HOP, 128), nn.GELU(), nn.Linear(128, dim))
        self.quantizer = ResidualVQ(dim, num_stages=4, codebook_size=64, quantizer_dropout=0.5)
        self.decoder = nn.Sequential(nn.Linear(dim, 128), nn.GELU(), nn.Linear(128, HOP))

    def latents(self, sound: torch.Tensor) -> torch.Tensor:  # (B, T) -> (B, T / HOP, D)
        return self.encoder(sound.unflatten(1, (-1, HOP)))

    def sound(self, quantized: torch.Tensor) -> torch.Tensor:  # (B, T / HOP, D) -> (B, T)
        return self.decoder(quantized).flatten(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    drawing = torch.Generator().manual_seed(0)
    codec = Codec()
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3)
    for _ in range(steps):
        sound, real = tones(32, drawing)
        out = codec.quantizer(codec.latents(sound), mask=real)
        loss = F.mse_loss(codec.sound(out.quantized), sound) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    codec.eval()
    sound, real = tones(64, drawing)
    with torch.no_grad():
        codes = codec.quantizer.encode(codec.latents(sound), mask=real)
        for stages in (1, 2, 4):
            shorter = codes.clone()
            shorter[..., stages:] = -1
            error = F.mse_loss(codec.sound(codec.quantizer.decode(shorter)), sound)
            print(f"{stages} stages: error {error.item():.4f}")


if __name__ == "__main__":
    main()
