"""How many segments a machine renders at once, and the runs of several segments that it gets."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs import overlay
from tests.own_functions import copy_file

from reel_modal import UpscaleRequest
from reel_modal._segments import consecutive_runs, segment_grid, segment_runs
from reel_modal.functions.builtin import apply_upscale, render_overlay
from reel_modal.functions.segment_processes import segments_at_once


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [(4, 4.0, 1), (4, 7.9, 1), (4, 8.0, 2), (1, 2.5, 2), (1, 0.125, 1), (3, 64.0, 21), (64, 4.0, 1)],
)
def test_machine_renders_a_segment_for_each_encoder_threads(threads: int, cores: float, expected: int) -> None:
    request = replace(overlay(), encode=replace(overlay().encode, threads=threads))
    assert segments_at_once(render_overlay, request.to_dict(), cores) == expected


def test_machine_renders_one_segment_of_functions_without_gain() -> None:
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
    upscale = UpscaleRequest(**keys, scale=2)  # type: ignore[arg-type]
    assert segments_at_once(apply_upscale, upscale.to_dict(), 64) == 1  # its network uses all cores
    assert segments_at_once(copy_file, {}, 64) == 1  # it renders in one piece


@given(segments=st.integers(1, 200), workers=st.integers(1, 20), at_once=st.integers(1, 8))
def test_runs_use_the_cores_of_each_worker(segments: int, workers: int, at_once: int) -> None:
    grid = segment_grid(100 * segments, Fraction(25), Fraction(4))
    counts = [run.frames // 100 for run in segment_runs(grid, workers, at_once)]
    assert sum(counts) == segments
    assert all(count >= at_once for count in counts[:-1])


@given(segments=st.integers(1, 200), processes=st.integers(1, 20))
def test_runs_of_processes_are_equal(segments: int, processes: int) -> None:
    grid = segment_grid(100 * segments, Fraction(25), Fraction(4))
    runs = consecutive_runs(grid, -(-segments // processes))
    assert len(runs) <= processes
    assert sum(run.frames for run in runs) == 100 * segments
