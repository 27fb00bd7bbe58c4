"""Interlaced clips: detected by their pictures, deinterlaced for rendering, kept for copying."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tests.clips import ffmpeg, real
from tests.media.overlaid import spotlight
from tests.media.rendered import rendered

from reel_modal._ffmpeg.reader import Decoder
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import interlacing, probe, probing
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

SIZE = (160, 96)
RATE = Fraction(25)
FAITHFUL = EncodeOptions(encoder="libx264", preset="ultrafast", quality=4, smart=False)

# A white bar that moves 6 pixels from field to field: interleaved fields show combing at its edges.
BAR = (
    "color=black:size=160x96:rate=50:duration=1,geq=lum='if(between(mod(X-N*6+1600,160),0,40),235,16)':cb=128:cr=128"
)
WEAVE = {"tff": "tinterlace=interleave_top,setfield=tff", "bff": "tinterlace=interleave_bottom,setfield=bff"}
CODED = ("-flags", "+ilme+ildct")
KINDS: dict[str, tuple[str, ...]] = {
    "h264.mp4": ("-c:v", "libx264", *CODED, "-crf", "4"),
    "h264_10.mkv": ("-c:v", "libx264", *CODED, "-crf", "4", "-pix_fmt", "yuv420p10le"),
    "h264_422.mov": ("-c:v", "libx264", *CODED, "-crf", "4", "-pix_fmt", "yuv422p"),
    "mpeg2.ts": ("-c:v", "mpeg2video", *CODED, "-q:v", "2"),
    "mpeg4.avi": ("-c:v", "mpeg4", *CODED, "-q:v", "2"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "unmarked_prores.mov": ("-c:v", "prores_ks"),  # the frames are flagged progressive, the container interlaced
    "unmarked_mjpeg.mov": ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
}


def woven(path: Path, order: str, *encoder: str, source: str = BAR, rate: int = 25) -> Path:
    layout = () if "-pix_fmt" in encoder else ("-pix_fmt", "yuv422p10le" if "prores_ks" in encoder else "yuv420p")
    # In 4:2:0 each field has separate chroma.
    picture = f"{source},format=yuv444p,{WEAVE[order]},scale=interl=1"
    ffmpeg("-f", "lavfi", "-i", picture, "-r", str(rate), *encoder, *layout, path)
    return path


def teeth(path: Path, **options: Any) -> float:
    """Return how much the lines of the pictures differ from the mean of their neighbors."""
    with FrameReader(path, pixel_format="gray8", **options) as reader:
        differences = []
        for frame in reader:
            luma = frame.image.astype(int)
            differences.append(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) // 2).mean())
    return float(np.mean(differences))


def pictures(path: Path, decoder: Decoder, **options: Any) -> list[tuple[Fraction, bytes]]:
    with FrameReader(path, pixel_format="yuv420p", decoder=decoder, **options) as reader:
        return [(frame.pts_seconds, frame.data.tobytes()) for frame in reader]


def field_order(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return int(container.streams.video[0].codec_context.field_order)


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("name", KINDS)
def test_reader_interlaced_clip_is_deinterlaced(name: str, order: str, tmp_path: Path) -> None:
    clip = woven(tmp_path / name, order, *KINDS[name])
    media = probe(clip)
    assert media.interlaced
    assert media.fps == RATE
    stored = pictures(clip, "process")
    assert teeth(clip) > 5
    for deinterlace, times in (("frame", 1), ("field", 2)):
        frames = pictures(clip, "process", deinterlace=deinterlace)
        assert frames == pictures(clip, "in_process", deinterlace=deinterlace)
        assert len(frames) == times * len(stored)
        steps = {later - time for (time, _), (later, _) in pairwise(frames)}
        assert steps == {1 / (times * RATE)}
        assert teeth(clip, deinterlace=deinterlace) < 0.2 * teeth(clip)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_reader_field_rate_keeps_field_order(order: str, tmp_path: Path) -> None:
    clip = woven(tmp_path / "clip.mp4", order, *KINDS["h264.mp4"])
    places = []
    with FrameReader(clip, pixel_format="gray8", deinterlace="field") as reader:
        for frame in reader:
            lit = frame.image[SIZE[1] // 2] > 128
            places.append(int(np.flatnonzero(lit & ~np.roll(lit, 1))[0]))
    moved = np.diff(places) % SIZE[0]
    assert set(moved.tolist()) <= {5, 6, 7}


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "30"])
def test_reader_field_rate_is_twice_frame_rate(rate: str, tmp_path: Path) -> None:
    source = BAR.replace("rate=50", f"rate={2 * Fraction(rate)}")
    clip = tmp_path / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", f"{source},{WEAVE['tff']}", "-r", rate, "-c:v", "libx264", *CODED, clip)
    media = probe(clip, scan=True).deinterlaced("field")
    assert media.fps == 2 * Fraction(rate)
    assert media.expected_frames == len(pictures(clip, "in_process", deinterlace="field", fps=media.fps))


FUNCTIONS: dict[str, tuple[type[Any], dict[str, object]]] = {
    "overlay": (OverlayRequest, {"regions": spotlight("0", "0.1"), "effect": "brightness_boost"}),
    "framing": (FramingRequest, {"output_size": SIZE}),
    "crop": (
        FramingRequest,
        {
            "output_size": SIZE,
            "crop": (CropKeyframe(time_seconds=Fraction(0), x=10, y=6, width=100, height=60),),
        },
    ),
    "upscale": (UpscaleRequest, {"scale": 2}),
}


@pytest.mark.parametrize("deinterlace", ["frame", "field"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_render_interlaced_clip_gives_progressive_output(
    name: str, deinterlace: Literal["frame", "field"], tmp_path: Path
) -> None:
    clip = woven(tmp_path / "clip.mp4", "tff", *KINDS["h264.mp4"])
    kind, fields = FUNCTIONS[name]
    encode = EncodeOptions(**(FAITHFUL.to_dict() | {"deinterlace": deinterlace}))  # type: ignore[arg-type]
    result = rendered(kind, clip, tmp_path / "out.mp4", encode=encode, **fields)
    assert [note.code for note in result.degraded] == ["deinterlaced"]
    assert "interlaced" in result.degraded[0].message
    times = 2 if deinterlace == "field" else 1
    assert (result.fps, result.frames) == (times * RATE, times * 25)
    output = probe(tmp_path / "out.mp4", scan=True)
    assert output.scan is not None
    assert (output.fps, output.scan.frame_count, output.interlaced) == (result.fps, result.frames, False)
    assert field_order(tmp_path / "out.mp4") == 1
    assert teeth(tmp_path / "out.mp4") < 0.3 * teeth(clip)


@pytest.mark.parametrize("rate", ["constant", "source"])
@pytest.mark.parametrize("deinterlace", ["frame", "field"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_render_interlaced_variable_rate_keeps_length(name: str, deinterlace: str, rate: str, tmp_path: Path) -> None:
    """After a second, one picture of three remains, and the last one lasts as long as three."""
    gaps = r"select='lt(t\,1)+not(mod(n\,3))'"
    source = f"{BAR.replace('duration=1', 'duration=2')},{WEAVE['tff']},{gaps}"
    clip = tmp_path / "clip.mkv"
    ffmpeg("-f", "lavfi", "-i", source, "-fps_mode", "passthrough", *KINDS["h264.mp4"], clip)
    kind, fields = FUNCTIONS[name]
    encode = EncodeOptions(**(FAITHFUL.to_dict() | {"deinterlace": deinterlace}))  # type: ignore[arg-type]
    result = rendered(kind, clip, tmp_path / "out.mp4", encode=encode, rate=rate, **fields)
    output = probe(tmp_path / "out.mp4", scan=True)
    assert output.scan is not None
    assert abs(output.scan.duration_seconds - 2) <= Fraction(1, 20)
    assert (output.scan.frame_count, output.interlaced) == (result.frames, False)
    if rate == "source":
        stored = len(pictures(clip, "in_process"))
        assert result.frames == stored if deinterlace == "frame" else 2 * stored - 1 <= result.frames <= 2 * stored


def test_copy_interlaced_pictures_stay_interlaced(tmp_path: Path) -> None:
    clip = woven(tmp_path / "clip.mp4", "tff", *KINDS["h264.mp4"], "-g", "5")
    encode = EncodeOptions(encoder="libx264")
    result = rendered(OverlayRequest, clip, tmp_path / "out.mp4", encode=encode, regions=spotlight("0", "0.1"))
    assert (result.plan, result.degraded) == ("smart", ())
    assert field_order(tmp_path / "out.mp4") == field_order(clip)
    assert probe(tmp_path / "out.mp4").interlaced
    trimmed = {"trim_end_seconds": Fraction(1, 2), "output_size": SIZE, "encode": encode}
    result = rendered(FramingRequest, clip, tmp_path / "trimmed.mp4", **trimmed)
    assert result.plan == "smart"
    assert probe(tmp_path / "trimmed.mp4").interlaced


@pytest.mark.parametrize("kind", [OverlayRequest, FramingRequest])
def test_deinterlaced_pictures_are_not_copied(kind: type[Any], tmp_path: Path) -> None:
    clip = woven(tmp_path / "clip.mp4", "tff", *KINDS["h264.mp4"], "-g", "5")
    encode = EncodeOptions(encoder="libx264", deinterlace="field")
    fields = {"regions": ()} if kind is OverlayRequest else {"output_size": SIZE}
    result = rendered(kind, clip, tmp_path / "out.mp4", encode=encode, **fields)
    assert (result.plan, result.reason, result.fps) == ("full", "the request asks for one frame per field", 50)


PROGRESSIVE: dict[str, tuple[str, ...]] = {
    "fake.mp4": ("-c:v", "libx264", "-x264-params", "fake-interlaced=1"),
    "header.mov": ("-vf", "setfield=tff", "-c:v", "libx264"),
    "marked.mp4": ("-vf", "setfield=tff", "-c:v", "libx264", *CODED),
    "marked.ts": ("-vf", "setfield=bff", "-c:v", "mpeg2video", *CODED, "-q:v", "2"),
    "marked_ffv1.mkv": ("-vf", "setfield=tff", "-c:v", "ffv1"),
    "marked_prores.mov": ("-vf", "setfield=tff", "-c:v", "prores_ks", *CODED, "-pix_fmt", "yuv422p10le"),
}


@pytest.mark.parametrize("name", PROGRESSIVE)
def test_progressive_clip_tagged_interlaced_is_unchanged(name: str, tmp_path: Path) -> None:
    clip = tmp_path / name
    ffmpeg("-i", real("bikes.mp4"), "-t", "1.5", "-an", *PROGRESSIVE[name], clip)
    assert not probe(clip).interlaced
    assert pictures(clip, "in_process", deinterlace="field") == pictures(clip, "in_process")


@pytest.mark.parametrize("name", ["fake.mp4", "header.mov"])
@pytest.mark.parametrize("size", ["160x96", "320x240"])
def test_probe_header_alone_does_not_mean_interlaced(name: str, size: str, tmp_path: Path) -> None:
    """The comparison of pictures mistakes fine moving lines for fields."""
    clip = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=1.5", *PROGRESSIVE[name], clip)
    assert not probe(clip).interlaced


def test_probe_late_fields_are_detected(tmp_path: Path) -> None:
    """A progressive start does not exclude interlaced pictures later."""
    begin, then = (
        "testsrc2=size=160x96:rate=25:duration=1",
        f"{BAR.replace('duration=1', 'duration=2')},{WEAVE['tff']}",
    )
    clip = tmp_path / "clip.mp4"
    graph = f"{begin},setfield=tff[a];{then}[b];[a][b]concat,fps=25"
    ffmpeg("-filter_complex", graph, "-c:v", "libx264", *CODED, clip)
    assert probe(clip).interlaced


@pytest.mark.parametrize("name", ["mpeg2.ts", "ffv1.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_reader_truncated_interlaced_clip_is_read(name: str, share: float, tmp_path: Path) -> None:
    data = bytearray(woven(tmp_path / f"whole.{name}", "tff", *KINDS[name]).read_bytes())
    at = int(len(data) * share)
    data[at : at + 300] = bytes(300)
    clip = tmp_path / name
    clip.write_bytes(data[: int(len(data) * (share + 0.1))])
    assert probe(clip).interlaced
    # Error concealment may differ between the decoders; the frame times may not.
    decoders: tuple[Decoder, ...] = ("in_process", "process")
    frame_times = [[time for time, _ in pictures(clip, decoder, deinterlace="field")] for decoder in decoders]
    assert frame_times[0] == frame_times[1]


def test_progressive_clip_skips_field_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was decoded once more")

    monkeypatch.setattr(probing, "detect_fields", refuse)
    assert probing.detect_fields is not interlacing.detect_fields
    assert not probe(real("bikes.mp4")).interlaced
