"""Published ways to train a codebook that vqkit does not have, in its own network and trainer.

vq-frozen: after a share of the steps the encoder rests, the codebook is fitted anew to its latents
(Lloyd 1982), and the decoder alone learns. vq-causal: beside the other terms, how far each
latent lies from what a causal network predicts of those before it (Ramanujan et al. 2024, arXiv
2412.16326). vq-diveq: the decoder learns from a point at the distance of the nearest code, moved a
little at random, through which gradients reach token and code (Vali et al. 2025, arXiv 2509.26469).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqkit.config.quantizers import VQConfig
from vqkit.data.dataset import Batch
from vqkit.model.quantizers import TokensQuantized, build_quantizer
from vqkit.model.quantizers.search import code_sums, nearest
from vqkit.model.quantizers.vq import VectorQuantizer
from vqkit.training.average import WeightAverage
from vqkit.training.tasks.autoencoder import AutoencoderTask

# Of vq-frozen: what codes are fitted to, and how often.
LLOYD_BATCH = 50
LLOYD_BATCHES = 100
LLOYD_ITERATIONS = 10
# Channels of the causal network of vq-causal.
PREDICTOR_WIDTH = 64


@dataclass(frozen=True)
class Idea:
    """A task in place of the usual one, and a quantizer in place of every vq; None = as usual."""

    task: Callable[..., AutoencoderTask] = AutoencoderTask
    quantizer: Callable[[VQConfig], VectorQuantizer] | None = None


def idea(name: str) -> Idea:
    """By the name of a contender: `vq-frozen 0.85` with the share of the steps before it,
    `vq-causal 0.1` with the weight of the term, `vq-diveq 0.001` with the variance of the noise.
    """
    kind, number = name.split(" ")
    value = float(number)
    if kind == "vq-frozen":
        return Idea(task=lambda *arguments: Frozen(*arguments, start=value))
    if kind == "vq-causal":
        return Idea(task=lambda *arguments: Causal(*arguments, weight=value))
    if kind == "vq-diveq":
        return Idea(quantizer=lambda settings: DiVeQ(settings, value))
    return Idea()


@contextmanager
def in_place(chosen: Idea) -> Iterator[None]:
    """Inside, autoencoders that are built have the quantizer of an idea, and models that are
    trained know their averages.
    """
    with ExitStack() as stack:
        stack.enter_context(patch("vqkit.training.state.WeightAverage", _KnownAverage))
        make = chosen.quantizer
        if make is not None:

            def built(settings: Any) -> nn.Module:
                return make(settings) if settings.kind == "vq" else build_quantizer(settings)

            stack.enter_context(patch("vqkit.model.autoencoder.build_quantizer", built))
        yield


class Frozen(AutoencoderTask):
    """The encoder rests from a share of the steps on, and the codes are fitted to what it gives."""

    def __init__(self, *arguments: Any, start: float) -> None:
        super().__init__(*arguments)
        self.start = start

    def begin_step(self, model: nn.Module, progress: float) -> None:
        if progress < self.start or model.has_frozen_codes:
            return
        # Of the averaged weights, which are those that are kept.
        average = model.average
        for name, live in average.live.items():
            live.data.copy_(average.average[name])
        model.eval()
        self._refit(model)
        model.freeze_codes()
        model.train()
        average.average["quantizer.codebook"].copy_(model.quantizer.codebook)

    @torch.no_grad()
    def _refit(self, model: nn.Module) -> None:
        quantizer = model.quantizer
        parts = []
        for batch in islice(self.data.split("train", LLOYD_BATCH), LLOYD_BATCHES):
            latents = model.latents(self._standardised(batch.values, torch.device("cpu")))
            parts.append(quantizer.project_in(latents.movedim(1, -1).flatten(0, -2)))
        tokens = torch.cat(parts)
        for _ in range(LLOYD_ITERATIONS):
            counts, sums = code_sums(
                tokens, nearest(tokens, quantizer.codebook), quantizer.codebook_size
            )
            means = sums / counts.clamp(min=1)[:, None]
            quantizer.codebook.copy_(torch.where(counts[:, None] > 0, means, quantizer.codebook))


class Causal(AutoencoderTask):
    """With a term `causal`: the part of the latents' variance that a causal network of the
    quantized latents before does not explain.
    """

    def __init__(self, *arguments: Any, weight: float) -> None:
        super().__init__(*arguments)
        self.weight = weight

    def build(self) -> nn.Module:
        model = super().build()
        model.causal = Predictor(model.quantizer.latent_dim)
        model.quantizer.register_forward_hook(_remember)
        return model

    def peak_weights(self) -> dict[str, float]:
        return {**super().peak_weights(), "causal": self.weight}

    def _weights(self, progress: float) -> dict[str, float]:
        return {**super()._weights(progress), "causal": self.weight}

    def _forward(self, model: nn.Module, batch: Batch, generator: Any) -> Any:
        output = super()._forward(model, batch, generator)
        latents, quantized = model.quantizer.seen
        error = (model.causal(quantized) - latents).square().mean()
        term = error / latents.var().clamp(min=1e-6)
        return output._replace(terms={**output.terms, "causal": term})


class Predictor(nn.Module):
    """Latents (B, D, h, w) -> each as its neighbours above and to the left tell it."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(latent_dim, PREDICTOR_WIDTH, 5, padding=2)
        self.second = nn.Conv2d(PREDICTOR_WIDTH, latent_dim, 1)
        mask = torch.zeros(5, 5)
        mask[:2] = 1
        mask[2, :2] = 1
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        weight = self.first.weight * self.mask
        hidden = F.conv2d(latents, weight, self.first.bias, padding=2)
        return self.second(F.gelu(hidden))


class DiVeQ(VectorQuantizer):
    """token + |code - token| sg((code - token + noise) / |code - token + noise|), without terms."""

    def __init__(self, settings: VQConfig, variance: float) -> None:
        super().__init__(settings.model_copy(update={"update": "gradient"}))
        self.deviation = variance**0.5

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if not self.training:
            return super().quantize(tokens, generator)
        self._set_once(tokens.detach(), generator)
        codebook = self.codebook.clone()
        codes = nearest(tokens.detach(), codebook.detach())
        apart = codebook.index_select(0, codes) - tokens
        noise = torch.randn(tokens.shape, generator=generator) * self.deviation
        direction = F.normalize((apart + noise).detach(), dim=1)
        length = apart.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        self._update(tokens.detach(), codes, generator)
        return TokensQuantized(tokens + length * direction, codes[:, None], {})


def bits_of_files(codes: Tensor, codebook_size: int) -> float:
    """Bits a code (N, 1, h, w) that context mixing needs for all items, one below the other."""
    from vqkit.coding import MixingCoder

    grid = codes[:, 0].reshape(1, 1, -1, codes.shape[-1]).numpy()
    (payloads,) = MixingCoder((codebook_size,)).encode(grid)
    return 8 * len(payloads[0]) / codes.numel()


class _KnownAverage(WeightAverage):
    """The average of a model, which the model knows."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay)
        model.average = self


def _remember(module: nn.Module, inputs: tuple, result: Any) -> None:
    module.seen = (inputs[0], result.quantized)
