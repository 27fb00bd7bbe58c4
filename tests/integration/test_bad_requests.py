"""Bad requests with Modal's control plane: each is refused on the host and starts no container."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
from tests.integration.modal_app import Deployed

from reel_modal import FunctionRegistry, RequestError
from reel_modal.functions.catalog import all_functions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

IDENTIFIERS = {"jobId": "bad", "userId": "u", "inputKey": "in.mp4", "outputKey": "out.mp4"}
KEYFRAME = {"time": 0, "x": 80, "y": 90, "radiusX": 40, "radiusY": 30}
REGION = {"id": "player", "startTime": 0, "endTime": 1, "keyframes": [KEYFRAME]}
OVERLAY = {**IDENTIFIERS, "highlightRegions": [REGION]}

BAD: dict[str, tuple[str, Mapping[str, object]]] = {
    "no job id": ("render_overlay", {**OVERLAY, "jobId": ""}),
    "a field that is unknown": ("render_overlay", {**OVERLAY, "effects": "original"}),
    "an effect that is unknown": ("render_overlay", {**OVERLAY, "effect": "sepia"}),
    "a region that ends before it starts": (
        "render_overlay",
        {**IDENTIFIERS, "highlightRegions": [{**REGION, "startTime": 2}]},
    ),
    "a region without keyframes": (
        "render_overlay",
        {**IDENTIFIERS, "highlightRegions": [{**REGION, "keyframes": []}]},
    ),
    "a radius of zero": (
        "render_overlay",
        {**IDENTIFIERS, "highlightRegions": [{**REGION, "keyframes": [{**KEYFRAME, "radiusX": 0}]}]},
    ),
    "an odd width": ("process_framing", {**IDENTIFIERS, "outputWidth": 55, "outputHeight": 96}),
    "a trim that ends before it starts": (
        "process_framing",
        {**IDENTIFIERS, "segmentData": {"trimStart": 2, "trimEnd": 1}},
    ),
    "a scale that no network has": ("apply_upscale", {**IDENTIFIERS, "scale": 3}),
    "an input that climbs out": ("render_overlay", {**OVERLAY, "inputKey": "../../etc/passwd"}),
    "an absolute input": ("render_overlay", {**OVERLAY, "inputKey": "/etc/passwd"}),
    "an output that climbs out": ("process_framing", {**IDENTIFIERS, "outputKey": "../out.mp4"}),
    "an output that is a missing value": ("process_framing", {**IDENTIFIERS, "outputKey": "undefined"}),
    "an output with a null character": ("process_framing", {**IDENTIFIERS, "outputKey": "out\0.mp4"}),
    "an output without a container": ("render_overlay", {**OVERLAY, "outputKey": "out.exe"}),
    "an output that is the input": ("render_overlay", {**OVERLAY, "outputKey": "in.mp4"}),
    "a user id with a slash": ("render_overlay", {**OVERLAY, "userId": "../victim"}),
    "a time with an exponent": (
        "render_overlay",
        {**IDENTIFIERS, "highlightRegions": [{**REGION, "endTime": "1e4000000"}]},
    ),
    "a network of this machine": ("apply_upscale", {**IDENTIFIERS, "scale": 2, "model": "/etc/passwd"}),
}


async def test_submit_bad_request_starts_no_container_and_no_rpc(app: Deployed) -> None:
    started = app.plane.started_containers()
    async with FunctionRegistry(app.settings) as registry:
        for name, (function, raw) in BAD.items():
            with pytest.raises(RequestError) as caught:
                await registry[function].submit(all_functions()[function].request.parse(raw))
            assert caught.value.path, name
    assert [request.rpc for request in app.plane.requests] == []
    assert app.plane.started_containers() == started
