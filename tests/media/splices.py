"""Clips of every structure that splicing supports, and the checks for their outputs."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from tests.clips import RECIPES, Clips, ffmpeg, made_clip, turned_clip
from tests.local_files import key_of, root_storage
from tests.lost import of_file
from tests.media.boxes import check_boxes, sample_durations
from tests.run_function import run_function

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._smart_render.h264.parameter_sets import ParameterSets
from reel_modal._smart_render.plan import RenderPlan, plan_packets
from reel_modal._smart_render.source import SpliceSource, read_picture
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.media import MediaInfo, probe
from reel_modal.media.frames import Frame, sample_views
from reel_modal.media.orientation import Orientation
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest, RenderResult
from reel_modal.settings import Settings

SIZE = (192, 108)
FAST = EncodeOptions(encoder="libx264", preset="ultrafast")


def x264(*options: str, **settings: object) -> Callable[[Clips, Path], None]:
    """Return a recipe for a four-second x264 clip."""

    def make(_: Clips, path: Path) -> None:
        encoder = ("-c:v", "libx264", "-preset", "veryfast", "-g", "24", *options)
        made_clip(path, **{"size": SIZE, "seconds": 4, "encoder": encoder, **settings})

    return make


def remade(source: str, *options: str, before: Sequence[str] = ()) -> Callable[[Clips, Path], None]:
    """Return a recipe that copies the packets of another clip."""

    def make(clips: Clips, path: Path) -> None:
        ffmpeg(*before, "-i", clips.get(source), "-c", "copy", *options, path)

    return make


def _uneven(clips: Clips, path: Path) -> None:
    """Drop every third picture of the second half."""
    ffmpeg(
        *("-i", clips.get("spliced.mp4"), "-vf", r"select=lt(t\,2)+mod(n\,3)", "-fps_mode", "passthrough"),
        *("-c:v", "libx264", "-preset", "veryfast", "-g", "24", "-c:a", "copy", path),
    )


def _standing(clips: Clips, path: Path) -> None:
    """Show one picture in the middle of a group for 1.5 s."""
    ffmpeg(
        *("-i", clips.get("twelve_seconds.mp4"), "-vf", r"select=lt(t\,1.1)+gt(t\,2.6)", "-fps_mode", "passthrough"),
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "24", "-c:a", "copy", path),
    )


def _late(clips: Clips, path: Path) -> None:
    """Start the video half a second after the audio."""
    clip = clips.get("spliced.mp4")
    ffmpeg("-itsoffset", "0.5", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", path)


def _changing_sets(clips: Clips, path: Path) -> None:
    """Join two encodes with different parameter sets under the same ids, as some editors do."""
    parts = []
    for number, options in enumerate(("bframes=2", "bframes=0:ref=5")):
        part = path.with_name(f"part{number}.264")
        x264("-x264-params", f"{options}:repeat-headers=1", seconds=2)(clips, part)
        parts.append(part.read_bytes())
    joined = path.with_name("joined.264")
    joined.write_bytes(b"".join(parts))
    ffmpeg("-framerate", "25", "-i", joined, "-c", "copy", "-bsf:v", "setts=pts=N*512:dts=N*512", path)


STRUCTURES: dict[str, Callable[[Clips, Path], None]] = {
    "spliced.mp4": x264(audio_seconds=4),
    "twelve_seconds.mp4": x264(seconds=12, audio_seconds=12),
    "gop12.mp4": x264("-g", "12"),
    "gop48.mp4": x264("-g", "48"),
    "gop250.mp4": x264("-g", "250"),
    "no_b.mp4": x264("-bf", "0"),
    "no_pyramid.mp4": x264("-x264-params", "b-pyramid=none:bframes=2"),
    "pyramid.mp4": x264("-x264-params", "b-pyramid=normal:bframes=5:b-adapt=0"),
    "intra.mp4": x264("-g", "1"),
    "sixteen_references.mp4": x264("-x264-params", "ref=16:bframes=8"),
    "one_reference.mp4": x264("-x264-params", "ref=1:bframes=0"),
    "baseline.mp4": x264("-profile:v", "baseline"),
    "main.mp4": x264("-profile:v", "main"),
    "sliced.mp4": x264("-x264-params", "slices=4"),
    "open_gop.mp4": x264("-x264-params", "open-gop=1:bframes=3:b-adapt=0"),
    "refreshed.mp4": x264("-x264-params", "intra-refresh=1"),
    "ntsc.mp4": x264(fps=Fraction(30000, 1001)),
    "fps50.mp4": x264(fps=50, seconds=2),
    "fps59_94.mp4": x264(fps=Fraction(60000, 1001), seconds=2),
    "stereo.mp4": x264(audio_seconds=4, options=("-ac", "2")),
    "uneven.mp4": _uneven,
    "uneven.mkv": remade("uneven.mp4"),
    "standing.mp4": _standing,
    "cut.mp4": remade("spliced.mp4", before=("-ss", "0.5")),
    "late.mp4": _late,
    "rotated_90.mp4": turned_clip("spliced.mp4", 90),
    "rotated_180.mp4": turned_clip("spliced.mp4", 180),
    "mirrored_turned.mp4": turned_clip("spliced.mp4", 90, mirrored=True),
    "fragmented.mp4": remade("spliced.mp4", "-movflags", "frag_keyframe+empty_moov"),
    "short_lengths.mp4": x264(),
    "quicktime.mov": remade("spliced.mp4"),
    "matroska.mkv": remade("spliced.mp4"),
    "ntsc.mkv": remade("ntsc.mp4"),
    "other_ids.mp4": x264("-x264-params", "sps-id=1"),
    "repeated_sets.mp4": x264("-bsf:v", "dump_extra=freq=keyframe"),
    "avc3.mp4": x264("-x264-params", "repeat-headers=1", "-tag:v", "avc3"),
    "anamorphic_spliced.mp4": x264("-vf", "setsar=4/3"),
    "full_range_spliced.mp4": x264(
        "-vf", "scale=out_range=pc:out_color_matrix=bt709", options=("-color_range", "pc", "-colorspace", "bt709")
    ),
    "rich.mp4": x264("-qp", "12", "-vf", "noise=alls=20:allf=t"),
    "changing_sets.mp4": _changing_sets,
    "top_first.mp4": x264("-vf", "tinterlace=interleave_top,setfield=tff", "-x264-params", "tff=1", fps=50),
    "bottom_first.mp4": x264("-vf", "tinterlace=interleave_bottom,setfield=bff", "-x264-params", "bff=1", fps=50),
    "marked_interlaced.mp4": x264("-x264-params", "fake-interlaced=1"),
    "high10.mp4": x264(pixel_format="yuv420p10le"),
    "high422.mp4": x264(pixel_format="yuv422p"),
    "high422_10.mp4": x264(pixel_format="yuv422p10le"),
    "high444.mp4": x264(pixel_format="yuv444p"),
    "high444_10.mp4": x264(pixel_format="yuv444p10le"),
    "high10_intra.mp4": x264("-g", "1", pixel_format="yuv420p10le"),
    "interlaced_422_10.mp4": x264(
        *("-vf", "tinterlace=interleave_top,setfield=tff", "-x264-params", "tff=1:nal-hrd=vbr"),
        *("-maxrate", "2M", "-bufsize", "2M"),
        fps=50,
        pixel_format="yuv422p10le",
    ),
    "rotated_422_10.mp4": turned_clip("high422_10.mp4", 90),
    "full_range_422.mp4": x264(
        *("-vf", "scale=out_range=pc:out_color_matrix=bt709"),
        options=("-color_range", "pc", "-colorspace", "bt709"),
        pixel_format="yuv422p",
    ),
    "hlg10.mp4": x264(
        *("-vf", "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc"),
        pixel_format="yuv420p10le",
    ),
    "lossless.mp4": x264("-qp", "0"),
    "rgb.mp4": x264("-c:v", "libx264rgb", pixel_format="rgb24"),
    "monochrome.mp4": x264(pixel_format="gray"),
    "hevc.mp4": x264("-c:v", "libx265", "-x265-params", "log-level=none", seconds=1),
    "stream_spliced.ts": remade("spliced.mp4"),
}
RECIPES.update(STRUCTURES)


@dataclass
class Rendering:
    """One run of `render_overlay` with its input, output and notes."""

    source: Path
    path: Path
    result: RenderResult
    request: OverlayRequest
    drawn: list[bytes]
    events: list[ProgressEvent]

    @cached_property
    def media(self) -> MediaInfo:
        return probe(self.source)

    @cached_property
    def picture(self) -> SpliceSource:
        return read_picture(self.media)

    @cached_property
    def plan(self) -> RenderPlan:
        changed = OverlayRenderer(self.request, self.media.size, self.media.color).changed_intervals
        return plan_packets(self.picture.table, self.picture.times, changed)


def regions(*spans: tuple[float, float]) -> tuple[HighlightRegion, ...]:
    key = HighlightKeyframe(time_seconds=Fraction(0), x=0.4, y=0.4, radius_x=0.2, radius_y=0.3)
    return tuple(
        HighlightRegion(
            id=str(number),
            start_seconds=Fraction(str(start)),
            end_seconds=Fraction(str(end)),
            keyframes=(key,),
            video_size=(1, 1),
        )
        for number, (start, end) in enumerate(spans)
    )


class RecordingPipe(FramePipe):
    """A pipe that records the frames written to it."""

    written: ClassVar[list[bytes]] = []

    def write(self, frame: object) -> None:
        self.written.append(bytes(frame.data if isinstance(frame, Frame) else frame))  # type: ignore[arg-type]
        super().write(frame)  # type: ignore[arg-type]


def render(
    source: Path,
    folder: Path,
    *spans: tuple[float, float],
    output: str = "out.mp4",
    encode: EncodeOptions = FAST,
    events: list[ProgressEvent] | None = None,
    token: CancellationToken | None = None,
) -> Rendering:
    request = OverlayRequest(
        job_id="j",
        user_id="u",
        input_key=key_of(source),
        output_key=key_of(folder / output),
        regions=regions(*spans),
        encode=encode,
    )
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    events = [] if events is None else events
    context = JobContext(
        storage=root_storage(),
        workdir=workdir,
        reporter=Reporter(events.append, interval_seconds=0),
        cancellation=token or CancellationToken(),
    )
    RecordingPipe.written = []
    try:
        result = run_function(request, context)
    finally:
        assert not list(workdir.iterdir())
    return Rendering(source, folder / output, result, request, RecordingPipe.written, events)


def check(rendering: Rendering) -> None:
    """Assert everything that must be true of a spliced clip."""
    plan = rendering.plan
    assert (rendering.result.plan, rendering.result.reason) == ("smart", "")
    assert rendering.result.frames_copied == plan.frames_copied
    old, new = packets(rendering.source), packets(rendering.path)
    assert len(old) == len(new)
    for start, end in plan.copied:
        assert new[start:end] == old[start:end]
    shown_old, shown_new = shown(rendering.source), shown(rendering.path)
    copied = {rank - plan.hidden for start, end in plan.copied for rank in range(start, end)}
    assert len(shown_new) == len(shown_old) == rendering.result.frames
    changed = [rank for rank, (a, b) in enumerate(zip(shown_old, shown_new, strict=True)) if a != b]
    assert not copied & set(changed)
    assert quiet(rendering.path) == ""
    assert fields(rendering.path) == fields(rendering.source)
    check_times(rendering)
    assert rendering.drawn == list(frame_count(rendering, plan))
    check_sets(rendering)
    # An output begins with its first picture, and keeps only the earlier audio that a decoder needs.
    output_audio, whole = sound(rendering.path), sound(rendering.source)
    assert output_audio == whole[len(whole) - len(output_audio) :]
    assert (len(output_audio) < len(whole)) == ("sound_trimmed" in {note.code for note in rendering.result.degraded})
    check_boxes(rendering.path)


def check_times(rendering: Rendering) -> None:
    """Assert that display times are unchanged, and that a constant rate is constant in the sample table too."""
    source, path = rendering.source, rendering.path
    with av.open(str(source)) as before, av.open(str(path)) as after:
        old, new = before.streams.video[0], after.streams.video[0]
        assert (new.codec_tag, new.codec_context.profile) == ("avc1", old.codec_context.profile)
        if rendering.picture.times.constant:
            assert len(sample_durations(path)) == 1
            assert new.average_rate == rendering.media.fps
        times = [[p.pts * s.time_base for p in c.demux(s) if p.size] for c, s in ((before, old), (after, new))]  # type: ignore[operator]
    first = [min(values) for values in times]
    # Matroska stores milliseconds.
    late = max(abs((a - first[0]) - (b - first[1])) for a, b in zip(sorted(times[0]), sorted(times[1]), strict=True))
    assert late <= (Fraction(1, 1000) if source.suffix == ".mkv" else 0)


def check_sets(rendering: Rendering) -> None:
    with av.open(str(rendering.source)) as before, av.open(str(rendering.path)) as after:
        old, new = (ParameterSets.parse(c.streams.video[0].codec_context.extradata or b"") for c in (before, after))
    assert set(old.sps) <= set(new.sps)
    assert set(old.pps) <= set(new.pps)
    assert new.length_size == old.length_size


@of_file
def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [hashlib.md5(bytes(p)).digest() for p in container.demux(video=0) if p.size]  # noqa: S324


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size] if container.streams.audio else []


@of_file
def shown(path: Path) -> list[bytes]:
    """Return a hash of the samples of each displayed picture."""
    with av.open(str(path)) as container:
        return [hashlib.md5(samples(frame)).digest() for frame in container.decode(video=0)]  # noqa: S324


def samples(frame: av.VideoFrame) -> bytes:
    width = 1 if frame.format.components[0].bits == 8 else 2
    rows = [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width * width]
        for plane in frame.planes
    ]
    return b"".join(np.ascontiguousarray(plane).tobytes() for plane in rows)


def fields(path: Path) -> list[str]:
    """Return a letter for each picture: P for a whole frame, T or B for two fields with the top or bottom one first."""
    return re.findall(r" i:([PTB]) iskey", _log_of_decoding(path, path.stat().st_mtime_ns))


def quiet(path: Path) -> str:
    """Return the warnings and errors of ffmpeg while it decodes all of `path`."""
    lines = _log_of_decoding(path, path.stat().st_mtime_ns).splitlines()
    return "\n".join(line for line in lines if re.search(r"\[(warning|error|fatal|panic)\]", line))


@lru_cache
def _log_of_decoding(path: Path, _changed_ns: int) -> str:
    ffmpeg_path = find_ffmpeg(Settings.from_env()).path
    command = [ffmpeg_path, "-v", "level+info", "-i", str(path), "-vf", "showinfo", "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def frame_count(rendering: Rendering, plan: RenderPlan) -> Iterator[bytes]:
    """Yield the stored pictures that the full renderer draws in the windows of the plan."""
    media, picture = rendering.media, rendering.picture
    layout, seconds = picture.pixel_format, picture.times.seconds
    window_ranks = {rank for window in plan.windows for rank in range(*window.kept)}
    upright = layout.replace("422", "440") if media.orientation.turned else layout
    overlay = OverlayRenderer(rendering.request, media.size, media.color, upright)  # type: ignore[arg-type]
    # ffmpeg converts 4:2:2 through 4:4:4 and resamples it; the stored pictures are exact.
    as_stored = replace(media, orientation=Orientation(), size=media.coded_size)
    with FrameReader(as_stored, pixel_format=layout) as reader:
        for frame in reader:
            rank = frame.index + plan.hidden
            if rank in window_ranks:
                stored = sample_views(frame.data, layout, frame.size)
                planes = tuple(np.ascontiguousarray(plane) for plane in media.orientation.turn(stored))
                if overlay.active(seconds[rank]):
                    overlay.render(planes, seconds[rank])
                yield b"".join(np.ascontiguousarray(plane).tobytes() for plane in media.orientation.turn_back(planes))
