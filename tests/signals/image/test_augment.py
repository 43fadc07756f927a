from __future__ import annotations

import pytest
import torch

from vqkit.signals.image.augment import apply, augment, draw, move, random_crop, recolour
from vqkit.signals.image.config import AugmentConfig
from vqkit.signals.image.source import ImageData

ALL = AugmentConfig(shift=3, flip=True, crop=0.7, colour=0.3)


@pytest.fixture(scope="module")
def images(emoji: ImageData) -> torch.Tensor:  # (16, 3, 32, 32)
    return emoji.read(emoji.splits["train"][:16]).values


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_is_on_by_default(images: torch.Tensor) -> None:
    assert torch.equal(augment(images, AugmentConfig(), seeded()), images)


def test_shift_by_hand() -> None:
    """One pixel down and two to the right: the top row and the left column are repeated."""
    image = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    moved = move(image, torch.tensor([[1, 2]]), None)
    assert moved[0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]
    moved = move(image, torch.tensor([[-1, 0]]), None)
    assert moved[0, 0].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]


def test_shift_then_flip(images: torch.Tensor) -> None:
    shift, flip = torch.randint(-3, 4, (16, 2), generator=seeded()), torch.arange(16) % 2 == 0
    both = move(images, shift, flip)
    shifted = move(images, shift, None)
    assert torch.equal(both[1::2], shifted[1::2]) and torch.equal(both[::2], shifted[::2].flip(3))


def test_flip_twice_is_the_identity(images: torch.Tensor) -> None:
    flip = torch.ones(16, dtype=torch.bool)
    once = move(images, None, flip)
    assert torch.equal(once, images.flip(3)) and torch.equal(move(once, None, flip), images)


def test_shifts_reach_every_offset_and_no_further() -> None:
    drawn = draw(2000, AugmentConfig(shift=2, flip=True), seeded())
    assert (
        drawn.shift is not None
        and drawn.flip is not None
        and drawn.crop is None
        and drawn.colour is None
    )
    assert drawn.shift.unique().tolist() == [-2, -1, 0, 1, 2]
    assert 900 < int(drawn.flip.sum()) < 1100


def test_whole_crop_is_the_identity_and_a_corner_is_that_corner(images: torch.Tensor) -> None:
    whole = torch.tensor([[1.0, 0.3, 0.6]]).expand(16, 3)
    assert torch.equal(random_crop(images, whole), images)
    corner = random_crop(
        images, torch.tensor([[0.5, 1.0, 0.0]]).expand(16, 3)
    )  # bottom left quarter
    shrunk = torch.nn.functional.avg_pool2d(corner.float(), 2)
    error = (shrunk - images[:, :, 16:, :16].float()).abs().mean()
    assert error < 6 < (shrunk - images[:, :, :16, :16].float()).abs().mean()


def test_colour_by_hand() -> None:
    image = torch.tensor([100, 50, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert recolour(image, torch.tensor([[1.1, 1.0, 1.0]]))[0, :, 0, 0].tolist() == [110, 55, 220]
    grey = round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)
    assert recolour(image, torch.tensor([[1.0, 1.0, 0.0]]))[0, :, 0, 0].tolist() == [grey] * 3
    assert (
        recolour(image, torch.tensor([[2.0, 1.0, 1.0]]))[0, 2].max() == 255
    )  # saturates, does not wrap around


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_number_of_channels(images: torch.Tensor, channels: int) -> None:
    chosen = torch.cat([images, images[:, :1]], dim=1)[:, :channels]
    changed = augment(chosen, AugmentConfig(colour=0.5), seeded())
    assert (
        changed.shape == chosen.shape
        and changed.dtype == torch.uint8
        and not torch.equal(changed, chosen)
    )
    if channels in (2, 4):
        assert torch.equal(changed[:, -1], chosen[:, -1])  # alpha is no colour


def test_input_stays_and_seeds_decide(images: torch.Tensor) -> None:
    before = images.clone()
    first, again, other = (augment(images, ALL, seeded(seed)) for seed in (1, 1, 2))
    assert (
        torch.equal(images, before) and torch.equal(first, again) and not torch.equal(first, other)
    )


def test_rows_of_a_draw_are_the_rows_of_the_batch(images: torch.Tensor) -> None:
    drawn = draw(16, ALL, seeded())
    parts = [
        apply(images[start : start + 4], drawn.rows(start, start + 4)) for start in range(0, 16, 4)
    ]
    assert torch.equal(torch.cat(parts), apply(images, drawn))
