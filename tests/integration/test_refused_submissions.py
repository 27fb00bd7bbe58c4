"""Errors that the host can detect are raised before any call to Modal: no call, no container."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from tests.integration.modal_app import Deployed
from tests.jobs import GLOBAL, overlay

from reel_modal import FunctionRegistry, UpscaleRequest
from reel_modal.errors import ConfigError, RequestError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "no store is set"),
        ("file:///nope", "nope"),
        ("memory://here", "belongs to one process"),
        ("s3://no_bucket", "is not a valid bucket name"),
        ("s3://bucket?secret=hunter2", "'secret' is unknown"),
        ("gs://bucket", "'gs' is unsupported"),
    ],
)
async def test_submit_unusable_store_starts_no_container(url: str | None, words: str, app: Deployed) -> None:
    async with FunctionRegistry(replace(app.settings, store_url=url, on_drift="off")) as registry:
        with pytest.raises(ConfigError, match=words) as caught:
            await registry["render_overlay"].submit(overlay())
    assert "hunter2" not in str(caught.value)
    assert (app.plane.count("FunctionMap"), app.plane.containers()) == (0, [])


@pytest.mark.parametrize("model", ["/etc/passwd", "https://example.org/net.onnx", "../face.onnx", "face"])
async def test_submit_unregistered_network_starts_no_container(model: str, app: Deployed) -> None:
    async def submit() -> None:
        request = UpscaleRequest.parse({**keys, "scale": 2, "model": model, "model_sha256": "ab" * 32})
        await registry["apply_upscale"].submit(request)

    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "store": GLOBAL.to_dict()}
    async with FunctionRegistry(replace(app.settings, on_drift="off")) as registry:
        with pytest.raises(RequestError) as caught:
            await submit()
    assert caught.value.path == "model"
    assert (app.plane.count("FunctionMap"), app.plane.containers()) == (0, [])


async def test_submit_without_host_credentials_reaches_modal(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The containers have credentials, so a host without any may submit."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    settings = replace(app.settings, store_url="s3://bucket/media?region=eu-central-1", on_drift="off")
    async with FunctionRegistry(settings) as registry:
        job = await registry["render_overlay"].submit(overlay("without-credentials"))
        await job.cancel()
    assert app.plane.count("FunctionMap") == 1
