"""Reads `sources.tsv`: each file that the weights were trained on, with its author and licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("sources.tsv")


@dataclass(frozen=True)
class Source:
    """One picture or clip: where it comes from and by how much it is shrunk before use, and how often it is drawn."""

    package: str
    path: str
    author: str
    licence: str
    shrink: float
    weight: float

    def file(self, folder: Path) -> Path:
        """Return where `training.fetch` put it under `folder`."""
        return folder / self.package.split(":", 1)[1].split("==")[0] / self.path


def read_sources() -> list[Source]:
    """Return every row of the table."""
    rows = [line.split("\t") for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [Source(*row[:4], shrink=float(row[4]), weight=float(row[5])) for row in rows]
