"""The layers in the request of a reel: their keys are inputs, and contradictions are refused with their path."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from reel_modal import ReelLayer, ReelRequest, RequestError

KEYS = {"jobId": "j", "userId": "u", "outputKey": "reel.mp4", "clips": [{"inputKey": "a.mp4"}]}


def reel(*layers: dict[str, Any]) -> ReelRequest:
    return ReelRequest.parse({**KEYS, "layers": [{"inputKey": "logo.png", **layer} for layer in layers]})


def test_layers_are_inputs_after_the_clips_and_survive_json() -> None:
    request = reel({"start": 1, "endTime": 3, "fadeIn": 0.5, "anchor": "top_right", "x": 0.97}, {})
    assert list(request.input_keys()) == ["clips[0].input_key", "layers[0].input_key", "layers[1].input_key"]
    assert request.stored_inputs() == ("users/u/a.mp4", "users/u/logo.png", "users/u/logo.png")
    assert ReelRequest.parse(request.to_dict()) == request
    assert request.layers[0] == ReelLayer(
        input_key="logo.png",
        start_seconds=1,
        end_seconds=3,
        fade_in_seconds=Fraction(1, 2),
        anchor="top_right",
        x=0.97,
    )


def test_reel_without_layers_keeps_its_hash() -> None:
    plain = ReelRequest.parse(KEYS)
    assert "layers" not in plain.to_dict()
    assert plain.request_hash() == ReelRequest.parse({**KEYS, "layers": []}).request_hash()
    assert plain.request_hash() != reel({}).request_hash()


@pytest.mark.parametrize(
    ("layer", "path", "words"),
    [
        ({"start": 2, "end": 2}, "layers[0].end_seconds", "after the start, 2"),
        ({"end": 1, "fadeIn": 0.6, "fadeOut": 0.6}, "layers[0].fade_out_seconds", "take 1.2 s of 1 s"),
        ({"end": 1, "fadeIn": 1.5}, "layers[0].fade_in_seconds", "take 1.5 s of 1 s"),
        ({"width": 0}, "layers[0].width", "above 0"),
        ({"width": 1.1}, "layers[0].width", "at most 1"),
        ({"opacity": 2}, "layers[0].opacity", "between 0 and 1"),
        ({"x": -0.1}, "layers[0].x", "between 0 and 1"),
        ({"anchor": "middle"}, "layers[0].anchor", "top_left"),
        ({"inputKey": "REEL.mp4"}, "output_key", r"the same as layers\[0\].input_key"),
        ({"inputKey": "../x.png"}, "layers[0].input_key", "key"),
    ],
)
def test_contradictions_are_refused(layer: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        reel(layer)
    assert caught.value.path == path


def test_number_of_layers_is_limited() -> None:
    with pytest.raises(RequestError, match="has 51 items; at most 50"):
        reel(*[{}] * 51)
