"""Settings of the network of a prior over codes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Section


class PriorNetworkConfig(Section):
    """A transformer that predicts any code from any others; see docs of vqkit.model.prior."""

    order: Literal["coarse_first", "delayed"] = "coarse_first"
    """codes of several codebooks: coarse_first = all positions of one codebook, then the next;
    delayed = position by position, every codebook one position behind the one before it (MusicGen),
    drawn together: fewer steps"""
    width: Count = 256
    """channels of the residual stream; a multiple of 4 times num_heads"""
    num_blocks: Annotated[int, Field(ge=1, le=64)] = 6
    """transformer blocks"""
    num_heads: Count = 4
    """attention heads"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 4
    """hidden channels of a block's multilayer perceptron, as a multiple of width"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the channels dropped inside of blocks while training"""
    caption_bytes: Annotated[int, Field(ge=4, le=1024, multiple_of=4)] = 64
    """bytes of a caption that are read, in UTF-8; the rest is cut off"""
