"""Draws the logs: PSNR of what is held out, clean and out of H.264, over CPU time.

`python -m training.curves training/logs training/curves.png`
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

# Held-out patches of pictures that are learned from, and, in the last panel, tiles of pictures that are not.
PANELS = {
    "x2, patches": {
        "small": ("small_x2_first", "small_x2"),
        "large": ("large_x2_first", "large_x2_second", "large_x2_third"),
    },
    "x4, patches": {"small": ("small_x4",), "large": ("large_x4",)},
    "x2, whole pictures": {"large, fifth part": ("large_x2_fifth",), "large, seventh part": ("large_x2_seventh",)},
}


def rows(path: Path) -> list[dict[str, float]]:
    """Return the numbers of a log."""
    names, *lines = path.read_text("utf-8").splitlines()[1:]
    return [dict(zip(names.split("\t"), map(float, line.split("\t")), strict=True)) for line in lines]


def curve(folder: Path, parts: tuple[str, ...]) -> list[dict[str, float]]:
    """Return the logs behind one another, with the minutes from the first one's start."""
    points: list[dict[str, float]] = []
    for part in parts:
        start = points[-1]["minutes"] if points else 0.0
        points += [{**row, "minutes": start + row["cpu_seconds"] / 60} for row in rows(folder / f"{part}.tsv")]
    return points


def draw(folder: Path, picture: Path) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4), constrained_layout=True)
    for axis, (title, nets) in zip(axes, PANELS.items(), strict=True):
        for name, parts in nets.items():
            points = curve(folder, parts)
            minutes = [point["minutes"] for point in points]
            for column, kind, style in (("clean_psnr_db", "clean", "-"), ("coded_psnr_db", "H.264", ":")):
                axis.plot(minutes, [point[column] for point in points], style, label=f"{name}, {kind}")
        axis.set(title=title, xlabel="CPU minutes of one core", ylabel="PSNR-Y of what is held out, dB")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
