"""Map errors of obstore and of the file system to StorageError, with the cure.

Messages repeat only the error code and the error message of a store's answer.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from reel_modal.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)

__all__ = ["disk_error", "reason", "storage_error"]

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_SENTENCE: Final = re.compile(r"<Message>([^<]{1,300})</Message>")
_STATUS: Final = re.compile(r"status code: (\d{3}[^:\n]{0,40})")
_INNER: Final = re.compile(r" - ((?:HTTP error|Server returned)[^<\n]{1,160})")
_LONGEST_WORDS: Final = 200

_CURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY, and the region in the storage URL",
        "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, or the endpoint: the key is unknown to the store",
        "ExpiredToken": "the temporary credentials have expired: renew AWS_SESSION_TOKEN and the keys with it",
        "InvalidToken": "correct AWS_SESSION_TOKEN, or unset it if the keys are not temporary",
        "RequestTimeTooSkewed": "correct the clock of this machine",
        "RequestExpired": "the signature has expired: create a new one, and correct the clock of this machine",
        "AccessDenied": "allow these credentials to list the bucket, and to get, put and delete its objects",
        "AllAccessDisabled": "ask the owner of the bucket",
        "NoSuchBucket": "create the bucket, or correct the storage URL and its endpoint",
        "InvalidBucketName": "correct the storage URL",
        "PermanentRedirect": "correct the region in the storage URL",
        "AuthorizationHeaderMalformed": "correct the region in the storage URL",
    }
)
_BY_KIND: Final[Mapping[str, tuple[type[StorageError], str]]] = MappingProxyType(
    {
        "FileNotFoundError": (ObjectNotFoundError, "object {key!r} not found"),
        "AlreadyExistsError": (
            ObjectExistsError,
            "object {key!r} already exists and must not be replaced",
        ),
        "PreconditionError": (
            ObjectChangedError,
            "object {key!r} was replaced while it was read; start again",
        ),
        "GenericError": (
            StorageUnavailableError,
            "the store did not respond for {what}: {detail}; check the endpoint and the network, or try again later",
        ),
    }
)
_REFUSED: Final = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and their permissions in the bucket"
_FULL_CODES: Final = frozenset(
    {
        "InsufficientStorage",
        "QuotaExceeded",
        "StorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_FULL_WORDS: Final = re.compile(r"no space left|no writable volumes|storage cap exceeded|status code: 507", re.I)
_NO_REASON: Final = "InternalError"
"""Error code that gives no reason. Some stores return it when they are full."""


def storage_error(error: Exception, key: str) -> StorageError:
    """Return the StorageError for an error that obstore or the file system raised about `key`.

    The caller raises it `from error`.
    """
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.errno is not None:  # a system error; obstore's own have no errno
        return disk_error(error, f"the bytes of {key!r} could not be stored")
    text, kind = str(error), type(error).__name__
    code = _first(_CODE, text)
    if code in _FULL_CODES or _FULL_WORDS.search(text):
        return StorageFullError(
            f"the store has no space for {_object_text(key)}: {_detail(text)}; free some, or use another"
        )
    if code in _CURES or kind in {"PermissionDeniedError", "UnauthenticatedError"}:
        cure = _CURES.get(code, _REFUSED)
        return StorageAccessError(f"the store denies access to {_object_text(key)}: {_detail(text)}; {cure}")
    if code == _NO_REASON:
        return StorageUnavailableError(
            f"the store failed for {_object_text(key)} without a reason: {_detail(text)}; check whether it is full,"
            " and its log, or try again later"
        )
    make, sentence = _BY_KIND.get(kind, (StorageError, "{what} could not be read or written: {detail}"))
    return make(sentence.format(what=_object_text(key), key=key, detail=_detail(text)))


def disk_error(error: OSError, action: str) -> StorageError:
    """Return the StorageError for a failure of the local file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(f"{action}: {reason(error)}; free some space, or move TMPDIR or the store")
    return StorageError(f"{action}: {reason(error)}")


def reason(error: Exception) -> str:
    """Return the short reason of an error."""
    return str(getattr(error, "strerror", None) or error)


def _object_text(key: str) -> str:
    return f"object {key!r}" if key else "its list of objects"


def _detail(text: str) -> str:
    """Return code and message of an answer, else its HTTP status or first line; credentials are replaced."""
    code, sentence = _first(_CODE, text), _first(_SENTENCE, text)
    detail = f"{code}: {sentence}" if code and sentence else code or _first(_STATUS, text) or _first(_INNER, text)
    detail = detail or text.partition("\n")[0]
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if secret := os.environ.get(name):
            detail = detail.replace(secret, f"({name})")
    return detail.strip()[:_LONGEST_WORDS]


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[1].strip()
