"""A network with the loopback interface alone, and its name server, for the tests of the images."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

NAMESERVER = "127.0.0.53"
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


class NameServer:
    """Records the names that are looked up, and answers that none exists."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAMESERVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            labels, at = [], 12
            while length := query[at]:
                labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
                at += length + 1
            self.names.append(".".join(labels))
            # The same question, with the flags of an answer: no such name.
            self._socket.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0" * 6 + query[12 : at + 5], sender)


@pytest.fixture(scope="session")
def nameserver() -> Iterator[NameServer]:
    """Return the name server; fail if this process has a network besides the loopback interface."""
    interfaces = [name for _, name in socket.if_nameindex()]
    if interfaces != ["lo"]:
        pytest.fail(f"started with the network interfaces {interfaces}: run make test-image")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    os.environ["NO_PROXY"] = "*"
    return NameServer()
