"""Two ranks with parts of a batch learn what one process learns from it, even where padding makes
parts unequal.
"""

import sys
from pathlib import Path

import pytest
import torch

from vqkit.config import (
    FSQConfig,
    ProductConfig,
    PyramidConfig,
    ResidualConfig,
    SimVQConfig,
    VQConfig,
)
from vqkit.model.quantizers import build_quantizer

from ...processes import start

KINDS = {
    "vq": VQConfig(codebook_size=16, code_dim=4, revive_threshold=0.5),
    "vq-rate": VQConfig(codebook_size=16, code_dim=4, rate=0.1),
    "vq-map": VQConfig(codebook_size=16, code_dim=4, neighbourhood=2.0),
    "residual": ResidualConfig(
        num_stages=2, stage=VQConfig(codebook_size=8, code_dim=4), quantizer_dropout=0.5
    ),
    "residual-fsq": ResidualConfig(num_stages=2, stage=FSQConfig(levels=(5, 5, 3, 3))),
    "pyramid": PyramidConfig(
        num_grids=2, stage=VQConfig(codebook_size=8, code_dim=4, rate=0.1), quantizer_dropout=0.5
    ),
    "pyramid-fsq": PyramidConfig(num_grids=2, stage=FSQConfig(levels=(5, 5, 3, 3))),
    "product": ProductConfig(num_groups=2, group=VQConfig(codebook_size=8, code_dim=2)),
    "simvq": SimVQConfig(codebook_size=16, code_dim=4),
}
STEPS = 4


def run(kind: str, rank: int, ranks: int) -> dict[str, torch.Tensor]:
    """State after a few steps on this rank's part of the same batches."""
    torch.manual_seed(0)
    quantizer = build_quantizer(KINDS[kind])
    for step in range(STEPS):
        source = torch.Generator().manual_seed(step)
        latents = torch.randn(4, 4, 8, 10, generator=source)
        mask = (
            torch.rand(4, 8, 10, generator=source)
            < torch.tensor([0.9, 0.8, 0.3, 0.2])[:, None, None]
        )
        quantizer(
            latents.chunk(ranks)[rank], torch.Generator().manual_seed(step), mask.chunk(ranks)[rank]
        )
    return dict(quantizer.state_dict())


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = ["-m", "tests.model.quantizers.test_ranks", folder]
    for child in [start([*command, rank]) for rank in range(2)]:
        assert child.communicate(timeout=120)[1] == "" and child.returncode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_learn_what_one_process_learns(kind, of_two_ranks):
    expected = run(kind, 0, 1)
    first, second = (found[kind] for found in of_two_ranks)
    assert all(torch.equal(value, second[name]) for name, value in first.items()), (
        "ranks hold one codebook"
    )
    for found in of_two_ranks:
        for name, value in expected.items():
            torch.testing.assert_close(
                found[kind][name], value, rtol=1e-4, atol=1e-5, msg=f"{kind}: {name}"
            )


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{where}/meet", rank=number, world_size=2
    )
    torch.save({kind: run(kind, number, 2) for kind in KINDS}, where / f"{number}.pt")
    torch.distributed.barrier()  # a rank that leaves first can abort the other
    torch.distributed.destroy_process_group()
