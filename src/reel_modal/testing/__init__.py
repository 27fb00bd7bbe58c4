"""Helpers for the tests of host applications: generated clips, a scripted backend, a manual clock.

This module imports neither modal nor OpenCV. `reel_modal.testing.contract` is a pytest plugin with the tests that
every function of a host must pass.
"""

from __future__ import annotations

from reel_modal._support.clock import ManualClock
from reel_modal.backends.memory import InMemoryBackend, Script, Submitted
from reel_modal.testing.clips import make_clip

__all__ = ["InMemoryBackend", "ManualClock", "Script", "Submitted", "make_clip"]
