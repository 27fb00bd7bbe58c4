"""Registries on an in-memory backend."""

from __future__ import annotations

import asyncio

from tests.jobs import rendered

from reel_modal import FunctionRegistry, JobOptions, Settings
from reel_modal.testing import InMemoryBackend, Script

NEVER = 1e9
"""More seconds than any test lets pass."""


def host(backend: InMemoryBackend, *scripts: Script, options: JobOptions | None = None) -> FunctionRegistry:
    backend.script("render_overlay", *scripts or [Script(rendered)])
    return FunctionRegistry(Settings(), backend=backend, options=options)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
