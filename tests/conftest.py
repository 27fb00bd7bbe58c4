"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import clip_cache
from tests.browser import browser, page, page_errors
from tests.clips import Clips
from tests.object_store import ObjectStore
from tests.visible_cpus import VisibleCpus

__all__ = ["browser", "page", "page_errors"]

# On a shared machine, a slow example proves nothing; the test's timeout is the limit.
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", parent=settings.get_profile("dev"), max_examples=100, derandomize=True, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A statically linked ffmpeg under test crashes in the machine's iconv modules; the library sets this for its ffmpeg.
os.environ.setdefault("GCONV_PATH", os.devnull)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        clip_cache.delete_unused()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def visible_cpus(tmp_path_factory: pytest.TempPathFactory) -> VisibleCpus:
    """Return an object that fakes the number of CPUs that processes see."""
    return VisibleCpus(tmp_path_factory.mktemp("visible-cpus"))


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The S3 server of the test run. Each test uses a separate prefix."""
    with ObjectStore(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The S3 server, with its credentials in the environment."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return object_store
