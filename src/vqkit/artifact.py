"""The folder that training ends with and everything later starts from: settings, averaged weights, figures.

config.json         resolved settings, format version, data summary with normalisation constants, content id
model.safetensors   weights; config.json repeated in its header, so the file alone can be loaded
metrics.json        figures of the evaluation
prior.safetensors   a prior over the codes, if one was trained; its settings and figures are in its header
coder.safetensors   the integer network that codes are compressed with
lossless.safetensors  the integer network that pixels are compressed with
coder-ID.safetensors, lossless-ID.safetensors  those that were replaced: files that they wrote are read with them
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import __version__
from .codec import CODER_FILE, LOSSLESS_FILE, Codec, code_codec, image_size, load_coders, pixel_codec, save_tensors
from .coding import (
    CODES,
    MIXING,
    TRANSFORMER,
    VALUES,
    BundleHeader,
    FileHeader,
    MixingCoder,
    TransformerCoder,
    ValueNetwork,
    opened,
    read_file,
)
from .config import Config, PriorConfig, from_tree
from .data import Normalisation
from .errors import VqkitError
from .files import write_text, write_whole
from .forms import Images, as_batch, as_tensor
from .metrics import to_pixels
from .model import Autoencoder
from .model.blocks import pad_to_multiple
from .model.pieces import by_pieces
from .model.prior import Prior, build_prior_network
from .rates import Rate, assign, measured, no_rate
from .untrusted import filled, read_json

FORMAT_VERSION = 1
PRIOR_FILE = "prior.safetensors"
BATCH_VALUES = 1 << 22
"""pixel values of the images that go through the networks together; of larger ones, each goes in pieces by itself"""

ImagesT = TypeVar("ImagesT", bound=Images)


@dataclass(frozen=True)
class Artifact:
    """A trained autoencoder with what is needed to use it.

    `encode`, `decode` and `reconstruct` take and give, at any height and width:
        a PIL image or a list of them, in any mode (converted to the model's channels);
        a uint8 array or tensor, (H, W), (H, W, C) or (B, H, W, C);
        a floating-point array or tensor (B, C, H, W) in [0, 1].
    All images of one call to `encode` must have one size.
    """

    config: Config
    model: Autoencoder
    data: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    prior: Prior | None = None
    coder: TransformerCoder | None = None
    lossless: ValueNetwork | None = None
    older: tuple[TransformerCoder | ValueNetwork, ...] = ()  # coders that were replaced

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation.from_dict(self.data["normalisation"])

    @property
    def channels(self) -> int:
        return int(self.data["channels"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the training images."""
        height, width = self.data["size"]
        return height, width

    @torch.no_grad()
    def encode(self, images: Images) -> Tensor:
        """Images -> codes (B, Q, *grid) int64. ValueError for shapes and types that are not listed above."""
        batch = self._batch(images)
        together = max(1, BATCH_VALUES // batch[0].numel())
        return torch.cat([self._encoded(self.model.encode, part) for part in batch.split(together)])

    @torch.no_grad()
    def decode(
        self, codes: Tensor | np.ndarray, size: tuple[int, int] | None = None, *, exact: bool = False
    ) -> np.ndarray:
        """Codes (B, Q, *grid) -> uint8 images (B, H, W, C); `size` (height, width) crops the padding of odd sizes.

        exact: compute in float64, so that the pixels do not depend on how many images and threads there are.
        """
        model = self._exact if exact else self.model
        codes = torch.as_tensor(np.asarray(codes) if not isinstance(codes, Tensor) else codes)
        if codes.dim() != 4 or codes.shape[1] != self.model.quantizer.num_codebooks or not codes.numel():
            wanted = self.model.quantizer.num_codebooks
            raise ValueError(f"codes must be (B, {wanted}, height, width), got {tuple(codes.shape)}")
        for index, limit in enumerate(self.model.quantizer.codebook_sizes):
            # -1 is padding, or a stage of a residual quantizer that is left out
            if not -1 <= int(codes[:, index].min()) <= int(codes[:, index].max()) < limit:
                raise ValueError(f"codes of codebook {index} must lie in [0, {limit}), got one outside")
        parts = codes.split(max(1, BATCH_VALUES // (codes[0].numel() * 64)))

        def shown(codes: Tensor) -> Tensor:
            return to_pixels(self.normalisation.undo(model.decode(codes)))

        pixels = torch.cat([by_pieces(model, shown, part, model.tile_grid, model.tile) for part in parts])
        height, width = size or pixels.shape[2:]
        return pixels[:, :, :height, :width].permute(0, 2, 3, 1).contiguous().numpy()

    @cached_property
    def _exact(self) -> Autoencoder:
        return copy.deepcopy(self.model).double()

    def wanted_prior(self) -> Prior:
        """The prior. VqkitError when none was trained."""
        if self.prior is None:
            raise VqkitError("this artifact has no prior; train one first: vqkit train-prior DIR DATA")
        return self.prior

    @cached_property
    def coding_id(self) -> bytes:
        """8 bytes that name the model in files of codes."""
        return self._codec(CODES, MIXING if self.coder is None else TRANSFORMER).model_id

    def codec(self, *, lossless: bool = False, rate: str | None = None) -> Codec:
        """How images are compressed: as codes, at one of the rates that the model has, or with `lossless` as pixels.

        VqkitError without a codebook, and for a rate that is not there.
        """
        coder = TRANSFORMER if self.coder is not None and not lossless else MIXING
        found = self._codec(VALUES if lossless else CODES, coder)
        if rate is None:
            return found
        if lossless:
            raise VqkitError("lossless files have no rate")
        point = self.rates.get(rate)
        if point is None or not isinstance(found.engine, TransformerCoder):
            raise VqkitError(no_rate(self.rates, self.model.quantizer, found.has_prefixes))
        engine = found.engine.first(point.num_stages)
        return replace(found, engine=engine, num_stages=point.num_stages, weight=point.weight)

    @property
    def rates(self) -> dict[str, Rate]:
        """What `rate` may be, by growing size, as measured when the coder was fitted."""
        return measured(self.metrics)

    def codec_of(self, header: FileHeader | BundleHeader) -> Codec:
        """How a file is decompressed, by the coder that wrote it. VqkitError when it needs one and there is none."""
        found, wanted = self._codec(header.holds, header.coder), (header.holds, header.coder, header.model_id)
        return next((one for one in self._older if (one.holds, one.coder, one.model_id) == wanted), found)

    @cached_property
    def _older(self) -> list[Codec]:
        are_pixels = [isinstance(one, ValueNetwork) for one in self.older]
        kinds = [(VALUES, MIXING) if of_pixels else (CODES, TRANSFORMER) for of_pixels in are_pixels]
        return [self._new_codec(*kind, one) for kind, one in zip(kinds, self.older, strict=True)]

    @cached_property
    def _codecs(self) -> dict[tuple[int, int], Codec]:
        """Those that were asked for, by holds and coder: their names are check sums over all weights."""
        return {}

    def _codec(self, holds: int, coder: int) -> Codec:
        if (holds, coder) not in self._codecs:
            network = self.lossless if holds == VALUES else self.coder
            self._codecs[holds, coder] = self._new_codec(holds, coder, network)
        return self._codecs[holds, coder]

    def _new_codec(self, holds: int, coder: int, network: Any) -> Codec:
        quantizer = self.model.quantizer
        if holds == VALUES:
            return pixel_codec(self.channels, network, self.content_id)
        if not quantizer.is_discrete:
            raise VqkitError("this model has no codebook: it can compress with --lossless only")
        is_residual = self.config.model.quantizer.kind == "residual"
        engine = network if coder == TRANSFORMER else MixingCoder(quantizer.codebook_sizes)
        return code_codec(quantizer.codebook_sizes, engine, self.content_id, is_residual, self.model.grid)

    @torch.no_grad()
    def values(self, images: Images, codec: Codec) -> np.ndarray:
        """What files of a kind hold: codes (B, stages, *grid), or pixels (B, C, H, W); int64. Images as in `encode`.

        The encoder takes each image alone: sums of floats, and codes at an edge, may depend on the rest of a batch.
        """
        batch = self._batch(images, exact=codec.lossless)
        if codec.lossless:
            return batch.numpy().astype(np.int64)
        if codec.weight and isinstance(codec.engine, TransformerCoder):
            latents = torch.cat([self._encoded(self.model.latents, one) for one in batch.split(1)])
            return assign(self.model.quantizer, codec.engine, latents, codec.num_stages, codec.weight)
        codes = torch.cat([self._encoded(self.model.encode, one) for one in batch.split(1)])
        return codes[:, : codec.num_stages].numpy()

    def compress(
        self, image: Images, name: str | None = None, *, lossless: bool = False, rate: str | None = None
    ) -> bytes:
        """One image -> a .vq file (docs/file-format.md), with the name that it had if one is given.

        lossless: of its pixels, each of which comes back, at the size that this takes. rate: one of `rates`. VqkitError
        for a model without codebooks, OutOfBounds for an image of too many codes; ValueError for several, as `encode`,
        and with lossless for a PIL image that the model's channels of 8 bits cannot hold in full.
        """
        batch, codec = self._batch(image, exact=lossless), self.codec(lossless=lossless, rate=rate)
        if len(batch) != 1:
            raise ValueError(f"compress takes one image, got {len(batch)}")
        size = batch.shape[2], batch.shape[3]
        codec.grid(size)
        values = self.values(image, codec)
        return codec.file_of(values[0], codec.engine.encode(values)[0], size, name)

    def decompress(self, source: bytes | BinaryIO | str | Path) -> np.ndarray:
        """A .vq file -> its image, uint8 (H, W, C). Of one that was cut off, a coarser image and a UserWarning.

        source: its bytes, a binary stream that can seek, or its path. Errors: vqkit.coding.FormatError, a VqkitError,
        for whatever is not what `compress` wrote with this model.
        """
        with opened(source) as stream:
            file = read_file(stream)
        if file.truncated:
            warnings.warn("the file is cut off: the image is coarser than it was, or lost its name", stacklevel=2)
        codec, size = self.codec_of(file.header), image_size(file.header.extent)
        return self.pixels_of(codec, codec.codes_of(file)[None], size, exact=True)[0]

    def pixels_of(self, codec: Codec, codes: np.ndarray, size: tuple[int, int], *, exact: bool = False) -> np.ndarray:
        """What files of a kind hold (B, Q, *grid) -> uint8 images (B, H, W, C); size and exact as in `decode`."""
        if codec.lossless:
            return codes.astype(np.uint8).transpose(0, 2, 3, 1)
        return self.decode(self._codec(CODES, codec.coder).padded(codes), size, exact=exact)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Images that the model makes up: uint8 (count, H, W, C) of the training size, the same for the same seed.

        Codes are drawn uniformly, or z ~ N(0, 1) without a quantizer, and decoded: samples of the model as far as its
        codes are uniform and independent, which the terms `kl` and `transform` work for. Noise from a plain model.
        """
        generator = torch.Generator().manual_seed(seed)
        return self.decode(self.model.sample_codes(count, self.size, generator), self.size)

    def reconstruct(self, images: ImagesT) -> ImagesT:
        """Images through the model and back, in the form that they came in."""
        if isinstance(images, Image.Image):
            return self._picture(images)  # type: ignore[return-value]
        if isinstance(images, (list, tuple)):
            return [self._picture(image) for image in images]  # type: ignore[return-value]
        batch = self._batch(images)
        pixels = self.decode(self.encode(images), (batch.shape[2], batch.shape[3]))
        is_tensor = isinstance(images, Tensor)
        values = as_tensor(images)
        if values.is_floating_point():
            result: Any = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            return result if is_tensor else result.numpy().astype(np.asarray(images).dtype)
        result = torch.from_numpy(pixels.reshape(values.shape))
        return result if is_tensor else result.numpy()

    def _picture(self, image: Image.Image) -> Image.Image:
        pixels = self.decode(self.encode(image), (image.height, image.width))[0]
        return Image.fromarray(pixels[:, :, 0] if self.channels == 1 else pixels)

    def standardise(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) uint8, or float in [0, 255] -> what the model takes, channels last."""
        return self.normalisation.apply(pixels).contiguous(memory_format=torch.channels_last)

    def _encoded(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `encode` makes of images (B, C, H, W) when they are standardised: (B, ., *grid), piece by piece."""
        padded, model = pad_to_multiple(images, self.model.tile), self.model
        return by_pieces(model, lambda part: encode(self.standardise(part)), padded, model.tile, model.tile_grid)

    def _batch(self, images: Images, *, exact: bool = False) -> Tensor:
        return as_batch(images, self.channels, self.config.data.background, exact=exact)

    # ------------------------------------------------------------------------------------------------------- files

    @cached_property
    def content_id(self) -> str:
        """SHA-256 over names, shapes and bytes of all tensors in order of name, hexadecimal: names the model."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the three files; each appears under its name only when it is whole. VqkitError when that fails."""
        folder = Path(folder)
        settings = {
            "format": "vqkit",
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "content_id": self.content_id,
            "data": self.data,
            "config": self.config.model_dump(mode="json"),
        }
        text = json.dumps(settings, indent=2)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        try:
            write_whole(folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"config": text}))
            write_text(folder / "config.json", text)
            write_text(folder / "metrics.json", json.dumps(self.metrics, indent=2))
        except (OSError, SafetensorError) as error:
            raise VqkitError(f"cannot write the artifact to {folder}: {error}") from error

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Read an artifact folder. VqkitError for what is not one, damaged, or of a newer format."""
        folder = Path(folder)
        settings = read_json(folder / "config.json")
        if settings.get("format") != "vqkit" or "config" not in settings or "data" not in settings:
            raise VqkitError(f"{folder} is not a vqkit artifact: config.json does not say so")
        if settings.get("format_version") != FORMAT_VERSION:
            raise VqkitError(
                f"{folder} has format version {settings.get('format_version')}; this vqkit reads {FORMAT_VERSION}"
            )
        config = from_tree(settings["config"], where=str(folder / "config.json"))
        metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
        try:
            settings["data"]["name"] = str(settings["data"]["name"])
            shape: Any = (int(settings["data"]["channels"]), *map(int, settings["data"]["size"]))
            pixels = Normalisation.from_dict(settings["data"]["normalisation"])
            if len(pixels.std) != shape[0]:
                raise ValueError(f"{shape[0]} channels, but the normalisation is of {len(pixels.std)}")
            made = partial(Autoencoder, config.model, shape, config.losses, pixels.std, pixels.mean)
            model = filled(folder / "model.safetensors", made)
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            raise VqkitError(f"cannot read the artifact {folder}: {error}") from error
        artifact = cls(config, model.eval(), settings["data"], metrics)
        coder, lossless, older = load_coders(folder, artifact.content_id, artifact.model.quantizer.codebook_sizes)
        artifact = replace(artifact, coder=coder, lossless=lossless, older=older)
        path = folder / PRIOR_FILE
        return replace(artifact, prior=_load_prior(path, artifact)) if path.exists() else artifact

    def save_prior(self, folder: str | Path) -> None:
        """Write the prior beside the other files. VqkitError when that fails."""
        prior = self.wanted_prior()
        header = {
            "format": "vqkit-prior",
            "format_version": FORMAT_VERSION,
            "content_id": self.content_id,
            "classes": prior.classes,
            "has_captions": prior.has_captions,
            "metrics": prior.metrics,
            "config": prior.config.model_dump(mode="json"),
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in prior.network.state_dict().items()}
        metadata = {"prior": json.dumps(header)}
        try:
            write_whole(Path(folder) / PRIOR_FILE, lambda path: save_file(tensors, path, metadata=metadata))
        except (OSError, SafetensorError) as error:
            raise VqkitError(f"cannot write the prior to {folder}: {error}") from error

    def save_coder(self, folder: str | Path) -> None:
        """Write the coder, and what lossless files need, beside the other files. VqkitError when that fails."""
        for name, coder in ((CODER_FILE, self.coder), (LOSSLESS_FILE, self.lossless)):
            if coder is not None:
                save_tensors(Path(folder) / name, self.content_id, coder.tensors())


def _load_prior(path: Path, artifact: Artifact) -> Prior:
    """VqkitError for a file that is damaged, or was trained on the codes of another model."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["prior"])
        if header["format_version"] != FORMAT_VERSION:
            raise VqkitError(f"{path} has format version {header['format_version']}; this vqkit reads {FORMAT_VERSION}")
        if header["content_id"] != artifact.content_id:
            raise VqkitError(f"{path} was trained on the codes of another model; delete it and run vqkit train-prior")
        config = from_tree(header["config"], str(path), PriorConfig)
        classes, captions = tuple(map(str, header["classes"])), bool(header["has_captions"])
        network = filled(
            path, lambda: build_prior_network(config, artifact.model, artifact.size, len(classes), captions)
        )
        return Prior(config, network.eval(), classes, dict(header["metrics"]))
    except (KeyError, TypeError, ValueError, RecursionError, OSError, SafetensorError) as error:
        raise VqkitError(f"cannot read the prior {path}: {error}") from error
