"""Picture files through a model and back into picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..artifact import Artifact
from ..data import load_picture, picture_paths
from ..errors import VqkitError
from ..files import free_name, write_whole
from ..metrics import picture_psnr


@dataclass(frozen=True)
class Reconstruction:
    """One file: where it came from and went to, its PSNR in dB, the bits of its codes; or why it could not be read."""

    source: Path
    target: Path | None
    psnr: float
    bits: float
    size: tuple[int, int]
    error: str | None = None


def reconstruct(artifact: Artifact, files: Sequence[str | Path], folder: Path) -> Iterator[Reconstruction]:
    """Write every picture, encoded and decoded at its own size, as PNG into `folder`; folders are searched.

    Yields as it goes. A file that cannot be read is reported and skipped. Nothing is overwritten: an equal name gets
    a number. Errors: VqkitError when there are no pictures or the folder cannot be written.
    """
    sources = list(picture_paths(files))
    if not sources:
        raise VqkitError(f"no pictures in {', '.join(map(str, files))}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VqkitError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    for source in sources:
        try:
            original = load_picture(source, artifact.channels, artifact.config.data.background, artifact.value_range)
        except VqkitError as error:
            yield Reconstruction(source, None, 0.0, 0.0, (0, 0), str(error))
            continue
        pixels = artifact.reconstruct(original)
        target = free_name(folder / f"{source.stem}.png")
        picture = Image.fromarray(pixels[:, :, 0] if artifact.channels == 1 else pixels)
        try:
            write_whole(target, partial(picture.save, format="PNG"))
        except OSError as error:
            raise VqkitError(f"cannot write {target}: {error.strerror or error}") from error
        size = original.shape[0], original.shape[1]
        yield Reconstruction(source, target, picture_psnr(pixels, original), artifact.model.bits_per_image(size), size)
