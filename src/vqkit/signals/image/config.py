"""Settings that only images have: what is read from files, what is changed in training, which
networks there are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias, Union

from pydantic import AfterValidator, Field, model_validator

from ...config.base import ActsOnly, Byte, Count, Finite, NonNegative, Section, Share, Side
from ...config.sections import DataSection, NetworkSection

BlocksOfLevels = Annotated[
    tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=5)
]


class AugmentConfig(Section):
    shift: Annotated[int, Field(ge=0)] = 0
    """largest random shift in pixels, edges repeated; 0 = off"""
    flip: bool = False
    """mirror half of the images left to right"""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """smallest side of a random crop as a share of the image, resized back; 1 = off"""
    colour: Share = 0.0
    """strength of random brightness, contrast and saturation; 0 = off"""


class NoiseConfig(Section):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("others", "clean"), "{at}sigma above 0", lambda noise: noise.sigma > 0),
    )

    sigma: NonNegative = 0.0
    """largest deviation of Gaussian noise on what the encoder sees, in levels of 0 to 255, the
    target being the clean image; every image has its own, from 0 on; 0 = no noise of any kind"""
    others: Share = 0.4
    """share of the noisy images with another kind: shot noise, salt and pepper, speckle, JPEG
    or missing blocks
    """
    clean: Share = 0.05
    """share of the images that stay clean, so that those are left as they are"""


def _rises(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is not None and not 0 < value[1] - value[0] < float("inf"):
        raise ValueError("the first value must be the smaller one")
    return value


class DataConfig(DataSection):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("background",),
            "{at}channels=1 or 3, which keep no alpha",
            lambda data: data.channels not in (2, 4),
        ),
        ActsOnly(("num_scales", "max_flat"), "{at}fit=patches", lambda data: data.fit == "patches"),
    )

    signal: Literal["image"] = "image"
    """the kind of signal, which decides what may follow"""
    image_size: tuple[Side, Side] | None = None
    """height and width that the model sees; null = the size that all images share"""
    channels: Literal[1, 2, 3, 4] | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; null = what most of the images have, without alpha"""
    fit: Literal["crop", "resize", "patches"] = "crop"
    """images of another size: crop = scale the short side and cut the middle, resize = squeeze both
    sides, patches = patches of image_size from all over each, at full resolution, as many as fit in
    max_memory_mb"""
    interpolation: Literal["smooth", "nearest"] = "smooth"
    """how crop and resize make pixels of another size: smooth = antialiased, nearest = each is one
    of the image's own, as pixel art needs it"""
    num_scales: Annotated[int, Field(ge=1, le=8)] = 1
    """sizes of an image that patches come from: its own, a half, a quarter and so on, as long as
    the short side has 4 patches"""
    max_flat: Share = 1.0
    """largest share of the patches of an image that are flat, such as sky: neighbouring pixels
    differ by less than 1 of 255 levels on average"""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """RGB colour laid under transparent pixels when alpha is not kept"""
    value_range: Annotated[tuple[Finite, Finite] | None, AfterValidator(_rises)] = None
    """values of more than 8 bits (16-bit and float files, arrays) that become black and white,
    others are clipped; null = found from the whole set"""
    frames: Literal["first", "all"] = "first"
    """of animations and files with several pages: the first image, or all, which then stay in
    one split
    """
    layout: Literal["NHW", "NHWC", "NCHW", "HWC", "CHW"] | None = None
    """what the dimensions of an array are: N images, C channels, height, width; null = as its
    shape says
    """
    near_duplicates: bool = False
    """also keep images that look the same (scaled, recompressed) in one split, not only those
    of equal pixels
    """
    stream: bool = False
    """read parquet tables where they lie as training goes, in the order of their groups of rows, as
    tar archives always are: nothing is copied or looked through before, whole groups are held out,
    and equal images are not kept in one split"""
    max_bytes: Count | None = None
    """what a compressed file may unpack to, in bytes; null = a quarter of the memory"""
    augment: AugmentConfig = AugmentConfig()
    noise: NoiseConfig = NoiseConfig()


class ConvConfig(NetworkSection):
    """The strided network of van den Oord et al. 2017 (arXiv 1711.00937, section 4.1)."""

    @property
    def has_residual_blocks(self) -> bool:
        """Its blocks have kernels, no matrices."""
        return False

    kind: Literal["conv"] = "conv"
    width: Count = 128
    """channels of the hidden layers"""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 2
    """strided layers; each halves height and width"""
    num_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks at the latent grid, on either side"""


class MLPConfig(NetworkSection):
    """Fully connected encoder and decoder on flattened images, as in the classic tutorials."""

    @property
    def has_residual_blocks(self) -> bool:
        return False

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Count, ...] = Field(default=(512,), min_length=1)
    """hidden widths of the encoder; the decoder mirrors them"""
    grid: tuple[Count, Count] = (7, 7)
    """the latents are arranged as a grid of this height and width"""


class PatchConfig(NetworkSection):
    """Space-to-depth, residual blocks at the latent grid, depth-to-space: nearly all work at low
    resolution.
    """

    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("expansion",),
            "{at}encoder_blocks or {at}decoder_blocks above 0",
            lambda network: network.has_residual_blocks,
        ),
    )

    @property
    def has_residual_blocks(self) -> bool:
        return self.encoder_blocks + self.decoder_blocks > 0

    kind: Literal["patch"] = "patch"
    patch_size: Annotated[int, Field(ge=1, le=64)] = 4
    """side in pixels of the square that becomes one latent"""
    width: Count = 128
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks before the quantizer"""
    decoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks after the quantizer"""


class MultiscaleConfig(NetworkSection):
    """Residual blocks at several resolutions around a fixed lapped cosine transform: what the
    networks learn is added to it.
    """

    @property
    def has_residual_blocks(self) -> bool:
        return True

    kind: Literal["multiscale"] = "multiscale"
    downsampling_factor: Literal[2, 4, 8, 16, 32] = 16
    """side in pixels of the square that becomes one latent"""
    width: Count = 256
    """channels of the residual blocks at the latent grid; each finer level has half"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of its width"""
    encoder_blocks: BlocksOfLevels = (1, 1, 2)
    """residual blocks at every level, the finest first; the last level is the latent grid, each
    before it has twice the resolution"""
    decoder_blocks: BlocksOfLevels = (1, 1, 2)
    """the same of the decoder, the finest first too"""

    @model_validator(mode="after")
    def _levels_fit(self) -> MultiscaleConfig:
        if not any(self.encoder_blocks) and not any(self.decoder_blocks):
            raise ValueError("there must be a residual block in the encoder or the decoder")
        for blocks in (self.encoder_blocks, self.decoder_blocks):
            if 2 ** len(blocks) > 2 * self.downsampling_factor:
                raise ValueError(
                    f"{len(blocks)} levels need a downsampling_factor of at least "
                    f"{2 ** (len(blocks) - 1)}"
                )
            if self.width % 2 ** (len(blocks) - 1):
                raise ValueError(f"width must be a multiple of {2 ** (len(blocks) - 1)}")
        return self


NetworkConfig: TypeAlias = Union[ConvConfig, PatchConfig, MLPConfig, MultiscaleConfig]
