"""The built wheel in a fresh virtual environment, with what it requires and without the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.integration.loopback.interpreters import only_packages

from reel_modal.media import probe
from reel_modal.testing import make_clip

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REGIONS = [
    {
        "id": "a",
        "start_time": 0,
        "end_time": 1,
        "keyframes": [{"time": 0, "x": 160, "y": 90, "radiusX": 40, "radiusY": 40}],
    }
]
CROP = [{"time": 0, "x": 100, "y": 0, "width": 90, "height": 160}]
_LONGEST_SECONDS = 300  # three renders of real size, on a machine that has other work
NO_LIBGL = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the virtual environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True, timeout=100)
    (wheel,) = folder.glob("reel_modal-*.whl")
    python = only_packages(folder / "environment", _required(wheel))
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, timeout=100)
    return python


def _required(wheel: Path) -> list[str]:
    """Return what pip would install for the wheel, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    return [line for line in lines if (marker := Requirement(line).marker) is None or marker.evaluate({"extra": ""})]


def _run(folder: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` as a user does, without the variables of this package or of Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REEL_MODAL_", "PYTHON"))}
    environment = kept | {"REEL_MODAL_TIMINGS": "off", **variables}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )


def test_wheel_doctor_finds_all_that_is_required(installed: Path, tmp_path: Path) -> None:
    done = _run(tmp_path, installed.with_name("reel-modal"), "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["pyav"]["detail"].endswith("reads a clip")
    assert findings["opencv"]["detail"].endswith("draws on a frame")


@pytest.mark.timeout(_LONGEST_SECONDS + 60)
def test_wheel_demo_makes_its_own_clips(installed: Path, tmp_path: Path) -> None:
    done = _run(tmp_path, installed.with_name("reel-modal"), "demo")
    assert done.returncode == 0, done.stderr
    assert "test pictures, made by the demo" in done.stdout
    made = {name: probe(tmp_path / "demo" / name).size for name in ("highlight.mp4", "reel.mp4", "larger.mp4")}
    assert made == {"highlight.mp4": (1280, 720), "reel.mp4": (810, 1440), "larger.mp4": (704, 576)}


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (("render-overlay", "clip.mp4", "out.mp4", "--regions", "regions.json"), (320, 180)),
        (("process-framing", "clip.mp4", "out.mp4", "--spec", "crop.json"), (810, 1440)),
        (("apply-upscale", "clip.mp4", "out.mp4", "--scale", "2"), (640, 360)),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_wheel_command_renders(installed: Path, tmp_path: Path, command: list[str], size: tuple[int, int]) -> None:
    make_clip(tmp_path / "clip.mp4", seconds=0.4, audio_seconds=0.4)
    (tmp_path / "regions.json").write_text(json.dumps(REGIONS))
    (tmp_path / "crop.json").write_text(json.dumps(CROP))
    done = _run(tmp_path, installed.with_name("reel-modal"), *command)
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "out.mp4").size == size


def test_command_without_libgl_names_it_before_the_input(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cv2.py").write_text(NO_LIBGL)
    (tmp_path / "regions.json").write_text(json.dumps(REGIONS))
    command = ("render-overlay", "absent.mp4", "out.mp4", "--regions", "regions.json")
    done = _run(tmp_path, installed.with_name("reel-modal"), *command, PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 3
    assert "libGL.so.1" in done.stderr
    assert "pip install opencv-python-headless" in done.stderr
    assert "absent.mp4" not in done.stderr
    doctor = _run(tmp_path, installed.with_name("reel-modal"), "doctor", PYTHONPATH=str(tmp_path / "broken"))
    assert doctor.returncode == 3
    assert "cure: pip uninstall opencv-python && pip install opencv-python-headless" in doctor.stdout


def _first_samples() -> list[tuple[Path, str]]:
    found = ((page, re.search(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)) for page in PAGES)
    return [(page, match[1]) for page, match in found if match is not None]


@pytest.mark.parametrize(
    ("page", "sample"), [pytest.param(page, sample, id=page.name) for page, sample in _first_samples()]
)
def test_first_sample_of_a_page_runs_as_printed(installed: Path, tmp_path: Path, page: Path, sample: str) -> None:
    make_clip(tmp_path / "clip.mp4", size=(640, 360), fps=30, seconds=1)
    (tmp_path / "sample.py").write_text(sample, "utf-8")
    done = _run(tmp_path, installed, "sample.py")
    assert done.returncode == 0, f"{page}: {done.stderr}"
