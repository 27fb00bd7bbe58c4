"""Progress of a job that reports: simulated until its first event, then measured, and never backwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal.errors import JobPreemptedError
from reel_modal.progress import ProgressBlender, ProgressEvent, ProgressPlan, ProgressUpdate, WorkPhase
from reel_modal.testing.strategies import any_event, check_updates, clock_readings, events, plans

PLAN = ProgressPlan.weighted(
    startup_seconds=5,
    work=[WorkPhase("fetch", 2), WorkPhase("render", 30), WorkPhase("verify", 1), WorkPhase("publish", 2)],
)


@given(
    plan=plans(),
    started_at=st.none() | clock_readings(),
    steps=st.lists(st.tuples(st.sampled_from(["look", "hear", "hear"]), clock_readings()), max_size=40),
    events=events(),
    ending=st.sampled_from(["finish", "fail", "cancel"]),
    end_at=clock_readings(),
)
def test_blender_any_event_order_only_goes_forward(
    plan: ProgressPlan,
    started_at: float | None,
    steps: list[tuple[str, float]],
    events: list[ProgressEvent],
    ending: str,
    end_at: float,
) -> None:
    blender, waiting = ProgressBlender(plan, started_at=started_at), list(events)
    seen: list[ProgressUpdate] = []
    for action, now in steps:
        if action == "hear" and waiting:
            blender.feed(waiting.pop(0), now)
        else:
            seen.append(blender.update(now))
    if ending == "finish":
        seen.append(blender.finish(end_at))
    else:
        seen.append(blender.fail(asyncio.CancelledError() if ending == "cancel" else ValueError(), end_at))
    check_updates(seen, plan, ended=True)
    # Events after the end change nothing.
    for event in waiting:
        blender.feed(event, end_at)
    assert blender.update(end_at + 1) is seen[-1]
    assert blender.finish(end_at + 1) is seen[-1]
    assert blender.fail(ValueError(), end_at + 1) is seen[-1]


@given(events=st.lists(any_event(), min_size=1, max_size=20), now=st.floats(0, 1e6))
def test_blender_late_listener_accepts_any_first_event(events: list[ProgressEvent], now: float) -> None:
    blender = ProgressBlender(PLAN, started_at=None)
    for event in events:
        blender.feed(event, now)
    updates = [blender.update(now), blender.update(now + 1), blender.finish(now + 2)]
    check_updates(updates, PLAN, ended=True)


@given(events=events())
def test_blender_duplicate_event_changes_nothing(events: list[ProgressEvent]) -> None:
    once, twice = (ProgressBlender(PLAN, started_at=0.0) for _ in range(2))
    for index, event in enumerate(events):
        once.feed(event, index)
        twice.feed(event, index)
        twice.feed(event, index + 0.5)
        assert once.update(index + 0.5).progress == pytest.approx(twice.update(index + 0.5).progress)


def test_blender_duplicate_event_does_not_end_a_stall() -> None:
    blender = ProgressBlender(PLAN, started_at=0.0, stall_after_seconds=30)
    event = ProgressEvent("render", 10, 900, 8.0, 3, 1)
    blender.feed(event, 12)
    blender.feed(event, 100)
    assert blender.update(101).stalled_seconds == 89


def job_events(
    *, startup: float, fetch: float, render: float, frames: int = 900, every: float = 2.0, attempt: int = 1
) -> Iterator[tuple[float, ProgressEvent]]:
    """Yield (arrival time, event) of a job that renders evenly and reports every `every` seconds."""
    sequence = 0

    def event(phase: str, done: int, total: int | None, elapsed: float) -> tuple[float, ProgressEvent]:
        nonlocal sequence
        sequence += 1
        return startup + elapsed, ProgressEvent(phase, done, total, elapsed, sequence, attempt)

    yield event("fetch", 0, None, 0.0)
    yield event("fetch", 1, None, fetch)
    for step in range(int(render // every) + 1):
        yield event("render", int(frames * step * every / render), frames, fetch + step * every)
    yield event("render", frames, frames, fetch + render)


def feed_and_read(
    events: Iterator[tuple[float, ProgressEvent]], until: float, blender: ProgressBlender, step: float = 0.5
) -> dict[float, ProgressUpdate]:
    """Feed the events and read an update every `step` seconds."""
    waiting, seen = list(events), dict[float, ProgressUpdate]()
    for tick in range(int(until / step) + 1):
        now = tick * step
        while waiting and waiting[0][0] <= now:
            heard_at, event = waiting.pop(0)
            blender.feed(event, heard_at)
        seen[now] = blender.update(now)
    return seen


def test_blender_simulated_until_first_event_then_measured() -> None:
    seen = feed_and_read(job_events(startup=8, fetch=2, render=30), 30, ProgressBlender(PLAN, started_at=0.0))
    assert {update.source for now, update in seen.items() if now < 8} == {"simulated"}
    assert {update.source for now, update in seen.items() if now >= 8} == {"measured"}
    assert (seen[0].phase, seen[4].phase, seen[7.5].phase) == ("init", "startup", "startup")
    assert (seen[8].phase, seen[12].phase) == ("fetch", "render")
    assert seen[7.5].work is None
    counts = seen[14].work
    assert counts is not None
    assert (counts.done, counts.total, counts.attempt) == (120, 900, 1)
    assert counts.units_per_second == pytest.approx(30)


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.0, 1.57, 4.0])
def test_blender_measured_progress_is_share_of_elapsed_time(factor: float) -> None:
    startup, fetch, render = 5.0, 2.0, 30.0 * factor
    whole = startup + fetch + render + 3
    seen = feed_and_read(
        job_events(startup=startup, fetch=fetch, render=render), startup + fetch + render, new_blender()
    )
    for now, update in seen.items():
        if now > startup + fetch + 0.4 * render:
            # The remaining phases are expected to take the planned time, which is not exact.
            assert update.progress == pytest.approx(99 * now / whole, abs=7)
            assert update.eta_seconds == pytest.approx(whole - now, abs=0.15 * whole)


def new_blender(**options: float) -> ProgressBlender:
    return ProgressBlender(PLAN, started_at=0.0, **options)


def test_blender_phases_are_weighted_by_expected_time() -> None:
    plan = ProgressPlan.weighted(startup_seconds=0, work=[WorkPhase("fetch", 30), WorkPhase("render", 10)])
    blender = ProgressBlender(plan, started_at=0.0)
    blender.feed(ProgressEvent("fetch", 0, 100, 0.0, 1), 0.0)
    blender.feed(ProgressEvent("fetch", 100, 100, 30.0, 2), 30.0)
    blender.feed(ProgressEvent("render", 0, 100, 30.0, 3), 30.0)
    assert blender.update(30.0).progress == pytest.approx(0.75 * plan.limit)


def test_blender_plan_for_longer_jobs_does_not_hold_back_short_job() -> None:
    plan = ProgressPlan.weighted(
        startup_seconds=0, work=[WorkPhase("render", 90), WorkPhase("verify", 2), WorkPhase("publish", 8)]
    )
    blender = ProgressBlender(plan, started_at=0.0)
    blender.feed(ProgressEvent("render", 0, 30, 0.0, 1), 0.0)
    blender.feed(ProgressEvent("render", 30, 30, 1.0, 2), 1.0)
    left = blender.update(1.0).eta_seconds
    assert left is not None
    assert left < 4  # of the 10 s that follow a render of 90 s
    blender.feed(ProgressEvent("verify", 0, None, 1.0, 3), 1.0)
    assert blender.update(1.0).eta_seconds == pytest.approx(left, rel=0.2)


def test_blender_no_more_events_follows_the_plan() -> None:
    blender = ProgressBlender(ProgressPlan.default(), started_at=0.0)
    assert (blender.update(0.0).phase, blender.update(8.0).phase) == ("init", "startup")
    blender.no_more_events()
    phases = {now: blender.update(now) for now in (8.5, 20.0, 34.0, 100.0)}
    assert {update.phase for update in phases.values()} == {"processing"}
    assert phases[20.0].progress == ProgressPlan.default().at(20.0)[1]
    assert (phases[34.0].eta_seconds, phases[100.0].eta_seconds) == (1.0, None)
    assert phases[100.0].stalled_seconds is None  # no events are expected, so no stall is detected
    assert phases[100.0].progress < 90


def test_blender_between_events_continues_at_observed_rate() -> None:
    blender = new_blender()
    blender.feed(ProgressEvent("render", 0, 1000, 0.0, 1), 5.0)
    blender.feed(ProgressEvent("render", 100, 1000, 10.0, 2), 15.0)
    steps = [blender.update(15 + 0.5 * tick).progress for tick in range(8)]
    speeds = [later - earlier for earlier, later in pairwise(steps)]
    # 90 s are left after 15 s, of which 3 s belong to other phases; half a second is that share of the bar.
    assert speeds == pytest.approx([99 * 0.5 / 108] * 7, rel=0.15)


def test_blender_silent_job_stalls_and_slow_job_does_not() -> None:
    slow, stuck = new_blender(), new_blender()
    for blender in (slow, stuck):
        blender.feed(ProgressEvent("render", 10, 1000, 2.0, 1), 7.0)
    for beat in range(1, 6):
        slow.feed(ProgressEvent("render", 10 + beat, 1000, 2.0 + 8 * beat, 1 + beat), 7.0 + 8 * beat)
    moving, still = slow.update(47.0), stuck.update(47.0)
    assert (moving.stalled_seconds, moving.message) == (None, "Rendering the video...")
    assert moving.eta_seconds is not None
    assert (still.stalled_seconds, still.message) == (40, "Rendering the video... (no update for 40 s)")
    assert still.eta_seconds is None
    assert (still.status, still.source) == ("processing", "measured")


def test_blender_stall_ends_with_next_event() -> None:
    blender = new_blender(stall_after_seconds=10)
    blender.feed(ProgressEvent("render", 10, 1000, 2.0, 1), 7.0)
    assert blender.update(17.0).stalled_seconds is None
    assert blender.update(17.1).stalled_seconds == pytest.approx(10.1)
    blender.feed(ProgressEvent("render", 11, 1000, 13.0, 2), 18.0)
    assert blender.update(18.0).stalled_seconds is None


def test_blender_slow_start_shows_stall_message() -> None:
    blender = new_blender()
    assert blender.update(20.0).stalled_seconds is None
    late = blender.update(60.0)
    assert late.message == "Starting the renderer... (no update for 60 s)"
    assert (late.phase, late.eta_seconds) == ("startup", None)


def test_blender_stuck_job_does_not_creep_to_the_end() -> None:
    blender = new_blender()
    blender.feed(ProgressEvent("render", 0, 1000, 0.0, 1), 5.0)
    blender.feed(ProgressEvent("render", 100, 1000, 10.0, 2), 15.0)
    first = blender.update(15.0).progress
    assert blender.update(15.0 + 600).progress < 60
    assert blender.update(15.0 + 600).progress > first


def test_blender_second_attempt_is_shown_and_keeps_progress() -> None:
    blender = new_blender()
    seen = feed_and_read(job_events(startup=5, fetch=2, render=30), 25, blender)
    before = seen[25].progress
    again = ProgressEvent("fetch", 0, None, 0.0, 1, attempt=2)
    blender.feed(again, 30.0)
    blender.feed(ProgressEvent("render", 800, 900, 27.0, 60, attempt=1), 30.5)  # a late event of the first attempt
    update = blender.update(30.5)
    assert update.message == "Trying again: Fetching the video..."
    assert update.work is not None
    assert (update.work.attempt, update.phase) == (2, "fetch")
    assert update.progress >= before
    # The rest of the bar is left for the whole second attempt.
    assert update.eta_seconds == pytest.approx(35, abs=3)
    rest = [blender.update(30.5 + seconds).progress for seconds in range(1, 4)]
    assert all(later > earlier for earlier, later in pairwise([update.progress, *rest]))


def test_blender_frames_of_an_earlier_attempt_are_no_measure_of_the_rate() -> None:
    """Half of the frames are found in the store at once; the other half takes as long as planned."""
    blender = new_blender()
    blender.feed(ProgressEvent("render", 0, 1000, 0.0, 1), 5.0)
    blender.feed(ProgressEvent("render", 500, 1000, 0.1, 2, detail="segment 7 of 12"), 5.1)
    update = blender.update(5.1)
    assert update.message == "Rendering the video... (segment 7 of 12)"
    assert update.eta_seconds == pytest.approx(15 + 3, abs=1)  # half of the rendering, and the phases after it
    blender.feed(ProgressEvent("render", 600, 1000, 3.1, 3), 8.1)
    assert blender.update(8.1).eta_seconds == pytest.approx(12 + 3, abs=1)


def test_blender_several_clips_in_one_job_do_not_go_back() -> None:
    blender, sequence, now, seen = new_blender(), 0, 5.0, []
    for _clip in range(3):
        for done in range(0, 101, 10):
            sequence += 1
            blender.feed(ProgressEvent("render", done, 100, now - 5.0, sequence), now)
            seen.append(blender.update(now).progress)
            now += 1.0
    assert all(later >= earlier for earlier, later in pairwise(seen))
    assert seen[-1] < 99


def test_blender_late_listener_starts_near_true_progress() -> None:
    events = [(when, event) for when, event in job_events(startup=5, fetch=2, render=30) if when <= 22]
    from_start = new_blender()
    expected = feed_and_read(iter(events), 22, from_start)[22].progress
    knowing, ignorant, last_only = new_blender(), *(ProgressBlender(PLAN, started_at=None) for _ in range(2))
    for _, event in events:
        knowing.feed(event, 22.0)  # past events arrive all at once
        ignorant.feed(event, 22.0)
    last_only.feed(events[-1][1], 22.0)
    for blender in (knowing, ignorant, last_only):
        assert blender.knows_its_start
        update = blender.update(22.0)
        assert update.source == "measured"
        assert update.progress == pytest.approx(expected, abs=5)


def test_blender_late_without_events_starts_at_planned_progress() -> None:
    update = ProgressBlender(PLAN, started_at=0.0).update(20.0)
    assert update.source == "simulated"
    assert 25 < update.progress < 50
    assert update.elapsed_seconds == 20


def test_blender_full_progress_only_after_finish() -> None:
    blender = new_blender()
    seen = feed_and_read(job_events(startup=5, fetch=2, render=30), 37, blender)
    blender.feed(ProgressEvent("publish", 10, 10, 33.0, 90), 38.0)
    assert blender.update(300.0).progress <= 99
    assert blender.update(1e6).status == "processing"
    done = blender.finish(1e6)
    assert (done.progress, done.status, done.eta_seconds, done.message) == (100, "complete", 0, "Done.")
    assert done.sequence == len(seen) + 3


def test_blender_failure_keeps_progress_and_shows_user_message() -> None:
    blender = new_blender()
    seen = feed_and_read(job_events(startup=5, fetch=2, render=30), 20, blender)
    failed = blender.fail(JobPreemptedError("worker 7 went away", function="render_overlay"), 20.5)
    assert (failed.status, failed.message) == ("error", "The renderer was interrupted. Please try again.")
    assert failed.progress == seen[20].progress


def rate_of(*events: tuple[str, int, float]) -> float | None:
    blender = new_blender()
    for sequence, (phase, done, elapsed) in enumerate(events):
        blender.feed(ProgressEvent(phase, done, 100, elapsed, sequence), 5.0 + elapsed)
    work = blender.update(5.0 + events[-1][2]).work
    assert work is not None
    return work.units_per_second


def test_blender_rate_counts_from_start_of_phase() -> None:
    assert rate_of(("fetch", 0, 0), ("fetch", 100, 2), ("render", 0, 10), ("render", 50, 20)) == pytest.approx(5)
    # If its first event is missing, a phase started with the last event of the previous phase.
    assert rate_of(("fetch", 0, 0), ("fetch", 100, 10), ("render", 50, 20)) == pytest.approx(5)
    # The next clip is a separate phase.
    assert rate_of(("render", 0, 0), ("render", 100, 10), ("render", 0, 10), ("render", 50, 20)) == pytest.approx(5)


def test_blender_rate_without_elapsed_time_is_none() -> None:
    assert rate_of(("render", 0, 0)) is None
    assert rate_of(("render", 0, 0), ("render", 50, 5e-324)) is None


def test_blender_invalid_event_is_ignored() -> None:
    blender = new_blender()
    for elapsed in (1e8, 1e300, float("inf"), float("nan"), -1.0):
        blender.feed(ProgressEvent("render", 1, 100, elapsed, 1), 5.0)
    blender.feed(ProgressEvent("render", -1, 100, 1.0, 1), 5.0)
    blender.feed(ProgressEvent("render", 2**63, None, 1.0, 1), 5.0)
    assert blender.update(5.0).source == "simulated"


def test_blender_rare_events_progress_evenly() -> None:
    blender = new_blender()
    for beat in range(4):
        blender.feed(ProgressEvent("render", 100 * beat, 1000, 20.0 * beat, beat), 5.0 + 20 * beat)
    shares = [blender.update(65.0 + seconds).progress for seconds in range(0, 20, 4)]
    steps = [later - earlier for earlier, later in pairwise(shares)]
    assert steps == pytest.approx([99 * 4 / 208] * 4, rel=0.1)


def test_blender_overdue_phase_keeps_time_left() -> None:
    plan = ProgressPlan.weighted(startup_seconds=0, work=[WorkPhase("render", 10)])
    blender = ProgressBlender(plan, started_at=0.0)
    blender.feed(ProgressEvent("render", 0, 100, 0.0, 1), 0.0)
    blender.feed(ProgressEvent("render", 99, 100, 9.9, 2), 9.9)
    left = [blender.update(9.9 + seconds).eta_seconds for seconds in (0.0, 2.0, 4.0)]
    assert left == pytest.approx([0.5, 0.5, 1.0], abs=0.05)


def test_blender_done_above_total_counts_as_total() -> None:
    blender = new_blender()
    blender.feed(ProgressEvent("render", 0, 100, 0.0, 1), 5.0)
    blender.feed(ProgressEvent("render", 120, 100, 36.0, 2), 41.0)
    assert blender.update(41.0).eta_seconds == pytest.approx(3)


def test_blender_unplanned_phase_keeps_remaining_estimate() -> None:
    blender = new_blender()
    blender.feed(ProgressEvent("verify", 0, None, 33.0, 1), 38.0)
    blender.feed(ProgressEvent("polish", 0, None, 34.0, 2), 39.0)
    update = blender.update(39.0)
    assert (update.phase, update.message) == ("polish", "Polish...")
    assert update.eta_seconds == pytest.approx(2, abs=0.1)


def test_blender_clock_going_back_keeps_elapsed_time() -> None:
    blender = new_blender()
    assert blender.update(10.0).elapsed_seconds == 10
    blender.feed(ProgressEvent("render", 0, 900, 4.0, 1), -80.0)
    update = blender.update(-79.0)
    assert update.elapsed_seconds == 10
    assert update.eta_seconds == pytest.approx(33, abs=1)


def test_blender_bunched_delivery_keeps_rate() -> None:
    evenly, bunched = new_blender(), new_blender()
    events = [(when, event) for when, event in job_events(startup=5, fetch=2, render=30) if when <= 25]
    for when, event in events:
        evenly.feed(event, when)
        bunched.feed(event, when if when < 10 else 25.0)
    one, other = evenly.update(25.0), bunched.update(25.0)
    assert one.progress == pytest.approx(other.progress, abs=0.5)
    assert one.work is not None
    assert other.work is not None
    assert one.work.units_per_second == pytest.approx(other.work.units_per_second)


def test_blender_encoder_with_late_first_frame_shows_its_rate() -> None:
    """An encoder takes four seconds to return its first frame, then returns ten frames a second."""
    plan = ProgressPlan.weighted(startup_seconds=0, work=[WorkPhase("render", 20)])
    blender = ProgressBlender(plan, started_at=0.0)
    left = {}
    for sequence in range(29):
        now = sequence / 2
        blender.feed(ProgressEvent("render", max(0, round(10 * (now - 4))), 100, now, sequence), now)
        left[now] = blender.update(now).eta_seconds
    assert left[2.0] == pytest.approx(18)  # by the plan
    assert [left[now] for now in (6.0, 8.0, 12.0)] == pytest.approx([8, 6, 2], rel=0.25)


def test_blender_rate_follows_the_second_half_of_the_counts() -> None:
    plan = ProgressPlan.weighted(startup_seconds=0, work=[WorkPhase("render", 20)])
    blender = ProgressBlender(plan, started_at=0.0)
    counts = [0, 1, 2, 3, 4, 5, 15, 25, 35, 45, 55]
    for sequence, done in enumerate(counts):
        blender.feed(ProgressEvent("render", done, 100, float(sequence), sequence), float(sequence))
    assert blender.update(10.0).eta_seconds == pytest.approx(4.5, rel=0.15)
