"""Read which streams belong to each program of an MPEG-TS, from its tables (ISO/IEC 13818-1, 2.4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

__all__ = ["programs_of"]

# ffmpeg probes the same number of bytes; broadcasts repeat the tables several times a second.
_MOST_BYTES: Final = 5_000_000
_BLOCK_BYTES: Final = 1 << 16
_PACKET_BYTES: Final = 188
# Distance between packets: without additions, with a timestamp before each, with error correction after each.
_STEPS: Final = (188, 192, 204)
_SYNC: Final = 0x47
_PAT_PID: Final = 0
_PAT_TABLE: Final = 0
_PMT_TABLE: Final = 2
_CRC_BYTES: Final = 4


def programs_of(file: BinaryIO) -> tuple[frozenset[int], ...]:
    """Return the ids (PIDs) of the streams of each program; empty if no table is found.

    Args:
        file: It is read from its start, up to the last table or 5 MB.
    """
    table_pids: dict[int, int] = {}
    programs: dict[int, frozenset[int]] = {}
    sections = _Sections()
    for packet in _packets(file):
        for pid, section in sections.take(packet):
            number = section[3] << 8 | section[4]
            if pid == _PAT_PID and section[0] == _PAT_TABLE and not table_pids:
                table_pids.update(_tables(section))
                sections.table_pids = set(table_pids.values())
            elif table_pids.get(number) == pid and section[0] == _PMT_TABLE:
                programs.setdefault(number, frozenset(_stream_pids(section)))
        if table_pids and len(programs) == len(table_pids):
            break
    return tuple(programs.values())


class _Sections:
    """Assembles the sections of tables, which may be longer than a packet."""

    def __init__(self) -> None:
        self.table_pids: set[int] = set()
        self._partial: dict[int, bytes] = {}

    def take(self, packet: bytes) -> Iterator[tuple[int, bytes]]:
        """Process a packet and yield the sections that it completes, each with its PID."""
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if pid != _PAT_PID and pid not in self.table_pids:
            return
        begin = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)  # after the adaptation field
        if not packet[3] & 0x10 or begin >= _PACKET_BYTES:
            return
        if packet[1] & 0x40:  # a section begins at the offset in the first byte
            self._partial[pid] = packet[begin + 1 + packet[begin] :]
        elif pid in self._partial:
            self._partial[pid] += packet[begin:]
        data = self._partial.get(pid, b"")
        while len(data) >= 3 and data[0] != 0xFF and len(data) >= (end := 3 + _length(data)):
            if end >= 8 + _CRC_BYTES:
                yield pid, data[: end - _CRC_BYTES]
            data = data[end:]
        self._partial[pid] = data


def _packets(file: BinaryIO) -> Iterator[bytes]:
    """Yield the packets; skip all other bytes between them, such as the timestamps of M2TS."""
    left = b""
    for _ in range(_MOST_BYTES // _BLOCK_BYTES):
        block = file.read(_BLOCK_BYTES)
        data, at = left + block, 0
        while (at := data.find(_SYNC, at)) >= 0 and at + _STEPS[-1] < len(data):
            if any(data[at + step] == _SYNC for step in _STEPS):
                yield data[at : at + _PACKET_BYTES]
                at += _PACKET_BYTES
            else:
                at += 1
        left = data[at:] if at >= 0 else b""
        if not block:
            return


def _length(section: bytes) -> int:
    return (section[1] & 0x0F) << 8 | section[2]


def _tables(section: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number of each program and the PID of its table."""
    for at in range(8, len(section) - 3, 4):
        if number := section[at] << 8 | section[at + 1]:  # program 0 is the network table
            yield number, (section[at + 2] & 0x1F) << 8 | section[at + 3]


def _stream_pids(section: bytes) -> Iterator[int]:
    at = 12 + _length(section[9:12]) if len(section) >= 12 else len(section)
    while at + 5 <= len(section):
        yield (section[at + 1] & 0x1F) << 8 | section[at + 2]
        at += 5 + _length(section[at + 2 : at + 5])
