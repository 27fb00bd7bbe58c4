"""Source of a registered neural network: an absolute path or a URL, with the SHA-256 of the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, cast
from urllib.parse import urlsplit

from reel_modal.errors import ConfigError

__all__ = ["ModelSource"]

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Source of a neural network that requests may name.

    Attributes:
        source: Absolute path of an ONNX file, or an http(s) URL. A URL must not contain a user or a password. Its
            query, which may be a signature, is never shown.
        sha256: SHA-256 of the file, in hexadecimal. An output that was rendered with another hash is not reused.
        allow_private_addresses: Whether the URL's host may have a private, loopback or link-local address.

    Raises:
        ConfigError: The source is not an absolute path or a valid URL, or the hash is not a SHA-256.
    """

    source: str
    sha256: str
    allow_private_addresses: bool = False

    def __post_init__(self) -> None:
        source = cast("object", self.source)
        if isinstance(source, PurePath):
            object.__setattr__(self, "source", str(source))
        if (problem := _source_problem(self.source)) is not None:
            raise ConfigError(f"the source of a model {problem}")
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ConfigError("the sha256 of a model is not a valid SHA-256 (64 hexadecimal digits)")
        if not isinstance(self.allow_private_addresses, bool):
            raise ConfigError(f"allow_private_addresses={self.allow_private_addresses!r} must be True or False")
        object.__setattr__(self, "sha256", self.sha256.lower())

    def __repr__(self) -> str:
        return f"ModelSource({self.shown!r}, sha256={self.sha256!r})"

    @property
    def is_url(self) -> bool:
        """Whether the source is a URL."""
        return _is_url(self.source)

    @property
    def shown(self) -> str:
        """Source for messages: a path, or the scheme and host of a URL."""
        if not self.is_url:
            return self.source
        parts = urlsplit(self.source)
        return f"{parts.scheme}://{parts.netloc}/…"


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _source_problem(source: object) -> str | None:
    if not isinstance(source, str) or not source or "\0" in source:
        return "must be a path or an http(s) URL, as a string"
    if _is_url(source):
        return _url_problem(source)
    if not PurePath(source).is_absolute():
        return f"is {source!r}; write an absolute path, or an http(s) URL"
    return None


def _url_problem(url: str) -> str | None:
    """Return why a URL is not valid, without the URL itself, which may contain a credential; None if it is valid."""
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        return "is a URL with characters that are not valid in a URL; write them as %XX"
    try:
        parts = urlsplit(url)
        has_secret = parts.username is not None or parts.password is not None
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_secret = valid = False
    if has_secret:
        return "is a URL with a user or a password, which would appear in logs; leave them out"
    return None if valid else "is not a valid URL; write https://host/file.onnx"
