"""The stored format of receipts: existing receipts must still be found."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

from tests.jobs import overlay

from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.receipts import Receipt
from reel_modal.schema import Degradation, RenderResult, Usage
from reel_modal.storage import FolderStorage

GOLDEN = json.loads(Path(__file__).with_name("golden_receipt.json").read_text(encoding="utf-8"))
KEY = "users/user/out/job.mp4"
VERSION = "input version"
OUTPUT = b"a video" * 20_000
RESULT = RenderResult(
    job_id="job",
    function="render_overlay",
    output_key=KEY,
    frames=300,
    size=(1280, 720),
    fps=Fraction(30000, 1001),
    duration_seconds=Fraction(1001, 100),
    bytes=len(OUTPUT),
    engine="opencv-yuv420p",
    encoder="libx264",
    plan="smart",
    frames_copied=210,
    seconds_by_phase={"fetch": 0.25, "render": 1.5, "verify": 0.125, "publish": 0.5},
    degraded=(Degradation("subtitles_dropped", "a subtitle stream is left out"),),
    cold_start=True,
    usage=Usage.parse(GOLDEN["receipt"]["result"]["usage"]),
)


def test_receipt_stored_earlier_is_found(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    request = overlay()
    storage.write_bytes(KEY, OUTPUT)
    storage.write_bytes(GOLDEN["key"], json.dumps(GOLDEN["receipt"]).encode())
    stored = Receipt(storage, KEY, request.request_hash(), render_overlay).find()
    assert stored is not None
    assert stored.result == RESULT
    assert stored.source_version == VERSION


def test_receipt_is_written_in_the_stored_format(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    video = tmp_path / "made.mp4"
    video.write_bytes(OUTPUT)
    Receipt(storage, KEY, overlay().request_hash(), render_overlay).write(RESULT, video, VERSION)
    assert json.loads(storage.read_bytes(GOLDEN["key"])) == GOLDEN["receipt"]


def test_receipt_tags_name_the_request_and_the_input(tmp_path: Path) -> None:
    request_hash = overlay().request_hash()
    tags = Receipt(FolderStorage(tmp_path), KEY, request_hash, render_overlay).tags(VERSION)
    assert tags == {"reel_modal_request": f"{request_hash} {hashlib.sha256(VERSION.encode()).hexdigest()}"}
