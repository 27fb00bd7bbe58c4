"""Requests as hosts send them, and their errors."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from typing import get_args

import pytest
from tests.unit.values import RESULT

from reel_modal.errors import RequestError
from reel_modal.schema import (
    DEGRADATION_CODES,
    Degradation,
    DegradationCode,
    EncodeOptions,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    OverlayStyle,
    RenderResult,
)

APP_JSON: dict[str, object] = {
    "jobId": "j1",
    "userId": 7,
    "inputKey": "clips/in.mp4",
    "outputKey": "clips/out.mp4",
    "highlightRegions": [
        {
            "id": 12,
            "startTime": 0.5,
            "endTime": 2.017,
            "videoWidth": 1920,
            "videoHeight": 1080,
            "label": "No. 9",
            "keyframes": [
                {"time": 0.5, "x": 100, "y": 200, "radiusX": 40, "radiusY": 80, "opacity": 0.2, "color": "#FFFF00"},
                {
                    "time": 2.017,
                    "x": 110,
                    "y": 210,
                    "radiusX": 40,
                    "radiusY": 80,
                    "strokeOpacity": 1,
                    "fillOpacity": 0,
                },
            ],
        }
    ],
    "effectType": "brightness_boost",
    "overlaySettings": {"dimStrength": 0.3, "fadeSeconds": 0.25},
}


def test_overlay_parse_app_json() -> None:
    request = OverlayRequest.parse(json.dumps(APP_JSON))
    (region,) = request.regions
    assert (request.job_id, request.user_id, request.input_key) == ("j1", "7", "clips/in.mp4")
    assert (request.effect, request.style.dim_strength, request.style.fade_seconds) == (
        "brightness_boost",
        0.3,
        Fraction(1, 4),
    )
    assert (region.id, region.start_seconds, region.end_seconds) == ("12", Fraction(1, 2), Fraction(2017, 1000))
    assert (region.video_size, region.label, region.enabled) == ((1920, 1080), "No. 9", True)
    first, second = region.keyframes
    assert (first.fill_opacity, first.stroke_opacity, first.color) == (0.2, 0.0, "#FFFF00")
    assert (second.fill_opacity, second.stroke_opacity, second.color) == (0.0, 1.0, None)
    assert request.encode == EncodeOptions()


def test_overlay_parse_default_opacity_and_null_video_size() -> None:
    raw = copy.deepcopy(APP_JSON)
    region = raw["highlightRegions"][0]  # type: ignore[index]
    del region["keyframes"][0]["opacity"]
    region["videoWidth"] = region["videoHeight"] = None
    parsed = OverlayRequest.parse(raw).regions[0]
    assert parsed.keyframes[0].fill_opacity == 0.15
    assert parsed.video_size is None


def _edit(*steps: object, value: object = ...) -> Callable[[dict[str, object]], None]:
    """Return a function that sets the value at a path, or deletes it if no value is given."""

    def edit(raw: dict[str, object]) -> None:
        at: object = raw
        for step in steps[:-1]:
            at = at[step]  # type: ignore[index]
        if value is ...:
            del at[steps[-1]]  # type: ignore[attr-defined]
        else:
            at[steps[-1]] = value  # type: ignore[index]

    return edit


REGION = ("highlightRegions", 0)
KEYFRAME = (*REGION, "keyframes", 0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit("jobId"), "job_id: is missing"),
        (_edit("jobId", value=True), "job_id: must be a string, not a boolean"),
        (_edit("inputKey", value=" "), "input_key: must not be empty"),
        (_edit("highlightRegions", value="x"), "regions: must be a list, not a string"),
        (_edit("highlightRegions", 0, value=3), "regions[0]: must be an object, not 3"),
        (
            _edit("effectType", value="sparkle"),
            "effect: is 'sparkle'; use one of dark_overlay, brightness_boost, original",
        ),
        (_edit("efect", value="original"), "efect: is not a known field; did you mean 'effect'?"),
        (_edit("job_id", value="j2"), "job_id: 'jobId' is 'j1' but 'job_id' is 'j2'; send one of them"),
        (
            _edit(*REGION, "startTime", value=3),
            "regions[0].end_seconds: is 2.017; it must not be before the start, 3",
        ),
        (_edit(*REGION, "startTime", value=-1), "regions[0].start_seconds: is -1; it must be between 0 and 10000000"),
        (
            _edit(*REGION, "startTime", value="soon"),
            "regions[0].start_seconds: 'soon' is not a number; write 1.5 or '3/2'",
        ),
        (_edit(*REGION, "enabled", value=1), "regions[0].enabled: must be true or false, not 1"),
        (_edit(*REGION, "videoHeight", value=None), "regions[0].video_height: is missing; send both sides"),
        (
            _edit(*REGION, "videoHeight", value=0),
            "regions[0].video_height: is 0; it must be between 1 and 100000",
        ),
        (_edit(*REGION, "videoHeight", value=10.5), "regions[0].video_height: must be a whole number, not 10.5"),
        (_edit(*REGION, "keyframes", value=[]), "regions[0].keyframes: must have at least one keyframe"),
        (
            _edit(*REGION, "keyframes", 1, "time", value=0.5),
            "regions[0].keyframes[1].time_seconds: is 0.5, the same as",
        ),
        (_edit(*REGION, "keyframes", 1, "time", value=0.1), "regions[0].keyframes[1].time_seconds: is 0.1, before"),
        (_edit(*KEYFRAME, "radiusX"), "regions[0].keyframes[0].radius_x: is missing"),
        (_edit(*KEYFRAME, "radiusX", value=-3), "regions[0].keyframes[0].radius_x: is -3; it must be above 0"),
        (_edit(*KEYFRAME, "radiusX", value=0), "regions[0].keyframes[0].radius_x: is 0; it must be above 0"),
        (_edit(*KEYFRAME, "x", value=float("nan")), "regions[0].keyframes[0].x: must be a finite number, not nan"),
        (_edit(*KEYFRAME, "y", value=float("inf")), "regions[0].keyframes[0].y: must be a finite number, not inf"),
        (_edit(*KEYFRAME, "x", value=True), "regions[0].keyframes[0].x: must be a number, not a boolean"),
        (
            _edit(*KEYFRAME, "opacity", value=1.5),
            "regions[0].keyframes[0].fill_opacity: is 1.5; it must be between 0",
        ),
        (
            _edit(*KEYFRAME, "fillOpacity", value=0.3),
            "regions[0].keyframes[0].fill_opacity: 'opacity' is 0.2 but 'fillOpacity' is 0.3",
        ),
        (_edit(*KEYFRAME, "color", value="red"), "regions[0].keyframes[0].color: is 'red'; write it as #rrggbb"),
        (
            _edit(*KEYFRAME, "radius", value=3),
            "regions[0].keyframes[0].radius: is not a known field; did you mean 'radius",
        ),
        (_edit("overlaySettings", "dimStrength", value=2), "style.dim_strength: is 2; it must be between 0 and 1"),
        (
            _edit("overlaySettings", "interpolation", value="cubic"),
            "style.interpolation: is 'cubic'; use one of linear",
        ),
        (_edit("encode", value={"quality": 99}), "encode.quality: is 99; it must be between 0 and 51"),
    ],
)
def test_overlay_parse_invalid_field_names_path_and_reason(
    edit: Callable[[dict[str, object]], None], message: str
) -> None:
    raw = copy.deepcopy(APP_JSON)
    edit(raw)
    with pytest.raises(RequestError) as caught:
        OverlayRequest.parse(raw)
    assert str(caught.value).startswith(message)
    assert caught.value.path == message.split(":", maxsplit=1)[0]


def test_overlay_parse_equal_aliases_are_accepted() -> None:
    raw = {**APP_JSON, "job_id": "j1"}
    assert OverlayRequest.parse(raw).job_id == "j1"


def test_overlay_parse_duplicate_region_id_is_refused() -> None:
    raw = copy.deepcopy(APP_JSON)
    raw["highlightRegions"] *= 2  # type: ignore[operator]
    with pytest.raises(RequestError, match=r"^regions\[1\].id: '12' is also the id of regions\[0\]"):
        OverlayRequest.parse(raw)


def test_overlay_parse_too_many_regions_is_refused_unread() -> None:
    with pytest.raises(RequestError, match="has 1001 items; at most 1000"):
        OverlayRequest.parse({**APP_JSON, "highlightRegions": [{}] * 1001})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "the request is not JSON"),
        ("[]", "a request must be a JSON object, not a list"),
        (b"\xff", "is not JSON"),
    ],
)
def test_overlay_parse_other_json_is_refused(raw: str | bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        OverlayRequest.parse(raw)


def test_overlay_construction_checks_like_parse() -> None:
    good = HighlightKeyframe(time_seconds=Fraction(0), x=1, y=1, radius_x=1, radius_y=1)
    with pytest.raises(RequestError, match=r"^radius_y: is -1"):
        dataclasses.replace(good, radius_y=-1)
    with pytest.raises(RequestError, match=r"^keyframes\[1\]\.time_seconds: is 0, the same as"):
        HighlightRegion(id="a", start_seconds=Fraction(0), end_seconds=Fraction(1), keyframes=(good, good))
    with pytest.raises(RequestError, match=r"^effect: is 'no'"):
        dataclasses.replace(OverlayRequest.parse(APP_JSON), effect="no")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"^feather: is 3"):
        OverlayStyle(feather=3)


def test_overlay_hash_ignores_job_id_and_covers_options() -> None:
    request = OverlayRequest.parse(APP_JSON)
    assert dataclasses.replace(request, job_id="another").request_hash() == request.request_hash()
    assert dataclasses.replace(request, effect="original").request_hash() != request.request_hash()
    assert OverlayRequest.parse(request.to_dict()).request_hash() == request.request_hash()


def test_overlay_hash_changes_with_encoder_threads() -> None:
    request = OverlayRequest.parse(APP_JSON)
    one = dataclasses.replace(request, encode=dataclasses.replace(request.encode, threads=1))
    assert one.request_hash() != request.request_hash()
    assert OverlayRequest.parse(one.to_dict()) == one


@pytest.mark.parametrize("threads", [0, 65, 1.5, "many", True])
def test_encode_invalid_threads_are_refused(threads: object) -> None:
    with pytest.raises(RequestError, match=r"^encode\.threads: "):
        OverlayRequest.parse({**APP_JSON, "encode": {"threads": threads}})


def test_result_survives_json_with_documented_keys() -> None:
    result = dataclasses.replace(RESULT, degraded=(Degradation("size_changed", "a note"),), usage=None)
    decoded = json.loads(json.dumps(result.to_dict()))
    assert (decoded["status"], decoded["output_key"], decoded["fps"]) == ("success", "o.mp4", "30000/1001")
    assert decoded["degraded"] == [{"code": "size_changed", "message": "a note"}]
    assert RenderResult.parse(decoded) == result


def test_degradation_codes_all_have_a_meaning() -> None:
    assert set(DEGRADATION_CODES) == set(get_args(DegradationCode))


def test_degradation_str_is_its_message() -> None:
    note = Degradation("crop_moved", "a crop was moved")
    assert str(note) == f"{note}" == note.message == "a crop was moved"
    assert Degradation.parse(note.to_dict()) == note


def test_degradation_unknown_code_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^code: "):
        Degradation.parse({"code": "unheard_of", "message": "a note"})
