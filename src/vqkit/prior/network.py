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

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..config.prior import PriorNetworkConfig
from .layout import Layout

# Logits that are in memory at once.
MAX_LOGITS = 1 << 24
# Steps whose attention is trained as plain products on a CPU.
MAX_DENSE = 512


class _RMSNorm(torch.autograd.Function):
    """Three passes forward and three backward; the operator of PyTorch takes up to ten times as
    long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean = (
            torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
            .square_()
            .div_(x.shape[-1])
        )
        inverse = mean.add_(1e-6).rsqrt_().to(x.dtype)
        on = x.device.type
        normed = (x * inverse).to(
            torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else x.dtype
        )
        ctx.save_for_backward(normed, inverse)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        normed, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, normed)[..., None].div_(-normed.shape[-1])
        return torch.addcmul(gradient, normed, along) * inverse


def rms_norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension (Zhang & Sennrich 2019, arXiv 1910.07467); the maps behind
    it scale.

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
    """What is known about the images: classes (B,) int64, the number of classes for none; captions
    (B, bytes) uint8.
    """

    classes: Tensor | None = None
    captions: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.classes, self.captions))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(*(None if part is None else part[rows] for part in self))

    @property
    def is_empty(self) -> bool:
        return self.classes is None and self.captions is None


@dataclass(frozen=True)
class _Angles:
    """Cosines and signed sines (B or 1, 1, steps, d / heads): queries turn by where they ask, keys
    by where they lie
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
        width, self.num_heads, self.dropout = config.width, config.num_heads, config.dropout
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
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
        stays = (None, None) if dropout_mask is None else dropout_mask.unbind(1)
        weights = torch.cat([layer.weight for layer in (self.query, self.key, self.value)])
        mapped = F.linear(rms_norm(x), weights).unflatten(2, (3, self.num_heads, -1))
        q, k, v = mapped.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, steps, d / heads)
        q, k = rotate(rms_norm(q), *angles.queries), rotate(rms_norm(k), *angles.keys)
        if memory is not None:
            k, v = memory.extend(k.to(v.dtype), v)
        attended = attend(q.to(v.dtype), k.to(v.dtype), v, mask)
        x = x + self._drop(self.output(attended.transpose(1, 2).flatten(2)), stays[0])
        return x + self._drop(self.contract(squared_relu(self.expand(rms_norm(x)))), stays[1])

    def _drop(self, x: Tensor, stays: Tensor | None) -> Tensor:
        if stays is not None:
            return x * stays.to(x.dtype).div_(1 - self.dropout)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


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
        self.keys[:, :, self.start : stop], self.values[:, :, self.start : stop] = keys, values
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
        self.position = nn.Parameter(0.02 * torch.randn(num_bytes // 4, width))

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
        layout: Layout,
        num_classes: int = 0,
        captions: bool = False,
    ) -> None:
        super().__init__()
        if config.width % (4 * config.num_heads):
            raise ValueError(
                f"width={config.width} must be a multiple of 4 times num_heads={config.num_heads}"
            )
        self.config, self.layout, self.num_classes = config, layout, num_classes
        width, sizes = config.width, layout.group_sizes
        self.starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        self.codes = nn.Embedding(sum(sizes), width)
        self.begin = nn.Embedding(num_classes + 1, width)
        self.content_place, self.target_place = (
            nn.Embedding(len(layout.groups), width) for _ in range(2)
        )
        self.content_row, self.target_row = (nn.Embedding(layout.plane[0], width) for _ in range(2))
        self.content_column, self.target_column = (
            nn.Embedding(layout.plane[1], width) for _ in range(2)
        )
        self.captions = CaptionEncoder(config.caption_bytes, width) if captions else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.head = nn.Linear(width, sum(sizes))
        for name, table in {
            "rows": layout.rows,
            "columns": layout.columns,
            "places": layout.places,
        }.items():
            self.register_buffer(name, table.clone(), persistent=False)
        self.register_buffer("groups", layout.slot_groups.clone(), persistent=False)
        self.register_buffer(
            "offsets", torch.tensor(self.starts[:-1])[layout.slot_groups], persistent=False
        )
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
    def start_from(self, vectors: list[Tensor], generator: torch.Generator) -> None:
        """Let codes that lie close together in their codebook start close together here: vectors
        (K, D) a codebook.

        Inputs and outputs are random projections of the standardised code vectors, plus noise.
        """
        for group, table in enumerate(vectors):
            table = (table - table.mean(0)) / table.std().clamp(min=1e-6)
            for weight, scale in ((self.codes.weight, 0.5), (self.head.weight, 0.02)):
                spread = (
                    torch.randn(table.shape[1], weight.shape[1], generator=generator)
                    / table.shape[1] ** 0.5
                )
                part = weight[self.starts[group] : self.starts[group + 1]]
                part.mul_(0.5).add_(table @ spread, alpha=scale)

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
        drops = self.training and self.config.dropout > 0
        dropout_mask = self._dropout_mask(len(codes)) if drops else None
        whole = (codes, order, classes, captions, dropout_mask)
        split = [None if x is None else x.chunk(parts) for x in whole]
        count = len(codes.chunk(parts))
        rows = [[None if x is None else x[part] for x in split] for part in range(count)]
        return torch.cat([checkpoint(self._all_nats, *one, use_reentrant=False) for one in rows])

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
        """Run the blocks; with a cache behind what it holds, of which the first `keep` steps stay
        there. dropout_mask: of the whole batch, see `_dropout_mask`; None = blocks draw their own.
        """
        x = steps.inputs
        for index, block in enumerate(self.blocks):
            memory = (
                None
                if cache is None
                else _Memory(cache.keys[index], cache.values[index], cache.length)
            )
            stays = None if dropout_mask is None else dropout_mask[:, index]
            x = block(x, steps.angles, mask, memory, stays)
        if cache is not None:
            cache.length += keep
        return rms_norm(x)

    def logits(self, hidden: Tensor, group: int) -> Tensor:
        """Logits (..., K) over the codes of one codebook from hidden states (..., d)."""
        start, stop = self.starts[group], self.starts[group + 1]
        return F.linear(hidden, self.head.weight[start:stop], self.head.bias[start:stop])

    def cache(self, batch: int) -> Cache:
        """An empty cache for whole images.

        Twice the length: questions that are not kept need room too.
        """
        capacity = self.num_prefix + 2 * self.layout.length
        shape = (batch, self.config.num_heads, capacity, self.config.width // self.config.num_heads)
        like = self.head.weight
        parts = [
            [torch.empty(shape, dtype=like.dtype, device=like.device) for _ in self.blocks]
            for _ in range(2)
        ]
        return Cache(parts[0], parts[1])

    @property
    def num_prefix(self) -> int:
        """P"""
        return self.config.caption_bytes // 4 if self.captions is not None else 0

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
        """Turns for questions about slots (B, n) by steps whose code lies at slots (B, n); -1 is
        not turned.
        """
        return _Angles(self._turns(asked), self._turns(lying))

    def _turns(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.config.width // self.config.num_heads // 4
        like = self.head.weight
        speed = 0.5 * 32.0 ** (
            -torch.arange(quarter, dtype=like.dtype, device=like.device) / quarter
        )
        sides = [(table.to(like.dtype)[:, None] * speed) for table in (self.rows, self.columns)]
        angle = F.pad(torch.cat(sides, 1), (0, 0, 0, 1))[slots]  # row -1 is the padding: no turn
        cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
        return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)

    def _nats(self, hidden: Tensor, taken: Tensor, order: Tensor) -> Tensor:
        """-log p of the codes `taken` (B, L), codebook by codebook and never more than MAX_LOGITS
        at a time.
        """
        groups = self.groups[order].flatten()
        flat, wanted = hidden.flatten(0, 1), taken.flatten()
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        nats = torch.zeros(len(flat), dtype=dtype, device=hidden.device)
        for group, size in enumerate(self.layout.group_sizes):
            rows = (groups == group).nonzero()[:, 0] if len(self.layout.group_sizes) > 1 else None
            states, codes = (flat, wanted) if rows is None else (flat[rows], wanted[rows])
            parts = [
                self._cross_entropy(part, target, group, len(states) * size > MAX_LOGITS)
                for part, target in zip(
                    *(x.split(max(1, MAX_LOGITS // size)) for x in (states, codes)), strict=True
                )
            ]
            found = torch.cat(parts)
            nats = found if rows is None else nats.index_copy(0, rows, found)
        return nats.reshape(taken.shape)

    def _cross_entropy(self, states: Tensor, codes: Tensor, group: int, again: bool) -> Tensor:
        """Nats (n,); `again` computes the logits anew in backward instead of keeping them."""

        def run(states: Tensor, codes: Tensor) -> Tensor:
            return F.cross_entropy(
                at_least_float32(self.logits(states, group)), codes, reduction="none"
            )

        return (
            checkpoint(run, states, codes, use_reentrant=False)
            if again and torch.is_grad_enabled()
            else run(states, codes)
        )


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
    unseen = (
        torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        if mask is None
        else ~mask
    )
    scores = at_least_float32(q @ k.transpose(-1, -2)) * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    return scores.masked_fill(unseen, -torch.inf).softmax(-1).to(v.dtype) @ v


def at_least_float32(x: Tensor) -> Tensor:
    """x, in float32 if it was bfloat16: sums of exponentials need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn pairs of channels of (B, heads, n, d): the first half against the second, as RoPE
    does.
    """
    return torch.addcmul(x * cosine.to(x.dtype), x.roll(x.shape[-1] // 2, -1), sine.to(x.dtype))
