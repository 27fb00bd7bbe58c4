"""Plain-text tables."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["text_table"]

_WIDTH: Final = 2**31
"""Wide enough for any row."""


def text_table(rows: Iterable[Iterable[str]], *, header: Sequence[str] = ()) -> str:
    """Return `rows` in aligned columns, with a ruled line below `header`.

    The text has no colors and no box characters that a terminal may be unable to show, and no line is wrapped or
    shortened: it may be piped, and secrets in it are found.
    """
    from rich.box import MARKDOWN
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=MARKDOWN if header else None, show_edge=False, show_header=bool(header), pad_edge=False)
    if not header:
        table.padding = (0, 2, 0, 0)
    for name in header:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*map(Text, row))
    output = io.StringIO()
    Console(file=output, width=_WIDTH, force_terminal=False, force_jupyter=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())
