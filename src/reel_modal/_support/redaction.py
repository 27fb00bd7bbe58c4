"""Remove secrets from text that is shown or logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["Redactor"]

_SECRET_NAME: Final = re.compile(r"(^|_)(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(_|$)")
_TOKEN: Final = re.compile(r"\b(?:ak|as)-(?=[A-Za-z]*\d)[A-Za-z0-9]{10,}")
_PASSWORD_IN_URL: Final = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_SHORTEST: Final = 8
_HIDDEN: Final = "[hidden]"


class Redactor:
    """Replaces secrets in text: Modal tokens, passwords in URLs, and every value passed to `add_secret`.

    Args:
        env: Environment variables. The value is a secret if the name contains KEY, SECRET, TOKEN, PASSWORD, PASSWD or
            CREDENTIALS between underscores and does not begin with REEL_MODAL_.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._values: set[str] = set()
        for name, value in env.items():
            # REEL_MODAL_SECRETS contains names, not secrets.
            if _SECRET_NAME.search(name.upper()) and not name.startswith("REEL_MODAL_"):
                self.add_secret(value)

    def add_secret(self, value: str | None) -> None:
        """Hide each line of `value` from now on, unless it has fewer than eight characters and could be a word."""
        for line in (value or "").splitlines():
            if len(line.strip()) >= _SHORTEST:
                self._values.add(line.strip())

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, _HIDDEN)
        return _PASSWORD_IN_URL.sub(_HIDDEN, _TOKEN.sub(_HIDDEN, text))
