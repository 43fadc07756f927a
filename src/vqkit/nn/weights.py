"""Weights from vector-quantize-pytorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import VqkitError
from ..model.quantizers import Bottleneck, Quantizer
from .composites import ProductVQ, ResidualVQ
from .families import LFQ, SimVQ, VectorQuantizer
from .layer import QuantizerLayer

# Steps after which the decay of moving averages is the one that was set.
SETTLED = 1 << 20


@torch.no_grad()
def load_vector_quantize_pytorch(layer: QuantizerLayer, state: Mapping[str, Tensor]) -> None:
    """Fill a layer with what `state_dict()` gives of a module of vector-quantize-pytorch, after
    which both give the same codes.

    Which layer takes the state of which module: VectorQuantizer that of VectorQuantize, with
    `heads` and `separate_codebook_per_head` ProductVQ; ResidualVQ, SimVQ and LFQ that of their
    namesakes. Sizes, distance and projections must be those of the module: a state does not tell
    them all. VqkitError for a state of another kind or size, and for what has no counterpart here.
    """
    taken = _codes_from(layer, state)
    for name in ("project_in", "project_out"):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in state:
                taken[f"{name}.{part}"] = state[f"{name}.{part}"]
    if isinstance(layer, LFQ):
        # There the first channel is the most significant bit.
        if "project_in.weight" not in taken:
            raise VqkitError("channels of LFQ come in another order: only with projections")
        taken["project_in.weight"] = taken["project_in.weight"].flip(0)
        taken["project_in.bias"] = taken["project_in.bias"].flip(0)
        taken["project_out.weight"] = taken["project_out.weight"].flip(1)
    own = layer.quantizer.state_dict()
    # Codes that an optimiser moves have no sums of tokens.
    taken = {name: value for name, value in taken.items() if name in own or "ema_sum" not in name}
    for name, value in taken.items():
        if name not in own or own[name].shape != value.shape:
            mine = tuple(own[name].shape) if name in own else "nothing"
            raise VqkitError(
                f"the state has {tuple(value.shape)} for {name}, and this layer has {mine}: give "
                "it the sizes of the module"
            )
    layer.quantizer.load_state_dict({**own, **taken})


def _codes_from(layer: QuantizerLayer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a state says of codebooks, by the names that it has in the quantizer of a layer."""
    taken: dict[str, Tensor] = {}
    match layer:
        case ResidualVQ():
            if not _fits_any_scale(layer.quantizer):
                raise VqkitError(
                    "stages that compare directions get residuals of length one here, and of their "
                    "own length there: only with distance=euclidean"
                )
            for number in range(layer.num_codebooks):
                found = _codebooks(state, f"layers.{number}.")
                taken |= _of_codebook(found, 0, f"stages.{number}.")
            return taken
        case ProductVQ():
            found = _codebooks(state, "")
            for head in range(len(found["embed"])):
                taken |= _of_codebook(found, head, f"groups.{head}.")
            return taken
        case VectorQuantizer():
            found = _codebooks(state, "")
            if len(found["embed"]) != 1:
                raise VqkitError(
                    f"the state has {len(found['embed'])} heads: fill a vqkit.nn.ProductVQ with as "
                    "many groups"
                )
            return _of_codebook(found, 0, "")
        case SimVQ():
            return {
                "frozen": _given(state, "frozen_codebook"),
                "map.weight": _given(state, "code_transform.weight"),
                "fitted": torch.tensor(True),
            }
        case LFQ():
            return {}
    raise VqkitError(
        f"vqkit.nn.{type(layer).__name__} has no counterpart in vector-quantize-pytorch that gives "
        "the same codes"
    )


def _fits_any_scale(quantizer: Bottleneck) -> bool:
    return isinstance(quantizer, Quantizer) and quantizer.fits_any_scale


def _codebooks(state: Mapping[str, Tensor], at: str) -> dict[str, Tensor]:
    """Codes (h, K, d) of h heads, how many tokens each wins, and sums of these."""
    names = ("embed", "cluster_size", "embed_avg")
    return {name: _given(state, f"{at}_codebook.{name}") for name in names}


def _of_codebook(found: Mapping[str, Tensor], head: int, at: str) -> dict[str, Tensor]:
    return {
        f"{at}codebook": found["embed"][head],
        f"{at}ema_count": found["cluster_size"][head],
        f"{at}ema_sum": found["embed_avg"][head],
        f"{at}updates": torch.tensor(SETTLED),
    }


def _given(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise VqkitError(f"the state has no {name}: it is of another module than this layer")
    return state[name]
