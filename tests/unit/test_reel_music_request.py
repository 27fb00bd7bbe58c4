"""Music and loudness in the request of a reel: inputs, limits, defaults, and the hash of requests without them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from reel_modal import ReelMusic, ReelRequest, RequestError

KEYS = {"job_id": "j", "user_id": "u", "output_key": "reel.mp4", "clips": [{"inputKey": "a.mp4"}]}


def reel(**fields: Any) -> ReelRequest:
    return ReelRequest.parse({**KEYS, **fields})


def test_request_without_music_and_loudness_keeps_its_json_and_hash() -> None:
    assert not {"music", "loudness"} & reel().to_dict().keys()
    assert reel(loudness="off").request_hash() == reel().request_hash()
    assert reel(loudness="on").request_hash() != reel().request_hash()


def test_music_is_an_input_but_not_a_video() -> None:
    request = reel(music={"inputKey": "song.mp3"})
    assert request.input_keys() == {"clips[0].input_key": "a.mp4", "music.input_key": "song.mp3"}
    assert request.clip_keys() == {"clips[0].input_key": "a.mp4"}
    assert request.stored_inputs() == ("users/u/a.mp4", "users/u/song.mp3")


def test_music_has_defaults_and_short_names_and_survives_json() -> None:
    music = {"inputKey": "s.mp3", "start": "1/3", "fadeIn": 2, "fadeOut": 3, "loop": False, "ducking": 6}
    request = reel(music=music, loudness=-16)
    assert request.music == ReelMusic(
        input_key="s.mp3",
        start_seconds=Fraction(1, 3),
        fade_in_seconds=Fraction(2),
        fade_out_seconds=Fraction(3),
        loop=False,
        ducking_db=Fraction(6),
    )
    assert ReelRequest.parse(request.to_dict()) == request
    usual = ReelMusic(input_key="s.mp3")
    assert (usual.volume, usual.fade_in_seconds, usual.fade_out_seconds) == (1, 0, 1)
    assert (usual.loop, usual.ducking_db) == (True, 12)


@pytest.mark.parametrize(
    ("loudness", "target"), [("off", None), ("on", -14), (-23, -23), ("-18.5", Fraction(-37, 2))]
)
def test_loudness_gives_a_target(loudness: object, target: object) -> None:
    request = reel(loudness=loudness)
    assert request.target_lufs == target
    assert ReelRequest.parse(request.to_dict()) == request


@pytest.mark.parametrize(
    ("fields", "path", "text"),
    [
        ({"loudness": "loud"}, "loudness", "or write off, or on for -14 LUFS"),
        ({"loudness": -4}, "loudness", "between -40 and -5"),
        ({"music": {}}, "music.input_key", ""),
        ({"music": {"inputKey": "s.mp3", "volume": 5}}, "music.volume", "between 0 and 4"),
        ({"music": {"inputKey": "s.mp3", "fadeOut": 61}}, "music.fade_out_seconds", "between 0 and 60"),
        ({"music": {"inputKey": "s.mp3", "ducking": 41}}, "music.ducking_db", "between 0 and 40"),
        ({"music": {"inputKey": "../s.mp3"}}, "music.input_key", ""),
        ({"music": {"inputKey": "reel.mp4"}}, "output_key", "the same as music.input_key"),
    ],
)
def test_invalid_music_or_loudness_is_refused(fields: dict[str, object], path: str, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        reel(**fields)
    assert caught.value.path == path
    assert text in caught.value.problem
