"""Muon for the large matrices, AdamW for everything else, over stacked parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from examples.nano.model import FF, MUON, ROUTER, H, Params

MUON_LR, ADAM_LR, ROUTER_LR = 0.02, 2e-3, 5e-4
MOMENTUM = 0.95


def orthogonal(update: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices to update [N, rows, columns], by five Newton-Schulz steps in bf16."""
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.transpose(1, 2) if tall else x


def as_matrices(name: str, tensor: Tensor) -> Tensor:
    """A stacked parameter as [N, rows, columns]; gate and up are matrices of their own."""
    if name == "gate_up":
        return tensor.reshape(-1, FF, H)
    return tensor.reshape(-1, *tensor.shape[-2:])


class Optimizer:
    """One step over all parameters; learning rates are scaled by `factor` (the schedule)."""

    def __init__(self, params: Params) -> None:
        self.muon = [name for name in MUON if name in params]
        self.params = params
        self.momentum = {name: torch.zeros_like(params[name]) for name in self.muon}
        rest = [name for name in params if name not in self.muon and params[name].requires_grad]
        self.adam = torch.optim.AdamW(
            [
                {"params": [params[n] for n in rest if n not in ROUTER], "lr": ADAM_LR, "base": ADAM_LR},
                {"params": [params[n] for n in rest if n in ROUTER], "lr": ROUTER_LR, "base": ROUTER_LR},
            ],
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=params["embed"].is_cuda,
        )

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply the gradients and clear them."""
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for name in self.muon:
            param = self.params[name]
            assert param.grad is not None
            momentum = self.momentum[name]
            momentum.lerp_(param.grad, 1 - MOMENTUM)
            update = orthogonal(as_matrices(name, param.grad.lerp(momentum, MOMENTUM)))
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            param.add_(update.reshape(param.shape).to(param.dtype), alpha=-MUON_LR * factor * scale)
            param.grad = None
