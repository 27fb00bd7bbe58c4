"""The public API changes only together with its stored description."""

from pathlib import Path

from tests.public_api import REFERENCE, lines, undocumented_types

STORED = Path(__file__).with_name("public_api.txt")


def test_public_api_equals_the_stored_description() -> None:
    """After an intended change: `python -m tests.public_api > tests/unit/public_api.txt`, and an entry in CHANGELOG."""
    assert list(lines()) == STORED.read_text(encoding="utf-8").splitlines()


def test_types_in_documented_signatures_are_documented() -> None:
    """Document a type that is reported here in docs/reference.md, under a public name, or make its owner private."""
    assert undocumented_types(REFERENCE.read_text(encoding="utf-8")) == set()


def test_undocumented_type_is_found() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    without = reference.replace(".. autoclass:: reel_modal.progress.StartupEstimate\n", "")
    place, kind = "reel_modal.progress.TimingSummary", "reel_modal._progress.timing_model.StartupEstimate"
    assert (place, kind) in undocumented_types(without)
