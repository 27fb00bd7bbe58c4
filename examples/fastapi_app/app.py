"""A backend that renders: pick or upload a clip, mark a player, choose a form, watch it being made, play it.

`make example` starts it on this machine. With `MODAL_ENABLED=true` and a store that Modal reaches, the same lines run
on GPUs.

What comes from the browser: which clip, by the name of one that this app has, where the highlight is, and a choice of
forms. What the server sets: whose the job is, its id, both keys and the options of the store.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from uuid import uuid4

from examples.fastapi_app.exports import REQUESTS, Export, Exports, Records
from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from reel_modal import FunctionRegistry, JobOptions, Settings, Storage, StoreOptions, probe, store_key
from reel_modal.contrib.starlette import progress_events
from reel_modal.errors import InvalidKeyError, InvalidMediaError, ObjectNotFoundError, RequestError
from reel_modal.storage import FolderStorage

USER = "demo"
"""An app with accounts takes the id of the person who is signed in, and keeps clips and exports for each."""

PAGE = Path(__file__).with_name("page.html")
LARGEST_UPLOAD_BYTES = 2 * 1024**3


ClipName = Annotated[str, PathParameter(max_length=100, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
"""The name of a clip: a label for people, and the name of a record."""


class Keyframe(BaseModel):
    """Where the highlight is at one moment, in pixels of the clip."""

    model_config = ConfigDict(extra="forbid")

    time: float
    x: float
    y: float
    radius_x: float
    radius_y: float


class Wanted(BaseModel):
    """What the page sends for one export; fields of any other name are refused."""

    model_config = ConfigDict(extra="forbid")

    clip: str
    keyframes: list[Keyframe] = Field(max_length=1000)
    effect: Literal["dark_overlay", "brightness_boost"] = "dark_overlay"
    framing: Literal["none", "9:16", "1:1"] = "none"
    scale: Literal[1, 2] = 1


def create_app(folder: Path, settings: Settings | None = None, *, sample: Path | None = None) -> FastAPI:
    """Return the app, which keeps what it knows below `folder`; `sample` is a clip to begin with."""
    settings = settings or Settings.from_env()
    if settings.store_url is None:
        (folder / "store").mkdir(parents=True, exist_ok=True)
        settings = replace(settings, store_url=(folder / "store").resolve().as_uri())
    storage = Storage.from_url(settings.store_url or "")
    clips = Records(folder / "clips")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        if sample is not None and not list(clips):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                add_clip(Path(shutil.copy(sample, scratch)), sample.name, storage, clips)
        # An export outlives who watches it, and on Modal the app itself.
        async with FunctionRegistry(settings, options=JobOptions(on_cancel="detach")) as registry:
            app.state.exports = Exports(registry, folder / "exports")
            app.state.exports.resume()
            yield
            await app.state.exports.close()

    app = FastAPI(title="reel_modal example", lifespan=lifespan)

    def exports() -> Exports:
        return app.state.exports

    def export_of(export_id: str) -> Export:
        try:
            return exports()[export_id]
        except KeyError as error:
            raise HTTPException(404, "there is no such export") from error

    @app.exception_handler(RequestError)
    @app.exception_handler(InvalidMediaError)
    @app.exception_handler(InvalidKeyError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.exception_handler(ObjectNotFoundError)
    async def not_found(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=404)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/clips")
    def list_clips() -> list[dict[str, Any]]:
        return list(clips)

    @app.put("/clips/{name}", status_code=201)
    async def upload(name: ClipName, request: Request) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            suffix = PurePosixPath(name).suffix.lower()
            path = Path(scratch, f"upload{suffix if suffix[1:].isalnum() else '.mp4'}")
            with await asyncio.to_thread(path.open, "wb") as file:
                async for chunk in request.stream():
                    await asyncio.to_thread(file.write, chunk)
                    if file.tell() > LARGEST_UPLOAD_BYTES:
                        raise HTTPException(413, "the clip is too large")
            return await asyncio.to_thread(add_clip, path, name, storage, clips)

    @app.get("/media/{key:path}")
    def media(key: str) -> Response:
        # The store may hold much else: what this app has not made known is not there.
        if key not in {*(clip["key"] for clip in clips), *(export.output for export in exports())}:
            raise HTTPException(404, "there is no such clip")
        return file_response(storage, store_key(key, "user", USER), folder)

    @app.get("/exports")
    def list_exports() -> list[Export]:
        return list(exports())

    @app.post("/exports", status_code=201)
    async def start(wanted: Wanted) -> Export:
        clip = next((clip for clip in clips if clip["name"] == wanted.clip), None)
        if clip is None:
            raise HTTPException(404, "there is no such clip")
        export = Export(clip=clip["key"], name=clip["name"], steps=[])
        export.steps = steps_of(export.id, clip, wanted)  # a wrong one is refused here, before anything runs
        exports().start(export)
        return export

    @app.get("/exports/{export_id}")
    def one_export(export_id: str) -> Export:
        return export_of(export_id)

    @app.get("/exports/{export_id}/events")
    async def events(export_id: str, request: Request) -> Response:
        return progress_events(request, exports().updates(export_of(export_id)))

    @app.post("/exports/{export_id}/cancel")
    async def cancel(export_id: str) -> Export:
        await exports().cancel(export_of(export_id))
        return export_of(export_id)

    return app


def file_response(storage: Storage, key: str, folder: Path) -> Response:
    """Answer with an object of the store: its file, or a link by which the browser asks the store itself."""
    if isinstance(storage, FolderStorage):
        return FileResponse(storage.fetch(key, folder))
    storage.stat(key)
    return RedirectResponse(storage.signed_url(key))


def add_clip(path: Path, name: str, storage: Storage, clips: Records) -> dict[str, Any]:
    """Look at the file `path`, put it into the store, and return what the page needs to know of it."""
    media = probe(path)
    clip = {
        "name": name,
        # The name is a label: another clip of that name replaces the record, and gets a key of its own.
        "key": f"clips/{uuid4().hex}{path.suffix}",
        "size": media.size,
        "seconds": float(media.duration_seconds or 0),
    }
    storage.publish(path, store_key(clip["key"], "user", USER))
    clips.save(name, clip)
    return clip


def steps_of(export_id: str, clip: dict[str, Any], wanted: Wanted) -> list[tuple[str, dict[str, object]]]:
    """Return the requests that make what is wanted, each on the output of the one before; wrong ones are refused."""
    steps: list[tuple[str, dict[str, object]]] = []
    source = clip["key"]

    def add(function: str, edit: dict[str, object]) -> None:
        nonlocal source
        output = f"exports/{export_id}/{function}.mp4"
        request = REQUESTS[function].parse(
            edit,
            job_id=f"{export_id}-{len(steps)}",
            user_id=USER,
            input_key=source,
            output_key=output,
            store=StoreOptions(),  # both keys are the user's own
        )
        steps.append((function, request.to_dict()))
        source = output

    keyframes = [keyframe.model_dump() for keyframe in wanted.keyframes]
    if keyframes:
        region = {"id": "highlight", "start_time": 0, "end_time": clip["seconds"], "keyframes": keyframes}
        add("render_overlay", {"regions": [region], "effect": wanted.effect, "style": {"feather": 0.15}})
    if wanted.framing != "none":
        add("process_framing", {"aspect": wanted.framing.replace(":", "/"), "crop": crop_of(clip, wanted)})
    if wanted.scale > 1:
        add("apply_upscale", {"scale": wanted.scale})
    if not steps:
        raise RequestError("", "mark a player, or choose a form or a size; there is nothing to do")
    return steps


def crop_of(clip: dict[str, Any], wanted: Wanted) -> list[dict[str, float]]:
    """Return a crop of the wanted shape that follows the highlight, as tall as the picture where that fits."""
    width, height = clip["size"]
    shape = float(Fraction(wanted.framing.replace(":", "/")))
    crop_height = min(height, width / shape)
    crop_width = crop_height * shape
    return [
        {
            "time": keyframe.time,
            "x": min(max(keyframe.x - crop_width / 2, 0), width - crop_width),
            "y": min(max(keyframe.y - crop_height / 2, 0), height - crop_height),
            "width": crop_width,
            "height": crop_height,
        }
        for keyframe in wanted.keyframes
    ]
