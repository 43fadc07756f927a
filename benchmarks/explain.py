"""Claim receptive_field_error: the receptive field that `vqkit explain` measures is the one that
the layers have.

    python benchmarks/explain.py [--quick] [--seed 0] [--json FILE]

Every shipped recipe whose network has its layers in a row, and every stride from 2 to 16 of the
convolutional network, with random weights in every layer. Measured: the box of the pixels with a
gradient, from `apps.explain`. Expected: what kernels and strides add up to, worked out here from
the settings alone: a layer of kernel k whose inputs lie j pixels apart adds (k - 1) j, and a stride
s makes j into s j. The error is the largest difference of a side, in pixels. --quick: strides up
to 8.
"""

from __future__ import annotations

import math

import torch
from bench.claims import Claim, machine, options, report

from vqkit.apps.explain import receptive_field
from vqkit.artifact.build import build_model
from vqkit.config import HierarchicalConfig, PyramidConfig, load, recipe_names
from vqkit.data.normalisation import Normalisation
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.image.config import ConvConfig, MLPConfig, PatchConfig

PARSER = options(__doc__)


def expected_side(config: Config, image_size: tuple[int, int]) -> int:
    """Of one cell of codes, in pixels."""
    network = config.model.network
    multiple = _multiple(config.model.quantizer)
    layers: list[tuple[int, int]] = []  # kernel, stride
    match network:
        case ConvConfig():
            layers = [(4, 2)] * network.num_downsamplings + [(3, 1)] * (1 + network.num_blocks)
        case PatchConfig():
            layers = [(network.patch_size, network.patch_size)] + [(3, 1)] * network.encoder_blocks
        case MLPConfig():
            layers = [(image_size[0], image_size[0])]
    if config.model.transform.kind == "conv":
        layers += [(3, 1)] * config.model.transform.num_blocks
    side = 1
    apart = 1
    for kernel, stride in layers:
        side = side + (kernel - 1) * apart
        apart = apart * stride
    return side + (multiple - 1) * apart


def _multiple(quantizer: object) -> int:
    """Positions of the latents along a side of one cell of codes."""
    if isinstance(quantizer, PyramidConfig):
        return 2 ** (quantizer.num_grids - 1)
    return 2 * _multiple(quantizer.top) if isinstance(quantizer, HierarchicalConfig) else 1


def measured_sides(config: Config, image_size: tuple[int, int], seed: int) -> tuple[int, int]:
    """Of the same, by gradients, on random images large enough that no edge cuts the field off."""
    torch.manual_seed(seed)
    model = build_model(config, Shape(1, tuple(image_size)), Normalisation((0.0,), (1.0,))).eval()
    with torch.no_grad():
        for value in model.parameters():  # some layers start at zero
            value.copy_(
                torch.randn_like(value) / math.sqrt(value[0].numel()) if value.dim() > 1 else value
            )
    side = image_size[0]
    while side < 2 * expected_side(config, image_size):
        side += image_size[0]
    x = torch.randn(4, 1, side, side)
    return receptive_field(model, x, torch.Generator().manual_seed(seed)).extent


# Networks and grids that no recipe has, as overrides of recipe emoji.
VARIANTS = {
    "conv": ["model.network.kind=conv", "losses.distortion=mse"],
    "mlp": ["model.network.kind=mlp", "data.image_size=[28,28]", "losses.distortion=mse"],
    "hierarchical": ["model.quantizer.kind=hierarchical"],
    "pyramid": ["model.quantizer.kind=pyramid"],
    "residual": [
        "model.quantizer.kind=residual",
        "model.quantizer.stage={kind: vq, codebook_size: 8}",
    ],
}


def strides(quick: bool) -> dict[str, Config]:
    base = load("emoji", VARIANTS["conv"], Config)
    found = {}
    for downsamplings in range(1, 4 if quick else 5):
        network = base.model.network.model_copy(
            update={"num_downsamplings": downsamplings, "width": 16}
        )
        model = base.model.model_copy(update={"network": network})
        found[f"conv, stride {2**downsamplings}"] = base.model_copy(update={"model": model})
    return found


def main() -> None:
    arguments = PARSER.parse_args()
    recipes = {name: load(name, [], Config) for name in recipe_names(Config)}
    # `expected_side` knows layers in a row: not several resolutions, nor networks of sound.
    known = (ConvConfig, PatchConfig, MLPConfig)
    recipes = {
        name: each for name, each in recipes.items() if isinstance(each.model.network, known)
    }
    variants = {name: load("emoji", overrides, Config) for name, overrides in VARIANTS.items()}
    rows = {}
    for name, config in (recipes | variants | strides(arguments.quick)).items():
        image_size = config.data.image_size or (28, 28)
        expected = expected_side(config, image_size)
        measured = measured_sides(config, image_size, arguments.seed)
        error = max(abs(side - expected) for side in measured)
        rows[name] = {"expected": expected, "measured": list(measured), "error": error}
        print(f"{name:<24} expected {expected:>4}  measured {measured[0]:>4} x {measured[1]}")
    worst = max(row["error"] for row in rows.values())
    settings = machine() | {"networks": rows}
    claim = Claim(
        "receptive_field_error", float(worst), "pixels", "== 0", "layer arithmetic", settings
    )
    report([claim], arguments)


if __name__ == "__main__":
    main()
