"""Hypothesis strategies for valid framing requests."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import strategies as st
from tests.unit.strategies import encode_options, keys, positions, radii, times

from reel_modal.schema import CropKeyframe, FramingRequest, SpeedSegment

speeds = st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(3, 2), Fraction(2), Fraction(4)]) | st.fractions(
    Fraction(1, 10), 10, max_denominator=1000
)
rates = st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50)]) | st.fractions(
    1, 240, max_denominator=1001
)
evens = st.integers(8, 2000).map(lambda half: 2 * half)


@st.composite
def segments(draw: st.DrawFn) -> tuple[SpeedSegment, ...]:
    borders = sorted(draw(st.sets(times, max_size=8)))
    touching = draw(st.booleans())
    pairs = list(pairwise(borders))[:: 1 if touching else 2]
    return tuple(SpeedSegment(start_seconds=a, end_seconds=b, speed=draw(speeds)) for a, b in pairs)


@st.composite
def crops(draw: st.DrawFn) -> tuple[CropKeyframe, ...]:
    moments = sorted(draw(st.sets(times, max_size=5)))
    return tuple(
        CropKeyframe(
            time_seconds=moment,
            x=draw(positions),
            y=draw(positions),
            width=draw(radii),
            height=draw(radii),
        )
        for moment in moments
    )


@st.composite
def framing_requests(draw: st.DrawFn) -> FramingRequest:
    start = draw(st.just(Fraction(0)) | times)
    size = draw(st.none() | st.tuples(evens, evens))
    aspect = draw(st.none() | st.fractions(Fraction(1, 10), 10, max_denominator=100)) if size is None else None
    length = draw(st.none() | times.filter(lambda value: value > 0))
    return FramingRequest(
        **{name: draw(values) for name, values in keys().items()},
        crop=draw(crops()),
        interpolation=draw(st.sampled_from(["linear", "catmull_rom"])),
        video_size=draw(st.none() | st.tuples(st.integers(1, 8000), st.integers(1, 8000))),
        trim_start_seconds=start,
        trim_end_seconds=None if length is None else start + length,
        segments=draw(segments()),
        output_size=size,
        aspect=aspect,
        fps=draw(st.none() | rates),
        rotation_degrees=draw(st.sampled_from([0, 90, 180, 270])),
        audio=draw(st.booleans()),
        fit=draw(st.sampled_from(["cover", "contain"])),
        background=draw(st.just("blur") | st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True)),
        slow_motion=draw(st.sampled_from(["repeat", "blend"])),
        encode=draw(encode_options()),
    )
