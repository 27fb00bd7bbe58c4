"""Create stores from URLs. Credentials come from the environment, never from the URL.

No error message repeats a URL that could contain a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from reel_modal.errors import ConfigError, InvalidKeyError
from reel_modal.schema.keys import check_key
from reel_modal.storage.base import Storage
from reel_modal.storage.folder import FolderStorage
from reel_modal.storage.objects import ObjectStorage, RetryPolicy, memory_store, s3_store

__all__ = ["check_store", "storage_at"]

_KNOWN: Final = "use file:///folder, s3://bucket/prefix or memory://name"
_OPTIONS: Final = ("endpoint", "region")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")

# obstore can sign its requests with any of these groups. Without one it would query the instance metadata service,
# and on most machines that request only times out.
_CREDENTIALS: Final = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
)


def storage_at(url: str, *, env: Mapping[str, str] | None = None, patience: RetryPolicy | None = None) -> Storage:
    """Return the storage at `url`; see `Storage.from_url`.

    Args:
        url: URL of the store.
        env: Environment variables with the credentials; default the process's environment.
        patience: Timeouts and retries of a store on the network.
    """
    parts = _parts(url)
    if parts.scheme == "file":
        return _folder(url, parts)
    if parts.scheme == "memory":
        return _memory(parts)
    return _s3(parts, os.environ if env is None else env, patience or RetryPolicy())


def required_store(url: str | None) -> str:
    """Return the URL of the store of this process.

    Raises:
        ConfigError: No store is set.
    """
    if url is None:
        raise ConfigError(
            "no store is set: REEL_MODAL_STORE_URL must be the URL of the media, such as file:///srv/media"
        )
    return url


def check_store(url: str | None, *, credentials: bool) -> None:
    """Check that jobs in other processes can use the store, as far as possible without a request.

    Args:
        url: URL of the store.
        credentials: Whether this process's environment must contain credentials, as for a worker on this machine.

    Raises:
        ConfigError: No store is set, the URL is not valid, the folder is not found, or credentials are missing.
        MissingDependencyError: obstore cannot be imported.
    """
    if url is None:
        raise ConfigError(
            "no store is set: REEL_MODAL_STORE_URL or Settings.store_url must name the place of the media,"
            " such as file:///srv/media"
        )
    parts = _parts(url)
    if parts.scheme == "memory":
        raise ConfigError("a memory:// store belongs to one process, and jobs run in others; use file:// or s3://")
    if parts.scheme == "s3" and not credentials:
        _bucket(parts)
        return
    storage_at(url)


def _parts(url: str) -> SplitResult:
    """Return the parts of `url`; raise ConfigError if its scheme is unknown or it contains credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the error's text may contain a part of the URL
        raise ConfigError(f"the storage URL is not a valid URL; {_KNOWN}") from None
    # If a secret contains a slash, the rest of it is parsed as the path.
    if "@" in parts.netloc or (":" in parts.netloc and (parts.scheme == "s3" or "@" in url)):
        raise ConfigError(
            f"a storage URL ({parts.scheme}://…) must not contain credentials, which would appear in logs; set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment or the Modal secret"
        )
    if parts.scheme not in {"file", "memory", "s3"}:
        raise ConfigError(f"storage URL: the scheme {parts.scheme!r} is unsupported; {_KNOWN}")
    return parts


def _folder(url: str, parts: SplitResult) -> Storage:
    if parts.netloc not in {"", "localhost"}:
        raise ConfigError(
            f"storage URL {url!r} has the host {parts.netloc!r}; write file:///folder with three slashes"
        )
    if not url[len("file:") :].startswith("//") or not parts.path.startswith("/"):
        raise ConfigError(f"storage URL {url!r} has no absolute path; write file:///folder with three slashes")
    if "?" in url or "#" in url:
        raise ConfigError(
            f"storage URL {url!r} has a query or fragment; in a folder's name write %3F for ?, %23 for #"
        )
    return FolderStorage(Path(unquote(parts.path)))


def _memory(parts: SplitResult) -> Storage:
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("storage URL: memory:// takes only a name, such as memory://test")
    return ObjectStorage(memory_store(parts.netloc), f"memory://{parts.netloc}")


def _s3(parts: SplitResult, env: Mapping[str, str], patience: RetryPolicy) -> Storage:
    location, prefix, options = _bucket(parts)
    if not any(all(env.get(name) for name in group) for group in _CREDENTIALS):
        raise ConfigError(
            f"no credentials for {location!r}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and"
            " AWS_SESSION_TOKEN if they are temporary) in the environment, and in the Modal secret"
        )
    store = s3_store(parts.netloc, endpoint=options.get("endpoint"), region=options.get("region"), patience=patience)
    return ObjectStorage(store, location, prefix=prefix, patience=patience)


def _bucket(parts: SplitResult) -> tuple[str, str, dict[str, str]]:
    """Return the location (for messages), the prefix and the options of an S3 URL."""
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    location = f"s3://{bucket}/{prefix}".rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"storage URL {location!r}: {bucket!r} is not a valid bucket name; use s3://bucket/prefix")
    if parts.fragment:
        raise ConfigError(f"storage URL {location!r} has a fragment; in a prefix write %23 for #")
    if prefix:
        try:
            check_key(prefix)
        except InvalidKeyError as error:
            raise ConfigError(f"storage URL {location!r}: as a prefix, {error}") from error
    options = _options(location, parts.query)
    endpoint = options.get("endpoint")
    if endpoint is not None and not _is_endpoint(endpoint):
        raise ConfigError(f"storage URL {location!r}: its endpoint must be only http(s)://host[:port]")
    return location, prefix, options


def _options(location: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS or name in options or not value:
            # The value may be a secret, so the message does not contain it.
            raise ConfigError(
                f"storage URL {location!r}: the option {name!r} is unknown, empty or repeated; supported are"
                f" {' and '.join(_OPTIONS)}, and credentials come from the environment"
            )
        options[name] = value
    return options


def _is_endpoint(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        plain = parts.username is None and parts.password is None and (parts.port or 1) > 0
    except ValueError:
        return False
    return (
        plain
        and parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and parts.path in {"", "/"}
        and not parts.query
        and not parts.fragment
    )
