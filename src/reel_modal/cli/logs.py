"""The command `logs`: the last lines that a machine has written during a job."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from reel_modal.client import FunctionRegistry

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print the log of the job `arguments.job`.

    Raises:
        ConfigError: The id or the number of lines is not valid.
        RemoteError: The log is not available, or Modal is unreachable.
    """
    lines = asyncio.run(_read(arguments.job, arguments.lines))
    if arguments.json:
        print(json.dumps({"job": arguments.job, "lines": lines}))
        return 0
    for line in lines:
        print(line)
    if not lines:
        print("the log of the job is empty, or has not arrived yet", file=sys.stderr)
    return 0


async def _read(job: str, lines: int) -> tuple[str, ...]:
    async with FunctionRegistry.from_env() as registry:
        return await registry.attach(job).logs(lines)
