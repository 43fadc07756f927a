"""Encoder and decoder of a model as programs of torch.export, for any batch and any extent of whole
tiles but the smallest.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..artifact.model import Model
from ..artifact.record import Artifact
from ..errors import VqkitError

# Items and tiles along each side of the example that a program is made from. Ones would be taken
# for constants.
ITEMS = 2
TILES = 4
# Tiles along each side that programs take at least. One is a size that PyTorch treats as a case of
# its own, and networks that look over the border of a tile treat two as one, in a few models.
LEAST = (2, 3)


class Encode(nn.Module):
    """Values as files hold them, (B, C, *extent) of whole tiles -> codes (B, Q, *grid) int64."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self.network = artifact.network
        self.normalisation = artifact.normalisation
        self.precision = torch.float32
        if self.network.encodes_exactly:
            self.precision = torch.float64
            self.network = copy.deepcopy(self.network).double()

    def forward(self, values: Tensor) -> Tensor:
        return self.network.encode(self.normalisation.apply(values).to(self.precision))


class Decode(nn.Module):
    """Codes (B, Q, *grid) int64 -> values as files hold them, (B, C, *extent)."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self.network = artifact.network
        self.normalisation = artifact.normalisation

    def forward(self, codes: Tensor) -> Tensor:
        return self.normalisation.restore(self.network.decode(codes))


class Program(NamedTuple):
    """One of both, with the names of what goes in and comes out; least: tiles along each side that
    it takes at least.
    """

    name: str
    takes: str
    gives: str
    exported: ExportedProgram
    least: int


def programs(model: Model) -> list[Program]:
    """Encoder and decoder. VqkitError for a model whose networks are no such programs."""
    artifact = model.artifact
    network = artifact.network
    kind = model.config.model.network.kind
    if network.clock is not None:
        raise VqkitError(
            f"models of network '{kind}' cannot be exported: their decoder counts on from the "
            "beginning of a recording, by Fourier transforms; use vqkit itself for them"
        )
    if not network.quantizer.is_discrete:
        raise VqkitError("this model has no codes to export: its quantizer is 'none'")
    example = _example(artifact)
    with torch.no_grad():
        codes = Encode(artifact)(example)
    encoder = _exported(Encode(artifact), example, network.tile)
    decoder = _exported(Decode(artifact), codes, network.tile_grid)
    return [
        Program("encoder", "values", "codes", *encoder),
        Program("decoder", "codes", "values", *decoder),
    ]


def metadata(artifact: Artifact, made: Sequence[Program]) -> dict[str, str]:
    """What users of the programs must know, as JSON texts by name."""
    quantizer = artifact.network.quantizer
    found = {
        "id": artifact.content_id,
        "codes_id": artifact.codes_id,
        "signal": artifact.signal.name,
        "shape": [artifact.shape.channels, *artifact.shape.extent],
        "normalisation": artifact.normalisation.to_dict(),
        "codebook_sizes": quantizer.codebook_sizes,
        "tile": artifact.network.tile,
        "tile_grid": artifact.network.tile_grid,
        "least_tiles": max(program.least for program in made),
    }
    return {f"vqkit.{name}": json.dumps(value) for name, value in found.items()}


def _exported(
    module: nn.Module, example: Tensor, sides: Sequence[int]
) -> tuple[ExportedProgram, int]:
    """A module of one tensor (B, ., *extent) as a program for extents of multiples of sides, and
    the multiple that it takes at least.
    """
    for least in LEAST:
        dynamic = {0: Dim("batch")}
        for axis, side in enumerate(sides):
            count = Dim(f"count_{axis}", min=least)
            dynamic[2 + axis] = side * count if side > 1 else count
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                shapes = (dynamic,)
                made = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
                return made, least
        except Exception as error:
            # Of too many kinds to name; that of the last try is told.
            failure = error
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    raise VqkitError(
        f"this model cannot be exported, as torch.export does not take its "
        f"{type(module).__name__.lower()}r: {reason}"
    ) from failure


def _example(artifact: Artifact) -> Tensor:
    """Random values (2, C, *extent) of a few tiles along each side."""
    extent = [TILES * side for side in artifact.network.tile]
    standardised = torch.randn(
        ITEMS, artifact.shape.channels, *extent, generator=torch.Generator().manual_seed(0)
    )
    return artifact.normalisation.restore(standardised)
