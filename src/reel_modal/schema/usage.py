"""What a job used, measured inside the function: its receipt."""

from __future__ import annotations

from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import integer, number, optional, string

__all__ = ["Usage"]


@record
class Usage(Record):
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

    _noun = "result"

    queue_seconds: float | None = declared(converter=optional(number()), default=None)
    startup_seconds: float = declared(converter=number(), default=0.0)
    seconds: float = declared(converter=number(), default=0.0)
    bytes_in: int = declared(converter=integer(), default=0)
    bytes_out: int = declared(converter=integer(), default=0)
    peak_memory_bytes: int = declared(converter=integer(), default=0)
    gpu: str | None = declared(converter=optional(string()), default=None)
    gpu_seconds: float = declared(converter=number(), default=0.0)
    dollars: float = declared(converter=number(), default=0.0)
    rates_dated: str = declared(converter=string(empty=True), default="")
    model: str | None = declared(converter=optional(string()), default=None)
    package_version: str = declared(converter=string(empty=True), default="")
    ffmpeg: str = declared(converter=string(empty=True), default="")
    decoder_ffmpeg: str = declared(converter=string(empty=True), default="")
