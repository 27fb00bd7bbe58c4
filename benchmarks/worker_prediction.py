"""Predicted against measured time of one job on several machines, on the loopback plane.

The containers are processes of this machine, and each frame takes a stated time, so that they do not slow each other
down. Three jobs on one machine are recorded first, as on a host. Every container of a measured job starts cold.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.clips import made_clip
from tests.integration.loopback.plane import LoopbackPlane
from tests.integration.modal_app import image_python

from benchmarks.paced_video import PacedRequest, paced
from reel_modal import EncodeOptions, FunctionRegistry, Settings, TimingHistory, estimate, probe
from reel_modal.backends.modal import ModalBackend
from reel_modal.schema import StoreOptions

APP = "reel-modal-test"
FPS = 10
SECONDS = 80
WORKERS = (1, 2, 3, 5, 10)


def request(job_id: str, source: str, output: str) -> PacedRequest:
    scopes = StoreOptions(input_scope="global", output_scope="global")
    encode = EncodeOptions(encoder="libx264", preset="ultrafast")
    return PacedRequest(
        job_id=job_id, user_id="bench", input_key=source, output_key=output, store=scopes, encode=encode
    )


async def measure(plane: LoopbackPlane, store: Path, history: TimingHistory) -> list[tuple[int, float, float]]:
    """Return the number of machines, and the predicted and the measured seconds of each job."""
    settings = Settings.from_env({}, modal_enabled=True, environment="test", store_url=store.as_uri())
    backend = ModalBackend(APP)
    registry = FunctionRegistry(settings, backend=backend, functions=[paced], history=history)
    for seconds in (10, 20, 30):
        made_clip(store / f"{seconds}.mp4", fps=FPS, seconds=seconds)
        await asyncio.to_thread(plane.end_containers)
        await registry.run(request(f"first-{seconds}", f"{seconds}.mp4", f"out/{seconds}.mp4"))
    media = probe(made_clip(store / "long.mp4", fps=FPS, seconds=SECONDS))
    found = []
    for workers in WORKERS:
        asked = request(f"job-{workers}", "long.mp4", f"out/{workers}/whole.mp4")
        rows = estimate(asked, media, settings=settings, history=history, functions={"paced": paced}).rows
        await asyncio.to_thread(plane.end_containers)
        started = time.monotonic()
        call_id = await backend.submit("paced", (asked.to_dict(),), {}, workers=workers)
        while await backend.wait(call_id, 60) is None:
            pass
        found.append((workers, rows[workers - 1].seconds, time.monotonic() - started))
        print(f"  {workers}: {found[-1][2]:.1f} s", file=sys.stderr)
    return found


def main() -> list[str]:
    """Deploy the function, run it, and return the table as Markdown."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "store").mkdir()
        python = image_python(folder / "python")
        with LoopbackPlane(folder / "plane", container_python=python, container_limit=16) as plane:
            plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": (folder / "store").as_uri()})
            here = {
                **plane.environment(),
                "REEL_MODAL_ENVIRONMENT": "test",
                "REEL_MODAL_FUNCTION_MODULES": "benchmarks.paced_video",
                "REEL_MODAL_FUNCTIONS": "paced",
                "PYTHONPATH": str(root),
            }
            command = [sys.executable, "-m", "modal", "deploy", "-m", "reel_modal.functions.app"]
            subprocess.run(command, env={**os.environ, **here}, capture_output=True, check=True)
            os.environ.update(plane.environment())
            found = asyncio.run(measure(plane, folder / "store", TimingHistory(folder / "timings.sqlite3")))
    lines = ["| machines | predicted | measured | measured / predicted |", "|---|---|---|---|"]
    lines += [f"| {n} | {expected:.1f} s | {took:.1f} s | {took / expected:.2f} |" for n, expected, took in found]
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
