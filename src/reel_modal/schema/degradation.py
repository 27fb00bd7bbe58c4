"""What of an output is not as asked or not as the source has it: codes that a program can act on, and sentences."""

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
"""A kind of `Degradation`; a code keeps its meaning from version to version."""

DEGRADATION_CODES: Final[Mapping[DegradationCode, str]] = {
    "alpha_dropped": "The output is not transparent where the source is.",
    "attachment_dropped": "An attachment, such as a font, is not in the output.",
    "bit_depth_reduced": "A sample of the output has fewer bits than one of the source.",
    "captions_dropped": "Closed captions within the pictures are not in the output, or not in all of its pictures.",
    "channels_reduced": "A sound has fewer channels than in the source.",
    "chapters_dropped": "The chapters are not in the output.",
    "chroma_reduced": "The output has less color detail than the source.",
    "cover_dropped": "A still picture beside the clip, such as cover art, is not in the output.",
    "crop_moved": "A crop reached out of the frame and was moved inside.",
    "data_dropped": "A stream of data, such as positions, is not in the output.",
    "deinterlaced": "The source is interlaced; pictures were made of its fields.",
    "encoder_unavailable": "An encoder that was tried first does not start on the machine.",
    "frame_rate_changed": "A variable frame rate was resampled to a constant one.",
    "gpu_unavailable": "The CPU did the work of a GPU.",
    "hdr_metadata_dropped": "The encoder does not write what the source says of its mastering display and light.",
    "metadata_dropped": "Tags that were to be kept have no place in the container.",
    "metadata_stripped": "Tags were removed, since `encode.metadata` is `strip`.",
    "pictures_dropped": "Pictures come faster than the frames of the output; some are in none of them.",
    "pictures_fitted": "Some pictures have another size than the first and were fitted into it.",
    "pictures_undecodable": "Some pictures of the source do not decode; the message says what is shown instead.",
    "record_lost": "The record of an existing output is gone, and with it the list of what is not as asked.",
    "regions_not_drawn": "Regions start after the end of the clip.",
    "size_changed": "The picture has another size than was asked for.",
    "sound_dropped": "A sound is not in the output.",
    "sound_reencoded": "A sound was encoded again: the container does not take it as it is, or its times change.",
    "sound_trimmed": "Sound before the first picture or after the last one is not in the output.",
    "source_breaks_off": "The source ends before its headers say so; the message says how much is not in it.",
    "subtitles_dropped": "Subtitles are not in the output.",
    "timecode_dropped": "The timecode is not in the output.",
    "tone_mapped": "The source is HDR; SDR was made of its pictures.",
    "trim_shortened": "A trim ends after the end of the clip.",
    "video_dropped": "Another video track of the source is not in the output.",
}
"""The meaning of each code."""

_CODE: Final[Kind[DegradationCode, DegradationCode]] = choice(DegradationCode)


@record
class Degradation(Record):
    """One thing that is not as asked, or not as the source has it.

    `str()` of it is its message.

    Attributes:
        code: What kind of thing, for programs; see `DEGRADATION_CODES`.
        message: The same in a sentence with the numbers and names of this job, for people.
    """

    _noun = "result"

    code: DegradationCode = declared(converter=_CODE, kw_only=False)
    message: str = declared(converter=string(lines=True), kw_only=False)

    def __str__(self) -> str:
        return self.message
