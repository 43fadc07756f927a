"""Which settings suit images that were looked at: all rules, and every number in them.

They are for `vqkit train` and `vqkit data` without a recipe. What a user sets wins over them.
"""

from __future__ import annotations

import math

from ..base import Choice, Suggestion
from .look import Look

# Images from this many pixels on are cut into patches, smaller ones are seen whole. Of few images
# patches make more: these are cut from fewer pixels on.
PATCHED_PIXELS = 320 * 320
FEW_IMAGES = 100
PATCHED_PIXELS_OF_FEW = 160 * 160
# Height and width of a patch.
PATCH = (64, 64)
# Pixels up to which images are seen whole at their own size, where most have the same. Others are
# scaled to a size near their median: to this short side, a long side of twice that at most, and
# multiples of SIDE_STEP, which the networks divide by.
OWN_SIZE_PIXELS = 128 * 128
SHORT_SIDE = 64
SIDE_STEP = 8
# Shares of the images that were looked at which decide about all. Grey is without colour in every
# one, as colour that is lost does not come back.
MOST = 0.5
ART = 2 / 3
ALL = 1.0
# Short side of pixel art at most.
ART_SIDE = 128
# Number of images below which training stops once validation gets no better.
STOPPED_EARLY = 1000
PATIENCE = 10
VALIDATE_EVERY = 100
# Passes over the images, and steps whatever their number is; both end at the recipe's steps, or at
# more of them where there is more time than its minutes.
EPOCHS = 300
LEAST_STEPS = 2000
RECIPE_STEPS = 10_000
RECIPE_MINUTES = 20

# Tables: the first row whose limit is not exceeded counts.
# Short side of what the model sees -> pixels a side that become one code.
PATCH_SIZE = ((16, 2), (math.inf, 4))
# Codes that all images have -> size of the codebook.
CODEBOOK = ((50_000, 256), (500_000, 512), (math.inf, 1024))
# Pixels of what the model sees -> images in a batch.
BATCH = ((64 * 64, 48), (96 * 96, 24), (math.inf, 16))
PHOTOS_BATCH = 32
# Channels of the latents of grey photographs.
GREY_CHANNELS = 160
# Minutes of the command -> images of 64x64 in a batch at most, of smaller ones as many more: short
# runs need steps more than they need images in each (docs/experiments.md).
BATCH_IN_TIME = ((5, 16), (15, 32), (math.inf, 48))
# Patches that a budget of minutes is for, about 5,000 a minute in colour; the recipe's otherwise.
MEGABYTES_A_MINUTE = 64
MOST_MEGABYTES = 2048


def suggested(look: Look, minutes: float | None) -> Suggestion:
    """The recipe and settings for images; see `Signal.suggest`."""
    if _are_cut(look):
        return _photos(look, minutes)
    return _whole(look, minutes)


def _row(table: tuple[tuple[float, int], ...], value: float) -> int:
    return next(chosen for limit, chosen in table if value <= limit)


def _are_cut(look: Look) -> bool:
    """Whether images are large enough for patches; what is cut out of its background and small
    enough to be seen whole is not torn apart.
    """
    height, width = look.size
    least = PATCHED_PIXELS
    if look.num_images < FEW_IMAGES and look.cut_out < MOST:
        least = PATCHED_PIXELS_OF_FEW
    return height * width >= least and min(look.size) >= max(PATCH)


def _photos(look: Look, minutes: float | None) -> Suggestion:
    height, width = PATCH
    because = (
        f"{_counted(look)}, large: patches of {width}x{height} at full resolution and scaled down"
    )
    num_patches = sum((high // height) * (wide // width) for high, wide in look.sizes)
    schedule = _schedule(num_patches, height * width, PHOTOS_BATCH, minutes)
    choices = [*_channels(look), *_splits(look), schedule]
    if _is_grey(look):
        settings = (f"model.quantizer.stage.channels={GREY_CHANNELS}",)
        choices.append(Choice(settings, "no channels for colours"))
    if minutes is not None:
        # At least a patch of every image.
        least = 1 + (look.num_images * height * width * 4 >> 20)
        megabytes = max(least, min(MOST_MEGABYTES, round(MEGABYTES_A_MINUTE * minutes)))
        settings = (f"data.max_memory_mb={megabytes}",)
        choices.append(Choice(settings, "no more patches than there is time for"))
    return Suggestion("photos", because, tuple(choices))


def _whole(look: Look, minutes: float | None) -> Suggestion:
    size = _size_of_whole(look)
    height, width = size
    how = "kept at their size" if size == look.size else f"scaled to {width}x{height}"
    choices = [Choice((f"data.image_size=[{height},{width}]",), how)]
    choices += _channels(look)
    if look.pixel_art >= ART and min(look.size) <= ART_SIDE:
        choices.append(
            Choice(("data.interpolation=nearest",), "few colours with hard edges, never blurred")
        )
    choices += _splits(look)
    patch_size = _row(PATCH_SIZE, min(size))
    num_codes = look.num_images * math.ceil(height / patch_size) * math.ceil(width / patch_size)
    codebook_size = _row(CODEBOOK, num_codes)
    network = (
        f"model.network.patch_size={patch_size}",
        f"model.quantizer.codebook_size={codebook_size}",
    )
    choices.append(Choice(network, f"about {_rounded(num_codes)} codes to learn from"))
    num_pixels = height * width
    choices.append(_schedule(look.num_images, num_pixels, _row(BATCH, num_pixels), minutes))
    choices += _early_stop(look)
    return Suggestion("images", f"{_counted(look)}, seen whole", tuple(choices))


def _size_of_whole(look: Look) -> tuple[int, int]:
    """Height and width that whole images are seen at."""
    height, width = look.size
    if height * width <= OWN_SIZE_PIXELS and look.common_size:
        return look.size
    scale = min(1.0, SHORT_SIDE / min(look.size))
    if height * width <= OWN_SIZE_PIXELS:
        scale = 1.0
    return _side(height * scale), _side(width * scale)


def _side(pixels: float) -> int:
    nearest = SIDE_STEP * round(pixels / SIDE_STEP)
    return min(max(nearest, SIDE_STEP), 2 * SHORT_SIDE)


def _channels(look: Look) -> list[Choice]:
    """Alpha where most images have one that varies, and no colour where none has any."""
    is_grey = _is_grey(look)
    if look.cut_out >= MOST:
        return [
            Choice(
                (f"data.channels={2 if is_grey else 4}",),
                f"transparent parts in {_of_looked(look, look.cut_out)}",
            )
        ]
    if is_grey:
        return [Choice(("data.channels=1",), f"grey, all {look.num_looked} looked at")]
    return []


def _is_grey(look: Look) -> bool:
    return look.num_looked > 0 and look.grey >= ALL


def _splits(look: Look) -> list[Choice]:
    """Fewer than three images cannot be split into three parts."""
    if look.num_images == 1:
        settings = ("data.validation=0", "data.test=0")
        return [Choice(settings, "none to hold out")]
    if look.num_images == 2:
        return [Choice(("data.validation=0",), "too few to hold out more than a test image")]
    return []


def _early_stop(look: Look) -> list[Choice]:
    """Few images are soon memorised."""
    # Fewer than three have no validation split, see _splits.
    if not 3 <= look.num_images < STOPPED_EARLY:
        return []
    settings = (f"train.validate_every={VALIDATE_EVERY}", f"train.patience={PATIENCE}")
    return [Choice(settings, "so few that it stops when validation gets no better")]


def _schedule(num_items: int, num_pixels: int, batch: int, minutes: float | None) -> Choice:
    """A batch of items of so many pixels, and steps that their number and the time ask for."""
    most = RECIPE_STEPS
    settings = []
    because = f"{_rounded(num_items)} items to train on"
    if minutes is not None:
        # The time of the command is what ends it.
        most = round(RECIPE_STEPS * max(1.0, minutes / RECIPE_MINUTES))
        batch = min(batch, max(1, _row(BATCH_IN_TIME, minutes) * 64 * 64 // num_pixels))
        settings.append("train.max_minutes=null")
        because += f", --minutes {minutes:g}"
    steps = min(most, max(LEAST_STEPS, EPOCHS * num_items // batch))
    settings += [f"train.batch_size={batch}", f"train.steps={steps}"]
    return Choice(tuple(settings), because)


def _counted(look: Look) -> str:
    height, width = look.size
    images = "1 image" if look.num_images == 1 else f"{look.num_images:,} images"
    if look.are_alike:
        return f"{images} of {width}x{height}"
    if look.common_size:
        return f"{images}, most of {width}x{height}"
    return f"{images}, {width}x{height} in the middle"


def _of_looked(look: Look, share: float) -> str:
    return f"{round(share * look.num_looked)} of {look.num_looked} looked at"


def _rounded(count: int) -> str:
    """A count to two digits, as it is meant."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{unit * round(count / unit):,}"
