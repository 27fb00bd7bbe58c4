"""Declarations of functions: names, resources, types, and the modules in which they are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.jobs import overlay
from tests.own_functions import (
    CopyRequest,
    PosterRequest,
    PosterResult,
    SpriteRequest,
    SpriteResult,
    Tile,
    copy_file,
    make_poster,
    make_sprite,
)

from reel_modal.errors import ConfigError, RequestError
from reel_modal.functions.catalog import MODULES_VARIABLE, all_functions, find_function, function_of
from reel_modal.functions.context import JobContext
from reel_modal.functions.declaration import render_function
from reel_modal.functions.specs import ImageSpec
from reel_modal.schema import HighlightKeyframe, RenderResult
from reel_modal.storage import PathStorage

BUILT_IN = ["render_overlay", "process_framing", "apply_upscale", "assemble_reel"]
SPRITE = SpriteRequest(
    "job", "in.mp4", "out.jpg", (Tile(0.5), Tile(1.0, (64, 36))), cover=Tile(2.0), named={"first": Tile(0.0)}
)


def declare(**changes: object) -> Any:
    fields: dict[str, Any] = {
        "name": "make_thing",
        "request": CopyRequest,
        "result": RenderResult,
        "cpu": 1,
        "memory_mb": 1024,
        "timeout_seconds": 60,
    }
    return render_function(**fields | changes)


@pytest.mark.parametrize("name", ["", "Make", "1st", "make-it", "make it", "_make", "é", "a" * 61, "make\n"])
def test_declaration_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid name of a function"):
        declare(name=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu", 0.1),
        ("cpu", 65),
        ("memory_mb", 64),
        ("memory_mb", True),
        ("timeout_seconds", 0),
        ("timeout_seconds", 86_401),
        ("timeout_seconds", "60"),
        ("startup_timeout_seconds", 0),
        ("retries", 11),
        ("max_containers", 0),
        ("scaledown_window_seconds", 1),
        ("cpu", float("nan")),
    ],
)
def test_declaration_resource_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"make_thing: {field}={value!r} must be"):
        declare(**{field: value})


def test_image_package_without_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="'pillow' is not pinned"):
        ImageSpec(pip=("pillow",))
    assert "pillow==12.0.0" in ImageSpec(pip=("pillow==12.0.0",)).packages


@dataclass
class Mutable:
    """A dataclass that is not frozen."""

    job_id: str


@pytest.mark.parametrize("kind", [int, dict, Mutable, HighlightKeyframe])
@pytest.mark.parametrize("field", ["request", "result"])
def test_declaration_unusable_type_is_named(field: str, kind: type[Any]) -> None:
    with pytest.raises(ConfigError, match=kind.__name__):
        declare(**{field: kind})


def test_call_runs_body_and_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    context = JobContext(PathStorage(), tmp_path / "work")
    assert make_sprite(SPRITE, context) == SpriteResult(SPRITE.tiles)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_request_and_result_of_another_type_are_refused() -> None:
    with pytest.raises(RequestError, match="copy_file takes CopyRequest, not OverlayRequest"):
        copy_file.to_request(overlay())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="make_sprite must return SpriteResult, not Tile"):
        make_sprite.to_result(Tile(1.0))  # type: ignore[arg-type]


def test_frozen_dataclass_is_the_same_after_json() -> None:
    sent = json.loads(json.dumps(make_sprite.to_request(SPRITE).to_dict()))
    assert make_sprite.from_request(make_sprite.parse_request(sent)) == SPRITE
    result = SpriteResult(SPRITE.tiles)
    answer = json.loads(json.dumps(make_sprite.to_result(result).to_dict()))
    assert make_sprite.from_result(make_sprite.parse_result(answer)) == result


def test_pydantic_model_is_the_same_after_json() -> None:
    poster = PosterRequest(job_id="job", user_id="u", input_key="in.mp4", output_key="out.jpg", width_px=64)
    request = make_poster.to_request(poster)
    assert request.stored_keys() == ("users/u/in.mp4", "users/u/out.jpg")
    sent = json.loads(json.dumps(request.to_dict()))
    assert make_poster.from_request(make_poster.parse_request(sent)) == poster
    result = PosterResult(width_px=64)
    answer = json.loads(json.dumps(make_poster.to_result(result).to_dict()))
    assert make_poster.from_result(make_poster.parse_result(answer)) == result


@pytest.mark.parametrize("change", [{"width_px": 3}, {"width_px": "wide"}])
def test_value_that_the_model_refuses_is_a_request_error(change: dict[str, object]) -> None:
    poster = PosterRequest(job_id="job", user_id="u", input_key="in.mp4", output_key="out.jpg")
    sent = make_poster.to_request(poster).to_dict()
    sent["value"] = {**poster.model_dump(), **change}
    with pytest.raises(RequestError, match="is not a valid PosterRequest"):
        make_poster.from_request(make_poster.parse_request(sent))


def test_unknown_or_missing_field_of_a_dataclass_is_refused() -> None:
    sent = make_sprite.to_request(SPRITE).to_dict()
    for value in ({"tiles": []}, {"job_id": "j", "input_key": "i", "output_key": "o", "color": "red"}):
        with pytest.raises(RequestError, match="is not a valid SpriteRequest"):
            make_sprite.from_request(make_sprite.parse_request({**sent, "value": value}))


def test_dataclass_without_keys_names_the_missing_one() -> None:
    function = render_function(
        name="make_tile", request=Tile, result=SpriteResult, cpu=1, memory_mb=1024, timeout_seconds=60
    )(lambda request, _context: SpriteResult((request,)))
    with pytest.raises(RequestError, match="job_id"):
        function.to_request(Tile(1.0))


def test_dataclass_without_user_has_global_keys() -> None:
    assert make_sprite.to_request(SPRITE).stored_keys() == ("in.mp4", "out.jpg")


def test_registered_functions_follow_those_of_the_package() -> None:
    functions = all_functions([copy_file, make_sprite], env={})
    assert list(functions) == [*BUILT_IN, "copy_file", "make_sprite"]
    assert function_of(SPRITE, functions) is make_sprite
    with pytest.raises(RequestError, match="no function accepts a str"):
        function_of("text", functions)


def test_function_of_the_started_script_is_refused() -> None:
    with pytest.raises(ConfigError, match="copy_file is declared in the script that was started"):
        all_functions([replace(copy_file, module="__main__")], env={})


def test_function_inside_a_function_is_refused() -> None:
    @declare()
    def make_thing(request: CopyRequest, context: JobContext) -> RenderResult:
        raise NotImplementedError

    with pytest.raises(ConfigError, match="make_thing is not found in"):
        all_functions([make_thing], env={})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`; its modules are forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_module(folder: Path, module: str, function: str) -> None:
    (folder / f"{module}.py").write_text(
        "from reel_modal.functions.declaration import render_function\n"
        "from reel_modal.schema import OverlayRequest, RenderResult\n"
        f"@render_function(name={function!r}, request=OverlayRequest, result=RenderResult,\n"
        "                 cpu=1, memory_mb=1024, timeout_seconds=60)\n"
        "def run(request, context): ...\n"
    )


def test_modules_variable_adds_its_functions(folder: Path) -> None:
    write_module(folder, "host_one", "first_thing")
    write_module(folder, "host_two", "second_thing")
    functions = all_functions(env={MODULES_VARIABLE: " host_one , host_two,"})
    assert list(functions) == [*BUILT_IN, "first_thing", "second_thing"]
    assert find_function("host_two", "second_thing") is functions["second_thing"]
    with pytest.raises(ConfigError, match="declares no function 'first_thing'"):
        find_function("host_two", "first_thing")
    with pytest.raises(RequestError, match="render_overlay and first_thing and second_thing accept a OverlayRequest"):
        function_of(overlay(), functions)


def test_functions_with_the_same_name_are_refused(folder: Path) -> None:
    write_module(folder, "host_three", "render_overlay")
    with pytest.raises(ConfigError, match=r"reel_modal\.functions\.builtin and host_three both declare"):
        all_functions(env={MODULES_VARIABLE: "host_three"})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("x = 1", "declares no function; see render_function"),
    ],
)
def test_module_without_usable_functions_is_named(folder: Path, source: str | None, words: str) -> None:
    if source is not None:
        (folder / "host_four.py").write_text(source)
    with pytest.raises(ConfigError, match=f"'host_four'.*{words}"):
        all_functions(env={MODULES_VARIABLE: "host_four"})


def test_entry_point_of_an_installed_package_is_found(tmp_path: Path) -> None:
    write_module(tmp_path, "host_five", "installed_thing")
    info = tmp_path / "host_five-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: host-five\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reel_modal.functions]\nhost = host_five\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    code = "from reel_modal.functions.catalog import all_functions; print(*all_functions())"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout.split() == [*BUILT_IN, "installed_thing"]
