"""The luma network: plain 3x3 convolutions beside one linear skip, then a shuffle of channels into pixels.

Two properties hold by construction, not by training. The first kernels sum to zero and the skip's to one, and what
the net says about a flat picture is taken off: **a flat picture comes out exactly as it went in**, and adding a
constant to the input adds it to the output, so that full and limited range need no different weights.

While training, each inner convolution is a 3x3, a 1x1 and the identity in parallel; `collapse` folds the three into
the one 3x3 that is shipped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1  # of the leaky rectifier; unlike max(0, x) it lets a NaN through, so that one can be noticed


class Block(nn.Module):
    """Three parallel branches that collapse to one 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3)
        self.point = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.point.weight)

    def kernel(self) -> Tensor:
        """Return the collapsed kernel, (C, C, 3, 3)."""
        channels = self.wide.weight.shape[0]
        middle = self.point.weight[:, :, 0, 0] + torch.eye(channels, device=self.wide.weight.device)
        return self.wide.weight + functional.pad(middle[:, :, None, None], (1, 1, 1, 1))


class LumaNet(nn.Module):
    """Maps (N, 1, H, W) in 0..1 to (N, 1, scale H, scale W)."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(1, channels, 3)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.tail = nn.Conv2d(channels, scale * scale, 3)
        self.skip = nn.Parameter(bicubic_kernels(scale))
        nn.init.normal_(self.tail.weight, std=1e-3)

    def collapse(self) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Return each convolution's (kernel, bias), in order, and the skip's kernels (scale squared, 1, 5, 5)."""
        head = self.head.weight - self.head.weight.mean((2, 3), keepdim=True)
        layers = [(head, self.head.bias), *((block.kernel(), block.wide.bias) for block in self.blocks)]
        flat = torch.zeros(1, device=head.device)
        for kernel, bias in layers:  # what a flat picture becomes, layer by layer
            flat = functional.leaky_relu(kernel.sum((2, 3)) @ flat + bias, SLOPE)
        said = self.tail.weight.sum((2, 3)) @ flat
        skip = self.skip + (1 - self.skip.sum((2, 3), keepdim=True)) / 25
        return [*layers, (self.tail.weight, -said)], skip

    def forward(self, luma: Tensor) -> Tensor:
        """Enlarge planes; borders are zero-padded here and reflected by whoever runs the shipped graph."""
        layers, skip = self.collapse()
        base = functional.conv2d(luma, skip, padding=2)
        features = luma
        for kernel, bias in layers[:-1]:
            features = functional.leaky_relu(functional.conv2d(features, kernel, bias, padding=1), SLOPE)
        detail = functional.conv2d(features, *layers[-1], padding=1)
        return functional.pixel_shuffle(base + detail.float(), self.scale)


def bicubic_kernels(scale: int) -> Tensor:
    """Return the 5x5 kernels, one for each sub-pixel, with which a bicubic enlargement (a = -0.5) begins."""
    rows = []
    for phase in range(scale):
        offset = (phase + 0.5) / scale - 0.5  # of the new pixel's centre, in old pixels
        at = torch.abs(torch.arange(-2, 3) - offset)
        near = (1.5 * at - 2.5) * at * at + 1
        far = ((-0.5 * at + 2.5) * at - 4) * at + 2
        weights = torch.where(at <= 1, near, torch.where(at < 2, far, torch.zeros_like(at)))
        rows.append(weights / weights.sum())
    return torch.stack([torch.outer(down, across) for down in rows for across in rows])[:, None]
