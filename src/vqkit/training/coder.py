"""Fits the integer prior that codes are compressed with: a float twin that rounds as the integers will.

Shapes: B images, Q stages, h w the grid, n = h w slots, C context codes, e the length of a vector, D channels, K codes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from ..artifact import Artifact
from ..coding.codes.transformer import (
    BIAS_LIMIT,
    HEAD,
    LAST_BITS,
    MAX_FAN_IN,
    VALUE_BITS,
    WEIGHT_BITS,
    WINDOW,
    StageTransformer,
    TransformerLayer,
)
from ..coding.codes.transformer_coder import (
    MAX_CODES,
    MAX_POSITIONS,
    MAX_STAGES,
    REACH,
    TransformerCoder,
    context_offsets,
)
from ..config import CoderConfig
from ..data import ImageData, split_batches
from ..model.precision import use_bfloat16
from ..model.prior.network import attend
from .optimizers import Muon
from .progress import Display, Silent

LENGTH = 32
"""of a code's vector, where the context is not too wide for it"""
NUM_LAYERS = 3
WIDTHS = (128, 96, 64, 32)
"""channels, the first that keeps the network below MAX_BYTES"""
MAX_BYTES = 1 << 20
STEP_CODES = 1 << 13
"""codes of a step"""
WEIGHT_DECAY = 0.1
ROUNDED_SHARE = 0.4
"""of the steps, the last ones, which round as the integers will; before, that would cost time and teach nothing"""
MAX_KEPT = 1 << 24
"""codes of the training images that are in memory at most; more images than that are left out"""
NUM_VALIDATED = 1024
LOOKS = 12
"""at the validation split"""
PATIENCE, WORSE = 3, 1.05
"""looks in a row that are worse than the best by that factor end the fit; the gains of its last steps are smaller"""
MAX_ROUNDS, MIN_STEPS = 8, 40
"""times that the training codes are gone over at most, and steps that this leaves of those that were asked for"""


class _Round(torch.autograd.Function):
    """Nearest multiple of 2^-bits in [low, high], halves up as integers are shifted; the gradient passes inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, low: float, high: float) -> Tensor:
        scale = 2.0**bits
        ctx.save_for_backward(x)
        ctx.limits = low / scale, high / scale
        return x.mul(scale).add_(0.5).floor_().clamp_(low, high).div_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, *ctx.limits), None, None, None


class _Layer(nn.Module):
    """Attention and two linear maps, without biases; see coding.codes.transformer.TransformerLayer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(channels, 3 * channels) * channels**-0.5)
        self.out = nn.Parameter(torch.randn(channels, channels) * 0.3 * channels**-0.5)
        self.up = nn.Parameter(torch.randn(channels, 2 * channels) * channels**-0.5)
        self.down = nn.Parameter(torch.randn(2 * channels, channels) * 0.3 * (2 * channels) ** -0.5)


class _Stage(nn.Module):
    """The network of one stage; see coding.codes.transformer.StageTransformer."""

    def __init__(self, stage: int, size: int, length: int, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.context = context_offsets(stage)
        inputs = len(self.context) * length
        self.first = nn.Parameter(torch.randn(inputs, channels) * 2 * inputs**-0.5)
        self.rows = nn.Parameter(torch.randn(grid[0], channels) * 0.2)
        self.columns = nn.Parameter(torch.randn(grid[1], channels) * 0.2)
        self.layers = nn.ModuleList(_Layer(channels) for _ in range(NUM_LAYERS))
        self.last = nn.Parameter(torch.randn(channels, size) * 0.1 * channels**-0.5)
        self.last_bias = nn.Parameter(torch.zeros(size))


class CoderNetwork(nn.Module):
    """All stages of the float twin. forward: codes (B, Q, h, w) int64 -> bits (B, Q, h, w) that each costs.

    whole: whether it rounds as the integers do. dtype: of what is multiplied; sums are float32.
    """

    def __init__(self, sizes: list[int], grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.sizes, self.grid = sizes, grid
        self.whole, self.dtype = True, torch.float32
        length = min(LENGTH, MAX_FAN_IN // max(len(context_offsets(stage)) for stage in range(len(sizes))))
        self.vectors = nn.ParameterList(0.5 * torch.randn(size + 1, length) for size in sizes)
        self.stages = nn.ModuleList(_Stage(number, size, length, grid, channels) for number, size in enumerate(sizes))

    def forward(self, codes: Tensor) -> Tensor:
        vectors = [self._small(table) for table in self.vectors]
        return torch.stack([self._bits(number, codes, vectors) for number in range(len(self.sizes))], 1)

    def _bits(self, number: int, codes: Tensor, vectors: list[Tensor]) -> Tensor:
        stage, (height, width) = cast(_Stage, self.stages[number]), codes.shape[2:]
        padded = {
            back: F.embedding(
                F.pad(codes[:, number + back], (REACH,) * 4, value=self.sizes[number + back]), vectors[number + back]
            )
            for back in {context[0] for context in stage.context}
        }
        shown = [
            padded[back][:, down + REACH : down + REACH + height, right + REACH : right + REACH + width]
            for back, down, right in stage.context
        ]
        x = self._product(torch.cat(shown, -1), stage.first) + stage.rows[:, None] + stage.columns
        x = x.flatten(1, 2)  # (B, n, D)
        for layer in cast(list[Any], list(stage.layers)):
            x = x + self._product(self._attention(self._product(self._normalised(x), layer.qkv)), layer.out)
            x = x + self._product(self._small(self._product(self._normalised(x), layer.up), 0), layer.down)
        octaves = self._product(self._normalised(x), stage.last, LAST_BITS) + stage.last_bias
        bits = F.cross_entropy((math.log(2) * octaves).flatten(0, 1), codes[:, number].flatten(), reduction="none")
        return bits.view(len(codes), height, width) / math.log(2)

    def _small(self, x: Tensor, low: float = -127, bits: int = VALUE_BITS) -> Tensor:
        if self.whole:
            return cast(Tensor, _Round.apply(x, bits, low, 127.0))
        return F.hardtanh(x, low / 2.0**bits, 127 / 2.0**bits)  # whose backward is one pass, clamp's is three

    def _normalised(self, x: Tensor) -> Tensor:
        return self._small(F.rms_norm(x, (x.shape[-1],), eps=1e-6))

    def _product(self, left: Tensor, weights: Tensor, bits: int = WEIGHT_BITS) -> Tensor:
        return (left.to(self.dtype) @ self._small(weights, bits=bits).to(self.dtype)).float()

    def _attention(self, qkv: Tensor) -> Tensor:
        """(B, n, 3 D) -> (B, n, D): every slot sees the WINDOW slots up to itself."""
        batch, count, channels = qkv.shape
        query, key, value = self._small(qkv).to(self.dtype).view(batch, count, 3, -1, HEAD).permute(2, 0, 3, 1, 4)
        scale = math.log(2) / 4
        if count <= WINDOW:
            mixed = attend(query, key, value, None, scale)
        else:
            mixed = _windowed(query, key, value, scale)
        return self._small(mixed.transpose(1, 2).reshape(batch, count, channels // 3).float())

    @torch.no_grad()
    def integers(self) -> TransformerCoder:
        """The same network in whole numbers."""

        def weights(x: Tensor, bits: int = WEIGHT_BITS) -> np.ndarray:
            return torch.floor(x.double() * 2.0**bits + 0.5).clamp(-127, 127).numpy().astype(np.int8)

        def added(x: Tensor, bits: int = VALUE_BITS + WEIGHT_BITS) -> np.ndarray:
            return torch.floor(x.double() * 2.0**bits + 0.5).clamp(-BIAS_LIMIT, BIAS_LIMIT).numpy().astype(np.int32)

        stages = [
            StageTransformer(
                np.array(stage.context).reshape(-1, 3),
                weights(stage.first),
                added(stage.rows),
                added(stage.columns),
                tuple(TransformerLayer(*map(weights, (one.qkv, one.out, one.up, one.down))) for one in stage.layers),
                weights(stage.last, LAST_BITS),
                added(stage.last_bias, VALUE_BITS + LAST_BITS),
            )
            for stage in cast(list[Any], list(self.stages))
        ]
        return TransformerCoder(self.grid, [weights(table, VALUE_BITS) for table in self.vectors], stages)


def _windowed(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention (B, heads, n, d) of each slot to the WINDOW slots up to itself, in memory that grows with n alone."""
    count = query.shape[2]
    chunks = -(-count // WINDOW)
    query, key, value = (
        F.pad(x, (0, 0, 0, chunks * WINDOW - count)).unflatten(2, (chunks, WINDOW)) for x in (query, key, value)
    )
    key, value = (torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], 3) for x in (key, value))
    age = torch.arange(WINDOW)[:, None] + WINDOW - torch.arange(2 * WINDOW)
    seen = ((age >= 0) & (age < WINDOW)).expand(chunks, -1, -1).clone()
    seen[0, :, :WINDOW] = False
    mixed = attend(query, key, value, seen, scale)
    return mixed.flatten(2, 3)[:, :, :count]


def fit_coder(
    artifact: Artifact, data: ImageData, steps: int, display: Display | None = None
) -> tuple[TransformerCoder, dict[str, float]] | None:
    """The integer prior of an artifact's codes, and coder_bits_per_code (on validation images, if there are any).

    The look at the validation split that was best is kept; looks that only become worse end the fit. steps: at most;
    few codes take fewer. A pure function of artifact, data and steps. None for no steps, and for codes that it cannot
    hold: none at all, or more than MAX_CODES, MAX_STAGES or MAX_POSITIONS.
    """
    quantizer, settings, display = artifact.model.quantizer, artifact.config.coder, display or Silent()
    if not steps or not quantizer.is_discrete:
        return None
    if (
        max(quantizer.codebook_sizes) > MAX_CODES
        or quantizer.num_codebooks > MAX_STAGES
        or math.prod(artifact.model.grid(artifact.size)) > MAX_POSITIONS
    ):
        display.message("no coder: the codebooks or the grid are too large for it; files of codes will be larger")
        return None
    codes = _codes(artifact, data, "train", MAX_KEPT)
    held_out = _codes(artifact, data, "validation", NUM_VALIDATED * codes[0].numel())
    network = _network(artifact, codes)
    network.dtype = torch.bfloat16 if use_bfloat16(artifact.config.train.precision) else torch.float32
    steps = min(steps, max(MIN_STEPS, MAX_ROUNDS * codes.numel() // STEP_CODES))
    best, kept, found, worse, began = math.inf, network, math.inf, 0, time.monotonic()
    display.start(f"fitting the coder to the codes of {len(codes)} images")
    try:
        for step, _ in enumerate(_steps(network, codes, steps, settings, artifact.config.seed), 1):
            if step == steps or step * LOOKS % steps < LOOKS:
                found = _bits(network, held_out if len(held_out) else codes[:NUM_VALIDATED])
                worse = worse + 1 if found > WORSE * best else 0
                if found < best:
                    best, kept = found, copy.deepcopy(network)
            row = {"step": step, "seconds": time.monotonic() - began}
            display.update(step / steps, row | ({"bits_per_code": found} if found < math.inf else {}))
            if worse == PATIENCE:
                break
    finally:
        display.stop()
    return kept.integers(), {"coder_bits_per_code": best}


def _codes(artifact: Artifact, data: ImageData, split: str, limit: int) -> Tensor:  # (N, Q, h, w) int64
    parts, found = [], 0
    for _, images in split_batches(data, split, 256):
        parts.append(artifact.encode(images.permute(0, 2, 3, 1)).to(torch.int16))
        found += parts[-1].numel()
        if found >= limit:
            break
    grid = artifact.model.grid(artifact.size)
    return torch.cat(parts) if parts else torch.zeros(0, artifact.model.quantizer.num_codebooks, *grid)


def _network(artifact: Artifact, codes: Tensor) -> CoderNetwork:
    """Untrained, but it knows how often each code occurs, and which codes are alike."""
    quantizer = artifact.model.quantizer
    sizes = list(quantizer.codebook_sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(artifact.config.seed)
        for channels in WIDTHS:
            network = CoderNetwork(sizes, (codes.shape[2], codes.shape[3]), channels)
            if sum(parameter.numel() for parameter in network.parameters()) < MAX_BYTES:
                break
    for number, (part, size) in enumerate(zip(quantizer.parts(), sizes, strict=True)):
        counts = torch.bincount(codes[:, number].flatten().int(), minlength=size) + 1.0
        cast(Any, network.stages[number]).last_bias.data.copy_((counts / counts.sum()).log2())
        values = part.lookup(torch.arange(size)[:, None]).detach().float()
        left, singular, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
        axes = (left * singular)[:, : network.vectors[number].shape[1]]
        network.vectors[number].data[:size, : axes.shape[1]] = 0.5 * axes / axes.std().clamp(min=1e-6)
    return network


def _steps(network: CoderNetwork, codes: Tensor, steps: int, settings: CoderConfig, seed: int) -> Iterator[None]:
    """Train, and give way after every step."""
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, STEP_CODES // codes[0].numel())
    matrices = [
        parameter
        for stage in cast(list[Any], list(network.stages))
        for parameter in (stage.first, *stage.layers.parameters())
    ]
    known = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    optimizers = [
        AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        Muon(matrices, settings.muon_lr, WEIGHT_DECAY, dtype=network.dtype),
    ]
    peaks = settings.lr, settings.muon_lr
    order = torch.randperm(len(codes), generator=generator)
    for step in range(steps):
        network.whole = step >= (1 - ROUNDED_SHARE) * steps
        factor = min((step + 1) / (0.02 * steps + 1), (1 - step / steps) / 0.6, 1)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(codes), generator=generator)])
        rows, order = order[:batch], order[batch:]
        network(codes[rows].long()).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        network.zero_grad(set_to_none=True)
        yield


@torch.no_grad()
def _bits(network: CoderNetwork, codes: Tensor) -> float:
    """Bits a code, as the integers will have them but for the rounding of frequencies."""
    batch = max(1, STEP_CODES // codes[0].numel())
    whole, dtype = network.whole, network.dtype
    network.whole, network.dtype = True, torch.float32
    found = float(torch.cat([network(part.long()).flatten() for part in codes.split(batch)]).mean())
    network.whole, network.dtype = whole, dtype
    return found
