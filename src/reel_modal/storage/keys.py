"""What may be a key: a plain relative path that cannot leave its root.

Pure; it must not know any store.
"""

from __future__ import annotations

from typing import Final

from reel_modal.errors import InvalidKeyError

__all__ = ["check_key"]

_LONGEST_KEY_BYTES: Final = 1024  # S3's own limit
# File systems take names of 255 bytes, and a staging name is 15 longer than the name that it stands for.
_LONGEST_PART_BYTES: Final = 240


def check_key(key: str) -> None:
    """Raise InvalidKeyError unless `key` is a plain relative path such as `users/7/reel.mp4`."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\\" in key or key[1:2] == ":":
        raise InvalidKeyError(f"key {key!r} is not a relative path with forward slashes")
    if any(part in {"", ".", "..", "None", "null", "undefined"} for part in parts):
        raise InvalidKeyError(f"key {key!r} has a part that is empty, '.', '..' or a missing value spelt out")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidKeyError(f"key {key!r} has a control character")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"key {key[:40]!r} has half of a surrogate pair, which is no character") from error
    if sum(sizes) + len(parts) - 1 > _LONGEST_KEY_BYTES:
        raise InvalidKeyError(f"key {key[:40]!r}… is longer than {_LONGEST_KEY_BYTES} bytes")
    if max(sizes) > _LONGEST_PART_BYTES:
        raise InvalidKeyError(
            f"key {key[:40]!r}… has a part of {max(sizes)} bytes, longer than {_LONGEST_PART_BYTES}"
        )
