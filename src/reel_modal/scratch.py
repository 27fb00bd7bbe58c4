"""A folder for work that is under way: gone when its block ends, wherever in it an interruption comes.

It must not know what lies in the folder.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["scratch_folder"]


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make an empty folder of one's own, and remove it with all that is in it.

    What a signal raises, a Ctrl-C or a cancellation, may come between any two steps. `tempfile.TemporaryDirectory`
    leaves its folder behind where that is between making it and noting its name, or while it is removed. Here the
    name is known first, and what interrupts the removal is raised when that is done.

    Args:
        parent: Where it is made; None is the system's place for temporary files.

    Raises:
        OSError: It cannot be made, or not be removed.

    Example:
        >>> with scratch_folder() as folder:
        ...     _ = (folder / "half.mp4").write_bytes(b"...")
        >>> folder.exists()
        False
    """
    folder = Path(tempfile.gettempdir() if parent is None else parent, f"reel_modal-{secrets.token_hex(16)}")
    try:
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove(folder)
    except BaseException:  # it may be the removal that was interrupted
        _remove(folder)
        raise


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
