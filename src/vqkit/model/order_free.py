"""Networks in arithmetic whose results depend on nothing but the numbers: not on the order of sums,
and so not on threads, batches, instruction sets or libraries.

Sums are what differs from machine to machine. Here the terms of each are rounded to whole numbers
times a power of two, of so few bits that a float64 holds every sum of them exactly: then all orders
give the same. Additions, products, quotients and square roots of two float64 are the same on all
processors (IEEE 754), as long as no product and sum are fused, for which each is an operation of
its own here. The exponential, the logarithm and the error function are made of those. Whatever else
a network computes is refused, rather than taken on trust.

A sum of n products has 53 - log2(n) bits for the two factors of each, 20 of either in a convolution
of 256 channels; float32 rounds to 24 in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from ..errors import VqkitError

# Bits of a float64 that no sum may need more of.
MANTISSA = 53
# Exact powers of two, from 2^-1022 on.
_LOWEST = -1022
_POWERS = torch.tensor([2.0**exponent for exponent in range(_LOWEST, 1024)], dtype=torch.float64)
_LOG2_E = 1 / math.log(2)
# ln 2 in two parts, of which the first has few bits: products with whole numbers are exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_EXP_TERMS = 14
_LOG_TERMS = 12
# Of exp(-z^2 + sum), t = 1 / (1 + z / 2): erfc(z) / t within 1.2e-7 of itself (W. H. Press et al.,
# Numerical Recipes, section 6.2).
_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)

Dims = Sequence[int]


class OrderFree(TorchDispatchMode):
    """A context in which float64 networks compute as this module says.

    VqkitError for an operation that is not known to give the same on all machines.
    """

    @staticmethod
    def is_on() -> bool:
        """Whether this context is the innermost one here."""
        return isinstance(_get_current_dispatch_mode(), OrderFree)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        rule = _RULES.get(name)
        if rule is not None:
            return rule(*args, **given)
        in_place = _RULES.get(name.removesuffix("_")) if name.endswith("_") else None
        if in_place is not None:
            return args[0].copy_(in_place(*args, **given))
        if name not in _SAME_EVERYWHERE and _has_floats(args):
            raise _refused(repr(name))
        return func(*args, **given)


def _refused(what: str) -> VqkitError:
    return VqkitError(
        f"this model computes {what}, which is not the same on all machines: leave exact out"
    )


def _has_floats(args: Sequence[Any]) -> bool:
    for one in args:
        if isinstance(one, Tensor) and (one.is_floating_point() or one.is_complex()):
            return True
        if isinstance(one, list | tuple) and _has_floats(one):
            return True
    return False


# ----------------------------------------------------------------------------------- whole numbers


def _bits_of(count: int) -> int:
    """Bits that a sum of so many terms may have more than each of them."""
    return max(0, count - 1).bit_length()


def _power(exponent: Tensor) -> Tensor:
    """Two to a whole number, exactly; what is too small for a float64 becomes the smallest."""
    return _POWERS[(exponent.long() - _LOWEST).clamp(0, len(_POWERS) - 1)]


def _whole(x: Tensor, bits: int, dims: Dims) -> tuple[Tensor, Tensor]:
    """Numbers as whole ones of at most so many bits, times a power of two which is common to those
    along `dims`.
    """
    largest = x.abs().amax(tuple(dims), keepdim=True) if x.numel() else x.new_ones(1)
    exponent = torch.frexp(largest)[1]
    return torch.round(x * _power(bits - exponent)), _power(exponent - bits)


def _sum(x: Tensor, dims: Dims, keepdim: bool = True) -> Tensor:
    dims = [dim % x.dim() for dim in dims] or list(range(x.dim()))
    count = math.prod(x.shape[dim] for dim in dims)
    whole, scale = _whole(x, MANTISSA - _bits_of(count), dims)
    found = whole.sum(tuple(dims), keepdim=True) * scale
    return found if keepdim else found.squeeze(tuple(dims))


def _factor_bits(count: int) -> tuple[int, int]:
    """Bits of the two factors of products of which so many are added up."""
    both = MANTISSA - _bits_of(count)
    return both // 2, both - both // 2


def _product(first: Tensor, second: Tensor) -> Tensor:
    """(..., M, K) x (..., K, N)."""
    bits, other_bits = _factor_bits(first.shape[-1])
    rows, row_scale = _whole(first, bits, (-1,))
    columns, column_scale = _whole(second, other_bits, (-2,))
    return rows @ columns * row_scale * column_scale


# ------------------------------------------------------------------------------------ operations


def _add_product(
    bias: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    return bias * beta + _product(first, second) * alpha


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Dims,
    padding: Dims,
    dilation: Dims,
    transposed: bool,
    output_padding: Dims,
    groups: int,
) -> Tensor:
    count = weight[0].numel()
    # Of a transposed convolution the outputs lie along dimension 1, and several kernels meet.
    others = tuple(range(1, weight.dim()))
    if transposed:
        count = weight.shape[0] // groups * math.prod(weight.shape[2:])
        others = tuple(range(weight.dim()))
    bits, other_bits = _factor_bits(count)
    whole, scale = _whole(x, bits, tuple(range(1, x.dim())))
    kernel, kernel_scale = _whole(weight, other_bits, others)
    found = torch.ops.aten.convolution(
        whole, kernel, None, stride, padding, dilation, transposed, output_padding, groups
    )
    shape = (1, -1, *[1] * (x.dim() - 2))
    found = found * scale * kernel_scale.reshape(shape)
    return found if bias is None else found + bias.view(shape)


def _scaled_sum(x: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    return x + (other if alpha == 1 else other * alpha)


def _scaled_difference(x: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    return x - (other if alpha == 1 else other * alpha)


def _add_scaled_product(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    product = first * second
    return x + (product if value == 1 else product * value)


def _mean(
    x: Tensor, dims: Dims | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    dims = dims or list(range(x.dim()))
    return _sum(x, dims, keepdim) / math.prod(x.shape[dim] for dim in dims)


def _sum_along(
    x: Tensor, dims: Dims | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    if not x.is_floating_point():
        return torch.sum(x, tuple(dims or range(x.dim())), keepdim, dtype=dtype)
    return _sum(x, dims or [], keepdim)


def _norm(
    x: Tensor,
    order: float = 2,
    dims: Dims | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    if order != 2:
        raise _refused(f"a norm of order {order}")
    return _sum(x * x, dims or [], keepdim).sqrt()


def _normalised(x: Tensor, dims: Dims, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    count = math.prod(x.shape[dim] for dim in dims)
    mean = _sum(x, dims) / count
    centred = x - mean
    reciprocal = 1 / (_sum(centred * centred, dims) / count + eps).sqrt()
    return centred * reciprocal, mean, reciprocal


def _layer_norm(
    x: Tensor, shape: Dims, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    found, mean, reciprocal = _normalised(x, list(range(-len(shape), 0)), eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias, mean, reciprocal


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    found, mean, reciprocal = _normalised(x.reshape(batch, groups, -1), [2], eps)
    found = found.reshape(x.shape)
    shape = (1, channels, *[1] * (x.dim() - 2))
    found = found if weight is None else found * weight.view(shape)
    found = found if bias is None else found + bias.view(shape)
    return found, mean[..., 0], reciprocal[..., 0]


def _softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    weights = _exp(x - x.amax(dim, keepdim=True))
    return weights / _sum(weights, [dim])


def _exp(x: Tensor) -> Tensor:
    x = x.clamp(-708, 708)
    exponent = torch.floor(x * _LOG2_E + 0.5)
    rest = (x - exponent * _LN2_HIGH) - exponent * _LN2_LOW
    found = torch.ones_like(rest)
    for number in range(_EXP_TERMS, 0, -1):
        found = found * (rest / number) + 1
    return found * _power(exponent)


def _log(x: Tensor) -> Tensor:
    part, exponent = torch.frexp(x)
    is_small = part < math.sqrt(0.5)
    part = torch.where(is_small, part * 2, part)
    exponent = torch.where(is_small, exponent - 1, exponent).to(x.dtype)
    ratio = (part - 1) / (part + 1)
    square = ratio * ratio
    series = torch.zeros_like(square)
    for number in range(_LOG_TERMS, 0, -1):
        series = (series + 1 / (2 * number + 1)) * square
    found = exponent * _LN2_HIGH + (exponent * _LN2_LOW + (2 * ratio) * (1 + series))
    found = torch.where(x == 0, -math.inf, found)
    return torch.where(x < 0, math.nan, found)


def _log2(x: Tensor) -> Tensor:
    return _log(x) * _LOG2_E


def _pow(x: Tensor, exponent: float | Tensor) -> Tensor:
    if isinstance(exponent, Tensor) or isinstance(x, (int, float)):
        raise _refused("powers of varying exponents")
    if exponent == int(exponent) and 0 < exponent <= 4:
        found = x
        for _ in range(int(exponent) - 1):
            found = found * x
        return found
    if exponent == 0.5:
        return x.sqrt()
    return _exp(_log(x) * exponent)


def _erf(x: Tensor) -> Tensor:
    size = x.abs()
    t = 1 / (1 + size * 0.5)
    series = torch.full_like(t, _ERFC[-1])
    for coefficient in reversed(_ERFC[:-1]):
        series = series * t + coefficient
    tail = t * _exp(series - size * size)
    return torch.where(x < 0, tail - 1, 1 - tail)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate != "none":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (1 + _tanh(inner))
    return x * 0.5 * (1 + _erf(x * math.sqrt(0.5)))


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + _exp(-x))


def _silu(x: Tensor) -> Tensor:
    return x * _sigmoid(x)


def _tanh(x: Tensor) -> Tensor:
    small = _exp(x.abs() * -2)
    return x.sign() * ((1 - small) / (1 + small))


_RULES: dict[str, Callable[..., Any]] = {
    "mm": _product,
    "bmm": _product,
    "addmm": _add_product,
    "convolution": _convolution,
    "add": _scaled_sum,
    "sub": _scaled_difference,
    "addcmul": _add_scaled_product,
    "mean": _mean,
    "sum": _sum_along,
    "linalg_vector_norm": _norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_softmax": _softmax,
    "exp": _exp,
    "log": _log,
    "log2": _log2,
    "pow": _pow,
    "erf": _erf,
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _tanh,
}

# One operation of IEEE 754 for each number at most, comparisons, and numbers that are moved.
_SAME_EVERYWHERE = frozenset(
    """
    abs add add_ alias all amax amin aminmax any argmax argmin as_strided bitwise_and cat ceil
    clamp clamp_ clamp_max clamp_min clone constant_pad_nd contiguous copy_ detach div div_
    embedding empty empty_like eq expand fill_ flatten flip floor full_like gather ge gt index
    index_select is_nonzero isfinite le lift_fresh lt masked_fill masked_fill_ max
    max_pool2d_with_indices maximum min minimum mul mul_ narrow ne neg neg_ new_empty new_full
    new_ones new_zeros ones_like permute pixel_shuffle pixel_unshuffle reciprocal
    reflection_pad1d reflection_pad2d relu relu_ repeat replication_pad1d replication_pad2d
    replication_pad3d reshape resize_ roll round round_ rsub scatter select select_scatter set_
    sign slice sort split split_with_sizes sqrt squeeze stack sub_ t topk transpose trunc unbind
    unfold unsqueeze upsample_nearest1d upsample_nearest2d upsample_nearest3d view where zero_
    zeros_like _local_scalar_dense _reshape_alias _to_copy _unsafe_view
    """.split()
)
