"""Quantizers for networks of your own: plain modules with keyword arguments.

    from vqkit.nn import VectorQuantizer

    quantizer = VectorQuantizer(dim=256, codebook_size=8192)
    out = quantizer(x)                        # x (B, ..., 256)
    loss = reconstruction(decoder(out.quantized), image) + out.loss
    codes = quantizer.encode(x)               # (B, ...) int64
    quantizer.decode(codes)                   # what the decoder gets, to the bit

Every class takes latents with the channels last, (B, ..., D), or with `channel_first=True` as
convolutions have them, (B, D, ...). Codes have the shape of the latents without their channels;
where a position has several codes (residual rows, products, pyramids), these lie where the channels
were: (B, ..., Q), or (B, Q, ...).

- In training mode `forward` learns: moving averages, revival of dead codes, schedules. One call is
  one step. Give it the whole batch; with gradient accumulation, the whole of what one step sees.
- All arithmetic is float32, whatever autocast does around it; `quantized` has the type of the
  latents.
- `mask` (B, ...) bool is True at real positions. Padded ones may hold anything, and have no part in
  codes (-1), loss and statistics.
- In a process group (DDP, FSDP2) codes learn from the tokens of all ranks.

This module is a stable interface: CHANGELOG.md says what changes.
"""

from __future__ import annotations

from ..model.quantizers import Quantized
from .composites import HierarchicalVQ, ProductVQ, PyramidVQ, ResidualVQ
from .families import BSQ, FSQ, LFQ, GaussianCodebook, ScalarQuantizer, SimVQ, VectorQuantizer
from .given import Codebook
from .layer import QuantizerLayer
from .weights import load_vector_quantize_pytorch

__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "Codebook",
    "GaussianCodebook",
    "HierarchicalVQ",
    "ProductVQ",
    "PyramidVQ",
    "Quantized",
    "QuantizerLayer",
    "ResidualVQ",
    "ScalarQuantizer",
    "SimVQ",
    "VectorQuantizer",
    "load_vector_quantize_pytorch",
]
