"""What the documentation draws is what there is."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_who_may_know_whom_is_what_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    checked = [set(re.findall(r"reel_modal\.(\w+)", layer)) for layer in contract["layers"]]
    text = (ROOT / "docs/how-a-job-flows.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    # A row names modules, then, after some space, says what they are.
    drawn = [set(re.findall(r"\w+", re.split(r"\s{2,}", row)[0])) for row in block.splitlines()]
    assert set().union(*drawn) == set().union(*checked), "write it into docs/how-a-job-flows.md, who may know whom"
    rows = {name: index for index, row in enumerate(drawn) for name in row}
    places = [[rows[name] for name in layer] for layer in checked]
    assert all(max(higher) <= min(lower) for higher, lower in pairwise(places))
