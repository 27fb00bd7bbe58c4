"""The routes of docs/backend.md, as printed there, attacked by another signed-in user."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clips import made_clip

from reel_modal import FunctionRegistry, OverlayRequest, Settings

PAGE = Path(__file__).parents[2] / "docs" / "backend.md"
ANNA, MALLORY = "user-7", "mallory"
REGION = {
    "id": "r",
    "startTime": 0,
    "endTime": 1,
    "keyframes": [{"time": 0, "x": 40, "y": 30, "radiusX": 20, "radiusY": 20}],
}
EDIT = {"highlightRegions": [REGION]}


def run_printed_block() -> dict[str, Any]:
    """Execute a code block of the page, after the imports of the previous block; return its definitions."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## FastAPI\n")[2]
    block = re.search(r"\n```python\n(.*?)\n```\n", section, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {
        "Path": Path,
        "FunctionRegistry": FunctionRegistry,
        "OverlayRequest": OverlayRequest,
        "Settings": Settings,
    }
    exec(compile(block[1], str(PAGE), "exec"), names)  # noqa: S102 - our own page
    return names


@pytest.fixture
async def mallory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client signed in as `mallory`; Anna has a clip and a finished export."""
    monkeypatch.chdir(tmp_path)
    for user in (ANNA, MALLORY):
        folder = tmp_path / "users" / user / "clips"
        folder.mkdir(parents=True)
        made_clip(folder / "game-1.mp4", size=(96, 64), seconds=0.4)
    (tmp_path / "users" / ANNA / "exports").mkdir()
    (tmp_path / "users" / ANNA / "exports" / "mine.mp4").write_bytes(b"Anna's")
    made_clip(tmp_path / "game-1.mp4", size=(96, 64), seconds=0.4)
    page = run_printed_block()
    page["SESSIONS"] |= {"mallory": MALLORY}
    page["CLIPS"] |= {MALLORY: {"own": "clips/game-1.mp4"}}
    page["EXPORTS"]["annas"] = (ANNA, "local:render_overlay:annas")
    transport = httpx.ASGITransport(page["app"])
    async with (
        page["lifespan"](page["app"]),
        httpx.AsyncClient(transport=transport, base_url="http://app", cookies={"session": "mallory"}) as client,
    ):
        yield client


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_edit_rendered_below_folder_of_user(mallory: httpx.AsyncClient, tmp_path: Path) -> None:
    before = files(tmp_path)
    answer = await mallory.post("/clips/own/exports", json=EDIT)
    assert answer.status_code == 202, answer.text
    place = f"/exports/{answer.json()['id']}"
    assert '"complete"' in (await mallory.get(f"{place}/progress")).text
    assert (await mallory.get(place)).json() == {"status": "succeeded"}
    after = files(tmp_path)
    new = set(after) - set(before)
    assert {name for name in new if name.endswith(".mp4")} == {f"users/mallory{place}.mp4"}
    assert all(name.startswith("users/mallory/exports/") for name in new)
    assert {name: after[name] for name in before} == before


SET_BY_THE_SERVER: dict[str, object] = {
    "user_id": ANNA,
    "userId": ANNA,
    "job_id": "annas",
    "jobId": "annas",
    "input_key": "clips/game-1.mp4",
    "inputKey": f"../{ANNA}/clips/game-1.mp4",
    "output_key": "clips/game-1.mp4",
    "outputKey": "exports/mine.mp4",
    "store": {"input_scope": "global", "output_scope": "global"},
}


@pytest.mark.parametrize("name", SET_BY_THE_SERVER)
@pytest.mark.parametrize("value", ["hostile", "the same", "null"])
async def test_body_with_server_side_field_refused(
    name: str, value: str, mallory: httpx.AsyncClient, tmp_path: Path
) -> None:
    before = files(tmp_path)
    same = {"user": MALLORY, "input": "clips/game-1.mp4", "store": {}}.get(re.split(r"[_K]|Id", name)[0], "x")
    sent = {"hostile": SET_BY_THE_SERVER[name], "the same": same, "null": None}[value]
    answer = await mallory.post("/clips/own/exports", json={**EDIT, name: sent})
    assert answer.status_code == 422, answer.text
    snake = re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), name)
    assert answer.json()["detail"]["path"].partition(".")[0] == snake
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "body",
    [
        {**EDIT, "storeOptions": {"inputScope": "global"}},
        {**EDIT, "inputScope": "global"},
        {**EDIT, "output_scope": "global"},
        {**EDIT, "existing": "replace"},
        {"request": {**EDIT, "userId": ANNA}},
        [EDIT],
        "text",
        None,
        7,
    ],
    ids=str,
)
async def test_body_of_other_type_refused(body: object, mallory: httpx.AsyncClient, tmp_path: Path) -> None:
    before = files(tmp_path)
    assert (await mallory.post("/clips/own/exports", json=body)).status_code == 422
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"userId": "user-7", "userId": "mallory", "regions": []}',
        b'{"regions": [], "regions": []}',
        b"[" * 200_000,
        b'{"regions": ' * 50_000,
        b'{"regions": [], "style": {"dim_strength": 1e9999999}}',
        b'{"regions": [{"id": "r", "start_time": 0, "end_time": "1e400000", "keyframes": []}]}',
    ],
    ids=lambda content: repr(content[:24]),
)
async def test_body_not_a_request_refused(content: bytes, mallory: httpx.AsyncClient, tmp_path: Path) -> None:
    before = files(tmp_path)
    assert (await mallory.post("/clips/own/exports", content=content)).status_code == 422
    assert files(tmp_path) == before


async def test_body_too_large_refused_before_fully_read(mallory: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            assert sent < 100
            yield b" " * 100_000

    assert (await mallory.post("/clips/own/exports", content=endless())).status_code == 413


@pytest.mark.parametrize(
    "clip",
    [
        "game-1",
        "clips/game-1.mp4",
        f"..%2F{ANNA}%2Fgame-1",
        f"%2E%2E/{ANNA}/game-1",
        "own%00",
        "None",
        "",
        "global:game-1.mp4",
    ],
)
async def test_clip_of_other_user_not_found(clip: str, mallory: httpx.AsyncClient, tmp_path: Path) -> None:
    before = files(tmp_path)
    assert (await mallory.post(f"/clips/{clip}/exports", json=EDIT)).status_code == 404
    assert files(tmp_path) == before


@pytest.mark.parametrize("export", ["annas", "local:render_overlay:annas", "", "%00"])
async def test_export_of_other_user_not_found(export: str, mallory: httpx.AsyncClient) -> None:
    assert (await mallory.get(f"/exports/{export}")).status_code == 404
    assert (await mallory.get(f"/exports/{export}/progress")).status_code == 404
    assert (await mallory.delete(f"/exports/{export}")).status_code == 404


@pytest.mark.parametrize("cookies", [{}, {"session": ""}, {"session": ANNA}, {"session": "user-7; session=mallory2"}])
async def test_visitor_without_session_gets_nothing(cookies: dict[str, str], mallory: httpx.AsyncClient) -> None:
    mallory.cookies.clear()
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    for method, path in (
        ("POST", "/clips/own/exports"),
        ("GET", "/exports/annas"),
        ("GET", "/exports/annas/progress"),
        ("DELETE", "/exports/annas"),
    ):
        answer = await mallory.request(method, path, headers=headers, content=json.dumps(EDIT))
        assert answer.status_code in {401, 403}, (method, path)
