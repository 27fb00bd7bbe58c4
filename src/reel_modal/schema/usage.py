"""What a job used, measured inside the function: its receipt.

Pure; it must not know how anything was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from reel_modal.parsing import Record, any_text, integer, number, text
from reel_modal.schema.reading import build

__all__ = ["Usage"]

_TEXTS = ("rates_dated", "package_version", "ffmpeg", "decoder_ffmpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a job used. Phases, frames, engine and encoder are in the result itself.

    Attributes:
        queue_seconds: From the submission until a process was there for the job, by the clocks of both machines; None
            where nobody said when it was submitted.
        startup_seconds: From the start of the process to the function; 0 where it had run a job before.
        seconds: Inside the function.
        bytes_in: Read from the store; a file that is read where it lies counts whole.
        bytes_out: Put into the store.
        peak_memory_bytes: Of this process and of the largest that it started, each at its peak: an upper bound of
            what they held together. A process that ran other jobs before may have had its peak then. 0 where the
            system does not say.
        gpu: Such as `T4`; None for none.
        gpu_seconds: Seconds for which the GPU was held, from the start of the process on; 0 without one.
        dollars: What the container cost in `startup_seconds` and `seconds`, by the rate table. Its own start before
            that, and its idle time afterwards, are not in it. 0 on this machine.
        rates_dated: Of when the rates are; empty on this machine.
        model: The network that made pixels; None for none.
        package_version: Of this package.
        ffmpeg: Version, build and origin of the ffmpeg that encoded, such as `n9.0.2-17-g2a571b6068 (build d4b9bbd1)
            from imageio-ffmpeg`. A hardware encoder may run in another one than the usual. Empty if packets were only
            copied.
        decoder_ffmpeg: The same of the ffmpeg that decoded on a GPU; empty if none did.
    """

    queue_seconds: float | None = None
    startup_seconds: float = 0.0
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    peak_memory_bytes: int = 0
    gpu: str | None = None
    gpu_seconds: float = 0.0
    dollars: float = 0.0
    rates_dated: str = ""
    model: str | None = None
    package_version: str = ""
    ffmpeg: str = ""
    decoder_ffmpeg: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the receipt for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a result; `path` is where it stands there."""
        record = Record(raw, path)
        usage = {
            **{name: record.take_or(0.0, number, name) for name in ("startup_seconds", "seconds", "gpu_seconds")},
            **{name: record.take_or(0, integer, name) for name in ("bytes_in", "bytes_out", "peak_memory_bytes")},
            **{name: record.take_or(None, text, name) for name in ("gpu", "model")},
            **{name: record.take_or("", any_text, name) for name in _TEXTS},
            "queue_seconds": record.take_or(None, number, "queue_seconds"),
            "dollars": record.take_or(0.0, number, "dollars"),
        }
        record.finish()
        return build(cls, path, usage)
