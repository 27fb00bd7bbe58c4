"""What a store's failure means: one of our errors, with what it says in a line and the cure.

It must not repeat more of an answer than its code and its sentence.
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
        "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, or the endpoint: a store knows only its own keys",
        "ExpiredToken": "the temporary credentials have expired: renew AWS_SESSION_TOKEN and the keys with it",
        "InvalidToken": "correct AWS_SESSION_TOKEN, or unset it where the keys are not temporary",
        "RequestTimeTooSkewed": "set the clock of this machine right",
        "RequestExpired": "the signature has expired: make a new one, and set the clock of this machine right",
        "AccessDenied": "give these credentials the right to list the bucket, and to get, put and delete its objects",
        "AllAccessDisabled": "ask the owner of the bucket",
        "NoSuchBucket": "create the bucket, or correct the storage URL and its endpoint",
        "InvalidBucketName": "correct the storage URL",
        "PermanentRedirect": "correct the region in the storage URL",
        "AuthorizationHeaderMalformed": "correct the region in the storage URL",
    }
)
_BY_KIND: Final[Mapping[str, tuple[type[StorageError], str]]] = MappingProxyType(
    {
        "FileNotFoundError": (ObjectNotFoundError, "there is no object under {key!r}"),
        "AlreadyExistsError": (
            ObjectExistsError,
            "there is an object under {key!r} already; it is not to be replaced",
        ),
        "PreconditionError": (
            ObjectChangedError,
            "the object under {key!r} was replaced while it was read; begin again",
        ),
        "GenericError": (
            StorageUnavailableError,
            "the store did not answer for {what}: {said}; look at the endpoint and the network, or try again later",
        ),
    }
)
_REFUSED: Final = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in the bucket"
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
_SAYS_NOTHING: Final = "InternalError"
"""What a store answers that does not say why; of some, it is all that they say when they are full."""


def storage_error(error: Exception, key: str) -> StorageError:
    """Return what obstore or the disk raised about `key` as ours; the caller raises it `from error`."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.errno is not None:  # the system's; obstore's own have no number
        return disk_error(error, f"the bytes of {key!r} could not be kept")
    words, kind = str(error), type(error).__name__
    code = _first(_CODE, words)
    if code in _FULL_CODES or _FULL_WORDS.search(words):
        return StorageFullError(f"the store has no room for {_what(key)}: {_said(words)}; free some, or use another")
    if code in _CURES or kind in {"PermissionDeniedError", "UnauthenticatedError"}:
        return StorageAccessError(f"the store refuses {_what(key)}: {_said(words)}; {_CURES.get(code, _REFUSED)}")
    if code == _SAYS_NOTHING:
        return StorageUnavailableError(
            f"the store failed with {_what(key)} and does not say why: {_said(words)}; look whether it is full, and"
            " into its own log, or try again later"
        )
    make, sentence = _BY_KIND.get(kind, (StorageError, "{what} could not be read or written: {said}"))
    return make(sentence.format(what=_what(key), key=key, said=_said(words)))


def disk_error(error: OSError, what: str) -> StorageError:
    """Return a failure of this machine's files as ours."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(f"{what}: {reason(error)}; free some space, or point TMPDIR or the store elsewhere")
    return StorageError(f"{what}: {reason(error)}")


def reason(error: Exception) -> str:
    """Return the few words in which an error says what happened."""
    return str(getattr(error, "strerror", None) or error)


def _what(key: str) -> str:
    return f"the object under {key!r}" if key else "its list of objects"


def _said(words: str) -> str:
    """Return the code and the sentence of an answer; else the first line, without its address."""
    code, sentence = _first(_CODE, words), _first(_SENTENCE, words)
    said = f"{code}: {sentence}" if code and sentence else code or _first(_STATUS, words) or _first(_INNER, words)
    said = said or words.partition("\n")[0]
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if secret := os.environ.get(name):
            said = said.replace(secret, f"({name})")
    return said.strip()[:_LONGEST_WORDS]


def _first(pattern: re.Pattern[str], words: str) -> str:
    found = pattern.search(words)
    return "" if found is None else found[1].strip()
