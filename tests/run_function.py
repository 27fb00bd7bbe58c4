"""Run a function of the package in the test's process, and get its resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reel_modal.functions.catalog import all_functions, function_of
from reel_modal.functions.context import JobContext
from reel_modal.functions.runner import run_in_context
from reel_modal.functions.specs import FunctionSpec, spec_from_env
from reel_modal.schema import RenderResult
from reel_modal.schema.requests import Request


def run_function(request: Request[Any], context: JobContext) -> RenderResult:
    """Return the result of the function that takes `request`; its output is published."""
    result = run_in_context(function_of(request, all_functions()), request, context)
    assert isinstance(result, RenderResult)
    return result


def load_specs(env: Mapping[str, str] | None = None) -> dict[str, FunctionSpec]:
    """Return the resources of each function with the environment variables `env`; default: those of this process."""
    return {name: spec_from_env(function.spec, env) for name, function in all_functions(env={}).items()}


SPECS: Final = load_specs({})
"""Default resources by the name of the function."""

DEPLOYED: Final = {
    name: spec for function in all_functions(env={}).values() for name, spec in function.deployed_specs({}).items()
}
"""Default resources by the name of the function on Modal."""
