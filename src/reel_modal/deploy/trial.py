"""One preflight step, run with only the image's packages: `python -m reel_modal.deploy.trial STEP [ARGUMENTS]`.

`app` imports the app as a container does; `run MODULE FUNCTION STORE_URL` runs a function for the request on stdin.
Imports only packages that a container has.
"""

from __future__ import annotations

import json
import sys

from reel_modal.settings import Settings

__all__ = ["main"]


def main() -> None:
    """Run the step; an error ends the process with a traceback."""
    step, *arguments = sys.argv[1:]
    if step == "app":
        from reel_modal.functions import app, container

        print(f"{app.app.name} and {container.__name__} can be imported")
        return
    from reel_modal.functions.catalog import find_function
    from reel_modal.functions.runner import run_job

    module, name, store_url = arguments
    function, settings = find_function(module, name), Settings(store_url=store_url)
    result = run_job(function, json.load(sys.stdin), settings=settings, send=lambda _event: None)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
