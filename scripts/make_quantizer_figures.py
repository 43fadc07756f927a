"""Draw the figures of docs/quantizers: what each quantizer makes of latents of two channels.

    python scripts/make_quantizer_figures.py

Every figure comes from a layer of vqkit.nn that has seen the same 4,000 latents: the plane in the
colours of the codes that `encode` gives, the latents over it, and the values that `decode` gives.
The two quantizers of several grids are shown on the pixels of a photograph instead.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import data_dir
from torch import Tensor

from vqkit import nn

FOLDER = Path(__file__).parents[1] / "docs" / "figures" / "quantizers"
# Half the side of the plane, and pixels of it along a side.
EDGE = 3.0
SIDE = 420
STEPS = 300
INK, DOT = "#1f2328", "#d55e00"

LAYERS: dict[str, Callable[[], nn.QuantizerLayer]] = {
    "vq": lambda: nn.VectorQuantizer(2, codebook_size=32),
    "simvq": lambda: nn.SimVQ(2, codebook_size=32, code_dim=2),
    "fsq": lambda: nn.FSQ(2, levels=[6, 5]),
    "lfq": lambda: nn.LFQ(2, bits=2),
    "bsq": lambda: nn.BSQ(2, bits=2),
    "gaussian-codebook": lambda: nn.GaussianCodebook(2, levels=[6, 6]),
    "scalar": lambda: nn.ScalarQuantizer(2, channels=2, step=0.75, levels=9, rate=0.0),
    "residual": lambda: nn.ResidualVQ(2, num_stages=2, codebook_size=6),
    "product": lambda: nn.ProductVQ(2, num_groups=2, codebook_size=6),
}


def latents(count: int) -> Tensor:
    """An arc and a blob, (N, 2), of mean 0 and deviation 1."""
    random = np.random.default_rng(0)
    angle = random.uniform(-0.3, 3.3, count * 2 // 3)
    arc = np.stack([1.5 * np.cos(angle), 1.6 * np.sin(angle) - 0.4], 1)
    arc += 0.14 * random.standard_normal(arc.shape)
    blob = np.array([0.1, -1.3]) + 0.3 * random.standard_normal((count - len(arc), 2))
    points = np.concatenate([arc, blob])
    points = random.permutation((points - points.mean(0)) / points.std(0))
    return torch.tensor(points, dtype=torch.float32)


def fitted(layer: nn.QuantizerLayer, batches: Callable[[int], Tensor]) -> nn.QuantizerLayer:
    """The layer after STEPS steps on latents that stay as they are."""
    parameters = list(layer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
    for step in range(STEPS):
        batch = batches(step)
        out = layer.train()(batch)
        if optimizer is not None:
            optimizer.zero_grad()
            (out.loss + (out.quantized - batch).square().mean()).backward()
            optimizer.step()
    return layer.eval()


def pastel(number: int) -> np.ndarray:
    """A light colour for a code, far from those of its neighbours."""
    hue = (number * 0.61803398875) % 1.0
    phase = 2 * np.pi * (hue + np.array([0.0, 1 / 3, 2 / 3]))
    return 0.86 + 0.11 * np.cos(phase)


@torch.no_grad()
def draw_plane(layer: nn.QuantizerLayer, tokens: Tensor, file: Path) -> None:
    line = torch.linspace(-EDGE, EDGE, SIDE)
    plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    codes = layer.encode(plane)
    codes = codes.reshape(len(plane), -1)
    _, cells = codes.unique(dim=0, return_inverse=True)
    cells = cells.reshape(SIDE, SIDE).numpy()
    colours = np.stack([pastel(number) for number in range(cells.max() + 1)])[cells]
    edge = np.zeros_like(cells, bool)
    edge[:-1] |= cells[:-1] != cells[1:]
    edge[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    colours[edge] = 0.62
    used = layer.decode(layer.encode(tokens).unique(dim=0)).numpy()
    every = layer.decode(
        codes.unique(dim=0).reshape(-1, *layer.encode(tokens[:1]).shape[1:])
    ).numpy()
    figure = Figure(figsize=(3.9, 3.9), facecolor="white")
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axis.imshow(colours, extent=(-EDGE, EDGE, -EDGE, EDGE), origin="lower", interpolation="nearest")
    axis.scatter(*tokens[:1500].T, s=2.5, color="#57606a", alpha=0.5, linewidths=0)
    axis.scatter(*every.T, s=26, facecolors="white", edgecolors=INK, linewidths=0.8, zorder=3)
    axis.scatter(*used.T, s=26, facecolors=DOT, edgecolors="white", linewidths=0.7, zorder=4)
    axis.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[])
    save(figure, file)


def photograph() -> np.ndarray:
    """uint8 (64, 64, 3)."""
    image = Image.open(Path(data_dir) / "coffee.png").crop((60, 0, 460, 400))
    return np.asarray(image.resize((64, 64)))


def draw_grids(name: str, file: Path) -> None:
    """What each grid adds, beside the photograph whose pixels are the latents."""
    torch.manual_seed(0)
    pixels = torch.tensor(photograph().transpose(2, 0, 1)[None].astype(np.float32))
    mean, deviation = pixels.mean(), pixels.std()
    image = (pixels - mean) / deviation
    layer: nn.QuantizerLayer
    if name == "pyramid":
        layer = nn.PyramidVQ(3, num_grids=3, codebook_size=64, channel_first=True)
    else:
        layer = nn.HierarchicalVQ(3, codebook_size=64, code_dim=3, channel_first=True)
    fitted(layer, lambda step: image)
    panels = {"latents (here: pixels)": photograph()}
    with torch.no_grad():
        codes = layer.encode(image)
        if name == "pyramid":
            for kept, title in ((1, "grid 1 alone"), (5, "with grid 2"), (21, "with grid 3")):
                part = codes.clone()
                part[:, kept:] = -1
                panels[title] = to_pixels(layer.decode(part) * deviation + mean)
        else:
            panels["codes of the coarse grid"] = code_map(codes[0, 0])
            panels["both grids, decoded"] = to_pixels(layer.decode(codes) * deviation + mean)
    figure = Figure(figsize=(2.6 * len(panels), 2.9), facecolor="white", layout="constrained")
    for axis, (title, shown) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.imshow(shown, interpolation="nearest")
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_axis_off()
    save(figure, file)


def to_pixels(values: Tensor) -> np.ndarray:
    return values[0].permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8)


def code_map(codes: Tensor) -> np.ndarray:
    """Codes (h, w) as colours."""
    colours = np.stack([255 * pastel(int(code)) for code in codes.flatten()])
    return colours.reshape(*codes.shape, 3).astype(np.uint8)


def save(figure: Figure, file: Path) -> None:
    """As a PNG with a palette, a quarter of the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    image = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokens = latents(4000)
    generator = torch.Generator().manual_seed(0)

    def batches(step: int) -> Tensor:
        return tokens[torch.randint(len(tokens), (512,), generator=generator)]

    for name, make in LAYERS.items():
        torch.manual_seed(0)
        draw_plane(fitted(make(), batches), tokens, FOLDER / f"{name}.png")
    for name in ("hierarchical", "pyramid"):
        draw_grids(name, FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
