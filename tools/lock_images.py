"""Write the lock files of the images with uv; `make lock` runs it after a change of a pin.

`--upgrade` takes the newest versions of the packages that are not pinned themselves; by default they are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from reel_modal.functions.builtin import apply_upscale
from reel_modal.functions.image_locks import LOCKS, REQUIREMENTS_LINE
from reel_modal.functions.specs import ImageSpec

IMAGES = {"base": ImageSpec(), "apply_upscale": apply_upscale.spec.image}


def main() -> int:
    """Write a lock file for each image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions of indirect packages")
    arguments = parser.parse_args()
    LOCKS.mkdir(exist_ok=True)
    for name, image in IMAGES.items():
        _write(LOCKS / f"{name}.txt", image.packages, ["--upgrade"] if arguments.upgrade else [])
        print(f"{name}.txt: {len(image.packages)} requirements")
    return 0


def _write(lock: Path, requirements: Sequence[str], options: Sequence[str]) -> None:
    uv = Path(sys.executable).with_name("uv")
    with TemporaryDirectory() as folder:
        source, resolved = Path(folder, "requirements.in"), Path(folder, "resolved.txt")
        source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        if lock.exists():  # uv keeps the versions of an existing output
            resolved.write_bytes(lock.read_bytes())
        subprocess.run(
            [
                *(uv, "pip", "compile", "--quiet", "--generate-hashes", "--only-binary", ":all:", "--universal"),
                *("--python-version", ImageSpec().python_version, "--no-header", "--no-annotate"),
                *options,
                *(source, "--output-file", resolved),
            ],
            check=True,
        )
        header = f"# Written by make lock, for every Python from {ImageSpec().python_version} on.\n"
        header += f"{REQUIREMENTS_LINE}{' '.join(requirements)}\n"
        lock.write_text(header + resolved.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
