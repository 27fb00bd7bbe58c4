"""Plain-text tables."""

from __future__ import annotations

import pytest

from reel_modal._support.tables import text_table


def test_text_table_with_header_aligns_cells() -> None:
    lines = text_table([("a", "10"), ("longer", "")], header=("name", "n")).splitlines()
    assert [line.split() for line in lines] == [["name", "|", "n"], [lines[1]], ["a", "|", "10"], ["longer", "|"]]
    assert {line.index("|") for line in lines} == {7}
    assert set(lines[1]) == {"-", "|"}


def test_text_table_without_header_aligns_cells() -> None:
    assert text_table([("MISSING", "x"), ("ok", "y")]) == "MISSING  x\nok       y"


def test_text_table_long_cell_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    cell = "[bold]two words[/bold] :smile: " * 100 + "end"
    assert text_table([(cell, "b")], header=("[red]", "c")).splitlines()[2] == f"{cell} | b"
    assert text_table([(cell, "b")]) == f"{cell}  b"
