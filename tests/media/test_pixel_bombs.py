"""Pictures beyond the limits are refused before decoding, although the container declares another size."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clips import ffmpeg

from reel_modal.testing import make_clip

SIDE = 3200
"""Pixels; one such picture takes 10 MB in gray, 15 MB as 4:2:0."""

LIMITS = "limits=MediaLimits(max_width_px=1280, max_height_px=1280, max_frame_pixels=1280 * 720)"
GROWTH_MB = 10
CPU_SECONDS = 1.0

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from reel_modal import FrameReader, MediaLimits, Settings, probe
from reel_modal.errors import ReelModalError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

def reset():
    Path("/proc/self/clear_refs").write_text("5")

settings = Settings({limits})
probe(sys.argv[1], settings=Settings())
results = {{}}
for name in sys.argv[2:]:
    reset()
    before, started = peak(), time.process_time()
    try:
        {action}
        said = "accepted"
    except ReelModalError as error:
        said = f"{{type(error).__name__}}: {{error}}"
    results[Path(name).name] = (peak() - before, time.process_time() - started, said)
print(json.dumps(results))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc")


def measure(plain: Path, *clips: Path, limits: str = LIMITS, action: str = "probe(name, settings=settings)") -> dict:  # type: ignore[type-arg]
    """Return the growth in MB, the CPU seconds and the outcome of each clip, measured after a probe of `plain`."""
    code = MEASURE.format(limits=limits, action=action.replace("\n", "\n        "))
    done = subprocess.run(
        [sys.executable, "-c", code, plain, *clips], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


# Encoders, their containers, and how each container is changed to declare another size.


def in_matroska(data: bytes) -> bytes:
    """Set PixelWidth and PixelHeight to 320 and 240."""
    return replaced(rb"\xb0\x82..\xba\x82..", b"\xb0\x82\x01\x40\xba\x82\x00\xf0", data)


def in_mp4(data: bytes) -> bytes:
    """Set the size in the sample entry and in the track header to 320 and 240."""
    sides, track = struct.pack(">HH", SIDE, SIDE), struct.pack(">HHHH", SIDE, 0, SIDE, 0)
    samples, header = data[: data.rindex(b"moov")], data[data.rindex(b"moov") :]
    assert sides in header
    header = header.replace(track, struct.pack(">HHHH", 320, 0, 240, 0))
    return samples + header.replace(sides, struct.pack(">HH", 320, 240))


def in_avi(data: bytes) -> bytes:
    """Set the size in the stream format to 320 and 240."""
    return replaced(rb"(strf.{4}.\0\0\0).{8}", rb"\g<1>" + struct.pack("<ii", 320, 240), data)


def in_ivf(data: bytes) -> bytes:
    return data[:12] + struct.pack("<HH", 320, 240) + data[16:]


def replaced(pattern: bytes, by: bytes, data: bytes) -> bytes:
    changed, count = re.subn(pattern, by.replace(b"\\x", b"\\\\x"), data[:6000], count=1, flags=re.DOTALL)
    assert count == 1
    return changed + data[6000:]


ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "hevc": ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1:frame-threads=1"),
    "vp8": ("libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "av1": ("libaom-av1", "-cpu-used", "8", "-usage", "realtime"),
    "png": ("png", "-pix_fmt", "gray"),
    "mjpeg": ("mjpeg", "-pix_fmt", "yuvj420p"),
    "gif": ("gif",),
    "mpeg2": ("mpeg2video", "-pix_fmt", "yuv420p"),
    "mpeg4": ("mpeg4",),
    "prores": ("prores_ks",),
    "theora": ("libtheora", "-pix_fmt", "yuv420p"),
    "qtrle": ("qtrle", "-pix_fmt", "gray"),
    "zlib": ("zlib",),
    "tiff": ("tiff", "-pix_fmt", "gray"),
    "jpeg2000": ("jpeg2000", "-pix_fmt", "gray"),
}
"""Each encodes one picture, into the first of its containers; the others are remuxed from that."""

CONTAINERS: dict[str, tuple[str, ...]] = {
    "h264": ("mp4", "mkv", "avi", "ts", "flv", "h264"),
    "hevc": ("mp4", "mkv", "ts", "hevc"),
    "vp8": ("ivf", "mkv"),
    "vp9": ("mkv", "mp4", "ivf"),
    "av1": ("mp4", "mkv", "ivf"),
    "png": ("mov", "mkv", "nut"),
    "mjpeg": ("mov", "avi", "mkv"),
    "gif": ("gif", "mkv"),
    "mpeg2": ("mpg", "ts", "mkv"),
    "mpeg4": ("avi", "mp4"),
    "prores": ("mov", "mkv"),
    "theora": ("ogg", "mkv"),
    "qtrle": ("mov",),
    "zlib": ("avi",),
    "tiff": ("mov",),
    "jpeg2000": ("mov",),
}

LIES: dict[str, Callable[[bytes], bytes]] = {
    "mkv": in_matroska,
    "mp4": in_mp4,
    "mov": in_mp4,
    "avi": in_avi,
    "ivf": in_ivf,
}

HONEST = [f"{codec}.{suffix}" for codec, suffixes in CONTAINERS.items() for suffix in suffixes]
NO_SIZE = {"mpeg2.mpg", "mpeg4.mp4"}
"""Their containers declare none, or none that libav shows before it decodes."""

LYING = [name for name in HONEST if name.partition(".")[2] in LIES and not name.startswith("qtrle")]
"""The pictures of QuickTime's animations are as large as the container says, and no larger."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bombs")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return make_clip(folder / "plain.mp4", size=(320, 240), seconds=0.2)


@pytest.fixture(scope="module")
def measured(folder: Path, plain: Path) -> dict[str, tuple[float, float, str]]:
    """Measure the probe of each clip, unchanged and with a container that declares 320x240."""
    paths = []
    for codec, (encoder, *options) in ENCODERS.items():
        first, *others = (folder / f"{codec}.{suffix}" for suffix in CONTAINERS[codec])
        picture = ("-f", "lavfi", "-i", f"color=gray:s={SIDE}x{SIDE}:r=25", "-frames:v", "1", "-threads", "1")
        ffmpeg(*picture, "-c:v", encoder, *options, first)
        for other in others:
            ffmpeg("-i", first, "-c", "copy", other)
        for path in (first, *others):
            paths.append(path)
            if (lie := LIES.get(path.suffix[1:])) is not None:
                paths.append(folder / f"small-{path.name}")
                paths[-1].write_bytes(lie(path.read_bytes()))
    return measure(plain, *paths)


@pytest.mark.parametrize("name", HONEST)
def test_probe_declared_size_beyond_limits_refused_unread(
    name: str, measured: dict[str, tuple[float, float, str]]
) -> None:
    growth_mb, cpu_seconds, outcome = measured[name]
    assert f"declares {SIDE}x{SIDE} pixels; at most 1280x1280" in outcome or name in NO_SIZE
    assert outcome.startswith("InvalidMediaError")
    assert (growth_mb < GROWTH_MB, cpu_seconds < CPU_SECONDS) == (True, True), (growth_mb, cpu_seconds)


@pytest.mark.parametrize("name", LYING)
def test_probe_size_hidden_by_container_not_decoded(name: str, measured: dict[str, tuple[float, float, str]]) -> None:
    growth_mb, cpu_seconds, outcome = measured[f"small-{name}"]
    assert outcome.startswith("InvalidMediaError")
    assert "declares" in outcome or "exceeds Settings.limits" in outcome
    assert (growth_mb < GROWTH_MB, cpu_seconds < CPU_SECONDS) == (True, True), (growth_mb, cpu_seconds)


# Streams that grow after their first pictures, and cropped pictures.

CROPPED = f"h264_metadata=crop_right={SIDE - 320}:crop_bottom={SIDE - 240}"
CROPPED_HEVC = f"hevc_metadata=crop_right={SIDE - 320}:crop_bottom={SIDE - 240}"


def pictures(
    path: Path, encoder: tuple[str, ...], *, size: tuple[int, int], frames: int, filters: str = "null"
) -> Path:
    """Encode a raw stream, which contains its parameter sets."""
    source = f"testsrc2=s={size[0]}x{size[1]}:r=25"
    ffmpeg("-f", "lavfi", "-i", source, "-frames:v", str(frames), "-c:v", *encoder, "-bsf:v", filters, path)
    return path


@pytest.fixture(scope="module")
def growing(folder: Path) -> Path:
    """Return 200 pictures of 320x240, then one beyond the limits, optionally cropped to 320x240."""
    encoder = ENCODERS["h264"]
    small = pictures(folder / "g-small.h264", encoder, size=(320, 240), frames=200)
    large = pictures(folder / "g-large.h264", encoder, size=(SIDE, SIDE), frames=1)
    cropped = folder / "g-cropped.h264"
    ffmpeg("-i", large, "-c", "copy", "-bsf:v", CROPPED, cropped)
    for name, last in (("plain", large), ("cropped", cropped)):
        whole = folder / f"growing-{name}.h264"
        whole.write_bytes(small.read_bytes() + last.read_bytes())
        for suffix in ("ts", "mkv", "flv", "mp4"):
            ffmpeg("-r", "25", "-i", whole, "-c", "copy", whole.with_suffix(f".{suffix}"))
    return folder


GROWING = [
    f"growing-{kind}.{suffix}" for kind in ("plain", "cropped") for suffix in ("ts", "mkv", "flv", "mp4", "h264")
]


def read_with(decoder: str) -> str:
    return f"""with FrameReader(name, pixel_format="gray8", decoder="{decoder}", settings=settings) as reader:
    list(reader)"""


def test_in_process_growing_stream_refused(growing: Path, plain: Path) -> None:
    outcomes = measure(plain, *(growing / name for name in GROWING), action=read_with("in_process"))
    for name, (growth_mb, _, outcome) in outcomes.items():
        assert f"declares {SIDE}x{SIDE} pixels" in outcome, name
        assert growth_mb < GROWTH_MB, name


COUNT_IN_CHILD = """
import json, resource, sys
from reel_modal import FrameReader, MediaLimits, Settings
settings, peaks, frames = Settings({limits}), [], []
for name in sys.argv[1:]:
    with FrameReader(name, pixel_format="gray8", decoder="process", settings=settings) as reader:
        frames.append(len(list(reader)))
    peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
print(json.dumps([peaks, frames]))
"""


def test_ffmpeg_growing_pictures_not_decoded(growing: Path) -> None:
    names = ["g-small.h264", *(name for name in GROWING if name.startswith("growing-plain"))]
    command = [sys.executable, "-c", COUNT_IN_CHILD.format(limits=LIMITS), *(growing / name for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peaks, frames = json.loads(done.stdout)
    assert set(frames) <= {200, 201}
    assert max(peaks) - peaks[0] < 2 * GROWTH_MB, dict(zip(names, peaks, strict=True))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi", "h264"])
def test_probe_cropped_pictures_count_uncropped(suffix: str, growing: Path, plain: Path) -> None:
    path = growing / f"cropped.{suffix}"
    ffmpeg("-r", "25", "-i", growing / "g-cropped.h264", "-c", "copy", path)
    (growth_mb, cpu_seconds, outcome) = measure(plain, path)[path.name]
    assert f"declares {SIDE}x{SIDE} pixels; at most 1280x1280" in outcome
    assert (growth_mb < GROWTH_MB, cpu_seconds < CPU_SECONDS) == (True, True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "hevc"])
def test_probe_cropped_hevc_counts_uncropped(suffix: str, folder: Path, plain: Path) -> None:
    source = folder / "cropped-hevc-once.mp4"
    if not source.exists():
        pictures(source, ENCODERS["hevc"], size=(SIDE, SIDE), frames=1, filters=CROPPED_HEVC)
    path = folder / f"cropped-hevc.{suffix}"
    ffmpeg("-i", source, "-c", "copy", path)
    (growth_mb, _, outcome) = measure(plain, path)[path.name]
    assert f"declares {SIDE}x{SIDE} pixels; at most 1280x1280" in outcome
    assert growth_mb < GROWTH_MB


PADDED: dict[str, tuple[str, ...]] = {
    "plain.mp4": ("libx264", "-preset", "ultrafast"),
    "fields.ts": ("libx264", "-preset", "ultrafast", "-flags", "+ildct+ilme"),
    "scaling.mp4": ("libx264", "-preset", "ultrafast", "-x264-params", "cqm=jvt", "-pix_fmt", "yuv444p"),
    "deep.ts": ("libx264", "-preset", "ultrafast", "-pix_fmt", "yuv422p10le"),
    "hevc.mp4": (*ENCODERS["hevc"], "-pix_fmt", "yuv420p10le"),
    "hevc.ts": (*ENCODERS["hevc"], "-pix_fmt", "yuv444p"),
}


def test_probe_padded_pictures_within_limits_accepted(folder: Path, plain: Path) -> None:
    """1080 lines are coded as 1088, which a limit of 1080 must accept."""
    paths = [
        pictures(folder / f"hd-{name}", encoder, size=(1920, 1080), frames=1) for name, encoder in PADDED.items()
    ]
    for lines in (1080, 1079):
        limits = f"limits=MediaLimits(max_width_px=1920, max_height_px={lines}, max_frame_pixels=1920 * 1080)"
        for name, (_, _, outcome) in measure(plain, *paths, limits=limits).items():
            assert (outcome == "accepted") == (lines == 1080), (name, outcome)
            assert lines == 1080 or "declares 1920x1080 pixels" in outcome


def test_probe_large_cover_art_not_decoded(folder: Path, plain: Path) -> None:
    cover, path = folder / "cover.jpg", folder / "with-cover.mp4"
    ffmpeg("-f", "lavfi", "-i", f"color=gray:s={SIDE}x{SIDE}", "-frames:v", "1", "-pix_fmt", "yuvj420p", cover)
    ffmpeg(
        *("-i", plain, "-i", cover, "-map", "0", "-map", "1", "-c", "copy"),
        *("-disposition:v:1", "attached_pic", path),
    )
    growth_mb, _, outcome = measure(plain, path)[path.name]
    assert (outcome, growth_mb < GROWTH_MB) == ("accepted", True)


def test_probe_16000_pixels_refused_by_default(folder: Path, plain: Path) -> None:
    """Only a header declares it: the screen of a GIF, the frame of a JPEG, the parameter sets of H.264."""
    gif, jpeg, h264 = folder / "16000.gif", folder / "16000.avi", folder / "16000.h264"
    gif.write_bytes(b"GIF89a" + struct.pack("<HH", 16000, 16000) + b"\xf0\0\0" + bytes(6) + b"\x2c" + bytes(4)
                    + struct.pack("<HH", 16000, 16000) + b"\0\x08\x0b" + bytes(11) + b"\0\x3b")  # fmt: skip
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=320x240:r=25", "-frames:v", "3", "-c:v", "mjpeg", jpeg)
    frame = struct.pack(">HH", 240, 320)
    jpeg.write_bytes(jpeg.read_bytes().replace(b"\x08" + frame, b"\x08" + struct.pack(">HH", 16000, 16000)))
    small = pictures(folder / "s.h264", ENCODERS["h264"], size=(320, 240), frames=5).read_bytes()
    h264.write_bytes(resized(small, (1000, 1000)))
    outcomes = measure(plain, gif, jpeg, h264, limits="")
    for name, (growth_mb, cpu_seconds, outcome) in outcomes.items():
        assert outcome.startswith("InvalidMediaError"), name
        assert (growth_mb < GROWTH_MB, cpu_seconds < CPU_SECONDS) == (True, True), (name, growth_mb)
    assert "declares 16000x16000 pixels" in outcomes[h264.name][2]
    assert "declares 16000x16000 pixels" in outcomes[gif.name][2]


def resized(stream: bytes, blocks: tuple[int, int]) -> bytes:
    """Return an x264 stream whose parameter sets declare another number of blocks of 16 pixels."""
    start = stream.index(b"\0\0\1\x67") + 3
    end = stream.index(b"\0\0\1", start)
    bits = "".join(f"{byte:08b}" for byte in stream[start:end].rstrip(b"\0").replace(b"\0\0\3", b"\0\0"))
    sizes = golomb(20 - 1) + golomb(15 - 1)
    assert bits.count(sizes) == 1
    changed = bits.replace(sizes, golomb(blocks[0] - 1) + golomb(blocks[1] - 1)).rstrip("0")
    changed += "0" * (-len(changed) % 8)
    unit = int(changed, 2).to_bytes(len(changed) // 8, "big")
    return stream[:start] + unit + b"\0" + stream[end:]


def golomb(number: int) -> str:
    binary = f"{number + 1:b}"
    return "0" * (len(binary) - 1) + binary


def test_probe_webp_and_other_images_not_opened(folder: Path, plain: Path) -> None:
    path = folder / "picture.webp"
    path.write_bytes(b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x80\x3e\x80\x3e" + bytes(40))
    assert "cannot be read as a video" in measure(plain, path)[path.name][2]
