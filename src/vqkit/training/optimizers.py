"""AdamW for everything, or Muon for the matrices that it suits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ..config.sections import TrainConfig
from ..errors import VqkitError
from ..model.precision import use_bfloat16


def build_optimizers(model: nn.Module, settings: TrainConfig) -> list[Optimizer]:
    """The optimisers of a model, together holding every parameter once.

    Groups carry their `peak_lr`.

    Weight decay is for matrices and kernels, not for biases, norms and codebooks.
    """
    hidden_matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if settings.optimizer == "muon" and parameter.ndim == 2 and "blocks." in name:
            hidden_matrices.append(parameter)
        elif parameter.ndim >= 2 and "codebook" not in name:
            decayed.append(parameter)
        else:
            others.append(parameter)
    groups = []
    for parameters, decay in ((decayed, settings.weight_decay), (others, 0.0)):
        # An optimiser refuses a group without parameters.
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay, "peak_lr": settings.lr})
    optimizers: list[Optimizer] = [AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)]
    if hidden_matrices:
        optimizers.append(_muon(hidden_matrices, settings))
    return optimizers


def _muon(matrices: list[nn.Parameter], settings: TrainConfig) -> Muon:
    if settings.strategy == "fsdp2":
        raise VqkitError(
            "train.optimizer=muon needs whole matrices and fsdp2 shards them; use "
            "train.optimizer=adamw"
        )
    dtype = torch.bfloat16 if use_bfloat16(settings.precision) else torch.float32
    return Muon(matrices, settings.muon_lr, settings.weight_decay, dtype=dtype)


class Muon(Optimizer):
    """Momentum whose singular values are all brought near one before it is applied (Jordan et al.
    2024).

    Update of a matrix (rows, columns): lr * sqrt(max(1, rows / columns)) * orthogonalise(Nesterov
    momentum). Matrices of one shape are orthogonalised together, in `dtype`: bfloat16 is precise
    enough and five times as fast where the processor multiplies it, and slow where it does not.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__([{"params": matrices, "peak_lr": lr}], {"lr": lr})
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                momenta = torch.stack([self._momentum(parameter) for parameter in parameters])
                updates = orthogonalise(momenta.to(self.dtype)).to(momenta.dtype)
                step = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * self.weight_decay)
                torch._foreach_add_(parameters, list(updates.unbind()), alpha=-step)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["momentum"].lerp_(parameter.grad, 1.0 - self.momentum)
        return parameter.grad.lerp(state["momentum"], self.momentum)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Matrices (n, rows, columns) with their singular values brought to about [0.7, 1.2],
    directions kept.

    The quintic Newton-Schulz iteration X <- a X + b (X X') X + c (X X')^2 X, coefficients of Jordan
    et al. 2024.
    """
    a = 3.4445
    b = -4.7750
    c = 2.0315
    # X X' is the smaller of the two products when there are no more rows than columns.
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x
