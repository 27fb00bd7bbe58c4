"""Splices on real files: copied parts are bit-exact, and new parts equal the renderer's output."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clips import REAL, Clips, ffmpeg
from tests.media.boxes import sample_durations
from tests.media.splices import FAST, RecordingPipe, check, packets, quiet, render, x264
from tests.processes import children

from reel_modal._smart_render import render as windows
from reel_modal._smart_render import splice, verify
from reel_modal._smart_render.h264.parameter_sets import ParameterSets
from reel_modal._smart_render.plan import RenderPlan, RenderSpan
from reel_modal._smart_render.source import read_picture
from reel_modal._smart_render.x264_settings import X264Settings
from reel_modal.errors import JobCancelledError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions import outputs, try_smart
from reel_modal.functions.context import CancellationToken
from reel_modal.media import MediaInfo, probe
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.packet import Packet


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = children()
    monkeypatch.setattr(windows, "FramePipe", RecordingPipe)
    yield
    assert children() == before


@pytest.mark.parametrize(
    "name",
    [
        *REAL,
        *("spliced.mp4", "gop12.mp4", "gop48.mp4", "no_b.mp4", "no_pyramid.mp4", "pyramid.mp4", "intra.mp4"),
        *("sixteen_references.mp4", "one_reference.mp4", "baseline.mp4", "main.mp4", "sliced.mp4", "ntsc.mp4"),
        *("fps50.mp4", "fps59_94.mp4", "stereo.mp4", "uneven.mp4", "cut.mp4", "late.mp4", "rotated_90.mp4"),
        *("rotated_180.mp4", "mirrored_turned.mp4", "fragmented.mp4", "quicktime.mov", "matroska.mkv", "ntsc.mkv"),
        *("other_ids.mp4", "repeated_sets.mp4", "avc3.mp4", "anamorphic_spliced.mp4", "full_range_spliced.mp4"),
        *("gop250.mp4", "open_gop.mp4", "refreshed.mp4", "lossless.mp4", "hlg10.mp4", "high10_intra.mp4"),
        *("high10.mp4", "high422.mp4", "high422_10.mp4", "high444.mp4", "high444_10.mp4", "full_range_422.mp4"),
        *(
            "top_first.mp4",
            "bottom_first.mp4",
            "marked_interlaced.mp4",
            "interlaced_422_10.mp4",
            "rotated_422_10.mp4",
        ),
    ],
)
def test_splice_every_structure_works(clips: Clips, tmp_path: Path, name: str) -> None:
    encode = dataclasses.replace(FAST, hdr="keep")  # keeps HDR; rendered parts would become SDR otherwise
    check(render(clips.get(name), tmp_path, (1.3, 1.6), encode=encode))


@pytest.mark.parametrize(
    ("spans", "rendered"),
    [
        ([], 0),
        ([(0.01, 0.03)], 0),  # between two pictures
        ([(0, 0)], 24),
        ([(0, 0.2)], 24),
        ([(3.9, 1000)], 2),
        ([(100, 200)], 0),
        ([(0.1, 0.3), (1.1, 1.2), (3.5, 3.6)], 21 + 20 + 8),
        ([(0.9, 0.95), (0.96, 1.0)], 25),
    ],
)
def test_splice_renders_only_touched_groups(
    clips: Clips, tmp_path: Path, spans: list[tuple[float, float]], rendered: int
) -> None:
    """Keyframes are at 0, 24, 48, 72 and 96: a window starts at the change and ends at the next keyframe."""
    rendering = render(clips.get("no_b.mp4"), tmp_path, *spans)
    check(rendering)
    assert rendering.result.frames - rendering.result.frames_copied == rendered
    assert rendering.result.encoder == ("libx264" if rendered else "copy")


def test_splice_new_pictures_equal_full_render(clips: Clips, tmp_path: Path) -> None:
    """Compared with a full lossless render of a rotated clip."""
    source = clips.get("rotated_90.mp4")
    rendering = render(source, tmp_path, (1.3, 1.6))
    lossless = render(source, tmp_path, (1.3, 1.6), output="full.mkv", encode=EncodeOptions(encoder="ffv1"))
    (window,) = rendering.plan.windows
    with av.open(str(lossless.path)) as container:
        full = [frame.to_ndarray() for frame in itertools.islice(container.decode(video=0), *window.kept)]
    size = rendering.media.coded_size
    for drawn, stored in zip(rendering.drawn, full, strict=True):
        luma = np.frombuffer(drawn[: size[0] * size[1]], np.uint8).reshape(size[1], size[0])
        assert np.array_equal(np.rot90(luma, -1), stored[: size[0]])


def test_splice_progress_counts_rendered_frames_only(clips: Clips, tmp_path: Path) -> None:
    rendering = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6))
    assert list(dict.fromkeys(event.phase for event in rendering.events)) == ["fetch", "render", "verify", "publish"]
    drawn = rendering.result.frames - rendering.result.frames_copied
    assert 8 < drawn < 25
    events = [event for event in rendering.events if event.phase == "render"]
    done = [event.done for event in events]
    assert (done, done[0], done[-1]) == (sorted(done), 0, drawn)
    assert {event.total for event in events} == {drawn}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rgb.mp4", "its frames are gbrp (profile 244, chroma format 3, 8 bits), which x264 cannot match"),
        ("monochrome.mp4", "(profile 100, chroma format 0, 8 bits), which x264 cannot match"),
        ("hevc.mp4", "its codec is hevc; only h264 can be spliced"),
        ("stream_spliced.ts", "its container is mpegts; only MP4, MOV and Matroska can be spliced"),
        ("vorbis.mkv", "its vorbis audio cannot be copied to .mp4"),
        ("broken_packets.mp4", "packet"),
        ("changing_sets.mp4", "its parameter sets change within the stream"),
    ],
)
def test_splice_unsupported_clip_rendered_in_full_with_reason(
    clips: Clips, tmp_path: Path, name: str, reason: str
) -> None:
    rendering = render(clips.get(name), tmp_path, (0.3, 0.6))
    assert (rendering.result.plan, rendering.result.frames_copied) == ("full", 0)
    assert reason in rendering.result.reason
    assert quiet(rendering.path) == ""


@pytest.mark.parametrize(
    ("fields", "output", "reason"),
    [
        ({"smart": False}, "out.mp4", "the request disables smart rendering"),
        ({"encoder": "ffv1"}, "out.mkv", "the request asks for the encoder ffv1; only libx264 can be spliced"),
        ({}, "out.mkv", "the output is .mkv; only .m4v, .mov, .mp4 can be spliced"),
    ],
)
def test_splice_disabled_by_request_renders_in_full(
    clips: Clips, tmp_path: Path, fields: dict[str, object], output: str, reason: str
) -> None:
    encode = dataclasses.replace(FAST, **fields)  # type: ignore[arg-type]
    rendering = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6), output=output, encode=encode)
    assert (rendering.result.plan, rendering.result.reason) == ("full", reason)


def test_splice_clip_changed_everywhere_renders_in_full(clips: Clips, tmp_path: Path) -> None:
    rendering = render(clips.get("no_b.mp4"), tmp_path, (0, 100))
    assert (rendering.result.plan, rendering.result.reason) == (
        "full",
        "all of its frames change, or depend on one that does",
    )
    rendering = render(clips.get("no_b.mp4"), tmp_path, (0.1, 100))
    assert (rendering.result.plan, rendering.result.reason) == (
        "full",
        "97 of its frames would have to be rendered anyway",
    )


def test_splice_many_changes_with_gpu_encoder_renders_in_full(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = EncodeOptions(preset="ultrafast")
    source = clips.get("no_b.mp4")
    monkeypatch.setattr(try_smart, "try_encoder", lambda *_, **__: None)  # as on a machine with NVENC
    rendering = render(source, tmp_path, (0.96, 2.5), encode=auto)
    assert rendering.result.reason == (
        "h264_nvenc is available, and encodes all of it faster than libx264 the 48 changed frames"
    )
    check(render(source, tmp_path, (0.96, 1.5), encode=auto))
    monkeypatch.undo()
    monkeypatch.setattr(windows, "FramePipe", RecordingPipe)
    check(render(source, tmp_path, (0.96, 2.5), encode=auto))


def test_splice_mov_output_is_quicktime(clips: Clips, tmp_path: Path) -> None:
    rendering = render(clips.get("quicktime.mov"), tmp_path, (1.3, 1.6), output="out.mov")
    check(rendering)
    assert b"ftypqt" in rendering.path.read_bytes()[:16]


def test_splice_spliced_clip_works_again(clips: Clips, tmp_path: Path) -> None:
    """The track already has two sets of each kind, and gets a third."""
    once = render(clips.get("pyramid.mp4"), tmp_path, (1.3, 1.6), output="once.mp4")
    again = render(once.path, tmp_path, (1.4, 1.5), (2.8, 2.9))
    check(again)
    with av.open(str(again.path)) as container:
        sets = ParameterSets.parse(container.streams.video[0].codec_context.extradata or b"")
    assert (len(sets.sps), len(sets.pps)) == (3, 3)


def test_splice_output_index_comes_first(clips: Clips, tmp_path: Path) -> None:
    data = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6)).path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


Alter = Callable[["Packet", int], "Packet | None"]


def _flipped(packet: Packet, place: int) -> Packet:
    if place != 5:
        return packet
    data = bytearray(packet)
    data[-1] ^= 1
    return _like(packet, bytes(data))


def _dropped(packet: Packet, place: int) -> Packet | None:
    return None if place == 5 else packet


def _late(packet: Packet, place: int) -> Packet:
    if place >= 90 and packet.pts is not None:
        packet.pts += 512
    return packet


def _lasting(packet: Packet, place: int) -> Packet:
    """Only the length of the last picture is wrong, which only a scan of the whole file detects."""
    if place == 99:
        packet.duration = 40 * 512
    return packet


def _undecodable(packet: Packet, place: int) -> Packet:
    """Replace the end of the first new picture with noise."""
    if place != 48:
        return packet
    data = bytes(packet)
    return _like(packet, data[:-300] + bytes(byte ^ 0x5A for byte in data[-300:]))


def _like(packet: Packet, data: bytes) -> Packet:
    new = windows.packet_of(data)
    new.pts, new.dts, new.duration, new.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    new.is_keyframe = packet.is_keyframe
    return new


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (_flipped, "packet 5 is not a copy of the source packet"),
        (_dropped, "packet 5 is not"),
        (_late, "the frames have wrong presentation times"),
        (_undecodable, "joint"),
        (_lasting, "the duration in seconds of the output is"),
    ],
)
def test_splice_wrong_output_not_published(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: Alter, words: str
) -> None:
    """Every fault leads to a full render with a reason."""
    honest = splice._Splice._picture_packet

    def altered(self: splice._Splice, packet: Packet, place: int) -> Packet | None:
        packet_bytes = honest(self, packet, place)
        return None if packet_bytes is None else alter(packet_bytes, place)

    monkeypatch.setattr(splice._Splice, "_picture_packet", altered)
    rendering = render(clips.get("no_b.mp4"), tmp_path, (1.92, 2.1))
    assert rendering.result.plan == "full"
    assert rendering.result.reason.startswith("copying its packets failed: ")
    assert words in rendering.result.reason
    assert rendering.result.frames_copied == 0
    assert abs(probe(rendering.path, scan=True).duration_seconds - 4) < Fraction(1, 25)
    assert quiet(rendering.path) == ""
    events = [event for event in rendering.events if event.phase == "render"]
    assert (events[-1].done, events[-1].total) == (100, 100)


def test_splice_joint_with_missing_pictures_renders_in_full(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Decoding starts at a picture that refers to earlier ones, so the first pictures are incomplete.
    monkeypatch.setattr(verify, "_around_joints", lambda *_: [(60, 70)])
    rendering = render(clips.get("no_b.mp4"), tmp_path, (1.92, 2.1))
    assert rendering.result.plan == "full"
    assert "packets 60 to 70 around a joint give" in rendering.result.reason


def test_splice_with_other_hidden_frames_renders_in_full(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(plan: RenderPlan, *rest: Any) -> None:
        verify.verify_splice(dataclasses.replace(plan, hidden=plan.hidden + 1), *rest)

    monkeypatch.setattr("reel_modal._smart_render.verify_splice", compare)
    rendering = render(clips.get("no_b.mp4"), tmp_path, (1.92, 2.1))
    assert (rendering.result.plan, rendering.result.frames_copied) == ("full", 0)
    assert "0 frames are hidden instead of 1" in rendering.result.reason


def test_splice_track_without_new_parameter_sets_not_published(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.get("spliced.mp4")
    with av.open(str(source)) as container:
        old = container.streams.video[0].codec_context.extradata or b""
    monkeypatch.setattr(ParameterSets, "record", lambda _: old)
    rendering = render(source, tmp_path, (1.3, 1.6))
    assert "the video track does not have the planned parameter sets" in rendering.result.reason


def test_splice_cancelled_in_window_leaves_nothing(clips: Clips, tmp_path: Path) -> None:
    token = CancellationToken()

    class Stop(list[ProgressEvent]):
        def append(self, event: ProgressEvent) -> None:
            if event.phase == "render":  # its start; checked after the first frame
                token.cancel()

    with pytest.raises(JobCancelledError):
        render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6), events=Stop(), token=token)
    assert not list(tmp_path.rglob("*out*"))


def test_splice_decoder_abandoned_mid_stream_ends(clips: Clips) -> None:
    """Its threads must not need the interpreter, which waits for them."""
    picture = read_picture(probe(clips.get("spliced.mp4")))
    window = RenderSpan(first=0, end=100, kept=(0, 100), decode_from=0)
    for count in range(1, 40):
        frames = windows._decoded(picture, window, Settings.from_env())
        assert [frame.pts for frame in itertools.islice(frames, count)] == list(range(count))
        frames.close()


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_splice_any_structure_with_any_regions_works(
    tmp_path_factory: pytest.TempPathFactory, clips: Clips, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    draw = data.draw
    words = {
        "keyint": draw(st.sampled_from([1, 5, 12, 48, 250])),
        "bframes": draw(st.integers(0, 5)),
        "b-pyramid": draw(st.sampled_from(["none", "normal"])),
        "b-adapt": draw(st.sampled_from([0, 1])),
        "ref": draw(st.integers(1, 6)),
        "open-gop": draw(st.sampled_from([0, 1])),
        "scenecut": draw(st.sampled_from([0, 40])),
    }
    rate = draw(st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(50)]))
    source = folder / f"source.{draw(st.sampled_from(['mp4', 'mov', 'mkv']))}"
    order = draw(st.sampled_from([None, None, "tff", "bff"]))
    if order is not None:
        words[order] = 1
    parameters = ":".join(f"{key}={value}" for key, value in words.items())
    marked = () if order is None else ("-vf", f"setfield={order}")
    x264(
        *("-preset", "ultrafast", *marked, "-x264-params", parameters),
        fps=rate,
        seconds=2,
        size=(96, 64),
        pixel_format=draw(st.sampled_from(["yuv420p", "yuv422p", "yuv420p10le", "yuv422p10le", "yuv444p"])),
    )(clips, source)
    starts = draw(st.lists(st.integers(0, 60), max_size=3))
    rendering = render(source, folder, *((start / 25, (start + draw(st.integers(0, 12))) / 25) for start in starts))
    if rendering.result.plan == "full":
        assert "every picture" in rendering.result.reason or "have to be rendered anyway" in rendering.result.reason
    else:
        check(rendering)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("bikes.mp4", "fast"), ("rich.mp4", "fast"), ("main.mp4", "ultrafast"), ("high10.mp4", "fast")),
        *(("twelve_seconds.mp4", "veryfast"), ("twelve_seconds.mp4", "slow")),
    ],
)
def test_splice_joint_has_no_visible_quality_step(clips: Clips, tmp_path: Path, name: str, preset: str) -> None:
    """Untouched pictures in a window lose no more than the source encoded at crf 18."""
    source = clips.get(name)
    rendering = render(source, tmp_path, (1.3, 1.6), encode=EncodeOptions(encoder="libx264", preset=preset))
    again = tmp_path / "again.mp4"
    ffmpeg("-i", source, "-an", "-c:v", "libx264", "-preset", preset, "-crf", "18", "-frames:v", "80", again)
    (window,) = rendering.plan.windows
    losses = []
    for path in (rendering.path, again):
        with FrameReader(path, pixel_format="gray8") as new, FrameReader(source, pixel_format="gray8") as old:
            for before, after in itertools.islice(zip(old, new, strict=False), *window.kept):
                # Nothing is drawn after the end of the dimming.
                if before.pts_seconds > Fraction(16, 10) and after.index < 80:
                    losses.append((path, float(np.mean((before.image.astype(float) - after.image) ** 2))))
    smart_loss, full_loss = (np.mean([loss for at, loss in losses if at == path]) for path in (rendering.path, again))
    assert 0 < smart_loss <= full_loss


@pytest.mark.parametrize(
    ("frames", "wanted", "preset", "quality", "words"),
    [
        (30, "veryfast", "superfast", 17, "b-adapt=0:scenecut=0"),
        (30, "fast", "superfast", 15, "b-adapt=0:scenecut=0:chroma-qp-offset=-3"),
        (30, "ultrafast", "ultrafast", 15, "pbratio=1"),
        (31, "veryfast", "veryfast", 17, "8x8dct=1"),
        (31, "fast", "fast", 17, "8x8dct=1"),
    ],
)
def test_splice_few_new_pictures_use_fast_preset(
    clips: Clips, frames: int, wanted: str, preset: str, quality: int, words: str
) -> None:
    """30 of 300 pictures are few."""
    picture = read_picture(probe(clips.get("twelve_seconds.mp4")))
    window = RenderSpan(first=0, end=frames, kept=(0, frames), decode_from=0)
    plan = RenderPlan("smart", windows=(window,), kept=(0, 300))
    match = X264Settings.of(plan, picture, EncodeOptions(preset=wanted))
    assert (match.preset, match.quality) == (preset, quality)
    assert match.options(plan, picture)["x264-params"].endswith(f":{words}")
    assert X264Settings.of(plan, picture, EncodeOptions(preset=wanted, quality=3)).quality == 3


def test_splice_output_is_scanned_once(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def look(path: Path, **how: object) -> MediaInfo:
        looked.append(path)
        return probe(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "probe", look)
    rendering = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6))
    assert rendering.result.plan == "smart"
    assert [path.name for path in looked] == ["output.mp4"]


def test_splice_probe_of_output_matches_source(clips: Clips, tmp_path: Path) -> None:
    rendering = render(clips.get("ntsc.mkv"), tmp_path, (1.3, 1.6))
    output = probe(rendering.path, scan=True)
    assert (output.fps, output.constant_rate, output.frame_count_header) == (Fraction(30000, 1001), True, 120)
    assert [count for count, _ in sample_durations(rendering.path)] == [120]
    assert len(packets(rendering.path)) == 120
