"""Both decoders give the same pictures of a recording that breaks off, whichever of its last packets is broken."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import av
import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal import FrameReader, Settings
from reel_modal.media import probe
from reel_modal.media.frame_reader import Decoder
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest

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
    """Copy a clip, its packets `numbers` overwritten with bytes that no decoder accepts."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        packet = packets[number]
        at = data.find(bytes(packet)[:64])  # the position is that of a block's header in some containers
        assert at > 0
        data[at : at + min(packet.size, 64)] = b"\xff" * min(packet.size, 64)
    target.write_bytes(data)
    return target


def times(path: Path, cores: int, decoder: Decoder = "process") -> list[float]:
    settings = Settings.from_env(cpu=cores)
    with FrameReader(path, pixel_format="yuv420p", settings=settings, decoder=decoder) as reader:
        return [float(frame.pts_seconds) for frame in reader]


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_both_decoders_give_the_same_pictures_of_a_broken_end(whole: Path, cores: int, tmp_path: Path) -> None:
    if Settings.from_env().ffmpeg is not None and not whole.stem.startswith(("h264", "vp9")):
        pytest.skip("other versions of libavcodec give other pictures after a broken one of HEVC and MPEG-4")
    count = len(times(whole, cores))
    for numbers in ((-1,), (-2,), (-3, -2), (-5,), (-7, -4)):
        clip = broken(whole, tmp_path / whole.name, *numbers)
        expected = times(clip, cores)
        assert times(clip, cores, decoder="in_process") == expected, numbers
        assert count - 15 <= len(expected) <= count


@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_broken_last_packet_but_one_is_counted_once(decoder: Decoder, tmp_path: Path) -> None:
    source = tmp_path / "whole.mp4"
    picture = "testsrc2=size=320x180:rate=30:duration=2"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-g", "300", "-pix_fmt", "yuv420p", source)
    clip = broken(source, tmp_path / "broken.mp4", -2)
    with FrameReader(clip, decoder=decoder, settings=Settings.from_env(cpu=4)) as reader:
        assert sum(1 for _ in reader) == 59
    assert reader.broken_packets == 1


def test_clip_of_which_most_is_broken_is_read(whole: Path, tmp_path: Path) -> None:
    clip = broken(whole, tmp_path / whole.name, *range(4, 30))
    made = [times(clip, 2, decoder) for decoder in get_args(Decoder)[:2]]
    assert made[0] == made[1]
    assert made[0][0] == times(whole, 2)[0]


@pytest.mark.parametrize("kind", [OverlayRequest, FramingRequest])
@pytest.mark.parametrize("smart", [True, False])
@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_output_of_a_file_that_breaks_off_ends_there(suffix: str, smart: bool, kind: type, tmp_path: Path) -> None:
    whole, source = tmp_path / f"whole{suffix}", tmp_path / f"in{suffix}"
    codec = CLIPS["vp9.webm"] if suffix == ".webm" else CLIPS["h264.mkv"]
    first = ("-movflags", "+faststart") if suffix == ".mp4" else ()
    picture = "testsrc2=size=160x96:rate=25:duration=4"
    ffmpeg("-f", "lavfi", "-i", picture, *codec, "-pix_fmt", "yuv420p", *first, whole)
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    kept = {"trim_end_seconds": 3.8, "output_size": (160, 96)} if kind is FramingRequest else {"regions": []}
    result = rendered(kind, source, tmp_path / "out.mp4", encode=EncodeOptions(smart=smart), **kept)
    there = len(times(source, 1))
    assert there < 80
    made = probe(tmp_path / "out.mp4", scan=True).expected_pictures
    assert made is not None
    assert there <= made <= there + 4  # those between the last ones, which are stored later, are not there
    assert ("trim_shortened" in {note.code for note in result.degraded}) == (kind is FramingRequest)
