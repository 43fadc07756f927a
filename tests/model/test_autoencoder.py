import copy

import pytest
import torch

from vqkit.config import FSQConfig, LossConfig, NoneConfig, VQConfig
from vqkit.model.blocks import DepthwiseResidual
from vqkit.model.likelihood import Likelihood, discretised_logistic_nll
from vqkit.model.tiling import tile, untile
from vqkit.settings import ModelConfig
from vqkit.signals.image.config import ConvConfig, MLPConfig, MultiscaleConfig, PatchConfig

from ..untrained import autoencoder

NETWORKS = {
    "conv": ConvConfig(width=32, num_blocks=1),
    "patch": PatchConfig(width=16, encoder_blocks=1, decoder_blocks=1),
    "mlp": MLPConfig(widths=(64,), grid=(4, 4)),
    "multiscale": MultiscaleConfig(
        downsampling_factor=4, width=32, encoder_blocks=(1, 1), decoder_blocks=(1, 1)
    ),
}
QUANTIZERS = {
    "none": NoneConfig(code_dim=8),
    "vq": VQConfig(codebook_size=64, code_dim=8),
    "fsq": FSQConfig(levels=(8, 5, 5)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def build(network, quantizer, channels=3, distortion="mse"):
    torch.manual_seed(0)
    config = ModelConfig(network=network, quantizer=quantizer)
    return autoencoder(config, (16, 16), channels, LossConfig(distortion=distortion))


@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (5, 40)])
def test_any_size_goes_through_and_decode_of_encode_is_forward(network, kind, size):
    model = build(network, QUANTIZERS[kind]).eval()
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        output, codes = model(x), model.encode(x)
        assert output.reconstruction.shape == x.shape
        assert codes.shape[2:] == model.grid(size)
        assert torch.equal(codes, output.codes)
        assert torch.equal(model.decode(codes, size), output.reconstruction)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_model_in_double_precision_decodes_the_same(network, kind):
    model = build(network, QUANTIZERS[kind]).eval()
    with torch.no_grad():
        codes = model.encode(torch.randn(2, 3, 16, 16))
        assert torch.allclose(
            copy.deepcopy(model).double().decode(codes), model.decode(codes), atol=1e-3
        )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_channel_count(network, channels):
    model = build(network, QUANTIZERS["vq"], channels)
    assert model(torch.randn(2, channels, 16, 16)).reconstruction.shape == (2, channels, 16, 16)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_one_batch_of_real_pictures_is_learnt_by_heart(network, kind, emoji):
    model = build(network, QUANTIZERS[kind])
    pixels = emoji.read(emoji.splits["train"][:8]).values[:, :, 8:24, 8:24]
    x = (pixels.float() / 255 - 0.7) / 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    weights = {"reconstruction": 1.0, "commitment": 0.25, "codebook": 1.0, "kl": 1e-3}
    variance = float(x.var())
    for _ in range(300):
        terms = model(x, generator).terms
        loss = sum(weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # Most need far fewer steps.
        if float(terms["reconstruction"].detach()) < 0.05 * variance:
            break
    with torch.no_grad():
        error = float(model.eval()(x).terms["reconstruction"])
    assert error < 0.1 * variance, f"explains {1 - error / variance:.0%}"


def test_bits_per_item_by_hand():
    assert build(NETWORKS["patch"], VQConfig(codebook_size=512)).num_bits((28, 28)) == 7 * 7 * 9
    assert build(NETWORKS["conv"], VQConfig(codebook_size=512)).num_bits((29, 28)) == 8 * 7 * 9
    assert build(NETWORKS["mlp"], VQConfig(codebook_size=256)).num_bits((16, 17)) == 2 * 16 * 8
    assert build(NETWORKS["patch"], NoneConfig(code_dim=4)).num_bits((8, 8)) == 4 * 4 * 32


def test_tiles_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 3 * 6 * 8).reshape(2, 3, 6, 8)
    tiles = tile(x, (3, 4))
    assert torch.equal(tiles[1], x[0, :, :3, 4:]) and torch.equal(tiles[2], x[0, :, 3:, :4])
    assert torch.equal(untile(tiles, (2, 2)), x)


# --------------------------------------------------------------------------------------- likelihood


def test_discretised_logistic_is_the_mass_of_the_bin():
    """Against a logistic's distribution function in float64, near and far from the mean."""
    width = torch.tensor(1 / 255 / 0.3)
    target = torch.linspace(-2, 2, 41)
    for log_scale in (-4.0, -1.0, 1.0):
        found = discretised_logistic_nll(torch.tensor(0.1), torch.tensor(log_scale), target, width)
        scale = torch.tensor(log_scale).double().exp()
        upper = torch.sigmoid((target.double() - 0.1 + width.double() / 2) / scale)
        lower = torch.sigmoid((target.double() - 0.1 - width.double() / 2) / scale)
        mass = upper - lower
        sure = mass > 1e-9  # the reference cancels beyond, ours does not
        assert torch.allclose(found.double()[sure], -mass[sure].log(), rtol=1e-4)
        assert torch.isfinite(found).all()


def test_discretised_logistic_masses_sum_to_one():
    width = torch.tensor(1 / 255 / 0.3)
    bins = (torch.arange(-3000, 3000) * width)[:, None]
    nll = discretised_logistic_nll(torch.tensor(0.0), torch.tensor(-0.5), bins, width)
    assert float((-nll.double()).exp().sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"), [("mse", 2.5), ("l1", 1.5), ("huber", (0.5 + 1.5) / 2)]
)
def test_distances_by_hand(kind, expected):
    likelihood = Likelihood(kind, (1.0,))
    value = likelihood(torch.tensor([[[[1.0, 2.0]]]]), torch.zeros(1, 1, 1, 2))
    assert float(value) == pytest.approx(expected)


def test_depthwise_blocks_are_the_same_in_double_precision():
    """In float64 they take a path of their own."""
    torch.manual_seed(0)
    block = DepthwiseResidual(16, 2)
    torch.nn.init.normal_(block.contract.weight)
    x = torch.randn(2, 5, 7, 16)
    assert torch.allclose(copy.deepcopy(block).double()(x.double()).float(), block(x), atol=1e-4)
