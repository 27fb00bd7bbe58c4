"""Writes the mean of several weights of one network: where the loop was noisy, what they share is what it learned.

`python -m training.mean OUT.pt ONE.pt OTHER.pt`
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def mean(output: Path, files: list[Path]) -> None:
    """Write the mean."""
    nets = [torch.load(file) for file in files]
    weights = {name: sum(net["weights"][name] for net in nets) / len(nets) for name in nets[0]["weights"]}
    torch.save({**nets[0], "weights": weights}, output)


if __name__ == "__main__":
    mean(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
