"""Record the durations of finished jobs, and plan the next job from them.

One SQLite file, shared by all processes of a user. If the file cannot be used, no job fails: plans use published
figures, and a warning is logged.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

from reel_modal._progress.cost_fit import modelled_work
from reel_modal._progress.plan import ProgressPlan
from reel_modal._progress.timing_model import (
    LOCAL,
    Estimate,
    JobModel,
    JobTiming,
    PublishedTimings,
    StartupEstimate,
    check_work,
    line_of,
    published_startup,
    published_work,
    spread_around,
    spread_of,
    typical_published_work,
    typical_work,
    units_of,
    work_from,
)
from reel_modal.errors import ConfigError, ReelModalError
from reel_modal.schema import RenderResult

__all__ = ["JobTiming", "TimingHistory", "TimingSummary"]

_log = logging.getLogger(__name__)

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        finished_at REAL NOT NULL,
        function TEXT NOT NULL,
        gpu TEXT NOT NULL,
        width_px INTEGER NOT NULL,
        height_px INTEGER NOT NULL,
        frames INTEGER NOT NULL,
        cold INTEGER NOT NULL,
        startup_seconds REAL NOT NULL,
        seconds_by_phase TEXT NOT NULL
    );
    CREATE INDEX jobs_by_kind ON jobs (function, gpu, id);
"""
# Columns that were added later. Older versions of this package read and write the file without them.
_ADDED_COLUMNS: Final = {
    "model_seconds": "REAL",
    "store": "TEXT",
    "bytes_in": "INTEGER",
    "bytes_out": "INTEGER",
}
_READ: Final = (
    "SELECT function, gpu, width_px, height_px, frames, cold, startup_seconds, seconds_by_phase, finished_at,"
    " model_seconds, store, bytes_in, bytes_out FROM jobs"
)
_OFF: Final = "off"
_KEPT_JOBS: Final = 200
"""Jobs kept for each function and GPU; older ones say little about today's code."""

_USED_JOBS: Final = 50
_COMPARED_JOBS: Final = 500
"""Newest jobs of all functions that correct the cost model of one job."""

_EXAMPLE_FRAMES: Final = 900
_LOCK_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 0.02
_WARM_SECONDS: Final = 60.0
"""How long Modal keeps an idle container if a function does not set another time."""


@dataclass(frozen=True, slots=True)
class TimingSummary:
    """Summary of the recorded jobs of one function on one GPU.

    Attributes:
        function: Name of the function.
        gpu: For example, `T4`; `cpu` for containers without a GPU, `local` for this machine.
        jobs: Number of recorded jobs.
        cold_startup: Startup of jobs that had to wait for a container; None if there were no such jobs.
        warm_startup: Startup of the other jobs; None if there were no such jobs.
        fixed_seconds: Time that every job takes, however short it is.
        seconds_per_megapixel: Additional time for each megapixel of each frame.
        seconds_per_frame: Median over the jobs, for all frame sizes.
        sizes: (width, height) of the recorded frames, the most frequent first.
        spread: Relative deviation of the jobs from these figures.
        last_finished_at: Unix time at which the last job finished.
    """

    function: str
    gpu: str
    jobs: int
    cold_startup: StartupEstimate | None
    warm_startup: StartupEstimate | None
    fixed_seconds: float
    seconds_per_megapixel: float
    seconds_per_frame: float
    sizes: tuple[tuple[int, int], ...]
    spread: float
    last_finished_at: float

    def to_dict(self) -> dict[str, object]:
        """Return the summary as a JSON-ready dict."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the summary as a few lines of text."""
        last = datetime.fromtimestamp(self.last_finished_at, UTC)
        kind, jobs = f"{self.function} on {_place(self.gpu)}", _count(self.jobs)
        lines = [f"{kind}: {jobs}, the last one on {last:%Y-%m-%d at %H:%M} UTC"]
        for name, start in (("cold", self.cold_startup), ("warm", self.warm_startup)):
            if start is not None:
                spread = f", plus or minus {start.spread:.0%}" if start.seconds > 0 else ""
                lines.append(f"  {name} start: {start.seconds:.1f} s{spread}, from {_count(start.jobs)}")
        rate = f"{1000 * self.seconds_per_megapixel:.2f} ms per megapixel of each frame"
        lines.append(f"  work: {self.fixed_seconds:.1f} s, and {rate}, plus or minus {self.spread:.0%}")
        width, height = self.sizes[0]
        seconds = self.fixed_seconds + self.seconds_per_megapixel * units_of((width, height), _EXAMPLE_FRAMES)
        example = f"{_EXAMPLE_FRAMES} frames of {width} x {height}"
        lines.append(f"  example: {example} take {seconds:.1f} s ({_EXAMPLE_FRAMES / seconds:.1f} fps)")
        return "\n".join(lines)


class TimingHistory:
    """Durations of finished jobs, by function, GPU and frame size.

    Safe with any number of processes and threads at once. Each call opens the file and takes about a millisecond;
    on an event loop, use `asyncio.to_thread`.

    Args:
        path: The file; default REEL_MODAL_TIMINGS, then `timings.sqlite3` in the user's data directory. It is created
            when the first job is recorded. `off`, here or in the variable, disables reading and writing.
        warm_seconds: How long a container waits for the next job. A job after a shorter pause counts as warm.
        env: Source of REEL_MODAL_TIMINGS; default this process's environment.
        wall_clock: Returns Unix time.

    Example:
        >>> history = TimingHistory("timings.sqlite3")
        >>> history.plan("make_thumbnail", gpu="T4", size=(1920, 1080), frames=900).source
        'published figures: no finished job of make_thumbnail on T4 is recorded yet'
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        warm_seconds: float = _WARM_SECONDS,
        env: Mapping[str, str] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.path: Path | None = _path(path, os.environ if env is None else env)
        self._warm_seconds = warm_seconds
        self._wall_clock = wall_clock

    def learn(
        self,
        result: RenderResult,
        *,
        gpu: str,
        startup_seconds: float,
        cold: bool | None = None,
        model: JobModel | None = None,
    ) -> None:
        """Record the job of `result`, unless all its frames were copied or a figure makes no sense.

        Args:
            result: Result of the job.
            gpu: For example, `T4`; `cpu` for a container without a GPU, `local` for this machine.
            startup_seconds: Time from the submission to the first line of the function.
            cold: Whether a container or process had to be started for it; if None, the pause before the job decides.
            model: Expectation of the cost model for this job, with its measured bytes.
        """
        if 0 < result.frames == result.frames_copied:
            return
        try:
            timing = JobTiming.of(result, gpu=gpu, startup_seconds=startup_seconds, cold=cold, model=model)
        except ConfigError as error:
            _log.warning("the timing of job %s was not stored: %s", result.job_id, error)
            return
        self.record(timing)

    def record(self, timing: JobTiming) -> None:
        """Record a job that has just finished; if the file cannot be written, log a warning."""
        if self.path is None:
            return
        now = self._wall_clock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connection() as connection, _transaction(connection):
                cold = self._was_cold(connection, timing, now) if timing.cold is None else timing.cold
                connection.execute(
                    "INSERT INTO jobs (finished_at, function, gpu, width_px, height_px, frames, cold,"
                    " startup_seconds, seconds_by_phase, model_seconds, store, bytes_in, bytes_out)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        now,
                        timing.function,
                        timing.gpu,
                        *timing.size,
                        timing.frames,
                        cold,
                        timing.startup_seconds,
                        json.dumps(dict(timing.seconds_by_phase)),
                        *_model_columns(timing.model),
                    ),
                )
                connection.execute(
                    "DELETE FROM jobs WHERE function = ? AND gpu = ? AND id <= (SELECT id FROM jobs"
                    " WHERE function = ? AND gpu = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (timing.function, timing.gpu, timing.function, timing.gpu, _KEPT_JOBS),
                )
        except _UNUSABLE as error:
            _log.warning("the timing of a job was not stored in %s: %s", self.path, error)

    def plan(
        self,
        function: str,
        *,
        gpu: str,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        cold: bool | None = None,
        published: PublishedTimings | None = None,
        model: JobModel | None = None,
    ) -> ProgressPlan:
        """Return the plan of the next job; its `source` describes the basis as text.

        Args:
            function: Name of the function.
            gpu: For example, `T4`; `cpu` for a container without a GPU, `local` for this machine.
            size: (width, height) of its frames in pixels.
            frames: Number of frames that it will render. If `size` or `frames` is None, a typical job is expected.
            cold: Whether a container has to be started; if None, the pause since the last job decides.
            published: Timings to use before any job has finished; default those of the default plan.
            model: Expectation of a cost model for this job, which finished jobs of any function correct. It is used
                instead of `published`, and if finished jobs have one as well, instead of their sizes.

        Raises:
            ConfigError: The size or the number of frames is not above 0.
        """
        work_size = None if size is None or frames is None else (size, frames)
        if work_size is not None:
            check_work(*work_size)
        timings: list[JobTiming] = []
        compared: list[JobTiming] = []
        last = None
        try:
            timings, last = self._read(function, gpu)
            compared = [] if model is None else self._with_model()
        except _UNUSABLE as error:
            _log.warning("timings cannot be read from %s, so published figures are used: %s", self.path, error)
        if cold is None:
            cold = last is None or abs(self._wall_clock() - last) > self._warm_seconds
        startup = _startup_of(timings, cold=cold) or published_startup(gpu, cold=cold)
        basis = ""
        if work_size is None:
            work = typical_work(timings) if timings else typical_published_work(published, gpu)
        elif model is not None and (not timings or any(timing.model for timing in timings)):
            work, basis = modelled_work(model, function, gpu, work_size[1], compared)
        else:
            work = work_from(timings, *work_size) if timings else published_work(published, gpu, *work_size)
        return ProgressPlan.weighted(
            startup_seconds=startup.seconds,
            work=work.work,
            startup_spread=startup.spread,
            work_spread=work.spread,
            source=_model_source(function, gpu, basis)
            if model is not None and work.jobs == 0
            else _describe_source(function, gpu, work, startup, cold=cold, measured=work_size is not None),
        )

    def has_jobs(self, function: str, gpu: str) -> bool:
        """Return whether a job of `function` on `gpu` is recorded, so that the phases of its plan are measured."""
        try:
            return bool(self._read(function, gpu, 1)[0])
        except _UNUSABLE:  # `plan` logs it
            return False

    def summary(self) -> list[TimingSummary]:
        """Return one summary for each function and GPU.

        Raises:
            ReelModalError: The file cannot be read.
        """
        try:
            if self.path is None or not self.path.exists():
                return []
            with self._connection() as connection:
                kinds = connection.execute("SELECT DISTINCT function, gpu FROM jobs ORDER BY 1, 2").fetchall()
            return [self._summary_of(function, gpu) for function, gpu in kinds]
        except _UNUSABLE as error:
            raise ReelModalError(
                f"the timings in {str(self.path)!r} cannot be read ({error}); remove the file, or set"
                " REEL_MODAL_TIMINGS to another one"
            ) from error

    def _summary_of(self, function: str, gpu: str) -> TimingSummary:
        timings, last = self._read(function, gpu, _KEPT_JOBS)
        line = line_of(timings[:_USED_JOBS])
        sizes = [timing.size for timing in timings]
        return TimingSummary(
            function=function,
            gpu=gpu,
            jobs=len(timings),
            cold_startup=_startup_of(timings, cold=True),
            warm_startup=_startup_of(timings, cold=False),
            fixed_seconds=line.fixed_seconds,
            seconds_per_megapixel=line.seconds_per_unit,
            seconds_per_frame=median([timing.work_seconds / timing.frames for timing in timings]),
            sizes=tuple(sorted(dict.fromkeys(sizes), key=sizes.count, reverse=True)),
            spread=spread_around(line, timings),
            last_finished_at=last or 0.0,
        )

    def _read(self, function: str, gpu: str, limit: int = _USED_JOBS) -> tuple[list[JobTiming], float | None]:
        """Return the newest timings, newest first, and the time at which the last job finished."""
        rows = self._rows("WHERE function = ? AND gpu = ? ORDER BY id DESC LIMIT ?", function, gpu, limit)
        return [_timing_of(row) for row in rows], max((row[8] for row in rows), default=None)

    def _with_model(self) -> list[JobTiming]:
        """Return the newest timings of all functions that have a model, newest first."""
        rows = self._rows("WHERE model_seconds > 0 ORDER BY id DESC LIMIT ?", _COMPARED_JOBS)
        return [_timing_of(row) for row in rows]

    def _rows(self, condition: str, *parameters: object) -> list[_Row]:
        if self.path is None or not self.path.exists():
            return []
        with self._connection() as connection:
            return connection.execute(f"{_READ} {condition}", parameters).fetchall()

    def _was_cold(self, connection: sqlite3.Connection, timing: JobTiming, now: float) -> bool:
        """Return whether the last job before the submission of this one had finished too long ago."""
        submitted_at = now - timing.startup_seconds - timing.work_seconds
        last = connection.execute(
            "SELECT max(finished_at) FROM jobs WHERE function = ? AND gpu = ?", (timing.function, timing.gpu)
        ).fetchone()[0]
        # A last job far in the future means that a clock was wrong; it says nothing about containers.
        return last is None or abs(submitted_at - last) > self._warm_seconds

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(str(self.path), timeout=_LOCK_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            if (version := _version(connection)) == 0:
                version = _set_up(connection)
            if version != _SCHEMA_VERSION:
                raise _UnusableError(f"its schema version is {version}; this reel_modal supports {_SCHEMA_VERSION}")
            _add_columns(connection)
            yield connection


_Row: TypeAlias = tuple[Any, ...]


class _UnusableError(Exception):
    """The file is not a timings file of this version."""


_UNUSABLE: Final = (sqlite3.Error, OSError, ValueError, _UnusableError)


def _set_up(connection: sqlite3.Connection) -> int:
    """Create the table, unless another process is faster; return the version of the file."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            # SQLite does not wait for the lock here, as it does for other statements.
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
    with _transaction(connection):
        if _version(connection) == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    return _version(connection)


def _add_columns(connection: sqlite3.Connection) -> None:
    """Add the columns that a file of an older version does not have."""
    if not _missing_columns(connection):
        return
    with _transaction(connection):
        for name in _missing_columns(connection):  # another process may have added them
            connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {_ADDED_COLUMNS[name]}")


def _missing_columns(connection: sqlite3.Connection) -> list[str]:
    present = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
    return [name for name in _ADDED_COLUMNS if name not in present]


def _model_columns(model: JobModel | None) -> tuple[float | None, str | None, int | None, int | None]:
    return (None,) * 4 if model is None else (model.render_seconds, model.store, model.bytes_in, model.bytes_out)


def _timing_of(row: _Row) -> JobTiming:
    function, gpu, width, height, frames, cold, startup, phases, _, model_seconds, store, bytes_in, bytes_out = row
    model = None
    if model_seconds is not None:
        model = JobModel(
            render_seconds=model_seconds, spread=0.0, store=store, bytes_in=bytes_in, bytes_out=bytes_out
        )
    return JobTiming(
        function=function,
        gpu=gpu,
        size=(width, height),
        frames=frames,
        startup_seconds=startup,
        seconds_by_phase=json.loads(phases),
        cold=bool(cold),
        model=model,
    )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back if the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _path(path: str | Path | None, env: Mapping[str, str]) -> Path | None:
    chosen = path or env.get("REEL_MODAL_TIMINGS")
    if chosen is None or not str(chosen):
        from platformdirs import user_data_path

        return user_data_path("reel_modal", appauthor=False) / "timings.sqlite3"
    return None if str(chosen) == _OFF else Path(chosen)


def _startup_of(timings: list[JobTiming], *, cold: bool) -> StartupEstimate | None:
    seconds = [timing.startup_seconds for timing in timings if timing.cold is cold]
    if not seconds:
        return None
    middle = median(seconds)
    spread = spread_of([value / middle for value in seconds]) if middle > 0 else spread_of([1.0])
    return StartupEstimate(middle, spread, len(seconds))


def _describe_source(
    function: str, gpu: str, work: Estimate, startup: StartupEstimate, *, cold: bool, measured: bool
) -> str:
    where = f"{function} on {_place(gpu)}"
    if work.jobs == 0:
        return f"published figures: no finished job of {where} is recorded yet"
    fit = f"{work.near} of about this size" if measured else "whose median is used for an unknown length"
    start = f"a {'cold' if cold else 'warm'} start"
    basis = f"from {startup.jobs} of them" if startup.jobs else "from published figures"
    return f"the last {_count(work.jobs)} of {where}, {fit}; {start}, {basis}"


def _model_source(function: str, gpu: str, basis: str) -> str:
    where = f"{function} on {_place(gpu)}"
    corrected = f", corrected by {basis}" if basis else ""
    return f"a cost model{corrected}: no finished job of {where} is recorded yet"


def _place(gpu: str) -> str:
    return "this machine" if gpu == LOCAL else gpu


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"
