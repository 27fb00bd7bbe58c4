"""Starts the process that sends a deployment, shows what it prints, and ends it when it takes too long.

It must not load modal: that process does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal.deploy.children import kill_group
from reel_modal.deploy.console import Console
from reel_modal.deploy.outcome import deployment_error
from reel_modal.interruption import hold_interruptions
from reel_modal.scratch import scratch_folder

__all__ = ["Deployment", "child_environment", "publish"]

_PACKAGE_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_TAIL_LINES: Final = 30
_END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What to deploy, and under which name.

    Attributes:
        environment: production, staging, development or test.
        app: Base name of the app.
        functions: Those that it has.
        tag: Kept with this version in Modal's history of the app.
        strategy: `rolling` lets old containers finish, `recreate` ends them.
        timeout_seconds: Longest for sending it, image builds included.
    """

    environment: str
    app: str
    functions: tuple[str, ...]
    tag: str = ""
    strategy: str = "rolling"
    timeout_seconds: float = 1800.0

    def variables(self) -> dict[str, str]:
        """Return the environment variables that make `functions.app` this deployment."""
        return {
            "REEL_MODAL_ENVIRONMENT": self.environment,
            "REEL_MODAL_APP": self.app,
            "REEL_MODAL_FUNCTIONS": ",".join(self.functions),
        }


def publish(deployment: Deployment, console: Console) -> str:
    """Send the deployment, showing what is said of it meanwhile, and return the address of its page.

    Raises:
        DeploymentError: It was not deployed, or nobody knows whether it was.

    Cancellation: KeyboardInterrupt ends the process that sends it.
    """
    with scratch_folder() as folder:
        result = folder / "result.json"
        command = [sys.executable, "-P", "-m", "reel_modal.deploy.publisher"]
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        process: subprocess.Popen[bytes] | None = None
        try:
            with hold_interruptions():
                process = subprocess.Popen(
                    [*command, str(result), deployment.tag, deployment.strategy],
                    env=child_environment(os.environ, deployment.variables()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C is for the command alone, which ends this process in its own time.
                    start_new_session=True,
                )
                reader = threading.Thread(target=_show, args=(process, console, tail), daemon=True)
                reader.start()
            process.wait(deployment.timeout_seconds)
        except subprocess.TimeoutExpired as error:
            waited = f"the deployment was not through after {deployment.timeout_seconds:g} s, and was ended"
            raise deployment_error("timeout", waited) from error
        finally:
            if process is not None:
                kill_group(process)
                reader.join(_END_SECONDS)
                if process.stdin is not None:
                    process.stdin.close()
        return _read(result, process.returncode, list(tail))


def child_environment(env: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Python process that has this package and writes UTF-8."""
    known = [str(_PACKAGE_ROOT), *filter(None, [env.get("PYTHONPATH")])]
    return {
        **env,
        **variables,
        "PYTHONPATH": os.pathsep.join(known),
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        # A line that is wrapped cannot be searched for secrets.
        "COLUMNS": "400",
        "TERM": "dumb",
    }


def _show(process: subprocess.Popen[bytes], console: Console, tail: deque[str]) -> None:
    if process.stdout is None:
        return
    with process.stdout:
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            tail.append(line)
            console.say(f"  {line}")


def _read(result: Path, status: int, tail: list[str]) -> str:
    try:
        said = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        words = "\n".join(tail) or "nothing"
        ended = f"the process that sent the deployment ended with status {status}; it said last:\n{words}"
        raise deployment_error("unknown", ended) from error
    if said["ok"]:
        return str(said["url"])
    message = str(said["message"])
    if said["kind"] == "image":
        message = "\n".join([message, "the build said last:", *(f"  {line.strip()}" for line in tail[-10:])])
    raise deployment_error(str(said["kind"]), message)
