"""The timeline of a reel: whole frames, monotone, invertible, and of the length that its clips and transitions give."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.framing_strategies import rates, speeds

from reel_modal.errors import RequestError
from reel_modal.schema import ReelTimeline, Timeline
from reel_modal.schema.reel_timeline import Change

F = Fraction
KINDS = ("cut", "crossfade", "fade_black")
lengths = st.fractions(F(1, 10), 60, max_denominator=1001)


@st.composite
def timelines(draw: st.DrawFn) -> ReelTimeline:
    """Return a timeline of clips with trims and speeds, whose transitions fit into the clips."""
    lines, changes = [], []
    for _ in range(draw(st.integers(1, 6))):
        start, length = draw(st.fractions(0, 100, max_denominator=1001)), draw(lengths)
        middle = start + length * draw(st.fractions(0, 1, max_denominator=10))
        lines.append(Timeline.of(start, start + length, [(start, middle, draw(speeds))] if middle > start else []))
    for before, after in pairwise(lines):
        most = min(before.duration_seconds, after.duration_seconds) / 2
        share = draw(st.fractions(F(1, 100), 1, max_denominator=100))
        kind = draw(st.sampled_from(KINDS))
        changes.append((kind, F(0) if kind == "cut" else most * share * (2 if kind == "fade_black" else 1)))
    return ReelTimeline.of(lines, changes, draw(rates))


@given(timelines())
def test_each_frame_shows_one_clip_or_two_whose_weights_add_up(reel: ReelTimeline) -> None:
    step = max(1, reel.frame_count // 200)
    joints = {clip.first + near for clip in reel.clips for near in (-1, 0, 1)}
    joints |= {clip.end + near for clip in reel.clips for near in (-1, 0, 1)}
    for frame in {*range(0, reel.frame_count, step), *(each for each in joints if 0 <= each < reel.frame_count)}:
        shown = [(clip, clip.share(frame)) for clip in reel.clips if clip.first <= frame < clip.end]
        assert all(0 < share <= 1 for _, share in shown)
        assert len(shown) in {1, 2}
        if len(shown) == 2:
            assert sum(share for _, share in shown) == 1


@given(timelines())
def test_clips_are_shown_for_the_frames_of_their_length(reel: ReelTimeline) -> None:
    overlaps = sum(clip.shared_frames for clip in reel.clips)
    assert reel.frame_count == sum(clip.line.frame_count(reel.fps) for clip in reel.clips) - overlaps
    assert reel.duration_seconds == F(reel.frame_count) / reel.fps
    for before, after in pairwise(reel.clips):
        assert after.first == before.end - before.shared_frames
        assert (before.exit, before.exit_frames) == (after.entry, after.entry_frames)
    assert all(clip.entry_frames + clip.exit_frames <= clip.frames for clip in reel.clips)


@given(timelines(), st.fractions(0, 1, max_denominator=997))
def test_timeline_is_invertible_and_monotone(reel: ReelTimeline, share: Fraction) -> None:
    moment = reel.duration_seconds * share
    index, source = reel.to_source(moment)
    assert reel.to_output(index, source) == moment
    later_index, later = reel.to_source(moment + F(1, 1000))
    assert (later_index, later) > (index, source)
    clip = reel.clip_at(moment)
    if moment < clip.end_seconds:
        assert clip.line.source_start <= source <= clip.line.to_source((clip.frames + 1) / reel.fps)


def test_transitions_take_their_duration() -> None:
    lines = [Timeline.of(end=F(2)), Timeline.of(F(5), F(8)), Timeline.of(end=F(1))]
    reel = ReelTimeline.of(lines, [("crossfade", F(1)), ("fade_black", F(1, 2))], F(24))
    assert [(clip.first, clip.frames, clip.entry_frames, clip.exit_frames) for clip in reel.clips] == [
        (0, 48, 0, 24),
        (24, 72, 24, 6),
        (96, 24, 6, 0),
    ]
    assert reel.clips[0].share(24) == F(24, 25)
    assert [reel.clips[1].share(frame) for frame in (24, 47, 48, 89, 90, 95)] == [
        *(F(1, 25), F(24, 25), F(1), F(1), F(6, 7), F(1, 7)),
    ]
    assert reel.to_source(F(1)) == (1, F(5))


def test_rounded_transitions_never_exceed_their_clip() -> None:
    """Each transition of the middle clip rounds up to two frames, and the clip has three."""
    lines = [Timeline.of(end=F(1)), Timeline.of(end=F(3, 10)), Timeline.of(end=F(1))]
    reel = ReelTimeline.of(lines, [("crossfade", F(3, 20))] * 2, F(10))
    assert [(clip.first, clip.frames, clip.entry_frames, clip.exit_frames) for clip in reel.clips] == [
        *((0, 10, 0, 2), (8, 3, 2, 1), (10, 10, 1, 0)),
    ]


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ([], "transitions", "has 0 items for 2 clips"),
        ([("crossfade", F(2))], "transitions[0].duration_seconds", r"clips\[0\] lasts 1 s"),
        ([("fade_black", F(5))], "transitions[0].duration_seconds", "take 2.5 s of it"),
    ],
)
def test_transitions_that_do_not_fit_are_refused(changes: list[Change], path: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        ReelTimeline.of([Timeline.of(end=F(1)), Timeline.of(end=F(3))], changes, F(25))
    assert caught.value.path == path
