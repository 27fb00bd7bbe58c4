"""Functions of a host that break the contract of every function, each in one way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reel_modal import JobContext, RenderFunction, render_function
from reel_modal.functions.declaration import Work
from reel_modal.testing.contract import FunctionContract


@dataclass(frozen=True)
class CopyRequest:
    job_id: str
    input_key: str
    output_key: str


@dataclass(frozen=True)
class CopyResult:
    copied_bytes: int


def _copy(context: JobContext, key: str) -> Path:
    return Path(shutil.copy(context.fetch(key), context.workdir / "copy"))


def _declare(
    name: str, body: Callable[[CopyRequest, JobContext], CopyResult], **options: object
) -> RenderFunction[CopyRequest, CopyResult]:
    body.__module__ = __name__
    resources = {"cpu": 0.5, "memory_mb": 512, "timeout_seconds": 60}
    declare = render_function(name=name, request=CopyRequest, result=CopyResult, **resources, **options)  # type: ignore[arg-type]
    return declare(body)


def _silent(request: CopyRequest, context: JobContext) -> CopyResult:
    context.publish(_copy(context, request.input_key), request.output_key)
    return CopyResult(1)


def _unpublished(request: CopyRequest, context: JobContext) -> CopyResult:
    with context.reporter.phase("copy"):
        return CopyResult(_copy(context, request.input_key).stat().st_size)


def _untidy(request: CopyRequest, context: JobContext) -> CopyResult:
    with context.reporter.phase("copy"):
        Path("left.txt").write_text("left", encoding="utf-8")
    return _silent(request, context)


def _deaf(request: CopyRequest, context: JobContext) -> CopyResult:
    with context.reporter.phase("copy"):
        time.sleep(3)
    return _silent(request, context)


def _hasty(request: CopyRequest, context: JobContext) -> CopyResult:
    with context.reporter.phase("copy"):
        context.storage.publish(_copy(context, request.input_key), request.output_key)
    return _silent(request, context)


def _no_work(*_: object, **__: object) -> Work:
    return Work((0, 0), 0, 25)  # type: ignore[arg-type]


silent = _declare("silent", _silent)
unpublished = _declare("unpublished", _unpublished)
untidy = _declare("untidy", _untidy)
deaf = _declare("deaf", _deaf)
hasty = _declare("hasty", _hasty)
workless = _declare("workless", _silent, estimate=_no_work)


def local_declaration() -> RenderFunction[CopyRequest, CopyResult]:
    """Return a function that no other process finds."""
    return _declare("local_declaration", _silent)


class TestSilent(FunctionContract):
    function = silent


class TestUnpublished(FunctionContract):
    function = unpublished


class TestUntidy(FunctionContract):
    function = untidy


class TestDeaf(FunctionContract):
    function = deaf
    cancel_seconds = 1.0


class TestHasty(FunctionContract):
    function = hasty


class TestWorkless(FunctionContract):
    function = workless


class TestLocalDeclaration(FunctionContract):
    function = local_declaration()


class TestForgetfulRequest(FunctionContract):
    function = silent

    def request(self, keys: Mapping[str, str]) -> CopyRequest:
        return CopyRequest("always the same", keys["input_key"], keys["output_key"])
