"""Temporary folders that are removed at the end of a block, also if a signal interrupts it at any point."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["scratch_dir"]


@contextmanager
def scratch_dir(parent: Path | None = None) -> Iterator[Path]:
    """Create an empty temporary folder, and remove it with its contents at the end of the block.

    Ctrl-C or a signal can raise an exception between any two steps. `tempfile.TemporaryDirectory` leaves its folder
    on disk if that happens between the creation of the folder and the storing of its name, or during the removal.
    Here the name is known first, and an exception during the removal is raised after the removal is complete.

    Args:
        parent: Folder in which it is created; None is the system's temporary directory.

    Raises:
        OSError: The folder cannot be created or removed.

    Example:
        >>> with scratch_dir() as folder:
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
    except BaseException:  # the removal itself may have been interrupted
        _remove(folder)
        raise


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
