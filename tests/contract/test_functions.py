"""The contract of every function, for those of this package and for three of a host."""

from __future__ import annotations

from tests.contract import host_functions

from reel_modal.functions import builtin
from reel_modal.testing.contract import FunctionContract


class TestRenderOverlay(FunctionContract):
    function = builtin.render_overlay


class TestProcessFraming(FunctionContract):
    function = builtin.process_framing


class TestApplyUpscale(FunctionContract):
    function = builtin.apply_upscale


class TestPlainDataclass(FunctionContract):
    function = host_functions.copy_clip


class TestPydanticModel(FunctionContract):
    function = host_functions.count_bytes
