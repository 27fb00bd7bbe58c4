"""Registered networks: the files in the deployment, and the refusals on each side."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.integration.modal_app import Deployed, deploy
from tests.jobs import GLOBAL
from tests.networks import repeating

from reel_modal import FunctionRegistry, ModelSource, RequestError, Settings, UpscaleRequest
from reel_modal.errors import BadInputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

NAME = "registered"


@pytest.fixture
def app(app_plane: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    from tests.integration.loopback.fixtures import fresh

    with fresh(app_plane.plane, monkeypatch):
        made_clip(app_plane.store / "in.mp4", size=(96, 64), seconds=0.2)
        yield app_plane


def request(model: str, *, job_id: str = "job") -> UpscaleRequest:
    keys = {"job_id": job_id, "user_id": "u", "input_key": "in.mp4", "output_key": f"out/{job_id}.mp4"}
    return UpscaleRequest.parse({**keys, "scale": 2, "model": model, "provider": "cpu", "store": GLOBAL.to_dict()})


def registered(path: Path) -> dict[str, ModelSource]:
    return {"face": ModelSource(str(path), hashlib.sha256(path.read_bytes()).hexdigest())}


def variable(models: dict[str, ModelSource]) -> str:
    return json.dumps({name: {"source": each.source, "sha256": each.sha256} for name, each in models.items()})


async def test_registered_network_file_reaches_container(app: Deployed, tmp_path: Path) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(repeating(1).SerializeToString())
    models = registered(path)
    deploy(app.plane, REEL_MODAL_APP=NAME, REEL_MODAL_MODELS=variable(models), REEL_MODAL_STALL_SECONDS="30")
    deployed = app.plane.functions(f"{NAME}-test")
    sent = {
        name
        for name, each in deployed.items()
        if any(file.endswith(".onnx") and "reel_modal_models" in file for file in each.mounted_files)
    }
    assert sent == {"apply_upscale", "apply_upscale_segments", "apply_upscale_coordinator"}
    assert deployed["render_overlay"].variables["REEL_MODAL_STALL_SECONDS"] == "30"
    path.unlink()  # the containers have one that was sent
    settings = replace(app.settings, app=NAME, models=models, on_drift="off")
    async with FunctionRegistry(settings) as registry:
        result = await registry["apply_upscale"](request("face"))
        assert (result.engine, result.size) == ("onnxruntime-cpu fp32 face", (192, 128))
        with pytest.raises(RequestError) as caught:
            await registry["apply_upscale"].submit(request("other"))
    assert caught.value.path == "model"
    assert app.plane.count("FunctionMap") == 1
    app.plane.stop_app(f"{NAME}-test")


async def test_registered_name_unknown_in_container_refused(app: Deployed) -> None:
    settings = replace(app.settings, models={"face": ModelSource("/face.onnx", "ab" * 32)}, on_drift="off")
    async with FunctionRegistry(settings) as registry:
        with pytest.raises(BadInputError, match=r"REEL_MODAL_MODELS.*where the job runs") as caught:
            await registry["apply_upscale"](request("face", job_id="unknown"))
    assert isinstance(caught.value.__cause__, RequestError)
    assert caught.value.__cause__.path == "model"


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_deploy_changed_network_file_refused(damage: str, app: Deployed, tmp_path: Path) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(repeating(1).SerializeToString())
    models = registered(path)
    path.unlink() if damage == "missing" else path.write_bytes(b"another")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        deploy(app.plane, REEL_MODAL_APP=NAME, REEL_MODAL_MODELS=variable(models))
    words = {"missing": "No such file", "other": "does not have the sha256"}[damage]
    output_text = (caught.value.stderr + caught.value.stdout).decode().replace("\n", " ")
    assert "REEL_MODAL_MODELS['face']" in output_text
    assert words in " ".join(output_text.split())


async def test_registered_network_file_loaded_by_worker(tmp_path: Path) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(repeating(1).SerializeToString())
    store = tmp_path / "store"
    store.mkdir()
    made_clip(store / "in.mp4", size=(96, 64), seconds=0.2)
    settings = Settings(store_url=store.as_uri(), models=registered(path), timings="off")
    async with FunctionRegistry(settings) as registry:
        assert (await registry["apply_upscale"](request("face"))).engine == "onnxruntime-cpu fp32 face"
