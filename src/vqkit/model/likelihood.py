"""What `reconstruction` measures: distances of standardised values, or a likelihood of 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distortion: TypeAlias = Literal[
    "mse", "log_mse", "l1", "huber", "logistic", "logistic_mixture", "categorical"
]
# Values that 8 bits may have.
LEVELS = 256
# Nats by which another symbol is likelier than one that is taken for a mistake.
SURE = 4.0

# Scale of a logistic whose deviation is a tenth of the data's.
_START = 0.1 * math.sqrt(3) / math.pi


class Likelihood(nn.Module):
    """The term `reconstruction`, a mean over all real values of standardised items (B, C, *extent).

    mse, l1, huber (delta 1), log_mse (the mean over items of the log of their mse); logistic: the
    discretised logistic of `discretised_logistic_nll` with one learned scale a channel;
    `logistic_mixture`: see `LogisticMixture`; or `categorical`: see `Categorical`. The last two ask
    the decoder for more than one output per channel. Likelihoods are in nats per value. `std` and
    `mean` (C,) are what standardised the values in [0, 1]. dims: of the extent. ValueError for what
    needs a `mean` without one.
    """

    bin_width: Tensor

    def __init__(
        self,
        kind: Distortion,
        std: Sequence[float],
        mean: Sequence[float] | None = None,
        num_mixtures: int = 5,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.outputs_per_channel = 1
        if kind == "logistic":
            channelwise = (1, len(std), *(1,) * dims)
            bin_width = 1 / (255 * torch.tensor(std)).view(channelwise)
            self.register_buffer("bin_width", bin_width, persistent=False)
            self.log_scale = nn.Parameter(torch.full(channelwise, math.log(_START)))
        if kind in ("logistic_mixture", "categorical") and mean is None:
            raise ValueError(f"{kind} needs the mean of the values, which says where 0 and 1 are")
        if kind == "logistic_mixture":
            assert mean is not None
            self.outputs_per_channel = 3 * num_mixtures
            self.mixture = LogisticMixture(std, mean, num_mixtures, dims)
        if kind == "categorical":
            assert mean is not None
            self.outputs_per_channel = LEVELS
            self.categorical = Categorical(std, mean, dims)

    @property
    def is_likelihood(self) -> bool:
        """Whether `nats` is defined: the others are distances, not probabilities of values."""
        return self.kind in ("logistic", "logistic_mixture", "categorical")

    def mean(self, decoder_output: Tensor) -> Tensor:
        """Decoder output (B, C * outputs_per_channel, *extent) -> the items it stands for (B, C,
        *extent).
        """
        if self.kind == "categorical":
            return self.categorical.most_likely(decoder_output)
        if self.kind != "logistic_mixture":
            return decoder_output
        with torch.autocast(decoder_output.device.type, enabled=False):
            return self.mixture.mean(decoder_output.float())

    def repaired(self, decoder_output: Tensor, x: Tensor, nats: float) -> Tensor:
        """Standardised x (B, C, *extent) with the likeliest value of the decoder output where it is
        likelier than that of x by more than so many nats.

        What is not categorical gives values no odds: its mean everywhere.
        """
        found = self.mean(decoder_output)
        if self.kind != "categorical":
            return found
        # The likeliest value has the fewest nats of all.
        odds = self.nll(decoder_output, x) - self.nll(decoder_output, found)
        return found.where(odds > nats, x)

    def forward(self, decoder_output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Decoder output and items (B, C, *extent) -> the term, a scalar.

        mask (B, *extent) bool, True where real, or (B, C, *extent) where single values are missing.
        """
        if mask is not None:
            return self._masked(decoder_output, target, mask)
        match self.kind:
            case "mse":
                return F.mse_loss(decoder_output, target)
            case "log_mse":
                errors = F.mse_loss(decoder_output, target, reduction="none")
                return _log_mean(errors.flatten(1).mean(1))
            case "l1":
                return F.l1_loss(decoder_output, target)
            case "huber":
                return F.huber_loss(decoder_output, target)
            case "logistic" | "logistic_mixture" | "categorical":
                return self.nll(decoder_output, target).mean()

    def nats(self, decoder_output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """-log p(item | decoder output) of every item, all its values together: (B,) float64, in
        nats.

        Exact for logistic_mixture and categorical, never below the truth for logistic. ValueError
        for what is not a likelihood.
        """
        if not self.is_likelihood:
            raise ValueError(f"{self.kind} is a distance and gives values no probability")
        nats = self.nll(decoder_output, target)
        if mask is not None:
            nats = nats.where(by_value(mask, nats), 0.0)
        return nats.double().flatten(1).sum(1)

    def _masked(self, decoder_output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The term over real values alone: what is selected away has no gradient, whatever it
        holds.
        """
        mask = by_value(mask, target)
        counts = mask.expand_as(target).flatten(1).sum(1)
        decoder_output = decoder_output.where(mask, 0.0)
        target = target.where(mask, 0.0)
        match self.kind:
            case "mse" | "log_mse":
                values = F.mse_loss(decoder_output, target, reduction="none")
            case "l1":
                values = F.l1_loss(decoder_output, target, reduction="none")
            case "huber":
                values = F.huber_loss(decoder_output, target, reduction="none")
            case "logistic" | "logistic_mixture" | "categorical":
                values = self.nll(decoder_output, target).where(mask, 0.0)
        sums = values.flatten(1).sum(1)
        if self.kind == "log_mse":
            return _log_mean(sums / counts.clamp(min=1))
        return sums.sum() / counts.sum()

    def nll(self, decoder_output: Tensor, target: Tensor) -> Tensor:
        """Nats of every value, (B, C, *extent) float32 whatever autocast does; of what `nats` is
        defined for.
        """
        with torch.autocast(target.device.type, enabled=False):
            if self.kind == "logistic":
                return discretised_logistic_nll(
                    decoder_output.float(), self.log_scale, target.float(), self.bin_width
                )
            if self.kind == "categorical":
                return self.categorical.nll(decoder_output.float(), target.float())
            return self.mixture.nll(decoder_output.float(), target.float())


def by_value(mask: Tensor, values: Tensor) -> Tensor:
    """A mask of positions (B, *extent), or of single values, as one that goes with values (B, C,
    *extent).
    """
    return mask if mask.dim() == values.dim() else mask[:, None]


def _log_mean(errors: Tensor) -> Tensor:
    """Mean log of the mean squared errors (B,): mean PSNR but for a factor.

    The floor is 40 dB under the data's variance: what is perfect already pulls no more.
    """
    return (errors + 1e-4).log().mean()


class Categorical(nn.Module):
    """Every value is one of 256 that have nothing to do with one another, such as bytes of text.

    Decoder outputs are 256 logits for every channel. `std` and `mean` (C,) are what standardised
    the values in [0, 1].
    """

    std: Tensor
    centre: Tensor

    def __init__(self, std: Sequence[float], mean: Sequence[float], dims: int) -> None:
        super().__init__()
        channelwise = (1, len(std), *(1,) * dims)
        self.register_buffer("std", torch.tensor(std).view(channelwise), persistent=False)
        self.register_buffer("centre", torch.tensor(mean).view(channelwise), persistent=False)

    def nll(self, decoder_output: Tensor, target: Tensor) -> Tensor:
        """Nats of every value: (B, C * 256, *extent), standardised (B, C, *extent) -> the
        latter.
        """
        levels = ((target * self.std + self.centre) * (LEVELS - 1)).round().long()
        logits = decoder_output.unflatten(1, (-1, LEVELS)).movedim(2, 1)  # (B, 256, C, *extent)
        return F.cross_entropy(logits, levels.clamp(0, LEVELS - 1), reduction="none")

    def most_likely(self, decoder_output: Tensor) -> Tensor:
        """(B, C * 256, *extent) -> the values with the highest logit (B, C, *extent),
        standardised.
        """
        levels = decoder_output.unflatten(1, (-1, LEVELS)).argmax(2)
        return (levels / (LEVELS - 1) - self.centre) / self.std


class LogisticMixture(nn.Module):
    """Every value is one of 256, with the mass that a mixture of M logistics has in its bin (arXiv
    1701.05517, eq. 2).

    Unlike in that paper (section 2.2) the channels of a pixel are independent given the decoder's
    output, as the pixels are. The bins of 0 and 255 take the tails, so that the 256 probabilities
    sum to one. Decoder outputs are, for every channel, M logits, M means and M log scales, from
    which `_parts` starts training at means spread over the range of the pixels. `std` and `mean`
    (C,) are what standardised the pixels in [0, 1].
    """

    bin_width: Tensor
    black: Tensor
    white: Tensor
    start: Tensor

    def __init__(
        self, std: Sequence[float], mean: Sequence[float], num_mixtures: int, dims: int = 2
    ) -> None:
        super().__init__()
        self.num_mixtures = num_mixtures
        # Dimensions are (C, M, *extent) from here on.
        extent = (1,) * dims
        deviations = torch.tensor(std).view(-1, 1, *extent)
        means = torch.tensor(mean).view(-1, 1, *extent)
        shares = (torch.arange(num_mixtures).view(1, -1, *extent) + 0.5) / num_mixtures
        self.register_buffer("bin_width", 1 / (255 * deviations), persistent=False)
        self.register_buffer("black", -means / deviations, persistent=False)
        self.register_buffer("white", (1 - means) / deviations, persistent=False)
        self.register_buffer("start", (shares - means) / deviations, persistent=False)

    def nll(self, decoder_output: Tensor, target: Tensor) -> Tensor:
        """Decoder output (B, C * 3 M, *extent), standardised values (B, C, *extent) -> nats of
        every value.
        """
        log_shares, means, log_scales = self._parts(decoder_output)
        target = target.unsqueeze(2)
        inverse = torch.exp(-log_scales)
        half = 0.5 * self.bin_width
        above = (target - means + half) * inverse
        below = (target - means - half) * inverse
        is_black = target < self.black + half
        is_white = target > self.white - half
        # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - e^(b - a)): neither cancels nor
        # overflows for a > b. At an edge a or b is infinite, and the factor that holds it and the
        # last one are 1.
        log_above = F.logsigmoid(above).masked_fill(is_white, 0.0)
        log_below = F.logsigmoid(-below).masked_fill(is_black, 0.0)
        log_width = torch.log(-torch.expm1(-self.bin_width * inverse))
        log_width = log_width.masked_fill(is_black | is_white, 0.0)
        return -torch.logsumexp(log_shares + (log_above + log_below) + log_width, dim=2)

    def mean(self, decoder_output: Tensor) -> Tensor:
        """The expected value, (B, C * 3 M, *extent) -> (B, C, *extent), of the distribution that
        `nll` scores.

        All mass outside of the range of pixels lies on black and white, so that of one logistic is,
        with its distribution function F, black + the integral of 1 - F from black to white, of
        which the 256 bins are the sum by the midpoint rule: s * (softplus((mean - black) / s) -
        softplus((mean - white) / s)).
        """
        log_shares, means, log_scales = self._parts(decoder_output)
        scales = torch.exp(log_scales)
        above_black = F.softplus((means - self.black) / scales)
        above_white = F.softplus((means - self.white) / scales)
        expected = self.black + scales * (above_black - above_white)
        return (torch.exp(log_shares) * expected).sum(2)

    def _parts(self, decoder_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log shares, means and log scales (B, C, M, *extent) each, in the units of standardised
        values.
        """
        parts = decoder_output.unflatten(1, (-1, 3, self.num_mixtures))  # (B, C, 3, M, *extent)
        logits, means, log_scales = parts.unbind(2)
        # Scales stay between a twentieth of a bin (which then has all but 1e-4 of the mass) and a
        # thousand deviations. The floor is soft: a component that meets it can come back.
        floor = torch.log(0.05 * self.bin_width)
        log_scales = floor + F.softplus(log_scales + math.log(_START) - floor)
        log_scales = log_scales.clamp(max=math.log(1e3))
        return F.log_softmax(logits, dim=2), means + self.start, log_scales


def discretised_logistic_nll(
    mean: Tensor, log_scale: Tensor, target: Tensor, bin_width: Tensor
) -> Tensor:
    """-log of the logistic's mass in the bin around each target, in nats (Salimans et al. 2017,
    arXiv 1701.05517).

    mean, target: (B, C, *extent); log_scale and bin_width: broadcastable, in the units of the mean.
    The outermost bins are not widened to take the tails, so the value is never below the true cost.
    """
    half = 0.5 * bin_width * torch.exp(-log_scale)
    centred = (target - mean).abs() * torch.exp(-log_scale)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - e^(b - a)): neither cancels nor
    # overflows for a > b.
    log_width = torch.log(-torch.expm1(-2 * half))
    log_mass = log_width + F.logsigmoid(centred + half) + F.logsigmoid(half - centred)
    return -log_mass
