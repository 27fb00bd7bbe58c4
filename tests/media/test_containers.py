"""Encoder selection and audio sync for each container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from tests.clips import Clips, ffmpeg
from tests.ffmpegs import skip_without_encoder
from tests.media.beats import beeps, flashes, make_beats
from tests.media.framed import crops, speeds
from tests.media.overlaid import spotlight
from tests.media.rendered import rendered

from reel_modal.errors import ConfigError, InvalidMediaError
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.media import probe
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest
from reel_modal.schema.containers import CONTAINERS

AUTO = EncodeOptions(preset="ultrafast")
STILL: dict[str, object] = {"output_size": (160, 96)}
MOVING = {
    "output_size": (160, 96),
    "crop": (
        CropKeyframe(time_seconds=Fraction(0), x=0, y=0, width=160, height=90),
        CropKeyframe(time_seconds=Fraction(1), x=9, y=9, width=160, height=90),
    ),
}
SOUND = {".webm": "opus", ".avi": "pcm_s16le"}
FUNCTIONS: dict[str, tuple[type[Any], dict[str, object]]] = {
    "overlay": (OverlayRequest, {"regions": spotlight()}),
    "graph": (FramingRequest, STILL),
    "framing": (FramingRequest, MOVING),
}


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_auto_encoder_works_for_every_container(clips: Clips, function: str, suffix: str, tmp_path: Path) -> None:
    kind, fields = FUNCTIONS[function]
    output = tmp_path / f"out{suffix}"
    result = rendered(kind, clips.get("with_sound.mp4"), output, encode=AUTO, **fields)
    output_media = probe(output, scan=True)
    assert output_media.scan is not None
    assert output_media.scan.frame_count == result.frames
    assert output_media.codec == ("vp9" if suffix == ".webm" else "h264")
    assert [sound.codec for sound in output_media.audio] == [SOUND.get(suffix, "aac")]
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == result.frames


def test_auto_encoder_upscales_to_webm(clips: Clips, tmp_path: Path) -> None:
    result = rendered(UpscaleRequest, clips.get("10bit.mp4"), tmp_path / "out.webm", encode=AUTO, scale=2)
    output_media = probe(tmp_path / "out.webm")
    assert (result.encoder, output_media.codec, output_media.bit_depth) == ("libvpx-vp9", "vp9", 10)


@pytest.mark.parametrize("encoder", ["libvpx-vp9", "libsvtav1"])
def test_pipe_quality_and_preset_reach_encoder(encoder: str, clips: Clips, tmp_path: Path) -> None:
    skip_without_encoder(encoder)
    sizes = {}
    for quality in (5, 45):
        encode = EncodeOptions(encoder=encoder, preset="ultrafast", quality=quality)
        result = rendered(
            OverlayRequest, clips.get("25.mp4"), tmp_path / f"{quality}.webm", encode=encode, regions=()
        )
        sizes[quality] = result.bytes
    assert sizes[5] > 3 * sizes[45]
    with (
        pytest.raises(ConfigError, match="preset is 'p5'"),
        FramePipe(tmp_path / "out.webm", size=(64, 64), fps=25, encoder=encoder, preset="p5"),
    ):
        pass


def test_probe_file_without_video_is_named(clips: Clips, tmp_path: Path) -> None:
    """Cover art is mentioned only if the file has some."""
    with pytest.raises(InvalidMediaError, match="no video stream; ") as caught:
        probe(clips.get("audio_only.mp4"))
    assert "cover" not in str(caught.value)
    cover, song = tmp_path / "cover.png", tmp_path / "song.m4a"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=64x64", "-frames:v", "1", cover)
    sound = ("-f", "lavfi", "-i", "sine=duration=1")
    ffmpeg(*sound, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic", song)
    with pytest.raises(InvalidMediaError, match="no video stream except cover art"):
        probe(song)


def test_unsupported_container_hint_names_supported_ones(clips: Clips, tmp_path: Path) -> None:
    with pytest.raises(InvalidMediaError, match=r"GIF.* file \(playlists"):
        probe(clips.get("garbage.mp4"))
    moving = tmp_path / "moving.gif"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=1", moving)
    assert probe(moving).codec == "gif"


@pytest.mark.parametrize("edit", ["overlay", "graph", "framing", "trimmed", "slow", "upscaled"])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_avi_audio_stays_in_sync(edit: str, codec: str, tmp_path: Path) -> None:
    edits: dict[str, tuple[type[Any], dict[str, object]]] = {
        "overlay": (OverlayRequest, {"regions": ()}),
        "graph": (FramingRequest, {"output_size": (32, 24)}),
        "framing": (
            FramingRequest,
            {"output_size": (32, 24), "crop": crops((0, 0, 0, 64, 48), (9, 1e-9, 0, 64, 48))},
        ),
        "trimmed": (FramingRequest, {"output_size": (64, 48), "trim_start_seconds": Fraction("0.2")}),
        "slow": (FramingRequest, {"output_size": (64, 48), "segments": speeds((0, 1, 1), (1, 2, "0.5"), (2, 3, 1))}),
        "upscaled": (UpscaleRequest, {"scale": 2}),
    }
    source, output = tmp_path / "in.mov", tmp_path / "out.avi"
    ffmpeg("-i", make_beats(tmp_path / "beats.mp4", Fraction(25), seconds=3), "-c:v", "copy", "-c:a", codec, source)
    kind, fields = edits[edit]
    result = rendered(kind, source, output, **fields)
    offsets = [beep - float(flash) for beep, flash in zip(beeps(output), flashes(output), strict=True)]
    assert len(offsets) == 3
    assert abs(offsets[0]) < 0.002
    assert abs(offsets[2]) < 0.002
    assert ("sound_reencoded" in {note.code for note in result.degraded}) == (codec == "aac")
