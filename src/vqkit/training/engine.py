"""Devices, precision and processes: the only module that knows lightning-fabric and
torch.distributed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric, wrappers
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ..config.sections import TrainConfig
from ..errors import VqkitError
from ..model.autoencoder import channels_last
from ..model.precision import use_bfloat16

# The title of a run says devices and precision; Fabric would say them again on a line of its own.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


# Parameters of mallopt(3), as malloc.h of glibc numbers them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


class _Autocast(MixedPrecision):
    """Arithmetic in bfloat16 where autocast says so, and inputs as they are.

    Fabric's own rounds what goes into a model to 8 bits of mantissa: an item, and the target that
    it is compared with.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cuda" if torch.cuda.is_available() else "cpu")

    def convert_input(self, data: Any) -> Any:
        return data


class Engine:
    """Runs one model and one optimiser on whatever there is: one process, or the ranks that
    torchrun or Slurm started.

    With several ranks, `ddp` holds a copy of the model on each, `fsdp2` shards encoder and decoder
    over them. alone: this process works for itself, whatever others there are.
    """

    def __init__(self, config: TrainConfig, alone: bool = False) -> None:
        self.world_size = 1
        local = 1
        if alone:
            config = config.model_copy(update={"strategy": "auto"})
        else:
            self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
            local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if config.strategy == "fsdp2" and self.world_size == 1:
            raise VqkitError(
                "train.strategy=fsdp2 shards over several processes: start it with torchrun, or "
                "use auto"
            )
        self.sharded = config.strategy == "fsdp2"
        self.units: Sequence[nn.Module] = ()
        _keep_freed_memory()
        self.fabric = Fabric(
            accelerator="auto" if torch.cuda.is_available() else "cpu",
            devices=local,
            num_nodes=max(1, self.world_size // local),
            plugins=[_Autocast() if use_bfloat16(config.precision) else Precision()],
            strategy=self._strategy(),
        )
        self.fabric.launch()

    def _strategy(self) -> Any:
        if self.sharded:
            return ModelParallelStrategy(
                self._shard, data_parallel_size=self.world_size, tensor_parallel_size=1
            )
        # The quantizers keep their statistics equal on all ranks themselves; broadcasting them
        # again would cost time.
        return DDPStrategy(forward_sync_buffers=False) if self.world_size > 1 else "auto"

    @property
    def rank(self) -> int:
        return self.fabric.global_rank

    @property
    def is_main(self) -> bool:
        return self.fabric.global_rank == 0

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    @property
    def precision(self) -> str:
        """What the arithmetic runs in: 'bfloat16' (autocast) or 'float32'."""
        return "bfloat16" if "bf16" in str(self.fabric._precision.precision) else "float32"

    def wrap_model(self, model: nn.Module, units: Sequence[nn.Module], compiled: bool) -> nn.Module:
        """The model on its device and in its strategy; call the result, keep `unwrap` of it for
        state.

        units: parts that are compiled and sharded one by one.
        """
        if not self.sharded:
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = channels_last(tensor.data)
        if compiled:
            for unit in units:
                unit.compile()
        self.units = units
        return self.fabric.setup_module(model)

    def _shard(self, model: nn.Module, mesh: Any) -> nn.Module:
        """The plan of FSDP2: the units, then the rest; codebook statistics are buffers and stay
        whole.
        """
        for part in (*self.units, model):
            fully_shard(part, mesh=mesh["data_parallel"], reshard_after_forward=True)
        return model

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        return cast(Optimizer, self.fabric.setup_optimizers(optimizer))

    def autocast(self) -> Any:
        """The precision of wrapped models, for calls of one that is not wrapped."""
        return self.fabric.autocast()

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def gradient(self, output: Tensor, wanted: Tensor, of_output: Tensor | None = None) -> Tensor:
        """Gradient of an output at one tensor, with the graph left for the backward pass, and
        without any effect on parameters or other ranks.

        of_output: the gradient at the output itself, where that is no scalar. Fabric refuses
        backward passes that are not its own, as a loss might have to be scaled; in float32 and
        bfloat16 none is.
        """
        wrappers._in_fabric_backward = True
        try:
            (found,) = torch.autograd.grad(output, wanted, of_output, retain_graph=True)
        finally:
            wrappers._in_fabric_backward = False
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over ranks."""
        if self.world_size == 1:
            return values
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="sum"))

    def barrier(self) -> None:
        self.fabric.barrier()


def _keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next step, where it is glibc.

    Every step frees and takes the same tensors. By default glibc gives large ones back to the
    system at some steps of some processes, which then pays for fresh pages at each of them.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def leave_together() -> None:
    """End the process group once every rank is done: one that leaves while its threads run can
    abort at exit.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def unwrap(model: nn.Module) -> nn.Module:
    """The module under the strategy's wrappers: its state has the names that are saved."""
    inner = getattr(model, "_forward_module", model)
    return cast(nn.Module, getattr(inner, "module", inner))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that may be sharded, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """A whole, detached copy on the CPU of a tensor that may be sharded; a collective call when it
    is.
    """
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().to("cpu", copy=True).contiguous()


def copy_full(target: Tensor, value: Tensor) -> None:
    """Write a whole tensor into one that may be sharded."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(
                value.to(target.device), target.device_mesh, target.placements
            )
        target.copy_(value)
