"""Invalid requests start no container, and an unknown encoder is refused before the input is fetched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.clips import made_clip
from tests.integration.modal_app import Deployed

from reel_modal import FunctionRegistry, RequestError, Settings
from reel_modal.errors import BadInputError
from reel_modal.functions.catalog import all_functions
from reel_modal.schema import OverlayRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

IDENTIFIERS: dict[str, Any] = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
REGION = {
    "id": "r",
    "start_time": 0,
    "end_time": 1,
    "keyframes": [{"time": 0, "x": 9, "y": 9, "radiusX": 5, "radiusY": 5}],
}
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "input_key": ("render_overlay", {"regions": [REGION], "input_key": "../../etc/passwd"}),
    "user_id": ("render_overlay", {"regions": [REGION], "user_id": "../victim"}),
    "output_key": ("render_overlay", {"regions": [REGION], "output_key": "out.gif"}),
    "regions[0].end_seconds": ("render_overlay", {"regions": [{**REGION, "end_time": "1e4000000"}]}),
    "encode.preset": ("process_framing", {"encode": {"preset": "fastest"}}),
    "fps": ("process_framing", {"fps": 10**400}),
    "trim_end_seconds": ("process_framing", {"trim_start": 3, "trim_end": 2}),
    "model": ("apply_upscale", {"scale": 2, "model": "/etc/passwd"}),
    "scale": ("apply_upscale", {"scale": 3}),
}


async def submit(registry: FunctionRegistry, function: str, body: dict[str, Any]) -> None:
    """Parse and submit the JSON of an app, as a host does."""
    await registry[function].submit(all_functions()[function].request.parse(body))


async def test_submit_bad_request_starts_no_container(app: Deployed) -> None:
    async with FunctionRegistry(app.settings) as registry:
        for path, (function, changes) in BAD.items():
            with pytest.raises(RequestError) as caught:
                await submit(registry, function, {**IDENTIFIERS, **changes})
            assert caught.value.path == path
    assert (len(BAD), app.plane.containers(), app.plane.requests) == (9, [], [])


async def test_encoder_unknown_in_container_refused_before_fetch(app: Deployed) -> None:
    source = app.store / "users/u/in.mp4"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"not a video, which a fetch would find out")
    request = OverlayRequest(**IDENTIFIERS, regions=(), encode={"encoder": "no_such_encoder"})
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(request)
        with pytest.raises(BadInputError, match=r"encode\.encoder: encoder 'no_such_encoder' does not start"):
            await job.result()
        assert [event.phase async for event in job.events()] == []
    source.unlink()


async def test_encoder_not_starting_locally_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "users/u").mkdir(parents=True)
    made_clip(tmp_path / "users/u/in.mp4", seconds=0.2)
    request = OverlayRequest(**IDENTIFIERS, regions=(), encode={"encoder": "h264_v4l2m2m"})
    async with FunctionRegistry(Settings(store_url=tmp_path.as_uri())) as registry:
        with pytest.raises(BadInputError, match=r"encode\.encoder: encoder 'h264_v4l2m2m' does not start"):
            await registry["render_overlay"](request)
    assert sorted(path.name for path in (tmp_path / "users/u").iterdir()) == ["in.mp4"]
