"""The number of machines of a job: its limits, the choice, and its way to the backend."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.jobs import overlay, rendered
from tests.media import splices
from tests.unit.long_jobs import TIMEOUT_SECONDS, expected_overlay, record_jobs, row, with_length

from reel_modal import (
    FunctionRegistry,
    JobOptions,
    MediaInfo,
    Parallel,
    RemoteFunction,
    Settings,
    probe,
)
from reel_modal._jobs.parallel import WorkerChoice
from reel_modal._jobs.worker_rows import WorkerRow
from reel_modal.cli import main
from reel_modal.errors import ConfigError, JobRefusedError, JobTooLongError, OverBudgetError
from reel_modal.progress import TimingHistory
from reel_modal.testing import InMemoryBackend, ManualClock, Script


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings.sqlite3")


@pytest.fixture
def media(clips: Clips) -> MediaInfo:
    return with_length(probe(clips.get("25.mp4")), 60)


# The limits.


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({}, "at least one of max_workers, deadline_seconds, max_usd"),
        ({"max_workers": 0}, "max_workers=0"),
        ({"max_workers": 1001}, "max_workers=1001"),
        ({"max_workers": 2.0}, "max_workers=2.0"),
        ({"max_workers": True}, "max_workers=True"),
        ({"deadline_seconds": 0}, "deadline_seconds=0"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds=inf"),
        ({"deadline_seconds": "60"}, "deadline_seconds='60'"),
        ({"max_usd": -1}, "max_usd=-1"),
        ({"max_usd": float("nan")}, "max_usd=nan"),
        ({"max_usd": True}, "max_usd=True"),
    ],
)
def test_parallel_invalid_limit_is_named(limits: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Parallel(**limits)  # type: ignore[arg-type]
    assert name in str(refused.value)


def test_job_options_parallel_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="parallel=4 must be a Parallel"):
        JobOptions(parallel=4)  # type: ignore[arg-type]


# The choice.


ROWS = [row(1, 400, 0.1, 390), row(2, 300, 0.2), row(3, 200, 0.3), row(4, 150, 0.4), row(5, 130, 0.5)]


def choose(rows: list[WorkerRow], budget_usd: float | None = None, **limits: float) -> int:
    parallel = Parallel(**limits)  # type: ignore[arg-type]
    return WorkerChoice("render_overlay", rows, parallel, budget_usd).row().workers


@pytest.mark.parametrize(
    ("limits", "workers"),
    [
        ({"deadline_seconds": 400}, 1),
        ({"deadline_seconds": 399}, 2),
        ({"deadline_seconds": 130}, 5),
        ({"max_usd": 9}, 4),  # five take 130 s, and four at most a quarter longer
        ({"max_usd": 0.3}, 3),
        ({"max_workers": 2}, 2),
        ({"max_workers": 1}, 1),
        ({"max_workers": 4, "deadline_seconds": 250, "max_usd": 0.3}, 3),
        ({"max_usd": 9, "budget_usd": 0.2}, 2),
    ],
)
def test_choice_smallest_number_within_limits(limits: dict[str, float], workers: int) -> None:
    assert choose(ROWS, **limits) == workers


def test_choice_short_job_stays_on_one_machine() -> None:
    two = row(2, 40, 0.2)
    assert choose([row(1, 85, 0.1, 59), two], max_workers=5) == 1
    assert choose([row(1, 85, 0.1, 61), two], max_workers=5) == 2
    assert choose([row(1, 85, 0.1, 59), two], deadline_seconds=70) == 2


def test_choice_job_too_long_for_one_machine_uses_more() -> None:
    long = [row(1, 900, 0.1, 890), row(2, 500, 0.2, 481), row(3, 400, 0.3, 300)]
    assert choose(long, deadline_seconds=1000) == 3
    with pytest.raises(
        JobTooLongError, match=r"on 2 machines, a call of render_overlay_segments would need about 481 s.*=3 or"
    ):
        choose(long, max_workers=2)
    with pytest.raises(JobTooLongError, match="RENDER_OVERLAY_TIMEOUT_SECONDS=1113"):
        choose(long[:1], max_workers=8)


@pytest.mark.parametrize(
    ("limits", "kind", "message"),
    [
        ({"deadline_seconds": 100}, JobTooLongError, r"at least 130 s, on 5 machines for about \$0\.5000.* is 100"),
        ({"deadline_seconds": 200, "max_workers": 2}, JobTooLongError, "at least 300 s.*max_workers=3 would meet it"),
        ({"max_usd": 0.05}, OverBudgetError, r"at least \$0\.1000, on 1 machine in 400 s, and max_usd is \$0\.0500$"),
        (
            {"deadline_seconds": 200, "max_usd": 0.2},
            OverBudgetError,
            r"at least \$0\.3000 to end within 200 s, on 3 machines.*the earliest time is 2 machines in 300 s",
        ),
        ({"max_usd": 9, "budget_usd": 0.05}, OverBudgetError, r"the budget \(REEL_MODAL_BUDGET_USD\) is \$0\.0500"),
    ],
)
def test_choice_impossible_limit_names_what_would_fit(
    limits: dict[str, float], kind: type[JobRefusedError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        choose(ROWS, **limits)


def test_choice_single_segment_says_why_it_is_late() -> None:
    with pytest.raises(JobTooLongError, match="is one segment, or is rendered in one piece"):
        choose(ROWS[:1], deadline_seconds=100)


@given(
    st.lists(st.tuples(st.floats(1, 1e4), st.floats(1e-4, 10), st.floats(1, 1e3)), min_size=1, max_size=30),
    st.none() | st.integers(1, 40),
    st.none() | st.floats(1, 1e4),
    st.none() | st.floats(1e-4, 10),
)
def test_choice_respects_every_limit(
    figures: list[tuple[float, float, float]],
    max_workers: int | None,
    deadline_seconds: float | None,
    max_usd: float | None,
) -> None:
    if (max_workers, deadline_seconds, max_usd) == (None, None, None):
        max_workers = 40
    parallel = Parallel(max_workers=max_workers, deadline_seconds=deadline_seconds, max_usd=max_usd)
    rows = [row(number, *each) for number, each in enumerate(figures, 1)]

    def possible(each: WorkerRow) -> bool:
        return (
            each.call_seconds <= 0.8 * TIMEOUT_SECONDS
            and (max_workers is None or each.workers <= max_workers)
            and (deadline_seconds is None or each.seconds <= deadline_seconds)
            and (max_usd is None or each.dollars <= max_usd)
        )

    within = [each for each in rows if possible(each)]
    choice = WorkerChoice("render_overlay", rows, parallel)
    if not within:
        with pytest.raises(JobRefusedError):
            choice.row()
        return
    chosen = choice.row()
    assert chosen in within
    if deadline_seconds is not None:
        assert chosen == within[0]
    elif chosen.workers > 1:
        assert chosen.seconds <= 1.25 * min(each.seconds for each in within)


def test_estimate_parallel_has_the_figures_of_its_row(media: MediaInfo, history: TimingHistory) -> None:
    expected = expected_overlay(media, history)
    chosen = expected.parallel(Parallel(max_workers=4))
    (four,) = (each for each in expected.rows if each.workers == 4)
    assert (chosen.workers, chosen.dollars, chosen.work_seconds) == (4, four.dollars, four.call_seconds)
    assert (expected.gpu, chosen.gpu) == ("T4", "cpu")
    assert chosen.seconds == pytest.approx(four.seconds)
    assert chosen.plan.startup_seconds + chosen.plan.processing_seconds == pytest.approx(four.seconds)
    assert sum(part.seconds for part in chosen.contributors) == pytest.approx(four.seconds)
    assert "predicted for 4 machines" in chosen.source
    assert chosen.low_seconds < chosen.seconds < chosen.high_seconds
    chosen.check(budget_usd=1)


def test_check_job_too_long_names_the_machines_that_fit(media: MediaInfo, history: TimingHistory) -> None:
    expected = expected_overlay(media, history, seconds_per_frame=0.5)
    with pytest.raises(JobTooLongError, match=r"on several machines: parallel=Parallel\(max_workers=2\)"):
        expected.check()
    expected.parallel(Parallel(max_workers=2)).check()


# From the submission to the backend.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a clip of a minute."""
    folder = tmp_path_factory.mktemp("store")
    source = "testsrc2=size=320x180:rate=25:duration=60"
    splices.ffmpeg("-f", "lavfi", "-i", source, "-preset", "ultrafast", folder / "in.mp4")
    return folder


def host(
    store: Path,
    history: TimingHistory,
    *,
    options: JobOptions | None = None,
    modal: bool = True,
    budget_usd: float | None = None,
    seconds: float = 0.0,
) -> tuple[FunctionRegistry, InMemoryBackend]:
    """Return a registry with jobs of about 450 s on one machine."""
    for gpu in ("T4", "cpu"):
        record_jobs(history, gpu, seconds_per_frame=0.3)
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.name = "modal"
    backend.script("render_overlay", Script(rendered, seconds=seconds))
    settings = Settings(modal_enabled=modal, store_url=store.as_uri(), budget_usd=budget_usd)
    return FunctionRegistry(settings, backend=backend, history=history, options=options), backend


def workers_of(backend: InMemoryBackend) -> list[int]:
    return [submitted.workers for submitted in backend.submitted]


async def test_submit_sends_the_chosen_number_of_machines(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history)
    four = Parallel(max_workers=4)
    await registry.submit(overlay("a"))
    await registry.submit(overlay("b"), parallel=four)
    await registry.run(overlay("c"), parallel=four)
    async for _ in registry.map([overlay("d")], parallel=four):
        pass
    await registry["render_overlay"].with_options(parallel=Parallel(deadline_seconds=400)).submit(overlay("e"))
    assert workers_of(backend) == [1, 4, 4, 4, 2]


def test_run_sync_sends_the_chosen_number_of_machines(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history)
    registry.run_sync(overlay(), parallel=Parallel(max_workers=4))
    assert workers_of(backend) == [4]


async def test_submit_uses_the_limits_of_the_registry(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history, options=JobOptions(parallel=Parallel(max_workers=4)))
    await registry.submit(overlay("a"))
    await registry.submit(overlay("b"), parallel=Parallel(max_workers=1))
    assert workers_of(backend) == [4, 1]


async def test_submit_locally_has_no_limit_but_max_workers(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history, modal=False)
    await registry.submit(overlay("a"), parallel=Parallel(max_workers=4, deadline_seconds=1, max_usd=1e-6))
    await registry.submit(overlay("b"), parallel=Parallel(deadline_seconds=1))
    assert workers_of(backend) == [4, 1]


@pytest.mark.parametrize(
    ("limits", "budget_usd", "kind"),
    [
        (Parallel(deadline_seconds=10), None, JobTooLongError),
        (Parallel(max_usd=0.0001), None, OverBudgetError),
        (Parallel(max_workers=4), 0.0001, OverBudgetError),
    ],
)
async def test_submit_beyond_limits_reaches_no_backend(
    store: Path, history: TimingHistory, limits: Parallel, budget_usd: float | None, kind: type[JobRefusedError]
) -> None:
    registry, backend = host(store, history, budget_usd=budget_usd)
    with pytest.raises(kind):
        await registry.submit(overlay(), parallel=limits)
    assert backend.submitted == []


async def test_submit_unreadable_input_uses_one_machine(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history)
    await registry.submit(overlay(source="missing.mp4"), parallel=Parallel(max_workers=4))
    assert workers_of(backend) == [1]


async def test_submit_same_request_with_other_limits_returns_the_job(store: Path, history: TimingHistory) -> None:
    """The limits do not change the output."""
    registry, backend = host(store, history, seconds=1e6)
    first = await registry.submit(overlay(), parallel=Parallel(max_workers=4))
    second = await registry.submit(overlay(), parallel=Parallel(max_workers=2))
    assert first is second
    assert registry.attach(first.id) is first
    assert workers_of(backend) == [4]


async def test_submit_undeclared_function_with_limits_is_refused() -> None:
    backend = InMemoryBackend()
    backend.script("add", Script(3))
    add: RemoteFunction[[int], int] = RemoteFunction("add", backend)
    with pytest.raises(ConfigError, match="add is not declared with render_function"):
        await add.with_options(parallel=Parallel(max_workers=2)).submit(1)
    assert backend.submitted == []


async def test_progress_of_parallel_job_expects_its_time(store: Path, history: TimingHistory) -> None:
    registry, _ = host(store, history, seconds=1e6)
    limits = Parallel(max_workers=4)
    job = await registry.submit(overlay(), parallel=limits)
    expected = registry.estimate(overlay(), probe(store / "in.mp4"))
    async with aclosing(job.progress()) as updates:
        first = await anext(updates)
    assert first.eta_seconds == pytest.approx(expected.parallel(limits).seconds)
    assert first.eta_seconds < expected.seconds


@pytest.mark.parametrize(("workers", "recorded"), [(1, 7), (4, 6)])
async def test_recorder_skips_jobs_on_several_machines(
    store: Path, history: TimingHistory, workers: int, recorded: int
) -> None:
    registry, _ = host(store, history)
    await registry.run(overlay(), parallel=Parallel(max_workers=workers))
    assert sum(summary.jobs for summary in history.summary()) == recorded


# The command line.


def test_estimate_command_prints_the_table(
    store: Path,
    history: TimingHistory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*options: str) -> tuple[int, str, str]:
        words = ["--function", "render_overlay", "--spec", str(spec), "--on", "modal", *options]
        status = main(["estimate", str(store / "in.mp4"), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(history.path))
    for gpu in ("T4", "cpu"):
        record_jobs(history, gpu, seconds_per_frame=0.3)
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps([region.to_dict() for region in overlay().regions]))
    status, text, _ = run("--max-workers", "4")
    table = [line.split() for line in text.partition("  machines ")[2].splitlines()[1:]]
    assert status == 0
    assert [line[0] for line in table if line[4:6] == ["this", "estimate"]] == ["4"]
    assert [line[0] for line in table] == ["1", "2", "4", "8"]
    status, text, _ = run("--json", "--deadline-seconds", "200", "--max-usd", "1")
    fields = json.loads(text)
    assert [each["workers"] for each in fields["rows"]] == list(range(1, 9))
    (chosen,) = (each for each in fields["rows"] if each["workers"] == fields["workers"])
    assert (status, chosen["dollars"]) == (0, fields["dollars"])
    assert chosen["seconds"] == pytest.approx(fields["seconds"])
    status, text, error = run("--deadline-seconds", "1")
    assert (status, "machines" in text, "deadline_seconds is 1" in error) == (1, True, True)
    status, text, error = run("--max-workers", "0")
    assert (status, text, "max_workers=0" in error) == (2, "", True)
