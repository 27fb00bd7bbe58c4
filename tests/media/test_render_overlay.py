"""render_overlay from a clip to a published clip, on real files, including those of phones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import REAL, Clips
from tests.media.beats import audio_packets
from tests.media.overlaid import FAST, render, spotlight
from tests.processes import children, ffmpegs

from reel_modal.errors import (
    FFmpegError,
    InvalidMediaError,
    JobCancelledError,
    ObjectNotFoundError,
    OutputMismatchError,
    RequestError,
)
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.functions import outputs
from reel_modal.functions.context import CancellationToken, JobContext
from reel_modal.media import MediaInfo, probe
from reel_modal.media.frames import frame_rate
from reel_modal.progress import ProgressEvent
from reel_modal.schema import (
    Degradation,
    EncodeOptions,
)
from reel_modal.settings import Settings
from reel_modal.storage import FolderStorage


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def check_processes() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


def has_no_output(store: Path) -> bool:
    """Return whether the store and the working folder contain no part of the output."""
    return not list(store.rglob("*out*")) and not list((store.parent / "work").rglob("*.part.*"))


@pytest.mark.parametrize("smart", [True, False])
def test_overlay_region_after_end_is_noted(clips: Clips, store: Path, smart: bool) -> None:
    clip = clips.get("25.mp4")
    end = probe(clip).duration_seconds
    assert end is not None
    late = dataclasses.replace(spotlight(str(end), "1000")[0], id="late")
    last = dataclasses.replace(spotlight(str(end - Fraction(1, 50)), "1000")[0], id="last")
    unseen = dataclasses.replace(late, id="unseen", enabled=False)
    encode = dataclasses.replace(FAST, smart=smart)
    _, result = render(clip, store, regions=(last, late, unseen), encode=encode)
    (note,) = result.degraded
    assert note == Degradation(
        "regions_not_drawn",
        f"the clip ends at {float(end):g} s; regions that start later were not drawn: 'late' at {float(end):g} s",
    )


def test_overlay_many_regions_after_end_share_one_note(clips: Clips, store: Path) -> None:
    late = tuple(dataclasses.replace(spotlight("900")[0], id=f"r{number}") for number in range(300))
    (note,) = render(clips.get("25.mp4"), store, regions=late)[1].degraded
    assert str(note).endswith("'r4' at 900 s and 295 more")


@pytest.mark.parametrize(
    "name",
    [
        *REAL,
        *("25.mp4", "29_97.mp4", "50.mp4", "59_94.mp4", "milliseconds.mkv", "stream.ts", "with_sound.mp4"),
        *("short_sound.mp4", "long_sound.mp4", "opus.mkv", "vorbis.mkv", "10bit.mp4", "444.mp4", "odd.webm"),
        *("full_range.mp4", "anamorphic.mp4", "vfr.mp4", "turned_90.mp4", "mirrored_270.mp4", "late_video.mkv"),
        *("edit_list.mp4", "broken_packets.mp4", "cover_art.mp4", "odd_clock.mp4"),
    ],
)
def test_overlay_every_kind_of_clip_renders_completely(clips: Clips, store: Path, name: str) -> None:
    source = probe(clips.get(name), scan=True)
    path, result = render(clips.get(name), store)
    output = probe(path, scan=True)
    assert output.scan is not None
    assert source.scan is not None
    assert output.scan.frame_count == source.expected_frames == result.frames
    assert (output.fps, output.constant_rate) == (frame_rate(source.fps), True)
    even = tuple(side + side % 2 for side in source.size)
    assert (output.size, output.orientation.rotation_degrees, output.orientation.mirrored) == (even, 0, False)
    assert output.sample_aspect_ratio == source.sample_aspect_ratio
    assert (output.color.matrix, output.color.primaries, output.color.transfer) == (
        source.color.matrix,
        source.color.primaries,
        source.color.transfer,
    )
    assert (output.color.range == "pc") == (source.color.range == "pc")
    assert abs(output.scan.duration_seconds - source.scan.duration_seconds) <= 1 / source.fps
    assert len(output.audio) == min(1, len(source.audio))
    assert tuple(map(str, result.degraded)) == EXPECTED_NOTES.get(name, ())
    assert list((store.parent / "work").iterdir()) == []


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_overlay_container_rounding_times_keeps_rate(clips: Clips, store: Path, suffix: str) -> None:
    path, result = render(clips.get("odd_clock.mp4"), store, output_key=f"made/out{suffix}")
    output = probe(path)
    assert abs(output.fps / result.fps - 1) < Fraction(1, 10_000)


EXPECTED_NOTES = {
    "stream.ts": ("the mp2 audio was re-encoded: .mp4 does not support it",),
    "vorbis.mkv": ("the vorbis audio was re-encoded: .mp4 does not support it",),
    "10bit.mp4": ("the 10-bit source was rendered in 8 bits",),
    "444.mp4": ("the yuv444p source was rendered as yuv420p, which has less color detail",),
    "long_sound.mp4": ("the output ends with the last frame; 1.00 s of audio after it are missing",),
    "late_video.mkv": ("the output begins with the first frame; 0.50 s of audio before it are missing",),
    "cover_art.mp4": ("stream 2 of the source (cover art, mjpeg) is not in the output",),
    "odd.webm": ("the odd size 161x121 was encoded as 162x122, because its chroma requires an even size",),
    "vfr.mp4": ("the variable frame rate was resampled to 25 frames per second",),
    "broken_packets.mp4": (
        "3 packets of the source could not be decoded; the frame before each is shown for longer",
    ),
}


def test_overlay_highlight_at_requested_place_and_time(clips: Clips, store: Path) -> None:
    path, _ = render(
        clips.get("bikes.mp4"), store, regions=spotlight("2", "4"), encode=dataclasses.replace(FAST, quality=1)
    )
    dimmed = []
    with (
        FrameReader(clips.get("bikes.mp4"), pixel_format="gray8") as before,
        FrameReader(path, pixel_format="gray8") as after,
    ):
        for source, rendered_frame in zip(before, after, strict=True):
            corner, center = (slice(0, 20), slice(0, 40)), (slice(126, 146), slice(310, 330))
            assert abs(float(source.image[center].mean()) - float(rendered_frame.image[center].mean())) < 2
            if float(rendered_frame.image[corner].mean()) < float(source.image[corner].mean()) - 4:
                dimmed.append(source.pts_seconds)
    assert (dimmed[0], dimmed[-1], len(dimmed)) == (2, 4, 51)


def test_overlay_untouched_frames_are_lossless_before_encoder(clips: Clips, store: Path) -> None:
    """With a lossless encoder, frames without a region are bit-exact."""
    path, _ = render(
        clips.get("bikes.mp4"),
        store,
        regions=spotlight("2", "2"),
        output_key="out.mkv",
        encode=EncodeOptions(encoder="ffv1"),
    )
    changed = []
    with (
        FrameReader(clips.get("bikes.mp4"), pixel_format="yuv420p") as before,
        FrameReader(path, pixel_format="yuv420p") as after,
    ):
        for source, rendered_frame in zip(before, after, strict=True):
            if not np.array_equal(source.data, rendered_frame.data):
                changed.append(source.index)
    assert changed == [50]


@pytest.mark.parametrize("name", ["with_sound.mp4", "bigbuckbunny.mp4"])
def test_overlay_audio_packets_are_copied(clips: Clips, store: Path, name: str) -> None:
    path, _ = render(clips.get(name), store)
    source, output_packets = audio_packets(clips.get(name)), audio_packets(path)
    length = float(probe(clips.get(name), scan=True).scan.duration_seconds)  # type: ignore[union-attr]
    assert [data for _, data in output_packets] == [data for _, data in source][: len(output_packets)]
    assert [at for at, _ in output_packets] == pytest.approx(
        [at for at, _ in source][: len(output_packets)], abs=0.001
    )
    assert length - 0.05 < output_packets[-1][0] < length + 0.05


def test_overlay_short_audio_kept_and_long_audio_cut(clips: Clips, store: Path) -> None:
    path, result = render(clips.get("short_sound.mp4"), store)
    assert (result.frames, 0.9 < audio_packets(path)[-1][0] < 1.05) == (50, True)
    path, result = render(clips.get("long_sound.mp4"), store)
    assert (result.frames, 0.9 < audio_packets(path)[-1][0] < 1.05) == (25, True)


def test_overlay_late_video_keeps_audio_in_sync(clips: Clips, store: Path) -> None:
    """Half a second of audio precedes the first picture; the output starts with the picture."""
    path, _ = render(clips.get("late_video.mkv"), store)
    output_packets = audio_packets(path)
    source = dict(audio_packets(clips.get("late_video.mkv")))
    start = float(probe(clips.get("late_video.mkv")).start_seconds)
    at_picture = next(data for at, data in sorted(source.items()) if at >= start - 1e-6)
    assert output_packets[0][0] == pytest.approx(0, abs=0.03)
    assert at_picture in [data for _, data in output_packets[:2]]


def test_overlay_reports_phases_and_frames(clips: Clips, store: Path) -> None:
    events: list[ProgressEvent] = []
    _, result = render(clips.get("25.mp4"), store, events=events)
    assert list(dict.fromkeys(event.phase for event in events)) == ["fetch", "render", "verify", "publish"]
    assert list(result.seconds_by_phase) == ["fetch", "render", "verify", "publish"]
    rendered = [event.done for event in events if event.phase == "render"]
    assert rendered == sorted(rendered)
    assert (rendered[0], rendered[-1], {e.total for e in events if e.phase == "render"}) == (0, 25, {25})
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_overlay_cancelled_stops_and_leaves_nothing(clips: Clips, store: Path) -> None:
    token = CancellationToken()

    class Stop(list[ProgressEvent]):
        def append(self, event: ProgressEvent) -> None:
            if event.phase == "render" and event.done >= 10:
                token.cancel()

    with pytest.raises(JobCancelledError, match="render_overlay: cancelled between two frames"):
        render(clips.get("bikes.mp4"), store, events=Stop(), token=token)
    assert has_no_output(store)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"input_key": "missing.mp4"}, ObjectNotFoundError, "object 'missing.mp4' not found"),
        ({"input_key": "../in.mp4"}, RequestError, "'..'"),
        ({"output_key": "/etc/out.mp4"}, RequestError, "is not a relative path"),
        ({"encode": EncodeOptions(encoder="h264_nonsense")}, RequestError, "does not start"),
    ],
)
def test_overlay_invalid_request_leaves_nothing(
    clips: Clips, store: Path, fields: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        render(clips.get("25.mp4"), store, **fields)
    assert has_no_output(store)


@pytest.mark.parametrize("name", ["garbage.mp4", "playlist.mp4", "audio_only.mp4", "large.mkv"])
def test_overlay_non_video_input_refused(clips: Clips, store: Path, name: str) -> None:
    with pytest.raises(InvalidMediaError):
        render(clips.get(name), store)
    assert has_no_output(store)


def test_overlay_encoder_killed_keeps_previous_output(clips: Clips, store: Path) -> None:
    (store / "made").mkdir()
    (store / "made" / "out.mp4").write_bytes(b"the former one")

    class Kill(list[ProgressEvent]):
        def append(self, event: ProgressEvent) -> None:
            if event.phase == "render" and event.done >= 20:
                for pid in ffmpegs():
                    os.kill(pid, 9)

    with pytest.raises(FFmpegError, match="SIGKILL"):
        render(clips.get("bikes.mp4"), store, events=Kill())
    assert (store / "made" / "out.mp4").read_bytes() == b"the former one"
    assert [path.name for path in (store / "made").iterdir()] == ["out.mp4"]


def test_overlay_cancelled_during_verification_not_published(clips: Clips, store: Path) -> None:
    token = CancellationToken()

    class Cancel(list[ProgressEvent]):
        def append(self, event: ProgressEvent) -> None:
            if event.phase == "verify":
                token.cancel()

    with pytest.raises(JobCancelledError):
        render(clips.get("25.mp4"), store, events=Cancel(), token=token)
    assert has_no_output(store)


def test_overlay_wrong_output_not_published(clips: Clips, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_size(path: Path, **settings: object) -> MediaInfo:
        return dataclasses.replace(probe(path, **settings), size=(2, 2))  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "probe", another_size)
    with pytest.raises(OutputMismatchError, match=r"size of the output is \(2, 2\); it must be \(320, 180\)"):
        render(clips.get("25.mp4"), store)
    assert has_no_output(store)


def test_verification_wrong_frame_rate_or_duration_refused(tmp_path: Path) -> None:
    with FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=25) as pipe:
        for _ in range(25):
            pipe.write(np.zeros((48, 64, 3), np.uint8))
    storage = FolderStorage(tmp_path)
    context = JobContext(storage=storage, workdir=tmp_path, settings=Settings.from_env())
    assert outputs.verified(pipe.result, context).written.fps == 25
    labelled = dataclasses.replace(pipe.result, fps=Fraction(24))
    with pytest.raises(OutputMismatchError, match="frame rate of the output is 25; it must be 24"):
        outputs.verified(labelled, context)
    longer = dataclasses.replace(pipe.result, duration_seconds=Fraction(27, 25))
    with pytest.raises(OutputMismatchError, match=r"duration in seconds of the output is 1\.0; it must be 1\.08"):
        outputs.verified(longer, context)
