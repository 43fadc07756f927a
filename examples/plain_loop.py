"""A quantizer in a training loop of your own: an autoencoder of drawn discs, 32x32.

    python examples/plain_loop.py [--steps 300]

Prints the error and how many of the codes are in use, and shows that codes alone give the same
images back.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from vqkit.nn import VectorQuantizer


def discs(count: int, generator: torch.Generator) -> torch.Tensor:
    """Images (count, 3, 32, 32) of a disc each, at a random place, of a random size and colour."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    middle = 8 + 16 * torch.rand(count, 2, 1, 1, generator=generator)
    radius = 3 + 8 * torch.rand(count, 1, 1, generator=generator)
    far = ((rows - middle[:, 0]) ** 2 + (columns - middle[:, 1]) ** 2).sqrt()
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    return torch.sigmoid(radius - far)[:, None] * colour


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 64, 4, 2, 1), nn.GELU(), nn.Conv2d(64, 64, 4, 2, 1)
        )
        self.quantizer = VectorQuantizer(dim=64, codebook_size=256, code_dim=8, channel_first=True)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 64, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(64, 3, 4, 2, 1)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W) -> images, and the loss with the quantizer's part of it."""
        out = self.quantizer(self.encoder(images))
        decoded = self.decoder(out.quantized)
        return decoded, F.mse_loss(decoded, images) + out.loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    drawing = torch.Generator().manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(1, steps + 1):
        _, loss = model(discs(64, drawing))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.4f}")

    model.eval()
    images = discs(256, drawing)
    with torch.no_grad():
        decoded, _ = model(images)
        codes = model.quantizer.encode(model.encoder(images))
        again = model.decoder(model.quantizer.decode(codes))
    assert torch.equal(again, decoded)
    used = len(codes.unique())
    print(f"{codes.shape[1:]} codes an image, {used} of 256 in use")
    print(f"PSNR {-10 * F.mse_loss(decoded, images).log10().item():.1f} dB")


if __name__ == "__main__":
    main()
