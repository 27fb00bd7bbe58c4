"""Expected phases of a job by a cost model, corrected by finished jobs of this function, and of others.

Pure arithmetic. Jobs of the function on the same GPU replace the level of the model. Without any, jobs on other GPUs
or of other functions correct it, also by the ratios between GPUs that these have shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from reel_modal._progress.plan import DEFAULT_SPREAD, LONGEST_SECONDS, WorkPhase
from reel_modal._progress.timing_model import (
    LOCAL,
    TRANSFERS,
    Estimate,
    JobModel,
    JobTiming,
    fit_line,
    spread_of,
)

__all__ = ["modelled_work"]

_REQUEST_SECONDS: Final = 1.0
_BYTES_PER_SECOND: Final = 50e6
"""Assumed speed of a store on the network before any transfer was measured; the same for both directions."""

_SMALL_MEGABYTES: Final = 4.0
"""Smaller transfers tell the time of the requests, not the bandwidth."""

_CHECK_SECONDS: Final = 0.02
_CHECK_FRAME_SECONDS: Final = 2.6e-5
"""Check of the output before any was measured: 0.07 s for 2,700 frames (2026-11-25, benchmarks/RESULTS.md)."""

_ENOUGH_FOR_LINE: Final = 6
_INDIRECT: Final = 0.5
"""Weight of a correction by another function, or by this machine for a container: it is as likely to be special to
these as to apply here."""

_SHORTEST_SECONDS: Final = 0.001
_MEGA: Final = 1e6

Kind = tuple[str, str]
"""Function and GPU."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """Factor of the model's time, as a logarithm, and the jobs that suggest it."""

    log_factor: float = 0.0
    basis: str = ""


def modelled_work(
    model: JobModel, function: str, gpu: str, frames: int, timings: Sequence[JobTiming]
) -> tuple[Estimate, str]:
    """Return the expected phases of a job, and the jobs by which its model was corrected, as text.

    Args:
        model: Expectation of the cost model.
        function: Name of the function.
        gpu: For example, `T4`; `cpu` for a container without a GPU, `local` for this machine.
        frames: Number of frames that it will render.
        timings: Finished jobs of all functions on all GPUs that have a model, newest first.
    """
    own = [timing for timing in timings if (timing.function, timing.gpu) == (function, gpu)]
    basis = ""
    if own:
        seconds, spread = _measured(model, own)
    else:
        correction = _correction(function, gpu, timings)
        seconds, spread = model.render_seconds * math.exp(correction.log_factor), model.spread
        basis = correction.basis
    seconds = min(max(seconds, _SHORTEST_SECONDS), LONGEST_SECONDS / 4)
    near = [timing for timing in timings if (timing.gpu == LOCAL) is (gpu == LOCAL)]
    transfers = {name: _transfer(name, model, near) for name in TRANSFERS}
    work = (
        WorkPhase("fetch", transfers["fetch"]),
        *_rendering(seconds, frames, own),
        WorkPhase("publish", transfers["publish"]),
    )
    total = sum(phase.seconds for phase in work)
    std = math.hypot(seconds * spread, *(each * DEFAULT_SPREAD for each in transfers.values()))
    return Estimate(work, std / total, len(own), len(own)), basis


def _measured(model: JobModel, own: Sequence[JobTiming]) -> tuple[float, float]:
    """Return the time and its spread, from jobs of the function on this GPU."""
    points = [(expected, timing.rendering_seconds) for timing in own if (expected := _modelled(timing)) > 0]
    if len(points) < _ENOUGH_FOR_LINE:
        factor = median([actual / expected for expected, actual in points])
        ratios = [actual / (factor * expected) for expected, actual in points]
        return factor * model.render_seconds, spread_of(ratios)
    line = fit_line(points)
    return line.at(model.render_seconds), spread_of([actual / line.at(expected) for expected, actual in points])


def _rendering(seconds: float, frames: int, own: Sequence[JobTiming]) -> list[WorkPhase]:
    """Split the time of the work into its phases, by their shares in finished jobs."""
    spent: dict[str, float] = defaultdict(float)
    for timing in own:
        for name, each in timing.seconds_by_phase.items():
            if name not in TRANSFERS:
                spent[name] += each
    if (total := sum(spent.values())) > 0:
        return [WorkPhase(name, seconds * each / total) for name, each in spent.items()]
    check = min(_CHECK_SECONDS + frames * _CHECK_FRAME_SECONDS, seconds / 2)
    return [WorkPhase("render", seconds - check), WorkPhase("verify", check)]


def _transfer(phase: str, model: JobModel, timings: Sequence[JobTiming]) -> float:
    """Return the expected seconds of a transfer: by the transfers with the same store, else at an assumed speed."""
    megabytes = _bytes(phase, model) / _MEGA
    points = [
        (_bytes(phase, timing.model) / _MEGA, timing.seconds_by_phase[phase])
        for timing in timings
        if timing.model is not None and timing.model.store == model.store and phase in timing.seconds_by_phase
    ]
    if not model.store:
        return median([seconds for _, seconds in points]) if points else 0.0
    small = [seconds for size, seconds in points if size < _SMALL_MEGABYTES]
    large = [(size, seconds) for size, seconds in points if size >= _SMALL_MEGABYTES]
    if not large:
        requests = median(small) if small else _REQUEST_SECONDS
        seconds = requests + megabytes * _MEGA / _BYTES_PER_SECOND
    else:
        # A transfer smaller than all measured ones takes as long: most of its time is that of the requests.
        seconds = fit_line(large).at(max(megabytes, min(size for size, _ in large)))
    return min(seconds, LONGEST_SECONDS / 4)


def _bytes(phase: str, model: JobModel) -> int:
    return model.bytes_in if phase == "fetch" else model.bytes_out


def _correction(function: str, gpu: str, timings: Iterable[JobTiming]) -> _Correction:
    """Return how far jobs of other GPUs, or of other functions, are from the model."""
    logs: dict[Kind, list[float]] = defaultdict(list)
    for timing in timings:
        if (expected := _modelled(timing)) > 0:
            logs[timing.function, timing.gpu].append(math.log(timing.rendering_seconds / expected))
    factors = {kind: median(values) for kind, values in logs.items()}
    elsewhere = [kind for kind in factors if kind[0] == function]
    if elsewhere:
        other = max(elsewhere, key=lambda kind: ((kind[1] == LOCAL) is (gpu == LOCAL), len(logs[kind])))
        ratios = _ratios(factors, gpu, other[1])
        if ratios:
            return _Correction(factors[other] + median(ratios), _basis(other, logs))
        weight = 1.0 if (other[1] == LOCAL) is (gpu == LOCAL) else _INDIRECT
        return _Correction(weight * factors[other], _basis(other, logs))
    here = [kind for kind in factors if kind[1] == gpu]
    if not here:
        return _Correction()
    return _Correction(
        _INDIRECT * median([factors[kind] for kind in here]),
        _basis(max(here, key=lambda kind: len(logs[kind])), logs),
    )


def _ratios(factors: Mapping[Kind, float], gpu: str, other: str) -> list[float]:
    """Return the measured ratios between two GPUs, relative to the model's, of the functions that ran on both."""
    functions = {name for name, place in factors if place == gpu}
    return [factors[name, gpu] - factors[name, other] for name in functions if (name, other) in factors]


def _basis(kind: Kind, logs: Mapping[Kind, Sequence[float]]) -> str:
    count = len(logs[kind])
    function, gpu = kind
    place = "this machine" if gpu == LOCAL else gpu
    return f"{count} {'job' if count == 1 else 'jobs'} of {function} on {place}"


def _modelled(timing: JobTiming) -> float:
    return 0.0 if timing.model is None else timing.model.render_seconds
