"""Run the command line in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `reel-modal` with these arguments and environment variables."""
    command = [sys.executable, "-m", "reel_modal", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **env}
    )
