"""Short jobs as they really ran on one machine: their events, with the moments at which the host received them.

`python -m benchmarks.recorded_jobs NAME` runs them and writes benchmarks/recorded/NAME.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.job_traces import JobTrace
from reel_modal import (
    EncodeOptions,
    FramingRequest,
    FunctionRegistry,
    OverlayRequest,
    Settings,
    StoreOptions,
    UpscaleRequest,
)
from reel_modal.progress import ProgressEvent
from reel_modal.schema.requests import VideoRequest
from reel_modal.testing import make_clip

FOLDER = Path(__file__).with_name("recorded")
EVERYBODY = StoreOptions(input_scope="global", output_scope="global")
SIZE, FPS = (1280, 720), 30


@dataclass(frozen=True)
class RecordedJob(JobTrace):
    """A job that ran, with the events that its function sent."""

    received: tuple[tuple[float, ProgressEvent], ...] = field(default=(), repr=False)
    took_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """From the submission to the published output."""
        return self.took_seconds

    def events(self, _every_seconds: float) -> Iterator[tuple[float, ProgressEvent]]:
        """All events, whenever they came."""
        yield from self.received


def recorded(name: str) -> list[RecordedJob]:
    """Return the jobs of one recording."""
    rows = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return [
        RecordedJob(
            **{
                **row,
                "size": tuple(row["size"]),
                "received": tuple((at, ProgressEvent(**event)) for at, event in row["received"]),
            }
        )
        for row in rows
    ]


def requests() -> Iterator[tuple[str, float, VideoRequest[Any]]]:
    """Yield (name, seconds of the clip, request)."""

    def framing(preset: str) -> dict[str, object]:
        crop = {"time": 0, "x": 200, "y": 0, "width": 404, "height": 720}
        later = {"time": 2, "x": 500, "y": 0, "width": 404, "height": 720}
        return {"crop_keyframes": [crop, later], "encode": {"encoder": "libx264", "preset": preset}}

    region = {
        "id": "player",
        "startTime": 0,
        "endTime": 60,
        "keyframes": [{"time": 0, "x": 640, "y": 360, "radiusX": 90, "radiusY": 160}],
        "videoWidth": 1280,
        "videoHeight": 720,
    }
    for preset, lengths in (("fast", (2.0, 3.0, 4.0)), ("veryfast", (4.0, 6.0)), ("medium", (2.0, 3.0))):
        for seconds in lengths:
            keys = {"userId": "user", "inputKey": f"{seconds:g}.mp4", "jobId": "job", "outputKey": "out.mp4"}
            overlay = {**keys, "highlightRegions": [region], "encode": {"encoder": "libx264", "preset": preset}}
            yield f"overlay, {seconds:g} s, {preset}", seconds, OverlayRequest.parse(overlay)
            yield f"framing, {seconds:g} s, {preset}", seconds, FramingRequest.parse({**keys, **framing(preset)})
    for frames in (10, 16):
        request = UpscaleRequest(
            job_id="job",
            user_id="user",
            input_key="small.mp4",
            output_key="out.mp4",
            scale=2,
            encode=EncodeOptions(encoder="libx264"),
        )
        yield f"upscale, {frames} frames", frames / FPS, request


async def record(name: str) -> None:
    """Run each job in a worker process of this machine, one after another."""
    jobs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = Settings(store_url=folder.as_uri(), timings="off")
        async with FunctionRegistry(settings) as registry:
            for number, (title, seconds, request) in enumerate(requests()):
                small = request.input_key == "small.mp4"
                key = f"{seconds:g}-{small}.mp4"
                if not (folder / key).exists():
                    make_clip(folder / key, size=(240, 136) if small else SIZE, fps=FPS, seconds=seconds)
                ready = replace(
                    request, job_id=f"{name}-{number}", input_key=key, output_key=f"{number}.mp4", store=EVERYBODY
                )
                jobs.append(await run(registry, title, ready))
                print(f"  {title}: {jobs[-1].seconds:.1f} s, {len(jobs[-1].received)} events", file=sys.stderr)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps([asdict(job) for job in jobs]) + "\n", encoding="utf-8")


async def run(registry: FunctionRegistry, title: str, request: VideoRequest[Any]) -> RecordedJob:
    """Run one job and return its record."""
    started = time.monotonic()
    job = await registry.submit(request)
    received = [(time.monotonic() - started, event) async for event in job.events()]
    result = await job.result()
    took = time.monotonic() - started
    phases = dict(result.seconds_by_phase)
    return RecordedJob(
        name=title,
        function=job.function,
        gpu="local",
        size=result.size,
        frames=result.frames,
        startup_seconds=max(took - sum(phases.values()), 0.0),
        seconds_by_phase=phases,
        received=tuple((round(at, 4), event) for at, event in received),
        took_seconds=took,
    )


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
