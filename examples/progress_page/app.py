"""A page with a progress bar, fed by Server-Sent Events: the smallest whole host of a job.

`python -m examples.progress_page` renders a highlight on a real clip and shows the bar on http://127.0.0.1:8001.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from reel_modal import FunctionRegistry, OverlayRequest
from reel_modal.contrib.starlette import progress_events
from reel_modal.errors import ConfigError

PAGE = Path(__file__).with_name("page.html")


def create_app(registry: FunctionRegistry, new_request: Callable[[], OverlayRequest]) -> Starlette:
    """Return the app: a button that starts what `new_request` returns, and a page for each job."""

    async def home(_: Request) -> Response:
        return FileResponse(PAGE)

    async def start(_: Request) -> Response:
        job = await registry.submit(new_request())
        return RedirectResponse(f"/jobs/{job.id}", status_code=303)

    async def progress(request: Request) -> Response:
        try:
            job = registry.attach(request.path_params["job_id"])
        except ConfigError as error:
            return Response(str(error), status_code=404)
        return progress_events(request, job.progress())

    return Starlette(
        routes=[
            Route("/", home),
            Route("/jobs", start, methods=["POST"]),
            Route("/jobs/{job_id}", home),  # the page's script reads the id from its address
            Route("/jobs/{job_id}/progress", progress),
        ]
    )
