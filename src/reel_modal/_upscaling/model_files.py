"""Read the file of a network from a path or a URL, with limits on size and time.

Only regular files are read. For a URL, all addresses of the host are checked before the first connection, and only
checked addresses are connected to, so that DNS rebinding has no effect.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import logging
import os
import secrets
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from reel_modal.errors import ConfigError, InvalidModelError
from reel_modal.settings import ModelSource

__all__ = ["LARGEST_BYTES", "downloaded", "read_file"]

_log = logging.getLogger(__name__)

LARGEST_BYTES: Final = 128 << 20
"""Maximum size of a network's file; the largest of Real-ESRGAN has 67 MB."""

_CONNECT_SECONDS: Final = 15.0
_DOWNLOAD_SECONDS: Final = 120.0
_MOST_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BLOCK_BYTES: Final = 1 << 20
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file of at most `LARGEST_BYTES`; the size is checked before reading.

    Raises:
        InvalidModelError: The file is not found, is not a regular file, is too large, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        _check_kind(path.stat(), path)  # before opening: opening a device may have side effects
        handle = os.open(path, flags)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)  # check again: the path may have been replaced before it was opened
            _check_kind(status, path)
            return file.read(status.st_size)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise InvalidModelError(f"the model {str(path)!r} cannot be read: {reason}") from error


def _check_kind(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidModelError(f"the model {str(path)!r} is not a regular file")
    if status.st_size > LARGEST_BYTES:
        raise InvalidModelError(
            f"the model {str(path)!r} has {status.st_size} bytes; at most {LARGEST_BYTES} are accepted"
        )


def downloaded(source: ModelSource, cache: Path) -> bytes:
    """Return the file at a URL, from `cache` if it was downloaded before; the caller checks its hash.

    Raises:
        InvalidModelError: The file cannot be downloaded or is too large, or its address or a redirect is not allowed.
            Messages contain only the scheme and host of the URL.
    """
    cached = cache / f"{source.sha256}.onnx"
    if cached.is_file() and hashlib.sha256(data := read_file(cached)).hexdigest() == source.sha256:
        return data
    data = _Download(source).data()
    if hashlib.sha256(data).hexdigest() == source.sha256:
        try:
            _store(data, cached)
        except OSError as error:
            _log.warning("the model at %s could not be stored in %s: %s", source.shown, cache, error.strerror)
    return data


def _store(data: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        staged.write_bytes(data)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


class _Download:
    """One download, with limits on time, size, hosts and redirects."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._ends_at = time.monotonic() + _DOWNLOAD_SECONDS

    def data(self) -> bytes:
        """Return the bytes of the file."""
        url = self._source.source
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                response = self._get(url)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._left()
                # Messages that are not from the operating system may contain parts of the URL.
                reason = error.strerror if isinstance(error, OSError) else None
                raise self._refused(f"could not be downloaded: {reason or type(error).__name__}") from error
            if isinstance(response, bytes):
                return response
            url = self._redirected(url, response)
        raise self._refused(f"redirects more than {_MOST_REDIRECTS} times")

    def _get(self, url: str) -> bytes | str:
        """Return the body at `url` as bytes, or the target of its redirect as a string."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port)
        connection.sock = sock = self._connected(connection.host, connection.port, secure=parts.scheme == "https")
        # A server that sends single bytes slowly would never hit a read timeout.
        ending = threading.Timer(self._left(), _shut, (sock,))
        ending.start()
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"User-Agent": "reel_modal", "Connection": "close"})
            with connection.getresponse() as response:
                if response.status in _REDIRECTS:
                    return response.getheader("Location") or ""
                if response.status != http.HTTPStatus.OK:
                    raise self._refused(f"could not be downloaded: HTTP status {response.status}")
                return self._body(response)
        finally:
            ending.cancel()
            connection.close()

    def _connected(self, host: str, port: int, *, secure: bool) -> socket.socket:
        """Return a connection to a checked address of the host."""
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        if not self._source.allow_private_addresses and not all(map(_is_public, addresses)):
            raise self._refused(
                "resolves to an address that is private, loopback or link-local; set allow_private_addresses for a"
                " model in your own network"
            )
        for number, address in enumerate(addresses):
            try:
                connected = socket.create_connection((address, port), min(_CONNECT_SECONDS, self._left()))
            except OSError:
                if number == len(addresses) - 1:
                    raise
                continue
            if not secure:
                return connected
            try:
                return ssl.create_default_context().wrap_socket(connected, server_hostname=host)
            except BaseException:
                connected.close()
                raise
        raise self._refused("has no IP address")

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.length is not None and response.length > LARGEST_BYTES:
            raise self._refused(f"has {response.length} bytes; at most {LARGEST_BYTES} are accepted")
        body = bytearray()
        while block := response.read1(_BLOCK_BYTES):
            body += block
            if len(body) > LARGEST_BYTES:
                raise self._refused(f"has more than {LARGEST_BYTES} bytes, the accepted maximum")
        self._left()
        if response.length:
            raise self._refused(f"could not be downloaded: {response.length} bytes are missing")
        return bytes(body)

    def _left(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise self._refused(f"was not downloaded within {_DOWNLOAD_SECONDS:g} s")
        return left

    def _redirected(self, url: str, location: str) -> str:
        """Return the target of a redirect, which must have the same scheme and host."""
        target = urljoin(url, location)
        old, new = urlsplit(url), urlsplit(target)
        if (new.scheme, new.netloc) != (old.scheme, old.netloc):
            raise self._refused("redirects to another host; register the target URL")
        try:
            return ModelSource(target, self._source.sha256).source
        except ConfigError as error:
            raise self._refused("redirects to a URL that is not valid") from error

    def _refused(self, problem: str) -> InvalidModelError:
        return InvalidModelError(f"the model at {self._source.shown} {problem}")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed
        sock.shutdown(socket.SHUT_RDWR)


def _is_public(address: str) -> bool:
    """Return whether an address, or the IPv4 address embedded in it, is on the public internet."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if (within := parsed.ipv4_mapped or parsed.sixtofour) is not None:
            return _is_public(str(within))
        if parsed in _NAT64:
            return _is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed.is_global and not parsed.is_multicast
