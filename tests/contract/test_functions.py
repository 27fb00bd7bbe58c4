"""The contract of every function, for those of this package and for three of a host."""

from __future__ import annotations

from pathlib import Path

from tests.clips import made_clip
from tests.contract import host_functions

from reel_modal.functions import builtin
from reel_modal.testing.contract import FunctionContract


class ShortClip(FunctionContract):
    def write_input(self, path: Path) -> None:
        made_clip(path, seconds=1, audio_seconds=1)


class TestRenderOverlay(ShortClip):
    function = builtin.render_overlay


class TestProcessFraming(ShortClip):
    function = builtin.process_framing


class TestApplyUpscale(ShortClip):
    function = builtin.apply_upscale


class TestAssembleReel(ShortClip):
    function = builtin.assemble_reel


class TestPlainDataclass(ShortClip):
    function = host_functions.copy_clip


class TestPydanticModel(ShortClip):
    function = host_functions.count_bytes
