"""Storage of media objects by key: read whole or in part, published atomically.

A folder is read in place. Other stores use `obstore`, which is imported by the first store that needs it.
"""

from __future__ import annotations

from reel_modal.schema.keys import check_key
from reel_modal.storage.base import (
    ExistingObject,
    FolderListing,
    ListedObject,
    ObjectInfo,
    Storage,
    StoredObject,
    set_url_opener,
)
from reel_modal.storage.folder import FolderStorage, PathStorage, publish_file, staging_name
from reel_modal.storage.objects import ObjectStorage
from reel_modal.storage.urls import storage_at

__all__ = [
    "ExistingObject",
    "FolderListing",
    "FolderStorage",
    "ListedObject",
    "ObjectInfo",
    "ObjectStorage",
    "PathStorage",
    "Storage",
    "StoredObject",
    "check_key",
    "publish_file",
    "staging_name",
]

set_url_opener(storage_at)
