"""Start the example on http://127.0.0.1:8001: `python -m examples.progress_page`."""

from __future__ import annotations

import argparse
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import uvicorn
from examples.progress_page.app import create_app

from reel_modal import FunctionRegistry, OverlayRequest, Settings, StoreOptions
from reel_modal.cli.demo import demo_clips, demo_overlay


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        (store / "in.mp4").write_bytes(demo_clips(store).scene.read_bytes())
        registry = FunctionRegistry(Settings.from_env(store_url=store.as_uri()))
        overlay = demo_overlay()

        everybody = StoreOptions(input_scope="global", output_scope="global")

        def new_request() -> OverlayRequest:
            number = uuid.uuid4().hex
            return replace(
                overlay, job_id=number, input_key="in.mp4", output_key=f"out/{number}.mp4", store=everybody
            )

        uvicorn.run(create_app(registry, new_request), host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
