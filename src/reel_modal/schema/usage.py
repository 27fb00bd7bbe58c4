"""Resource usage of a job, measured inside the function."""

from __future__ import annotations

from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import integer, number, optional, string

__all__ = ["Usage"]


@record
class Usage(Record):
    """Resource usage of a job. Phases, frames, engine and encoder are in the result itself.

    Attributes:
        queue_seconds: Seconds from the submission until a process was available, by the clocks of both machines; None
            if the time of submission is unknown.
        startup_seconds: Seconds from the start of the process to the function; 0 if the process ran a job before.
        seconds: Seconds inside the function.
        bytes_in: Bytes read from the store. A file that is read in place counts in full.
        bytes_out: Bytes written to the store.
        peak_memory_bytes: Peak memory of this process plus that of its largest child process: an upper bound of their
            joint peak. An earlier job of the same process may have caused the peak. 0 if the system does not report
            it.
        gpu: GPU type, such as `T4`; None without a GPU.
        gpu_seconds: Seconds for which the GPU was held: `startup_seconds` + `seconds`; 0 without a GPU.
        dollars: Cost of the container in US dollars for `startup_seconds` and `seconds`, by the rate table. The
            container's start before that and its idle time afterwards are not included. 0 for local jobs.
        rates_dated: Date of the rate table; empty for local jobs.
        model: Name of the neural network that computed pixels; None if there was none.
        package_version: Version of this package.
        ffmpeg: Version, build and origin of the ffmpeg that encoded, such as `n9.0.2-17-g2a571b6068 (build d4b9bbd1)
            from imageio-ffmpeg`. A hardware encoder may need another ffmpeg than usual. Empty if packets were only
            copied.
        decoder_ffmpeg: The same for the ffmpeg that decoded on a GPU; empty if none did.
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
