"""What jobs really took, second by second: runs that were published, and made ones that vary as those did."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from reel_modal._progress.timing_model import published_work, units_of
from reel_modal.functions.catalog import all_functions
from reel_modal.progress import JobTiming, ProgressEvent

SHARES = {"fetch": 0.06, "render": 0.84, "verify": 0.02, "publish": 0.08}
HD, PORTRAIT, QHD = (1920, 1080), (810, 1440), (2560, 1440)
RATE_FACTOR = 1.57
"""Identical runs were seen that far apart."""

STARTUP_SECONDS = (0.5, 32.0)
_PIECES = 12
_UNEVEN = 1.3


@dataclass(frozen=True)
class JobTrace:
    """One job that ran.

    `pace` is the time that each of some equal shares of the frames took, relative to one another.
    """

    name: str
    function: str
    gpu: str
    size: tuple[int, int]
    frames: int
    startup_seconds: float
    seconds_by_phase: dict[str, float]
    pace: Sequence[float] = (1.0,)

    @property
    def seconds(self) -> float:
        """From the submission to the published output."""
        return self.startup_seconds + sum(self.seconds_by_phase.values())

    def timing(self) -> JobTiming:
        """What a history learns of it."""
        return JobTiming(
            function=self.function,
            gpu=self.gpu,
            size=self.size,
            frames=self.frames,
            startup_seconds=self.startup_seconds,
            seconds_by_phase=self.seconds_by_phase,
            cold=True,
        )

    def events(self, every_seconds: float) -> Iterator[tuple[float, ProgressEvent]]:
        """(seconds since the submission, event) at the function's first line and then each `every_seconds`."""
        work = self.seconds - self.startup_seconds
        for tick in range(math.ceil(work / every_seconds)):
            elapsed = tick * every_seconds
            phase, done, total = self._state(elapsed)
            yield self.startup_seconds + elapsed, ProgressEvent(phase, done, total, elapsed, tick + 1)

    def _state(self, elapsed: float) -> tuple[str, int, int | None]:
        begun = 0.0
        for phase, seconds in self.seconds_by_phase.items():
            if elapsed < begun + seconds:
                if phase != "render":
                    return phase, 0, None
                return phase, int(self.frames * self._share((elapsed - begun) / seconds)), self.frames
            begun += seconds
        return "publish", 1, None

    def _share(self, time_share: float) -> float:
        """The share of the frames that are done when `time_share` of the rendering's time is over."""
        ends = [0.0, *accumulate(self.pace)]
        now = time_share * ends[-1]
        piece = max(number for number, end in enumerate(ends[:-1]) if end <= now)
        return (piece + (now - ends[piece]) / self.pace[piece]) / len(self.pace)


def published() -> list[JobTrace]:
    """The runs whose times were published, each with each of the three published waits."""
    runs = [
        ("overlay, few frames", "render_overlay", "T4", HD, 2700, 47.6),
        ("overlay, all frames", "render_overlay", "T4", HD, 2700, 278.0),
        ("framing on T4", "process_framing", "T4", PORTRAIT, 180, 16.6),
        ("framing on CPU", "process_framing", "cpu", PORTRAIT, 180, 10.9),
        ("upscale, fastest", "apply_upscale", "T4", QHD, 180, 122.7),
        ("upscale, slowest", "apply_upscale", "T4", QHD, 180, 192.2),
        ("upscale, long", "apply_upscale", "T4", QHD, 449, 310.0),
    ]
    return [
        JobTrace(f"{name}, {wait:g} s", function, gpu, size, frames, wait, _split(seconds, SHARES))
        for name, function, gpu, size, frames, seconds in runs
        for wait in (5.5, 21.5, 31.8)
    ]


def made(count: int, seed: int) -> list[JobTrace]:
    """Jobs whose rates lie up to 1.57 times around the expectation, unevenly within, after starts of 0.5 to 32 s."""
    dice = random.Random(seed)
    return [_one(dice, number) for number in range(count)]


def _one(dice: random.Random, number: int) -> JobTrace:
    function, gpu, size, frames = dice.choice(
        [
            ("render_overlay", "T4", HD, dice.randint(150, 2700)),
            ("process_framing", "T4", PORTRAIT, dice.randint(90, 900)),
            ("apply_upscale", "T4", QHD, dice.randint(60, 450)),
        ]
    )
    expected = sum(
        phase.seconds for phase in published_work(all_functions()[function].published, gpu, size, frames).work
    )
    shares = {name: share * _around(dice, _UNEVEN) for name, share in SHARES.items()}
    return JobTrace(
        f"made {number}: {units_of(size, frames):.0f} units of {function}",
        function,
        gpu,
        size,
        frames,
        math.exp(dice.uniform(*map(math.log, STARTUP_SECONDS))),
        _split(expected * _around(dice, RATE_FACTOR), shares),
        [_around(dice, _UNEVEN) for _ in range(_PIECES)],
    )


def _around(dice: random.Random, factor: float) -> float:
    return math.exp(dice.uniform(-math.log(factor), math.log(factor)))


def _split(seconds: float, shares: dict[str, float]) -> dict[str, float]:
    return {name: seconds * share / sum(shares.values()) for name, share in shares.items()}
