"""The style of images on the content of another one, carried over in a model's own latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact.model import Model
from ..errors import VqkitError
from ..model.quantizers.base import from_tokens, squared_distances, to_tokens
from ..model.quantizers.search import chunks, nearest

# Side of a patch of latents.
PATCH = 3
# Tokens of a style that are balanced against those of the content; of more, evenly spaced ones are
# taken.
MAX_STYLE_TOKENS = 2048
SINKHORN_STEPS = 50
# Smoothing of the transport, as a share of the mean squared distance.
SMOOTHING = 0.05
# 1 uses every code exactly as often as the style does, which puts figures on plain ground; 0 takes
# the nearest.
BALANCE = 0.8
# Of pairs: what latents around one weigh beside it, what its place in the image does, from -1 to 1,
# and what the latents around it do that were found before.
AROUND = 0.3
PLACE = 2.0
FOLLOWING = 0.3
PASSES = 3


@torch.no_grad()
def restyle(
    model: Model,
    content: Tensor,
    styles: Sequence[Tensor],
    *,
    method: str = "wct",
    alpha: float = 0.7,
    weights: Sequence[float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Values (C, H, W): `content` (C, H, W) in the style of `styles`, (C, any, any).

    Latents before the quantizer go a share `alpha` of the way to what the method makes of them,
    then they are quantised and decoded; 0 is the plain reconstruction. Of several styles the
    targets are averaged, with `weights` (default: all alike). Errors: VqkitError for numbers that
    make no sense, a style of one colour, and images that are too small.
    """
    if method not in METHODS:
        raise VqkitError(f"method={method} is none of {', '.join(METHODS)}")
    _check_alpha(alpha)
    shares = _shares(weights, len(styles))
    latents = _latents(model, content, "the content", method)
    target = torch.zeros_like(latents)
    for number, (style, share) in enumerate(zip(styles, shares, strict=True), 1):
        name = "the style" if len(styles) == 1 else f"style {number}"
        if (style == style[:, :1, :1]).all():
            raise VqkitError(
                f"{name} is of one colour, which is no style that could be carried over"
            )
        target += share * METHODS[method](model, latents, _latents(model, style, name, method))
        if progress:
            progress(number / len(styles))
    return blended(model, latents, target, alpha, content)


@torch.no_grad()
def restyle_by_pairs(
    model: Model,
    contents: Sequence[Tensor],
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    *,
    alpha: float = 0.9,
    progress: Callable[[float], None] | None = None,
) -> list[Tensor]:
    """Values (C, H, W) for each content: changed as the images `before` changed into those `after`.

    before, after: as many of each, the same things in two styles and at the same size; contents are
    in the first style. Latents go a share `alpha` of the way to `pair_targets`. Errors: VqkitError
    for an alpha beyond 0 to 1, what is no pairs, and images that are too small.
    """
    _check_alpha(alpha)
    pairs = pair_targets(model, contents, before, after, progress)
    changed = []
    for content, (latents, target) in zip(contents, pairs, strict=True):
        changed.append(blended(model, latents, target, alpha, content))
    return changed


@torch.no_grad()
def pair_targets(
    model: Model,
    contents: Sequence[Tensor],
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    progress: Callable[[float], None] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Latents (1, D, h, w) of each content, and what pairs make of them. Errors as
    `restyle_by_pairs`.

    Every latent is looked up among those of the images before, with what is around it and where it
    is, and becomes the one in the same place of the image after: image analogies (Hertzmann et al.
    2001, section 3), in latents. Further passes look at what the last one put around it as well, so
    that neighbours come from neighbours.
    """
    _check_pairs(before, after)
    latents = _latents_of_all(model, contents, "content")
    latents_before = _latents_of_all(model, before, "image before")
    latents_after = _latents_of_all(model, after, "image after")
    if not latents:
        return []
    # Latents are compared in units of their deviation.
    deviation = _tokens_of_all(latents_before).std(0, correction=0).mean()
    scale = 1 / float(deviation.clamp(min=1e-6))
    bank = _tokens_of_all(latents_after)
    queries = _described(latents, scale)
    keys = _described(latents_before, scale)
    targets: list[Tensor] = []
    for done in range(1, PASSES + 1):
        if not targets:
            chosen = nearest(queries, keys)
        else:
            around = _ring(targets, FOLLOWING * scale)
            around_after = _ring(latents_after, FOLLOWING * scale)
            chosen = nearest(torch.cat([queries, around], 1), torch.cat([keys, around_after], 1))
        rows = bank[chosen].split([one[0, 0].numel() for one in latents])
        targets = list(map(from_tokens, rows, latents))
        if progress:
            progress(done / PASSES)
    return list(zip(latents, targets, strict=True))


def _latents_of_all(model: Model, images: Sequence[Tensor], name: str) -> list[Tensor]:
    latents = []
    for number, image in enumerate(images, 1):
        latents.append(_latents(model, image, f"{name} {number}", "pairs"))
    return latents


def _tokens_of_all(images: Sequence[Tensor]) -> Tensor:
    """Latents (1, D, h, w) of images -> all of their tokens (N, D)."""
    return torch.cat([to_tokens(latents) for latents in images])


def _described(images: Sequence[Tensor], scale: float) -> Tensor:
    """Latents (1, D, h, w) of images -> rows of 9 D + 2: each with those around it, and where it
    is.
    """
    centres = _tokens_of_all(images) * scale
    places = []
    for latents in images:
        rows, columns = latents.shape[2:]
        down = PLACE * torch.linspace(-1, 1, rows)
        across = PLACE * torch.linspace(-1, 1, columns)
        places.append(torch.cartesian_prod(down, across))
    return torch.cat([centres, _ring(images, AROUND * scale), torch.cat(places)], 1)


def _ring(images: Sequence[Tensor], scale: float) -> Tensor:
    """Latents (1, D, h, w) of images -> rows of 8 D: those around each.

    At the edges the last ones again.
    """
    rows = []
    for latents in images:
        patches = F.unfold(F.pad(latents * scale, (1, 1, 1, 1), mode="replicate"), 3)[0].T
        nine = patches.view(len(patches), latents.shape[1], 9)
        # All of a patch of 3 x 3 but the one in its middle.
        rows.append(torch.cat([nine[:, :, :4], nine[:, :, 5:]], 2).flatten(1))
    return torch.cat(rows)


def _check_pairs(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    if not before or len(before) != len(after):
        raise VqkitError(f"{len(before)} images before and {len(after)} after are no pairs")
    for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
        if one.shape != other.shape:
            raise VqkitError(
                f"the images of pair {number} differ in size, so nothing in them is at the same "
                "place"
            )


def blended(model: Model, latents: Tensor, target: Tensor, alpha: float, content: Tensor) -> Tensor:
    """Values (C, H, W) of latents that go a share alpha of the way to the target, quantised, at the
    content's size.
    """
    codes = model.network.quantizer.encode(torch.lerp(latents, target, alpha)).cpu()
    return model.tokenizer.decode(codes, content.shape[1:])[0]


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise VqkitError(
            f"alpha={alpha} must lie between 0 (the reconstruction) and 1 (all of the style)"
        )


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that sum up to 1."""
    if not count:
        raise VqkitError("there is no style: give at least one image")
    if weights is None:
        weights = [1.0] * count
    total = sum(weights)
    # A comparison with a weight that is not a number is false.
    are_shares = all(weight >= 0 for weight in weights) and 0 < total < math.inf
    if len(weights) != count or not are_shares:
        raise VqkitError(
            f"weights {', '.join(map(str, weights))}: {count} styles need as many, not below 0, "
            "not all 0"
        )
    return [weight / total for weight in weights]


def _latents(model: Model, values: Tensor, name: str, method: str) -> Tensor:
    """What the quantizer gets (1, D, h, w). VqkitError for an image smaller than a tile, or than a
    patch of latents, and for what is no image.
    """
    extent = tuple(values.shape[1:])
    if len(extent) != 2:
        raise VqkitError(
            f"a style can be carried over between images, not between {model.signal.item}s"
        )
    tile = model.network.tile
    if any(side < least for side, least in zip(extent, tile, strict=True)):
        words = model.signal.extent_in_words
        raise VqkitError(f"{name} has {words(extent)}; the model needs {words(tile)} at least")
    latents = model.network.latents(model.tokenizer.standardise(values[None]))
    if method == "patches" and min(latents.shape[2:]) < PATCH:
        grid = "x".join(map(str, reversed(latents.shape[2:])))
        raise VqkitError(
            f"{name} has latents of {grid} (width x height); patches need {PATCH}x{PATCH} at "
            "least, use another method"
        )
    return latents


# ----------------------------------------------------------- methods: latents of both -> the target


def _adain(model: Model, content: Tensor, style: Tensor) -> Tensor:
    """Mean and deviation of each channel become the style's (Huang and Belongie 2017, arXiv
    1703.06868, equation 8).
    """
    dims = (2, 3)
    mean = content.mean(dims, keepdim=True)
    deviation = content.std(dims, correction=0, keepdim=True)
    whitened = (content - mean) / deviation.clamp(min=1e-6)
    return whitened * style.std(dims, correction=0, keepdim=True) + style.mean(dims, keepdim=True)


def _wct(model: Model, content: Tensor, style: Tensor) -> Tensor:
    """Mean and covariance become the style's, both covariances shrunk (Li et al. 2017, arXiv
    1705.08086, equations 2 and 3).
    """
    tokens = to_tokens(content).double()
    wanted = to_tokens(style).double()
    whitened = (tokens - tokens.mean(0)) @ _power(shrunk_covariance(tokens), -0.5)
    coloured = whitened @ _power(shrunk_covariance(wanted), 0.5) + wanted.mean(0)
    return from_tokens(coloured.float(), content)


def shrunk_covariance(tokens: Tensor) -> Tensor:
    """Covariance (D, D) of tokens (N, D), pulled to a multiple of the identity as far as so few
    tokens ask for.

    Oracle approximating shrinkage, Chen et al. 2010 (arXiv 0907.4698), equation 23.
    """
    count, width = tokens.shape
    centred = tokens - tokens.mean(0)
    sample = centred.T @ centred / count
    trace = float(sample.trace())
    square = float(sample.square().sum())
    excess = (count + 1 - 2 / width) * (square - trace**2 / width)
    share = 1.0
    if excess > 0:
        share = min(1.0, ((1 - 2 / width) * square + trace**2) / excess)
    return (1 - share) * sample + share * trace / width * torch.eye(width, dtype=sample.dtype)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=1e-9) ** exponent @ vectors.T


def _codes(model: Model, content: Tensor, style: Tensor) -> Tensor:
    """Every token becomes one of the style's that is near, so that the style's codes are used about
    as often as there.

    Of a residual model the first half of the stages stays the content's, and what is left over is
    the style's.
    """
    coarse = _coarse(model, content)
    tokens = to_tokens(content - coarse)
    bank = _thinned(to_tokens(style - _coarse(model, style)))
    return coarse + from_tokens(bank[balanced_nearest(tokens, bank)], content)


def _coarse(model: Model, latents: Tensor) -> Tensor:
    """What the first half of a residual quantizer's stages, or of a pyramid's grids, makes of
    latents.

    Zeros of any other quantizer.
    """
    quantizer = model.network.quantizer
    prefixes = quantizer.prefixes
    if len(prefixes) == 1:
        return torch.zeros_like(latents)
    codes = quantizer.encode(latents)
    codes[:, prefixes[len(prefixes) // 2 - 1] :] = -1
    return quantizer.decode(codes)


def _thinned(bank: Tensor) -> Tensor:
    """Every n-th row of (M, D), so that there are no more than MAX_STYLE_TOKENS."""
    return bank[:: -(-len(bank) // MAX_STYLE_TOKENS)]


def balanced_nearest(tokens: Tensor, bank: Tensor) -> Tensor:
    """For each of tokens (N, D) a row of bank (M, D): (N,) int64, the nearest after prices that
    even out their use.

    Sinkhorn's iterations (Cuturi 2013, arXiv 1306.0895) with all tokens used up and the rows' use
    pulled to uniform by BALANCE (Chizat et al. 2018, arXiv 1607.05816). Chunks of distances, never
    all of them.
    """
    # The mean of all squared distances, without any of them.
    squares = tokens.square().sum(1).mean() + bank.square().sum(1).mean()
    spread = (squares - 2 * tokens.mean(0) @ bank.mean(0)).item()
    smoothing = max(SMOOTHING * spread, 1e-12)
    rows = list(chunks(len(tokens), len(bank)))
    price = bank.new_zeros(len(bank))
    for _ in range(SINKHORN_STEPS):
        # The logarithm of the tokens that each row gets, before its price.
        use = torch.full_like(price, -math.inf)
        for part in rows:
            gain = -squared_distances(tokens[part], bank) / smoothing
            given = torch.logsumexp(gain + price / smoothing, 1, keepdim=True)
            use = torch.logaddexp(use, torch.logsumexp(gain - given, 0))
        price = BALANCE * smoothing * (math.log(len(tokens) / len(bank)) - use)
    return torch.cat([(squared_distances(tokens[part], bank) - price).argmin(1) for part in rows])


def _patches(model: Model, content: Tensor, style: Tensor) -> Tensor:
    """Every patch of latents becomes the nearest one of the style, and where they overlap their
    mean (Chen and Schmidt 2016, arXiv 1612.04337). They are compared after the content got the
    style's moments: else its colours decide.
    """
    matched = F.unfold(_adain(model, content, style), PATCH)[0].T
    bank = _thinned(F.unfold(style, PATCH)[0].T)
    chosen = bank[nearest(matched, bank)].T[None]  # (1, D * PATCH^2, patches)
    grid = content.shape[2], content.shape[3]
    # The sum of overlapping patches, over how many there are at each place.
    return F.fold(chosen, grid, PATCH) / F.fold(torch.ones_like(chosen), grid, PATCH)


METHODS: dict[str, Callable[[Model, Tensor, Tensor], Tensor]] = {
    "adain": _adain,
    "wct": _wct,
    "codes": _codes,
    "patches": _patches,
}
