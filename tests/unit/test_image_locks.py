"""Lock files of the images, against the pins and pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.run_function import DEPLOYED

from reel_modal.functions import image_locks
from reel_modal.functions.image_locks import BASE_LOCK, LOCKS, lock_of, locked_versions
from reel_modal.functions.specs import ImageSpec

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"base": ImageSpec(), **{name: spec.image for name, spec in DEPLOYED.items()}}


@pytest.mark.parametrize("name", IMAGES)
def test_lock_of_image_has_its_pins(name: str) -> None:
    lock = lock_of(IMAGES[name])
    assert lock is not None, "the lock files are older than the pins: make lock"
    versions = locked_versions(lock)
    for text in IMAGES[name].packages:
        requirement = Requirement(text)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda lock: lock.stem)
def test_lock_agrees_with_pyproject(lock: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [*declared["dependencies"], *declared["optional-dependencies"]["models"]]
    allowed = {canonicalize_name(Requirement(text).name): Requirement(text).specifier for text in texts}
    same_module = {"opencv-python-headless": "opencv-python", "onnxruntime-gpu": "onnxruntime"}
    versions = {same_module.get(name, name): version for name, version in locked_versions(lock).items()}
    outside = {
        name: version for name, version in versions.items() if name in allowed and version not in allowed[name]
    }
    assert not outside, "the lock files do not agree with pyproject.toml: change the pins, then make lock"
    assert len(versions.keys() & allowed.keys()) >= 5


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda lock: lock.stem)
def test_lock_has_hashes_of_every_package(lock: Path) -> None:
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock.read_text("utf-8"), flags=re.MULTILINE))
    assert len(blocks) == len(locked_versions(lock))
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)


def test_locks_agree_about_shared_packages() -> None:
    base = locked_versions(BASE_LOCK)
    for lock in LOCKS.glob("*.txt"):
        assert base.items() <= locked_versions(lock).items()


def test_lock_of_changed_pins_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert lock_of(ImageSpec(pip=("numpy==2.4.5",))) is None
    assert lock_of(ImageSpec(pip=("pillow==12.0.0",))) is None
    monkeypatch.setattr(image_locks, "LOCKS", tmp_path)  # a container has no lock files
    assert lock_of(ImageSpec()) is None
