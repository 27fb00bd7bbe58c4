"""Both decoders return the same pictures of a truncated or damaged recording."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import av
import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal import FrameReader, Settings
from reel_modal._ffmpeg.reader import Decoder
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

CLIPS = {
    "h264.mp4": ("-c:v", "libx264", "-preset", "veryfast", "-g", "300"),
    "h264.mkv": ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-bf", "3"),
    "h264.ts": ("-c:v", "libx264", "-preset", "veryfast", "-g", "20"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2"),
    "mpeg4.avi": ("-c:v", "mpeg4"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
}


@pytest.fixture(scope="module", params=CLIPS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / request.param
    picture = "testsrc2=size=160x96:rate=25:duration=1.2"
    ffmpeg("-f", "lavfi", "-i", picture, *CLIPS[request.param], "-pix_fmt", "yuv420p", path)
    return path


def broken(source: Path, target: Path, *numbers: int) -> Path:
    """Copy a clip and overwrite its packets `numbers` with bytes that no decoder accepts."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        packet = packets[number]
        at = data.find(bytes(packet)[:64])  # in some containers the position is that of a block's header
        assert at > 0
        data[at : at + min(packet.size, 64)] = b"\xff" * min(packet.size, 64)
    target.write_bytes(data)
    return target


def times(path: Path, cores: int, decoder: Decoder = "process") -> list[float]:
    settings = Settings.from_env(cpu=cores)
    with FrameReader(path, pixel_format="yuv420p", settings=settings, decoder=decoder) as reader:
        return [float(frame.pts_seconds) for frame in reader]


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_decoders_broken_last_packets_give_same_pictures(whole: Path, cores: int, tmp_path: Path) -> None:
    if Settings.from_env().ffmpeg is not None and not whole.stem.startswith(("h264", "vp9")):
        pytest.skip("other versions of libavcodec give other pictures after a broken one of HEVC and MPEG-4")
    count = len(times(whole, cores))
    every = ((-1,), (-2,), (-3, -2), (-5,), (-7, -4))
    for numbers in every if cores == 4 else every[::2]:
        clip = broken(whole, tmp_path / whole.name, *numbers)
        expected = times(clip, cores)
        assert times(clip, cores, decoder="in_process") == expected, numbers
        assert count - 15 <= len(expected) <= count


@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_reader_broken_second_last_packet_counted_once(decoder: Decoder, tmp_path: Path) -> None:
    source = tmp_path / "whole.mp4"
    picture = "testsrc2=size=320x180:rate=30:duration=2"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-g", "300", "-pix_fmt", "yuv420p", source)
    clip = broken(source, tmp_path / "broken.mp4", -2)
    with FrameReader(clip, decoder=decoder, settings=Settings.from_env(cpu=4)) as reader:
        assert sum(1 for _ in reader) == 59
    assert reader.broken_packets == 1


def test_reader_mostly_broken_clip_is_read(whole: Path, tmp_path: Path) -> None:
    clip = broken(whole, tmp_path / whole.name, *range(4, 30))
    results = [times(clip, 2, decoder) for decoder in get_args(Decoder)[:2]]
    assert results[0] == results[1]
    assert results[0][0] == times(whole, 2)[0]


@pytest.mark.parametrize("kind", [OverlayRequest, FramingRequest])
@pytest.mark.parametrize("smart", [True, False])
@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_render_truncated_file_ends_at_truncation(suffix: str, smart: bool, kind: type, tmp_path: Path) -> None:
    whole, source = tmp_path / f"whole{suffix}", tmp_path / f"in{suffix}"
    codec = CLIPS["vp9.webm"] if suffix == ".webm" else CLIPS["h264.mkv"]
    first = ("-movflags", "+faststart") if suffix == ".mp4" else ()
    picture = "testsrc2=size=160x96:rate=25:duration=4"
    ffmpeg("-f", "lavfi", "-i", picture, *codec, "-pix_fmt", "yuv420p", *first, whole)
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    fields = {"trim_end_seconds": 3.8, "output_size": (160, 96)} if kind is FramingRequest else {"regions": []}
    result = rendered(kind, source, tmp_path / "out.mp4", encode=EncodeOptions(smart=smart), **fields)
    readable = len(times(source, 1))
    assert readable < 80
    output_frames = probe(tmp_path / "out.mp4", scan=True).frame_count
    assert output_frames is not None
    assert readable <= output_frames <= readable + 4  # pictures stored after the truncation are missing
    codes = {note.code for note in result.degraded}
    assert "source_breaks_off" in codes
    assert ("trim_shortened" in codes) == (kind is FramingRequest)


CUT = {
    ".mp4": ("-c:v", "libx264", "-c:a", "aac", "-movflags", "+faststart"),
    ".mov": ("-c:v", "libx264", "-c:a", "aac", "-movflags", "+frag_keyframe", "-g", "60"),
    ".mkv": ("-c:v", "libx264", "-c:a", "aac"),
    ".avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    ".wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    ".flv": ("-c:v", "libx264", "-c:a", "aac"),
}
STILL = {"output_size": (160, 96)}
MOVING = {
    "output_size": (80, 48),
    "crop": [
        {"time": 0, "x": 0, "y": 0, "width": 80, "height": 48},
        {"time": 4, "x": 9, "y": 9, "width": 80, "height": 48},
    ],
}


def cut_off(folder: Path, suffix: str) -> tuple[Path, Path]:
    """Make a clip of 4 s, and a copy without its last two fifths."""
    whole, source = folder / f"whole{suffix}", folder / f"in{suffix}"
    inputs = ("-f", "lavfi", "-i", "testsrc2=size=160x96:rate=25:duration=4", "-f", "lavfi", "-i", "sine=duration=4")
    ffmpeg(*inputs, "-pix_fmt", "yuv420p", *CUT[suffix], whole)
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    return whole, source


@pytest.mark.parametrize("suffix", CUT)
def test_render_truncated_source_is_noted(suffix: str, tmp_path: Path) -> None:
    whole, source = cut_off(tmp_path, suffix)
    assert (probe(whole).breaks_off, probe(source).breaks_off) == (False, True)
    for path in (whole, source):
        result = rendered(OverlayRequest, path, tmp_path / f"{path.stem}-out.mp4", regions=())
        codes = [note.code for note in result.degraded]
        assert codes.count("source_breaks_off") == (path == source)
        assert "sound_trimmed" not in codes


@pytest.mark.parametrize("mode", ["smart", "full", "source", "copy", "graph", "moving", "faster", "upscale"])
def test_render_truncated_source_counts_missing_in_every_mode(mode: str, tmp_path: Path) -> None:
    _, source = cut_off(tmp_path, ".mp4")
    media = probe(source, scan=True)
    assert media.scan is not None
    edits: dict[str, tuple[type, dict[str, object]]] = {
        "smart": (OverlayRequest, {"regions": ()}),
        "full": (OverlayRequest, {"regions": (), "encode": EncodeOptions(smart=False)}),
        "source": (OverlayRequest, {"regions": (), "rate": "source"}),
        "copy": (FramingRequest, {"trim_start_seconds": 1, **STILL}),
        "graph": (FramingRequest, {"output_size": (80, 48)}),
        "moving": (FramingRequest, MOVING),
        "faster": (FramingRequest, {"segments": [{"start": 0, "end": 4, "speed": 2}], **STILL}),
        "upscale": (UpscaleRequest, {"scale": 2}),
    }
    kind, fields = edits[mode]
    result = rendered(kind, source, tmp_path / "out.mp4", **fields)
    (note,) = (note for note in result.degraded if note.code == "source_breaks_off")
    assert f"{4 - float(media.scan.duration_seconds):.2f} s and" in note.message
    assert f"{100 - media.scan.frame_count} of 100 frames" in note.message


def test_trim_before_truncation_loses_nothing(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv"):
        _, source = cut_off(tmp_path, suffix)
        result = rendered(FramingRequest, source, tmp_path / f"{suffix[1:]}.mp4", trim_end_seconds=1, **STILL)
        assert not {note.code for note in result.degraded} & {"source_breaks_off", "trim_shortened"}


def test_render_file_truncated_in_audio_packet_is_noted(tmp_path: Path) -> None:
    whole, source = cut_off(tmp_path, ".mp4")
    source.write_bytes(whole.read_bytes()[:-5])
    result = rendered(OverlayRequest, source, tmp_path / "out.mp4", regions=())
    assert "source_breaks_off" in {note.code for note in result.degraded}
