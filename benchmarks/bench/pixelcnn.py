"""Gated PixelCNN over codes: the prior of the VQ-VAE papers, as a peer (van den Oord et al. 2016,
arXiv 1606.05328).

Two stacks, so that there is no blind spot: the vertical one sees the rows above, the horizontal one
the codes to the left and, through a 1x1 convolution of the vertical one, the rows above. Masked
kernels are convolutions with the masked taps left out; the first layer (mask A) also leaves out the
code itself. Units tanh(a) * sigmoid(b), residuals in the horizontal stack, a bias per layer and
class (section 2.3) and a learned map of biases per position in the first layer, which the paper's
location-dependent conditioning reduces to on a fixed grid. `sample` keeps what was computed for
earlier positions, so a sample costs as much as one forward pass.
"""

from __future__ import annotations

import math
import time
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2 of the paper).

    `shift` 1 is mask A, which leaves the position itself out of the horizontal and its row out of
    the vertical kernel; 0 is mask B. num_classes 0: without class conditioning.
    """

    def __init__(
        self, width: int, kernel: int, shift: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.shift = shift
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Embedding(num_classes, 4 * width) if num_classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def biases(self, labels: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Of the vertical and the horizontal stack, each (B, 2C, 1, 1)."""
        if self.classes is None or labels is None:
            return 0.0, 0.0
        return self.classes(labels)[:, :, None, None].chunk(2, 1)

    def forward(
        self, v: Tensor, h: Tensor, labels: Tensor | None, places: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """v, h (B, C, H, W) of the layer below -> those of this one; places (2C, H, W) is added to
        both units.
        """
        reach = self.reach
        rows, columns = v.shape[2:]
        for_v, for_h = self.biases(labels)
        above = F.pad(v, (reach, reach, reach + self.shift, 0))[:, :, : rows + reach]
        left = F.pad(h, (reach + self.shift, 0))[..., : columns + reach]
        before = self.vertical(above) + for_v + places
        out = self.finish(self.horizontal(left) + self.link(before) + for_h + places)
        # below the first layer h is of codes that this position must not see, so that one has no
        # residual
        return gate(before), out if self.shift else h + out

    def finish(self, before: Tensor) -> Tensor:
        """What the horizontal unit adds to its residual."""
        return self.out(self.dropout(gate(before)))


def gate(x: Tensor) -> Tensor:
    """(B, 2C, H, W) -> (B, C, H, W): equation 2."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class PixelCNN(nn.Module):
    """Codes (B, H, W) int64 below codebook_size K, labels (B,) or None -> logits (B, K, H, W)."""

    def __init__(
        self,
        codebook_size: int,
        grid: tuple[int, int],
        num_classes: int = 0,
        width: int = 64,
        layers: int = 8,
        kernels: tuple[int, int] = (7, 3),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_classes = num_classes
        self.grid = tuple(grid)
        self.codes = nn.Embedding(codebook_size, width)
        self.places = nn.Parameter(torch.zeros(2 * width, *grid))
        first, later = kernels
        self.layers = nn.ModuleList(
            GatedLayer(width, later if i else first, int(i == 0), num_classes, dropout)
            for i in range(layers)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.ReLU())
        self.logits = nn.Conv2d(2 * width, codebook_size, 1)

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        v = h = self.embed(codes)
        for layer in self.layers:
            v, h = layer(v, h, labels, self.places if layer.shift else 0.0)
        return self.logits(self.head(h))

    def embed(self, codes: Tensor) -> Tensor:
        """(B, H, W) -> (B, C, H, W), channels last in memory: convolutions on CPUs run faster that
        way.
        """
        return self.codes(codes).permute(0, 3, 1, 2)


# ----------------------------------------------------------------------------------------- training


def train_pixelcnn(
    codes: Tensor,
    labels: Tensor | None,
    codebook_size: int,
    seconds: float,
    seed: int,
    num_classes: int = 0,
    *,
    validation: tuple[Tensor, Tensor | None] | None = None,
    lr: float = 4e-3,
    batch_size: int = 32,
    **network,
) -> PixelCNN:
    """A PixelCNN of codes (N, H, W) int64 after `seconds` of processor time: AdamW, warm-up of 5 %,
    a cosine to zero.

    With `validation` (codes, labels) the weights that were best on it at one of 20 looks are
    returned; without, the last. Looks are paid from `seconds`. `network`: width, layers, kernels,
    dropout of `PixelCNN`. labels (N,) int64 are used if num_classes is given. The seed sets weights
    and order of the images.
    """
    begin = time.process_time()
    torch.manual_seed(seed)
    model = PixelCNN(codebook_size, codes.shape[1:], num_classes, **network).to(
        memory_format=torch.channels_last
    )
    # starts at the frequencies of the codes, which a short training would have to find first
    model.logits.bias.data = torch.bincount(codes.flatten(), minlength=codebook_size).add(1).log()
    optimizer = _optimizer(model, lr)
    best = math.inf
    weights = None
    looks = 0
    while True:
        for indices in torch.randperm(len(codes)).split(batch_size):
            spent = (time.process_time() - begin) / seconds
            if validation and (spent >= (looks + 1) / 20 or spent >= 1):
                looks = int(20 * spent)
                found = float(bits(model, *validation).mean())
                if found < best:
                    best = found
                    weights = deepcopy(model.state_dict())
            if spent >= 1:
                model.load_state_dict(weights or model.state_dict())
                return model.eval()
            for group in optimizer.param_groups:
                group["lr"] = lr * min(spent / 0.05, 0.5 + 0.5 * math.cos(math.pi * spent))
            _step(model, optimizer, codes[indices], labels[indices] if num_classes else None)


def _optimizer(model: PixelCNN, lr: float) -> torch.optim.AdamW:
    """AdamW that decays convolutions only, not embeddings and biases."""
    decayed = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim != 4]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def _step(
    model: PixelCNN, optimizer: torch.optim.Optimizer, codes: Tensor, labels: Tensor | None
) -> None:
    model.train()
    with autocast():
        logits = model(codes, labels)
    F.cross_entropy(logits.float(), codes).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def autocast() -> torch.autocast:
    """bf16 where the processor has it, else nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


# ------------------------------------------------------------------------------------------ results


@torch.no_grad()
def bits(model: PixelCNN, codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Bits of every image (N,) float64: -sum log2 p over its codes (N, H, W); the logits may be
    bf16.
    """
    model.eval()
    found = []
    for begin in range(0, len(codes), 250):
        part = codes[begin : begin + 250]
        with autocast():
            logits = model(
                part,
                labels[begin : begin + 250] if model.num_classes and labels is not None else None,
            )
        found.append(
            F.cross_entropy(logits.double(), part, reduction="none").sum((1, 2)) / math.log(2)
        )
    return torch.cat(found)


def sample(
    model: PixelCNN,
    count: int,
    grid: tuple[int, int],
    labels: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """`count` draws of codes (count, H, W) int64 at temperature 1; labels (count,) if the model has
    classes.
    """
    parts = []
    for begin in range(0, count, 250):
        size = min(250, count - begin)
        parts.append(
            _sample(
                model.eval(),
                size,
                grid,
                None if labels is None else labels[begin:][:size],
                generator,
            )
        )
    return torch.cat(parts)


@torch.no_grad()
def _sample(
    model: PixelCNN, size: int, grid, labels: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Row by row: the vertical stack once a row, the horizontal one once a code, from inputs that
    are kept.
    """
    rows, columns = grid
    reach = [layer.reach + layer.shift for layer in model.layers]
    width = model.codes.embedding_dim
    above = [
        torch.zeros(size, width, r + rows, columns + 2 * layer.reach)
        for r, layer in zip(reach, model.layers, strict=True)
    ]
    codes = torch.zeros(size, rows, columns, dtype=torch.int64)
    for y in range(rows):
        before = []
        for i, layer in enumerate(model.layers):
            places = model.places[:, y : y + 1] if layer.shift else 0.0
            for_v, for_h = layer.biases(labels)
            unit = layer.vertical(above[i][:, :, y : y + layer.reach + 1]) + for_v + places
            before.append(layer.link(unit) + for_h + places)
            if i + 1 < len(model.layers):
                above_reach = model.layers[i + 1].reach
                above[i + 1][:, :, y + reach[i + 1], above_reach : above_reach + columns] = gate(
                    unit
                )[:, :, 0]
        left = [torch.zeros(size, width, 1, r + columns) for r in reach]
        for x in range(columns):
            logits = _next(model, left, [part[..., x : x + 1] for part in before], x)
            codes[:, y, x] = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
            embedded = model.codes(codes[:, y, x])
            left[0][:, :, 0, x + reach[0]] = embedded
            above[0][:, :, y + reach[0], x + model.layers[0].reach] = embedded
    return codes


def _next(model: PixelCNN, left: list[Tensor], before: list[Tensor], x: int) -> Tensor:
    """Logits (B, K) of column x; enters what the horizontal stack computes there into `left`."""
    h = left[0]
    for i, layer in enumerate(model.layers):
        out = layer.finish(layer.horizontal(left[i][..., x : x + layer.reach + 1]) + before[i])
        h = out if layer.shift else h + out
        if i + 1 < len(model.layers):
            following = model.layers[i + 1]
            left[i + 1][..., x + following.reach + following.shift] = h[..., 0]
    return model.logits(model.head(h))[:, :, 0, 0].float()
