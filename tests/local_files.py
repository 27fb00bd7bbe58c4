"""Files of this machine as objects of a store, for tests that call a function's body directly."""

from __future__ import annotations

from pathlib import Path

from reel_modal.storage import FolderStorage


def root_storage() -> FolderStorage:
    """Return the store whose keys are absolute paths without the leading slash."""
    return FolderStorage(Path("/"))


def key_of(path: str | Path) -> str:
    """Return the key of an absolute path in `root_storage`."""
    return str(path).removeprefix("/")


def path_of(key: str) -> Path:
    """Return the path of a key in `root_storage`."""
    return Path("/") / key
