"""Upscale requests in JSON, and their output size for a clip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal import UpscaleRequest
from reel_modal.errors import RequestError

BASE = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}

NO_NAMES = [
    "https://x.invalid/n.onnx",
    "/etc/passwd",
    "./net.onnx",
    "../net",
    "a\\b",
    "C:net",
    "file:net",
    "-rf",
    "a b",
]


def parse(**fields: object) -> UpscaleRequest:
    return UpscaleRequest.parse({**BASE, **fields})


def test_upscale_parse_camel_case_equals_snake_case() -> None:
    camel = {
        "jobId": "j", "userId": 7, "inputKey": "in.mp4", "outputKey": "out.mp4", "outputWidth": 1280,
        "outputHeight": 720, "model": "large", "provider": "cuda", "allowCpu": True, "encode": {"crf": 18},
    }  # fmt: skip
    request = UpscaleRequest.parse(json.dumps(camel))
    assert request == UpscaleRequest.parse(
        {**BASE, "user_id": "7", "output_size": [1280, 720], "model": "large", "device": "cuda", "allow_cpu": True,
         "encode": {"quality": 18}}
    )  # fmt: skip
    assert (request.output_size, request.allow_cpu, request.encode.quality) == ((1280, 720), True, 18)


@given(
    st.one_of(
        st.fixed_dictionaries({"scale": st.sampled_from([2, 4])}),
        st.fixed_dictionaries({"output_size": st.tuples(*[st.integers(8, 4096).map(lambda n: 2 * n)] * 2)}),
    ),
    st.sampled_from([None, "small", "large", "my-net_2"]),
    st.sampled_from([None, "cpu", "cuda"]),
    st.booleans(),
)
def test_upscale_any_request_survives_json(
    size: dict[str, object], model: str | None, provider: str | None, cpu: bool
) -> None:
    request = parse(**size, model=model, provider=provider, allow_cpu=cpu)
    assert UpscaleRequest.parse(json.dumps(request.to_dict())) == request


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({}, "scale", "is missing; send one of them"),
        ({"scale": 2, "output_size": [64, 64]}, "scale", "are both given"),
        ({"scale": 3}, "scale", "use one of 2, 4"),
        ({"output_width": 64}, "output_height", "is missing"),
        ({"output_size": [65, 64]}, "output_width", "even sides"),
        ({"output_size": [64, 8194]}, "output_height", "between 16 and 8192"),
        ({"scale": 2, "model": " "}, "model", "must not be empty"),
        *(({"scale": 2, "model": model}, "model", "not a path or URL") for model in NO_NAMES),
        ({"scale": 2, "model": "large", "model_sha256": "1"}, "model_sha256", "64 hexadecimal"),
        ({"scale": 2, "provider": "tpu"}, "provider", "use one of cpu, cuda"),
        ({"scale": 2, "modle": "small"}, "modle", "did you mean 'model'"),
    ],
)
def test_upscale_parse_invalid_field_names_the_path(fields: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse(**fields)
    assert caught.value.path == path


def test_upscale_hash_ignores_only_the_job_id() -> None:
    assert parse(scale=2).request_hash() == parse(scale=2, job_id="other").request_hash()
    assert parse(scale=2).request_hash() != parse(scale=4).request_hash()


@pytest.mark.parametrize(
    ("fields", "source", "target", "scale"),
    [
        ({"scale": 2}, (161, 121), (322, 242), 2),
        ({"scale": 4}, (320, 180), (1280, 720), 4),
        ({"output_size": [640, 360]}, (320, 180), (640, 360), 2),
        ({"output_size": [642, 360]}, (320, 180), (642, 360), 4),
        ({"output_size": [330, 180]}, (320, 180), (330, 180), 2),
        ({"output_size": [3840, 2160]}, (320, 180), (3840, 2160), 4),
    ],
)
def test_upscale_request_gives_target_size_and_scale(
    fields: dict[str, object], source: tuple[int, int], target: tuple[int, int], scale: int
) -> None:
    request = parse(**fields)
    assert request.target_size(source) == target
    assert request.needed_scale(source) == scale


def test_upscale_to_a_smaller_size_is_refused() -> None:
    with pytest.raises(RequestError, match="is 640, but the clip has 720") as caught:
        parse(output_size=[1280, 640]).target_size((1280, 720))
    assert caught.value.path == "output_height"


def test_upscale_above_maximum_size_is_refused() -> None:
    with pytest.raises(RequestError, match="gives 15360x8640"):
        parse(scale=4).target_size((3840, 2160))
