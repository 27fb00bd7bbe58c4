"""The images of a deployment, line by line, against a text that a change must name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.image.definitions import BUILDER_VERSIONS, GOLDEN, as_text, captured_images

from reel_modal.functions.image_locks import BASE_LOCK

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback plane runs on Linux")

_FUNCTION = """
from reel_modal import ImageSpec, OverlayRequest, RenderResult, render_function

@render_function(
    name="paint", request=OverlayRequest, result=RenderResult, cpu=1, memory_mb=512, timeout_seconds=60,
    image=ImageSpec(python_version="3.12", apt=("git",), pip=("pillow==12.0.0",)),
)
def paint(request, context):
    raise NotImplementedError
"""


@pytest.mark.parametrize("builder_version", BUILDER_VERSIONS)
def test_images_are_those_of_the_golden_text(builder_version: str, tmp_path: Path) -> None:
    images = as_text(captured_images(tmp_path, builder_version))
    assert images == GOLDEN.read_text(), (
        "write it again: python -m tests.image.definitions > tests/image/definitions.txt"
    )


def test_image_of_own_function_has_locked_packages_and_pins(tmp_path: Path) -> None:
    (tmp_path / "painting.py").write_text(_FUNCTION)
    variables = {
        "PYTHONPATH": str(tmp_path),
        "REEL_MODAL_FUNCTION_MODULES": "painting",
        "REEL_MODAL_FUNCTIONS": "paint",
    }
    image = captured_images(tmp_path / "plane", "2026.10", **variables)["paint"]
    lines = [line for line in image.lines if line != "FROM base"]
    assert lines[0] == "FROM python:3.12-slim-trixie"
    assert "apt-get install -y --no-install-recommends git " in lines[4]
    assert not any(line.startswith("ENV NVIDIA") for line in lines)
    assert image.files == {"/.requirements.txt": BASE_LOCK.read_bytes()}
    assert "--require-hashes" in lines[3]
    assert "pillow==12.0.0" in lines[-1]
    assert "numpy==" in lines[-1]
