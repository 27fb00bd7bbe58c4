"""Expectation of a job's time by a cost model: the work of its frames on its machine, and its transfers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from reel_modal._costs.devices import Device
from reel_modal._costs.effort import Expectation
from reel_modal._jobs.worker_rows import longest_load
from reel_modal._progress.timing_model import JobModel, units_of
from reel_modal._segments import segment_grid
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.declaration import Work
from reel_modal.functions.inputs import each_clip
from reel_modal.functions.segment_processes import segments_at_once
from reel_modal.functions.specs import FunctionSpec
from reel_modal.media import MediaInfo
from reel_modal.schema.requests import Request, VideoRequest
from reel_modal.settings import Settings

__all__ = ["ModelledJob"]

_BYTES_PER_PIXEL: Final = 8e6 / 8 / (30 * 1920 * 1080)
"""The 8 Mbit/s that video platforms recommend for 1080p30."""

_PUBLISHED_SPREAD: Final = 0.8
_SHORTEST_SECONDS: Final = 0.001
_MEGA: Final = 1e6
_GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class ModelledJob:
    """A job whose time on any machine follows from a cost model.

    Attributes:
        function: The function.
        payload: The request's `to_dict()`.
        by_x264: Whether the request names x264, so that a machine with a GPU encodes by it as well.
        work: Its frames.
        store: Store whose bandwidth is learned; empty if files are read in place.
        bytes_in: Bytes of the input.
        bytes_out: Expected bytes of the output.
    """

    function: AnyFunction
    payload: Mapping[str, object]
    by_x264: bool
    work: Work
    store: str
    bytes_in: int
    bytes_out: int

    @classmethod
    def of(
        cls,
        function: AnyFunction,
        request: Request[Any],
        work: Work,
        media: MediaInfo | Sequence[MediaInfo],
        settings: Settings,
    ) -> ModelledJob:
        """Return the job of `request`, in the form in which it is submitted: `work` on the clips `media`."""
        by_x264 = isinstance(request, VideoRequest) and request.encode.encoder == "libx264"
        clips = {each.path: each for each in each_clip(media)}.values()
        frames = sum(clip.expected_frames or work.frames for clip in clips)
        stored = sum(_stored_bytes(clip) or _usual_bytes(clip, work.frames) for clip in clips)
        rendered = work.rendered
        copied = stored * (work.frames - rendered) / max(frames, 1)
        made = rendered * work.size[0] * work.size[1] * _BYTES_PER_PIXEL
        return cls(function, request.to_dict(), by_x264, work, _store_of(settings), stored, int(copied + made))

    def on(
        self, spec: FunctionSpec | None, settings: Settings, *, frames: int | None = None, worker: bool = False
    ) -> JobModel | None:
        """Return the expectation on one machine; None if nothing is known about the function.

        Args:
            spec: Resources of its container; None is this machine.
            settings: Settings of this machine.
            frames: Number of rendered frames; default those of the job.
            worker: Whether it is one of several machines, whose cores are all in use while it renders segments.
        """
        speed_up = 1.0 if spec is None else float(self.at_once(spec)) if worker else self._speed_up(spec)
        expected = self._expected(spec, settings, frames, speed_up)
        if expected is None:
            return None
        return JobModel(
            render_seconds=max(expected.seconds, _SHORTEST_SECONDS),
            spread=expected.spread,
            store=self.store,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def reasons(self, spec: FunctionSpec | None, settings: Settings) -> dict[str, str]:
        """Return what determines the time of each phase, as text."""
        work, expected = self.work, self._expected(spec, settings, None, 1.0)
        count = str(work.frames) if work.rendered == work.frames else f"{work.rendered} of {work.frames}"
        frames = f"{count} frames of {work.size[0]} x {work.size[1]}"
        return {
            "render": f"{frames}, {expected.why}" if expected is not None and expected.why else frames,
            "fetch": f"{_size(self.bytes_in)} from {self.store}" if self.store else "files are read in place",
            "publish": f"about {_size(self.bytes_out)} to {self.store}" if self.store else "",
        }

    def at_once(self, spec: FunctionSpec) -> int:
        """Return the number of segments that a container renders at once, if the output is rendered in segments."""
        return segments_at_once(self.function, self.payload, spec.cpu) if self.work.in_segments else 1

    def _speed_up(self, spec: FunctionSpec) -> float:
        """Return how many times as fast one container is that renders several segments of the output at once."""
        at_once, work, segments = self.at_once(spec), self.work, self.function.segments
        if segments is None or at_once == 1 or (spec.gpu and not self.by_x264):
            return 1.0  # NVENC's segments cannot be joined
        grid = segment_grid(work.frames, work.fps, segments.seconds)
        return work.frames / longest_load([segment.frames for segment in grid], at_once)

    def _expected(
        self, spec: FunctionSpec | None, settings: Settings, frames: int | None, speed_up: float
    ) -> Expectation | None:
        work, published = self.work, self.function.published
        rendered = work.rendered if frames is None else frames
        if work.effort is not None:
            effort = work.effort if frames is None else replace(work.effort, frames=frames)
            device = _device(spec, settings, on_gpu=effort.gpu_seconds > 0)
            return effort.on(device, here=spec is None, at_once=speed_up)
        line = None if published is None else published.line("cpu" if spec is None or not spec.gpu else spec.gpu[0])
        if line is None:
            return None
        line = replace(line, seconds_per_unit=line.seconds_per_unit / speed_up)
        return Expectation(line.at(units_of(work.size, max(1, rendered))), _PUBLISHED_SPREAD, "")


def _device(spec: FunctionSpec | None, settings: Settings, *, on_gpu: bool) -> Device:
    if spec is None:
        return Device(settings.cores, "a GPU of this machine" if on_gpu else None)
    return Device(spec.cpu, next(iter(spec.gpu), None))


def _usual_bytes(media: MediaInfo, frames: int) -> int:
    """Return the size of a clip whose file is not known, by the number of its frames or else by `frames`."""
    return int((media.expected_frames or frames) * media.size[0] * media.size[1] * _BYTES_PER_PIXEL)


def _stored_bytes(media: MediaInfo) -> int:
    """Return the size of the clip, also of one in a store, which has a sparse file; 0 if it has none here."""
    try:
        return media.path.stat().st_size
    except OSError:
        return 0


def _store_of(settings: Settings) -> str:
    """Return the scheme and the bucket of the store; empty if its files are read in place."""
    if settings.store_url is None:
        return "the store" if settings.modal_enabled else ""
    parts = urlsplit(settings.store_url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme == "s3" else ""


def _size(count: int) -> str:
    return f"{count / _GIGA:.1f} GB" if count >= _GIGA else f"{count / _MEGA:.1f} MB"
