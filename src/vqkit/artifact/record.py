"""A trained model with everything that belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from ..coding import BytesCoder, ScalarCoder, TransformerCoder, ValueNetwork
from ..data.normalisation import Normalisation
from ..errors import VqkitError
from ..model.autoencoder import Autoencoder
from ..prior.prior import Prior
from ..settings import Config
from ..shapes import Shape
from ..signals.base import Signal
from ..signals.registry import signal_of
from .operating_points import Rate

# What config.json of a pair says, and the folders of its halves, see `pair_store`.
PAIR_FORMAT = "vqkit-pair"
HALVES = ("first", "second")
# Names of licences: apache-2.0, cc-by-4.0, CC-BY-SA-4.0, my-own.
LICENCE = r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$"


@dataclass(frozen=True)
class Coders:
    """What files are written and read with, beside the model.

    codes: of files of codes, None = context mixing without any training. values: of lossless files,
    likewise. older: those that these replaced, whose files are still read. rates: points between
    few bits and a good reconstruction.
    """

    codes: TransformerCoder | ScalarCoder | None = None
    values: ValueNetwork | BytesCoder | None = None
    older: tuple[TransformerCoder | ScalarCoder | ValueNetwork | BytesCoder, ...] = ()
    rates: Mapping[str, Rate] = field(default_factory=dict)


@dataclass(frozen=True)
class AdversarialStage:
    """Which weights of a model that was trained with an adversary are in use.

    in_use: "after" the stage, or "before" where the stage failed. began_at, ended_at: its steps.
    beside: the file of the other weights, None where there are none.
    """

    in_use: str
    began_at: int
    ended_at: int
    beside: str | None = None


@dataclass(frozen=True)
class Artifact:
    """A trained autoencoder: a record without behaviour, see `Tokenizer`, `Compressor` and `Model`
    for that.

    network: on the CPU, in eval mode; never moved. data: what it was trained on, plain values
    (name, shape, normalisation). metrics: figures for people; nothing here depends on them.
    problems: files of the folder that could not be used, a sentence each. codes_of: content id of
    the model that this one has encoder and codebooks of, to the bit, None = its own; only the
    decoders differ, so that files, coders and a prior serve both. stage: of one that was trained
    with an adversary, which weights are in use and in which file the others lie. licence: under
    which others may use the weights, as SPDX or the Hugging Face hub call it; None = not said.
    """

    config: Config
    network: Autoencoder
    data: Mapping[str, Any]
    prior: Prior | None = None
    coders: Coders = Coders()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    codes_of: str | None = None
    stage: AdversarialStage | None = None
    licence: str | None = None

    @property
    def codes_id(self) -> str:
        """What names encoder and codebooks: the content id of the model that had them first.

        Compressed files, coders and priors depend on nothing else.
        """
        return self.codes_of or self.content_id

    @property
    def shape(self) -> Shape:
        """Channels and extent of the items of training."""
        return self.network.shape

    @cached_property
    def normalisation(self) -> Normalisation:
        return Normalisation.from_dict(self.data["normalisation"])

    @property
    def signal(self) -> Signal:
        return signal_of(self.config.data)

    @cached_property
    def content_id(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all tensors in order of name, hexadecimal:
        names the model.
        """
        return tensors_id(self.network)

    def wanted_prior(self) -> Prior:
        """The prior. VqkitError when none was trained."""
        if self.prior is None:
            raise VqkitError("this model has no prior; train one first: vqkit train-prior DIR DATA")
        return self.prior


def tensors_id(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
