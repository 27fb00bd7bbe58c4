"""Lock files of the images: each Python package, direct or not, with its version and its hashes.

`make lock` writes them. Only a host that deploys reads them; they are not sent to a container.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from reel_modal.functions.specs import ImageSpec

__all__ = ["BASE_LOCK", "LOCKS", "REQUIREMENTS_LINE", "lock_of", "locked_versions"]

LOCKS: Final = Path(__file__).with_name("locks")
BASE_LOCK: Final = LOCKS / "base.txt"
"""Lock file of an image with only the packages that this library needs."""

REQUIREMENTS_LINE: Final = "# requirements: "
"""Start of the line of a lock file that lists the requirements for which it was made."""

_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


def lock_of(image: ImageSpec) -> Path | None:
    """Return the lock file that was made for exactly the Python packages of `image`; None if there is none."""
    return next((lock for lock in sorted(LOCKS.glob("*.txt")) if _made_for(lock, image.packages)), None)


def locked_versions(lock: Path) -> dict[str, str]:
    """Return the version of each package in a lock file, by its name in lower case."""
    return {name.lower(): version for name, version in _PINNED.findall(lock.read_text(encoding="utf-8"))}


def _made_for(lock: Path, requirements: Iterable[str]) -> bool:
    lines = lock.read_text(encoding="utf-8").splitlines()
    return REQUIREMENTS_LINE + " ".join(requirements) in lines
