"""The checks of the images find what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.image.checks import unpinned_packages, wrong_encoder_threads
from tests.image.definitions import Definition

from reel_modal import FramePipe

LOCKED = b"# requirements: av==1\nav==1 \\\n    --hash=sha256:ab\n"


@pytest.mark.parametrize(
    ("line", "content", "found"),
    [
        ("RUN python -m pip install -r /.r.txt --require-hashes --root-user-action ignore", LOCKED, []),
        ("RUN python -m pip install -r /.r.txt --require-hashes", LOCKED + b"pillow==12\n", ["pillow==12"]),
        ("RUN python -m pip install -r /.r.txt --require-hashes", LOCKED + b"pillow --hash=sha256:cd\n", ["pillow"]),
        ("RUN python -m pip install -r /.r.txt", LOCKED, ["RUN python -m pip install -r /.r.txt"]),
        ("RUN python -m pip install av==1 pillow --root-user-action ignore", b"", ["pillow"]),
        ("RUN pip install --upgrade pip wheel", b"", ["pip", "wheel"]),
    ],
)
def test_unpinned_packages_are_found(line: str, content: bytes, found: list[str]) -> None:
    assert unpinned_packages(Definition(("FROM base", line), {"/.r.txt": content})) == found


@pytest.mark.parametrize(("threads", "problems"), [(4, 0), (2, 1)])
def test_wrong_encoder_threads_are_found(threads: int, problems: int, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with FramePipe(output, size=(320, 180), fps=25, encoder="libx264", threads=threads) as pipe:
        pipe.write(np.zeros((180, 320, 3), np.uint8))
    assert len(wrong_encoder_threads(output, 4)) == problems


def test_output_without_thread_count_is_a_problem(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"no encoder")
    assert wrong_encoder_threads(output, 4) == ["out.mp4: x264 names no thread count"]
