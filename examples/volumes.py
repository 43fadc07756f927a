"""Three dimensions: finite scalar quantisation of volumes with a ball each, 32x32x32.

python examples/volumes.py [--steps 60]
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from vqkit.nn import FSQ


def balls(count: int, generator: torch.Generator) -> torch.Tensor:
    """Volumes (count, 1, 32, 32, 32) of a ball each."""
    places = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"))
    middle = 8 + 16 * torch.rand(count, 3, 1, 1, 1, generator=generator)
    radius = 3 + 8 * torch.rand(count, 1, 1, 1, generator=generator)
    far = (places - middle).square().sum(1).sqrt()
    return torch.sigmoid(radius - far)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    drawing = torch.Generator().manual_seed(0)
    encoder = nn.Sequential(nn.Conv3d(1, 16, 4, 4), nn.GELU(), nn.Conv3d(16, 32, 2, 2))
    # Of 8 x 5 x 5 x 5 codes; four channels each rounded to levels, between linear layers.
    quantizer = FSQ(dim=32, levels=(8, 5, 5, 5), channel_first=True)
    decoder = nn.Sequential(
        nn.ConvTranspose3d(32, 16, 2, 2), nn.GELU(), nn.ConvTranspose3d(16, 1, 4, 4)
    )
    model = nn.Sequential(encoder, quantizer, decoder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(1, steps + 1):
        volumes = balls(8, drawing)
        out = quantizer(encoder(volumes))
        loss = F.mse_loss(decoder(out.quantized), volumes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps:
            print(f"step {step}: error {loss.item():.4f}")
    with torch.no_grad():
        codes = quantizer.encode(encoder(balls(8, drawing)))
    print(f"codes {tuple(codes.shape)} of {quantizer.codebook_size}: {len(codes.unique())} in use")


if __name__ == "__main__":
    main()
