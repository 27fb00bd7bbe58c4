"""The plan of a job: its phases, their expected durations, and the uncertainty of these.

Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from reel_modal.errors import ConfigError

__all__ = [
    "DEFAULT_SPREAD",
    "LONGEST_SECONDS",
    "UNKNOWN_RELATIVE_STD",
    "Curve",
    "PlannedPhase",
    "ProgressPlan",
    "WorkPhase",
    "asymptotic",
    "expected_remaining",
    "linear_with_cap",
]

Curve: TypeAlias = Callable[[float, float, float], float]
"""(elapsed seconds, expected seconds above 0, relative spread) -> displayed share of the phase, 0 to 1."""

DEFAULT_SPREAD: Final = 0.5
"""Relative uncertainty of a duration that was not measured yet. Identical runs differed by a factor of 1.57."""

UNKNOWN_RELATIVE_STD: Final = 1.3
"""Relative uncertainty of an unknown job: published jobs of the same three functions took 11 to 310 s."""

_NARROWEST_SPREAD: Final = 0.05
_WIDEST_SPREAD: Final = 2.0
LONGEST_SECONDS: Final = 1e7
"""Longest accepted duration (about four months); a larger figure is a mistake."""
_LEAST_SPEED: Final = 1 / 300
"""Share of a phase each second: a percent in 5 s if the phase has 60 points. A slower bar seems to stand still."""

_STEADY_SHARE: Final = 0.5
"""Part of the remaining share that passes at this speed; then the curve slows down, since it must not arrive."""

_SHORTEST_SECONDS: Final = 1e-9
_NEARLY_ONE: Final = math.nextafter(1.0, 0.0)
_SENDING: Final = "Sending the video..."
_STARTING: Final = "Starting the renderer..."
_PROCESSING: Final = "Processing the video..."
_SAVING: Final = "Saving the result..."
_LIMIT_PERCENT: Final = 99.0
"""Highest percentage before the end if the plan sets no percentages: a bar rounds 99.5 to 100."""


def linear_with_cap(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Rise linearly to 95 % of the phase and stay there, as in the first apps on Modal."""
    del spread
    return min(elapsed_seconds / expected_seconds, 0.95)


def asymptotic(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Rise linearly at first, then more and more slowly, without ever stopping or reaching 1.

    The speed is (remaining share) / `expected_remaining`. Up to `expected / (1 + spread)` the curve is a line; after
    that, the remaining share falls as `elapsed_seconds ** (-1 / spread)`. Once that is slower than a 300th each
    second, the curve continues at this speed until half of the remaining share has passed: in a phase of 60 points,
    no whole percent stands for longer than 5 s. If nothing is known about the job, this part begins where the line
    ends. A phase that is expected to take 300 s or more has no such part.

    Example:
        >>> [round(asymptotic(seconds, 30, 0.5), 2) for seconds in (15, 30, 60, 300)]
        [0.5, 0.85, 0.97, 1.0]
    """
    expected_seconds = max(expected_seconds, _SHORTEST_SECONDS)
    knee = expected_seconds / (1 + spread)
    if elapsed_seconds <= knee:
        return elapsed_seconds / expected_seconds
    times_least = max(1 / (expected_seconds * _LEAST_SPEED), 1.0)
    slow = knee if spread >= UNKNOWN_RELATIVE_STD else knee * times_least ** (spread / (1 + spread))
    rest: float = spread / (1 + spread) * (knee / min(elapsed_seconds, slow)) ** (1 / spread)
    if elapsed_seconds > slow:
        steady = _STEADY_SHARE * rest / _LEAST_SPEED if times_least > 1 else 0.0
        rest -= _LEAST_SPEED * min(elapsed_seconds - slow, steady)
        rest *= min((slow + steady) / elapsed_seconds, 1.0) ** (1 / spread)
    return min(1 - rest, _NEARLY_ONE)


def expected_remaining(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Return the expected remaining seconds of work that should take `expected_seconds`, after `elapsed_seconds`.

    At least `spread` times the elapsed time is expected to remain: late work stays late.
    """
    return max(expected_seconds - elapsed_seconds, spread * elapsed_seconds)


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """One row of a plan.

    Attributes:
        name: For example, `startup`.
        start: Percentage at which it begins, 0 to 100.
        end: Percentage at which it ends, not below `start`.
        seconds: Expected duration; 0 for a row that is shown only once.
        message: Message for the person who waits.
        spread: Relative uncertainty of `seconds` (robust standard deviation / median).
    """

    name: str
    start: float
    end: float
    seconds: float
    message: str
    spread: float = DEFAULT_SPREAD

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 100:
            raise ConfigError(
                f"phase {self.name!r} runs from {self.start:g} to {self.end:g} %; it must run upwards from 0 to 100 %"
            )
        _check_seconds(f"phase {self.name!r}", self.seconds)
        if math.isnan(self.spread):
            raise ConfigError(f"the spread of phase {self.name!r} must be a number")
        object.__setattr__(self, "spread", min(max(self.spread, _NARROWEST_SPREAD), _WIDEST_SPREAD))


@dataclass(frozen=True, slots=True)
class WorkPhase:
    """One phase of a function's own work; its duration weights measured progress.

    Attributes:
        name: As in the function's events: `fetch`, `render`, `verify`, `publish`.
        seconds: Expected duration.
        message: Message for the person who waits.
    """

    name: str
    seconds: float
    message: str = ""

    def __post_init__(self) -> None:
        _check_seconds(f"work phase {self.name!r}", self.seconds)
        if not self.message:
            object.__setattr__(self, "message", _WORK_MESSAGES.get(self.name, f"{self.name.capitalize()}..."))


_WORK_MESSAGES: Final = {
    "fetch": "Fetching the video...",
    "render": "Rendering the video...",
    "verify": "Checking the result...",
    "publish": "Publishing the result...",
}
_WORK_SHARES: Final = {"fetch": 0.06, "render": 0.84, "verify": 0.02, "publish": 0.08}
"""Split of a function's time before any measurement; only measured progress uses it, and corrects it."""


@dataclass(frozen=True, slots=True)
class ProgressPlan:
    """Expected progress of a job.

    Attributes:
        phases: The rows up to the end of the work. All but the last one end on schedule; the last one, the work, ends
            when the work ends.
        saving: Row that is shown after the work, while the result is stored.
        complete_message: Message at 100 %.
        failed_message: Message of the `error` update if the error has no message for users.
        work: Parts of the last of `phases`, named as in the function's events.
        retry_format: Format of a message in a second attempt; `{message}` is the message.
        stall_format: Format of a message while no events arrive; `{seconds}` is the silence in seconds.
        source: Source of the expectation, as text.
        curve: Progress within the last of `phases`: `asymptotic`, or `linear_with_cap`, as in the first apps.
        whole_percents: Whether `at` rounds down to whole percents, as those apps did.

    Example:
        >>> [(phase.name, phase.end) for phase in ProgressPlan.default().phases]
        [('init', 5), ('startup', 30), ('processing', 90)]
    """

    phases: tuple[PlannedPhase, ...]
    saving: PlannedPhase
    work: tuple[WorkPhase, ...]
    complete_message: str = "Done."
    failed_message: str = "The job failed."
    retry_format: str = "Trying again: {message}"
    stall_format: str = "{message} (no update for {seconds} s)"
    source: str = "the caller's figures"
    curve: Curve = asymptotic
    whole_percents: bool = False

    def __post_init__(self) -> None:
        if not self.phases or self.phases[-1].seconds <= 0:
            raise ConfigError("a plan needs at least one phase, and the last one must take more than 0 s")
        highest = 0.0
        for phase in (*self.phases, self.saving):
            if phase.start < highest:
                raise ConfigError(
                    f"phase {phase.name!r} starts at {phase.start:g} %, below the end of the previous phase"
                    f" ({highest:g} %)"
                )
            highest = phase.end
        if self.limit >= 100 or self.saving.start >= 100:
            raise ConfigError("the work must end, and the saving start, below 100 %, which means a complete job")

    @classmethod
    def default(cls) -> ProgressPlan:
        """Return the plan of the first apps on Modal: 5 s of startup to 30 %, 30 s of work to 90 %."""
        return cls.from_benchmarks(startup_seconds=5.0, processing_seconds=30.0, spread=UNKNOWN_RELATIVE_STD)

    @classmethod
    def seed(cls) -> ProgressPlan:
        """Return the table of the first apps on Modal: their percentages at each moment, and their texts.

        5 % at first, 5 to 30 % in 5 s, then 30 s to 90 %, of which 95 % is reached at most (87 %), 95 % while the
        result is saved, 100. The percentages are whole, as those apps sent them every half second.

        Example:
            >>> ProgressPlan.seed().at(20.3)[1], ProgressPlan.seed().saving.message
            (60.0, 'Saving to library...')
        """
        plan = cls.default().with_messages(
            init="Sending to cloud GPU...",
            startup="Starting cloud GPU...",
            processing="Processing video on GPU...",
            saving="Saving to library...",
        )
        return replace(
            plan,
            complete_message="Export complete!",
            failed_message="Export failed.",
            curve=linear_with_cap,
            whole_percents=True,
        )

    @classmethod
    def from_benchmarks(
        cls, *, startup_seconds: float, processing_seconds: float, spread: float = DEFAULT_SPREAD
    ) -> ProgressPlan:
        """Return the default plan with these two durations instead of 5 s and 30 s.

        Args:
            startup_seconds: Time from the submission to the work.
            processing_seconds: Time of the work.
            spread: Relative uncertainty of the work; the larger it is, the earlier the asymptotic curve slows down.

        Raises:
            ConfigError: A figure is negative or too large, or the processing takes no time.
        """
        return cls(
            phases=(
                PlannedPhase("init", 5, 5, 0.0, _SENDING),
                PlannedPhase("startup", 5, 30, startup_seconds, _STARTING),
                PlannedPhase("processing", 30, 90, processing_seconds, _PROCESSING, spread),
            ),
            saving=PlannedPhase("saving", 95, 95, 0.0, _SAVING),
            work=tuple(WorkPhase(name, share * processing_seconds) for name, share in _WORK_SHARES.items()),
            source="the given benchmarks",
        )

    @classmethod
    def weighted(
        cls,
        *,
        startup_seconds: float,
        work: Sequence[WorkPhase],
        startup_spread: float = DEFAULT_SPREAD,
        work_spread: float = DEFAULT_SPREAD,
        source: str = "the caller's figures",
    ) -> ProgressPlan:
        """Return a plan whose percentages are shares of the expected time, so that the bar moves at constant speed.

        Args:
            startup_seconds: Time from the submission to the first line of the function.
            work: Phases of the function in their order.
            startup_spread: Relative uncertainty of the startup.
            work_spread: Relative uncertainty of the work.
            source: Source of the figures, as text.

        Raises:
            ConfigError: A figure is negative or too large, or the work takes no time.
        """
        work_seconds = sum(phase.seconds for phase in work)
        if work_seconds <= 0:
            raise ConfigError("the work of a plan must take more than 0 s")
        middle = _LIMIT_PERCENT * (startup_seconds / (startup_seconds + work_seconds))
        return cls(
            phases=(
                PlannedPhase("init", 0, 0, 0.0, _SENDING),
                PlannedPhase("startup", 0, middle, startup_seconds, _STARTING, startup_spread),
                PlannedPhase("processing", middle, _LIMIT_PERCENT, work_seconds, _PROCESSING, work_spread),
            ),
            saving=PlannedPhase("saving", _LIMIT_PERCENT, _LIMIT_PERCENT, 0.0, _SAVING),
            work=tuple(work),
            source=source,
        )

    @property
    def startup_seconds(self) -> float:
        """Expected time from the submission to the work."""
        return sum(phase.seconds for phase in self.phases[:-1])

    @property
    def processing_seconds(self) -> float:
        """Expected time of the work."""
        return self.phases[-1].seconds

    @property
    def limit(self) -> float:
        """Percentage that is not exceeded before the work is done."""
        return self.phases[-1].end

    def with_messages(self, **messages: str) -> ProgressPlan:
        """Return the plan with other messages, by phase name; for another language or tone.

        Raises:
            ConfigError: The plan has no phase with this name.

        Example:
            >>> ProgressPlan.default().with_messages(startup="Einen Moment...").phases[1].message
            'Einen Moment...'
        """
        known = {phase.name for phase in (*self.phases, self.saving)} | {phase.name for phase in self.work}
        if unknown := sorted(messages.keys() - known):
            raise ConfigError(f"the plan has no phase {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return replace(
            self,
            phases=tuple(replace(phase, message=messages.get(phase.name, phase.message)) for phase in self.phases),
            saving=replace(self.saving, message=messages.get(self.saving.name, self.saving.message)),
            work=tuple(replace(phase, message=messages.get(phase.name, phase.message)) for phase in self.work),
        )

    def at(self, elapsed_seconds: float, curve: Curve | None = None) -> tuple[PlannedPhase, float]:
        """Return the phase and the percentage that this plan expects after `elapsed_seconds`, 0 or more.

        `curve` replaces the plan's own one.
        """
        phase_start = 0.0
        for phase in self.phases[:-1]:
            in_phase = elapsed_seconds - phase_start
            if in_phase < phase.seconds:
                return phase, self._within(phase, in_phase / phase.seconds)
            phase_start += phase.seconds
        phase = self.phases[-1]
        share = (curve or self.curve)(max(elapsed_seconds - phase_start, 0.0), phase.seconds, phase.spread)
        return phase, self._within(phase, min(max(0.0, share), 1.0))

    def _within(self, phase: PlannedPhase, share: float) -> float:
        """Return the percentage at `share` of `phase`; rounding must not lift it above the end."""
        advanced = share * (phase.end - phase.start)
        if self.whole_percents:
            advanced = float(math.floor(advanced))  # before the sum, which may round up
        return min(phase.start + advanced, phase.end)


def _check_seconds(place: str, seconds: float) -> None:
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ConfigError(f"{place} is expected to take {seconds:g} s; it must be 0 to {LONGEST_SECONDS:g} s")
