"""What is made of a trained network: likelihoods in bits, and codes drawn or completed on grids of
any size.

Shapes: B items, Q codebooks, a grid of codes, which may be larger or smaller than the grid of
training.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import VqkitError
from ..model.autoencoder import Autoencoder
from .layout import Layout, Slots
from .network import Condition, PriorNetwork
from .sampling import Sampling, Start, draw

if TYPE_CHECKING:
    from ..config.prior import PriorNetworkConfig
    from ..settings import PriorConfig

# Codes that are scored at once.
BATCH_CODES = 1 << 13
# Items that are drawn at once; always as many, so that none depends on how many there are.
CHUNK = 16

# Sees the codes (B, Q, *grid) of a chunk after each step, -1 where nothing is drawn yet.
Watch = Callable[[Tensor], None]


@dataclass(frozen=True)
class Chunk:
    """Items that are drawn at once: codes, known and uniforms (B, Q, *grid), and what they are
    conditioned on.
    """

    codes: Tensor
    known: Tensor
    uniforms: Tensor
    condition: Condition


@dataclass(frozen=True)
class Drawing:
    """What is drawn and how.

    classes or prompts: conditions of the items in turn; nothing = unconditional. steps: None draws
    code after code in the canonical order, a number all codes in that many steps, scattered over
    the item. seed: item i is a pure function of it, of i and of the other settings, whatever the
    number of items and threads.
    """

    classes: Sequence[str] = ()
    prompts: Sequence[str] = ()
    steps: int | None = None
    seed: int = 0
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Prior:
    """A trained prior of an artifact.

    classes: names of the classes that it can be conditioned on, in the order of their numbers.
    metrics: figures of its training.
    """

    config: PriorConfig
    network: PriorNetwork
    classes: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        assert isinstance(self.network.layout, Layout)
        return self.network.layout

    @property
    def has_captions(self) -> bool:
        return self.network.captions is not None

    def to(self, device: torch.device) -> Prior:
        """This prior on a device; a copy unless it is there already."""
        if self.network.head.weight.device == device:
            return self
        return replace(self, network=copy.deepcopy(self.network).to(device))

    # ----------------------------------------------------------------------------------- conditions

    def condition(
        self, count: int, classes: Sequence[str] = (), prompts: Sequence[str] = ()
    ) -> Condition:
        """The condition of `count` items: class names or prompts, repeated in turn; nothing = none.

        Errors: VqkitError for a class or a prompt that this prior does not know.
        """
        if classes and not self.classes:
            other = "; it takes a prompt" if self.has_captions else ""
            raise VqkitError(
                "this prior was trained without classes, so there is no class "
                f"'{classes[0]}'{other}"
            )
        if prompts and not self.has_captions:
            other = f"; it knows the classes {', '.join(self.classes[:20])}" if self.classes else ""
            raise VqkitError(f"this prior was trained without captions and takes no prompt{other}")
        if classes:
            numbers = torch.tensor([self._class_number(name) for name in classes])
            return Condition(classes=numbers[torch.arange(count) % len(numbers)])
        if prompts:
            length = self.network.config.caption_bytes
            rows = torch.stack([caption_bytes(text, length) for text in prompts])
            return Condition(captions=rows[torch.arange(count) % len(rows)])
        return Condition()

    def _class_number(self, name: str) -> int:
        # As it is written first: two classes may differ in their capitals alone.
        if name in self.classes:
            return list(self.classes).index(name)
        known = [one.strip().casefold() for one in self.classes]
        wanted = name.strip().casefold()
        if wanted not in known:
            close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
            hint = ""
            if close:
                hint = f", did you mean '{self.classes[known.index(close[0])]}'?"
            # As the command line takes them: a name with a comma stands in quotes.
            names = [f'"{each}"' if "," in each else each for each in self.classes]
            raise VqkitError(f"no class '{name}'{hint}; there are {', '.join(names)}")
        return known.index(wanted)

    # ---------------------------------------------------------------------------------- likelihoods

    @torch.no_grad()
    def code_bits(self, codes: Tensor, condition: Condition = Condition()) -> Tensor:  # noqa: B008
        """-log2 p of every code (B, Q, *grid) given those before it in the canonical order,
        float64.

        ValueError when the grid is not that of training.
        """
        if tuple(codes.shape[1:]) != (len(self.layout.groups), *self.layout.grid):
            raise ValueError(
                f"codes must be (B, {len(self.layout.groups)}, *{self.layout.grid}), got "
                f"{tuple(codes.shape)}"
            )
        device = self.network.head.weight.device
        order = self.layout.canonical[0].expand(len(codes), -1)
        flat = codes.flatten(1).to(device)
        size = max(1, BATCH_CODES // self.layout.length)
        nats = []
        for start in range(0, len(flat), size):
            rows = slice(start, start + size)
            nats.append(self.network(flat[rows], order[rows].to(device), *condition[rows]))
        by_step = torch.cat(nats).cpu().double() / math.log(2)
        return torch.empty_like(by_step).scatter_(1, order, by_step).reshape(codes.shape)

    def bits(self, codes: Tensor, condition: Condition = Condition()) -> Tensor:  # noqa: B008
        """-log2 p of all codes of each item (B, Q, *grid) -> (B,) float64."""
        return self.code_bits(codes, condition).flatten(1).sum(1)

    # -------------------------------------------------------------------------------------- drawing

    @cached_property
    def _exact(self) -> PriorNetwork:
        return exact_copy(self.network)

    def sample(
        self, count: int, drawing: Drawing = Drawing(), watch: Watch | None = None
    ) -> Tensor:  # noqa: B008
        """Codes (count, Q, *grid) of the grid of training.

        Errors: VqkitError as in `condition` and `Layout.steps`.
        """
        shape = (count, len(self.layout.groups), *self.layout.grid)
        codes = torch.zeros(shape, dtype=torch.long)
        known = torch.zeros(shape, dtype=torch.bool)
        return self.complete(codes, known, drawing, watch)

    def complete(
        self,
        codes: Tensor,
        known: Tensor,
        drawing: Drawing = Drawing(),  # noqa: B008
        watch: Watch | None = None,
    ) -> Tensor:
        """Codes (B, Q, *grid) with those that are not `known` (the same shape, bool) drawn given
        all that are.

        On a grid that is larger than that of training, windows of that size are completed one after
        another, each knowing what those before it drew, in drawing.steps steps each, or fewer where
        fewer codes are missing.
        Errors: VqkitError as in `condition` and `Layout.steps`.
        """
        if drawing.steps is not None:
            # Refuses a number of steps that does not do before anything is drawn.
            self.layout.steps(torch.arange(self.layout.length), drawing.steps)
        condition = self.condition(len(codes), drawing.classes, drawing.prompts)
        if not len(codes):
            return codes
        parts = []
        for start in range(0, len(codes), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(codes)))
            uniforms = []
            for index in rows.tolist():
                numbers = uniform_numbers(drawing.seed, index, codes[0].numel())
                uniforms.append(numbers.view(codes.shape[1:]))
            chunk = Chunk(
                codes=padded(codes[rows]),
                known=padded(known[rows]),
                uniforms=padded(torch.stack(uniforms)),
                condition=condition[padded(rows)],
            )
            shown = _first_of(len(rows), watch) if watch else None
            parts.append(self._complete_chunk(chunk, drawing, shown)[: len(rows)])
        return torch.cat(parts)

    def _complete_chunk(self, chunk: Chunk, drawing: Drawing, watch: Watch | None) -> Tensor:
        codes = chunk.codes.clone()
        known = chunk.known.clone()
        for window in windows(codes.shape[2:], self.layout.grid):
            for items in _alike(known[(slice(None), slice(None), *window)]):
                inside: tuple[Tensor | slice, ...] = (items, slice(None), *window)
                shown = _whole(codes, known, inside, watch) if watch else None
                part = Chunk(
                    codes=codes[inside],
                    known=known[inside],
                    uniforms=chunk.uniforms[inside],
                    condition=chunk.condition[items],
                )
                codes[inside] = self._complete_window(part, drawing, shown)
                known[inside] = True
        return codes

    def _complete_window(self, part: Chunk, drawing: Drawing, watch: Watch | None) -> Tensor:
        """A window (B, Q, *grid) that fits into the grid of training, whose upper left corner it
        takes.

        Every item has the same number of unknown codes of each codebook.
        """
        codes = part.codes
        slots = self.layout.inside(codes.shape[2:])
        order, sizes = self._plan(slots, part.known.flatten(1), drawing.steps)
        flat = codes.new_zeros(len(codes), self.layout.length)
        uniforms = part.uniforms.new_zeros(flat.shape)
        flat[:, slots] = codes.flatten(1)
        uniforms[:, slots] = part.uniforms.flatten(1)

        def on_grid(flat: Tensor) -> Tensor:
            return flat.cpu()[:, slots].reshape(codes.shape)

        def show(flat: Tensor) -> None:
            if watch is not None:
                watch(on_grid(flat))

        network = self._exact
        device = network.head.weight.device
        start = Start(flat.to(device), order.to(device), uniforms.to(device), part.condition)
        return on_grid(draw(network, start, sizes, drawing.sampling, show if watch else None))

    def _plan(self, slots: Tensor, known: Tensor, steps: int | None) -> tuple[Tensor, list[int]]:
        """Order (B, n) of `slots` (n,) with those that are `known` (B, n) in front, and the sizes
        of the steps.
        """
        layout = self.layout
        if steps is None and len(slots) == layout.length and not bool(known.any()):
            order, sizes = layout.canonical
            return order.expand(len(known), -1), sizes
        # One by one: codebook by codebook, row by row. In steps: scattered over the item.
        rank = torch.arange(layout.length)
        if steps is not None:
            rank[layout.scattered] = torch.arange(layout.length)
        order = slots[(rank[slots] + layout.length * (~known).long()).argsort(1)]
        drawn = order[0, int(known[0].sum()) :]
        if steps is None:
            return order, [1] * len(drawn)
        return order, layout.steps(drawn, min(steps, len(drawn)))


def build_prior_network(
    config: PriorConfig, model: Autoencoder, num_classes: int, captions: bool
) -> PriorNetwork:
    """The untrained network for the codes of items of the training extent.

    VqkitError for codes no prior can learn.
    """
    layout = layout_of(model, config.network.order)
    return build_network(config.network, layout, num_classes, captions)


def build_network(
    config: PriorNetworkConfig, layout: Slots, num_classes: int = 0, captions: bool = False
) -> PriorNetwork:
    """The untrained network of a layout. VqkitError for settings that do not go together."""
    try:
        return PriorNetwork(config, layout, num_classes, captions)
    except ValueError as error:
        raise VqkitError(f"these settings do not go together: network.{error}") from error


def layout_of(model: Autoencoder, order: Literal["coarse_first", "delayed"]) -> Layout:
    """Places of the codes of items of the training extent. VqkitError for codes no prior can
    learn.
    """
    quantizer = model.quantizer
    if not quantizer.is_discrete:
        raise VqkitError(
            "a prior needs discrete codes; this autoencoder has none (quantizer.kind=none)"
        )
    groups = [0] * quantizer.num_codebooks
    for group, places in enumerate(quantizer.places()):
        for place in places:
            groups[place] = group
    grid = model.grid(model.shape.extent)
    return Layout(grid, tuple(quantizer.codebook_sizes), tuple(groups), order)


def code_vectors(model: Autoencoder) -> list[Tensor]:
    """Code vectors (K, d) of every codebook, in the order of the prior's groups."""
    parts = model.quantizer.parts()
    device = next(model.parameters()).device
    vectors = []
    for places in model.quantizer.places():
        part = parts[places[0]]
        every_code = torch.arange(part.codebook_size, device=device)
        vectors.append(part.lookup(every_code[:, None]).detach())
    return vectors


def exact_copy(network: PriorNetwork) -> PriorNetwork:
    """In float64, in which sums differ by so little between batch sizes and threads that no code
    changes.

    On the device of the network, but for Apple's, which has no float64.
    """
    network = copy.deepcopy(network)
    if network.head.weight.device.type == "mps":
        network = network.cpu()
    return network.double()


def caption_bytes(text: str, length: int) -> Tensor:  # (length,) uint8
    """UTF-8 in lower case, cut or filled with zeros."""
    raw = " ".join(text.lower().split()).encode("utf-8")[:length]
    return torch.tensor(list(raw.ljust(length, b"\0")), dtype=torch.uint8)


def uniform_numbers(seed: int, index: int, count: int) -> Tensor:  # (count,) float64
    """The numbers in [0, 1) of item `index`."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) & 0x7FFF_FFFF_FFFF_FFFF)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def windows(grid: Sequence[int], window: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Windows that cover a grid in row-major order, half a window apart.

    One where the grid is not larger.
    """

    def along(side: int, part: int) -> list[slice]:
        last = max(side - part, 0)
        starts = [*range(0, last, max(part // 2, 1)), last]
        return [slice(start, start + part) for start in starts]

    yield from itertools.product(*map(along, grid, window))


def following(
    progress: Callable[[float], None] | None, first: float, last: float, count: int
) -> Watch | None:
    """What tells `progress` the share, from `first` to `last`, of the codes of `count` items that
    are there.
    """
    if progress is None:
        return None
    finished = 0

    def watch(codes: Tensor) -> None:
        nonlocal finished
        share = float((codes >= 0).double().mean())
        progress(first + (last - first) * (finished + len(codes) * share) / count)
        if share == 1.0:
            finished += len(codes)

    return watch


def _first_of(count: int, watch: Watch) -> Watch:
    """Shows the first items alone: the others only fill up a chunk."""
    return lambda codes: watch(codes[:count])


def _whole(codes: Tensor, known: Tensor, inside: tuple[Tensor | slice, ...], watch: Watch) -> Watch:
    """Shows a window's codes in their place among all."""

    def show(part: Tensor) -> None:
        all_codes = codes.masked_fill(~known, -1)
        all_codes[inside] = part
        watch(all_codes)

    return show


def _alike(known: Tensor) -> Iterator[Tensor]:
    """Indices of the items that have as many codes of each codebook to be drawn, of known (B, Q,
    *grid); not of those that have none. They are drawn together, as one step of theirs asks for
    codes of one codebook.
    """
    missing = (~known).flatten(2).sum(2)
    kinds, kind = missing.unique(dim=0, return_inverse=True)
    for number, counts in enumerate(kinds):
        if counts.any():
            yield (kind == number).nonzero()[:, 0]


def padded(rows: Tensor) -> Tensor:
    """CHUNK rows, the last one repeated."""
    missing = CHUNK - len(rows)
    if missing == 0:
        return rows
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
