"""A transformer over codes that predicts any of them from any others.

Shapes: B images, L slots of an image (see layout), d width, P prefix states, K codes.

Step i of a sequence holds the code taken before it and where it lay, and is asked for the slot
order[i]: it sees steps 0..i and predicts the code there. Since the question is part of the input,
one set of weights answers in every order (sigma-GPT, Pannatier et al. 2024, arXiv 2404.09562;
RandAR, Pang et al. 2024, arXiv 2412.01827). Row by row it is the usual causal model with an exact
likelihood. With what is known in front it completes it, and several questions asked at once, none
of which sees another, are the masked prediction of MaskGIT, without mask tokens and with a cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..config.prior import PriorNetworkConfig
from .layout import Slots

# Logits that are in memory at once.
MAX_LOGITS = 1 << 24
# Steps whose attention is trained as plain products on a CPU.
MAX_DENSE = 512


class _RMSNorm(torch.autograd.Function):
    """Three passes forward and three backward.

    The operator of PyTorch takes up to ten times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        mean = norm.square_().div_(x.shape[-1])
        inverse = mean.add_(1e-6).rsqrt_().to(x.dtype)
        normed = x * inverse
        device = x.device.type
        if torch.is_autocast_enabled(device):
            normed = normed.to(torch.get_autocast_dtype(device))
        ctx.save_for_backward(normed, inverse)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        normed, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, normed)[..., None].div_(-normed.shape[-1])
        return torch.addcmul(gradient, normed, along) * inverse


def rms_norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension (Zhang & Sennrich 2019, arXiv 1910.07467).

    The maps behind it scale.

    In the type of autocast where that is on, which the maps behind it would take it to, three of
    them one by one.
    """
    return cast(Tensor, _RMSNorm.apply(x))


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, arXiv 2109.08668), one pass backward."""
    return cast(Tensor, _SquaredReLU.apply(x))


@dataclass
class Cache:
    """Keys and values of the steps so far, in memory of a fixed size: one (B, heads, capacity, d /
    heads) a block.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0


@dataclass(frozen=True)
class Condition:
    """What is known about the images: classes (B,) int64, the number of classes for none.

    Captions (B, bytes) uint8.
    """

    classes: Tensor | None = None
    captions: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.classes, self.captions))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        classes, captions = self
        return Condition(
            classes=None if classes is None else classes[rows],
            captions=None if captions is None else captions[rows],
        )

    @property
    def is_empty(self) -> bool:
        return self.classes is None and self.captions is None


@dataclass(frozen=True)
class _Angles:
    """Cosines and signed sines (B or 1, 1, steps, d / heads).

    Queries turn by where they ask, keys by where they lie.
    """

    queries: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with normalised queries and keys and squared
    ReLU.

    Query-key norm: Henry et al. 2020, arXiv 2010.04245. The last layer of either branch starts at
    zero.
    """

    def __init__(self, config: PriorNetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, config.expansion * width, bias=False)
        self.contract = nn.Linear(config.expansion * width, width, bias=False)
        for last in (self.output, self.contract):
            nn.init.zeros_(last.weight)

    def forward(
        self,
        x: Tensor,
        angles: _Angles,
        mask: Tensor | None,
        memory: _Memory | None,
        dropout_mask: Tensor | None = None,
    ) -> Tensor:
        """dropout_mask: (B, 2, steps, d) bool, True where a channel of either branch stays; None =
        drawn here.
        """
        attended_stay = None if dropout_mask is None else dropout_mask[:, 0]
        mapped_stay = None if dropout_mask is None else dropout_mask[:, 1]
        # One product for all three: (B, heads, steps, d / heads) each.
        weights = torch.cat([self.query.weight, self.key.weight, self.value.weight])
        mapped = F.linear(rms_norm(x), weights).unflatten(2, (3, self.num_heads, -1))
        q, k, v = mapped.permute(2, 0, 3, 1, 4).unbind()
        q = rotate(rms_norm(q), *angles.queries)
        k = rotate(rms_norm(k), *angles.keys)
        if memory is not None:
            k, v = memory.extend(k.to(v.dtype), v)
        attended = attend(q.to(v.dtype), k.to(v.dtype), v, mask)
        x = x + self._drop(self.output(attended.transpose(1, 2).flatten(2)), attended_stay)
        return x + self._drop(self.contract(squared_relu(self.expand(rms_norm(x)))), mapped_stay)

    def _drop(self, x: Tensor, stays: Tensor | None) -> Tensor:
        if stays is not None:
            return x * stays.to(x.dtype).div_(1 - self.dropout)
        # Without dropout no random number is drawn, and nothing is copied.
        if not self.dropout:
            return x
        return F.dropout(x, self.dropout, self.training)


@dataclass
class _Memory:
    """One block's share of a cache: writes the new steps behind `start` and gives all up to
    there.
    """

    keys: Tensor
    values: Tensor
    start: int

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        stop = self.start + keys.shape[2]
        self.keys[:, :, self.start : stop] = keys
        self.values[:, :, self.start : stop] = values
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class CaptionEncoder(nn.Module):
    """Bytes (B, n) of captions, zeros behind their end -> states (B, n / 4, d).

    Two convolutions over bytes; then a state for every four of them, to which the mean over all
    bytes is added.
    """

    def __init__(self, num_bytes: int, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, hidden)
        self.convolutions = nn.ModuleList(nn.Conv1d(hidden, hidden, 5, padding=2) for _ in range(2))
        self.pool = nn.Linear(4 * hidden, width)
        self.whole = nn.Linear(hidden, width)
        self.position = nn.Parameter(torch.empty(num_bytes // 4, width).normal_(std=0.02))

    def forward(self, captions: Tensor) -> Tensor:
        x = self.embedding(captions.long())  # (B, n, hidden)
        for convolution in self.convolutions:
            x = x + F.gelu(convolution(rms_norm(x).transpose(1, 2)).transpose(1, 2))
        written = (captions > 0)[..., None]
        whole = (x * written).sum(1, keepdim=True) / written.sum(1, keepdim=True).clamp(min=1)
        return self.pool(x.unflatten(1, (-1, 4)).flatten(2)) + self.whole(whole) + self.position


@dataclass(frozen=True)
class Steps:
    """Steps of sequences, ready for the blocks: inputs (B, n, d) and the turns of their queries and
    keys.
    """

    inputs: Tensor
    angles: _Angles = field(repr=False)


class PriorNetwork(nn.Module):
    """Distribution over the codes of an image, in any order; see the module's docstring.

    Classes come in as the first step's content, captions as P states in front of it. Positions are
    learned, and rotate queries and keys in two dimensions (RoPE, Su et al. 2021, arXiv 2104.09864):
    a query by where it asks, a key by where its code lies, so that attention depends on the
    distance between the two.
    """

    def __init__(
        self,
        config: PriorNetworkConfig,
        layout: Slots,
        num_classes: int = 0,
        captions: bool = False,
    ) -> None:
        super().__init__()
        if config.width % (4 * config.num_heads):
            raise ValueError(
                f"width={config.width} must be a multiple of 4 times num_heads={config.num_heads}"
            )
        self.config = config
        self.layout = layout
        self.num_classes = num_classes
        width = config.width
        # Codebook i has the rows of `codes` and of `head` from starts[i] to starts[i + 1].
        self.starts = [0, *itertools.accumulate(layout.group_sizes)]
        num_codes = self.starts[-1]
        num_rows, num_columns = layout.plane
        num_places = len(layout.groups)
        self.codes = nn.Embedding(num_codes, width)
        self.begin = nn.Embedding(num_classes + 1, width)
        self.content_place = nn.Embedding(num_places, width)
        self.target_place = nn.Embedding(num_places, width)
        self.content_row = nn.Embedding(num_rows, width)
        self.target_row = nn.Embedding(num_rows, width)
        self.content_column = nn.Embedding(num_columns, width)
        self.target_column = nn.Embedding(num_columns, width)
        self.captions = CaptionEncoder(config.caption_bytes, width) if captions else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.head = nn.Linear(width, num_codes)
        offsets = torch.tensor(self.starts[:-1])[layout.slot_groups]
        self.register_buffer("rows", layout.rows.clone(), persistent=False)
        self.register_buffer("columns", layout.columns.clone(), persistent=False)
        self.register_buffer("places", layout.places.clone(), persistent=False)
        self.register_buffer("groups", layout.slot_groups.clone(), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self._initialise()

    rows: Tensor
    columns: Tensor
    places: Tensor
    groups: Tensor
    offsets: Tensor

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.codes.weight, std=0.5)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def start_from(self, vectors: Sequence[Tensor | None], generator: torch.Generator) -> None:
        """Let codes that lie close together in their codebook start close together here: vectors
        (K, D) a codebook, None for codes that have none.

        Inputs and outputs are random projections of the standardised code vectors, plus noise.
        """
        for group, table in enumerate(vectors):
            if table is None:
                continue
            table = (table - table.mean(0)) / table.std().clamp(min=1e-6)
            dim = table.shape[1]
            for weight, scale in ((self.codes.weight, 0.5), (self.head.weight, 0.02)):
                noise = torch.randn(dim, weight.shape[1], generator=generator)
                part = weight[self.starts[group] : self.starts[group + 1]]
                part.mul_(0.5).add_(table @ (noise / dim**0.5), alpha=scale)

    # ------------------------------------------------------------------------------ whole sequences

    def forward(
        self,
        codes: Tensor,
        order: Tensor,
        classes: Tensor | None = None,
        captions: Tensor | None = None,
        parts: int = 1,
    ) -> Tensor:
        """Nats (B, L) of the codes (B, L) of every slot, each given those before it in `order` (B,
        L); by step.

        classes and captions as in Condition; they come one by one because wrappers of modules take
        tensors. Padding, code -1, costs nothing. parts: the batch goes through in so many parts,
        which are computed again backwards.
        """
        if parts == 1:
            return self._all_nats(codes, order, classes, captions)
        dropout_mask = None
        if self.training and self.config.dropout > 0:
            dropout_mask = self._dropout_mask(len(codes))
        condition = Condition(classes, captions)
        nats = []
        size = -(-len(codes) // parts)
        for start in range(0, len(codes), size):
            rows = slice(start, start + size)
            stays = None if dropout_mask is None else dropout_mask[rows]
            inputs = (codes[rows], order[rows], *condition[rows], stays)
            nats.append(checkpoint(self._all_nats, *inputs, use_reentrant=False))
        return torch.cat(nats)

    def _dropout_mask(self, batch: int) -> Tensor:
        """Which channels of every branch stay (B, blocks, 2, P + L, d) bool, drawn for the whole
        batch as blocks draw it when the batch goes through in one part.
        """
        steps = self.num_prefix + self.layout.length
        like = self.head.weight.new_ones(batch, steps, self.config.width)
        drawn = [F.dropout(like, self.config.dropout) > 0 for _ in range(2 * len(self.blocks))]
        return torch.stack(drawn, 1).unflatten(1, (len(self.blocks), 2))

    def _all_nats(
        self,
        codes: Tensor,
        order: Tensor,
        classes: Tensor | None,
        captions: Tensor | None,
        dropout_mask: Tensor | None = None,
    ) -> Tensor:
        padding = codes.gather(1, order) < 0
        codes = codes.clamp(min=0)
        taken = codes.gather(1, order)
        steps = self.steps(taken[:, :-1], order, Condition(classes, captions))
        hidden = self.hidden(steps, dropout_mask=dropout_mask)[:, -order.shape[1] :]
        return self._nats(hidden, taken, order).masked_fill(padding, 0.0)

    def steps(self, taken: Tensor, order: Tensor, condition: Condition) -> Steps:
        """Inputs of all steps: P states of the caption, the beginning, then each code of `taken`
        (B, L - 1).

        Step i asks for order[:, i] and holds the code at order[:, i - 1].
        """
        before = order[:, : taken.shape[1]]
        begin, prefix = self.beginning(condition, len(order))
        contents = torch.cat([prefix, begin, self.contents(taken, before)], 1)
        targets = self.targets(order)
        num_prefix = prefix.shape[1]
        inputs = contents + F.pad(targets, (0, 0, num_prefix, 0))
        nowhere = order.new_full((len(order), num_prefix + 1), -1)
        asked = torch.cat([nowhere[:, :num_prefix], order], 1)
        return Steps(inputs, self.angles(asked, torch.cat([nowhere, before], 1)))

    def hidden(
        self,
        steps: Steps,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        keep: int = 0,
        dropout_mask: Tensor | None = None,
    ) -> Tensor:
        """Run the blocks.

        With a cache behind what it holds, of which the first `keep` steps stay there. dropout_mask:
        of the whole batch, see `_dropout_mask`; None = blocks draw their own.
        """
        x = steps.inputs
        memory = None
        for index, block in enumerate(self.blocks):
            if cache is not None:
                memory = _Memory(cache.keys[index], cache.values[index], cache.length)
            stays = None if dropout_mask is None else dropout_mask[:, index]
            x = block(x, steps.angles, mask, memory, stays)
        if cache is not None:
            cache.length += keep
        return rms_norm(x)

    def logits(self, hidden: Tensor, group: int) -> Tensor:
        """Logits (..., K) over the codes of one codebook from hidden states (..., d)."""
        rows = slice(self.starts[group], self.starts[group + 1])
        return F.linear(hidden, self.head.weight[rows], self.head.bias[rows])

    def cache(self, batch: int) -> Cache:
        """An empty cache for whole images."""
        # Twice the length: questions that are not kept need room too.
        capacity = self.num_prefix + 2 * self.layout.length
        shape = (batch, self.config.num_heads, capacity, self.config.width // self.config.num_heads)
        cache = Cache([], [])
        for _ in self.blocks:
            cache.keys.append(self.head.weight.new_empty(shape))
            cache.values.append(self.head.weight.new_empty(shape))
        return cache

    @property
    def num_prefix(self) -> int:
        """P"""
        if self.captions is None:
            return 0
        return self.config.caption_bytes // 4

    # --------------------------------------------------------------------------- parts of the input

    def beginning(self, condition: Condition, batch: int) -> tuple[Tensor, Tensor]:
        """What comes before any code: the first step's content (B, 1, d) and P states (B, P, d)."""
        device = self.head.weight.device
        classes = condition.classes
        if classes is None:
            classes = torch.full((batch,), self.num_classes, device=device)
        begin = self.begin(classes.to(device))[:, None]
        if self.captions is None:
            return begin, begin[:, :0]
        captions = condition.captions
        if captions is None:
            captions = torch.zeros(
                batch, self.config.caption_bytes, dtype=torch.uint8, device=device
            )
        return begin, self.captions(captions.to(device)).to(begin.dtype)

    def contents(self, codes: Tensor, slots: Tensor) -> Tensor:
        """Codes (B, n) at slots (B, n) -> (B, n, d)."""
        where = (
            self.content_place(self.places)
            + self.content_row(self.rows)
            + self.content_column(self.columns)
        )
        return self.codes(codes + self.offsets[slots]) + F.embedding(slots, where)

    def targets(self, slots: Tensor) -> Tensor:
        """Questions for slots (B, n) -> (B, n, d)."""
        where = (
            self.target_place(self.places)
            + self.target_row(self.rows)
            + self.target_column(self.columns)
        )
        return F.embedding(slots, where)

    def angles(self, asked: Tensor, lying: Tensor) -> _Angles:
        """Turns for questions about slots (B, n) by steps whose code lies at slots (B, n).

        -1 is not turned.
        """
        return _Angles(self._turns(asked), self._turns(lying))

    def _turns(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.config.width // self.config.num_heads // 4
        like = self.head.weight
        exponents = -torch.arange(quarter, dtype=like.dtype, device=like.device) / quarter
        speed = 0.5 * 32.0**exponents
        by_row = self.rows.to(like.dtype)[:, None] * speed
        by_column = self.columns.to(like.dtype)[:, None] * speed
        # A last row of zeros, which slot -1 takes: it is not turned.
        table = F.pad(torch.cat([by_row, by_column], 1), (0, 0, 0, 1))
        angle = table[slots]
        cosine = angle.cos()[:, None]
        sine = angle.sin()[:, None]
        return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)

    def _nats(self, hidden: Tensor, taken: Tensor, order: Tensor) -> Tensor:
        """-log p of the codes `taken` (B, L), codebook by codebook and never more than MAX_LOGITS
        at a time.
        """
        states = hidden.flatten(0, 1)
        codes = taken.flatten()
        if len(self.layout.group_sizes) == 1:
            return self._group_nats(states, codes, 0).reshape(taken.shape)
        groups = self.groups[order].flatten()
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        nats = torch.zeros(len(states), dtype=dtype, device=hidden.device)
        for group in range(len(self.layout.group_sizes)):
            rows = (groups == group).nonzero()[:, 0]
            nats = nats.index_copy(0, rows, self._group_nats(states[rows], codes[rows], group))
        return nats.reshape(taken.shape)

    def _group_nats(self, states: Tensor, codes: Tensor, group: int) -> Tensor:
        """-log p (n,) of codes (n,) of one codebook, after states (n, d)."""

        def cross_entropy(states: Tensor, codes: Tensor) -> Tensor:
            logits = at_least_float32(self.logits(states, group))
            return F.cross_entropy(logits, codes, reduction="none")

        size = self.layout.group_sizes[group]
        # Logits that are too many to be kept are computed anew in the backward pass.
        again = len(states) * size > MAX_LOGITS and torch.is_grad_enabled()
        at_once = max(1, MAX_LOGITS // size)
        nats = []
        for part, wanted in zip(states.split(at_once), codes.split(at_once), strict=True):
            if again:
                nats.append(checkpoint(cross_entropy, part, wanted, use_reentrant=False))
            else:
                nats.append(cross_entropy(part, wanted))
        return torch.cat(nats)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k') v over (B, ..., n, d), causal without a mask (..., n, m) of what each
    step sees.

    scale: 1 / sqrt(d) if not given. Short sequences on a CPU are trained as plain products: the
    backward of PyTorch's fused attention takes three times as long there in bfloat16.
    """
    if not (torch.is_grad_enabled() and q.device.type == "cpu" and q.shape[-2] <= MAX_DENSE):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale)
    if mask is None:
        unseen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    else:
        unseen = ~mask
    if scale is None:
        scale = q.shape[-1] ** -0.5
    scores = at_least_float32(q @ k.transpose(-1, -2)) * scale
    return scores.masked_fill(unseen, -torch.inf).softmax(-1).to(v.dtype) @ v


def at_least_float32(x: Tensor) -> Tensor:
    """x, in float32 if it was bfloat16: sums of exponentials need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn pairs of channels of (B, heads, n, d): the first half against the second, as RoPE
    does.
    """
    return torch.addcmul(x * cosine.to(x.dtype), x.roll(x.shape[-1] // 2, -1), sine.to(x.dtype))
