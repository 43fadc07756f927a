"""Arithmetic whose results do not depend on the order of sums, and what models make of it."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import vqkit
from vqkit import cli
from vqkit.errors import VqkitError
from vqkit.model.order_free import OrderFree

from ..signals.audio.conftest import codec, codec_folder, recordings  # noqa: F401
from ..untrained import MULTISCALE, PATCH, RESIDUAL, STAGE, untrained

GOLDEN = Path(__file__).parents[1] / "golden/emoji-model"
CONV = {"kind": "conv", "width": 16, "num_downsamplings": 2}
SCALAR = {"kind": "scalar", "channels": 24, "step": 0.5}
KINDS = [
    (PATCH, RESIDUAL, {"transform": {"kind": "conv", "num_blocks": 2}}),
    (PATCH, {"kind": "pyramid", "stage": STAGE}, {}),
    (PATCH, {"kind": "simvq", "codebook_size": 16}, {}),
    (PATCH, {"kind": "vq", "codebook_size": 16, "distance": "cosine"}, {}),
    (CONV, {"kind": "fsq", "levels": [8, 8, 8]}, {}),
    ({"kind": "mlp", "widths": [32], "grid": [4, 4]}, {"kind": "bsq", "bits": 8}, {}),
    (MULTISCALE, SCALAR, {}),
]


def image(height=50, width=70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def order_free(function, *given):
    with torch.no_grad(), OrderFree():
        return function(*given)


# ------------------------------------------------------------------------------------- operations


@pytest.mark.parametrize(
    ("name", "given", "error"),
    [
        ("exp", torch.linspace(-300, 300, 9001, dtype=torch.float64), 1e-15),
        ("log", torch.logspace(-300, 300, 9001, dtype=torch.float64), 1e-15),
        ("log2", torch.logspace(-30, 30, 9001, dtype=torch.float64), 1e-15),
        ("sigmoid", torch.linspace(-40, 40, 9001, dtype=torch.float64), 1e-14),
        ("tanh", torch.linspace(-9, 9, 9001, dtype=torch.float64), 1e-12),
    ],
)
def test_functions_are_what_the_standard_library_says(name, given, error):
    found = order_free(getattr(torch, name), given)
    of_math = {"sigmoid": lambda x: 1 / (1 + math.exp(-x))}.get(name) or getattr(math, name)
    expected = torch.tensor([of_math(x) for x in given.tolist()], dtype=torch.float64)
    size = expected.abs().clamp(min=1e-3)
    assert ((found - expected).abs() / size).max() < error


def test_the_error_function_and_what_is_made_of_it():
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    expected = torch.tensor([math.erf(one) for one in x.tolist()], dtype=torch.float64)
    assert (order_free(torch.erf, x) - expected).abs().max() < 1.5e-7
    assert (order_free(F.gelu, x) - F.gelu(x)).abs().max() < 1e-6
    by_tanh = order_free(lambda y: F.gelu(y, approximate="tanh"), x)
    assert (by_tanh - F.gelu(x, approximate="tanh")).abs().max() < 1e-12
    powers = order_free(lambda y: y**0.65, x.abs())
    assert torch.allclose(powers, x.abs() ** 0.65, rtol=1e-14)


def layers() -> dict[str, tuple[nn.Module, torch.Tensor, int]]:
    """Layers, what goes in, and the dimension along which they sum."""
    return {
        "linear": (nn.Linear(96, 40), torch.randn(30, 96), 1),
        "convolution": (nn.Conv2d(48, 20, 3, padding=1), torch.randn(2, 48, 9, 9), 1),
        "grouped": (nn.Conv2d(48, 48, 3, padding=1, groups=48), torch.randn(2, 48, 9, 9), -1),
        "transposed": (nn.ConvTranspose2d(48, 20, 4, 2, 1), torch.randn(2, 48, 9, 9), 1),
        "layer norm": (nn.LayerNorm(96), torch.randn(30, 96) + 5, 1),
        "group norm": (nn.GroupNorm(1, 48), torch.randn(2, 48, 9, 9) + 5, 1),
    }


@pytest.mark.parametrize("name", list(layers()))
def test_layers_are_near_what_they_are_in_float64(name):
    torch.manual_seed(0)
    layer, x, _ = layers()[name]
    layer, x = layer.double(), 3 * x.double()
    found, expected = order_free(layer, x), layer(x)
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "name", ["linear", "convolution", "transposed", "layer norm", "group norm"]
)
def test_another_order_of_the_terms_gives_the_same_bits(name):
    """And would not without this module: else the test could not fail."""
    torch.manual_seed(0)
    layer, x, dim = layers()[name]
    layer, x = layer.double(), x.double()
    other = torch.randperm(x.shape[dim])
    turned = torch.index_select(x, dim, other)
    changed = {key: value.clone() for key, value in layer.state_dict().items()}
    if "norm" in name:
        changed = {key: value[other] for key, value in changed.items()}
    else:
        side = 0 if name == "transposed" else 1
        changed["weight"] = torch.index_select(changed["weight"], side, other)

    def run(values, state):
        return torch.func.functional_call(layer, state, (values,))

    def back(values):
        return torch.index_select(values, dim, torch.argsort(other)) if "norm" in name else values

    state = dict(layer.state_dict())
    assert torch.equal(order_free(run, x, state), back(order_free(run, turned, changed)))
    assert not torch.equal(run(x, state), back(run(turned, changed)))


def test_sums_of_numbers_of_all_sizes():
    torch.manual_seed(0)
    x = torch.randn(7, 5000, dtype=torch.float64) * torch.logspace(-12, 0, 5000).double()
    turned = x[:, torch.randperm(5000)]
    for sums in (
        lambda y: y.sum(1),
        lambda y: y.mean(1),
        lambda y: torch.linalg.vector_norm(y, dim=1),
    ):
        found = order_free(sums, x)
        assert torch.equal(found, order_free(sums, turned))
        assert torch.allclose(found, sums(x), rtol=1e-10)
    whole = [math.fsum(row) for row in x.tolist()]
    assert torch.allclose(order_free(lambda y: y.sum(1), x), torch.tensor(whole).double())
    weights = order_free(lambda y: y.softmax(1), x)
    assert torch.allclose(weights, x.softmax(1), rtol=1e-12)


def test_what_is_not_known_to_be_the_same_is_refused():
    for function in (torch.sin, torch.fft.rfft, lambda x: torch.cdist(x[None], x[None])):
        with pytest.raises(VqkitError, match="not the same on all machines"):
            order_free(function, torch.randn(4, 4, dtype=torch.float64))


# ----------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(("network", "quantizer", "more"), KINDS)
def test_models_give_the_same_alone_and_together_and_nearly_what_they_give_in_float64(
    network, quantizer, more
):
    model = untrained(network, quantizer, **more)
    values = torch.from_numpy(np.stack([image(48, 64), image(64, 48).transpose(1, 0, 2)]))
    values = values.permute(0, 3, 1, 2)
    exactly = model.exactly.tokenizer
    codes = exactly.encode(values)
    shown = exactly.decode(codes, (48, 64))
    for place, one in enumerate(values):
        assert torch.equal(exactly.encode(one[None])[0], codes[place])
        assert torch.equal(exactly.decode(codes[place][None], (48, 64))[0], shown[place])
    assert (codes == model.tokenizer.encode(values)).double().mean() > 0.999
    plain = model.tokenizer.decode(codes, (48, 64), double=True)
    assert (plain.int() - shown.int()).abs().max() <= 1
    assert (plain == shown).double().mean() > 0.99
    assert torch.equal(model.encode(list(values.permute(0, 2, 3, 1).numpy()), exact=True), codes)
    data = model.compress(image(), "x.png")
    found = model.decompress(data, exact=True)
    assert np.array_equal(found, model.exactly.decompress(data))
    assert np.array_equal(found, model.decode(model.encode(image()), (50, 70), exact=True)[0])


def test_other_instructions_and_threads_give_the_same_file(tmp_path):
    model = vqkit.load(GOLDEN, device="cpu")
    (tmp_path / "x.vq").write_bytes(model.compress(image()))
    own = model.decompress(tmp_path / "x.vq", exact=True)
    for level, threads in (("default", 1), ("avx2", 2)):
        out = tmp_path / f"{level}.png"
        words = ["decompress", str(tmp_path / "x.vq"), "--model", str(GOLDEN), "--exact"]
        settings = {"ATEN_CPU_CAPABILITY": level, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "vqkit", *words, "--out", str(out)]
        subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True)
        assert np.array_equal(np.asarray(Image.open(out)), own)


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
def test_the_sound_of_a_vocoder_is_refused(codec, codec_folder, tmp_path, capsys):  # noqa: F811
    sound = np.random.default_rng(0).integers(-9000, 9000, (1, 9000)).astype(np.int16)
    (tmp_path / "x.vq").write_bytes(codec.compress(sound))
    words = ["decompress", str(tmp_path / "x.vq"), "--model", str(codec_folder), "--exact"]
    assert cli.main([*words, "--out", str(tmp_path / "x.wav")]) == 1
    assert "leave exact out" in capsys.readouterr().err
    assert not (tmp_path / "x.wav").exists()


def test_a_model_that_is_exact_stays_so():
    model = untrained()
    assert model.exactly.exactly is model.exactly
    assert model.exactly.device.type == "cpu" and vqkit.Model is type(model.exactly)
