"""One step of the trial, where only the image's packages are: `python -m reel_modal.deploy.trial WHAT [STORE_URL]`.

With `app` it imports the app as a container does; with a function's name it runs the body for the request on stdin.
It must import nothing that a container does not.
"""

from __future__ import annotations

import json
import sys

from reel_modal.config import Settings

__all__ = ["main"]


def main() -> None:
    """Do the step; what it raises ends the process, with its traceback."""
    what = sys.argv[1]
    if what == "app":
        from reel_modal.functions import app, container

        print(f"{app.app.name} and {container.__name__} can be imported")
        return
    from reel_modal.functions.bodies import NAMES, run_body

    if what == "bodies":
        print(json.dumps(sorted(NAMES)))
        return
    settings = Settings(store_url=sys.argv[2])
    result = run_body(what, json.load(sys.stdin), settings=settings, send=lambda _event: None)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
