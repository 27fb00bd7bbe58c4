"""The documentation matches the code, and its links and samples fit."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SAMPLE_COLUMNS = 88
IMAGE_BYTES = 150 * 1024


def test_documented_layers_equal_checked_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    checked = [set(re.findall(r"reel_modal\.(\w+)", layer)) for layer in contract["layers"]]
    text = (ROOT / "docs/how-a-job-flows.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    # A row names modules, then, after some space, describes them.
    drawn = [set(re.findall(r"\w+", re.split(r"\s{2,}", row)[0])) for row in block.splitlines()]
    assert set().union(*drawn) == set().union(*checked), "draw them in docs/how-a-job-flows.md, Layers"
    rows = {name: index for index, row in enumerate(drawn) for name in row}
    places = [[rows[name] for name in layer] for layer in checked]
    assert all(max(higher) <= min(lower) for higher, lower in pairwise(places))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_resolve(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", prose)
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_samples_fit_page_width(page: Path) -> None:
    samples = re.findall(r"^```\w+\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for sample in samples for line in sample.splitlines()]
    assert [line for line in lines if len(line) > SAMPLE_COLUMNS] == []


def test_images_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/images").iterdir()}
    assert {name: size for name, size in sizes.items() if size > IMAGE_BYTES} == {}
