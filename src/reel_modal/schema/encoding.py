"""How an output is encoded: the part that every request has.

Pure; it must not know which encoders there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from reel_modal.bounds import not_empty, within
from reel_modal.parsing import Record, integer, text, truth
from reel_modal.schema.reading import build

__all__ = ["ENCODER_THREADS", "MOST_THREADS", "EncodeOptions"]

ENCODER_THREADS: Final = 4
"""How many threads encode unless a request gives another number: as many as the cores that each function reserves."""

MOST_THREADS: Final = 64
"""Modal reserves at most this many cores for a container."""

_WORST_QUALITY: Final = 51


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How the output is encoded.

    Attributes:
        encoder: `auto` (NVENC where it starts, else libx264) or ffmpeg's name of one.
        quality: 0 (best) to 51; x264's crf or NVENC's cq.
        preset: x264's word for speed against size, `ultrafast` to `veryslow`.
        smart: Whether what does not change is copied from the source, bit for bit, where that is possible.
        threads: Threads of the encoder, 1 to 64. x264 writes other bytes for another number, so it is part of the
            request and never depends on the machine.
    """

    encoder: str = "auto"
    quality: int = 23
    preset: str = "fast"
    smart: bool = True
    threads: int = ENCODER_THREADS

    def __post_init__(self) -> None:
        not_empty("encoder", self.encoder)
        within("quality", self.quality, 0, _WORST_QUALITY)
        not_empty("preset", self.preset)
        within("threads", self.threads, 1, MOST_THREADS)

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        encode = {
            "encoder": record.take_or("auto", text, "encoder"),
            "quality": record.take_or(23, integer, "quality", "crf"),
            "preset": record.take_or("fast", text, "preset"),
            "smart": record.take_or(True, truth, "smart"),  # noqa: FBT003
            "threads": record.take_or(ENCODER_THREADS, integer, "threads"),
        }
        record.finish()
        return build(cls, path, encode)

    def to_dict(self) -> dict[str, object]:
        """Return the options for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}
