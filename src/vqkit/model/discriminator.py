"""What tells reconstructions from items, patch by patch, and the losses of both sides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .blocks import CONVOLUTIONS

AdversarialLoss: TypeAlias = Literal["hinge", "relativistic"]

# Strided layers that are chosen by themselves at most: a patch of 38 positions.
MAX_LAYERS = 3
# Channels grow up to this multiple of the first layer's.
MAX_GROWTH = 4


def field_of_view(num_layers: int) -> int:
    """Positions along each dimension that one score depends on.

    One behind the 1x1 layer, 3 behind the 3x3 one, and each layer of 4 positions with stride 2
    makes 2 f + 2 of f.
    """
    field = 3
    for _ in range(num_layers):
        field = 2 * field + 2
    return field


def most_layers(extent: Sequence[int]) -> int:
    """The most strided layers whose field of view an item of this extent fills; 0 for none."""
    layers = 0
    while field_of_view(layers + 1) <= min(extent):
        layers += 1
    return layers


class Discriminator(nn.Module, ABC):
    """Items (B, C, *extent) -> a score for every patch. Above 0 means an item. No layer looks at
    other items of the batch.
    """

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every layer (B, channels, *grid), and last the scores (B, ...)."""

    @abstractmethod
    def real(self, mask: Tensor) -> list[Tensor]:
        """Where each of `features` is of something real, of a mask (B, *extent): bool of as many
        dimensions, of 1 where all along one are alike; of the scores in their shape.
        """

    def forward(
        self, items: Tensor, fakes: Tensor, penalised: int = 0, real: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Scores of items and of reconstructions, and R1 on the first `penalised` items, all in one
        call, as several processes add up gradients after each.

        real: which scores of the items count, in their shape; None = all.
        """
        scores = self.features(torch.cat([items, fakes]))[-1].float()
        penalty = scores.new_zeros(())
        if penalised:
            penalty = r1(self, items[:penalised], None if real is None else real[:penalised])
        return *scores.split([len(items), len(fakes)]), penalty


class PatchDiscriminator(Discriminator):
    """Items (B, C, *extent), of one to three dimensions -> a score for every patch (B, 1, *grid).

    item --(conv4 stride 2, leaky relu) x num_layers--> conv3, leaky relu --> conv1 --> scores

    (Isola et al. 2017, arXiv 1611.07004.) is_spectral: every kernel is divided by its largest
    singular value, as one power iteration a training step estimates it (Miyato et al. 2018, arXiv
    1802.05957).
    """

    def __init__(
        self, channels: int, dims: int, width: int, num_layers: int, is_spectral: bool
    ) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.layers = nn.ModuleList()
        inputs = channels
        for index in range(num_layers):
            outputs = width * min(2**index, MAX_GROWTH)
            self.layers.append(convolution(inputs, outputs, 4, stride=2, padding=1))
            inputs = outputs
        self.layers.append(convolution(inputs, inputs, 3, padding=1))
        self.layers.append(convolution(inputs, 1, 1))
        if is_spectral:
            for layer in self.layers:
                spectral_norm(layer)

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.layers[-1](x)]

    def real(self, mask: Tensor) -> list[Tensor]:
        found = []
        seen = mask[:, None]
        # All layers but the last two halve the grid.
        for _ in self.layers[:-2]:
            for dim in range(2, seen.dim()):
                even = seen.shape[dim] // 2 * 2
                seen = seen.narrow(dim, 0, even).unflatten(dim, (-1, 2)).any(dim + 1)
            found.append(seen)
        return [*found, seen, seen]


def r1(discriminator: Discriminator, items: Tensor, real: Tensor | None = None) -> Tensor:
    """Half the squared norm of the gradient of the score at items, a mean over them: R1 of
    Mescheder et al. 2018 (arXiv 1801.04406, equation 9) for gamma = 1. The score of an item is the
    mean of its patches, of the real ones where there is padding.
    """
    items = items.detach().requires_grad_()
    with torch.autocast(items.device.type, enabled=False):
        scores = discriminator.features(items)[-1]
        total = _means(scores, real).sum()
        (gradient,) = torch.autograd.grad(total, items, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def discriminator_loss(kind: AdversarialLoss, items: Tensor, fakes: Tensor) -> Tensor:
    """What the discriminator minimises, of its scores of items and of reconstructions.

    hinge: E[max(0, 1 - D(x))] + E[max(0, 1 + D(y))] (Lim and Ye 2017, arXiv 1705.02894).
    relativistic: E[log(1 + exp(D(y) - D(x)))] over pairs (Jolicoeur-Martineau 2018, arXiv
    1807.00734, as R3GAN has it, arXiv 2501.05441).
    """
    if kind == "hinge":
        return F.relu(1 - items).mean() + F.relu(1 + fakes).mean()
    return F.softplus(fakes - items).mean()


def generator_loss(kind: AdversarialLoss, items: Tensor, fakes: Tensor) -> Tensor:
    """What the decoder minimises.

    hinge: -E[D(y)]. relativistic: E[log(1 + exp(D(x) - D(y)))].
    """
    if kind == "hinge":
        return -fakes.mean()
    return F.softplus(items - fakes).mean()


def lecam(items: Tensor, fakes: Tensor, mean_items: float, mean_fakes: float) -> Tensor:
    """E[(D(x) - mean of D(y))^2] + E[(D(y) - mean of D(x))^2], the means being moving averages
    (Tseng et al. 2021, arXiv 2104.03310, equation 5).
    """
    return (items - mean_fakes).square().mean() + (fakes - mean_items).square().mean()


def feature_matching(
    items: Sequence[Tensor], fakes: Sequence[Tensor], real: Sequence[Tensor] | None = None
) -> Tensor:
    """Mean over layers and items of the L1 distance of features, relative to the mean size of those
    of the item (Larsen et al. 2016, arXiv 1512.09300; scaled as in EnCodec, arXiv 2210.13438,
    equation 3).

    real: where each of them is of something real, as `Discriminator.real` has it; None =
    everywhere.
    """
    distances = []
    places = [None] * len(items) if real is None else real
    for one, other, where in zip(items, fakes, places, strict=True):
        difference = _means((other - one).abs(), where)
        distances.append((difference / (_means(one.abs(), where) + 1e-6)).mean())
    return torch.stack(distances).mean()


def _means(values: Tensor, real: Tensor | None) -> Tensor:
    """Means over all but the first dimension, of what is real; 0 where nothing is: (B,)."""
    if real is None:
        return values.flatten(1).mean(1)
    real = real.expand_as(values)
    total = values.where(real, 0.0).flatten(1).sum(1)
    return total / real.flatten(1).sum(1).clamp(min=1)


def last_matrix(network: nn.Module) -> nn.Parameter:
    """The last matrix or kernel that a network was built with, which is that of its last layer."""
    found = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    return cast(nn.Parameter, found[-1])
