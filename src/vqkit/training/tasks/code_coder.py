"""Fits the integer prior that codes are compressed with, by a float twin that rounds alike.

Shapes: B items, Q codes of a position of the grid, which has any number of sides, h w the grid of a
stage as rows and columns, n = h w slots, C context codes, e the length of a vector, D channels, K
codes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from ...artifact.tokenizer import Tokenizer
from ...coding.codes.transformer import (
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
from ...coding.codes.transformer_coder import (
    MAX_CODES,
    MAX_POSITIONS,
    MAX_STAGES,
    REACH,
    TransformerCoder,
    context_offsets,
)
from ...coding.grids import rows_and_columns
from ...config.sections import TrainConfig
from ...data.dataset import Dataset
from ...data.indexed import Order
from ...data.splits import derive_seed
from ...model.precision import use_bfloat16
from ...model.quantizers import Bottleneck
from ...model.quantizers.cells import fold, spread, unfold
from ...prior.network import attend
from ..engine import unwrap
from ..optimizers import Muon
from ..task import Phase, Task

# Length of a code's vector, where the context is not too wide for it.
LENGTH = 32
NUM_LAYERS = 3
# Channels: the first that keeps the network below MAX_BYTES.
WIDTHS = (128, 96, 64, 32)
MAX_BYTES = 1 << 20
# Codes of a step.
STEP_CODES = 1 << 13
WEIGHT_DECAY = 0.1
# Share of the steps, the last ones, that round as the integers will; before, that would cost time
# and teach nothing.
ROUNDED_SHARE = 0.4
# Codes of the training items that are in memory at most; more items than that are left out.
MAX_KEPT = 1 << 24
NUM_VALIDATED = 1024
# Shares of the time up to a deadline in which the items of a split have to be encoded.
ENCODING = {"train": 0.4, "validation": 0.5}
NUM_VALIDATIONS = 12
# Validation passes in a row that are worse than the best by that factor end the fit; gains of the
# last steps are smaller.
PATIENCE = 3
WORSE = 1.05
# Times that the training codes are seen at most, and steps that this leaves of those that were
# asked for.
MAX_EPOCHS = 8
MIN_STEPS = 40


class _Round(torch.autograd.Function):
    """Nearest multiple of 2^-bits in [low, high], halves up as integers are shifted.

    The gradient passes inside.
    """

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
    """Attention and two linear maps, without biases.

    See coding.codes.transformer.TransformerLayer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(channels, 3 * channels) * channels**-0.5)
        self.out = nn.Parameter(torch.randn(channels, channels) * 0.3 * channels**-0.5)
        self.up = nn.Parameter(torch.randn(channels, 2 * channels) * channels**-0.5)
        self.down = nn.Parameter(torch.randn(2 * channels, channels) * 0.3 * (2 * channels) ** -0.5)


class _Stage(nn.Module):
    """The network of one stage; see coding.codes.transformer.StageTransformer."""

    def __init__(
        self, stage: int, size: int, length: int, grid: tuple[int, int], channels: int
    ) -> None:
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
    """All stages of the float twin. forward: codes (B, Q, *grid) int64 -> bits (B, Q, *grid) that
    each costs.

    whole: whether it rounds as the integers do. dtype: of what is multiplied; sums are float32.
    dropout: share of the codes that others do not see. generator: draws which; None = none.
    """

    def __init__(
        self,
        sizes: list[int],
        grid: tuple[int, int],
        channels: int,
        sides: tuple[int, ...] = (),
    ) -> None:
        """sizes: K of each stage. grid: rows and columns of the finest grid of a stage. sides: how
        many times finer the grid of each stage is than that of the codes; none for no finer ones.
        """
        super().__init__()
        self.sizes = sizes
        self.grid = grid
        self.sides = sides or (1,) * len(sizes)
        self.whole = True
        self.dtype = torch.float32
        self.dropout = 0.0
        widest = max(len(context_offsets(stage)) for stage in range(len(sizes)))
        length = min(LENGTH, MAX_FAN_IN // widest)
        self.vectors = nn.ParameterList(0.5 * torch.randn(size + 1, length) for size in sizes)
        self.stages = nn.ModuleList()
        for number, size in enumerate(sizes):
            self.stages.append(_Stage(number, size, length, grid, channels))

    def forward(self, codes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        vectors = [self._small(table) for table in self.vectors]
        stages = self.split(codes)
        bits = []
        for number, side in enumerate(self.sides):
            seen = []
            for one, coarser in zip(stages[: number + 1], self.sides, strict=False):
                seen.append(spread(one, side // coarser))
            together = torch.cat(seen, 1)
            grid = rows_and_columns(together.shape[2:])
            shaped = together.reshape(*together.shape[:2], *grid)
            found = self._bits(number, shaped, self._hidden(shaped, generator), vectors)
            bits.append(fold(found.reshape(len(codes), 1, *together.shape[2:]), side))
        return torch.cat(bits, 1)

    def split(self, codes: Tensor) -> list[Tensor]:
        """Codes (B, Q, *grid) -> those of each stage on its own grid (B, 1, *grid * side)."""
        counts = [side ** (codes.dim() - 2) for side in self.sides]
        parts = codes.split(counts, 1)
        return [unfold(part, side) for part, side in zip(parts, self.sides, strict=True)]

    def _hidden(self, codes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Codes without a share of them, which are as if they were not there."""
        if generator is None or not self.dropout:
            return codes
        draws = torch.rand(codes.shape, generator=generator).to(codes.device)
        return codes.masked_fill(draws < self.dropout, -1)

    def _bits(self, number: int, codes: Tensor, seen: Tensor, vectors: list[Tensor]) -> Tensor:
        """Bits (B, h, w) of a stage of codes (B, number + 1, h, w) on its grid, of which those in
        `seen` are known, likewise.
        """
        stage = cast(_Stage, self.stages[number])
        high, wide = codes.shape[2:]
        # By how many stages back: its codes as vectors, with a border of REACH.
        embedded: dict[int, Tensor] = {}
        shown = []
        for back, down, right in stage.context:
            if back not in embedded:
                embedded[back] = self._embedded(seen, number + back, vectors)
            down += REACH
            right += REACH
            shown.append(embedded[back][:, down : down + high, right : right + wide])
        # Positions are those of the finest grid.
        rows = stage.rows[torch.arange(high, device=codes.device) * self.grid[0] // high]
        columns = stage.columns[torch.arange(wide, device=codes.device) * self.grid[1] // wide]
        x = self._product(torch.cat(shown, -1), stage.first) + rows[:, None] + columns
        x = x.flatten(1, 2)  # (B, n, D)
        for layer in cast(list[Any], list(stage.layers)):
            attended = self._attention(self._product(self._normalised(x), layer.qkv))
            x = x + self._product(attended, layer.out)
            # With a lower limit of 0, rounding is the ReLU too.
            hidden = self._small(self._product(self._normalised(x), layer.up), 0)
            x = x + self._product(hidden, layer.down)
        octaves = self._product(self._normalised(x), stage.last, LAST_BITS) + stage.last_bias
        logits = (math.log(2) * octaves).flatten(0, 1)
        wanted = codes[:, number].flatten()
        nats = F.cross_entropy(logits, wanted, reduction="none", ignore_index=-1)
        return nats.view(len(codes), high, wide) / math.log(2)

    def _embedded(self, codes: Tensor, number: int, vectors: list[Tensor]) -> Tensor:
        """Vectors of the codes of a stage with a border.

        The border and padding (-1) have that of no code.
        """
        nothing = self.sizes[number]
        stage = codes[:, number]
        padded = F.pad(stage.where(stage >= 0, nothing), (REACH,) * 4, value=nothing)
        return F.embedding(padded, vectors[number])

    def _small(self, x: Tensor, low: float = -127, bits: int = VALUE_BITS) -> Tensor:
        if self.whole:
            return cast(Tensor, _Round.apply(x, bits, low, 127.0))
        # The backward of hardtanh is one pass, that of clamp three.
        return F.hardtanh(x, low / 2.0**bits, 127 / 2.0**bits)

    def _normalised(self, x: Tensor) -> Tensor:
        return self._small(F.rms_norm(x, (x.shape[-1],), eps=1e-6))

    def _product(self, left: Tensor, weights: Tensor, bits: int = WEIGHT_BITS) -> Tensor:
        return (left.to(self.dtype) @ self._small(weights, bits=bits).to(self.dtype)).float()

    def _attention(self, qkv: Tensor) -> Tensor:
        """(B, n, 3 D) -> (B, n, D): every slot sees the WINDOW slots up to itself."""
        batch, count, channels = qkv.shape
        rounded = self._small(qkv).to(self.dtype)
        query, key, value = rounded.view(batch, count, 3, -1, HEAD).permute(2, 0, 3, 1, 4)
        scale = math.log(2) / 4
        if count <= WINDOW:
            mixed = attend(query, key, value, None, scale)
        else:
            mixed = _windowed(query, key, value, scale)
        return self._small(mixed.transpose(1, 2).reshape(batch, count, channels // 3).float())

    @torch.no_grad()
    def integers(self) -> TransformerCoder:
        """The same network in whole numbers."""
        stages = [_integer_stage(stage) for stage in cast(list[_Stage], list(self.stages))]
        vectors = [_weights(table, VALUE_BITS) for table in self.vectors]
        return TransformerCoder(self.grid, vectors, stages, self.sides)


def _integer_stage(stage: _Stage) -> StageTransformer:
    layers = []
    for layer in cast(list[_Layer], list(stage.layers)):
        matrices = map(_weights, (layer.qkv, layer.out, layer.up, layer.down))
        layers.append(TransformerLayer(*matrices))
    return StageTransformer(
        np.array(stage.context).reshape(-1, 3),
        _weights(stage.first),
        _added(stage.rows),
        _added(stage.columns),
        tuple(layers),
        _weights(stage.last, LAST_BITS),
        _added(stage.last_bias, VALUE_BITS + LAST_BITS),
    )


def _weights(x: Tensor, bits: int = WEIGHT_BITS) -> np.ndarray:
    """In units of 2^-bits, int8."""
    return _rounded(x, bits).clamp(-127, 127).numpy().astype(np.int8)


def _added(x: Tensor, bits: int = VALUE_BITS + WEIGHT_BITS) -> np.ndarray:
    """What is added to products, in their units of 2^-bits, int32."""
    return _rounded(x, bits).clamp(-BIAS_LIMIT, BIAS_LIMIT).numpy().astype(np.int32)


def _rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest multiple of 2^-bits, as a whole number; halves up, as `_Round` does."""
    return torch.floor(x.double() * 2.0**bits + 0.5)


def _windowed(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention (B, heads, n, d) of each slot to the WINDOW slots up to itself, in memory that
    grows with n alone.
    """
    count = query.shape[2]
    chunks = -(-count // WINDOW)

    def chunked(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, chunks * WINDOW - count)).unflatten(2, (chunks, WINDOW))

    def with_chunk_before(x: Tensor) -> Tensor:
        return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], 3)

    query = chunked(query)
    key = with_chunk_before(chunked(key))
    value = with_chunk_before(chunked(value))
    ages = torch.arange(2 * WINDOW, device=query.device)
    age = ages[:WINDOW, None] + WINDOW - ages
    seen = ((age >= 0) & (age < WINDOW)).expand(chunks, -1, -1).clone()
    seen[0, :, :WINDOW] = False
    mixed = attend(query, key, value, seen, scale)
    return mixed.flatten(2, 3)[:, :, :count]


class CoderOutput(NamedTuple):
    """terms: bits, the mean bits a code; codes (B, Q, *grid)."""

    terms: dict[str, Tensor]
    codes: Tensor


class CodeCoderTask(Task):
    """Fit the float twin to the codes that a tokenizer gives a data set, a pure function of the two
    and of the steps.

    Few codes take fewer steps; validation passes that only become worse end the fit, and the best
    one is kept.
    """

    is_alone = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        data: Dataset,
        steps: int,
        deadline: float | None = None,
    ) -> None:
        """deadline: of time.monotonic(), by which the fit ends; items that cannot be encoded in
        good time before it are left out.
        """
        artifact = tokenizer.artifact
        self.bottleneck = artifact.network.quantizer
        self.coder = artifact.config.coder
        self.seed = artifact.config.seed
        ends = {}
        if deadline is not None:
            now = time.monotonic()
            ends = {split: now + share * (deadline - now) for split, share in ENCODING.items()}
        self.codes = _codes(tokenizer, data, "train", MAX_KEPT, ends.get("train"))
        per_item = self.codes[0].numel()
        limit = NUM_VALIDATED * per_item
        self.held_out = _codes(tokenizer, data, "validation", limit, ends.get("validation"))
        if not len(self.held_out):
            self.held_out = self.codes[:NUM_VALIDATED]
        steps = min(steps, max(MIN_STEPS, MAX_EPOCHS * self.codes.numel() // STEP_CODES))
        self.settings = TrainConfig(
            steps=steps,
            batch_size=max(1, STEP_CODES // per_item),
            lr=self.coder.lr,
            clip_norm=0.0,
            ema_decay=0.0,
            precision="float32",
            validate_every=max(1, round(steps / NUM_VALIDATIONS)),
            patience=PATIENCE,
            checkpoint_every=200,
            log_every=10,
            guard="off",
        )
        self.dtype = torch.float32
        if use_bfloat16(artifact.config.train.precision):
            self.dtype = torch.bfloat16
        self.fingerprint = {**data.fingerprint, "content_id": artifact.content_id, "steps": steps}
        self.phases = (
            Phase("coder", self._forward, lambda progress: {"bits": 1.0}, self._optimizers),
        )

    @staticmethod
    def why_not(tokenizer: Tokenizer) -> str:
        """Why the codes of a tokenizer cannot be held by this coder; empty where they can."""
        quantizer = tokenizer.artifact.network.quantizer
        if not quantizer.is_discrete:
            return "the model has no codebook"
        if max(quantizer.codebook_sizes) > MAX_CODES:
            return f"a codebook has more than {MAX_CODES} codes"
        if len(quantizer.sections) > MAX_STAGES:
            return f"there are more than {MAX_STAGES} codes a position"
        if math.prod(_finest(quantizer, tokenizer.grid(tokenizer.shape.extent))) > MAX_POSITIONS:
            return f"the grid has more than {MAX_POSITIONS} positions"
        return ""

    def config(self) -> dict[str, Any]:
        return self.coder.model_dump(mode="json")

    def build(self) -> CoderNetwork:
        """Untrained, but it knows how often each code occurs, and which codes are alike."""
        network = _network(self.bottleneck, self.codes, self.seed)
        network.dtype = self.dtype
        network.dropout = self.coder.dropout
        return network

    def title(self, model: nn.Module) -> str:
        return f"the coder of files: codes of {len(self.codes)} items"

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Tensor]:
        size = self.settings.batch_size
        order = Order(np.arange(len(self.codes)), derive_seed("coder", self.seed))
        step = start_step
        while True:
            rows = order.positions(step * size, (step + 1) * size)
            yield self.codes[torch.from_numpy(rows)].long()
            step += 1

    def validation_batches(self) -> Iterator[Tensor]:
        for part in self.held_out.split(self.settings.batch_size):
            yield part.long()

    def num_items(self, batch: Tensor) -> int:
        return len(batch)

    def figures(self, output: CoderOutput, batch: Tensor) -> dict[str, Tensor]:
        return {"bits_per_code": output.terms["bits"].detach()}

    def lr_factor(self, progress: float) -> float:
        steps = self.settings.steps
        return min((progress * steps + 1) / (0.02 * steps + 1), (1 - progress) / 0.6, 1.0)

    def begin_step(self, model: nn.Module, progress: float) -> None:
        cast(CoderNetwork, model).whole = progress >= 1 - ROUNDED_SHARE

    def is_worse(self, loss: float, best: float) -> bool:
        return loss > WORSE * best

    def _forward(
        self, model: nn.Module, codes: Tensor, generator: torch.Generator | None
    ) -> CoderOutput:
        codes = codes.to(next(model.parameters()).device)
        if generator is not None:
            return CoderOutput({"bits": _mean(model(codes, generator), codes)}, codes)
        # As the integers will have it, but for the rounding of frequencies.
        network = cast(CoderNetwork, unwrap(model))
        whole = network.whole
        network.whole = True
        network.dtype = torch.float32
        bits = _mean(model(codes), codes)
        network.whole = whole
        network.dtype = self.dtype
        return CoderOutput({"bits": bits}, codes)

    def _optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Muon for the matrices of the stages, AdamW for vectors, positions and the last layers."""
        matrices: list[nn.Parameter] = []
        for stage in cast(list[_Stage], list(cast(CoderNetwork, model).stages)):
            matrices += (stage.first, *stage.layers.parameters())
        known = set(map(id, matrices))
        others = [parameter for parameter in model.parameters() if id(parameter) not in known]
        adamw = AdamW(
            [{"params": others, "peak_lr": self.coder.lr}],
            lr=self.coder.lr,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        )
        return [adamw, Muon(matrices, self.coder.muon_lr, WEIGHT_DECAY, dtype=self.dtype)]


def _mean(bits: Tensor, codes: Tensor) -> Tensor:
    """Mean of bits (B, Q, *grid) over the codes that are no padding, which cost nothing."""
    return bits.sum() / (codes >= 0).sum()


def _codes(
    tokenizer: Tokenizer, data: Dataset, split: str, limit: int, end: float | None
) -> Tensor:  # (N, Q, *grid) int16
    """Codes of the first items of a split: `limit` codes, or as many as there is time for until
    `end`, of time.monotonic().
    """
    parts: list[Tensor] = []
    count = 0
    for batch in data.split(split, 256):
        codes = tokenizer.encode(batch.values, batch.mask)
        parts.append(codes.to(torch.int16))
        count += codes.numel()
        if count >= limit or (end is not None and time.monotonic() >= end):
            break
    if parts:
        return torch.cat(parts)
    grid = tokenizer.grid(tokenizer.shape.extent)
    return torch.zeros(0, tokenizer.num_codebooks, *grid, dtype=torch.int16)


def _finest(quantizer: Bottleneck, grid: Sequence[int]) -> list[int]:
    """The finest grid of a stage, of codes on a grid."""
    return [side * quantizer.sections[-1].side for side in grid]


def _network(quantizer: Bottleneck, codes: Tensor, seed: int) -> CoderNetwork:
    sections = quantizer.sections
    sizes = [quantizer.codebook_sizes[section.place] for section in sections]
    sides = tuple(section.side for section in sections)
    grid = rows_and_columns(_finest(quantizer, codes.shape[2:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for channels in WIDTHS:
            network = CoderNetwork(sizes, grid, channels, sides)
            if sum(parameter.numel() for parameter in network.parameters()) < MAX_BYTES:
                break
    parts = quantizer.parts()
    for number, (section, size) in enumerate(zip(sections, sizes, strict=True)):
        part = parts[section.place]
        own = codes[:, section.place : section.place + section.num_codes]
        counts = torch.bincount(own.flatten().int() + 1, minlength=size + 1)[1:] + 1.0
        cast(Any, network.stages[number]).last_bias.data.copy_((counts / counts.sum()).log2())
        values = part.lookup(torch.arange(size)[:, None]).detach().float()
        left, singular, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
        axes = (left * singular)[:, : network.vectors[number].shape[1]]
        scaled = 0.5 * axes / axes.std().clamp(min=1e-6)
        network.vectors[number].data[:size, : axes.shape[1]] = scaled
    return network
