"""Files that tests make with ffmpeg, kept for all workers and for later runs.

`.pytest_cache/clips` holds them, each under a hash of everything that determines it: the build of ffmpeg, the whole
command, and the content of the inputs. A test gets a copy, which it may change.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".pytest_cache" / "clips"
_UNUSED_SECONDS = 7 * 24 * 3600
# A playlist names files that are not in the command.
_LISTS = {".ffconcat", ".m3u8", ".mpd", ".sdp"}
# Copying the packets of a larger file takes no longer than hashing it.
_LARGE_BYTES = 4_000_000
_PATH_INSIDE = re.compile(r"(?:^|[=:'|,;\s])/\w")


def cached(key: str, path: Path, make: Callable[[Path], object]) -> None:
    """Write the file of `key` to `path`; call `make` with `path` if no earlier test has made it."""
    kept = FOLDER / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        shutil.copyfile(kept, path)
    except FileNotFoundError:
        make(path)
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}.part")
        shutil.copyfile(path, part)
        part.replace(kept)
    else:
        with suppress(FileNotFoundError):  # another run may delete it now
            os.utime(kept)


def key_of_command(arguments: Sequence[str | Path]) -> str | None:
    """Return a key for an ffmpeg command without its program, or None if its output depends on more than that.

    The last argument is the output. Inputs count by their content and suffix, so that the folder makes no difference.
    """
    *options, output = (str(argument) for argument in arguments)
    if "%" in output or output == "-" or "concat" in options:
        return None
    parts, copies = [Path(output).suffix], ("-c", "copy") in pairwise(options)
    for before, option in zip(["", *options], options, strict=False):
        named = Path(option)
        if before == "-i" and named.is_absolute() and named.is_file() and named.suffix not in _LISTS:
            if copies and named.stat().st_size > _LARGE_BYTES:
                return None
            digest = hashlib.sha256(named.read_bytes()).hexdigest()
            parts.append(f"{digest}{named.suffix}")
        elif _PATH_INSIDE.search(option) or "%" in option or (len(option) < 200 and named.exists()):
            return None
        else:
            parts.append(option)
    return "\0".join(parts)


def delete_unused() -> None:
    """Delete the files that no test has used for a week, and those that a killed run has left."""
    oldest = time.time() - _UNUSED_SECONDS
    for path in FOLDER.glob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
