"""Scripts that behave like other builds of ffmpeg, based on the real one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.encoders import try_encoder
from reel_modal.errors import EncoderUnavailableError
from reel_modal.settings import Settings

REAL = find_ffmpeg(Settings(ffmpeg=None)).path


def skip_without_encoder(encoder: str) -> None:
    """Skip the test if another build than the pinned one is tested and it lacks the encoder."""
    settings = Settings.from_env()
    if settings.ffmpeg is None:
        return
    try:
        try_encoder(settings, encoder)
    except EncoderUnavailableError as error:
        pytest.skip(f"this ffmpeg does not encode so: {error}")


def executable(path: Path, body: str) -> str:
    """Write an executable Python program."""
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return str(path)


def renamed(path: Path, version: str = "5.1.9-0+deb12u1") -> str:
    """Return an ffmpeg that prints another version."""
    body = f"""
import subprocess, sys
done = subprocess.run([{REAL!r}, *sys.argv[1:]], capture_output=True)
words = done.stderr.splitlines(keepends=True)
sys.stderr.buffer.write(b"".join(b"ffmpeg version {version} X\\n" if w.startswith(b"ffmpeg v") else w for w in words))
sys.stdout.buffer.write(done.stdout)
sys.exit(done.returncode)
"""
    return executable(path, body)


def without(path: Path, word: str, complaint: str, *, version: str = "4.4.6-static") -> str:
    """Return an ffmpeg without one filter, encoder or option."""
    body = f"""
import os, subprocess, sys
if any({word!r} in argument for argument in sys.argv[1:]):
    if "info" in sys.argv:
        print("ffmpeg version {version} Copyright (c) 2000-2024 the FFmpeg developers", file=sys.stderr)
    print({complaint!r}, file=sys.stderr)
    sys.exit(1)
if sys.argv[-1] in ("-filters", "-encoders"):
    listed = subprocess.run([{REAL!r}, *sys.argv[1:]], capture_output=True, text=True).stdout
    print("".join(line for line in listed.splitlines(keepends=True) if {word!r} not in line.split()[1:2]))
    sys.exit(0)
os.execv({REAL!r}, [{REAL!r}, *sys.argv[1:]])
"""
    return executable(path, body)


def faulty(tmp_path: Path, body: str) -> Settings:
    """Return settings with an ffmpeg that answers queries like the real one, and otherwise runs `body`."""
    real = find_ffmpeg(Settings.from_env()).path
    answer = f"""
import os, subprocess, sys
real = {real!r}
if "-version" in sys.argv or "-frames:v" in sys.argv:
    os.execv(real, [real, *sys.argv[1:]])
"""
    return Settings(ffmpeg=executable(tmp_path / "ffmpeg-stand-in", answer + body))
