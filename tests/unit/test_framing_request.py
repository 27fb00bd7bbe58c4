"""Framing requests as hosts send them, and their errors."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from tests.unit.framing_strategies import framing_requests

from reel_modal.errors import RequestError
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, SpeedSegment

APP_JSON: dict[str, object] = {
    "jobId": "j1",
    "userId": 7,
    "inputKey": "clips/in.mp4",
    "outputKey": "clips/out.mp4",
    "cropKeyframes": [
        {"time": 0, "x": 656.25, "y": 0, "width": 607.5, "height": 1080},
        {"time": 2.017, "x": 700, "y": 10, "width": 540, "height": 960},
    ],
    "videoWidth": 1920,
    "videoHeight": 1080,
    "segmentData": {
        "trimStart": 0.5,
        "trimEnd": 9.1,
        "segments": [{"start": 1, "end": 2, "speed": 0.25}, {"start": 3, "end": 4.5, "speed": 2}],
    },
    "outputWidth": 810,
    "outputHeight": 1440,
    "fps": 29.97,
    "includeAudio": False,
}


def test_framing_parse_app_json() -> None:
    request = FramingRequest.parse(json.dumps(APP_JSON))
    assert (request.job_id, request.user_id, request.input_key) == ("j1", "7", "clips/in.mp4")
    assert request.crop[1] == CropKeyframe(time_seconds=Fraction("2.017"), x=700, y=10, width=540, height=960)
    assert (request.video_size, request.output_size) == ((1920, 1080), (810, 1440))
    assert (request.trim_start_seconds, request.trim_end_seconds) == (Fraction(1, 2), Fraction("9.1"))
    assert [segment.speed for segment in request.segments] == [Fraction(1, 4), 2]
    assert (request.fps, request.audio, request.encode) == (Fraction(30000, 1001), False, EncodeOptions())


def test_framing_parse_missing_fields_have_defaults() -> None:
    bare = FramingRequest.parse({key: APP_JSON[key] for key in ("jobId", "userId", "inputKey", "outputKey")})
    assert bare == FramingRequest(job_id="j1", user_id="7", input_key="clips/in.mp4", output_key="clips/out.mp4")
    assert (bare.crop, bare.fit, bare.background, bare.slow_motion) == ((), "cover", "blur", "repeat")
    assert (bare.interpolation, bare.outside, bare.audio, bare.fps) == ("linear", "clamp", True, None)
    assert (bare.trim_start_seconds, bare.trim_end_seconds, bare.segments) == (0, None, ())


@pytest.mark.parametrize(
    "trim",
    [
        {"trimRange": {"start": 0.5, "end": 9.1}},
        {"trim_range": {"start_seconds": 0.5, "end_seconds": "91/10"}},
        {"trim_start": 0.5, "trimEndSeconds": 9.1},
        {"segment_data": {"trim_start": 0.5, "trim_end": 9.1}},
        {"segmentData": {"trimStart": 0.5, "trimEnd": 9.1}, "trimRange": {"start": 0.5, "end": 9.1}},
        {"segmentData": None, "trimRange": {"start": 0.5, "end": 9.1}},
    ],
)
def test_framing_parse_accepts_every_form_of_trim(trim: dict[str, object]) -> None:
    raw = {key: value for key, value in APP_JSON.items() if key != "segmentData"} | trim
    request = FramingRequest.parse(raw)
    assert (request.trim_start_seconds, request.trim_end_seconds) == (Fraction(1, 2), Fraction("9.1"))


@pytest.mark.parametrize(("said", "meant"), [(90, 90), (-90, 270), (450, 90), (180.0, 180), (0, 0)])
def test_framing_rotation_is_clockwise_quarter_turns(said: float, meant: int) -> None:
    assert FramingRequest.parse({**APP_JSON, "rotation": said}).rotation_degrees == meant


@pytest.mark.parametrize("said", ["9:16", "9/16", 0.5625, " 9:16 "])
def test_framing_aspect_accepts_several_forms(said: object) -> None:
    raw = {key: value for key, value in APP_JSON.items() if not key.startswith("output")} | {"outputKey": "o.mp4"}
    assert FramingRequest.parse({**raw, "aspectRatio": said}).aspect == Fraction(9, 16)


@pytest.mark.parametrize("said", [[810, 1440], {"width": 810, "height": 1440}])
def test_framing_output_size_may_be_a_pair(said: object) -> None:
    assert FramingRequest.parse({**APP_JSON, "output_size": said}).output_size == (810, 1440)


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


CROP = ("cropKeyframes", 1)
SEGMENTS = ("segmentData", "segments")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_edit("jobId"), "job_id: is missing"),
        (_edit("outputKey", value=""), "output_key: must not be empty"),
        (_edit("crop", value=[]), "crop: 'cropKeyframes' is a list of 2 but 'crop' is []; send one of them"),
        (_edit(*CROP, "width", value=0), "crop[1].width: is 0; it must be above 0"),
        (_edit(*CROP, "height", value=-2), "crop[1].height: is -2; it must be above 0"),
        (_edit(*CROP, "x", value=float("nan")), "crop[1].x: must be a finite number"),
        (_edit(*CROP, "y"), "crop[1].y: is missing"),
        (_edit(*CROP, "heigth", value=3), "crop[1].heigth: is not a known field; did you mean 'height'?"),
        (_edit(*CROP, "time", value=-1), "crop[1].time_seconds: is -1; it must be between 0 and 10000000"),
        (
            _edit(*CROP, "time", value=0),
            "crop[1].time_seconds: is 0, the same as the previous one; sort the keyframes",
        ),
        (
            _edit("cropKeyframes", 0, "time", value=3),
            "crop[1].time_seconds: is 2.017, before the previous one; sort the keyframes",
        ),
        (_edit("videoWidth"), "video_width: is missing; send both sides"),
        (_edit("videoWidth", value=0), "video_width: is 0; it must be between 1 and 100000"),
        (_edit("segmentData", value=3), "segment_data: must be an object, not 3"),
        (_edit("segmentData", "trim", value=3), "segment_data.trim: is not a known field; did you mean 'trim"),
        (
            _edit("segmentData", "trimEnd", value=0.5),
            "trim_end_seconds: is 0.5; it must be after the start of the trim, 0.5",
        ),
        (_edit("segmentData", "trimStart", value=-1), "trim_start_seconds: is -1; it must be between 0 and 10000000"),
        (
            _edit("segmentData", "trimStart", value="x"),
            "trim_start_seconds: 'x' is not a number",
        ),
        (
            _edit("trimRange", value={"start": 0.7}),
            "trim_start_seconds: 'segmentData.trimStart' is 0.5 but 'trimRange.start' is 0.7; send one of them",
        ),
        (
            _edit("trim_end", value=3),
            "trim_end_seconds: 'segmentData.trimEnd' is 9.1 but 'trim_end' is 3; send one of them",
        ),
        (_edit("trimRange", value={"begin": 1}), "trim_range.begin: is not a known field"),
        (
            _edit(*SEGMENTS, 1, "start", value=1.5),
            "segments[1].start_seconds: is 1.5; segments[0] ends at 2: sort the segments",
        ),
        (
            _edit(*SEGMENTS, 0, "end", value=1),
            "segments[0].end_seconds: is 1; it must be after the start, 1",
        ),
        (
            _edit(*SEGMENTS, 0, "speed", value=0.05),
            "segments[0].speed: is 0.05; it must be between 0.1 and 10",
        ),
        (_edit(*SEGMENTS, 0, "speed", value=11), "segments[0].speed: is 11; it must be between 0.1"),
        (_edit("outputHeight"), "output_height: is missing; send both sides"),
        (_edit("outputWidth", value=811), "output_width: is 811; video with 4:2:0 chroma has even sides"),
        (_edit("outputWidth", value=8), "output_width: is 8; it must be between 16 and 8192"),
        (_edit("outputHeight", value=9000), "output_height: is 9000; it must be between 16 and 8192"),
        (_edit("output_size", value=[812, 1440]), "output_size: and output_width and output_height differ"),
        (_edit("output_size", value=[1]), "output_size: is a list of 1; write the width and the height"),
        (
            _edit("aspect", value="9:16"),
            "aspect: is given together with the output size (810, 1440); send one of them",
        ),
        (_edit("aspect", value="tall"), "aspect: 'tall' is not a number; write 9:16"),
        (_edit("fps", value=0), "fps: frame rate 0 must be above 0 frames per second"),
        (_edit("fps", value="fast"), "fps: frame rate 'fast' is not a number; write 29.97 or '30000/1001'"),
        (_edit("fps", value=[]), "fps: frame rate must be a number, not a list"),
        (_edit("fps", value=1000), "fps: is 1000; it must be between 1 and 240"),
        (_edit("rotation", value=45), "rotation_degrees: is 45; it must be 0, 90, 180 or 270"),
        (_edit("includeAudio", value="yes"), "audio: must be true or false, not a string"),
        (_edit("fit", value="stretch"), "fit: is 'stretch'; use one of cover, contain"),
        (_edit("background", value="black"), "background: is 'black'; use blur or #rrggbb"),
        (_edit("slowMotion", value="flow"), "slow_motion: is 'flow'; use one of repeat, blend"),
        (_edit("outside", value="wrap"), "outside: is 'wrap'; use one of clamp, refuse"),
        (_edit("interpolation", value="cubic"), "interpolation: is 'cubic'; use one of linear, catmull_rom"),
        (_edit("encode", value={"quality": 99}), "encode.quality: is 99; it must be between 0 and 51"),
        (_edit("framerate", value=30), "framerate: is not a known field"),
    ],
)
def test_framing_parse_invalid_field_names_path_and_reason(
    edit: Callable[[dict[str, object]], None], message: str
) -> None:
    raw = copy.deepcopy(APP_JSON)
    edit(raw)
    with pytest.raises(RequestError) as caught:
        FramingRequest.parse(raw)
    assert str(caught.value).startswith(message)
    assert caught.value.path == message.split(":", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("keyframe", "message"),
    [
        ({"x": 1400.0}, "crop[0].x: extends from 1400 to 2007.5; the frame is 1920 pixels wide"),
        ({"x": -1.0}, "crop[0].x: extends from -1 to 606.5; the frame is 1920 pixels wide"),
        ({"y": 0.5}, "crop[0].y: extends from 0.5 to 1080.5; the frame is 1080 pixels high"),
    ],
)
def test_framing_crop_outside_frame_is_refused_if_requested(keyframe: dict[str, float], message: str) -> None:
    raw = copy.deepcopy(APP_JSON)
    raw["cropKeyframes"][0].update(keyframe)  # type: ignore[index]
    FramingRequest.parse(raw)
    with pytest.raises(RequestError) as caught:
        FramingRequest.parse({**raw, "outside": "refuse"})
    assert str(caught.value) == message
    FramingRequest.parse({**APP_JSON, "outside": "refuse"})


def test_framing_crop_rounding_to_the_frame_is_accepted() -> None:
    raw = copy.deepcopy(APP_JSON)
    raw["cropKeyframes"][0].update(x=1312.509, width=607.5)  # type: ignore[index]
    request = FramingRequest.parse({**raw, "outside": "refuse"})
    assert (request.crop[0].x, request.crop[0].width) == (1312.509, 607.5)


def test_framing_timeline_checks_times_against_clip_length() -> None:
    request = FramingRequest.parse(APP_JSON)
    assert request.timeline(Fraction(8)).source_end == 8
    with pytest.raises(RequestError, match=r"^trim_start_seconds: is 0.5; the clip ends at 0.25"):
        request.timeline(Fraction(1, 4))
    strict = dataclasses.replace(request, outside="refuse")
    assert strict.timeline(Fraction("9.1")).source_end == Fraction("9.1")
    with pytest.raises(RequestError, match=r"^trim_end_seconds: is 9.1; the clip ends at 9$"):
        strict.timeline(Fraction(9))
    with pytest.raises(RequestError, match=r"^segments\[1\].end_seconds: is 4.5; the clip ends at 4$"):
        dataclasses.replace(strict, trim_end_seconds=None).timeline(Fraction(4))


def test_framing_construction_checks_like_parse() -> None:
    with pytest.raises(RequestError, match=r"^speed: is 20"):
        SpeedSegment(start_seconds=Fraction(0), end_seconds=Fraction(1), speed=Fraction(20))
    with pytest.raises(RequestError, match=r"^rotation_degrees: is 45"):
        dataclasses.replace(FramingRequest.parse(APP_JSON), rotation_degrees=45)


def test_framing_hash_ignores_job_id_and_covers_options() -> None:
    request = FramingRequest.parse(APP_JSON)
    assert dataclasses.replace(request, job_id="another").request_hash() == request.request_hash()
    assert dataclasses.replace(request, audio=True).request_hash() != request.request_hash()
    assert FramingRequest.parse(request.to_dict()).request_hash() == request.request_hash()


@given(request=framing_requests())
def test_framing_any_valid_request_survives_json(request: FramingRequest) -> None:
    decoded = json.loads(json.dumps(request.to_dict()))
    assert FramingRequest.parse(decoded) == request
    assert FramingRequest.parse(decoded).to_dict() == decoded
