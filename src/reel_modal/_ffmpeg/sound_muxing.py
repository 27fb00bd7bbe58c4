"""Add audio to a finished video by copying its packets."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from reel_modal._ffmpeg.audio import Sound
from reel_modal._ffmpeg.muxing import finishing_arguments, is_mp4_like
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal.media.open import COPIED, file_url

__all__ = ["add_sound", "muxing_arguments"]


def add_sound(
    video: Path,
    sound: Sound,
    target: Path,
    *,
    length_seconds: Fraction,
    metadata: Mapping[str, str],
    ffmpeg: str,
    stall_seconds: float,
    more: tuple[str, ...] = (),
) -> None:
    """Write `target`: the video stream of `video`, and `sound`.

    Args:
        video: The finished video.
        sound: The audio.
        target: Its suffix selects the container.
        length_seconds: Duration of the video.
        metadata: Tags of the file.
        ffmpeg: Path of the ffmpeg binary.
        stall_seconds: Longest time without any progress.
        more: Further options for the copied video.

    Raises:
        FFmpegError: ffmpeg failed or stalled.
    """
    # Matroska stores no decoding timestamps: ffmpeg estimates them after it has decoded some frames.
    skip_video = COPIED if is_mp4_like(video) else ()
    command = (
        *(ffmpeg, *QUIET, "-y", *skip_video, "-i", file_url(video)),
        *sound.input_arguments(length_seconds),
        *("-c:v", "copy", *more, *muxing_arguments(sound, target, length_seconds, metadata), file_url(target)),
    )
    process = FFmpegProcess(command, stall_seconds=stall_seconds)
    try:
        if process.finish(lambda: output_size(target)) != 0:
            raise process.error(f"the audio of {sound.name!r} could not be added")
    finally:
        process.kill()


def muxing_arguments(
    sound: Sound, target: Path, length_seconds: Fraction, metadata: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the output options for muxing video from the first input with `sound` from the second."""
    streams = ("-map", "0:v:0", *sound.output_arguments(target, length_seconds))
    alone = ("-map_metadata", "-1", "-map_chapters", "-1")
    return (*streams, *alone, *finishing_arguments(target, metadata))
