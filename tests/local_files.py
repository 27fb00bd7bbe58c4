"""Files of this machine as the objects of a store, for tests that call a function's body themselves."""

from __future__ import annotations

from pathlib import Path

from reel_modal.storage import FolderStorage


def root_storage() -> FolderStorage:
    """The store whose keys are the paths of this machine without their first slash."""
    return FolderStorage(Path("/"))


def key_of(path: str | Path) -> str:
    """The key of an absolute path in `root_storage`."""
    return str(path).removeprefix("/")


def path_of(key: str) -> Path:
    """The path of a key of `root_storage`."""
    return Path("/") / key
