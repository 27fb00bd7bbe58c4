"""Every computation between decoder and encoder, on fixed pictures.

`python -m tests.kernels` prints the digest of each kernel's output as JSON; with `networks FILE`, it runs the
networks and writes their outputs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.framing import CropTrack, FramingRenderer, Layout, mix
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._rendering.resampling import Rect, resample
from reel_modal._rendering.upscale import UpscaleRenderer
from reel_modal.media.frames import CHROMA_ORIGIN, PLANAR, ColorTags, PixelFormat, frame_bytes, plane_shapes
from reel_modal.schema import (
    CropKeyframe,
    Effect,
    Fit,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    OverlayStyle,
)

Array: TypeAlias = npt.NDArray[Any]

SIZE: Final = (482, 270)
KEYS: Final = {"job_id": "j", "user_id": "u", "input_key": "i.mp4", "output_key": "o.mp4"}


def noise(shape: tuple[int, ...], seed: str, bits: int = 8) -> Array:
    """Return noise that is equal on every machine; one half has blocks whose edges give sums ending in exactly a
    half."""
    count = int(np.prod(shape))
    bytes_ = np.frombuffer(hashlib.shake_128(seed.encode()).digest(2 * count), "<u2")
    picture = (bytes_ % (1 << bits)).reshape(shape)
    half = shape[0] // 2
    picture[:half] = ((picture[:half] // 7) % 2).repeat(4, 0)[:half] * ((1 << bits) - 1)
    return picture.astype(np.uint8 if bits == 8 else np.uint16)


def frame(seed: str, pixel_format: PixelFormat = "yuv420p") -> tuple[Array, Array, Array]:
    y, u, v = (
        noise(shape, f"{seed} {index}", PLANAR[pixel_format].bits)
        for index, shape in enumerate(plane_shapes(pixel_format, SIZE))
    )
    return y, u, v


def resampled(bits: int) -> Iterator[Array]:
    plane = noise(SIZE[::-1], "plane", bits)
    for window, size in (
        (Rect(10.37, 5.81, 140.5, 230.25), (210, 322)),
        (Rect(0, 0, 482, 270), (131, 77)),
        (Rect(-2.5, 7.5, 133, 121), (700, 242)),
        (Rect(3.25, 1.75, 470, 260), (470, 260)),
    ):
        target = np.empty(size[::-1], plane.dtype)
        resample(plane, window, target)
        yield target


def framed(fit: Fit, background: str) -> Iterator[Array]:
    crop = (CropKeyframe(time_seconds=Fraction(0), x=10.3, y=3.1, width=300, height=170),)
    request = FramingRequest(**KEYS, crop=crop, output_size=(270, 480), fit=fit)
    layout = Layout(Fraction(1), (270, 480), fit)
    renderer = FramingRenderer(CropTrack(request, SIZE), layout, background, ColorTags(), CHROMA_ORIGIN["center"])
    output = np.empty(frame_bytes("yuv420p", layout.size), np.uint8)
    renderer.render(frame("framed"), Fraction(0), output)
    yield output


def mixed() -> Iterator[Array]:
    older, newer = (noise((512, 512), seed).ravel() for seed in ("older", "newer"))
    for share in (0.3, 1 / 3, 0.7071):
        target = np.empty_like(older)
        mix(older, newer, share, target)
        yield target


def highlighted(effect: Effect, pixel_format: PixelFormat, feather: float) -> Iterator[Array]:
    def keyframe(seconds: int, x: float, width: float) -> HighlightKeyframe:
        return HighlightKeyframe(
            time_seconds=Fraction(seconds), x=x, y=120.7, radius_x=width, radius_y=70.9, color="#ff8811",
            fill_opacity=0.27, stroke_opacity=0.83,
        )  # fmt: skip

    regions = tuple(
        HighlightRegion(id=name, start_seconds=Fraction(0), end_seconds=Fraction(1), keyframes=keyframes)
        for name, keyframes in (
            ("a", (keyframe(0, 140.3, 50.1), keyframe(1, 250.9, 90.7))),
            ("b", (keyframe(0, 300.1, 61.3),)),
        )
    )
    style = OverlayStyle(feather=feather, fade_seconds=Fraction(1, 2), interpolation="catmull_rom")
    renderer = OverlayRenderer(
        OverlayRequest(**KEYS, regions=regions, effect=effect, style=style), SIZE, ColorTags(), pixel_format
    )
    for index in range(1, 12):
        planes = frame(f"highlighted {index}", pixel_format)
        renderer.render(planes, Fraction(index, 12))
        yield from planes


def upscaled(kind: Any, bits: int, target: tuple[int, int]) -> Iterator[Array]:
    """Run the upscale renderer with a network that only repeats pixels."""
    renderer = UpscaleRenderer(
        lambda samples: samples.repeat(2, 2).repeat(2, 3),
        kind=kind, scale=2, halo=3, size=SIZE, target=target, color=ColorTags(), bits=bits, budget_pixels=40_000,
        origin=CHROMA_ORIGIN["center"],
    )  # fmt: skip
    source = frame("upscaled", "yuv420p" if bits == 8 else "yuv420p10le")
    (detail,) = renderer.detail([source])
    yield detail
    yield from renderer.finished(detail, source)


KERNELS: Final[dict[str, Callable[[], Iterator[Array]]]] = {
    "resample 8 bits": lambda: resampled(8),
    "resample 10 bits": lambda: resampled(10),
    "frame, cover": lambda: framed("cover", "blur"),
    "frame, blurred background": lambda: framed("contain", "blur"),
    "frame, coloured background": lambda: framed("contain", "#336699"),
    "mix two frames": mixed,
    "darken 8 bits": lambda: highlighted("dark_overlay", "yuv420p", 0.0),
    "darken 10 bits": lambda: highlighted("dark_overlay", "yuv420p10le", 0.0),
    "darken, soft edge": lambda: highlighted("dark_overlay", "yuv420p", 0.3),
    "brighten 8 bits": lambda: highlighted("brightness_boost", "yuv420p", 0.0),
    "brighten 10 bits": lambda: highlighted("brightness_boost", "yuv420p10le", 0.3),
    "upscale luma 8 bits": lambda: upscaled("luma", 8, (964, 540)),
    "upscale luma 10 bits": lambda: upscaled("luma", 10, (964, 540)),
    "upscale luma to another size": lambda: upscaled("luma", 8, (700, 501)),
    "upscale RGB 8 bits": lambda: upscaled("rgb", 8, (964, 540)),
    "upscale RGB 10 bits": lambda: upscaled("rgb", 10, (700, 501)),
}


def digests() -> dict[str, str]:
    """Return the digest of each kernel's output, over bytes in little-endian order."""
    found = {}
    for name, kernel in KERNELS.items():
        digest = hashlib.sha256()
        for array in kernel():
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        found[name] = digest.hexdigest()[:16]
    return found


def networks() -> dict[str, Array]:
    """Return the output of bundled networks for a part of a real picture, by name and bit depth."""
    import av

    from reel_modal._upscaling.model import UpscaleModel
    from reel_modal._upscaling.session import UpscaleSession
    from tests.clips import real

    with av.open(str(real("bikes.mp4"))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray8")[40:88, 100:180]
    deep = picture.astype(np.uint16) * 4 + np.arange(picture.size, dtype=np.uint16).reshape(picture.shape) % 4
    found = {}
    for name in ("small-x2", "small-x4", "large-x4"):
        for bits, samples in ((8, picture), (10, deep)):
            session = UpscaleSession(UpscaleModel.load(name), provider="cpu", bits=bits, threads=1)
            found[f"{name}, {bits} bits"] = session.run(samples[None, None])
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["networks"]:
        np.savez(Path(sys.argv[2]), **networks())
    else:
        json.dump(digests(), sys.stdout)
