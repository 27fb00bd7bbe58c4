"""Where media lie: keys under a root, read whole or in part, and put in place in one step.

It must not know what the bytes are. A folder is read where it lies; `obstore`, which reads the others, is loaded by
the first store that needs it.
"""

from __future__ import annotations

from reel_modal.schema.keys import check_key
from reel_modal.storage.base import ExistingObject, ObjectInfo, Storage, StoredObject
from reel_modal.storage.folder import FolderStorage, PathStorage, publish_file, staging_name
from reel_modal.storage.objects import ObjectStorage

__all__ = [
    "ExistingObject",
    "FolderStorage",
    "ObjectInfo",
    "ObjectStorage",
    "PathStorage",
    "Storage",
    "StoredObject",
    "check_key",
    "publish_file",
    "staging_name",
]
