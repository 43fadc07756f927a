"""Files of pyramids: a stage for each grid, cut where one likes, at rates of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.coding.test_integer_prior import random_prior
from tests.untrained import STAGE, untrained
from vqkit.apps.denoise import denoise, num_levels
from vqkit.artifact.coder_files import load_coders, save_coders
from vqkit.artifact.model import Model
from vqkit.artifact.operating_points import Rate, distortion, measure
from vqkit.artifact.record import Coders
from vqkit.artifact.store import save_artifact
from vqkit.coding import MIXING, TRANSFORMER, CorruptHeader, Truncated, read_file, write_file
from vqkit.coding.grids import split

PYRAMID = {"kind": "pyramid", "stage": STAGE}
SIDES = (1, 2, 4)
# Codes of the first grids.
COUNTS = (1, 5, 21)


@pytest.fixture(scope="module")
def unfitted() -> Model:
    """Random codes as large as latents, so that all grids have something to say."""
    model = untrained(quantizer=PYRAMID)
    with torch.no_grad():
        for stage in model.network.quantizer.stages:
            stage.codebook.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def fitted(unfitted) -> Model:
    """With a transformer of random weights, and a rate for each number of grids."""
    coder = replace(random_prior((16, 16, 16), grid=(8, 8)), sides=SIDES)
    rates = {f"grids-{number}": Rate(number, 0.0, 1.0, 1.0) for number in (1, 2, 3)}
    rates["cheap"] = Rate(2, 20.0, 1.0, 1.0)
    coders = Coders(codes=coder, rates=rates)
    return Model(replace(unfitted.artifact, coders=coders), "cpu")


@pytest.fixture(params=["mixing", "transformer"])
def model(request, unfitted, fitted) -> Model:
    return unfitted if request.param == "mixing" else fitted


def image(height=20, width=33, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def shown(model, codes, extent):
    """What codes (1, Q, *grid) become, as files are decoded."""
    return model.tokenizer.decode(codes, extent, double=True)[0].permute(1, 2, 0).numpy()


def test_a_file_has_a_stage_for_each_grid(model):
    pixels = image()
    data = model.compress(pixels)
    file = read_file(data)
    assert file.header.coder == (TRANSFORMER if model.artifact.coders.codes else MIXING)
    assert len(file.stages) == 3
    codes = model.encode(pixels)
    assert codes.shape == (1, 21, 3, 5) and len(codes.unique()) > 8
    decoded = next(iter(model.compressor.read(data)))
    assert np.array_equal(decoded.codes, codes[0])
    assert np.array_equal(model.decompress(data), shown(model, codes, (20, 33)))


@pytest.mark.filterwarnings("ignore:the file is cut off")
def test_a_file_that_is_cut_anywhere_gives_its_whole_grids(model):
    pixels = image(16, 16)
    data = model.compress(pixels)
    codes = model.encode(pixels)
    expected = []
    for count in COUNTS:
        cut = codes.clone()
        cut[:, count:] = -1
        expected.append(cut)
    found = set()
    for end in range(len(data), 0, -1):
        try:
            decoded = next(iter(model.compressor.read(data[:end])))
        except Truncated:
            break
        number = COUNTS.index(len(decoded.codes))
        assert np.array_equal(decoded.codes, codes[0, : COUNTS[number]])
        found.add(number)
    assert found == {0, 1, 2}
    first = write_file(replace(read_file(data).header, num_codebooks=1), read_file(data).stages[:1])
    assert np.array_equal(model.decompress(first), shown(model, expected[0], (16, 16)))


def test_more_grids_than_the_model_has_are_refused(model):
    file = read_file(model.compress(image(16, 16)))
    forged = write_file(replace(file.header, num_codebooks=4), [*file.stages, file.stages[-1]])
    with pytest.raises(CorruptHeader, match="4 stages; the model has 3"):
        list(model.compressor.read(forged))


def test_bundles(model):
    items = [image(16, 16, seed) for seed in range(3)] + [image(20, 33)]
    codec = model.compressor.codec()
    coded = []
    for pixels in items:
        values = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        coded += model.compressor.code(values, codec)
    data = model.compressor.write_bundle(coded, codec, [f"{n}.png" for n in range(4)])
    for decoded, pixels in zip(model.compressor.read(data), items, strict=True):
        assert np.array_equal(decoded.codes, model.encode(pixels)[0])


def test_rates_leave_grids_out_and_weigh_bits(fitted):
    pixels = image(16, 16)
    codes = fitted.encode(pixels).numpy()
    for number, count in enumerate(COUNTS, 1):
        data = fitted.compress(pixels, rate=f"grids-{number}")
        assert len(read_file(data).stages) == number
        decoded = next(iter(fitted.compressor.read(data)))
        assert np.array_equal(decoded.codes[:count], codes[0, :count])
    cheap = fitted.compress(pixels, rate="cheap")
    assert len(cheap) < len(fitted.compress(pixels, rate="grids-2"))
    assert fitted.decompress(cheap).shape == pixels.shape


def test_points_of_all_numbers_of_grids_are_measured(fitted):
    """Squared errors of latents stand for those of images, so that the figures can be told."""
    network = fitted.network
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, network.quantizer.latent_dim, 8, 8, generator=generator)

    def psnr_of(codes, gain):
        whole = np.pad(
            codes, [(0, 0), (0, 21 - codes.shape[1]), (0, 0), (0, 0)], constant_values=-1
        )
        value = network.quantizer.decode(torch.from_numpy(whole))
        return -float((value - latents).square().mean())

    points = measure(network.quantizer, fitted.artifact.coders.codes, latents, psnr_of, True)
    plain = {point.num_stages: point for point in points if point.weight == 0}
    assert plain[1].bits < plain[2].bits < plain[3].bits
    assert plain[1].psnr < plain[2].psnr < plain[3].psnr
    weighed = [point for point in points if point.weight > 0]
    assert {point.num_stages for point in weighed} == {1, 2, 3}
    assert all(point.bits <= plain[point.num_stages].bits for point in weighed)


def test_distortion_is_that_of_the_last_grid_that_is_there(unfitted):
    quantizer = unfitted.network.quantizer
    latents = torch.randn(2, quantizer.latent_dim, 8, 8, generator=torch.Generator().manual_seed(0))
    codes = quantizer.encode(latents)
    for count, side in zip(COUNTS, SIDES, strict=True):
        cut = codes.clone()
        cut[:, count:] = -1
        value = quantizer.decode(cut)
        pooled = torch.nn.functional.avg_pool2d(value - latents, 4 // side)
        expected = pooled.square().sum(1).mean() * (4 // side) ** 2
        found = distortion(quantizer, latents, codes[:, :count].numpy())
        assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_coder_comes_back_from_its_file_with_the_grids_of_the_model(fitted, tmp_path):
    save_artifact(fitted.artifact, tmp_path)
    save_coders(fitted.artifact, tmp_path)
    coders, problems = load_coders(tmp_path, fitted.content_id, fitted.network.quantizer)
    assert not problems and coders.rates == fitted.artifact.coders.rates
    codes = fitted.encode(image(16, 16)).numpy()
    assert coders.codes.encode(codes) == fitted.artifact.coders.codes.encode(codes)
    other = untrained(quantizer={**PYRAMID, "num_grids": 2})
    _, problems = load_coders(tmp_path, fitted.content_id, other.network.quantizer)
    assert "fitted to another model" in problems[0]


def test_fewer_grids_are_smoother(fitted):
    pixels = torch.from_numpy(image(24, 40)).permute(2, 0, 1)
    assert num_levels(fitted) == 3
    one = denoise(fitted, pixels, levels=1).values
    codes = fitted.encode(image(24, 40))
    codes[:, 1:] = -1
    expected = fitted.tokenizer.decode(codes, (24, 40))[0]
    assert (one.int() - expected.int()).abs().max() <= 1
    helped = denoise(fitted, pixels, strength=0.5).values
    assert helped.shape == pixels.shape


def test_codes_of_stages_are_those_that_sums_cover(unfitted):
    codes = unfitted.encode(image(16, 16)).numpy()
    in_order = unfitted.compressor.codec().in_order(codes[0])
    for flat, stage in zip(in_order, split(codes, SIDES), strict=True):
        assert np.array_equal(np.concatenate([part.ravel() for part in flat]), stage.ravel())
