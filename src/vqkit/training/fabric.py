"""What is asked of lightning-fabric, which `vqkit[train]` installs and training alone imports."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def _version_alone(package: str) -> Iterator[None]:
    """Inside, whoever imports a package gets its version and nothing else of it."""
    stand_in = ModuleType(package)
    try:
        stand_in.__dict__["__version__"] = metadata.version(package)
    except metadata.PackageNotFoundError:
        yield
        return
    known = sys.modules.setdefault(package, stand_in)
    try:
        yield
    finally:
        if known is stand_in:
            del sys.modules[package]


# Fabric imports torchmetrics, where it is installed, to see its version; with all that comes with
# it, SciPy and Matplotlib, this takes longer than Fabric itself.
with _version_alone("torchmetrics"):
    from lightning_fabric import Fabric, wrappers
    from lightning_fabric.plugins.precision import MixedPrecision, Precision
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

# The title of a run says devices and precision; Fabric would say them again on a line of its own.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class _Autocast(MixedPrecision):
    """Arithmetic in bfloat16 where autocast says so, and inputs as they are.

    Fabric's own rounds what goes into a model to 8 bits of mantissa: an item, and the target that
    it is compared with.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cuda" if torch.cuda.is_available() else "cpu")

    def convert_input(self, data: Any) -> Any:
        return data


def launch(
    world_size: int,
    ranks_here: int,
    bfloat16: bool,
    shard: Callable[[nn.Module, Any], nn.Module] | None,
) -> Fabric:
    """Fabric on whatever devices there are, in the process group that torchrun or Slurm describes.

    ranks_here: on this machine. shard: the plan of FSDP2, by which a model lies on several ranks;
    None = a copy on each.
    """
    strategy: Any = "auto"
    if shard is not None:
        strategy = ModelParallelStrategy(
            shard, data_parallel_size=world_size, tensor_parallel_size=1
        )
    elif world_size > 1:
        # The quantizers keep their statistics equal on all ranks themselves; broadcasting them
        # again would cost time.
        strategy = DDPStrategy(forward_sync_buffers=False)
    fabric = Fabric(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=ranks_here,
        num_nodes=max(1, world_size // ranks_here),
        plugins=[_Autocast() if bfloat16 else Precision()],
        strategy=strategy,
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def gradients_allowed() -> Iterator[None]:
    """Fabric refuses backward passes that are not its own, as a loss might have to be scaled; in
    float32 and bfloat16 none is.
    """
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = False
