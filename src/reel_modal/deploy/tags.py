"""Tags of the app on Modal, by which its bill can be grouped."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from reel_modal.errors import ConfigError

__all__ = ["app_tags"]

_VARIABLE: Final = "REEL_MODAL_TAGS"
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
"""Modal's own rule for names and values."""


def app_tags(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags that REEL_MODAL_TAGS names, such as `team=video,tenant=acme`.

    Args:
        env: Default: this process's environment.

    Raises:
        ConfigError: The variable is not valid.
    """
    text = (os.environ if env is None else env).get(_VARIABLE, "").strip()
    tags: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not _WORD.fullmatch(name) or not _WORD.fullmatch(value):
            raise ConfigError(
                f"{_VARIABLE}={text!r}: {part.strip()!r} is not NAME=VALUE, each of 1 to 63 letters, digits,"
                " dashes, dots and underscores"
            )
        if name in tags:
            raise ConfigError(f"{_VARIABLE}={text!r}: {name!r} occurs twice")
        tags[name] = value
    return tags
