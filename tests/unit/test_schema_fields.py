"""Declared fields: construction and `parse` accept the same values and convert them exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.unit.values import NASTY, RECORDS

from reel_modal.errors import RequestError
from reel_modal.schema import (
    CropKeyframe,
    EncodeOptions,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    RenderResult,
    StoreOptions,
    UpscaleRequest,
    Usage,
)
from reel_modal.schema._fields import fields_of

KEYS: dict[str, Any] = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}


def outcome(make: Callable[[], object]) -> object:
    try:
        return make()
    except RequestError as error:
        return error.path


@pytest.mark.parametrize("name", RECORDS)
def test_record_constructor_and_parse_accept_equal_values(name: str) -> None:
    valid = RECORDS[name]
    values = {field.name: getattr(valid, field.name) for field in fields_of(type(valid))}
    for field in values:
        for nasty in NASTY:
            changed = {**values, field: nasty}
            constructed = outcome(lambda changed=changed: type(valid)(**changed))  # type: ignore[misc]
            assert constructed == outcome(lambda changed=changed: type(valid).parse(changed)), (
                field,
                str(nasty)[:50],
            )  # type: ignore[misc]


@pytest.mark.parametrize("name", RECORDS)
def test_record_survives_its_own_json(name: str) -> None:
    record = RECORDS[name]
    parsed = type(record).parse(record.to_dict())
    assert parsed == record
    assert parsed.to_dict() == record.to_dict()


def keyframe(**changes: Any) -> HighlightKeyframe:
    return HighlightKeyframe(**{"time_seconds": 0, "x": 1, "y": 1, "radius_x": 1, "radius_y": 1, **changes})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0.1, Fraction(1, 10)),
        (2.017, Fraction(2017, 1000)),
        (1e-7, Fraction(1, 10_000_000)),
        (3, Fraction(3)),
        ("1.5", Fraction(3, 2)),
        (" 3/2 ", Fraction(3, 2)),
        ("1e-3", Fraction(1, 1000)),
        (Fraction(1001, 30000), Fraction(1001, 30000)),
        (Decimal("0.1"), Fraction(1, 10)),
        (np.float64(0.1), Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.int32(2), Fraction(2)),
        (np.array(0.5), Fraction(1, 2)),
    ],
)
def test_time_is_converted_exactly(value: Any, seconds: Fraction) -> None:
    converted = keyframe(time_seconds=value).time_seconds
    assert (converted, type(converted)) == (seconds, Fraction)


@pytest.mark.parametrize("value", [3, 3.0, Fraction(3), Decimal(3), np.int64(3), np.float32(3)])
def test_position_becomes_a_float(value: Any) -> None:
    converted = keyframe(x=value).x
    assert (converted, type(converted)) == (3.0, float)


@pytest.mark.parametrize("value", [18, 18.0, Fraction(18), np.uint8(18), Decimal("18.0")])
def test_quality_becomes_an_int(value: Any) -> None:
    converted = EncodeOptions(quality=value).quality
    assert (converted, type(converted)) == (18, int)


@pytest.mark.parametrize(
    "value",
    [(1920, 1080), [1920.0, 1080], np.array([1920, 1080]).tolist(), "1920x1080", {"width": 1920, "height": 1080}],
)
def test_size_becomes_a_pair_of_ints(value: Any) -> None:
    assert FramingRequest(**KEYS, output_size=value).output_size == (1920, 1080)
    assert FramingRequest.parse({**KEYS, "output_size": value}).output_size == (1920, 1080)


@pytest.mark.parametrize("value", ["9:16", "9/16", 0.5625, Fraction(9, 16), " 9 : 16 ", "0.5625"])
def test_aspect_is_converted_exactly(value: Any) -> None:
    assert FramingRequest(**KEYS, aspect=value).aspect == Fraction(9, 16)


@pytest.mark.parametrize("value", [29.97, "29.97", Decimal("29.97"), np.float32(29.97), "30000/1001", 30000 / 1001])
def test_fps_near_an_ntsc_rate_becomes_that_rate(value: Any) -> None:
    assert FramingRequest(**KEYS, fps=value).fps == Fraction(30000, 1001)
    assert FramingRequest.parse({**KEYS, "fps": value}).fps == Fraction(30000, 1001)


def test_fps_given_as_a_fraction_is_kept() -> None:
    request = FramingRequest(**KEYS, fps=Fraction(2997, 100))
    assert request.fps == Fraction(2997, 100)
    assert FramingRequest.parse(request.to_dict()) == request


def test_nested_fields_accept_records_or_mappings() -> None:
    parts: dict[str, Any] = {"time_seconds": 0.5, "x": 0, "y": 0, "width": 10, "height": 10}
    request = FramingRequest(**KEYS, crop=[CropKeyframe(**parts)], encode={"crf": 20}, store=StoreOptions())
    assert request == FramingRequest.parse({**KEYS, "crop": [parts], "encode": EncodeOptions(quality=20)})
    assert request.crop[0].time_seconds == Fraction(1, 2)


def test_none_means_the_default_of_an_optional_field() -> None:
    assert FramingRequest(**KEYS, fit=None, encode=None, crop=None) == FramingRequest(**KEYS)  # type: ignore[arg-type]
    assert FramingRequest.parse({**KEYS, "fit": None, "encode": None, "crop": None}) == FramingRequest(**KEYS)


def test_error_of_an_alias_names_the_sent_key() -> None:
    with pytest.raises(RequestError, match=r"^fps: .*\(sent as 'targetFps'\)$") as caught:
        FramingRequest.parse({**KEYS, "targetFps": -1})
    assert caught.value.path == "fps"


@pytest.mark.parametrize(
    ("make", "noun"), [(OverlayRequest.parse, "request"), (RenderResult.parse, "result"), (Usage.parse, "result")]
)
@pytest.mark.parametrize("raw", ["[]", "3", "{", [], None])
def test_parse_error_names_request_or_result(make: Callable[[Any], object], noun: str, raw: Any) -> None:
    with pytest.raises(RequestError, match=noun):
        make(raw)


def huge(name: str, count: int) -> list[Mapping[str, object]]:
    part = {"time": 0, "x": 0, "y": 0, "radius_x": 1, "radius_y": 1}
    return [
        {"id": f"{name}{index}", "start_time": 0, "end_time": 1, "keyframes": [part] * count} for index in range(3)
    ]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"regions": [{}] * 1001}, "regions"),
        ({"regions": huge("r", 40_000)}, "regions"),
        ({"regions": [{**huge("r", 1)[0], "label": "x" * 1001}]}, "regions[0].label"),
        ({"regions": [{**huge("r", 1)[0], "id": "x" * 241}]}, "regions[0].id"),
        ({"regions": [], "encode": {"encoder": "x" * 65}}, "encode.encoder"),
        ({"regions": [], "job_id": "x" * 241}, "job_id"),
        ({"regions": [], "input_key": "x/" * 600 + "x"}, "input_key"),
        ({"regions": [], "style": {"fade_seconds": 10_000_001}}, "style.fade_seconds"),
    ],
)
def test_field_above_its_limit_is_refused(fields: dict[str, object], path: str) -> None:
    with pytest.raises(RequestError) as caught:
        OverlayRequest.parse({**KEYS, **fields})
    assert caught.value.path == path


def test_regions_with_too_many_keyframes_are_refused_unread() -> None:
    class Unread(Sequence[object]):
        def __len__(self) -> int:
            return 50_000

        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("a keyframe was read")

    regions = [{"id": str(index), "start_time": 0, "end_time": 1, "keyframes": Unread()} for index in range(3)]
    with pytest.raises(RequestError, match="have 150000 keyframes in total"):
        OverlayRequest.parse({**KEYS, "regions": regions})


def test_replace_validates_like_construction() -> None:
    request = UpscaleRequest(**KEYS, scale=2)
    with pytest.raises(RequestError, match=r"^scale: is 3; use one of 2, 4"):
        dataclasses.replace(request, scale=3)
    assert dataclasses.replace(request, scale=4.0).scale == 4  # type: ignore[arg-type]


def test_region_converts_its_fields() -> None:
    region = HighlightRegion(id=7, start_seconds=0.5, end_seconds="1.5", keyframes=[keyframe()])  # type: ignore[arg-type]
    assert (region.id, region.start_seconds, region.end_seconds) == ("7", Fraction(1, 2), Fraction(3, 2))


@pytest.mark.parametrize(
    "value",
    ["1e-401", "0." + "0" * 500 + "1", "1/1" + "0" * 500, "1e-99999999", Decimal("1e-401"), Fraction(1, 10**401)],
)
def test_time_with_too_many_digits_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match=r"time_seconds: .*digits"):
        keyframe(time_seconds=value)
    assert keyframe(time_seconds=5e-324).time_seconds > 0
