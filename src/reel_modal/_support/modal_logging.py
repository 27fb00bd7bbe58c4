"""Keep Modal's tokens out of logs."""

from __future__ import annotations

import logging

__all__ = ["hide_headers"]

# The HTTP/2 library of modal's gRPC client. At DEBUG it logs all headers, including the token.
_LOGGERS = ("hpack.hpack", "hpack.table")


def hide_headers() -> None:
    """Drop the debug messages of modal's HTTP/2 library; call it in each process that imports modal."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
