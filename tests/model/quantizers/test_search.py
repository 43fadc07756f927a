"""Exact nearest-code search and k-means against brute force, and what they hold in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqkit.config import ResidualConfig, VQConfig
from vqkit.model.quantizers import build_quantizer
from vqkit.model.quantizers.base import squared_distances
from vqkit.model.quantizers.search import SCORES_PER_CHUNK, kmeans, nearest

from ...benchmarks import benchmark

correctness = benchmark("correctness")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nearest_is_brute_force_across_chunks():
    tokens = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)
    codebook = np.random.default_rng(1).normal(size=(600, 7)).astype(np.float32)
    assert len(tokens) > SCORES_PER_CHUNK // len(codebook), "must need several chunks"
    distances = ((tokens[:, None].astype(np.float64) - codebook[None]) ** 2).sum(-1)
    found = nearest(torch.from_numpy(tokens), torch.from_numpy(codebook)).numpy()
    chosen = distances[np.arange(len(tokens)), found]
    assert np.abs(chosen - distances.min(1)).max() < 1e-5
    assert (found == distances.argmin(1)).mean() > 0.999


PEAK = """
import torch
from vqkit.config import VQConfig
from vqkit.model.quantizers import build_quantizer
torch.set_num_threads(1)
quantizer = build_quantizer(VQConfig(codebook_size=65536, code_dim=16, kmeans_iterations=0))
latents = torch.randn(1, 16, 64, 64, requires_grad=True)
def step():
    result = quantizer(latents)
    (result.quantized.sum() + result.loss).backward()
def status(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
step()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
step()
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak of memory"
)
def test_a_training_step_never_holds_all_tokens_by_all_codes():
    """4096 x 65536 float32 are 1 GiB."""
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment
    )
    assert int(done.stdout) < 50 * 1024, done.stderr


@given(st.integers(1, 700), st.integers(1, 5), st.integers(0, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_nearest_is_brute_force_at_any_size(codes, width, count, seed):
    """Small integers, so that products are exact and ties are frequent: the lowest index must
    win.
    """
    source = np.random.default_rng(seed)
    tokens, codebook = (
        source.integers(-2, 3, size=(n, width)).astype(np.float32) for n in (count, codes)
    )
    expected = ((tokens[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    assert (
        nearest(torch.from_numpy(tokens), torch.from_numpy(codebook)).tolist() == expected.tolist()
    )


@pytest.mark.parametrize("codes", [1024, 8192, 20000])
def test_nearest_in_blocks_and_tiles_finds_the_first_of_equals(codes):
    source = np.random.default_rng(0)
    tokens, codebook = (
        source.integers(-3, 4, size=(n, 3)).astype(np.float32) for n in (200, codes)
    )
    expected = ((tokens[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    assert (
        nearest(torch.from_numpy(tokens), torch.from_numpy(codebook)).tolist() == expected.tolist()
    )


def test_ties_go_to_the_lowest_index():
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]), codebook).tolist() == [
        0,
        1,
        0,
    ]


def test_nearest_of_no_tokens():
    assert nearest(torch.zeros(0, 3), torch.zeros(4, 3)).shape == (0,)


def test_kmeans_finds_separated_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    tokens = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2, generator=generator(3))
    found = kmeans(tokens, 4, 20, generator(1))
    assert torch.cdist(centres, found).min(1).values.max() < 0.1


# ------------------------------------------------------------------------------ far from the origin


@pytest.mark.parametrize(
    "case", list(correctness.search_cases(seed=1, quick=True)), ids=lambda case: case[0]
)
def test_nearest_is_brute_force_in_float64_far_from_the_origin_too(case):
    assert correctness.wrong_codes(*case[1:]) == 0


@pytest.mark.parametrize("mean", [0.0, 0.2, 100.0, 1e4])
def test_squared_distances_are_those_of_float64(mean):
    tokens, values = (
        mean + 0.1 * torch.randn(count, 8, generator=generator(count)) for count in (200, 30)
    )
    expected = (tokens.double()[:, None] - values.double()).square().sum(2)
    size = (values.double() - mean).square().sum(1).max() + (tokens.double() - mean).square().sum(
        1
    ).max()
    assert float((squared_distances(tokens, values) - expected).abs().max()) < 1e-6 * float(size)


def grid_tokens(count, scale, seed):
    """Normal tokens (count, 3), on a grid that float32 holds exactly at 1024 as well."""
    return (scale * torch.randn(count, 3, generator=generator(seed)) * 2048).round() / 2048


def test_kmeans_far_from_the_origin_is_kmeans():
    tokens = grid_tokens(5000, 0.1, 3)
    found = kmeans(tokens, 20, 10, generator(1))
    torch.testing.assert_close(
        kmeans(tokens + 1024, 20, 10, generator(1)) - 1024, found, rtol=0, atol=1e-3
    )


FAMILIES = {
    "ema": VQConfig(codebook_size=16, code_dim=3),
    "gradient": VQConfig(codebook_size=16, code_dim=3, update="gradient"),
    "rate": VQConfig(codebook_size=16, code_dim=3, rate=0.1),
    "map": VQConfig(codebook_size=16, code_dim=3, neighbourhood=2.0, neighbourhood_steps=5),
    "residual": ResidualConfig(num_stages=2, stage=VQConfig(codebook_size=16, code_dim=3)),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_codebooks_follow_tokens_wherever_they_are(kind):
    """Trained on tokens with a mean of 1024 and a deviation of 0.1, codes tell them apart as they
    do at the origin.
    """
    codes = []
    for shift in (0.0, 1024.0):
        torch.manual_seed(0)
        quantizer = build_quantizer(FAMILIES[kind])
        for step in range(10):
            quantizer((shift + grid_tokens(400, 0.1, step)).t()[None], generator(step))
        codes.append(quantizer.eval().encode((shift + grid_tokens(2000, 0.1, 99)).t()[None])[:, :1])
    assert float((codes[0] == codes[1]).float().mean()) > 0.95
    assert len(codes[1].unique()) >= 14
