"""Splices on real files: what is copied is bit for bit the source's, what is new is what the renderer draws."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clips import REAL, Clips, ffmpeg
from tests.media.boxes import sample_durations
from tests.media.splices import FAST, RecordingPipe, check, packets, quiet, render, x264
from tests.media.test_frame_pipe import children

from reel_modal.config import Settings
from reel_modal.errors import JobCancelledError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions import publishing, smart
from reel_modal.functions.context import CancellationToken
from reel_modal.media import MediaInfo, probe
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions
from reel_modal.smart_render import checking, splicing, windows
from reel_modal.smart_render.h264 import ParameterSets
from reel_modal.smart_render.matching import Matching
from reel_modal.smart_render.packets import read_picture
from reel_modal.smart_render.planning import RenderPlan, Window

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
def test_every_structure_is_spliced(clips: Clips, tmp_path: Path, name: str) -> None:
    encode = dataclasses.replace(FAST, hdr="keep")  # of HDR; what is drawn on becomes SDR otherwise
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
def test_regions_anywhere_cost_what_they_touch(
    clips: Clips, tmp_path: Path, spans: list[tuple[float, float]], rendered: int
) -> None:
    """Keyframes stand at 0, 24, 48, 72 and 96: a window begins with the change and ends with the next of them."""
    made = render(clips.get("no_b.mp4"), tmp_path, *spans)
    check(made)
    assert made.result.frames - made.result.frames_copied == rendered
    assert made.result.encoder == ("libx264" if rendered else "copy")


def test_what_is_new_is_what_the_full_renderer_makes(clips: Clips, tmp_path: Path) -> None:
    """Against a full render by a lossless encoder, of a turned clip."""
    source = clips.get("rotated_90.mp4")
    made = render(source, tmp_path, (1.3, 1.6))
    lossless = render(source, tmp_path, (1.3, 1.6), output="full.mkv", encode=EncodeOptions(encoder="ffv1"))
    (window,) = made.plan.windows
    with av.open(str(lossless.path)) as container:
        full = [frame.to_ndarray() for frame in itertools.islice(container.decode(video=0), *window.kept)]
    size = made.media.coded_size
    for drawn, wanted in zip(made.drawn, full, strict=True):
        luma = np.frombuffer(drawn[: size[0] * size[1]], np.uint8).reshape(size[1], size[0])
        assert np.array_equal(np.rot90(luma, -1), wanted[: size[0]])


def test_the_work_that_is_reported_is_the_work_that_is_done(clips: Clips, tmp_path: Path) -> None:
    made = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6))
    assert list(dict.fromkeys(event.phase for event in made.events)) == ["fetch", "render", "verify", "publish"]
    drawn = made.result.frames - made.result.frames_copied
    assert 8 < drawn < 25
    events = [event for event in made.events if event.phase == "render"]
    done = [event.done for event in events]
    assert (done, done[0], done[-1]) == (sorted(done), 0, drawn)
    assert {event.total for event in events} == {drawn}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rgb.mp4", "its pictures are gbrp (profile 244, chroma format 3, 8 bits), which new ones cannot match"),
        ("monochrome.mp4", "(profile 100, chroma format 0, 8 bits), which new ones cannot match"),
        ("hevc.mp4", "its codec is hevc; only h264 can be spliced"),
        ("stream_spliced.ts", "its container is mpegts; only MP4, MOV and Matroska can be spliced"),
        ("vorbis.mkv", ".mp4 does not take its vorbis sound as it is"),
        ("broken_packets.mp4", "packet"),
        ("changing_sets.mp4", "its parameter sets change in mid-stream"),
    ],
)
def test_what_is_not_spliced_is_rendered_in_full_and_says_why(
    clips: Clips, tmp_path: Path, name: str, reason: str
) -> None:
    made = render(clips.get(name), tmp_path, (0.3, 0.6))
    assert (made.result.plan, made.result.frames_copied) == ("full", 0)
    assert reason in made.result.reason
    assert quiet(made.path) == ""


@pytest.mark.parametrize(
    ("fields", "output", "reason"),
    [
        ({"smart": False}, "out.mp4", "the request asks for it"),
        ({"encoder": "ffv1"}, "out.mkv", "the request asks for the encoder ffv1; libx264 can be spliced"),
        ({}, "out.mkv", "the output is .mkv; only .m4v, .mov, .mp4 are spliced"),
    ],
)
def test_a_request_can_want_all_of_it_rendered(
    clips: Clips, tmp_path: Path, fields: dict[str, object], output: str, reason: str
) -> None:
    encode = dataclasses.replace(FAST, **fields)  # type: ignore[arg-type]
    made = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6), output=output, encode=encode)
    assert (made.result.plan, made.result.reason) == ("full", reason)


def test_a_clip_that_changes_all_through_is_rendered_in_full(clips: Clips, tmp_path: Path) -> None:
    made = render(clips.get("no_b.mp4"), tmp_path, (0, 100))
    assert (made.result.plan, made.result.reason) == (
        "full",
        "every picture of it changes, or depends on one that does",
    )
    made = render(clips.get("no_b.mp4"), tmp_path, (0.1, 100))
    assert (made.result.plan, made.result.reason) == ("full", "97 of its pictures would have to be rendered anyway")


def test_a_gpu_that_encodes_renders_all_of_what_changes_much(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = EncodeOptions(preset="ultrafast")
    source = clips.get("no_b.mp4")
    monkeypatch.setattr(smart, "try_encoder", lambda *_, **__: None)  # as on a machine with NVENC
    made = render(source, tmp_path, (0.96, 2.5), encode=auto)
    assert made.result.reason == (
        "h264_nvenc starts here, and makes all of it sooner than libx264 the 48 pictures that change"
    )
    check(render(source, tmp_path, (0.96, 1.5), encode=auto))
    monkeypatch.undo()
    monkeypatch.setattr(windows, "FramePipe", RecordingPipe)
    check(render(source, tmp_path, (0.96, 2.5), encode=auto))


def test_a_named_output_of_quicktime_is_one(clips: Clips, tmp_path: Path) -> None:
    made = render(clips.get("quicktime.mov"), tmp_path, (1.3, 1.6), output="out.mov")
    check(made)
    assert b"ftypqt" in made.path.read_bytes()[:16]


def test_a_spliced_clip_is_spliced_again(clips: Clips, tmp_path: Path) -> None:
    """Its track has two sets of each kind then, and gets a third."""
    once = render(clips.get("pyramid.mp4"), tmp_path, (1.3, 1.6), output="once.mp4")
    again = render(once.path, tmp_path, (1.4, 1.5), (2.8, 2.9))
    check(again)
    with av.open(str(again.path)) as container:
        sets = ParameterSets.parse(container.streams.video[0].codec_context.extradata or b"")
    assert (len(sets.sps), len(sets.pps)) == (3, 3)


def test_the_index_comes_first(clips: Clips, tmp_path: Path) -> None:
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
    """All is as planned but the length of the last picture, which only a look at the whole file finds."""
    if place == 99:
        packet.duration = 40 * 512
    return packet


def _undecodable(packet: Packet, place: int) -> Packet:
    """The first new picture ends in noise."""
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
        (_flipped, "packet 5 is not the copy that it should be"),
        (_dropped, "packet 5 is not"),
        (_late, "the pictures are not shown when they should be"),
        (_undecodable, "joint"),
        (_lasting, "the output has another seconds than was asked for"),
    ],
)
def test_a_splice_that_is_not_right_is_not_published(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: Alter, words: str
) -> None:
    """Whatever goes wrong in between, what comes out is a full render that says so."""
    honest = splicing._Splice._picture_packet

    def altered(self: splicing._Splice, packet: Packet, place: int) -> Packet | None:
        made = honest(self, packet, place)
        return None if made is None else alter(made, place)

    monkeypatch.setattr(splicing._Splice, "_picture_packet", altered)
    made = render(clips.get("no_b.mp4"), tmp_path, (1.92, 2.1))
    assert made.result.plan == "full"
    assert made.result.reason.startswith("copying was tried, but ")
    assert words in made.result.reason
    assert made.result.frames_copied == 0
    assert abs(probe(made.path, scan=True).duration_seconds - 4) < Fraction(1, 25)
    assert quiet(made.path) == ""
    events = [event for event in made.events if event.phase == "render"]
    assert (events[-1].done, events[-1].total) == (100, 100)


def test_splice_whose_joint_decodes_to_fewer_pictures_is_rendered_in_full(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Decoding begins at a picture that refers to earlier ones, so that what comes out at first is not whole.
    monkeypatch.setattr(checking, "_around_joints", lambda *_: [(60, 70)])
    made = render(clips.get("no_b.mp4"), tmp_path, (1.92, 2.1))
    assert made.result.plan == "full"
    assert "packets 60 to 70 around a joint give" in made.result.reason


def test_a_track_without_its_new_parameter_sets_is_not_published(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.get("spliced.mp4")
    with av.open(str(source)) as container:
        old = container.streams.video[0].codec_context.extradata or b""
    monkeypatch.setattr(ParameterSets, "record", lambda _: old)
    made = render(source, tmp_path, (1.3, 1.6))
    assert "the track does not hold its parameter sets as it should" in made.result.reason


def test_cancelling_in_a_window_leaves_nothing(clips: Clips, tmp_path: Path) -> None:
    token = CancellationToken()

    class Stop(list[ProgressEvent]):
        def append(self, event: ProgressEvent) -> None:
            if event.phase == "render":  # its beginning; looked at behind the first frame
                token.cancel()

    with pytest.raises(JobCancelledError):
        render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6), events=Stop(), token=token)
    assert not list(tmp_path.rglob("*out*"))


def test_a_decoder_that_is_left_in_mid_stream_ends(clips: Clips) -> None:
    """Its threads must not need the interpreter that waits for them."""
    picture = read_picture(probe(clips.get("spliced.mp4")))
    window = Window(first=0, end=100, kept=(0, 100), decode_from=0)
    for count in range(1, 40):
        frames = windows._decoded(picture, window, Settings.from_env())
        assert [frame.pts for frame in itertools.islice(frames, count)] == list(range(count))
        frames.close()


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_structure_with_any_regions(
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
    made = render(source, folder, *((start / 25, (start + draw(st.integers(0, 12))) / 25) for start in starts))
    if made.result.plan == "full":
        assert "every picture" in made.result.reason or "have to be rendered anyway" in made.result.reason
    else:
        check(made)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("bikes.mp4", "fast"), ("rich.mp4", "fast"), ("main.mp4", "ultrafast"), ("high10.mp4", "fast")),
        *(("twelve_seconds.mp4", "veryfast"), ("twelve_seconds.mp4", "slow")),
    ],
)
def test_no_step_is_seen_at_a_joint(clips: Clips, tmp_path: Path, name: str, preset: str) -> None:
    """What no region touches loses no more in a window than the source would lose at crf 18."""
    source = clips.get(name)
    made = render(source, tmp_path, (1.3, 1.6), encode=EncodeOptions(encoder="libx264", preset=preset))
    again = tmp_path / "again.mp4"
    ffmpeg("-i", source, "-an", "-c:v", "libx264", "-preset", preset, "-crf", "18", "-frames:v", "80", again)
    (window,) = made.plan.windows
    losses = []
    for path in (made.path, again):
        with FrameReader(path, pixel_format="gray8") as new, FrameReader(source, pixel_format="gray8") as old:
            for before, after in itertools.islice(zip(old, new, strict=False), *window.kept):
                # Behind the dimmed picture's end nothing is drawn.
                if before.pts_seconds > Fraction(16, 10) and after.index < 80:
                    losses.append((path, float(np.mean((before.image.astype(float) - after.image) ** 2))))
    ours, theirs = (np.mean([loss for at, loss in losses if at == path]) for path in (made.path, again))
    assert 0 < ours <= theirs


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
def test_few_new_pictures_are_encoded_quickly(
    clips: Clips, frames: int, wanted: str, preset: str, quality: int, words: str
) -> None:
    """Of three hundred, thirty are few."""
    picture = read_picture(probe(clips.get("twelve_seconds.mp4")))
    window = Window(first=0, end=frames, kept=(0, frames), decode_from=0)
    plan = RenderPlan("smart", windows=(window,), kept=(0, 300))
    match = Matching.of(plan, picture, EncodeOptions(preset=wanted))
    assert (match.preset, match.quality) == (preset, quality)
    assert match.options(plan, picture)["x264-params"].endswith(f":{words}")
    assert Matching.of(plan, picture, EncodeOptions(preset=wanted, quality=3)).quality == 3


def test_an_output_is_looked_at_once(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def look(path: Path, **how: object) -> MediaInfo:
        looked.append(path)
        return probe(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "probe", look)
    made = render(clips.get("spliced.mp4"), tmp_path, (1.3, 1.6))
    assert made.result.plan == "smart"
    assert [path.name for path in looked] == ["output.mp4"]


def test_probe_reads_back_what_was_spliced(clips: Clips, tmp_path: Path) -> None:
    made = render(clips.get("ntsc.mkv"), tmp_path, (1.3, 1.6))
    found = probe(made.path, scan=True)
    assert (found.fps, found.constant_rate, found.frame_count_header) == (Fraction(30000, 1001), True, 120)
    assert [count for count, _ in sample_durations(made.path)] == [120]
    assert len(packets(made.path)) == 120
