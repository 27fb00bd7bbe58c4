"""Runs the Python samples of the README and the documentation, in a folder that has a clip."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

from reel_modal.testing import make_clip


def _folder(namespace: dict[str, object]) -> None:
    scratch = TemporaryDirectory()
    namespace["_scratch"], namespace["_home"] = scratch, Path.cwd()
    os.chdir(scratch.name)
    make_clip("clip.mp4", size=(1280, 720), seconds=1, audio_seconds=1)


def _back(namespace: dict[str, object]) -> None:
    os.chdir(str(namespace["_home"]))
    scratch = namespace["_scratch"]
    if isinstance(scratch, TemporaryDirectory):
        scratch.cleanup()


pytest_collect_file = Sybil(
    path=str(Path(__file__).parent),
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_folder,
    teardown=_back,
).pytest()
