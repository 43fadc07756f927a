"""Layers of one quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from ..config import quantizers as settings
from ..model.quantizers.vq import VectorQuantizer as _LearnedCodebook
from .layer import QuantizerLayer, settings_of

Distance = Literal["euclidean", "cosine"]
Estimator = Literal["straight_through", "rotation", "gumbel"]


class VectorQuantizer(QuantizerLayer):
    """The nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

    >>> quantizer = VectorQuantizer(dim=16, codebook_size=64)
    >>> out = quantizer(torch.randn(2, 10, 16))
    >>> out.quantized.shape, out.codes.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        *,
        code_dim: int | None = None,
        distance: Distance = "euclidean",
        update: Literal["ema", "gradient"] = "ema",
        decay: float = 0.98,
        kmeans_iterations: int = 10,
        revive_threshold: float = 0.1,
        estimator: Estimator = "straight_through",
        temperature: float = 1.0,
        final_temperature: float = 0.05,
        temperature_steps: int = 2000,
        rate: float = 0.0,
        neighbourhood: float = 0.0,
        neighbourhood_steps: int = 1000,
        channel_first: bool = False,
    ) -> None:
        """Settings without effect beside the others are refused (VqkitError).

        Args:
            dim: D, channels of the latents.
            codebook_size: K, number of codes.
            code_dim: d, width of a code, with a linear layer before and behind; None = dim. Small
                ones (4 to 16) keep large codebooks in use.
            distance: euclidean, or cosine, which compares directions.
            update: how codes learn: moving averages of the tokens that they win, or the optimiser.
            decay: of the moving averages.
            kmeans_iterations: Lloyd steps on the first training batch; 0 = random initial codes.
            revive_threshold: codes that win less than this share of uniform usage jump to where
                tokens are; 0 = never.
            estimator: how gradients pass: straight_through, rotation (Fifty et al. 2024, arXiv
                2410.06424) or gumbel.
            temperature, final_temperature, temperature_steps: of gumbel, over so many steps.
            rate: weight of a code's bits in the choice of codes; 0 = the nearest.
            neighbourhood, neighbourhood_steps: radius of a map of codes (Kohonen 1982) that shrinks
                over so many steps; 0 = none.
            channel_first: latents are (B, D, ...), not (B, ..., D).
        """
        code_dim = code_dim or dim
        super().__init__(settings_of(settings.VQConfig, locals(), code_dim), channel_first)

    @property
    def codebook(self) -> Tensor:
        """The codes as they are compared and looked up (K, d)."""
        assert isinstance(self.quantizer, _LearnedCodebook)
        return self.quantizer.codes()


class SimVQ(QuantizerLayer):
    """A frozen random codebook behind a learned linear map, of which no code dies (Zhu et al. 2024,
    arXiv 2411.02038).

    >>> SimVQ(dim=16, codebook_size=64)(torch.randn(2, 10, 16)).codes.shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        *,
        code_dim: int | None = None,
        channel_first: bool = False,
    ) -> None:
        """See VectorQuantizer."""
        code_dim = code_dim or dim
        super().__init__(settings_of(settings.SimVQConfig, locals(), code_dim), channel_first)


class FSQ(QuantizerLayer):
    """Finite scalar quantisation: a few channels, each rounded to levels (Mentzer et al. 2023,
    arXiv 2309.15505). No losses, nothing that can collapse.

    >>> FSQ(dim=16, levels=(8, 5, 5, 5)).codebook_size
    1000
    """

    def __init__(
        self, dim: int, levels: Sequence[int] = (8, 8, 8), *, channel_first: bool = False
    ) -> None:
        """levels: of each channel of a code; their product is the codebook size. Where there are
        not dim of them, a linear layer lies before and behind.
        """
        levels = tuple(levels)
        super().__init__(settings_of(settings.FSQConfig, locals(), len(levels)), channel_first)


class LFQ(QuantizerLayer):
    """Lookup-free quantisation: the signs of a few channels (Yu et al. 2023, arXiv 2310.05737).

    The entropy of all 2^bits codes, a term of its loss, takes most of a step's time. In eval mode
    it is computed when `loss` or `terms` are read, and never where they are not.

    >>> LFQ(dim=16, bits=18).codebook_size
    262144
    """

    def __init__(
        self,
        dim: int,
        bits: int = 9,
        *,
        inverse_temperature: float = 1.0,
        diversity: float = 20.0,
        channel_first: bool = False,
    ) -> None:
        """bits: of a code, a channel each; the codebook size is two to this power.
        inverse_temperature, diversity: of the term `entropy`, see `vqkit recipes --quantizers`.
        """
        super().__init__(settings_of(settings.LFQConfig, locals(), bits), channel_first)


class BSQ(QuantizerLayer):
    """Binary spherical quantisation: the signs of a few channels on the unit sphere (Zhao et al.
    2024, arXiv 2406.07548).

    >>> BSQ(dim=16, bits=18, channel_first=True)(torch.randn(2, 16, 4, 4)).codes.shape
    torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        dim: int,
        bits: int = 9,
        *,
        inverse_temperature: float = 10.0,
        diversity: float = 10.0,
        channel_first: bool = False,
    ) -> None:
        """See LFQ."""
        super().__init__(settings_of(settings.BSQConfig, locals(), bits), channel_first)


class GaussianCodebook(QuantizerLayer):
    """A fixed codebook made from N(0, I): every channel cut into bins of equal probability, so that
    codes of latents that follow the prior are uniform.

    >>> GaussianCodebook(dim=3, levels=(8, 8, 8)).codebook_size
    512
    """

    def __init__(
        self, dim: int, levels: Sequence[int] = (8, 8, 8), *, channel_first: bool = False
    ) -> None:
        """levels: bins of each channel of a code; their product is the codebook size."""
        levels = tuple(levels)
        super().__init__(
            settings_of(settings.GaussianCodebookConfig, locals(), len(levels)), channel_first
        )


class ScalarQuantizer(QuantizerLayer):
    """Entropy-constrained scalar quantisation: every channel rounded to a step, with a price for
    its bits. The term `rate` is what the codes cost, in bits.

    >>> ScalarQuantizer(dim=16)(torch.randn(2, 10, 16)).codes.shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        dim: int,
        *,
        channels: int | None = None,
        step: float = 0.75,
        levels: int = 127,
        rate: float = 0.1,
        channel_first: bool = False,
    ) -> None:
        """channels: with a code each; None = dim. step: between two values. levels: of a channel,
        an odd number. rate: weight of a bit in the choice of codes, in squared steps.
        """
        channels = channels or dim
        super().__init__(settings_of(settings.ScalarConfig, locals(), channels), channel_first)
