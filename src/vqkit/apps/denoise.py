"""Noise removed from items: what the codes of clean ones cannot say does not come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact.model import Model
from ..artifact.operating_points import WEIGHTS, assign, distortion
from ..coding import TransformerCoder
from ..errors import VqkitError
from ..model.likelihood import SURE
from ..model.precision import use_bfloat16
from ..model.tiling import by_parts, crop, pad_to_multiple, tile, untile

# Side of the middle of an item on which strength is chosen.
MIDDLE = 96
# One position in STRIDE along every dimension is hidden at a time.
STRIDE = 4
# Standard errors by which fewer stages must predict better.
CONFIDENCE = 3.0
# Of a known deviation, what stages must take out: models miss some of the noise, fewer stages take
# out the item.
NEARLY = 0.9
# Of the ways to hide positions, those that are tried.
NUM_HIDDEN = 4
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Denoised:
    """values: (C, *extent). sigma: deviation of what was taken out, in levels of the values.
    levels: stages of the quantizer that were used, None = latents were not quantised.
    """

    values: Tensor
    sigma: float
    levels: int | None


@torch.no_grad()
def denoise(
    model: Model,
    values: Tensor,
    *,
    strength: float | None = None,
    levels: int | None = None,
    continuous: bool = False,
    sigma: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Denoised:
    """An item without its noise, values (C, *extent) of any extent.

    At most one of the four says how much is smoothed.

    continuous: latents go to the decoder as they are. levels: the first stages of a residual
    quantizer (fewer are smoother). strength: 0 = all stages; towards 1 ever fewer, and codes that
    the integer prior finds probable are preferred, if the model has one. sigma: the noise's
    deviation, in levels of the values, is known: as many stages as take out that much. None of
    them: stages are chosen by what predicts hidden values best; see `calibrated`.
    Of symbols, such as the bytes of text, those alone are replaced for which the model has one that
    is much likelier: strength 0 and None = only where it is sure, 1 = whichever is likeliest.
    Errors: VqkitError for numbers that make no sense.
    """
    given = [strength is not None, levels is not None, continuous, sigma is not None]
    if sum(given) > 1:
        raise VqkitError("give one of strength, levels, continuous and sigma")
    most = num_levels(model)
    if strength is not None and not 0 <= strength <= 1:
        raise VqkitError(
            f"strength={strength} must lie between 0 (all that the codes can say) and 1 (smoothest)"
        )
    if levels is not None and not 1 <= levels <= most:
        choice = "; 1 to all of them" if most > 1 else ""
        raise VqkitError(f"levels={levels}: this model has {most}{choice}")
    if sigma is not None and not 0 <= sigma <= 255:
        raise VqkitError(f"sigma={sigma} must lie between 0 and 255, the levels of a pixel")
    if model.signal.has_symbols:
        if sigma is not None:
            raise VqkitError(f"noise of {model.signal.item} has no deviation: give strength")
        kept = None if continuous else levels or most
        clean = _repaired(model, values, kept, strength or 0.0, progress)
        return Denoised(clean, _deviation(values, clean), kept)
    if model.network.clock is not None:
        if continuous or sigma is not None:
            raise VqkitError(
                f"a model of {model.signal.item}s with a clock takes strength or levels alone"
            )
        kept = most - round((strength or 0.0) * (most - 1)) if levels is None else levels
        clean = _through_codes(model, values, kept)
        return Denoised(clean, _deviation(values, clean), kept)
    fast = use_bfloat16(model.config.train.precision)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=fast):
        if strength is not None:
            levels = most - round(strength * (most - 1))
        elif not continuous and levels is None:
            middle = _middle(values)
            if sigma is None:
                levels = calibrated(model, middle)
            else:
                levels = _taking_out(model, middle, sigma)
        clean = smoothed(model, values, levels, strength or 0.0, progress)
    return Denoised(clean, _deviation(values, clean), levels)


def _through_codes(model: Model, values: Tensor, levels: int) -> Tensor:
    """An item as its first stages have it: a decoder with a clock needs the codes of the whole."""
    codes = model.tokenizer.encode(values[None])
    codes[:, model.network.quantizer.prefixes[levels - 1] :] = -1
    return model.tokenizer.decode(codes, values.shape[1:])[0]


def num_levels(model: Model) -> int:
    """Stages of a residual quantizer, or grids of a pyramid, of which the first alone can be
    decoded.

    1 for every other quantizer.
    """
    return len(model.network.quantizer.prefixes)


def calibrated(model: Model, values: Tensor) -> int:
    """The number of stages that predicts hidden values best, without anything clean to compare
    with.

    Values of a lattice are replaced by the mean of their neighbours, and the noisy ones there
    compared with what the model says: with noise that is independent from position to position this
    error is, up to a constant, the error to the clean item (Batson and Royer 2019, arXiv
    1901.11365). Fewer than all stages must be better by CONFIDENCE standard errors: small items
    have few positions to hide, and their differences are mostly chance.
    """
    most = num_levels(model)
    if most == 1:
        return 1
    noisy = values[None].float()
    ways = STRIDE ** (values.dim() - 1)
    tried = list(range(most, 0, -1))
    passes: list[Tensor] = []
    for way in range(0, ways, max(1, ways // NUM_HIDDEN)):
        passes.append(_hidden_errors(model, noisy, way, tried, until_they_rise=not passes))
        tried = tried[: len(passes[0])]
        errors = torch.cat(passes, 1)
        # What fewer stages gain over all of them; as a rule nothing after the first pass, which
        # saves the others.
        gain = errors[:1] - errors
        if gain.shape[1] > 1 and gain.mean(1).max() <= 0:
            return most
    if gain.shape[1] < 2:
        return most
    doubt = CONFIDENCE * gain.std(1) / gain.shape[1] ** 0.5
    better = torch.where(gain.mean(1) > doubt, gain.mean(1), 0.0)
    if better.max() <= 0:
        return most
    return tried[int(better.argmax())]


def _hidden_errors(
    model: Model, noisy: Tensor, way: int, levels: list[int], until_they_rise: bool
) -> Tensor:
    """Squared errors (n, N) of the N values that are hidden in a way, by `levels` or the first n of
    them.
    """
    extent = noisy.shape[2:]
    hidden = torch.zeros(extent, dtype=torch.bool)
    hidden[_lattice(way, len(extent))] = True
    shown = torch.where(hidden, _neighbours(noisy), noisy)
    latents = model.network.latents(model.tokenizer.standardise(shown))
    errors: list[Tensor] = []
    for level in levels:
        values = _decoded(model, latents, level, extent)
        errors.append((values - noisy)[:, :, hidden].square().flatten())
        if until_they_rise and len(errors) > 1 and errors[-1].mean() >= errors[-2].mean():
            break
    return torch.stack(errors)


def _lattice(way: int, dims: int) -> tuple[slice, ...]:
    """Every STRIDE-th position along each dimension.

    The first one goes through all places with `way`.
    """
    if dims == 1:
        return (slice(way, None, STRIDE),)
    first = way // STRIDE ** (dims - 1)
    # The last dimension jumps, so that ways that follow one another are not neighbours.
    last = way * (STRIDE + 1) // STRIDE % STRIDE
    middle = [way // STRIDE**power % STRIDE for power in range(dims - 2, 0, -1)]
    return tuple(slice(start, None, STRIDE) for start in (first, *middle, last))


def _taking_out(model: Model, values: Tensor, sigma: float) -> int:
    """The most stages that take out nearly `sigma` (the discrepancy principle of Morozov 1966), or
    what that is where values end at 0 and 255: noise of sigma is put on the item without it and
    clipped as the item's own was.
    """
    made = [smoothed(model, values, level + 1) for level in range(num_levels(model))]
    noise = sigma * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    wanted = _deviation((made[-1] + noise).round().clamp(0, 255), made[-1])
    out = torch.tensor([_deviation(values, one) for one in made])
    enough = (out >= NEARLY * wanted).nonzero()[:, 0]
    return int(enough[-1] if len(enough) else out.argmax()) + 1


def smoothed(
    model: Model,
    values: Tensor,
    levels: int | None,
    help_of_prior: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Values (C, *extent) through the model, part by part: as if it were one.

    levels: None = not quantised. help_of_prior: 0 to 1, where the model has an integer prior, which
    sees parts of the training extent one by one.
    """

    def clean(part: Tensor) -> Tensor:
        latents = model.network.latents(model.tokenizer.standardise(part))
        return _decoded(model, latents, levels, part.shape[2:], help_of_prior)

    return _part_by_part(model, values, clean, progress)


def _repaired(
    model: Model,
    values: Tensor,
    levels: int | None,
    strength: float,
    progress: Callable[[float], None] | None,
) -> Tensor:
    """Values (C, *extent) of which those are replaced that the model finds unlikely.

    levels: as of `smoothed`.
    """
    network = model.network

    def clean(part: Tensor) -> Tensor:
        x = model.tokenizer.standardise(part)
        latents = network.latents(x)
        if levels is not None:
            codes = network.quantizer.encode(latents)
            codes[:, network.quantizer.prefixes[levels - 1] :] = -1
            latents = network.quantizer.decode(codes)
        return model.tokenizer.restore(network.repaired(x, latents, (1 - strength) * SURE))

    return _part_by_part(model, values, clean, progress)


def _part_by_part(
    model: Model,
    values: Tensor,
    clean: Callable[[Tensor], Tensor],
    progress: Callable[[float], None] | None,
) -> Tensor:
    """What `clean` makes of values (C, *extent), as if it had all of them at once."""
    tile = model.network.tile
    padded = pad_to_multiple(values[None], tile)
    found = by_parts(model.network, clean, padded, tile, tile, progress)
    return crop(found, values.shape[1:])[0]


def _decoded(
    model: Model,
    latents: Tensor,
    levels: int | None,
    extent: Sequence[int],
    help_of_prior: float = 0.0,
) -> Tensor:
    """Latents (1, D, *grid) -> values (1, C, *extent)."""
    network = model.network
    if levels is None:
        return model.tokenizer.restore(network.decode_latents(latents, extent))
    quantizer = network.quantizer
    if help_of_prior:
        codes = _probable(model, latents, levels, help_of_prior)
    else:
        codes = quantizer.encode(latents)
    if levels < num_levels(model):
        codes[:, quantizer.prefixes[levels - 1] :] = -1
    return model.tokenizer.restore(network.decode(codes, extent))


def _probable(model: Model, latents: Tensor, levels: int, share: float) -> Tensor:
    """Codes (1, Q, *grid) that weigh distance against bits under the integer prior.

    The nearest without a prior.
    """
    device = latents.device
    coder = model.artifact.coders.codes
    quantizer = model.artifact.network.quantizer
    latents = latents.cpu()
    nearest = quantizer.encode(latents)
    # Stages of several codes each cannot be chosen one after the other.
    is_weighed = len(quantizer.prefixes) == len(quantizer.sections)
    if not isinstance(coder, TransformerCoder) or not is_weighed:
        return nearest.to(device)
    grid = model.network.grid(model.shape.extent)
    multiple = quantizer.grid_multiple
    window = [side * multiple for side in grid]
    padded = pad_to_multiple(latents, window)
    count = quantizer.prefixes[levels - 1]
    error = distortion(quantizer, latents, nearest[:, :count].numpy())
    weight = share * WEIGHTS[-1] * error
    codes = torch.from_numpy(assign(quantizer, coder, tile(padded, window), levels, weight))
    counts = [side // step for side, step in zip(padded.shape[2:], window, strict=True)]
    codes = crop(untile(codes, counts), nearest.shape[2:])
    return torch.cat([codes, nearest[:, count:]], 1).to(device)


def _neighbours(values: Tensor) -> Tensor:
    """Mean of what is around each position of (B, C, *extent).

    What shares a side counts twice what a corner does.
    """
    dims = values.dim() - 2
    kernel = torch.tensor([1.0])
    for _ in range(dims):
        kernel = kernel[..., None] * torch.tensor([1.0, 2.0, 1.0])
    kernel = kernel[0]
    kernel[(1,) * dims] = 0.0
    channels = values.shape[1]
    padded = F.pad(values, (1, 1) * dims, mode="replicate")
    weight = (kernel / kernel.sum()).expand(channels, 1, *kernel.shape)
    return _CONVOLVE[dims](padded, weight, groups=channels)


def _middle(values: Tensor) -> Tensor:
    """The middle of an item (C, *extent), MIDDLE positions along each dimension at most."""
    for axis in range(1, values.dim()):
        start = max(0, values.shape[axis] - MIDDLE) // 2
        values = values.narrow(axis, start, min(MIDDLE, values.shape[axis]))
    return values


def _deviation(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).std(correction=0))
