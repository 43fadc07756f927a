"""How files of one kind are coded: which numbers they hold, with which coder, and what names the model in them."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .coding import (
    CODES,
    LEVELS,
    MIXING,
    TRANSFORMER,
    VALUES,
    CorruptHeader,
    FileHeader,
    MixingCoder,
    OutOfBounds,
    Stage,
    TransformerCoder,
    Truncated,
    ValueNetwork,
    VqFile,
    check_model,
    check_stages,
    stage_crcs,
    write_file,
)
from .errors import VqkitError
from .files import write_whole

MAX_BYTES = 1 << 28
"""of a coder's file that are read at most"""
MAX_DECODED = 1 << 22
"""codes of a compressed image: a few bytes may claim any number of them"""

MAX_BARE = 1 << 14
"""codes of a bare stream: one wrong bit in its header may claim as many as it likes, and decoding them takes minutes"""

MAX_CODEBOOK = 1 << 32
"""codes of a codebook: check sums take each as 32 bits"""

# The number of images among the signals of files.
IMAGE_SIGNAL = 0

CODER_FILE = "coder.safetensors"
LOSSLESS_FILE = "lossless.safetensors"

CoderT = TypeVar("CoderT")


@dataclass(frozen=True)
class Codec:
    """One kind of file. holds, coder: numbers of the header; engine: what codes them; model_id: 8 bytes.

    num_stages: of a whole file; has_prefixes: whether its first stages alone make a picture. grid_of: height and width
    of an image -> those of its codes. weight: of a bit when codes are chosen, see rates.py.
    """

    holds: int
    coder: int
    engine: TransformerCoder | MixingCoder
    model_id: bytes
    num_stages: int
    has_prefixes: bool
    grid_of: Callable[[tuple[int, int]], tuple[int, int]]
    weight: float = 0.0

    @property
    def lossless(self) -> bool:
        """Whether the codes are the pixels themselves."""
        return self.holds == VALUES

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Grid of the codes of an image of that height and width. OutOfBounds for more codes than are coded at once."""
        grid = self.grid_of(size)
        if math.prod(grid) * self.num_stages > MAX_DECODED:
            raise OutOfBounds(f"an image of more than {MAX_DECODED} codes is not compressed; cut it in parts")
        return grid

    def check_stages(self, given: int) -> None:
        """CorruptHeader for a number of stages that this model cannot have written."""
        if given > self.num_stages or (given < self.num_stages and not self.has_prefixes):
            raise CorruptHeader(f"the file has {given} codebooks; the model has {self.num_stages}")

    def padded(self, codes: np.ndarray) -> np.ndarray:
        """Codes (..., q, h, w) of the first stages -> of all, those that are not there -1."""
        missing = self.num_stages - codes.shape[-3]
        return np.pad(codes, ((0, 0),) * (codes.ndim - 3) + ((0, missing), (0, 0), (0, 0)), constant_values=-1)

    def file_of(self, codes: np.ndarray, payloads: Sequence[bytes], size: tuple[int, int], name: str | None) -> bytes:
        """The .vq file of an image of that height and width: codes (Q, *grid), and the coder's bytes of each stage."""
        stages = [Stage(crc, payload) for crc, payload in zip(stage_crcs(codes), payloads, strict=True)]
        return write_file(FileHeader(size, len(stages), self.coder, self.model_id, holds=self.holds), stages, name)

    def codes_of(self, file: VqFile) -> np.ndarray:
        """The codes (Q, *grid) int64 of a .vq file, checked; -1 for stages that were cut off. Errors: FormatError."""
        header = file.header
        check_model(header.kind, self.model_id, IMAGE_SIGNAL)
        grid = self.grid(image_size(header.extent))
        if header.model_id is None and math.prod(grid) * header.num_codebooks > MAX_BARE:
            raise OutOfBounds(f"{MAX_BARE} codes are decoded at most of a stream whose header has no check sum")
        self.check_stages(header.num_codebooks)
        if len(file.stages) < header.num_codebooks and not self.has_prefixes:
            raise Truncated("the file is cut off, and this model needs all of its codes")
        found = self.engine.decode([[stage.payload for stage in file.stages]], grid)[0]
        check_stages(found, [stage.crc for stage in file.stages])
        return self.padded(found)


def pixel_codec(channels: int, network: ValueNetwork | None, content_id: str) -> Codec:
    """Of lossless files of a model with so many channels."""
    mixing = MixingCoder((LEVELS,) * channels, network)
    name = model_id(content_id, network.tensors() if network else {})
    return Codec(VALUES, MIXING, mixing, name, channels, has_prefixes=False, grid_of=lambda size: size)


def code_codec(
    sizes: tuple[int, ...],
    engine: TransformerCoder | MixingCoder | None,
    content_id: str,
    has_prefixes: bool,
    grid_of: Callable[[tuple[int, int]], tuple[int, int]],
) -> Codec:
    """Of files of codes of a model with codebooks of such sizes; see Codec. VqkitError without an engine, and for a
    codebook of more codes than the format has numbers for."""
    if max(sizes) > MAX_CODEBOOK:
        raise VqkitError(
            f"this model has 2^{math.log2(max(sizes)):.1f} codes, and a .vq file has numbers for 2^32; "
            "train one with fewer bits or levels, or use --lossless"
        )
    if engine is None:
        raise VqkitError("this artifact has no coder; fit one first: vqkit train-coder DIR DATA")
    coder, tensors = (TRANSFORMER, engine.tensors()) if isinstance(engine, TransformerCoder) else (MIXING, {})
    name = model_id(content_id, tensors)
    return Codec(CODES, coder, engine, name, len(sizes), has_prefixes, grid_of)


def image_size(extent: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an image, of the extent that a file of images says."""
    height, width = extent
    return height, width


def model_id(content_id: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """8 bytes that name a model in compressed files: of a SHA-256 over its content id and its coder's tensors."""
    digest = hashlib.sha256(content_id.encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"{name}:{values.dtype}:{values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:8]


def save_tensors(path: Path, content_id: str, tensors: dict[str, np.ndarray]) -> None:
    """Write the tensors of a coder for the model of that content id; another coder that is there is kept beside it,
    under its own name, as files that it wrote need it. VqkitError when that fails."""
    coding_id = model_id(content_id, tensors).hex()
    metadata = {"content_id": content_id, "coding_id": coding_id}
    try:
        if path.exists() and (older := _coding_id_of(path)) != coding_id:
            write_whole(path.with_stem(f"{path.stem}-{older}"), lambda where: shutil.copyfile(path, where))
        write_whole(path, lambda where: save_file(tensors, where, metadata=metadata))
    except (OSError, SafetensorError) as error:
        raise VqkitError(f"cannot write {path}: {error}") from error


def coding_ids(folder: Path) -> list[str]:
    """What names, in compressed files, the model with each of its coders. OSError, SafetensorError."""
    return [_coding_id_of(path) for name in (CODER_FILE, LOSSLESS_FILE) for path in _coder_paths(folder / name)]


def _coding_id_of(path: Path) -> str:
    """What names, in compressed files, the model with the coder of a file. OSError, SafetensorError."""
    with safe_open(path, framework="np") as file:
        return str((file.metadata() or {}).get("coding_id"))


def load_coders(
    folder: Path, content_id: str, sizes: Sequence[int]
) -> tuple[TransformerCoder | None, ValueNetwork | None, tuple[TransformerCoder | ValueNetwork, ...]]:
    """The coders of a model with codebooks of such sizes, of codes and of pixels, and those that these replaced.

    VqkitError for a file that is damaged, or was fitted to another model.
    """
    of_codes, of_pixels = folder / CODER_FILE, folder / LOSSLESS_FILE
    coders = {path: _load_coder(path, content_id, TransformerCoder.from_tensors) for path in _coder_paths(of_codes)}
    for path, coder in coders.items():
        if [len(vectors) - 1 for vectors in coder.vectors] != list(sizes):
            raise VqkitError(f"{path} was fitted to another model; delete it and run vqkit train-coder")
    networks = {path: _load_coder(path, content_id, ValueNetwork.from_tensors) for path in _coder_paths(of_pixels)}
    current = coders.pop(of_codes, None), networks.pop(of_pixels, None)
    return *current, (*coders.values(), *networks.values())


def _coder_paths(path: Path) -> list[Path]:
    """The coder's file, if it is there, and those of coders that it replaced."""
    return [*([path] if path.exists() else []), *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]


def _load_coder(path: Path, content_id: str, read: Callable[[Mapping[str, np.ndarray]], CoderT]) -> CoderT:
    """What `read` makes of the tensors of a coder. VqkitError for a file that is damaged, or of another model."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise VqkitError(f"{path} is larger than {MAX_BYTES} bytes: not written by vqkit")
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            owner = (file.metadata() or {}).get("content_id")
        coder = read(tensors)
    except (ValueError, TypeError, AttributeError, OSError, SafetensorError) as error:  # a type that NumPy has not got
        raise VqkitError(
            f"cannot read the coder {path}: {error}; delete it and run vqkit train-coder --force"
        ) from error
    if owner != content_id:
        raise VqkitError(f"{path} was fitted to another model; delete it and run vqkit train-coder")
    return coder
