"""Runs the Python samples of the README and the documentation as printed, in a folder that has a clip.mp4."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser
from tests import watchdog

pytest_plugins = ["reel_modal.testing.contract"]

# Neither a test nor a process that it starts remembers anything, unless it names a file of its own. One that takes
# that variable away writes into this folder, not into the user's, and is told so.
_DATA = TemporaryDirectory(prefix="data-of-tests-")
os.environ |= {"REEL_MODAL_TIMINGS": "off", "XDG_DATA_HOME": _DATA.name}
# Tests that import onnxruntime themselves send nothing either. Those of the telemetry remove the variable.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
watchdog.start()
# The idle threads of numpy's OpenBLAS wait actively, and take the cores from the other workers and from ffmpeg.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Many images of Python forbid bytecode. The hundreds of interpreters of a run would each compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_ROOT = Path(__file__).parent


# The folders whose files take longest. Short files at the end let all workers end at about the same time.
_LONG = ("tests/integration/", "tests/examples/", "tests/storage/", "tests/contract/", "tests/media/")


_PLANES = {"shared_plane", "session_plane"}
# A deployment and its containers are a dozen processes: seconds on an idle machine, minutes on a busy one.
_SECONDS_WITH_PLANE = 300


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder and by the servers that they need; a parallel run starts with the long files."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next((n for n, folder in enumerate(_LONG) if item.nodeid.startswith(folder)), len(_LONG))
        )
    for item in items:
        path = item.path.relative_to(_ROOT).as_posix() if item.path.is_relative_to(_ROOT) else ""
        if path.startswith(("tests/unit/", "tests/media/")):
            item.add_marker(path.split("/")[1])
        if _PLANES & set(getattr(item, "fixturenames", ())) or "[modal" in item.name:
            item.add_marker("modal")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_SECONDS_WITH_PLANE))


@pytest.fixture(scope="session", autouse=True)
def _data_directory() -> Iterator[None]:
    """Fail where a test has written into it."""
    yield
    written = [str(path) for path in Path(_DATA.name).rglob("*")]
    _DATA.cleanup()
    assert written == [], "a test has written into the user's data directory"  # noqa: S101


@pytest.fixture(scope="session", autouse=True)
def _tear_down_when_interrupted() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end the run with all its fixtures torn down.

    Processes of tests then heed Ctrl-C as well: from a run in the background they would inherit that it is ignored.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    former = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


_run = PythonEvaluator()


def _sample(example: Example) -> None:
    """Run a sample, or write it to a module if its first line is the name of one, such as `# my_module.py`."""
    name = re.match(r"# (\w+\.py)\n", example.parsed)
    if name is None:
        _run(example)
    else:
        Path(name[1]).write_text(example.parsed, encoding="utf-8")


def _folder(namespace: dict[str, object]) -> None:
    from tests.clips import made_clip  # not before the environment is set, because it imports numpy

    scratch = TemporaryDirectory()
    namespace["_scratch"], namespace["_home"] = scratch, Path.cwd()
    os.chdir(scratch.name)
    sys.path.insert(0, scratch.name)
    made_clip(Path("clip.mp4"), size=(1280, 720), seconds=1, audio_seconds=1)


def _back(namespace: dict[str, object]) -> None:
    os.chdir(str(namespace["_home"]))
    scratch = namespace["_scratch"]
    if isinstance(scratch, TemporaryDirectory):
        sys.path.remove(scratch.name)
        scratch.cleanup()


pytest_collect_file = Sybil(
    path=str(Path(__file__).parent),
    parsers=[CodeBlockParser("python", _sample)],
    patterns=["README.md", "docs/*.md"],
    setup=_folder,
    teardown=_back,
).pytest()
