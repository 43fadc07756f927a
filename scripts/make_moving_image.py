"""Make docs/images/painting.webp: emoji whose codes are painted over, one position after another.

    python scripts/make_moving_image.py [--steps 400]

Trains a model of 64 codes on the built-in emoji, takes held-out ones, and replaces the code that
is commonest in the middle of each by another, position by position. Above what the decoder makes of
the codes, below the codes, each in the mean colour of what it decodes to.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import vqkit

FILE = Path(__file__).parents[1] / "docs" / "images" / "painting.webp"
MAX_BYTES = 1_000_000
COLUMNS = 6
# Pixels of an emoji along a side, and between two.
SIDE, GAP = 128, 12
# Frames in which one code is painted, and in which the result is held; milliseconds of a frame.
PAINTED, HELD, DURATION = 9, 6, 90
ROUNDS = 3
# Levels by which a colour differs from white, for what is no background.
COLOURED = 60
# Positions that are painted: a part of the emoji, not a flag.
FEWEST, MOST = 6, 20
# Codes to paint with, those that decode to the flattest colours.
PALETTE = 14


def trained(steps: int, folder: Path) -> vqkit.Model:
    settings = [f"train.steps={steps}", "train.max_minutes=null", "coder.steps=0"]
    settings += ["model.quantizer.codebook_size=64"]
    model = vqkit.train("emoji", folder, "emoji", settings, display=vqkit.live())
    assert model is not None
    return model


def colours_of(model: vqkit.Model) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour of what each code decodes to, uint8 (K, 3), and the codes to paint with."""
    count = model.network.quantizer.codebook_size
    codes = torch.arange(count)[:, None, None, None].expand(-1, 1, 8, 8)
    decoded = model.decode(codes).astype(float)
    colours = decoded.mean((1, 2))
    is_coloured = (255 - colours).max(1) > COLOURED
    unevenness = np.where(is_coloured, decoded.std((1, 2)).mean(1), np.inf)
    return colours.astype(np.uint8), unevenness.argsort()[:PALETTE]


def chosen(model: vqkit.Model, colours: np.ndarray) -> tuple[Tensor, list[Tensor]]:
    """Codes (N, 8, 8) of held-out emoji that have most of one coloured code, and where it is."""
    from vqkit.apps.evaluate import open_for

    data = open_for(model, "emoji", "test")
    numbers = data.splits["test"]
    codes = model.tokenizer.encode(data.read(numbers).values)[:, 0]
    groups = [data.groups[number] for number in numbers]
    is_coloured = torch.tensor((255 - colours.astype(int)).max(1) > COLOURED)
    found = []
    for row, grid in enumerate(codes):
        values, counts = grid[is_coloured[grid]].unique(return_counts=True)
        if len(values) and FEWEST <= counts.max() <= MOST and "flag" not in groups[row].lower():
            best = int(counts.argmax())
            found.append((int(counts[best]), row, int(values[best])))
    # One of each group and code: others often are variants of it.
    picked: list[tuple[int, int]] = []
    seen: set[str | int] = set()
    for _, row, code in sorted(found, reverse=True):
        if not seen & {groups[row], code}:
            picked.append((row, code))
            seen |= {groups[row], code}
    picked = picked[:COLUMNS]
    grids = torch.stack([codes[row] for row, _ in picked])
    return grids, [grid == code for grid, (_, code) in zip(grids, picked, strict=True)]


def frames(model: vqkit.Model) -> list[Image.Image]:
    colours, palette = colours_of(model)
    grids, places = chosen(model, colours)
    random = np.random.default_rng(0)
    shown = [drawn(model, grids, colours)] * HELD
    for _ in range(ROUNDS):
        orders = [random.permutation(where.nonzero().numpy()) for where in places]
        targets = random.choice(palette, len(places), replace=False)
        for step in range(1, PAINTED + 1):
            for row, (order, target) in enumerate(zip(orders, targets, strict=True)):
                for top, left in order[: round(len(order) * step / PAINTED)]:
                    grids[row, top, left] = int(target)
            shown.append(drawn(model, grids, colours))
        shown += [shown[-1]] * HELD
    return shown


def drawn(model: vqkit.Model, grids: Tensor, colours: np.ndarray) -> Image.Image:
    """One frame: decoded emoji above their codes."""
    decoded = model.decode(grids[:, None])
    width = COLUMNS * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, SIDE + GAP + SIDE // 2), "white")
    for column, (image, grid) in enumerate(zip(decoded, grids.numpy(), strict=True)):
        left = column * (SIDE + GAP)
        sheet.paste(
            Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, 0)
        )
        codes = Image.fromarray(colours[grid]).resize(
            (SIDE // 2, SIDE // 2), Image.Resampling.NEAREST
        )
        sheet.paste(codes, (left + SIDE // 4, SIDE + GAP))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, *others = frames(trained(options.steps, Path(folder) / "run"))
    first.save(FILE, save_all=True, append_images=others, duration=DURATION, loop=0, quality=70)
    size = FILE.stat().st_size
    print(f"{FILE}: {1 + len(others)} frames, {size:,} bytes")
    assert size <= MAX_BYTES


if __name__ == "__main__":
    main()
