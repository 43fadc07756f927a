"""Speed of drawing from a prior: with and without its cache, code by code and scattered.

    python benchmarks/prior_speed.py [--quick] [--seed 0] [--json FILE]

Networks with random weights: how long drawing takes does not depend on them. Grid of 16x16 codes,
512 each, the default network (width 256, 6 blocks), float64 as in `vqkit generate`; medians of 2
rounds that alternate.
kv_cache_speedup_256: codes a second with the cache over a loop that runs all earlier steps again
for every code, 16 images (as many as `vqkit generate` draws at once), and 1.
masked_vs_causal_speedup_256: time of 256 steps of one code over that of 12 steps, for 1 image and
for 16.
seconds_64_samples: 64 images of 7x7 codes with the network of recipe prior/fashion-mnist, without
decoding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from bench.claims import Claim, machine, options, report

from vqkit.config import PriorNetworkConfig, load
from vqkit.prior.layout import Layout
from vqkit.prior.network import Condition, PriorNetwork
from vqkit.prior.prior import Drawing, Prior
from vqkit.prior.sampling import Sampling, Start, draw, pick
from vqkit.settings import PriorConfig

PARSER = options(__doc__)

STEPS = 12


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@torch.no_grad()
def uncached(network: PriorNetwork, start: Start, count: int) -> None:
    """The first `count` codes, every one by running all steps before it again."""
    codes = start.codes.clone()
    for known in range(count):
        order = start.order[:, : known + 1]
        taken = codes.gather(1, order)[:, :known]
        hidden = network.hidden(network.steps(taken, order, start.condition))[:, -1]
        drawn = pick(network.logits(hidden, 0), Sampling(), start.uniforms[:, known])
        codes[:, order[0, -1]] = drawn


def begin(layout: Layout, count: int, order: torch.Tensor) -> Start:
    uniforms = torch.rand(count, layout.length, dtype=torch.float64)
    zeros = torch.zeros(count, layout.length, dtype=torch.long)
    return Start(zeros, order.expand(count, -1), uniforms, Condition())


def speedups(network: PriorNetwork, rounds: int, side: int) -> dict[str, float]:
    layout = network.layout
    raster = layout.canonical[0]
    scattered = layout.scattered
    sizes = layout.steps(scattered, STEPS)
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for count in (1, 16):
            one_by_one = begin(layout, count, raster)
            few = begin(layout, count, scattered)
            found = {
                f"causal_{count}": seconds(
                    lambda s=one_by_one: draw(network, s, [1] * side**2, Sampling())
                ),
                f"uncached_{count}": seconds(lambda s=one_by_one: uncached(network, s, side**2)),
                f"masked_{count}": seconds(lambda s=few: draw(network, s, sizes, Sampling())),
            }
            for name, value in found.items():
                times.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    arguments = PARSER.parse_args()
    torch.manual_seed(arguments.seed)
    side, rounds = (8, 1) if arguments.quick else (16, 2)
    network = PriorNetwork(PriorNetworkConfig(), Layout((side, side), (512,), (0,))).double().eval()
    found = speedups(network, rounds, side)
    settings = load("fashion-mnist", [], PriorConfig)
    small = Prior(settings, PriorNetwork(settings.network, Layout((7, 7), (512,), (0,)), 10).eval())
    small.sample(1)
    sampling = statistics.median(
        seconds(lambda: small.sample(64, Drawing())) for _ in range(rounds)
    )
    where = {**machine(), **found}
    claims = [
        Claim(
            "kv_cache_speedup_256",
            found["uncached_16"] / found["causal_16"],
            "x",
            ">= 8",
            "no cache",
            where,
        ),
        Claim(
            "kv_cache_speedup_256_single",
            found["uncached_1"] / found["causal_1"],
            "x",
            "-",
            "no cache",
            where,
        ),
        Claim(
            "masked_vs_causal_speedup_256",
            found["causal_1"] / found["masked_1"],
            "x",
            ">= 3",
            "causal",
            where,
        ),
        Claim(
            "masked_vs_causal_speedup_256_batch_16",
            found["causal_16"] / found["masked_16"],
            "x",
            "reported",
            "causal",
            where,
        ),
        Claim("seconds_64_samples", sampling, "s", "<= 3", None, where),
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
