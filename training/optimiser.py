"""Muon (Jordan and others, 2024): momentum whose matrix is made orthogonal before it moves a kernel.

Each kernel (out, in, 3, 3) is a matrix (out, 9 in). Its momentum's singular values are driven towards one by five
steps of a Newton-Schulz iteration, so that every direction moves by about the same amount.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # the published coefficients
ROUNDS = 5


class Muon:
    """Moves kernels of one shape; `rate` is the spectral length of a step."""

    def __init__(self, kernels: list[torch.nn.Parameter]) -> None:
        self.rate = 0.0
        self._kernels = kernels
        self._momentum = torch.zeros(len(kernels), kernels[0].shape[0], kernels[0][0].numel())

    @torch.no_grad()
    def step(self) -> None:
        """Move every kernel against its gradient."""
        gradients = torch.stack([kernel.grad.flatten(1) for kernel in self._kernels if kernel.grad is not None])
        self._momentum.lerp_(gradients, 1 - MOMENTUM)
        for kernel, way in zip(self._kernels, orthogonal(gradients.lerp(self._momentum, MOMENTUM)), strict=True):
            kernel.sub_(way.view(kernel.shape), alpha=self.rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices (N, rows, columns), rows <= columns, with singular values near one."""
    first, third, fifth = QUINTIC
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ROUNDS):
        square = x @ x.transpose(1, 2)
        x = first * x + (third * square + fifth * square @ square) @ x
    return x
