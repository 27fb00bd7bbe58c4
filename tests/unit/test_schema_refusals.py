"""Requests that are refused when they are built: keys, ids, containers, encoders, fields set by the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reel_modal import Storage
from reel_modal.errors import InvalidKeyError, RequestError
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, StoreOptions, UpscaleRequest
from reel_modal.schema.keys import check_key
from reel_modal.schema.requests import Request

KEYS: dict[str, Any] = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
GLOBAL = StoreOptions(input_scope="global", output_scope="global")
BAD_PARTS = [
    *(
        "..",
        ".",
        "None",
        "null",
        "undefined",
        "NaN",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\ud800",
        "C:",
        "c:x",
    ),
    *(
        "CON",
        "con",
        "PRN.mp4",
        "Aux.tar.gz",
        "NUL",
        "nul .txt",
        "COM1",
        "com9.mp4",
        "LPT1",
        "COM¹",
        "CONIN$",
        "conout$.mp4",
    ),
    *("trailing.", "trailing ", "...", " ", "x" * 241, "é" * 121),
]
BAD_KEYS = [
    *(
        "",
        "/",
        "/etc/passwd",
        "//host/share",
        "\\\\host\\share",
        "a\\b",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        "../a",
        "a/../../b",
    ),
    *(f"a/{part}/b.mp4" for part in BAD_PARTS),
    *("/".join(["x" * 200] * 6), "x/" * 5000 + "x", "x" * 10_000_000),
]
GOOD_KEYS = [
    "a",
    ".hidden",
    "..a/b..c",
    "ü/日本.mp4",
    "a b/c",
    "console/nullable/comet1",
    "10:30.mp4",
    "a-1_b.c",
    "😀.mp4",
    "a" * 240,
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:30])
def test_invalid_key_is_refused_by_requests_and_stores(key: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        check_key(key)
    assert len(str(caught.value)) < 300
    with pytest.raises(InvalidKeyError):
        Storage.from_url("memory://refusals").stat(key)
    for name in ("input_key", "output_key"):
        with pytest.raises(RequestError) as refused:
            FramingRequest(**{**KEYS, name: key})
        assert refused.value.path == name


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_valid_key_is_accepted(key: str) -> None:
    assert FramingRequest(**{**KEYS, "input_key": key}).input_key == key


@pytest.mark.parametrize("user", [*BAD_PARTS, "", "a/b", "a\\b", "../x", "/", None, 1.5, True, [], b"x"], ids=ascii)
def test_invalid_user_id_is_refused_in_every_scope(user: Any) -> None:
    for store in (StoreOptions(), GLOBAL):
        with pytest.raises(RequestError) as caught:
            FramingRequest(**{**KEYS, "user_id": user}, store=store)
        assert caught.value.path == "user_id"


@pytest.mark.parametrize(
    "job", ["", " ", "None", "null", "undefined", "a\0", "a\nb", "\ud800", "x" * 241, 10**300, None]
)
def test_invalid_job_id_is_refused(job: Any) -> None:
    with pytest.raises(RequestError) as caught:
        FramingRequest(**{**KEYS, "job_id": job})
    assert caught.value.path == "job_id"


@pytest.mark.parametrize("key", ["users/victim/a.mp4", "USERS/victim/a.mp4", "Users/a.mp4", "users"])
def test_global_key_below_users_is_refused(key: str) -> None:
    with pytest.raises(RequestError, match="use the scope 'user'") as caught:
        FramingRequest(**{**KEYS, "input_key": key}, store=GLOBAL)
    assert caught.value.path == "input_key"
    assert FramingRequest(**{**KEYS, "input_key": key}).stored_keys()[0] == f"users/u/{key}"


@pytest.mark.parametrize(
    ("source", "output"),
    [("in.mp4", "in.mp4"), ("clips/A.mp4", "clips/a.MP4"), ("é.mp4", "e\u0301.mp4"), ("e\u0301.mp4", "É.mp4")],
)
def test_output_equal_to_input_is_refused(source: str, output: str) -> None:
    for store in (StoreOptions(), GLOBAL):
        with pytest.raises(RequestError, match="is the same as the input key") as caught:
            FramingRequest(**{**KEYS, "input_key": source, "output_key": output}, store=store)
        assert caught.value.path == "output_key"


@pytest.mark.parametrize(("source", "output"), [("in.mp4", "IN.mp4/out.mp4"), ("a/out.mp4/in.mp4", "a/out.mp4")])
def test_output_above_or_below_the_input_path_is_refused(source: str, output: str) -> None:
    with pytest.raises(RequestError, match="cannot both exist in a folder") as caught:
        FramingRequest(**{**KEYS, "input_key": source, "output_key": output})
    assert caught.value.path == "output_key"


def test_output_with_inputs_key_in_other_scope_is_accepted() -> None:
    request = FramingRequest(**{**KEYS, "output_key": "in.mp4"}, store=StoreOptions(input_scope="global"))
    assert request.stored_keys() == ("in.mp4", "users/u/in.mp4")


def test_key_too_long_with_user_folder_or_receipt_is_refused() -> None:
    long = "/".join(["x" * 200] * 5)
    for name in ("input_key", "output_key"):
        with pytest.raises(RequestError, match="longer than 1024 bytes") as caught:
            FramingRequest(**{**KEYS, name: f"{long}/xxxx.mp4"})
        assert caught.value.path == name


@pytest.mark.parametrize(
    ("output", "encoder"),
    [
        *(("out.gif", "auto"), ("out.webm", "libx264"), ("out.webm", "h264_nvenc"), ("out.WEBM", "libx265")),
        *(("out.gif", "auto"), ("out.gif", "gif"), ("out", "auto"), ("a.mp4/out", "auto"), (".mp4", "auto")),
        *(
            ("out.txt", "auto"),
            ("out.mp3", "auto"),
            ("out.jpg", "auto"),
            ("out.m3u8", "auto"),
            ("out.mp4.exe", "auto"),
        ),
        *(
            ("out.m4v", "libx265"),
            ("out.mov", "libsvtav1"),
            ("out.avi", "libx265"),
            ("out.ts", "ffv1"),
            ("out.mp4", "libvpx"),
        ),
    ],
)
def test_container_unsupported_by_encoder_is_refused(output: str, encoder: str) -> None:
    for kind, more in ((OverlayRequest, {"regions": ()}), (FramingRequest, {}), (UpscaleRequest, {"scale": 2})):
        with pytest.raises(RequestError, match=r"use (one of|the suffix)") as caught:
            kind(**{**KEYS, "output_key": output}, encode=EncodeOptions(encoder=encoder), **more)  # type: ignore[arg-type]
        assert caught.value.path == "output_key"


@pytest.mark.parametrize(
    ("output", "encoder"),
    [
        *(
            ("out.mp4", "auto"),
            ("out.M4V", "libx264"),
            ("a.b/out.mov", "hevc_nvenc"),
            ("out.mkv", "ffv1"),
            ("out.ts", "auto"),
        ),
        *(
            ("out.webm", "auto"),
            ("out.WebM", "auto"),
            ("out.webm", "libvpx-vp9"),
            ("out.webm", "av1_nvenc"),
            ("out.mp4", "some_new_encoder"),
            ("out.avi", "auto"),
        ),
    ],
)
def test_container_supported_by_encoder_is_accepted(output: str, encoder: str) -> None:
    request = FramingRequest(**{**KEYS, "output_key": output}, encode=EncodeOptions(encoder=encoder))
    assert (request.output_key, request.encode.encoder) == (output, encoder)


@pytest.mark.parametrize(
    "encode",
    [
        *({"encoder": name} for name in ("", "copy", "-y", "a b", "libx264;rm", "LIBX264", "../x", "x" * 65, 3)),
        *({"preset": name} for name in ("", "fastest", "p0", "p8", "FAST", "-crf", 3)),
        {"preset": "p5"},
        {"preset": "p5", "encoder": "libx264"},
    ],
    ids=str,
)
def test_invalid_encoder_or_preset_is_refused(encode: Mapping[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        FramingRequest.parse({**KEYS, "encode": encode})
    assert caught.value.path in {"encode.encoder", "encode.preset"}
    assert EncodeOptions(preset="p5", encoder="h264_nvenc").preset == "p5"


@pytest.mark.parametrize("kind", [OverlayRequest, FramingRequest, UpscaleRequest])
@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("user_id", ("user_id", "userId")),
        ("job_id", ("job_id", "jobId")),
        ("input_key", ("input_key", "inputKey")),
        ("output_key", ("output_key", "outputKey")),
        ("store", ("store",)),
    ],
)
def test_body_with_field_set_by_the_server_is_refused(
    kind: type[Request], name: str, spellings: tuple[str, ...]
) -> None:
    ours: dict[str, Any] = {**KEYS, "store": GLOBAL}
    more: dict[str, Any] = (
        {"regions": []} if kind is OverlayRequest else {"scale": 2} if kind is UpscaleRequest else {}
    )
    request = kind.parse(more, **ours)
    assert (getattr(request, name), request.store) == (ours[name], GLOBAL)
    for spelling in spellings:
        for value in ("victim", ours[name], None, {}, 0):
            with pytest.raises(RequestError, match="is set by the server") as caught:
                kind.parse({**more, spelling: value}, **ours)
            assert caught.value.path == name


def test_invalid_value_set_by_the_server_is_refused() -> None:
    rest = {name: value for name, value in KEYS.items() if name != "user_id"}
    for nothing in (None, "", "None", "../x"):
        with pytest.raises(RequestError) as caught:
            FramingRequest.parse({"userId": "victim"} if nothing else {}, **rest, user_id=nothing)  # type: ignore[arg-type]
        assert caught.value.path == "user_id"
    with pytest.raises(TypeError):
        FramingRequest.parse({}, **KEYS, user="u")


def test_body_and_server_values_are_validated_together() -> None:
    with pytest.raises(RequestError, match="is the same as the input key"):
        FramingRequest.parse({"output_key": "in.mp4"}, job_id="j", user_id="u", input_key="in.mp4")
