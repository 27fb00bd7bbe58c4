"""The example app over HTTP: real renders, restarts, cancellation and refusals."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.fastapi_app.app import USER
from tests.clips import Clips, made_clip
from tests.examples.fastapi_app import app, events
from tests.object_store import ObjectStore

from reel_modal import probe, store_key

KEYFRAME = {"time": 0.2, "x": 430, "y": 380, "radius_x": 150, "radius_y": 200}
REEL = {"clip": "bigbuckbunny.mp4", "keyframes": [KEYFRAME], "framing": "9:16"}
SMALL_REEL = {"clip": "small.mp4", "keyframes": [{**KEYFRAME, "x": 215, "y": 190}], "framing": "9:16"}
"""A reel of the clip of `upload_small`, which is rendered in a quarter of the time."""


def stored(folder: Path, key: str) -> Path:
    """Return the path of an object of the app's only user."""
    return folder / "store" / store_key(key, "user", USER)


def upload_small(http: httpx.Client, tmp_path: Path) -> None:
    """Upload a clip with 132 frames of 640x360."""
    clip = made_clip(tmp_path / "upload.mp4", size=(640, 360), seconds=5.28, audio_seconds=5.28)
    assert http.put("/clips/small.mp4", content=clip.read_bytes()).status_code == 201


def start(http: httpx.Client, export_request: dict[str, Any]) -> str:
    answer = http.post("/exports", json=export_request)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_app_highlight_and_reel_progress_only_rises(tmp_path: Path) -> None:
    with app(tmp_path) as running:
        upload_small(running.http, tmp_path)
        export_id = start(running.http, SMALL_REEL)
        updates = list(events(running.http, export_id))
        assert [update["status"] for update in updates[:-1]] == ["processing"] * (len(updates) - 1)
        assert (updates[-1]["status"], updates[-1]["progress"]) == ("complete", 100)
        assert all(before["progress_exact"] <= after["progress_exact"] for before, after in pairwise(updates))
        export = running.http.get(f"/exports/{export_id}").json()
        assert export["status"] == "complete"
        output = probe(stored(tmp_path, export["output"]), scan=True)
        assert (output.size, output.scan.frame_count if output.scan else 0) == ((202, 360), 132)
        part = running.http.get(f"/media/{export['output']}", headers={"range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        # A late client gets the end immediately.
        assert [update["progress"] for update in events(running.http, export_id)] == [100]


@pytest.mark.skipif(
    sys.platform != "linux", reason="a worker notices at once that its host was killed on Linux alone"
)
def test_app_killed_export_continues(tmp_path: Path) -> None:
    with app(tmp_path) as running:
        upload_small(running.http, tmp_path)
        export_id = start(running.http, SMALL_REEL)
        for update in events(running.http, export_id):
            if update["phase"] == "render":
                break
        running.kill()
    with app(tmp_path) as again:
        assert again.http.get(f"/exports/{export_id}").json()["status"] == "running"
        assert list(events(again.http, export_id))[-1]["status"] == "complete"
        export = again.http.get(f"/exports/{export_id}").json()
        assert probe(stored(tmp_path, export["output"])).size == (202, 360)


def test_app_cancelled_export_leaves_nothing(tmp_path: Path) -> None:
    with app(tmp_path) as running:
        export_id = start(running.http, REEL)
        stream = events(running.http, export_id)
        assert next(stream)["status"] == "processing"
        assert running.http.post(f"/exports/{export_id}/cancel").json()["status"] == "cancelled"
        assert (list(stream)[-1]["status"], list(stream)) == ("error", [])
    assert list((tmp_path / "store").glob("users/*/exports/*/*")) == []
    with app(tmp_path) as again:
        assert again.http.get(f"/exports/{export_id}").json()["status"] == "cancelled"


def test_app_upload_accepts_clip_and_refuses_other_file(tmp_path: Path, clips: Clips) -> None:
    with app(tmp_path) as running:
        added = running.http.put("/clips/mine.mp4", content=clips.get("turned_90.mp4").read_bytes())
        assert (added.status_code, added.json()["size"]) == (201, [96, 160])
        assert {clip["name"] for clip in running.http.get("/clips").json()} == {"bigbuckbunny.mp4", "mine.mp4"}
        refused = running.http.put("/clips/bad.mp4", content=b"no video")
        assert (refused.status_code, "cannot be read as a video" in refused.json()["detail"]) == (422, True)
        assert not (tmp_path / "clips" / "bad.mp4.json").exists()
        nothing = running.http.post("/exports", json={"clip": "mine.mp4", "keyframes": []})
        assert (nothing.status_code, "nothing to do" in nothing.json()["detail"]) == (422, True)
        wrong = {**REEL, "keyframes": [{**KEYFRAME, "radius_x": -1}]}
        assert "regions[0].keyframes[0].radius_x" in running.http.post("/exports", json=wrong).json()["detail"]
        assert running.http.post("/exports", json={**REEL, "clip": "other.mp4"}).status_code == 404
        for path in ("%2e%2e%2fclips%2fmine.mp4.json", "nothing.mp4", "clips/mine.mp4", "users/demo/clips/mine.mp4"):
            assert running.http.get(f"/media/{path}").status_code == 404
        assert list((tmp_path / "store").rglob("*bad*")) == []


def test_app_forbidden_fields_refused(tmp_path: Path, clips: Clips) -> None:
    with app(tmp_path) as running:
        running.http.put("/clips/mine.mp4", content=clips.get("25.mp4").read_bytes())
        victim = tmp_path / "store" / "users" / "victim" / "clips" / "secret.mp4"
        victim.parent.mkdir(parents=True)
        victim.write_bytes(clips.get("25.mp4").read_bytes())
        before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
        for field in (
            {"user_id": "victim"}, {"userId": "victim"}, {"input_key": "clips/secret.mp4"}, {"output_key": "x.mp4"},
            {"job_id": "j"}, {"store": {"input_scope": "global"}}, {"model": "/etc/passwd"},
            {"keyframes": [{**KEYFRAME, "user_id": "victim"}]},
        ):  # fmt: skip
            answer = running.http.post("/exports", json={**REEL, "clip": "mine.mp4", **field})
            assert answer.status_code == 422, field
        for clip in ("../victim/clips/secret.mp4", "secret.mp4", "users/victim/clips/secret.mp4", ""):
            assert running.http.post("/exports", json={**REEL, "clip": clip}).status_code == 404
        for path in (
            "users/victim/clips/secret.mp4",
            "../victim/clips/secret.mp4",
            "..%2fvictim%2fclips%2fsecret.mp4",
        ):
            assert running.http.get(f"/media/{path}").status_code == 404
        for name in ("a%00.mp4", "a" * 300, "%2e%2e%5cx.mp4"):
            assert running.http.put(f"/clips/{name}", content=b"").status_code == 422
        assert running.http.get("/exports").json() == []
        assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


def test_app_upload_can_be_upscaled(tmp_path: Path, clips: Clips) -> None:
    with app(tmp_path) as running:
        running.http.put("/clips/small.mp4", content=clips.get("25.mp4").read_bytes())
        export_id = start(running.http, {"clip": "small.mp4", "keyframes": [], "scale": 2})
        assert list(events(running.http, export_id))[-1]["status"] == "complete"
        export = running.http.get(f"/exports/{export_id}").json()
        assert probe(stored(tmp_path, export["output"])).size == (640, 360)


def test_app_with_bucket_browser_plays_presigned_links(tmp_path: Path, clips: Clips, s3: ObjectStore) -> None:
    with app(tmp_path, REEL_MODAL_STORE_URL=s3.url("example")) as running:
        running.http.put("/clips/mine.mp4", content=clips.get("25.mp4").read_bytes())
        export_id = start(running.http, {"clip": "mine.mp4", "keyframes": [], "framing": "1:1"})
        assert list(events(running.http, export_id))[-1]["status"] == "complete"
        output = running.http.get(f"/exports/{export_id}").json()["output"]
        options = {"headers": {"range": "bytes=4-7"}, "follow_redirects": True}
        part = running.http.get(f"/media/{output}", **options)
        assert (part.status_code, part.content, part.url.port) == (206, b"ftyp", s3.port)
        assert part.headers["content-type"] == "video/mp4"
        assert running.http.get("/media/nothing.mp4").status_code == 404
        # Nothing that was played is stored on the app's disk.
        assert list(tmp_path.rglob("*.mp4")) == []
