"""Output of the deploy command, without secrets: to a terminal of any encoding and to a UTF-8 log."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import threading
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from reel_modal._support.redaction import Redactor
from reel_modal.errors import ConfigError

__all__ = ["Console", "Redactor"]

_READABLE: Final = "reel_modal.readable"
# Replacements for characters that modal prints and that a terminal may not be able to show.
_PLAIN: Final = {
    "✓": "+",
    "✗": "x",
    "├": "|",
    "└": "`",
    "│": "|",
    "─": "-",
    "🔨": "*",
    "🎉": "",
    "…": "...",
    "→": "->",
}


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error(_READABLE, _readable)


class Console:
    """Writes to stdout or stderr and to the log; thread-safe.

    Args:
        log_path: The log file; its folder is created, and an existing file is replaced.
        redact: Removes secrets from all text.

    Raises:
        ConfigError: The log cannot be written.
    """

    def __init__(self, log_path: Path, redact: Redactor) -> None:
        self.log_path: Path = log_path
        self.redact: Redactor = redact
        self._lock = threading.Lock()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors=_READABLE, line_buffering=True)
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._log = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115, PTH123
        except OSError as error:
            raise ConfigError(f"the log {str(log_path)!r} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def out(self, text: str) -> None:
        """Write the command's result to stdout."""
        self._write(sys.stdout, text)

    def info(self, text: str) -> None:
        """Write a message to stderr."""
        self._write(sys.stderr, text)

    def ask(self, question: str) -> bool:
        """Ask the user; return True only if the answer is `y` or `yes`."""
        self.info(question)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def _write(self, stream: TextIO, text: str) -> None:
        clean = self.redact(text)
        with self._lock:
            self._log.write(clean + "\n")
            self._log.flush()
            # A closed terminal or pipe must not end a deployment.
            with contextlib.suppress(OSError, ValueError):
                print(clean, file=stream, flush=True)
