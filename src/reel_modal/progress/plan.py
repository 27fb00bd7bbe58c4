"""What is expected of a job before it starts: its phases, how long each will take, and how sure that is.

Pure arithmetic; it must know neither clocks nor events.
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
    "UNKNOWN_SPREAD",
    "Curve",
    "PlannedPhase",
    "ProgressPlan",
    "WorkPhase",
    "asymptotic",
    "expected_remaining",
    "linear_with_cap",
]

Curve: TypeAlias = Callable[[float, float, float], float]
"""(elapsed seconds, expected seconds above 0, relative spread) -> share of the phase that is shown, 0 to 1."""

DEFAULT_SPREAD: Final = 0.5
"""Of a duration that nobody measured yet. Identical runs were seen 1.57 times apart."""

UNKNOWN_SPREAD: Final = 1.3
"""Of a job that nobody knows anything of: published ones of the same three functions took 11 to 310 s."""

_NARROWEST_SPREAD: Final = 0.05
_WIDEST_SPREAD: Final = 2.0
LONGEST_SECONDS: Final = 1e7
"""Beyond this, four months, a figure is a mistake."""
_NEARLY_ONE: Final = math.nextafter(1.0, 0.0)
_LIMIT_PERCENT: Final = 99.0
"""The most that is shown before the end where the plan names no percents: a bar rounds 99.5 to 100."""


def linear_with_cap(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Run straight to 95 % of the phase and stand there: the curve of the first apps on Modal."""
    del spread
    return min(elapsed_seconds / expected_seconds, 0.95)


def asymptotic(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Run straight while the expectation holds, then ever slower: it never stands still and never arrives.

    The speed is always (what is left to show) / `expected_remaining`: up to `expected / (1 + spread)` that is a
    line, behind it the rest shrinks with the power 1 / spread of time.

    Example:
        >>> [round(asymptotic(seconds, 30, 0.5), 2) for seconds in (15, 30, 60, 300)]
        [0.5, 0.85, 0.96, 1.0]
    """
    knee = expected_seconds / (1 + spread)
    if elapsed_seconds <= knee:
        return elapsed_seconds / expected_seconds
    rest: float = spread / (1 + spread) * (knee / elapsed_seconds) ** (1 / spread)
    return min(1 - rest, _NEARLY_ONE)


def expected_remaining(elapsed_seconds: float, expected_seconds: float, spread: float) -> float:
    """Return how long something goes on that was expected to take `expected_seconds` and has taken `elapsed`.

    What is late stays late: past the expectation the rest grows with what has passed, by the spread.
    """
    return max(expected_seconds - elapsed_seconds, spread * elapsed_seconds)


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """One row of a plan.

    Attributes:
        name: Such as `startup`.
        start: Percent at which it begins, 0 to 100.
        end: Percent at which it ends, not below `start`.
        seconds: How long it will take; 0 for a row that is shown once.
        message: A sentence for the person who waits.
        spread: How uncertain `seconds` is, as a share of it (robust standard deviation / median).
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
                f"phase {self.name!r} runs from {self.start:g} to {self.end:g} %; 0 to 100 upwards is wanted"
            )
        _check_seconds(f"phase {self.name!r}", self.seconds)
        if math.isnan(self.spread):
            raise ConfigError(f"phase {self.name!r} has no number as its spread")
        object.__setattr__(self, "spread", min(max(self.spread, _NARROWEST_SPREAD), _WIDEST_SPREAD))


@dataclass(frozen=True, slots=True)
class WorkPhase:
    """One phase of a function's own work, by which measured progress is weighted.

    Attributes:
        name: As in the function's events: `fetch`, `render`, `verify`, `publish`.
        seconds: How long it will take.
        message: A sentence for the person who waits.
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
"""How a function's time is split before anybody measured it; only measured progress asks, and it corrects them."""


@dataclass(frozen=True, slots=True)
class ProgressPlan:
    """What is expected of a job.

    Attributes:
        phases: The rows up to the end of the work. All but the last pass on time; the last one, the work, ends when
            it ends.
        saving: Shown when the work is done and its result is being put away.
        complete_message: The sentence at 100 %.
        failed_message: The sentence of the `error` update where the error has none of its own.
        work: What the last of `phases` consists of, by the names in the function's events.
        retry_format: How a message is said in a second try; `{message}` is the message.
        stall_format: How it is said without news; `{seconds}` are the seconds of silence.
        source: Where the expectation comes from, in words.

    Example:
        >>> [(phase.name, phase.end) for phase in ProgressPlan.default().phases]
        [('init', 5), ('startup', 30), ('processing', 90)]
    """

    phases: tuple[PlannedPhase, ...]
    saving: PlannedPhase
    work: tuple[WorkPhase, ...]
    complete_message: str = "Export complete!"
    failed_message: str = "Export failed."
    retry_format: str = "Trying again: {message}"
    stall_format: str = "{message} (no news for {seconds} s)"
    source: str = "the caller's figures"

    def __post_init__(self) -> None:
        if not self.phases or self.phases[-1].seconds <= 0:
            raise ConfigError("a plan needs at least one phase, and the last one must take more than 0 s")
        highest = 0.0
        for phase in (*self.phases, self.saving):
            if phase.start < highest:
                raise ConfigError(
                    f"phase {phase.name!r} begins at {phase.start:g} %, below the {highest:g} % before it"
                )
            highest = phase.end
        if self.limit >= 100 or self.saving.start >= 100:
            raise ConfigError("the work must end, and the saving begin, below 100 %, which is for the complete job")

    @classmethod
    def default(cls) -> ProgressPlan:
        """Return the table of the first apps on Modal: 5 s of startup to 30 %, 30 s of work to 90 %."""
        return cls.from_benchmarks(startup_seconds=5.0, processing_seconds=30.0, spread=UNKNOWN_SPREAD)

    @classmethod
    def from_benchmarks(
        cls, *, startup_seconds: float, processing_seconds: float, spread: float = DEFAULT_SPREAD
    ) -> ProgressPlan:
        """Return the default table with these two benchmarks in place of 5 s and 30 s.

        Args:
            startup_seconds: From the submission to the work.
            processing_seconds: Of the work.
            spread: Relative uncertainty of the work; the wider, the earlier the asymptotic curve slows down.

        Raises:
            ConfigError: A figure is negative or beyond reason, or the processing takes no time.
        """
        return cls(
            phases=(
                PlannedPhase("init", 5, 5, 0.0, "Sending to cloud GPU..."),
                PlannedPhase("startup", 5, 30, startup_seconds, "Starting cloud GPU..."),
                PlannedPhase("processing", 30, 90, processing_seconds, "Processing video on GPU...", spread),
            ),
            saving=PlannedPhase("saving", 95, 95, 0.0, "Saving to library..."),
            work=tuple(WorkPhase(name, share * processing_seconds) for name, share in _WORK_SHARES.items()),
            source="the benchmarks that were given",
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
        """Return a plan whose percents are shares of the expected time, so that the bar runs at one speed.

        Args:
            startup_seconds: From the submission to the first line of the function.
            work: The function's phases in their order.
            startup_spread: Relative uncertainty of the startup.
            work_spread: Relative uncertainty of the work.
            source: Where the figures come from, in words.

        Raises:
            ConfigError: A figure is negative or beyond reason, or the work takes no time.
        """
        work_seconds = sum(phase.seconds for phase in work)
        if work_seconds <= 0:
            raise ConfigError("the work of a plan must take more than 0 s")
        middle = _LIMIT_PERCENT * (startup_seconds / (startup_seconds + work_seconds))
        return cls(
            phases=(
                PlannedPhase("init", 0, 0, 0.0, "Sending the video..."),
                PlannedPhase("startup", 0, middle, startup_seconds, "Starting the renderer...", startup_spread),
                PlannedPhase(
                    "processing", middle, _LIMIT_PERCENT, work_seconds, "Processing the video...", work_spread
                ),
            ),
            saving=PlannedPhase("saving", _LIMIT_PERCENT, _LIMIT_PERCENT, 0.0, "Saving the result..."),
            work=tuple(work),
            source=source,
        )

    @property
    def startup_seconds(self) -> float:
        """Expected seconds from the submission to the work."""
        return sum(phase.seconds for phase in self.phases[:-1])

    @property
    def processing_seconds(self) -> float:
        """Expected seconds of the work."""
        return self.phases[-1].seconds

    @property
    def limit(self) -> float:
        """Percent that is not passed before the work is done."""
        return self.phases[-1].end

    def with_messages(self, **messages: str) -> ProgressPlan:
        """Return the plan with other sentences, by phase name; for another language or tone.

        Raises:
            ConfigError: There is no such phase.

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

    def at(self, elapsed_seconds: float, curve: Curve = asymptotic) -> tuple[PlannedPhase, float]:
        """Return the phase and the percent that this plan expects after `elapsed_seconds`, 0 or more."""
        begun = 0.0
        for phase in self.phases[:-1]:
            inside = elapsed_seconds - begun
            if inside < phase.seconds:
                return phase, _within(phase, inside / phase.seconds)
            begun += phase.seconds
        phase = self.phases[-1]
        share = curve(max(elapsed_seconds - begun, 0.0), phase.seconds, phase.spread)
        return phase, _within(phase, min(max(0.0, share), 1.0))


def _within(phase: PlannedPhase, share: float) -> float:
    """Return the percent at `share` of `phase`, which rounding must not lift above its end."""
    return min(phase.start + (phase.end - phase.start) * share, phase.end)


def _check_seconds(what: str, seconds: float) -> None:
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ConfigError(f"{what} is expected to take {seconds:g} s; 0 to {LONGEST_SECONDS:g} s is wanted")
