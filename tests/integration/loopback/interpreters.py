"""A Python for containers that has only what an image would install, linked from the one that runs the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def only_packages(folder: Path, names: Iterable[str]) -> Path:
    """Make a virtual environment with some installed packages and what they require, and nothing else.

    Args:
        folder: Where to make it.
        names: Distributions, as pip names them. They must be installed here, and not in editable form. One build of
            OpenCV stands in for the other: they are the same module.

    Returns:
        Its interpreter.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for found in _closure(names):
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return folder / "bin" / "python"


def _closure(names: Iterable[str]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        found[name] = _installed(name)
        for text in found[name].requires or []:
            marker = Requirement(text).marker
            if marker is None or marker.evaluate({"extra": ""}):
                waiting.append(text)
    return list(found.values())


def _installed(name: str) -> Distribution:
    other = {"opencv-python": "opencv-python-headless", "opencv-python-headless": "opencv-python"}
    try:
        return distribution(name)
    except PackageNotFoundError:
        if name not in other:
            raise
        return distribution(other[name])
