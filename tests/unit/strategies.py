"""Any valid request, for property tests."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest, OverlayStyle

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip())
)
times = st.fractions(0, 100, max_denominator=90_000)
positions = st.floats(-5000, 5000, allow_subnormal=False) | st.integers(-5000, 5000)
radii = st.floats(0.1, 4000) | st.integers(1, 4000)
shares = st.floats(0, 1)
colors = st.none() | st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True)


@st.composite
def regions(draw: st.DrawFn, name: str = "r") -> HighlightRegion:
    start, length = draw(times), draw(times)
    moments = sorted(draw(st.sets(times, min_size=1, max_size=6)))
    return HighlightRegion(
        id=name,
        start_seconds=start,
        end_seconds=start + length,
        keyframes=tuple(draw(keyframes(moment)) for moment in moments),
        enabled=draw(st.booleans()),
        label=draw(st.just("") | words),
        video_size=draw(st.none() | st.tuples(st.integers(1, 8000), st.integers(1, 8000))),
    )


@st.composite
def keyframes(draw: st.DrawFn, moment: Fraction) -> HighlightKeyframe:
    return HighlightKeyframe(
        time_seconds=moment,
        x=draw(positions),
        y=draw(positions),
        radius_x=draw(radii),
        radius_y=draw(radii),
        fill_opacity=draw(shares),
        stroke_opacity=draw(shares),
        color=draw(colors),
    )


styles = st.builds(
    OverlayStyle,
    dim_strength=shares,
    boost_strength=st.floats(0, 4),
    feather=shares,
    fade_seconds=times,
    stroke_width_px=st.floats(0, 100),
    interpolation=st.sampled_from(["linear", "catmull_rom"]),
)


def encode_options() -> st.SearchStrategy[EncodeOptions]:
    numbers = {"quality": st.integers(0, 51), "threads": st.integers(1, 64)}
    return st.builds(EncodeOptions, encoder=words, preset=words, **numbers)


@st.composite
def overlay_requests(draw: st.DrawFn) -> OverlayRequest:
    return OverlayRequest(
        job_id=draw(words),
        user_id=draw(words),
        input_key=draw(words),
        output_key=draw(words),
        regions=tuple(draw(regions(f"r{index}")) for index in range(draw(st.integers(0, 3)))),
        effect=draw(st.sampled_from(["dark_overlay", "brightness_boost", "original"])),
        style=draw(styles),
        encode=draw(encode_options()),
    )
