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

from vqkit.model.quantizers.search import SCORES_PER_CHUNK, kmeans, nearest


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
from vqkit.model import build_quantizer
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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak of memory")
def test_a_training_step_never_holds_all_tokens_by_all_codes():
    """4096 x 65536 float32 are 1 GiB."""
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment)
    assert int(done.stdout) < 50 * 1024, done.stderr


@given(st.integers(1, 700), st.integers(1, 5), st.integers(0, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_nearest_is_brute_force_at_any_size(codes, width, count, seed):
    """Small integers, so that products are exact and ties are frequent: the lowest index must win."""
    source = np.random.default_rng(seed)
    tokens, codebook = (source.integers(-2, 3, size=(n, width)).astype(np.float32) for n in (count, codes))
    expected = ((tokens[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    assert nearest(torch.from_numpy(tokens), torch.from_numpy(codebook)).tolist() == expected.tolist()


@pytest.mark.parametrize("codes", [1024, 8192, 20000])
def test_nearest_in_blocks_and_tiles_finds_the_first_of_equals(codes):
    source = np.random.default_rng(0)
    tokens, codebook = (source.integers(-3, 4, size=(n, 3)).astype(np.float32) for n in (200, codes))
    expected = ((tokens[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    assert nearest(torch.from_numpy(tokens), torch.from_numpy(codebook)).tolist() == expected.tolist()


def test_ties_go_to_the_lowest_index():
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]), codebook).tolist() == [0, 1, 0]


def test_nearest_of_no_tokens():
    assert nearest(torch.zeros(0, 3), torch.zeros(4, 3)).shape == (0,)


def test_kmeans_finds_separated_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    tokens = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2, generator=generator(3))
    found = kmeans(tokens, 4, 20, generator(1))
    assert torch.cdist(centres, found).min(1).values.max() < 0.1
