"""Frames of reels: the right clip at each cut, exact mixes, mixed rates, sizes, shapes and colors, and failures."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import Clips, ffmpeg, made_clip
from tests.media.reels import LOSSLESS, assemble, lumas, numbered, reel_request

from reel_modal import FramePipe, FrameReader, Settings, probe
from reel_modal.errors import InvalidMediaError, JobCancelledError, ObjectNotFoundError, RequestError
from reel_modal.functions.builtin import assemble_reel
from reel_modal.functions.context import CancellationToken, Reporter
from reel_modal.functions.runner import run_job
from reel_modal.media.frames import ColorTags
from reel_modal.progress import ProgressEvent

F = Fraction


def test_cut_shows_right_clip_at_each_frame(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 12)
    numbered(tmp_path / "b.mp4", 60, 20)
    numbered(tmp_path / "c.mp4", 120, 5)
    clips = [
        {"input_key": "a.mp4"},
        {"input_key": "b.mp4", "trim_start": "0.2", "trim_end": "0.6"},
        {"input_key": "c.mp4"},
    ]
    result = assemble(tmp_path, reel_request(clips))
    assert lumas(tmp_path / "reel.mp4") == [*range(20, 32), *range(65, 75), *range(120, 125)]
    assert (result.frames, result.duration_seconds, result.fps) == (27, F(27, 25), 25)
    assert (result.function, result.plan, result.engine) == ("assemble_reel", "full", "opencv-yuv420p")
    assert probe(tmp_path / "reel.mp4", scan=True).duration_seconds == F(27, 25)


def test_same_clip_twice_is_read_for_each_place(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, {"input_key": "a.mp4", "trim_start": "0.2"}]))
    assert lumas(tmp_path / "reel.mp4") == [*range(20, 30), *range(25, 30)]


def test_crossfade_and_fade_black_mix_as_reference(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 40, 20)
    numbered(tmp_path / "b.mp4", 100, 20)
    numbered(tmp_path / "c.mp4", 170, 20)
    clips = [{"input_key": name} for name in ("a.mp4", "b.mp4", "c.mp4")]
    fades = ({"kind": "crossfade", "duration": "0.2"}, {"kind": "fade_black", "duration": "0.32"})
    assemble(tmp_path, reel_request(clips, *fades))
    # 5 shared frames; then the last 4 frames of b and the first 4 of c fade.
    a, b, c = ([first + number for number in range(20)] for first in (40, 100, 170))
    mixed = [a[15 + n] * (5 - n) / 6 + b[n] * (n + 1) / 6 for n in range(5)]
    dark = [16 + (b[16 + n] - 16) * (4 - n) / 5 for n in range(4)]
    light = [16 + (c[n] - 16) * (n + 1) / 5 for n in range(4)]
    expected = [*a[:15], *mixed, *b[5:16], *dark, *light, *c[4:]]
    shown = lumas(tmp_path / "reel.mp4")
    assert len(shown) == len(expected) == 55
    assert max(abs(one - other) for one, other in zip(shown, expected, strict=True)) <= 0.51


def test_crossfade_of_detailed_frames_equals_numpy(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    pictures = {}
    for name in ("a.mp4", "b.mp4"):
        frames = [tuple(generator.integers(16, 236, shape, np.uint8) for shape in ((48, 64), (24, 32), (24, 32)))]
        frames *= 6
        pictures[name] = frames
        with FramePipe(
            tmp_path / name, size=(64, 48), fps=25, pixel_format="yuv420p", encoder="libx264", quality=0
        ) as pipe:
            for frame in frames:
                pipe.write(frame)
    fade = {"kind": "crossfade", "duration": "0.12"}
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, {"input_key": "b.mp4"}], fade))
    with FrameReader(tmp_path / "reel.mp4", pixel_format="yuv420p") as reader:
        shown = [frame.copy() for frame in reader]
    assert len(shown) == 9
    for number in range(9):
        share = min(1.0, max(0.0, (number - 2) / 4))
        for plane, older, newer in zip(shown[number].planes, pictures["a.mp4"][0], pictures["b.mp4"][0], strict=True):
            mixed = older.astype(float) * (1 - share) + newer.astype(float) * share
            assert np.abs(plane - mixed).max() <= 0.5


def test_mixed_rates_have_exact_count_and_source_times(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 24, fps="24000/1001")
    numbered(tmp_path / "b.mp4", 60, 60, fps=60)
    numbered(tmp_path / "c.mp4", 130, 30, fps="30000/1001")
    clips = [{"input_key": name} for name in ("a.mp4", "b.mp4", "c.mp4")]
    result = assemble(tmp_path, reel_request(clips))
    fps = F(24000, 1001)
    assert (result.fps, result.frames, result.duration_seconds) == (fps, 72, 72 / fps)
    shown = lumas(tmp_path / "reel.mp4")
    assert shown[:24] == [*range(20, 44)]
    for first, rate, part in ((60, F(60), shown[24:48]), (130, F(30000, 1001), shown[48:])):
        late = [(luma - first) / rate - number / fps for number, luma in enumerate(part)]
        assert max(map(abs, late)) <= 1 / (2 * fps)


def test_sizes_and_orientations_fit_first_clip(clips: Clips, tmp_path: Path) -> None:
    for name in ("25.mp4", "turned_90.mp4", "anamorphic.mp4", "vfr.mp4", "milliseconds.mkv"):
        (tmp_path / name).write_bytes(clips.get(name).read_bytes())
    names = ("25.mp4", "turned_90.mp4", "anamorphic.mp4", "vfr.mp4", "milliseconds.mkv")
    fades = [{"kind": kind} for kind in ("cut", "crossfade", "fade_black", "crossfade")]
    fades[1]["duration"] = "0.2"
    request = reel_request([{"input_key": name} for name in names], *fades, fit="contain", background="#00ff00")
    result = assemble(tmp_path, request)
    assert result.size == (320, 180)
    lengths = [probe(tmp_path / name, scan=True).scan.duration_seconds for name in names]  # type: ignore[union-attr]
    expected = sum(round(length * 25) for length in lengths) - 5 - round(F(25, 2))
    assert result.frames == expected
    assert any("clips[3] ('vfr.mp4')" in note.message for note in result.degraded) is False  # its rate is requested


def test_output_size_aspect_and_rate_of_request(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    one = [{"input_key": "a.mp4"}]
    sized = assemble(tmp_path, reel_request(one, output_width=32, output_height=64, rate=50))
    assert (sized.size, sized.fps, sized.frames) == ((32, 64), 50, 20)
    assert assemble(tmp_path, reel_request(one, aspect="1:1")).size == (48, 48)


def test_other_matrix_and_range_keep_colors(tmp_path: Path) -> None:
    """A red frame in BT.601 full range, after one in BT.709 limited range, has the same samples."""
    for name, tags, red in (
        ("a.mp4", ColorTags("bt709", "tv", "bt709", "bt709"), (63, 102, 240)),
        ("b.mp4", ColorTags("smpte170m", "pc", "bt709", "bt709"), (76, 85, 255)),
    ):
        with FramePipe(
            tmp_path / name, size=(64, 48), fps=25, pixel_format="yuv420p", encoder="libx264", quality=0, color=tags
        ) as pipe:
            shapes = ((48, 64), (24, 32), (24, 32))
            for _ in range(5):
                pipe.write(tuple(np.full(shape, value, np.uint8) for shape, value in zip(shapes, red, strict=True)))
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, {"input_key": "b.mp4"}]))
    with FrameReader(tmp_path / "reel.mp4", pixel_format="yuv420p") as reader:
        values = [[int(plane[10, 10]) for plane in frame.planes] for frame in reader]
    assert values[0] == [63, 102, 240]
    assert np.abs(np.subtract(values[9], values[0])).max() <= 1
    assert reader.media.color.matrix == "bt709"


def test_hdr_beside_sdr_is_refused_unless_converted(clips: Clips, tmp_path: Path) -> None:
    made_clip(tmp_path / "sdr.mp4", seconds=0.4)
    ffmpeg(
        *("-i", tmp_path / "sdr.mp4", "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast"),
        *("-x265-params", "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"),
        *("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"),
        *("-tag:v", "hvc1", tmp_path / "hdr.mp4"),
    )
    both = [{"input_key": "sdr.mp4"}, {"input_key": "hdr.mp4"}]
    result = assemble(tmp_path, reel_request(both))
    assert "tone_mapped" in {note.code for note in result.degraded}
    with pytest.raises(RequestError, match=r"clips\[1\] has the transfer smpte2084"):
        assemble(tmp_path, reel_request(both, encode={**LOSSLESS, "hdr": "keep"}, output_key="other.mp4"))
    kept = assemble(
        tmp_path,
        reel_request([both[1]], encode={**LOSSLESS, "encoder": "libx265", "hdr": "keep"}, output_key="hdr2.mp4"),
    )
    assert (kept.engine, probe(tmp_path / "hdr2.mp4").color.transfer) == ("opencv-yuv420p10le", "smpte2084")


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ({"input_key": "none.mp4"}, ObjectNotFoundError, r"clips\[1\] \('none.mp4'\)"),
        ({"input_key": "garbage.mp4"}, InvalidMediaError, r"clips\[1\] \('garbage.mp4'\)"),
        ({"input_key": "a.mp4", "trim_start": 9}, RequestError, r"clips\[1\]\.trim_start_seconds: is 9"),
    ],
)
def test_bad_clip_is_named_and_nothing_published(
    clips: Clips, tmp_path: Path, clip: dict[str, object], error: type[Exception], message: str
) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    (tmp_path / "garbage.mp4").write_bytes(clips.get("garbage.mp4").read_bytes())
    with pytest.raises(error, match=message):
        assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, clip]))
    assert not (tmp_path / "reel.mp4").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_transition_longer_than_clip_names_both(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    numbered(tmp_path / "b.mp4", 60, 20)
    fade = {"kind": "crossfade", "duration": 0.5}
    with pytest.raises(
        RequestError, match=r"transitions\[0\]\.duration_seconds: is too long: clips\[0\] lasts"
    ) as caught:
        assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, {"input_key": "b.mp4"}], fade))
    assert caught.value.path == "transitions[0].duration_seconds"


def test_undecodable_clip_in_the_middle_publishes_nothing(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    data = numbered(tmp_path / "c.mp4", 60, 10).read_bytes()
    start = data.index(b"mdat") + 4
    (tmp_path / "broken.mp4").write_bytes(data[:start] + bytes(len(data) - start))
    damaged = [{"input_key": "a.mp4"}, {"input_key": "broken.mp4"}, {"input_key": "a.mp4"}]
    with pytest.raises(InvalidMediaError, match=r"clips\[1\] \('broken.mp4'\)"):
        assemble(tmp_path, reel_request(damaged))
    assert not (tmp_path / "reel.mp4").exists()


def test_kept_part_without_a_frame_names_its_clip(clips: Clips, tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    source = clips.get("all_intra.mp4")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[12:]:
        data[position : position + size] = bytes(size)
    (tmp_path / "b.mp4").write_bytes(data)
    damaged = [{"input_key": "a.mp4"}, {"input_key": "b.mp4", "trim_start": 1, "trim_end": "1.4"}]
    with pytest.raises(InvalidMediaError, match=r"clips\[1\] \('b.mp4'\): it has no frame in the kept part"):
        assemble(tmp_path, reel_request(damaged))
    assert not (tmp_path / "reel.mp4").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_broken_packets_are_reported_with_their_clip(clips: Clips, tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    (tmp_path / "b.mp4").write_bytes(clips.get("broken_packets.mp4").read_bytes())
    result = assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, {"input_key": "b.mp4"}]))
    assert result.frames == 60
    assert [note.message for note in result.degraded if note.code == "pictures_undecodable"] == [
        "clips[1] ('b.mp4'): 3 packets of the source could not be decoded; the frame before each is shown for longer"
    ]


def test_progress_counts_all_frames_and_names_clip(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    events = []
    reporter = Reporter(events.append, interval_seconds=0)
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}] * 3), reporter=reporter)
    rendered = [event for event in events if event.phase == "render"]
    assert [event.total for event in rendered] == [30] * len(rendered)
    assert rendered[-1].done == 30
    details = [detail for detail, _ in groupby(event.detail for event in rendered) if detail]
    assert details == ["clip 1 of 3", "clip 2 of 3", "clip 3 of 3"]
    assert {event.detail for event in events if event.phase != "render"} == {""}


def test_cancellation_between_frames_leaves_nothing(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    token = CancellationToken()

    def cancel(event: ProgressEvent) -> None:
        if event.detail == "clip 2 of 3":
            token.cancel()

    with pytest.raises(JobCancelledError):
        assemble(
            tmp_path,
            reel_request([{"input_key": "a.mp4"}] * 3),
            cancellation=token,
            reporter=Reporter(cancel, interval_seconds=0),
        )
    assert not (tmp_path / "reel.mp4").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_reuse_notices_a_change_of_any_clip(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 10)
    numbered(tmp_path / "b.mp4", 60, 10)
    request = reel_request(
        [{"input_key": "a.mp4"}, {"input_key": "b.mp4"}],
        store={"input_scope": "global", "output_scope": "global", "existing": "reuse"},
    )

    def made_from(job_id: str) -> object:
        payload = replace(request, job_id=job_id).to_dict()
        settings = Settings(store_url=tmp_path.as_uri())
        return run_job(assemble_reel, payload, settings=settings, send=lambda _: None)["reused_from"]

    assert (made_from("j1"), made_from("j2")) == (None, "j1")
    numbered(tmp_path / "b.mp4", 100, 10)
    assert made_from("j3") is None
    assert lumas(tmp_path / "reel.mp4")[10:] == [*range(100, 110)]
