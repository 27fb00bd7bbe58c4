"""The request of a reel: its clips are its inputs; limits and contradictions are refused with their path."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from reel_modal import ReelClip, ReelRequest, ReelTransition, RequestError, StoreOptions
from reel_modal.schema import Timeline

REGION = {
    "id": "r",
    "startTime": 0,
    "endTime": 1,
    "keyframes": [{"time": 0, "x": 9, "y": 9, "radiusX": 5, "radiusY": 5}],
}
KEYS = {"job_id": "j", "user_id": "u", "output_key": "reel.mp4"}


def reel(*clips: Any, **fields: Any) -> ReelRequest:
    return ReelRequest.parse(
        {**KEYS, "clips": [{"inputKey": clip} if isinstance(clip, str) else clip for clip in clips], **fields}
    )


def test_request_has_all_clips_as_inputs() -> None:
    request = reel("a.mp4", "b.mp4", "a.mp4")
    assert request.input_key == "a.mp4"
    assert list(request.input_keys().items()) == [
        ("clips[0].input_key", "a.mp4"),
        ("clips[1].input_key", "b.mp4"),
        ("clips[2].input_key", "a.mp4"),
    ]
    assert request.stored_inputs() == ("users/u/a.mp4", "users/u/b.mp4", "users/u/a.mp4")
    assert request.stored_keys() == ("users/u/a.mp4", "users/u/reel.mp4")


def test_request_survives_json_and_replace() -> None:
    request = reel(
        {"inputKey": "a.mp4", "trimStart": 0.1, "trimEnd": 2, "volume": "3/2", "muted": True},
        "b.mp4",
        transitions=[{"type": "crossfade", "duration": 0.4}],
        aspect="9:16",
    )
    assert "input_key" not in request.to_dict()
    assert ReelRequest.parse(request.to_dict()) == request
    assert request.clips[0] == ReelClip(
        input_key="a.mp4", trim_start_seconds=Fraction(1, 10), trim_end_seconds=2, volume=Fraction(3, 2), mute=True
    )
    other = replace(request, clips=request.clips[1:], transitions=())
    assert (other.input_key, other.request_hash() == request.request_hash()) == ("b.mp4", False)
    assert replace(request, job_id="k").request_hash() == request.request_hash()


def test_transition_without_duration_takes_half_a_second() -> None:
    assert ReelTransition(kind="crossfade").seconds == Fraction(1, 2)
    assert (ReelTransition().kind, ReelTransition().seconds) == ("cut", 0)


@pytest.mark.parametrize(
    ("clips", "fields", "path", "words"),
    [
        ([], {}, "clips", "is empty"),
        (["a.mp4"] * 101, {}, "clips", "has 101 items; at most 100"),
        (["a.mp4", "../b.mp4"], {}, "clips[1].input_key", "key '../b.mp4'"),
        (["a.mp4", "REEL.mp4"], {}, "output_key", r"the same as clips\[1\].input_key, 'REEL.mp4'"),
        (["a.mp4", "reel.mp4/b.mp4"], {}, "output_key", "cannot both exist in a folder"),
        (["a.mp4"], {"inputKey": "b.mp4"}, "inputKey", "is not a known field"),
        (["a.mp4"], {"rate": "source"}, "rate", "use constant or a number"),
        (["a.mp4"], {"aspect": 1, "outputSize": "64x64"}, "aspect", "send one of them"),
        (["a.mp4"], {"transitions": [{}]}, "transitions", "has 1 items for 1 clips"),
        (["a.mp4", "b.mp4"], {"transitions": [{"duration": 1}]}, "transitions[0].duration_seconds", "a cut has no"),
        (
            ["a.mp4", "b.mp4"],
            {"transitions": [{"kind": "crossfade", "duration": 0}]},
            "transitions[0].duration_seconds",
            "takes more than 0 seconds",
        ),
        (["a.mp4", "b.mp4"], {"transitions": [{"kind": "wipe"}]}, "transitions[0].kind", "use one of cut, crossfade"),
        ([{"inputKey": "a.mp4", "trimStart": 2, "trimEnd": 2}], {}, "clips[0].trim_end_seconds", "must be after"),
        (
            ["b.mp4", {"inputKey": "a.mp4", "crop": [{"time": 1, "x": 0, "y": 0, "width": 9, "height": 9}] * 2}],
            {},
            "clips[1].crop[1].time_seconds",
            "the same as the previous one",
        ),
        (
            [{"inputKey": "a.mp4", "segments": [{"start": 0, "end": 2}, {"start": 1, "end": 3}]}],
            {},
            "clips[0].segments[1].start_seconds",
            "remove overlaps",
        ),
        (
            [{"inputKey": "a.mp4", "regions": [REGION, REGION]}],
            {},
            "clips[0].regions[1].id",
            r"is also the id of regions\[0\]",
        ),
        (
            [{"inputKey": "a.mp4", "trimEnd": 1, "segments": [{"start": 0, "end": 1, "speed": 4}]}, "b.mp4"],
            {"transitions": [{"kind": "crossfade", "duration": "0.3"}]},
            "transitions[0].duration_seconds",
            r"clips\[0\] lasts 0.25 s",
        ),
        ([{"inputKey": "a.mp4", "volume": 5}], {}, "clips[0].volume", "between 0 and 4"),
        (
            [{"inputKey": "a.mp4", "trimEnd": 1}, "b.mp4"],
            {"transitions": [{"kind": "crossfade", "duration": 2}]},
            "transitions[0].duration_seconds",
            r"clips\[0\] lasts 1 s",
        ),
    ],
)
def test_invalid_reel_is_refused_with_its_path(clips: Any, fields: Any, path: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        reel(*clips, **fields)
    assert caught.value.path == path


def test_key_of_another_user_is_refused_in_global_scope() -> None:
    with pytest.raises(RequestError, match="use the scope 'user'") as caught:
        reel("a.mp4", "users/victim/b.mp4", store={"inputScope": "global"})
    assert caught.value.path == "clips[1].input_key"
    assert reel("users/x.mp4").stored_inputs() == ("users/u/users/x.mp4",)
    assert StoreOptions().input_scope == "user"


def test_reel_of_more_than_four_hours_is_refused() -> None:
    request = reel("a.mp4", "b.mp4")
    lines = [Timeline.of(end=Fraction(3 * 3600))] * 2
    with pytest.raises(RequestError, match="last 21600 s together; a reel has at most 14400"):
        request.timeline(lines, Fraction(25))
