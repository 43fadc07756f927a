"""Restyling against moments worked out by hand, exact transport and brute force; its ends; what is
refused.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from vqkit.apps import restyle as app
from vqkit.apps.restyle import (
    METHODS,
    balanced_nearest,
    restyle,
    restyle_by_pairs,
    shrunk_covariance,
)
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.artifact.tokenizer import Tokenizer
from vqkit.config import from_tree
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.shapes import Shape


def untrained(quantizer, channels=3) -> Model:
    """A model with random weights, whose latents are about as large as its codes."""
    torch.manual_seed(0)
    tree = {"model": {"network": {"kind": "patch", "width": 16}, "quantizer": quantizer}}
    config = from_tree(tree, "test", Config)
    normalisation = Normalisation((0.5,) * channels, (0.3,) * channels)
    network = build_model(config, Shape(channels, (32, 32)), normalisation).eval()
    head = network.encoder.head[1]
    with (
        torch.no_grad()
    ):  # latents of random squares: mean 0 and deviation 1 in every channel, as codes have
        latents = network.latents(
            torch.randn(8, channels, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
        )
        deviation, mean = torch.std_mean(latents, (0, 2, 3))
        head.weight /= deviation[:, None]
        head.bias.sub_(mean).div_(deviation)
    data = {"channels": channels, "size": [32, 32], "normalisation": normalisation.to_dict()}
    return Model(Artifact(config, network, data), "cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return untrained({"kind": "vq", "codebook_size": 256, "code_dim": 8})


@pytest.fixture(scope="module")
def pictures(emoji) -> torch.Tensor:
    """Values (4, C, H, W)."""
    return emoji.read(emoji.splits["test"][4:8]).values


def latents_of(model: Model, image: torch.Tensor) -> torch.Tensor:
    return model.tokenizer.latents_alone(image[None])


def result_codes(model: Model, monkeypatch, *arguments, **options) -> torch.Tensor:
    """Codes that restyle decodes."""
    seen = []
    plain = Tokenizer.decode
    monkeypatch.setattr(
        Tokenizer,
        "decode",
        lambda self, codes, *a, **o: seen.append(codes) or plain(self, codes, *a, **o),
    )
    restyle(model, *arguments, **options)
    return seen[0]


@pytest.mark.parametrize("method", METHODS)
def test_alpha_zero_is_the_plain_reconstruction(model, pictures, method):
    found = restyle(model, pictures[0], pictures[1:3], method=method, alpha=0.0, weights=[3, 1])
    assert torch.equal(found, model.tokenizer.reconstruct(pictures[:1])[0])
    assert not torch.equal(
        found, restyle(model, pictures[0], pictures[1:2], method=method, alpha=1.0)
    )


@pytest.mark.parametrize("method", METHODS)
def test_content_keeps_its_size_whatever_the_style_has(model, pictures, method):
    content = pictures[0][:, :21, :30]
    style = pictures[1].repeat(1, 1, 2)
    assert restyle(model, content, [style], method=method).shape == (3, 21, 30)


def test_adain_gives_the_styles_moments_and_wct_its_shrunk_covariance(model, pictures):
    content, style = (latents_of(model, image) for image in pictures[:2])
    wanted = style[0].flatten(1).double()
    adain = METHODS["adain"](model, content, style)[0].flatten(1).double()
    assert torch.allclose(adain.mean(1), wanted.mean(1), atol=1e-5)
    assert torch.allclose(adain.var(1, correction=0), wanted.var(1, correction=0), rtol=1e-3)
    source = content[0].flatten(1).double()
    slopes = ((adain - adain.mean(1, keepdim=True)) / (source - source.mean(1, keepdim=True))).abs()
    assert torch.allclose(
        slopes, slopes.median(1, keepdim=True).values.expand_as(slopes), rtol=1e-2
    ), "per channel"

    wct = METHODS["wct"](model, content, style)[0].flatten(1).double()
    assert torch.allclose(wct.mean(1), wanted.mean(1), atol=1e-5)
    # the content's own shrinkage leaves whitening inexact: the covariance of what comes out, by
    # numpy
    root = [
        _numpy_root(shrunk_covariance(part.T).numpy(), power)
        for part, power in ((source, -0.5), (wanted, 0.5))
    ]
    mixed = root[1] @ root[0]
    expected = mixed @ np.cov(source.numpy(), bias=True) @ mixed.T
    assert np.allclose(
        np.cov(wct.numpy(), bias=True), expected, rtol=1e-3, atol=1e-6 * np.trace(expected)
    )


def _numpy_root(matrix: np.ndarray, power: float) -> np.ndarray:
    vectors, values, _ = np.linalg.svd(matrix)
    return vectors @ np.diag(values**power) @ vectors.T


def test_many_tokens_shrink_nothing_and_few_shrink_to_a_sphere():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.diag(torch.tensor([3.0, 1.0, 0.3, 0.1], dtype=torch.float64))
    many = torch.randn(50_000, 4, generator=generator, dtype=torch.float64) @ mixing
    assert torch.allclose(shrunk_covariance(many), mixing.square(), atol=0.1)
    few = many[:3]
    found, sample = shrunk_covariance(few), torch.from_numpy(np.cov(few.T.numpy(), bias=True))
    assert torch.linalg.matrix_rank(sample) < 4 and torch.linalg.eigvalsh(found)[0] > 1e-3
    assert found.trace() == pytest.approx(float(sample.trace()))
    assert torch.equal(shrunk_covariance(torch.ones(5, 4)), torch.zeros(4, 4))


def test_full_balance_is_the_exact_assignment_and_none_is_the_nearest(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    tokens, bank = (
        torch.randn(40, 2, generator=generator),
        torch.randn(40, 2, generator=generator) + 1.5,
    )
    cost = torch.cdist(tokens, bank).square()
    monkeypatch.setattr(app, "BALANCE", 0.0)
    assert torch.equal(balanced_nearest(tokens, bank), cost.argmin(1))
    spread_of_nearest = len(cost.argmin(1).unique())
    monkeypatch.setattr(app, "BALANCE", 1.0)
    monkeypatch.setattr(app, "SMOOTHING", 0.003)
    monkeypatch.setattr(app, "SINKHORN_STEPS", 1000)
    found = balanced_nearest(tokens, bank)
    exact = linear_sum_assignment(cost.numpy())[1]
    costs = [float(cost[torch.arange(40), rows].mean()) for rows in (found, exact)]
    assert costs[0] == pytest.approx(costs[1], rel=0.02) and len(found.unique()) >= 36
    assert spread_of_nearest < 15


def test_chunks_do_not_change_the_balance(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    tokens, bank = torch.randn(100, 3, generator=generator), torch.randn(30, 3, generator=generator)
    whole = balanced_nearest(tokens, bank)
    monkeypatch.setattr(
        app, "chunks", lambda count, _: [slice(start, start + 7) for start in range(0, count, 7)]
    )
    assert torch.equal(balanced_nearest(tokens, bank), whole)


@pytest.mark.parametrize(
    "kind", [{"kind": "vq", "codebook_size": 256, "code_dim": 8}, {"kind": "fsq"}]
)
def test_codes_takes_nothing_but_codes_of_the_style(kind, pictures, monkeypatch):
    model = untrained(kind)
    found = result_codes(model, monkeypatch, pictures[0], [pictures[1]], method="codes", alpha=1.0)
    of_style = {
        tuple(code) for code in model.tokenizer.encode(pictures[1:2])[0].flatten(1).T.tolist()
    }
    assert {tuple(code) for code in found[0].flatten(1).T.tolist()} <= of_style
    assert len(found.unique()) > 1


def test_residual_models_keep_the_coarse_stages_of_the_content(pictures):
    model = untrained({"kind": "residual", "num_stages": 4})
    content, style = (latents_of(model, image) for image in pictures[:2])
    target = METHODS["codes"](model, content, style)
    quantizer = model.network.quantizer

    def coarse(latents):
        codes = quantizer.encode(latents)
        return quantizer.decode(torch.cat([codes[:, :2], torch.full_like(codes[:, 2:], -1)], 1))

    fine = (target - coarse(content))[0].flatten(1).T
    of_style = (style - coarse(style))[0].flatten(1).T
    distances = torch.cdist(fine, of_style, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distances.min(1).values.max()) < 1e-5 < float(fine.std())
    assert not torch.allclose(target, content, atol=1e-2)


def test_patches_against_brute_force(model, pictures):
    content, style = (latents_of(model, image) for image in pictures[:2])
    matched, bank = METHODS["adain"](model, content, style)[0].numpy(), style[0].numpy()
    total, count = np.zeros_like(bank), np.zeros(bank.shape[1:])
    places = [
        (row, column) for row in range(bank.shape[1] - 2) for column in range(bank.shape[2] - 2)
    ]
    for y, x in places:
        wanted = matched[:, y : y + 3, x : x + 3]
        distances = [np.square(bank[:, r : r + 3, c : c + 3] - wanted).sum() for r, c in places]
        row, column = places[int(np.argmin(distances))]
        total[:, y : y + 3, x : x + 3] += bank[:, row : row + 3, column : column + 3]
        count[y : y + 3, x : x + 3] += 1
    found = METHODS["patches"](model, content, style)[0].numpy()
    assert np.allclose(found, total / count, atol=1e-4)
    assert torch.allclose(METHODS["patches"](model, content, content), content, atol=1e-4), (
        "its own style: itself"
    )


def test_weights_are_shares_of_the_styles(model, pictures):
    content, first, second = pictures[:3]
    alone = restyle(model, content, [first], alpha=1.0)
    assert torch.equal(restyle(model, content, [first, second], alpha=1.0, weights=[5, 0]), alone)
    assert torch.equal(restyle(model, content, [second, first], alpha=1.0, weights=[0, 2]), alone)
    mixed = restyle(model, content, [first, second], alpha=1.0)
    assert torch.equal(restyle(model, content, [first, second], alpha=1.0, weights=[4, 4]), mixed)
    assert not torch.equal(mixed, alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5 must lie between"),
        ({"alpha": float("nan")}, "alpha=nan must lie"),
        ({"method": "gram"}, "method=gram is none of adain, wct, codes, patches"),
        ({"weights": [1.0]}, "2 styles need as many"),
        ({"weights": [1.0, -1.0]}, "not below 0"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
        ({"weights": [float("nan"), 1.0]}, "not below 0"),
    ],
)
def test_numbers_without_sense_are_refused(model, pictures, options, message):
    with pytest.raises(VqkitError, match=message):
        restyle(model, pictures[0], pictures[1:3], **options)


def test_pictures_that_cannot_be_used_are_refused(model, pictures):
    plain = torch.tensor([200, 30, 30], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    with pytest.raises(VqkitError, match="style 2 is of one colour"):
        restyle(model, pictures[0], [pictures[1], plain])
    assert restyle(model, plain, [pictures[1]]).shape == plain.shape, "a plain content is one"
    side = model.network.tile[0]
    expected = (
        f"the content has 32x{side - 1} pixels .width x height.; the model needs {side}x{side}"
    )
    with pytest.raises(VqkitError, match=expected):
        restyle(model, pictures[0][:, : side - 1], [pictures[1]])
    with pytest.raises(
        VqkitError, match="the style has latents of 8x2 .width x height.; patches need 3x3"
    ):
        restyle(model, pictures[0], [pictures[1][:, : 2 * side]], method="patches")
    with pytest.raises(VqkitError, match="there is no style"):
        restyle(model, pictures[0], [])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels):
    model = untrained({"kind": "vq"}, channels=channels)
    images = torch.randint(
        0, 256, (2, channels, 32, 32), generator=torch.Generator().manual_seed(0)
    ).byte()
    for method in METHODS:
        assert restyle(model, images[0], images[1:], method=method).shape == (channels, 32, 32)


def test_pairs_give_a_content_what_its_own_picture_before_became(model, pictures):
    """The content is among the images before, so every latent finds itself, and alpha 1 is its
    image after.
    """
    before, after = [pictures[1], pictures[0]], [pictures[2], pictures[3]]
    found = restyle_by_pairs(model, [pictures[0], pictures[1]], before, after, alpha=1.0)
    for result, other in zip(found, (pictures[3], pictures[2]), strict=True):
        assert torch.equal(result, model.tokenizer.reconstruct(other[None])[0])
    assert restyle_by_pairs(model, [], before, after) == []
    plain = restyle_by_pairs(model, [pictures[0]], before, after, alpha=0.0)[0]
    assert torch.equal(plain, model.tokenizer.reconstruct(pictures[:1])[0])


def test_pairs_look_around_at_the_place_and_at_what_was_found(model, pictures):
    """Nearest by brute force over all latents of the images before, with ring and place; then two
    passes more.
    """
    before, after, content = list(pictures[1:3]), list(pictures[2:4]), pictures[0]
    known, became = (
        torch.cat([latents_of(model, one) for one in some]) for some in (before, after)
    )
    scale = 1 / known.permute(0, 2, 3, 1).reshape(-1, known.shape[1]).std(0, correction=0).mean()
    rows, columns = known.shape[2:]
    grid = [(y, x) for y in range(rows) for x in range(columns)]

    def ring(latents, y, x):
        steps = [
            (down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)
        ]
        places = [
            (min(max(y + down, 0), rows - 1), min(max(x + right, 0), columns - 1))
            for down, right in steps
        ]
        return torch.cat([latents[:, row, column] for row, column in places])

    def described(latents, y, x, found):
        place = torch.tensor([4 * y / (rows - 1) - 2, 4 * x / (columns - 1) - 2])
        more = [] if found is None else [0.3 * scale * ring(found, y, x)]
        return torch.cat(
            [latents[:, y, x] * scale, 0.3 * scale * ring(latents, y, x), place, *more]
        )

    latents, found = latents_of(model, content)[0], None
    for _ in range(3):
        others = became if found is not None else [None] * len(known)
        pairs = zip(known, others, strict=True)
        bank = torch.stack([described(one, y, x, other) for one, other in pairs for y, x in grid])
        chosen = [
            int((bank - described(latents, y, x, found)).square().sum(1).argmin()) for y, x in grid
        ]
        found = became.flatten(2).permute(0, 2, 1).flatten(0, 1)[chosen].T.reshape(latents.shape)
    codes = model.network.quantizer.encode(torch.lerp(latents, found, 0.5)[None])
    expected = model.tokenizer.decode(codes, (32, 32))[0]
    assert torch.equal(restyle_by_pairs(model, [content], before, after, alpha=0.5)[0], expected)


def test_what_is_no_pair_is_refused(model, pictures):
    for before, after, message in [
        ([], [], "no pairs"),
        (pictures[1:3], pictures[1:2], "2 images before and 1 after"),
        ([pictures[1], pictures[2][:, :16]], pictures[1:3], "pair 2"),
    ]:
        with pytest.raises(VqkitError, match=message):
            restyle_by_pairs(model, [pictures[0]], list(before), list(after))
    with pytest.raises(VqkitError, match="alpha"):
        restyle_by_pairs(model, [pictures[0]], [pictures[1]], [pictures[2]], alpha=2)
