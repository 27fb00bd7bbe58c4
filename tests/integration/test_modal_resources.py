"""Jobs on Modal with other resources than the deployed ones."""

from __future__ import annotations

import asyncio
import shutil
import sys

import pytest
from tests.clips import Clips, made_clip
from tests.integration.modal_app import APP, Deployed, app, app_plane, request
from tests.jobs import overlay

from reel_modal import FunctionRegistry, RemoteFunction, Resources
from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal.backends.modal import ModalBackend
from reel_modal.schema import RenderResult

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["app", "app_plane"]


def bound(app: Deployed, side: str = "client") -> list[object]:
    """Return the options with which functions were bound."""
    recorded = app.plane.requests if side == "client" else app.plane.container_requests
    return [one.request.function_options for one in recorded if one.rpc == "FunctionBindParams"]  # type: ignore[attr-defined]


async def test_modal_job_runs_with_its_resources(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    chosen = Resources(gpu="L4", cpu=2, memory_mb=8192, timeout_seconds=1200, region="eu", max_containers=2)
    async with FunctionRegistry(app.settings) as registry:
        function = registry["render_overlay"].with_options(resources=chosen)
        result = await function(request("other"))
        await function(request("second"))
        plain = await registry["render_overlay"](request("plain"))
    (options,) = bound(app)  # looked up once
    resources = options.resources  # type: ignore[attr-defined]
    assert (resources.gpu_config.gpu_type, resources.milli_cpu, resources.memory_mb) == ("L4", 2000, 8192)
    assert (options.timeout_secs, options.concurrency_limit) == (1200, 2)  # type: ignore[attr-defined]
    assert list(options.scheduler_placement.regions) == ["eu"]  # type: ignore[attr-defined]
    usage, deployed = result.usage, plain.usage
    assert usage is not None
    assert deployed is not None
    assert usage.resources == chosen.to_text()
    assert (usage.gpu, deployed.gpu, deployed.resources) == ("L4", "T4", "")
    rate = PUBLISHED_RATES.usd_per_second(gpu="L4", cpu=2, memory_mb=8192, in_region=True)
    assert usage.dollars == pytest.approx(usage.gpu_seconds * rate)
    # Containers with other resources are those of the same pinned version.
    assert len({one.pinned_version for one in app.plane.containers("render_overlay")}) == 1


async def test_modal_function_of_another_app_takes_resources(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")

    def render(request: dict[str, object]) -> dict[str, object]:
        raise NotImplementedError

    function = RemoteFunction.from_modal(APP, "render_overlay", render)
    result = await function.with_options(resources=Resources(gpu="L4"))(request("foreign").to_dict())
    assert RenderResult.parse(result).frames == 25
    assert len(bound(app)) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_modal_coordinator_passes_resources_to_its_workers(app: Deployed) -> None:
    await asyncio.to_thread(made_clip, app.store / "in.mp4", fps=10, seconds=24, audio_seconds=24)
    chosen = Resources(gpu="L4", memory_mb=2048)
    job = overlay("many", preset="ultrafast", output="out/many.mp4")
    backend = ModalBackend(APP)
    call_id = await backend.submit("render_overlay", (job.to_dict(),), {}, workers=2, resources=chosen)
    while (outcome := await backend.wait(call_id, 60)) is None:
        pass
    usage = RenderResult.parse(outcome.value).usage  # type: ignore[arg-type]
    assert bound(app) == []
    options = bound(app, "container")
    assert options
    for each in options:
        # Rendering segments needs no GPU.
        assert each.resources.memory_mb == 2048  # type: ignore[attr-defined]
        assert each.resources.gpu_config.gpu_type == ""  # type: ignore[attr-defined]
    assert usage is not None
    assert (usage.gpu, usage.resources) == (None, "memory_mb=2048")
