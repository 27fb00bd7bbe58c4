"""Start the example on http://127.0.0.1:8000 with a clip: `python -m examples.fastapi_app`."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from examples.fastapi_app.app import create_app

from reel_modal.cli.demo import demo_clips


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("example-data"), help="where clips and exports are kept")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        create_app(arguments.folder, sample=demo_clips(arguments.folder).scene), host="127.0.0.1", port=arguments.port
    )


if __name__ == "__main__":
    main()
