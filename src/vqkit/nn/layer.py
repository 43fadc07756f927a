"""What every layer has: shapes, types and masks around a quantizer, and settings from arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import quantizers as settings
from ..config.base import SectionT, section_of
from ..config.conditions import idle_settings, refuse_idle
from ..model.quantizers import Bottleneck, Quantized, build_quantizer


class QuantizerLayer(nn.Module):
    """What every class here has: shapes, types and masks around a quantizer of vqkit.

    Attributes:
        dim: D, channels of the latents.
        codebook_size: K, values that a code can take; the largest where codebooks differ.
        num_codebooks: Q, codes of a position; of pyramids and hierarchies of a cell of the coarsest
            grid, which is also the grid of codes.
        settings: as they are in a recipe of vqkit, below `model.quantizer`; None where there are
            none.
    """

    def __init__(
        self, quantizer: settings.QuantizerConfig | Bottleneck, channel_first: bool = False
    ) -> None:
        super().__init__()
        self.channel_first = channel_first
        if isinstance(quantizer, Bottleneck):
            self.settings = None
            self.quantizer = quantizer
        else:
            refuse_idle(idle_settings(quantizer), f"vqkit.nn.{type(self).__name__}")
            self.settings = quantizer
            self.quantizer = build_quantizer(quantizer)

    @property
    def dim(self) -> int:
        return self.quantizer.latent_dim

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size

    @property
    def num_codebooks(self) -> int:
        return self.quantizer.num_codebooks

    def forward(
        self, x: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise latents.

        Args:
            x: (B, ..., D), any floating type.
            mask: (B, ...) bool, True at real positions; None = all are.
            generator: of everything random in training mode; None = PyTorch's own.

        Returns:
            quantized as x, with the gradient to it; codes (B, ...) or (B, ..., Q) int64; loss, a
            scalar with the weights of the paper; terms, its parts without weights, by name. In
            eval mode an entropy or a rate is computed when loss or terms are read, and costs
            nothing where they are not.
            ValueError for latents of another width and masks of another shape.
        """
        found = self.quantizer(self._inside(x), generator, mask)
        quantized = self._outside(found.quantized).to(x.dtype)
        return Quantized(quantized, self._codes_outside(found.codes), found.terms, found.weights)

    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents (B, ..., D) -> codes (B, ...) or (B, ..., Q) int64, -1 where padded; nothing is
        learned from them.
        """
        return self._codes_outside(self.quantizer.encode(self._inside(x), mask))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes -> quantized (B, ..., D) float32, zeros where codes are -1; of residual rows and
        pyramids the last codes of a position may be -1, which are left out then. ValueError for
        codes that stand for nothing.
        """
        if self.num_codebooks == 1:
            codes = codes[:, None]
        elif not self.channel_first:
            codes = codes.movedim(-1, 1)
        return self._outside(self.quantizer.decode(codes))

    @torch.no_grad()
    def initialise(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Set codes from latents (B, ..., D), as the first training batch does by itself. Needed
        before `torch.compile(..., fullgraph=True)` alone, as k-means is no part of a graph.
        """
        was_training = self.training
        self.train()(x, mask)
        self.train(was_training)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, codebook_size={self.codebook_size}, codes={self.num_codebooks}"

    def _inside(self, x: Tensor) -> Tensor:  # (B, ..., D) -> (B, D, ...)
        return x if self.channel_first else x.movedim(-1, 1)

    def _outside(self, x: Tensor) -> Tensor:  # (B, D, ...) -> (B, ..., D)
        return x if self.channel_first else x.movedim(1, -1)

    def _codes_outside(self, codes: Tensor) -> Tensor:
        return codes[:, 0] if self.num_codebooks == 1 else self._outside(codes)


def settings_of(
    section: type[SectionT], arguments: Mapping[str, Any], width: int, **made: Any
) -> SectionT:
    """The settings of a layer from the arguments of its `__init__`, as `locals()` has them there.

    Arguments that are settings have their names. width: of the codes; where `dim` is another one,
    a linear layer lies before and behind. made: settings that are no arguments, or follow from
    them. VqkitError for values that cannot be.
    """
    given = {name: arguments[name] for name in section.model_fields if name in arguments}
    dim = arguments["dim"]
    latent_dim = None if dim == width else dim
    layer = f"vqkit.nn.{type(arguments['self']).__name__}"
    return section_of(
        section, {**given, "latent_dim": latent_dim, **made}, layer, "see help() of the class"
    )
