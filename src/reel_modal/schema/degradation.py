"""Differences of an output from its request or its source: codes for programs, messages for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import choice, string

__all__ = ["DEGRADATION_CODES", "Degradation", "DegradationCode"]

DegradationCode: TypeAlias = Literal[
    "alpha_dropped",
    "attachment_dropped",
    "bit_depth_reduced",
    "captions_dropped",
    "channels_reduced",
    "chapters_dropped",
    "chroma_reduced",
    "cover_dropped",
    "crop_moved",
    "data_dropped",
    "deinterlaced",
    "encoder_unavailable",
    "frame_rate_changed",
    "gpu_unavailable",
    "hdr_metadata_dropped",
    "loudness_missed",
    "metadata_dropped",
    "metadata_stripped",
    "pictures_dropped",
    "pictures_fitted",
    "pictures_undecodable",
    "record_lost",
    "regions_not_drawn",
    "size_changed",
    "sound_dropped",
    "sound_reencoded",
    "sound_trimmed",
    "source_breaks_off",
    "subtitles_dropped",
    "timecode_dropped",
    "tone_mapped",
    "trim_shortened",
    "video_dropped",
]
"""Code of a `Degradation`. The meaning of a code does not change between versions."""

DEGRADATION_CODES: Final[Mapping[DegradationCode, str]] = {
    "alpha_dropped": "The source has transparency, the output has none.",
    "attachment_dropped": "An attachment, such as a font, is not in the output.",
    "bit_depth_reduced": "The output has fewer bits per sample than the source.",
    "captions_dropped": "Closed captions inside the frames are not in the output, or not in all of its frames.",
    "channels_reduced": "An audio stream has fewer channels than in the source.",
    "chapters_dropped": "The chapters are not in the output.",
    "chroma_reduced": "The output has less color detail than the source.",
    "cover_dropped": "A still image, such as cover art, is not in the output.",
    "crop_moved": "A crop extended beyond the frame and was moved inside.",
    "data_dropped": "A data stream, such as positions, is not in the output.",
    "deinterlaced": "The source is interlaced; it was deinterlaced.",
    "encoder_unavailable": "An encoder that was tried first does not start on the machine.",
    "frame_rate_changed": "A variable frame rate was resampled to a constant one.",
    "gpu_unavailable": "The CPU was used instead of a GPU.",
    "hdr_metadata_dropped": "The encoder does not write the mastering display and light levels of the source.",
    "loudness_missed": "The audio does not have the requested loudness, or its true peaks are too high.",
    "metadata_dropped": "Tags that should be kept are not supported by the container.",
    "metadata_stripped": "Tags were removed, because `encode.metadata` is `strip`.",
    "pictures_dropped": "The source has frames at a higher rate than the output; some of them were dropped.",
    "pictures_fitted": "Some frames have another size than the first one and were scaled to fit it.",
    "pictures_undecodable": "Some frames of the source do not decode; the message describes the replacement.",
    "record_lost": "The receipt of an existing output is missing, so its degradations are unknown.",
    "regions_not_drawn": "Regions start after the end of the clip and were not drawn.",
    "size_changed": "The frame size differs from the requested one.",
    "sound_dropped": "An audio stream is not in the output.",
    "sound_reencoded": "An audio stream was re-encoded: the container does not support it, or its times change.",
    "sound_trimmed": "Audio before the first frame or after the last frame is not in the output.",
    "source_breaks_off": "The source is truncated; the message states the missing part.",
    "subtitles_dropped": "Subtitles are not in the output.",
    "timecode_dropped": "The timecode is not in the output.",
    "tone_mapped": "The source is HDR; its frames were converted to SDR.",
    "trim_shortened": "A trim ends after the end of the clip.",
    "video_dropped": "Another video track of the source is not in the output.",
}
"""The meaning of each code."""

_CODE: Final[Kind[DegradationCode, DegradationCode]] = choice(DegradationCode)


@record
class Degradation(Record):
    """One difference of an output from the request or from the source.

    `str()` returns the message.

    Attributes:
        code: Type of the difference, for programs; see `DEGRADATION_CODES`.
        message: Sentence that describes the difference, with the numbers and names of this job.
    """

    _noun = "result"

    code: DegradationCode = declared(converter=_CODE, kw_only=False)
    message: str = declared(converter=string(lines=True), kw_only=False)

    def __str__(self) -> str:
        return self.message
