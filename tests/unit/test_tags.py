"""Tags of the app on Modal."""

from __future__ import annotations

import pytest

from reel_modal.deploy.tags import app_tags
from reel_modal.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", {}),
        (" ", {}),
        ("team=video", {"team": "video"}),
        ("team=video, cost-center=7.1_a", {"team": "video", "cost-center": "7.1_a"}),
    ],
)
def test_app_tags_valid_are_read(text: str, tags: dict[str, str]) -> None:
    assert app_tags({"REEL_MODAL_TAGS": text}) == tags


@pytest.mark.parametrize("text", ["team", "=video", "team=", "team=a b", "team=video,", "a=1,a=2", f"a={'x' * 64}"])
def test_app_tags_invalid_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="REEL_MODAL_TAGS="):
        app_tags({"REEL_MODAL_TAGS": text})
