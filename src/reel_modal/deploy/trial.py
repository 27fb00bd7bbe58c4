"""One preflight step, run with only the image's packages: `python -m reel_modal.deploy.trial WHAT [STORE_URL]`.

`app` imports the app as a container does; `bodies` prints the names of the bodies; a function's name runs its body
for the request on stdin. Imports only packages that a container has.
"""

from __future__ import annotations

import json
import sys

from reel_modal.settings import Settings

__all__ = ["main"]


def main() -> None:
    """Run the step; an error ends the process with a traceback."""
    step = sys.argv[1]
    if step == "app":
        from reel_modal.functions import app, container

        print(f"{app.app.name} and {container.__name__} can be imported")
        return
    from reel_modal.functions.runner import FUNCTION_NAMES, run_job

    if step == "bodies":
        print(json.dumps(sorted(FUNCTION_NAMES)))
        return
    settings = Settings(store_url=sys.argv[2])
    result = run_job(step, json.load(sys.stdin), settings=settings, send=lambda _event: None)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
