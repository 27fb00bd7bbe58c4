"""Run the process that sends a deployment, show its output, and end it after a timeout.

Does not import modal; only that process does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal._support.interruption import hold_interruptions
from reel_modal._support.scratch import scratch_dir
from reel_modal.deploy.children import kill_group
from reel_modal.deploy.console import Console
from reel_modal.deploy.exit_codes import deployment_error
from reel_modal.functions.catalog import MODULES_VARIABLE
from reel_modal.functions.contract import package_folder

__all__ = ["Deployment", "child_environment", "publish"]

_PACKAGE_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_TAIL_LINES: Final = 30
_END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """The app to deploy, and its options.

    Attributes:
        environment: production, staging, development or test.
        app: Base name of the app.
        functions: Names of the app's functions.
        modules: Modules that declare functions, separated by commas, besides those of installed packages.
        packages: Top-level packages that declare functions.
        tag: Tag of this version in Modal's history of the app.
        strategy: `rolling` lets old containers finish, `recreate` ends them.
        timeout_seconds: Timeout of the deployment, including image builds.
    """

    environment: str
    app: str
    functions: tuple[str, ...]
    modules: str = ""
    packages: tuple[str, ...] = ()
    tag: str = ""
    strategy: str = "rolling"
    timeout_seconds: float = 1800.0

    def variables(self) -> dict[str, str]:
        """Return the environment variables that make `functions.app` define this deployment."""
        return {
            "REEL_MODAL_ENVIRONMENT": self.environment,
            "REEL_MODAL_APP": self.app,
            "REEL_MODAL_FUNCTIONS": ",".join(self.functions),
            MODULES_VARIABLE: self.modules,
        }


def publish(deployment: Deployment, console: Console) -> str:
    """Send the deployment, show the process's output, and return the URL of the app's page on Modal.

    Raises:
        DeploymentError: The app was not deployed, or it is unknown whether it was.

    Cancellation: KeyboardInterrupt ends the process that sends the deployment.
    """
    with scratch_dir() as folder:
        result = folder / "result.json"
        command = [sys.executable, "-P", "-m", "reel_modal.deploy._publish_process"]
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        process: subprocess.Popen[bytes] | None = None
        try:
            with hold_interruptions():
                process = subprocess.Popen(
                    [*command, str(result), deployment.tag, deployment.strategy],
                    env=child_environment(os.environ, deployment.variables(), deployment.packages),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C must reach only the command, which then ends this process.
                    start_new_session=True,
                )
                reader = threading.Thread(target=_show, args=(process, console, tail), daemon=True)
                reader.start()
            process.wait(deployment.timeout_seconds)
        except subprocess.TimeoutExpired as error:
            message = f"the deployment was not finished after {deployment.timeout_seconds:g} s, and was ended"
            raise deployment_error("timeout", message) from error
        finally:
            if process is not None:
                kill_group(process)
                reader.join(_END_SECONDS)
                if process.stdin is not None:
                    process.stdin.close()
        return _read(result, process.returncode, list(tail))


def child_environment(
    env: Mapping[str, str], variables: Mapping[str, str], packages: Iterable[str] = ()
) -> dict[str, str]:
    """Return the environment of a Python process that can import this package and `packages`, and writes UTF-8."""
    roots = [str(_PACKAGE_ROOT), *(str(package_folder(name).parent) for name in packages)]
    paths = [*dict.fromkeys(roots), *filter(None, [env.get("PYTHONPATH")])]
    return {
        **env,
        **variables,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        # Secrets cannot be found in wrapped lines.
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
            console.info(f"  {line}")


def _read(result: Path, status: int, tail: list[str]) -> str:
    try:
        outcome = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        output = "\n".join(tail) or "nothing"
        problem = f"the process that sent the deployment ended with status {status}; its last lines:\n{output}"
        raise deployment_error("unknown", problem) from error
    if outcome["ok"]:
        return str(outcome["url"])
    message = str(outcome["message"])
    if outcome["kind"] == "image":
        message = "\n".join([message, "last lines of the build:", *(f"  {line.strip()}" for line in tail[-10:])])
    raise deployment_error(str(outcome["kind"]), message)
