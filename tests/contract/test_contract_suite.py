"""The contract of every function fails for functions that break it, and names pytest if that is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKEN = {
    "TestSilent": ["test_job_reports_its_phases"],
    "TestUnpublished": ["test_job_publishes_its_output", "test_same_job_again_does_not_run_the_body"],
    "TestUntidy": ["test_job_writes_only_in_its_folder"],
    "TestDeaf": ["test_cancelled_body_stops_in_each_phase", "test_cancelled_worker_ends_and_leaves_nothing"],
    "TestHasty": ["test_cancelled_body_stops_in_each_phase"],
    "TestWorkless": ["test_estimate_has_time_and_price"],
    "TestLocalDeclaration": ["test_declaration_is_found_by_other_processes"],
    "TestForgetfulRequest": ["test_request_hash_ignores_the_job_id"],
}


@pytest.mark.timeout(300)
def test_contract_fails_for_functions_that_break_it() -> None:
    broken = {f"{name}::{test}" for name, own in BROKEN.items() for test in own}
    tests = sorted(f"tests/contract/bad_functions.py::{each}" for each in broken)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=no", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    failed = {line.split(" ")[1].partition("::")[2] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == broken, done.stdout


def test_contract_without_pytest_names_it() -> None:
    code = "import sys; sys.modules['pytest'] = None; import reel_modal.testing, reel_modal.testing.contract"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: reel_modal.testing.contract is a pytest plugin; install pytest to use it" in done.stderr
