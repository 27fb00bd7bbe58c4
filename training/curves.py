"""Draws the logs: PSNR of held-out patches, clean and out of H.264, over CPU time.

`python -m training.curves training/logs training/curves.png`
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

NETS = ("small_x2", "large_x2", "small_x4", "large_x4")


def rows(path: Path) -> list[list[float]]:
    """Return the numbers of a log."""
    lines = path.read_text("utf-8").splitlines()[2:]
    return [[float(word) for word in line.split("\t")] for line in lines]


def curve(folder: Path, name: str) -> list[list[float]]:
    """Return a net's whole log, its parts behind one another."""
    points: list[list[float]] = []
    for part in (f"{name}_first.tsv", f"{name}_second.tsv", f"{name}.tsv"):
        if (folder / part).exists():
            start = points[-1][1] if points else 0.0
            points += [[step, cpu + start, *rest] for step, cpu, *rest in rows(folder / part)]
    return points


def draw(folder: Path, picture: Path) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, scale in zip(axes, ("x2", "x4"), strict=True):
        for name in NETS:
            if name.endswith(scale):
                points = curve(folder, name)
                minutes = [point[1] / 60 for point in points]
                for column, kind, style in ((3, "clean", "-"), (4, "H.264", ":")):
                    axis.plot(minutes, [point[column] for point in points], style, label=f"{name[:5]}, {kind}")
        axis.set(title=scale, xlabel="CPU minutes of one core", ylabel="PSNR-Y of held-out patches, dB")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
