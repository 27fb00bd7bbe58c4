"""The process that sends a deployment: `python -m reel_modal.deploy._publish_process RESULT TAG STRATEGY`.

It is a separate process so that its output is UTF-8 on every terminal, and so that it can be killed if Modal does not
answer. It exits if the command that started it dies: the deployed app does not change before the last request.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Final

__all__ = ["main"]

_TAIL_LINES: Final = 20


def main() -> None:
    """Deploy the app that the environment variables define, and write the outcome to the file RESULT as JSON."""
    result, tag, strategy = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    try:
        outcome = _deploy(tag, strategy)
    except Exception as error:  # noqa: BLE001 - the command reports every error
        outcome = _failure(error)
    result.write_text(json.dumps(outcome), encoding="utf-8")


def _deploy(tag: str, strategy: str) -> dict[str, object]:
    import modal

    from reel_modal.deploy.tags import app_tags
    from reel_modal.functions.app import app

    tags = app_tags()
    with modal.enable_output():
        app.deploy(tag=tag, strategy="recreate" if strategy == "recreate" else "rolling")
    if tags:  # a deploy without tags has removed those of the version before
        app.set_tags(tags)
    return {"ok": True, "url": app.get_dashboard_url()}


def _failure(error: Exception) -> dict[str, object]:
    import modal.exception

    from reel_modal.backends.modal._errors import remote_error
    from reel_modal.errors import ConfigError

    if isinstance(error, ConfigError):
        return {"ok": False, "kind": "config", "message": str(error)}
    if isinstance(error, modal.exception.Error):
        # During a deployment Modal raises a bare RemoteError if an image build fails.
        image = isinstance(error, modal.exception.RemoteError)
        kind = "image" if image else remote_error(error, function="", call_id=None).kind
        return {"ok": False, "kind": kind, "message": str(error) or type(error).__name__}
    tail = "".join(traceback.format_exception(error)).splitlines()[-_TAIL_LINES:]
    return {"ok": False, "kind": "unexpected", "message": "\n".join(tail)}


def _end_with_the_command() -> None:
    """Exit at once when stdin closes: the command that started this process has died."""
    # Not through sys.stdin, whose lock would block a normal exit of this process.
    while os.read(0, 1):
        continue
    os._exit(1)


if __name__ == "__main__":
    main()
