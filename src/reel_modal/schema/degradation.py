"""What of an output is not as asked or not as the source has it: codes that a program can act on, and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import choice, string

__all__ = ["DEGRADATION_CODES", "Degradation", "DegradationCode"]

DegradationCode: TypeAlias = Literal[
    "bit_depth_reduced",
    "channels_reduced",
    "chroma_reduced",
    "crop_moved",
    "deinterlaced",
    "encoder_unavailable",
    "frame_rate_changed",
    "gpu_unavailable",
    "hdr_metadata_dropped",
    "pictures_dropped",
    "pictures_fitted",
    "pictures_undecodable",
    "record_lost",
    "regions_not_drawn",
    "size_changed",
    "sound_reencoded",
    "stream_dropped",
    "tone_mapped",
    "trim_shortened",
]
"""A kind of `Degradation`; a code keeps its meaning from version to version."""

DEGRADATION_CODES: Final[Mapping[DegradationCode, str]] = {
    "bit_depth_reduced": "A sample of the output has fewer bits than one of the source.",
    "channels_reduced": "A sound has fewer channels than in the source.",
    "chroma_reduced": "The output has less color resolution than the source.",
    "crop_moved": "A crop reached out of the frame and was moved inside.",
    "deinterlaced": "The source is interlaced; pictures were made of its fields.",
    "encoder_unavailable": "An encoder that was tried first does not start on the machine.",
    "frame_rate_changed": "A variable frame rate was resampled to a constant one.",
    "gpu_unavailable": "The CPU did the work of a GPU.",
    "hdr_metadata_dropped": "The encoder does not write what the source says of its mastering display and light.",
    "pictures_dropped": "Pictures come faster than the frames of the output; some are in none of them.",
    "pictures_fitted": "Some pictures have another size than the first and were fitted into it.",
    "pictures_undecodable": "Some pictures of the source do not decode; the message says what is shown instead.",
    "record_lost": "The record of an existing output is gone, and with it the list of what is not as asked.",
    "regions_not_drawn": "Regions start after the end of the clip.",
    "size_changed": "The picture has another size than was asked for.",
    "sound_reencoded": "A sound was encoded again, since the container does not take it as it is.",
    "stream_dropped": "A stream of the source is not in the output.",
    "tone_mapped": "The source is HDR; SDR was made of its pictures.",
    "trim_shortened": "A trim ends after the end of the clip.",
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
