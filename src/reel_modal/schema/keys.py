"""Object keys: validation for stores and requests, and the user's prefix."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from reel_modal.errors import InvalidKeyError
from reel_modal.schema._numbers import shown

__all__ = [
    "LONGEST_KEY_BYTES",
    "Scope",
    "check_key",
    "check_user_id",
    "is_below",
    "receipt_key",
    "same_object",
    "store_key",
]

Scope: TypeAlias = Literal["user", "global"]
"""Scope of a key: `user` is below `users/<user_id>/`, `global` is anywhere else in the store."""

LONGEST_KEY_BYTES: Final = 1024  # S3's limit
# File systems allow names of 255 bytes, and a staging name is 15 bytes longer than the final name.
_LONGEST_PART_BYTES: Final = 240
_USERS: Final = "users"
_MISSING: Final = frozenset({"None", "null", "undefined", "NaN"})
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)


def check_key(key: str) -> None:
    """Raise InvalidKeyError unless `key` is a plain relative path such as `users/7/reel.mp4`.

    A key must mean the same object in every store and on every system, so names that Windows reserves or changes are
    refused everywhere.
    """
    name = f"key {shown(key)}"
    if not key or key.startswith("/") or "\\" in key:
        raise InvalidKeyError(f"{name} is not a relative path with forward slashes")
    if len(key) > LONGEST_KEY_BYTES:
        raise InvalidKeyError(f"{name} is longer than {LONGEST_KEY_BYTES} bytes")
    for part in key.split("/"):
        if (problem := _problem_of(part)) is not None:
            raise InvalidKeyError(f"{name} {problem}")
    if len(key.encode()) > LONGEST_KEY_BYTES:
        raise InvalidKeyError(f"{name} is longer than {LONGEST_KEY_BYTES} bytes")


def check_user_id(user_id: str) -> None:
    """Raise InvalidKeyError unless `user_id` can be one part of a key."""
    name = f"user_id {shown(user_id)}"
    if "/" in user_id or "\\" in user_id:
        raise InvalidKeyError(f"{name} has a slash, so it cannot be a part of a key")
    if (problem := _problem_of(user_id)) is not None:
        raise InvalidKeyError(f"{name} {problem}, so it cannot be a part of a key")


def store_key(key: str, scope: Scope, user_id: str) -> str:
    """Return the key in the store for the key of a request.

    Args:
        key: Key in the request.
        scope: Scope of the key.
        user_id: User id of the request.

    Raises:
        InvalidKeyError: The key or the user id is not valid, a global key is below `users/`, or the resulting key is
            too long.

    Example:
        >>> store_key("reels/1.mp4", "user", "7")
        'users/7/reels/1.mp4'
        >>> store_key("games/final.mp4", "global", "7")
        'games/final.mp4'
    """
    check_key(key)
    if scope == "global":
        if _folded(key.partition("/")[0]) == _USERS:
            raise InvalidKeyError(f"key {shown(key)} is below {_USERS}/, so it is not global; use the scope 'user'")
        return key
    check_user_id(user_id)
    place = f"{_USERS}/{user_id}/{key}"
    check_key(place)
    return place


def receipt_key(place: str, request_hash: str) -> str:
    """Return the key in the store of the receipt of the output `place`.

    Raises:
        InvalidKeyError: The resulting key is too long.
    """
    folder, slash, _ = place.rpartition("/")
    key = f"{folder}{slash}receipts/{request_hash}.json"
    check_key(key)
    return key


def same_object(one: str, other: str) -> bool:
    """Return whether two keys may be one object: some file systems ignore case and Unicode normalization."""
    return _folded(one) == _folded(other)


def is_below(key: str, other: str) -> bool:
    """Return whether `key` is inside a folder that has the name of the object `other`."""
    return _folded(key).startswith(f"{_folded(other)}/")


def _folded(key: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).lower())


def _problem_of(part: str) -> str | None:
    """Return the problem with one part of a key; None if it is valid."""
    return next((problem for is_wrong, problem in _RULES if is_wrong(part)), None)


_RULES: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (
        lambda part: part in {"", ".", "..", *_MISSING},
        "has a part that is empty, '.', '..' or a text for a missing value, such as 'null'",
    ),
    (lambda part: any(unicodedata.category(each) == "Cc" for each in part), "has a control character"),
    (
        lambda part: any(unicodedata.category(each) == "Cs" for each in part),
        "has an unpaired surrogate, which is not a character",
    ),
    (lambda part: part.endswith((".", " ")), "has a part that ends with a dot or a space, which Windows removes"),
    (_DRIVE.match, "is not a relative path: it has a part that begins with a drive letter"),
    (_DEVICE.fullmatch, "has a part that is a device name on Windows"),
    (
        lambda part: len(part.encode()) > _LONGEST_PART_BYTES,
        f"has a part that is longer than {_LONGEST_PART_BYTES} bytes",
    ),
)
