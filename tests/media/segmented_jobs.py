"""Run a long job in segments through the real function body, and see which segments it has stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.processes import children
from tests.run_function import run_function

from reel_modal._segments import SegmentStore
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions, RenderResult
from reel_modal.settings import Settings
from reel_modal.storage import FolderStorage

ENCODE: Final = EncodeOptions(encoder="libx264", preset="veryfast", smart=False)


@pytest.fixture(autouse=True)
def check_leftovers(tmp_path: Path) -> Iterator[None]:
    """No process and no file is left."""
    before = children()
    yield
    assert children() == before
    assert not list(tmp_path.glob("work/*"))


class Jobs:
    """Runs one request again and again, each time as another process would.

    Args:
        folder: An empty folder, for the store and the working directory.
        clip: The source.
        kind: Type of the request.
        **fields: Fields of the request, besides keys and encoding.
    """

    def __init__(self, folder: Path, clip: Path, kind: type[Any], **fields: object) -> None:
        for name in ("store", "work"):
            (folder / name).mkdir()
        self.kind, self.fields = kind, fields
        self.store = FolderStorage(folder / "store")
        self.clip = clip
        self.output = folder / "store" / "out.mp4"
        self.workdir = folder / "work"
        self.events: list[ProgressEvent] = []
        self.rendered: list[int] = []
        """Numbers of the segments that the last run has stored."""

    def run(self, *, stored: bool = True, cancel_at: int | None = None, **fields: object) -> tuple[str, RenderResult]:
        """Return the SHA-256 of the output, and the result; `cancel_at` is a number of finished frames."""
        (self.store.root / f"in{self.clip.suffix}").write_bytes(self.clip.read_bytes())
        keys = {"job_id": "j", "user_id": "u", "input_key": f"in{self.clip.suffix}", "output_key": "out.mp4"}
        request = self.kind(**{**keys, "encode": ENCODE, **self.fields, **fields})
        self.events, token = [], CancellationToken()
        before = self._inodes()

        def send(event: ProgressEvent) -> None:
            self.events.append(event)
            if cancel_at is not None and event.done >= cancel_at:
                token.cancel()

        context = JobContext(
            storage=self.store,
            workdir=self.workdir,
            settings=Settings.from_env(),
            reporter=Reporter(send, interval_seconds=0),
            cancellation=token,
            segments=SegmentStore(self.store, user_id="u", source="in 1") if stored else None,
        )
        try:
            result = run_function(request, context)
        finally:
            self.rendered = [number for number, inode in enumerate(self._inodes()) if inode not in before]
        return hashlib.sha256((self.store.root / request.output_key).read_bytes()).hexdigest(), result

    def _inodes(self) -> list[tuple[int, int]]:
        return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in self.segments]

    @property
    def segments(self) -> list[Path]:
        """The stored segments in the order of their frames, without their seals."""
        found = (self.store.root / "users/u/segments").glob("*.mp4")
        return sorted(found, key=lambda path: int(path.stem.split("-")[1]))
