"""Selection of the ffmpeg for a GPU: real ones without GPU support, and a stand-in on PATH with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips
from tests.ffmpegs import REAL, executable
from tests.media.framed import crops, framed

from reel_modal import FramePipe, FrameReader
from reel_modal._ffmpeg import encoders
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.encoders import is_hardware, try_encoder
from reel_modal._ffmpeg.hardware_decoding import nvdec_ffmpeg
from reel_modal.errors import EncoderUnavailableError
from reel_modal.media import probe
from reel_modal.schema import Degradation, EncodeOptions
from reel_modal.settings import Settings

pytestmark = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")

# No GPU is available, so this stand-in encodes and decodes on the CPU instead.
_WITH_GPU = """
import os, sys
with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
arguments, words = [], iter(sys.argv[1:])
for word in words:
    if word in ("h264_nvenc", "hevc_nvenc"):
        word = {{"h264_nvenc": "libx264", "hevc_nvenc": "libx265"}}[word]
    elif word in ("-rc", "-cq", "-hwaccel", "-hwaccel_output_format", "-extra_hw_frames"):
        next(words)
        continue
    elif word == "-preset":
        next(words)
        arguments += ["-preset", "ultrafast"]
        continue
    arguments.append(word.replace("hwdownload,format=nv12|p010le", "null"))
os.execv({real!r}, [{real!r}, *arguments])
"""


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the cached probes, as in a new process, and use the default order of ffmpegs."""
    monkeypatch.delenv("REEL_MODAL_FFMPEG", raising=False)
    monkeypatch.setattr(encoders, "_started", set())
    monkeypatch.setattr(encoders, "_ruled_out", set())


@pytest.fixture
def with_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an ffmpeg with GPU support on PATH; return the log of its commands."""
    log, program = tmp_path / "log", tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    executable(program, _WITH_GPU.format(real=REAL, log=str(log)))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return log


def write_clip(path: Path, encoder: str, **options: object) -> FramePipe:
    with FramePipe(path, size=(320, 180), fps=25, encoder=encoder, **options) as pipe:  # type: ignore[arg-type]
        for shade in range(5):
            pipe.write(np.full((180, 320, 3), 40 * shade, np.uint8))
    return pipe


@pytest.mark.parametrize("encoder", ["auto", "hevc_nvenc"])
def test_hardware_encoder_runs_in_first_ffmpeg_that_starts_it(encoder: str, with_gpu: Path, tmp_path: Path) -> None:
    output = write_clip(tmp_path / "out.mp4", encoder).result
    assert output.encoder == ("h264_nvenc" if encoder == "auto" else encoder)
    assert output.ffmpeg.endswith("from PATH")
    assert output.command[0] == str(tmp_path / "bin" / "ffmpeg")
    assert output.degraded == ()
    assert probe(output.path, scan=True).scan.frame_count == 5  # type: ignore[union-attr]


def test_ffmpeg_without_gpu_support_is_tried_once(
    with_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    run = subprocess.run

    def noting(command: tuple[str, ...], **options: object) -> object:
        tried.append(command[0])
        return run(command, **options)  # type: ignore[call-overload]

    write_clip(tmp_path / "one.mp4", "auto")
    monkeypatch.setattr(encoders.subprocess, "run", noting)
    write_clip(tmp_path / "two.mp4", "auto", quality=30)
    assert tried == [str(tmp_path / "bin" / "ffmpeg")]


def test_software_encoder_never_runs_in_second_ffmpeg(with_gpu: Path, tmp_path: Path) -> None:
    output = write_clip(tmp_path / "out.mp4", "libx264").result
    assert (output.command[0], output.ffmpeg) == (REAL, str(find_ffmpeg(Settings())))
    assert not with_gpu.exists()


def test_graph_edit_runs_in_ffmpeg_with_gpu_support(with_gpu: Path, clips: Clips, tmp_path: Path) -> None:
    encode = EncodeOptions(encoder="h264_nvenc")
    still = crops((0, 20, 10, 90, 160))
    result, path = framed(clips.get("with_sound.mp4"), tmp_path, crop=still, output_size=(180, 320), encode=encode)
    assert (result.engine, result.encoder, result.degraded) == ("ffmpeg-graph", "h264_nvenc", ())
    assert result.usage is not None
    assert result.usage.ffmpeg.endswith("from PATH")
    assert probe(path).size == (180, 320)


def test_receipt_software_encoder_names_default_ffmpeg(clips: Clips, tmp_path: Path) -> None:
    result, _ = framed(clips.get("with_sound.mp4"), tmp_path, output_size=(180, 320))
    assert result.usage is not None
    assert (result.usage.ffmpeg, result.usage.decoder_ffmpeg) == (str(find_ffmpeg(Settings())), "")
    assert type(result).parse(result.to_dict()) == result


def test_hardware_encoder_unavailable_names_each_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_NVIDIA_DRIVER", tmp_path)
    executable(tmp_path / "ffmpeg", "import sys; sys.exit('[h264_nvenc @ 0x5] Driver does not support it')")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EncoderUnavailableError, match="does not start with these settings in any available ffmpeg"
    ) as caught:
        try_encoder(Settings(), "h264_nvenc")
    reasons = "imageio-ffmpeg: Cannot load libcuda.so.1; PATH: Driver does not support it"
    assert reasons in caught.value.message
    output = write_clip(tmp_path / "out.mp4", "auto").result
    assert output.encoder == "libx264"
    assert output.degraded == (
        Degradation("encoder_unavailable", f"h264_nvenc does not start on this machine ({reasons})"),
    )


def test_hardware_encoder_same_reason_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    executable(tmp_path / "ffmpeg", f"import os, sys; os.execv({REAL!r}, [{REAL!r}, *sys.argv[1:]])")
    output = write_clip(tmp_path / "out.mp4", "auto").result
    (note,) = output.degraded
    assert str(note) == "h264_nvenc does not start on this machine (Cannot load libcuda.so.1)"


def test_nvdec_runs_in_first_ffmpeg_that_decodes(with_gpu: Path, clips: Clips) -> None:
    media = probe(clips.get("25.mp4"))
    ffmpeg = nvdec_ffmpeg(media, Settings())
    assert ffmpeg is not None
    assert ffmpeg.origin == "PATH"
    on_gpu = [frame.data.tobytes() for frame in FrameReader(media, decoder="nvdec")]
    assert on_gpu == [frame.data.tobytes() for frame in FrameReader(media)]
    assert "-hwaccel cuda" in with_gpu.read_text()


def test_doctor_names_hardware_ffmpeg(with_gpu: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "reel_modal", "doctor", "--json"], capture_output=True, check=True)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    for name in ("encoder h264_nvenc", "encoder hevc_nvenc", "decoder nvdec"):
        assert findings[name]["ok"]
        assert findings[name]["detail"].endswith("from PATH")
    assert findings["encoder libx264"]["detail"] == "encodes"


@pytest.mark.parametrize(
    ("name", "hardware"),
    [("h264_nvenc", True), ("av1_qsv", True), ("hevc_videotoolbox", True), ("libx264", False), ("ffv1", False)],
)
def test_is_hardware_depends_on_encoder_name(name: str, hardware: bool) -> None:
    assert is_hardware(name) is hardware
