"""Long changed parts of a smart render in segments: the same bytes whatever was finished before."""

from __future__ import annotations

import hashlib
import logging
import random
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.overlaid import spotlight
from tests.media.segmented_jobs import Jobs, check_leftovers
from tests.media.splices import packets, quiet, shown

from reel_modal._segments import Segment, SegmentStore
from reel_modal._smart_render import EncodedFrames, opened_frames
from reel_modal._smart_render.h264.parameter_sets import (
    IDR_SLICE,
    SLICE,
    ParameterSets,
    iter_nal_units,
    parse_pps,
    parse_sps,
)
from reel_modal._smart_render.plan import RenderSpan, SplicePlan
from reel_modal._smart_render.source import read_picture
from reel_modal.errors import JobCancelledError
from reel_modal.functions import smart_windows, stored_parts
from reel_modal.functions.render_overlay import plan_for
from reel_modal.media import probe
from reel_modal.media.bitstream import BitReader, rbsp
from reel_modal.schema import EncodeOptions, FramingRequest, HighlightRegion, OverlayRequest
from reel_modal.settings import Settings

__all__ = ["check_leftovers"]

SMART = EncodeOptions(encoder="libx264", preset="veryfast")
SOURCE = "testsrc2=size=64x48:rate=10:duration=90"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1")
SPANS = (("2.5", "34.9"), ("50", "73"))
"""Highlights that change 336 and 240 of 900 frames, up to the next keyframes."""
SEGMENTS = 8
"""Four of 80 frames and one of 16; three of 80."""


def made(path: Path, source: str = SOURCE, *options: str) -> Path:
    sound = ("-f", "lavfi", "-i", "sine=duration=90", "-c:a", "aac", "-shortest")
    ffmpeg("-f", "lavfi", "-i", source, *sound, *X264, *(options or ("-g", "20", "-bf", "2")), path)
    return path


def highlights(*spans: tuple[str, str]) -> tuple[HighlightRegion, ...]:
    return tuple(replace(spotlight(*span)[0], id=str(number)) for number, span in enumerate(spans))


def overlay_jobs(folder: Path, clip: Path, *spans: tuple[str, str]) -> Jobs:
    return Jobs(folder, clip, OverlayRequest, regions=highlights(*spans), encode=SMART)


def plan_of(jobs: Jobs) -> SplicePlan:
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
    plan = plan_for(OverlayRequest(**keys, **jobs.fields), probe(jobs.clip))  # type: ignore[arg-type]
    assert isinstance(plan, SplicePlan)
    return plan


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("clip") / "in.mp4")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> str:
    """The SHA-256 of the output of one uninterrupted run without a store."""
    return overlay_jobs(tmp_path_factory.mktemp("expected"), clip, *SPANS).run(stored=False)[0]


@pytest.fixture
def jobs(tmp_path: Path, clip: Path) -> Jobs:
    return overlay_jobs(tmp_path, clip, *SPANS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """The store after an uninterrupted run."""
    jobs = overlay_jobs(tmp_path_factory.mktemp("stored"), clip, *SPANS)
    jobs.run()
    return jobs.store.root


@pytest.fixture
def finished(jobs: Jobs, stored: Path) -> Jobs:
    """The jobs, with the segments and the output of a run."""
    shutil.copytree(stored, jobs.store.root, dirs_exist_ok=True)
    return jobs


def idr_ids(path: Path) -> list[tuple[int, int] | None]:
    """Return the ids of picture parameter set and IDR picture of each packet; None for other pictures."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        sets = ParameterSets.parse(stream.codec_context.extradata or b"")
        bits_of = {sps.id: sps.frame_number_bits for sps in map(parse_sps, sets.sps)}
        bits_of = {pps.id: bits_of[pps.sps_id] for pps in map(parse_pps, sets.pps)}
        found: list[tuple[int, int] | None] = []
        for packet in container.demux(stream):
            if packet.size:
                units = iter_nal_units(memoryview(packet), sets.length_size)
                unit = next(bytes(unit) for unit in units if unit[0] & 31 in {SLICE, IDR_SLICE})
                bits = BitReader(rbsp(unit[:64]), "a slice header")
                bits.ue(), bits.ue()
                pps = bits.ue()
                bits.read(bits_of[pps])
                found.append((pps, bits.ue()) if unit[0] & 31 == IDR_SLICE else None)
    return found


def check_idr_ids(path: Path) -> None:
    """Two IDR pictures in a row, of the same parameter sets, have different ids."""
    ids = pairwise(idr_ids(path))
    assert not [number for number, (before, after) in enumerate(ids) if before is not None and before == after]


def check_spliced(jobs: Jobs) -> None:
    """Copied packets and frames are those of the source, and segments begin with a keyframe."""
    plan = plan_of(jobs)
    old, new = packets(jobs.clip), packets(jobs.output)
    assert len(old) == len(new)
    frames_old, frames_new = shown(jobs.clip), shown(jobs.output)
    for start, end in plan.copied:
        assert new[start:end] == old[start:end]
        assert frames_new[start:end] == frames_old[start:end]
    ids = idr_ids(jobs.output)
    assert all(ids[segment.first] is not None for segment in smart_windows._grid(plan))
    check_idr_ids(jobs.output)
    assert quiet(jobs.output) == ""
    data = jobs.output.read_bytes()
    assert data.count(b"avcC") == 1


def test_smart_segments_of_an_uninterrupted_job_are_complete(jobs: Jobs, expected: str) -> None:
    digest, result = jobs.run()
    assert digest == expected
    assert (result.plan, result.reason, result.frames, result.frames_copied) == ("smart", "", 900, 324)
    assert jobs.rendered == list(range(SEGMENTS))
    check_spliced(jobs)
    assert jobs.run()[0] == expected
    assert jobs.rendered == []


def test_smart_segments_finished_in_any_order_give_the_same_bytes(finished: Jobs, expected: str) -> None:
    chosen = random.Random(7)
    for _ in range(4):
        lost = sorted(chosen.sample(range(SEGMENTS), chosen.randrange(1, SEGMENTS)))
        for path in [finished.segments[number] for number in lost]:
            path.unlink()
        assert finished.run()[0] == expected
        assert finished.rendered == lost


def test_smart_job_that_was_cancelled_finds_its_segments(jobs: Jobs, expected: str) -> None:
    with pytest.raises(JobCancelledError):
        jobs.run(cancel_at=410)
    assert jobs.rendered == [0, 1, 2, 3, 4]
    assert jobs.run()[0] == expected
    done = [event.done for event in jobs.events if event.phase == "render"]
    assert done == sorted(done)
    assert (done[1], done[-1]) == (336, 576)
    assert jobs.rendered == [5, 6, 7]


def test_smart_segments_cost_no_more_bytes_than_one_piece(
    finished: Jobs, monkeypatch: pytest.MonkeyPatch, expected: str
) -> None:
    size_bytes = finished.output.stat().st_size
    monkeypatch.setattr(smart_windows, "_grid", lambda _: ())
    assert finished.run()[0] != expected
    assert size_bytes < 1.03 * finished.output.stat().st_size


def test_smart_windows_shorter_than_nine_seconds_use_no_store(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"regions": highlights(("2.5", "9.5"), ("40", "47"))}
    digest, result = jobs.run(**fields)
    assert result.plan == "smart"
    assert not (jobs.store.root / "users").exists()
    monkeypatch.setattr(smart_windows, "_grid", lambda _: ())
    assert jobs.run(**fields)[0] == digest


def test_smart_trim_in_segments(tmp_path: Path) -> None:
    """A trim that begins long before the next keyframe."""
    clip = made(tmp_path / "in.mp4", SOURCE, "-g", "300", "-keyint_min", "300", "-sc_threshold", "0")
    times = {"trim_start_seconds": Fraction(3), "trim_end_seconds": Fraction(88)}
    jobs = Jobs(tmp_path, clip, FramingRequest, output_size=(64, 48), encode=SMART, **times)
    digest, result = jobs.run()
    assert (result.plan, result.frames, result.frames_copied) == ("smart", 850, 580)
    assert jobs.rendered == [0, 1, 2, 3]
    jobs.segments[1].unlink()
    assert jobs.run()[0] == digest
    assert jobs.rendered == [1]
    assert shown(jobs.output)[270:] == shown(clip)[300:880]


STRUCTURES = (
    *("gop12.mp4", "gop250.mp4", "no_b.mp4", "pyramid.mp4", "open_gop.mp4", "refreshed.mp4", "intra.mp4"),
    *("uneven.mp4", "cut.mp4", "top_first.mp4", "matroska.mkv", "rotated_422_10.mp4", "sixteen_references.mp4"),
)


@pytest.mark.parametrize("name", STRUCTURES)
def test_smart_segments_have_the_frames_of_one_pass(clips: Clips, name: str) -> None:
    picture = read_picture(probe(clips.get(name)))
    count = len(picture.table)
    window = RenderSpan(first=0, end=count, kept=(0, count), decode_from=0)
    plan = SplicePlan("smart", windows=(window,), kept=(0, count), picture=picture)
    settings, painter = Settings.from_env(), None

    def frames(spans: list[RenderSpan], *, exact: bool) -> list[str]:
        with opened_frames(picture, spans, painter, settings, exact=exact) as opened:
            return [hashlib.md5(frame, usedforsecurity=False).hexdigest() for frame in opened]

    whole = frames([window], exact=False)
    assert len(whole) == count
    edges = [0, *sorted(random.Random(name).sample(range(1, count), 6)), count]
    for part in pairwise(edges):
        assert frames(plan.spans_of([part]), exact=True) == whole[slice(*part)]


def test_smart_segment_is_decoded_from_the_last_keyframe(jobs: Jobs) -> None:
    plan = plan_of(jobs)
    spans = plan.spans_of([(100, 180), (205, 240)])
    assert [span.decode_from for span in spans] == [100, 200]


def test_smart_segment_never_ends_with_the_picture_id_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last frame of the first segment is a new scene, and x264's third keyframe has the id of the first."""
    scene = "color=black:size=64x48:rate=10:duration=90,geq=lum='if(lt(N,104),40+mod(X,30),200-mod(Y*7,60))':cb=128:cr=128"
    clip = made(tmp_path / "in.mp4", scene, "-g", "50", "-keyint_min", "50", "-sc_threshold", "0", "-bf", "0")
    jobs = overlay_jobs(tmp_path, clip, ("2.5", "34.9"))
    jobs.run()
    assert idr_ids(jobs.output)[104] is None
    check_spliced(jobs)
    monkeypatch.setattr(stored_parts, "_ends_with_same_idr", lambda _: False)
    jobs.run(stored=False)
    assert idr_ids(jobs.output)[104] is not None


def test_smart_segments_of_keyframes_only_alternate_their_ids(tmp_path: Path) -> None:
    """Eight seconds have 125 frames, which would end with the id of the next first frame."""
    source = "testsrc2=size=64x48:rate=125/8:duration=60"
    jobs = overlay_jobs(tmp_path, made(tmp_path / "in.mp4", source, "-g", "1"), ("5", "40"))
    jobs.run()
    assert len(jobs.rendered) > 3
    check_spliced(jobs)


def test_smart_segment_with_other_parameter_sets_is_not_spliced(finished: Jobs, tmp_path: Path) -> None:
    """The seal fits, but another encoder made the segment."""
    segment, other = finished.segments[1], tmp_path / "other.mp4"
    ffmpeg("-i", segment, "-c:v", "libx264", "-preset", "ultrafast", other)
    rendering, first, end = segment.stem.split("-")
    SegmentStore(finished.store, user_id="u", source="").write(rendering, Segment(int(first), int(end)), other)
    _, result = finished.run()
    assert (result.plan, result.frames) == ("full", 900)
    assert result.reason.endswith("the re-encoded parts differ in their parameter sets")


def test_smart_segment_without_keyframe_is_not_published(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = smart_windows._in_segments

    def altered(*arguments: Any, **options: Any) -> EncodedFrames:
        encoded = honest(*arguments, **options)
        return replace(encoded, starts=[*encoded.starts, encoded.starts[1] + 1])

    monkeypatch.setattr(smart_windows, "_in_segments", altered)
    _, result = jobs.run()
    assert (result.plan, result.frames) == ("full", 900)
    assert "is not an IDR access unit" in result.reason


def test_smart_render_of_a_damaged_packet_is_one_piece(
    tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The decoder finds the damage after some segments have been stored."""
    damaged = tmp_path / "in.mp4"
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packet = [each for each in container.demux(video=0) if each.size][240]
    assert packet.pos is not None
    for position in range(packet.pos + packet.size // 2, packet.pos + packet.size):
        data[position] ^= 0x55
    damaged.write_bytes(data)
    jobs = overlay_jobs(tmp_path, damaged, *SPANS)
    with caplog.at_level(logging.INFO, logger="reel_modal.functions.segmented"):
        first, result = jobs.run()
    assert "in one piece: one of its frames does not decode" in caplog.messages[0]
    assert (result.plan, result.frames) == ("full", 900)
    assert jobs.segments
    assert jobs.run()[0] == first
