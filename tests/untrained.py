"""Models with random weights, for tests that need no trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.config import LossConfig, from_tree
from vqkit.data.normalisation import Normalisation
from vqkit.model.autoencoder import Autoencoder
from vqkit.settings import Config, ModelConfig
from vqkit.shapes import Shape
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.signal import IMAGE

STAGE = {"kind": "vq", "codebook_size": 16, "code_dim": 8}
RESIDUAL = {"kind": "residual", "num_stages": 4, "stage": STAGE}
PATCH = {"kind": "patch", "patch_size": 2, "width": 16}
MULTISCALE = {
    "kind": "multiscale",
    "downsampling_factor": 8,
    "width": 16,
    "encoder_blocks": [1, 1],
    "decoder_blocks": [1, 1],
}


def autoencoder(
    config: ModelConfig,
    extent: tuple[int, int] = (16, 16),
    channels: int = 3,
    losses: LossConfig | None = None,
    std: Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
) -> Autoencoder:
    """An autoencoder of images with weights from the global generator."""
    std = (0.3,) * channels if std is None else std
    backbone = partial(IMAGE.backbone, settings=DataConfig())
    return Autoencoder(config, Shape(channels, extent), losses or LossConfig(), std, mean, backbone)


def untrained(network=PATCH, quantizer=RESIDUAL, channels=3, precision="float32", **more) -> Model:
    """Random weights, with blocks that do something, and codes as large as latents."""
    torch.manual_seed(0)
    tree = {
        "model": {"network": network, "quantizer": quantizer, **more},
        "train": {"precision": precision},
    }
    config = from_tree(tree, "test", Config)
    normalisation = Normalisation((0.5,) * channels, (0.3,) * channels)
    network = build_model(config, Shape(channels, (16, 16)), normalisation).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "contract.weight" in name or "pointwise.weight" in name:
                value.normal_(std=0.3)
    data = {
        "name": "nothing",
        "channels": channels,
        "size": [16, 16],
        "normalisation": normalisation.to_dict(),
    }
    return Model(Artifact(config, network, data), "cpu")
