"""Random changes of what a discriminator sees keep gradients, and are alike for a pair."""

import pytest
import torch

from vqkit.model.perturb import cutout, joined, translation
from vqkit.signals.image.signal import IMAGE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def all_changes(count, extent, generator):
    return joined(
        [
            IMAGE.recolouring(count, generator),
            translation(count, extent, generator),
            cutout(count, extent, generator),
        ]
    )


@pytest.mark.parametrize("extent", [(16,), (16, 24), (8, 16, 8)])
def test_a_translation_moves_every_item_by_its_own_whole_steps(extent):
    x = torch.rand(12, 2, *extent) + 1
    moved = translation(12, extent, seeded())(x)
    found = set()
    for before, after in zip(x, moved, strict=True):
        shifts = []
        for dim in range(1, len(extent) + 1):
            reach = round(extent[dim - 1] / 8)
            candidates = []
            others = [other for other in range(len(extent) + 1) if other != dim]
            for shift in range(-reach, reach + 1):
                # Zeros come in from the side that it is moved away from.
                filled = (after.sum(others) != 0).nonzero()[:, 0]
                low, high = int(filled.min()), int(filled.max())
                if (low, high) == (max(0, -shift), extent[dim - 1] - 1 - max(0, shift)):
                    candidates.append(shift)
            assert len(candidates) == 1
            shifts += candidates
        expected = before
        for dim, shift in enumerate(shifts, start=1):
            rolled = expected.roll(-shift, dim)
            keep = torch.arange(extent[dim - 1]) + shift
            inside = (keep >= 0) & (keep < extent[dim - 1])
            shape = [1] * before.dim()
            shape[dim] = extent[dim - 1]
            expected = rolled * inside.view(shape)
        assert torch.equal(after, expected)
        found.add(tuple(shifts))
    assert len(found) > 1


@pytest.mark.parametrize("extent", [(16,), (16, 24), (8, 16, 8)])
def test_a_cutout_is_a_box_of_half_of_every_side_or_what_lies_inside(extent):
    x = torch.ones(20, 1, *extent)
    missing = cutout(20, extent, seeded())(x) == 0
    largest = 1
    for side in extent:
        largest *= side // 2
    counts = missing.flatten(1).sum(1)
    assert int(counts.max()) <= largest
    assert int(counts.min()) > 0
    for item in missing[:, 0]:
        box = torch.ones_like(item)
        for dim in range(item.dim()):
            others = [other for other in range(item.dim()) if other != dim]
            along = item.any(dim=others[0]) if len(others) == 1 else item
            if len(others) == 2:
                along = item.any(dim=others[1]).any(dim=others[0])
            shape = [1] * item.dim()
            shape[dim] = item.shape[dim]
            box = box & along.view(shape)
        assert torch.equal(box, item)


def test_gradients_pass_through_every_change():
    """The gradient in one direction is the difference that a step in it makes."""
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    change = all_changes(3, (16, 16), seeded())
    goal = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((change(x) * goal).sum(), x)
    direction = torch.randn_like(x)
    step = 1e-6 * direction
    difference = ((change(x + step) - change(x - step)) * goal).sum() / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-5)
    assert float(gradient.abs().sum()) > 0


def test_an_item_and_its_reconstruction_are_changed_alike():
    x = torch.randn(4, 3, 16, 16)
    change = all_changes(4, (16, 16), seeded())
    assert torch.equal(change(x), change(x.clone()))
    assert not torch.equal(change(x), all_changes(4, (16, 16), seeded(1))(x))


def test_recolouring_leaves_alpha_alone_and_changes_each_image_as_a_whole():
    x = torch.randn(4, 4, 8, 8)
    changed = IMAGE.recolouring(4, seeded())(x)
    assert torch.equal(changed[:, 3], x[:, 3])
    assert not torch.equal(changed[:, :3], x[:, :3])
    # Grey stays grey: saturation has nothing to act on.
    grey = torch.randn(4, 1, 8, 8).expand(-1, 3, -1, -1)
    changed = IMAGE.recolouring(4, seeded())(grey)
    torch.testing.assert_close(changed[:, 0], changed[:, 1])
