"""What the tests of the images check of an image and of an output; each returns the problems that it found."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.image.definitions import Definition

# Words of pip's command line that are the value of an option.
_OPTION_VALUES = {"ignore", ":all:"}
_X264_THREADS = re.compile(rb"x264 - core [^\0]*? threads=(\d+) ")


def unpinned_packages(image: Definition) -> list[str]:
    """Return what pip would install in an unknown version, or without a known hash if it is named in a file."""
    problems = []
    for line in image.lines:
        if " pip install " not in line:
            continue
        words = shlex.split(line.partition(" pip install ")[2])
        if "-r" in words:
            text = image.files[words[words.index("-r") + 1]].decode()
            entries = [entry for entry in re.split(r"\n(?=[^\s#])", text) if not entry.startswith("#")]
            problems += [entry.split()[0] for entry in entries if "==" not in entry or "--hash=" not in entry]
            problems += [] if "--require-hashes" in words else [line]
        else:
            problems += [
                word
                for word in words
                if re.match(r"[A-Za-z]", word) and "==" not in word and word not in _OPTION_VALUES
            ]
    return problems


def wrong_encoder_threads(output: Path, reserved: float) -> list[str]:
    """Return the thread counts of x264 in an output that differ from the reserved cores; also if it names none."""
    found = {int(count) for count in _X264_THREADS.findall(output.read_bytes())}
    return [f"{output.name}: x264 used {count} threads, not {reserved:g}" for count in found - {int(reserved)}] or (
        [] if found else [f"{output.name}: x264 names no thread count"]
    )
