"""The estimate of bits that gradients pass: every price by hand, what it may look at, and that it
follows codes.
"""

import math

import pytest
import torch

from vqkit.model.code_costs import CodeCosts


def random_codes(channels=7, rows=5, columns=6, seed=0):
    """Signed numbers, most of them zero, larger in the first channels."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 0.5, channels)[:, None, None]
    return (torch.randn(channels, rows, columns, generator=generator) * spread).round()


def fitted(codes, differs=()):
    flags = torch.zeros(len(codes), dtype=torch.bool)
    flags[list(differs)] = True
    costs = CodeCosts(flags)
    costs.fit(codes)
    return costs


def by_hand(codes, weights):
    """Bits of all codes, one after the other, of channels that are no differences."""
    channels, rows, columns = codes.shape
    magnitudes = codes.abs().tolist()

    def at(channel, y, x):
        inside = 0 <= channel < channels and y >= 0 and 0 <= x < columns
        return magnitudes[channel][y][x] if inside else 0.0

    def near(channel, y, x):
        return at(channel, y, x - 1) + at(channel, y - 1, x)

    total = 0.0
    for channel in range(channels):
        mean = sum(map(sum, magnitudes[channel])) / (rows * columns)
        for y in range(rows):
            for x in range(columns):
                far = at(channel, y - 1, x - 1) + at(channel, y - 1, x + 1)
                far += at(channel, y, x - 2) + at(channel, y - 2, x)
                others = [other for other in range(channels) if 0 < abs(other - channel) <= 3]
                beside = sum(near(other, y, x) for other in others) / 12
                before = sum(
                    0.25 * 0.75 ** (channel - 1 - other) * at(other, y, x)
                    for other in range(channel)
                )
                position = sum(min(near(other, y, x), 6) for other in range(channels))
                seen = [
                    0.03 + (2 * near(channel, y, x) + far) / 8,
                    0.03 + beside,
                    0.03 + before,
                    0.003 + position / (2 * channels),
                    0.003 + mean,
                    math.e,
                ]
                features = [math.log(one) for one in seen]
                logits = [sum(map(math.prod, zip(row, features, strict=True))) for row in weights]
                some, more = (1 / (1 + math.exp(-logit)) for logit in logits)
                magnitude = at(channel, y, x)
                likely = 1 - some
                if magnitude:
                    likely = some * more ** (magnitude - 1) * (1 - more) / 2
                total -= math.log2(likely)
    return total


def test_bits_are_those_of_every_decision():
    codes = random_codes()
    costs = fitted(codes)
    expected = by_hand(codes, costs.weights.tolist())
    assert float(costs.bits(codes)) == pytest.approx(expected, rel=1e-4)


def test_a_price_knows_only_what_comes_before():
    """But for the mean of a channel, which a coder has learnt by then, and which stays here."""
    codes = random_codes()
    codes[3, 2, 4] = 0
    codes[3, 4, 1] = 5
    swapped = codes.clone()
    swapped[3, 2, 4] = 5
    swapped[3, 4, 1] = 0
    costs = fitted(codes)
    same = torch.isclose(costs.prices(codes.abs()).zero, costs.prices(swapped.abs()).zero)
    assert same[:, :2].all()
    assert same[:, 2, :4].all()
    assert same[:4, 2, 4].all()
    assert not same[4, 2, 4] and not same[3, 2, 5] and not same[3, 3, 4]


def test_a_fit_follows_the_codes():
    codes = random_codes(channels=12, rows=20, columns=20)
    flags = torch.zeros(12, dtype=torch.bool)
    unfitted = CodeCosts(flags)
    costs = CodeCosts(flags)
    costs.fit(codes)
    assert float(costs.bits(codes)) < float(unfitted.bits(codes))
    # No better than what the codes of each channel hold, were they independent, by much.
    entropy = 0.0
    for channel in codes:
        _, counts = channel.unique(return_counts=True)
        shares = counts / counts.sum()
        entropy -= float((counts * shares.log2()).sum())
    assert 0.9 * entropy < float(costs.bits(codes)) < 1.2 * entropy


def test_differences_cost_less_where_codes_are_smooth():
    slope = torch.arange(16.0).expand(2, 16, 16).clone()
    slope += torch.arange(16.0)[:, None]
    assert float(fitted(slope, [0, 1]).bits(slope)) < 0.2 * float(fitted(slope).bits(slope))


def test_gradients_are_those_of_small_changes():
    # Away from whole numbers and from the largest that counts, where the slope changes.
    codes = random_codes().clamp(-2, 2).double() + 0.3
    costs = fitted(codes.float())
    costs.weights = costs.weights.double()
    costs._before = costs._before.double()
    costs._beside = costs._beside.double()
    codes.requires_grad_()
    assert torch.autograd.gradcheck(costs.bits, [codes], eps=1e-5, atol=1e-3)
