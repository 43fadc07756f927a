"""What a kind of signal is to everything else: how its files are opened, read, written, measured
and shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config.adversary import PatchAdversary
from ..data.normalisation import Normalisation
from ..errors import VqkitError
from ..model import bands
from ..model.autoencoder import Backbone, Widths
from ..model.discriminator import (
    MAX_LAYERS,
    Discriminator,
    PatchDiscriminator,
    field_of_view,
    most_layers,
)
from ..shapes import Shape


class Choice(NamedTuple):
    """Settings that a look at the data speaks for, written `train.lr=1e-3`, and why: a clause."""

    settings: tuple[str, ...]
    because: str


class Suggestion(NamedTuple):
    """A recipe for a source, why, and what is set beside the recipe."""

    recipe: str
    because: str
    choices: tuple[Choice, ...] = ()


class Peer(NamedTuple):
    """Another codec at one of its settings.

    code: values (C, *extent) -> the bytes that its file has, and the values that it gives back.
    """

    name: str
    code: Callable[[Tensor], tuple[int, Tensor]]


class ByPeer(NamedTuple):
    """An item by another codec: the bytes of its file, and the values (C, *extent) of it."""

    name: str
    num_bytes: int
    values: Tensor


class Signal(ABC):
    """One constant a folder; see `registry`.

    name: as `data.signal` has it. number: in the headers of compressed files, never to be changed.
    item: what one of them is called in messages. suffix: of the files that are written.

    Several methods take `data` and `settings`: the data section of an artifact, plain values, and
    the settings that the artifact was trained with.
    """

    name: str
    number: int
    item: str
    suffix: str
    # Whether values are the bytes of a file, which then comes back under its own suffix.
    is_verbatim: bool = False
    # Sets that `open` knows by name, before it looks for files.
    sets: tuple[str, ...] = ()
    # Items of a training batch that the perceptual term looks at, as it may cost more than all
    # else; None = all.
    perceived: int | None = None
    # The measure that items are ranked by, higher is closer; always among `measures`.
    quality: str = "psnr"
    quality_in_words: str = "PSNR"
    quality_unit: str = "dB"
    # Whether values are symbols, such as letters: near ones are no more alike than far ones.
    has_symbols: bool = False
    # Whether a file of this signal may be the caption of an item of another one, which then has its
    # name.
    may_be_caption: bool = False
    # Whether values at one place of several items can be compared and averaged, as those of framed
    # images can, and those of items that begin anywhere cannot.
    is_aligned: bool = False
    # The settings of an adversarial stage that are of this signal, an `AdversarySection`.
    adversary: type[Any] = PatchAdversary
    # What `change` is in.
    change_in_words: str = "levels of 255"

    @property
    def an_item(self) -> str:
        """The item with its article: 'an image'."""
        return f"{'an' if self.item[0] in 'aeiou' else 'a'} {self.item}"

    # ----------------------------------------------------------------------------------------- sets

    @abstractmethod
    def open(
        self,
        source: str | Path,
        settings: Any,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """The items of a source, a `Dataset`: a built-in set, a folder or a file.

        data: of a model that is used on them; None = normalisation and the like are measured.
        max_bad: share of bad files from which on nothing is opened. progress: called with the share
        that is done. Errors: VqkitError with one sentence that says what is wrong and what to do.
        """

    def has(self, path: Path) -> bool:
        """Whether a file is of this signal, by its suffix."""
        return False

    def can_be(self, path: Path) -> bool:
        """Whether a file may be an item of this signal, by its suffix, which others may share."""
        return self.has(path)

    def suggest(self, source: str | Path, minutes: float | None) -> Suggestion | None:
        """Settings that a quick look at a source speaks for; the same for the same source.

        minutes: that training may take with all that belongs to it; None = as long as the recipe
        says. None where nothing is suggested, as for a source that cannot be read.
        """
        return None

    def symbols(self, data: Any, split: str) -> Iterable[bytes]:
        """Whole items of a split of its sets, as they lie in files, for a signal that
        `has_symbols`.
        """
        return []

    def bad_files(
        self, source: str | Path, settings: Any, progress: Callable[[float], None] | None = None
    ) -> tuple[list[tuple[str, str]], int]:
        """Names of all files of a source that cannot be used, with the reasons, and the number of
        good items; nothing for a source that cannot be read at all.
        """
        return [], 0

    def describe_in_words(self, data: Any) -> dict[str, str]:
        """Parts of a set's description, by key, that people read in another form than plain values
        have.
        """
        return {}

    def settled(self, settings: Any, data: Any) -> Any:
        """The data settings of a run, with what was left open as the set has it."""
        return settings

    @abstractmethod
    def settings_of(self, settings: Any, shape: Shape) -> Any:
        """The settings under which data come as a model of that shape takes them."""

    # ---------------------------------------------------------------------------------------- files

    @abstractmethod
    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        """The files as they are named, and those of this signal below paths that are folders,
        sorted.
        """

    @abstractmethod
    def read(
        self, path: Path, data: Mapping[str, Any], settings: Any, *, exact: bool = False
    ) -> Tensor:
        """One file at its own extent, (C, *extent). exact: refuse what would lose anything.

        VqkitError naming it.
        """

    @abstractmethod
    def read_content(self, content: bytes, data: Mapping[str, Any], settings: Any) -> Tensor:
        """As `read`, of a file that lies within another one, such as an archive.

        VqkitError that says what is wrong with it, in a clause without a name.
        """

    def read_pieces(self, path: Path, data: Mapping[str, Any], settings: Any) -> Iterator[Tensor]:
        """What `read` gives in pieces (C, n), in memory that does not grow with the file; items of
        more than one dimension come in one.

        VqkitError naming the file, when it gets to what is wrong with it.
        """
        yield self.read(path, data, settings)

    def expected_extent(self, path: Path, data: Mapping[str, Any]) -> tuple[int, ...] | None:
        """How long `read` makes a file, as far as its header says; None where it says nothing."""
        return None

    def too_large(self, file: Path | bytes, positions: int, seconds: float) -> str | None:
        """Why a file, or the content of one, is refused whose header says that its item has more
        positions, or of recordings more seconds; nothing is decoded. None for all others, and for
        files that are as large as their items. VqkitError for one without a header of its kind.
        """
        return None

    def changes_in_reading(self, path: Path, data: Mapping[str, Any]) -> str | None:
        """What `read` changes of a file that the user should know, in words; None for nothing."""
        return None

    @abstractmethod
    def fitted(
        self, values: Tensor, data: Mapping[str, Any], settings: Any, shape: Shape
    ) -> Tensor:
        """An item (C, *extent), as `read` gives it, brought to the extent of training as training
        does.
        """

    @abstractmethod
    def read_mask(self, said: str, extent: tuple[int, ...], data: Mapping[str, Any]) -> Tensor:
        """Positions of an item of that extent that a user means, (*extent) bool: a file that shows
        them, or what else the signal has. VqkitError naming what was said.
        """

    def blend(self, data: Mapping[str, Any]) -> int:
        """Positions in which what is made anew and what is kept are mixed, unless the user says
        so.
        """
        return 2

    @abstractmethod
    def write(self, values: Tensor, data: Mapping[str, Any]) -> bytes:
        """Values (C, *extent) as the bytes of a file, with `suffix`."""

    def write_pieces(
        self, path: Path, pieces: Iterable[Tensor], extent: Sequence[int], data: Mapping[str, Any]
    ) -> None:
        """The file that `write` gives of values of that extent, which come in pieces (C, n)."""
        path.write_bytes(self.write(torch.cat(list(pieces), 1), data))

    # ------------------------------------------------------------------------ forms that users have

    @abstractmethod
    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: Any, *, exact: bool = False
    ) -> list[Tensor]:
        """Items in whatever form -> values (C, *extent) of each.

        ValueError or VqkitError in one sentence.
        """

    @abstractmethod
    def like(self, values: list[Tensor], given: Any, data: Mapping[str, Any]) -> Any:
        """Values (C, *extent) of each item in the form that `given` had."""

    @abstractmethod
    def to_array(self, values: Tensor, data: Mapping[str, Any]) -> np.ndarray:
        """Values (B, C, *extent) as the array that users of this signal expect."""

    # ------------------------------------------------------------------------------ models, figures

    @abstractmethod
    def backbone(
        self, config: Any, shape: Shape, widths: Widths, settings: Any, *, is_causal: bool = False
    ) -> Backbone:
        """Encoder and decoder of a network's settings; `settings` are of the data.

        is_causal: what is learnt looks back alone, in networks that `can_be_causal`.
        VqkitError for the network of another signal.
        """

    @abstractmethod
    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Quality of values (B, C, *extent) beside the original ones: (B,) each."""

    def quality_of_pieces(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The measure `quality` of an item whose values, and those of the original, come in pieces
        of the same extent (C, n).
        """
        values, original = zip(*pairs, strict=True)
        measured = self.measures(torch.cat(values, 1)[None], torch.cat(original, 1)[None])
        return float(measured[self.quality][0])

    def evaluation_measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None, data: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """As `measures`, with those that are too slow for training.

        NaN where an item has nothing that a measure looks at; such items are left out of its mean.
        """
        return self.measures(values, original, mask)

    def perceptual_distance(
        self, wanted: str, normalisation: Normalisation, settings: Any
    ) -> nn.Module:
        """What `losses.perceptual` weighs: a module without parameters that learn, which takes
        standardised values (B, C, *extent) twice and gives a scalar; its `name` says what it is.

        wanted: as `losses.perceptual_distance`. VqkitError for one that cannot be had.
        """
        raise VqkitError(
            f"there is no perceptual distance of {self.item}s: set losses.perceptual=0"
        )

    def discriminator(self, settings: Any, shape: Shape, data: Any) -> Discriminator:
        """What tells reconstructions of standardised items of that shape from them, for an
        adversarial stage; `data` are the settings of the data.

        Errors: VqkitError for settings of another kind of signal, and for items that are too small.
        """
        if not isinstance(settings, self.adversary):
            kind = self.adversary.model_fields["kind"].default
            raise VqkitError(
                f"adversary.kind={settings.kind} is not for {self.item}s: set adversary.kind={kind}"
            )
        return self._discriminator(settings, shape, data)

    def _discriminator(self, settings: Any, shape: Shape, data: Any) -> Discriminator:
        """As `discriminator`, of settings of this signal's kind; here of patches."""
        return PatchDiscriminator(
            shape.channels,
            len(shape.extent),
            settings.width,
            num_layers(settings, shape.extent, self),
            settings.regularisation == "spectral",
        )

    def detail(self, values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much fine structure values (B, C, *extent) have beside the original ones, in dB, by
        which an adversarial stage is judged: (B,). The nearer to 0 the better; below 0 = blurred,
        or otherwise far from it, above = more than there was.
        """
        return bands.detail(values, original)

    def recolouring(
        self, count: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor] | None:
        """A random change of standardised values (count, C, *extent) that leaves items what they
        are, and through which gradients pass, beside moving and cutting; None where there is none.
        """
        return None

    def removes_noise(self, settings: Any) -> bool:
        """Whether a model is trained with noise on what it sees, and without on what it shall make
        of that.
        """
        return False

    def noise_levels(self, settings: Any, values: Tensor) -> dict[str, Tensor]:
        """Items with noise of rising strength, by its name, for a model that was trained to remove
        noise; else none.
        """
        return {}

    @abstractmethod
    def rate_per(self, extent: tuple[int, ...], data: Mapping[str, Any]) -> tuple[str, float]:
        """The name of the rate that this signal is measured in, and what the bits of an item are
        divided by for it.
        """

    def peers(self, data: Mapping[str, Any]) -> list[Peer]:
        """Other codecs that a report shows a model beside, of items with one dimension."""
        return []

    def beside(self, values: Tensor, num_bytes: int, data: Mapping[str, Any]) -> list[ByPeer]:
        """One item (C, *extent) by other codecs, at settings of which files are about so large."""
        found = []
        for peer in self.peers(data):
            found.append(ByPeer(peer.name, *peer.code(values)))
        return found

    def change(self, values: Tensor, original: Tensor) -> Tensor:
        """How far values (B, C, *extent) are from the original ones, 0 = not at all: (B,).

        Here the root mean square.
        """
        return (values.float() - original.float()).square().flatten(1).mean(1).sqrt()

    @abstractmethod
    def display(self, values: Tensor) -> np.ndarray:
        """Items (B, C, *extent) as images to look at: uint8 (B, H, W, C).

        Along the width of the image of an item with one dimension runs that dimension.
        """

    def compared(self, values: Tensor) -> Tensor:
        """Values (B, C, *extent) as (B, ...) float64, by whose differences two items are the same
        to the senses: of images in grey levels, of all others in what is shown of them, 0 to 255.
        """
        return values.double()

    def letters(self, values: Tensor) -> list[str]:
        """Items (B, C, *extent) as they are read, a sign for each value; nothing where items are
        not read.
        """
        return []

    def passages(
        self, values: Tensor, others: Tensor
    ) -> list[tuple[list[tuple[str, bool]], list[tuple[str, bool]]]]:
        """Items (B, C, *extent) and others that they are compared with, as texts in parts, each
        with whether it differs; nothing where items are not read.
        """
        return []

    def differences(self, values: Tensor, original: Tensor) -> list[str]:
        """How values (C, *extent) differ from the original ones, in lines to read; nothing where
        items are not read.
        """
        return []

    # The media type of `media`; none where there is nothing to play.
    media_type: str = ""

    def media(self, values: Tensor, data: Mapping[str, Any]) -> list[bytes]:
        """Items (B, C, *extent) as files that browsers play."""
        return []

    def extent_in_words(self, extent: tuple[int, ...]) -> str:
        """The extent of an item as people write it."""
        return "x".join(map(str, extent))

    # ------------------------------------------------------------------------------ what codes mean

    def explained(self, settings: Any, data: Mapping[str, Any]) -> Any:
        """The data settings of a model changed so that no two items share values, and that items
        are long enough to be followed: of an extent that is a multiple of the one of training.
        """
        return settings

    def glimpse(self, shape: Shape, data: Mapping[str, Any]) -> tuple[int, ...]:
        """The extent of a part of an item, code and context, by which people recognise what it
        is.
        """
        return shape.extent

    def ruler(self, data: Mapping[str, Any]) -> tuple[str, float]:
        """The unit that lengths within an item are told in, and how many positions make one."""
        return "positions", 1.0


def num_layers(settings: PatchAdversary, extent: Sequence[int], signal: Signal) -> int:
    """Strided layers of the discriminator of items of this extent. VqkitError when they are too
    small.
    """
    most = most_layers(extent)
    side = min(extent)
    if not most:
        raise VqkitError(
            f"an adversary looks at patches of {field_of_view(1)} positions or more, and "
            f"{signal.an_item} here has a side of {side}: take larger {signal.item}s, or set "
            "adversary.kind=none"
        )
    if settings.num_layers is None:
        return min(most, MAX_LAYERS)
    if settings.num_layers > most:
        raise VqkitError(
            f"adversary.num_layers={settings.num_layers} looks at patches of "
            f"{field_of_view(settings.num_layers)} positions, and {signal.an_item} here has a side "
            f"of {side}: set {most} or fewer, or leave it at null"
        )
    return settings.num_layers
