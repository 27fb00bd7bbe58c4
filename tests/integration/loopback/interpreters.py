"""A Python for containers with only the packages of an image, linked from the Python of the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def only_packages(folder: Path, names: Iterable[str]) -> Path:
    """Make a virtual environment with only some installed packages and their requirements.

    Args:
        folder: Its folder.
        names: Distributions, as pip names them. They must be installed, but not in editable form. One build of OpenCV
            replaces the other, because they are the same module.

    Returns:
        The interpreter of the environment.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for installed in _closure(names):
        for top in {file.parts[0] for file in installed.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(installed.locate_file(top))))
    return folder / "bin" / "python"


def _closure(names: Iterable[str]) -> list[Distribution]:
    distributions: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in distributions:
            continue
        distributions[name] = _installed(name)
        for text in distributions[name].requires or []:
            marker = Requirement(text).marker
            if marker is None or marker.evaluate({"extra": ""}):
                waiting.append(text)
    return list(distributions.values())


def _installed(name: str) -> Distribution:
    other = {"opencv-python": "opencv-python-headless", "opencv-python-headless": "opencv-python"}
    try:
        return distribution(name)
    except PackageNotFoundError:
        if name not in other:
            raise
        return distribution(other[name])
