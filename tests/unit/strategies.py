"""Hypothesis strategies for valid requests."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from reel_modal.errors import InvalidKeyError
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest, OverlayStyle
from reel_modal.schema.keys import check_key

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip())
)
names = st.from_regex(r"[a-zA-Z0-9é]([a-zA-Z0-9é ._-]*[a-zA-Z0-9é])?", fullmatch=True).filter(
    lambda text: len(text) <= 40 and _is_key(text)
)
presets = st.sampled_from(["ultrafast", "fast", "placebo"])
encoders = st.sampled_from(["auto", "libx264", "h264_nvenc", "libx265", "some_encoder-2"])


def _is_key(text: str) -> bool:
    try:
        check_key(text)
    except InvalidKeyError:
        return False
    return True


def keys() -> dict[str, st.SearchStrategy[str]]:
    """Return strategies for the job, user, input and output fields."""
    suffixes = st.sampled_from([".mp4", ".mkv", ".MOV"])
    return {
        "job_id": names,
        "user_id": names,
        "input_key": names.map(lambda name: f"in/{name}"),
        "output_key": st.tuples(names, suffixes).map(lambda parts: f"out/{parts[0]}{parts[1]}"),
    }


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
    return st.builds(EncodeOptions, encoder=encoders, preset=presets, **numbers)


@st.composite
def overlay_requests(draw: st.DrawFn) -> OverlayRequest:
    return OverlayRequest(
        **{name: draw(values) for name, values in keys().items()},
        regions=tuple(draw(regions(f"r{index}")) for index in range(draw(st.integers(0, 3)))),
        effect=draw(st.sampled_from(["dark_overlay", "brightness_boost", "original"])),
        style=draw(styles),
        encode=draw(encode_options()),
    )
