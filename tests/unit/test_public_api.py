"""The public API changes only together with its stored description."""

from pathlib import Path

from tests.public_api import lines

STORED = Path(__file__).with_name("public_api.txt")


def test_public_api_equals_the_stored_description() -> None:
    """After an intended change: `python -m tests.public_api > tests/unit/public_api.txt`, and an entry in CHANGELOG."""
    assert list(lines()) == STORED.read_text(encoding="utf-8").splitlines()
