"""JSON Schema, TypeScript types and documentation tables of requests and results, compared with the classes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from tests.unit.framing_strategies import framing_requests
from tests.unit.strategies import overlay_requests
from tests.unit.values import GOLDEN, NASTY, RECORDS, RESULT

from reel_modal import schema
from reel_modal.errors import RequestError
from reel_modal.schema import FramingRequest, OverlayRequest
from reel_modal.schema._describe import attributes_of, json_schema, records
from reel_modal.schema._fields import fields_of

ROOT = Path(__file__).parents[2]
TYPESCRIPT = "typescript@7.0.2"
SCHEMA: dict[str, Any] = json_schema()


def printed(*arguments: str) -> str:
    command = [sys.executable, "-m", "reel_modal", "schema", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]})


def test_schema_is_a_valid_json_schema_and_is_printed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(printed("--json")) == json.loads(printed()) == SCHEMA
    assert set(SCHEMA["$defs"]) == {kind.__name__ for kind in records()}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["kind"])
def test_schema_accepts_each_request_on_the_wire(row: dict[str, Any]) -> None:
    assert list(validator(row["kind"]).iter_errors(row["wire"])) == []
    assert list(Draft202012Validator(SCHEMA).iter_errors(row["wire"])) == []


def test_schema_accepts_a_result() -> None:
    assert list(validator("RenderResult").iter_errors(json.loads(json.dumps(RESULT.to_dict())))) == []


@given(request=overlay_requests())
def test_schema_accepts_any_overlay_request(request: OverlayRequest) -> None:
    assert list(validator("OverlayRequest").iter_errors(json.loads(json.dumps(request.to_dict())))) == []


@given(request=framing_requests())
def test_schema_accepts_any_framing_request(request: FramingRequest) -> None:
    assert list(validator("FramingRequest").iter_errors(json.loads(json.dumps(request.to_dict())))) == []


@cache
def values_of_json() -> tuple[Any, ...]:
    values = []
    for nasty in NASTY:
        try:
            text = json.dumps(nasty)
        except (TypeError, ValueError, RecursionError):
            continue
        value = json.loads(text)
        if len(text) < 100_000 and not (isinstance(value, float) and not math.isfinite(value)):
            values.append(value)
    return tuple(values)


@pytest.mark.parametrize("name", sorted({row["kind"] for row in GOLDEN}))
def test_schema_accepts_every_value_that_parse_accepts(name: str) -> None:
    kind, check = getattr(schema, name), validator(name)
    wire = RECORDS[name].to_dict()
    for field in wire:
        for value in values_of_json():
            changed = {**wire, field: value}
            try:
                kind.parse(changed)
            except RequestError:
                continue
            assert check.is_valid(changed), (field, value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("OverlayRequest", {"regions": "ab"}),
        ("OverlayRequest", {"efect": "original"}),
        ("OverlayRequest", {"effect": "sparkle"}),
        ("OverlayRequest", {"job_id": None}),
        ("FramingRequest", {"fps": 1000}),
        ("FramingRequest", {"fps": "fast"}),
        ("FramingRequest", {"rotation_degrees": 45}),
        ("FramingRequest", {"output_width": 811, "output_height": 1440}),
        ("UpscaleRequest", {"scale": 3}),
        ("UpscaleRequest", {"model": "/etc/passwd"}),
        ("RenderResult", {"status": "error"}),
        ("RenderResult", {"frames": 1.5}),
    ],
)
def test_schema_refuses_invalid_values(name: str, changes: dict[str, Any]) -> None:
    assert not validator(name).is_valid({**RECORDS[name].to_dict(), **changes})


USE_OF_TYPES = """
import type { FramingRequest, OverlayRequest, RenderResult, Request, Result } from "./reel_modal";

const overlay: OverlayRequest = {
  job_id: "j", user_id: 7, input_key: "in.mp4", output_key: "out.mp4",
  regions: [{ id: "a", start_seconds: 0.5, end_seconds: "3/2",
    keyframes: [{ time_seconds: 0.5, x: 1, y: 2, radius_x: 3, radius_y: 4 }] }],
  effect: "original",
};
const framing: FramingRequest = { ...keys(), aspect: "9:16", fps: 29.97, encode: { quality: 18 } };
const requests: Request[] = [overlay, framing];
function keys() { return { job_id: "j", user_id: "u", input_key: "in.mp4", output_key: "out.mp4" }; }
export function seconds(result: RenderResult): number { return result.seconds_by_phase["render"] ?? 0; }
export function lost(result: RenderResult): boolean {
  return result.degraded.some((note) => note.code === "sound_dropped" && note.message !== "");
}
// @ts-expect-error there is no such code
export function wrong(result: RenderResult): boolean { return result.degraded[0].code === "lost_sound"; }
export const golden: Request[] = GOLDEN;
export const done: Result = RESULT;
// @ts-expect-error the keys are missing
const bare: OverlayRequest = { regions: [] };
// @ts-expect-error there is no such effect
const effect: OverlayRequest = { ...overlay, effect: "sparkle" };
// @ts-expect-error there is no such field
const field: FramingRequest = { ...keys(), framerate: 30 };
// @ts-expect-error a boolean is not a number of frames
const frames: number = { ...done, frames: true }.frames;
export { requests, bare, effect, field, frames };
"""


def test_typescript_types_compile_with_expected_errors(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    assert npm is not None, "this test needs npm: install Node.js"
    install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", TYPESCRIPT]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    (tmp_path / "reel_modal.ts").write_text(printed("--typescript"))
    golden = json.dumps([row["wire"] for row in GOLDEN])
    use = USE_OF_TYPES.replace("GOLDEN", golden).replace("RESULT", json.dumps(RESULT.to_dict()))
    (tmp_path / "use.ts").write_text(use)
    command = [str(tmp_path / "node_modules/.bin/tsc"), "--strict", "--noEmit", "--target", "es2022", "use.ts"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_every_field_is_described_in_its_docstring() -> None:
    for kind in records():
        names = [field.name for field in fields_of(kind)]
        assert [name for name in attributes_of(kind) if name in names] == names, kind.__name__


def test_documentation_tables_equal_the_declarations() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/request_tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
