"""Hash everything that determines the bytes of a segment."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from reel_modal.schema.requests import Request

__all__ = ["Rendering"]

_FORMAT: Final = 1
_WITHOUT_EFFECT: Final = frozenset({"job_id", "user_id", "input_key", "output_key", "store"})
_MODULES: Final = ("av", "cv2", "numpy")
"""Modules that decode and draw. Packages with different names contain them, so the modules state their versions."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """Everything that determines the bytes of all segments of an output.

    Attributes:
        source: Key and version of the input, and versions of all other inputs.
        request: The request.
        function: Name of the function.
        engine: What makes the frames, such as the network with its device and precision.
        encoding: The encoding command, from the raw frames to the options of the encoder.
        ffmpeg: Version and build of the ffmpeg that encodes.
        code: Hash of the code that renders.
    """

    source: str
    request: Request[Any]
    function: str
    engine: str
    encoding: Sequence[str]
    ffmpeg: str
    code: str

    def hash(self) -> str:
        """Return the SHA-256, 64 hexadecimal digits. Ids and keys of the request do not change it."""
        fields = self.request.to_dict()
        facts = {
            "format": _FORMAT,
            "source": self.source,
            "request": {name: value for name, value in fields.items() if name not in _WITHOUT_EFFECT},
            "function": self.function,
            "engine": self.engine,
            "encoding": list(self.encoding),
            "ffmpeg": self.ffmpeg,
            "code": self.code,
            "libraries": {name: import_module(name).__version__ for name in _MODULES},
            "machine": platform.machine(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
