"""The command `estimate`: the time and cost of a job before its submission."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from reel_modal.cli.requests import command_of, files_of, request_from
from reel_modal.errors import ConfigError, JobRefusedError, RequestError
from reel_modal.functions.catalog import all_functions

__all__ = ["add_arguments", "run"]

T = TypeVar("T")

_LIMITS = ("max_workers", "deadline_seconds", "max_usd")
_RESOURCES = ("gpu", "cpu", "memory_mb", "timeout_seconds", "region")


def add_arguments(parser: argparse.ArgumentParser, functions: Iterable[str]) -> None:
    """Add the arguments of the command; `functions` are the names of all functions."""
    parser.add_argument("input", type=Path, metavar="IN", help="the clip; of assemble_reel the JSON file")
    parser.add_argument("--function", required=True, choices=tuple(functions), help="with its own options")
    parser.add_argument("--spec", type=Path, help="JSON: a whole request, or its list, such as regions or crop")
    parser.add_argument("--on", choices=("modal", "local"), help="where the job would run; default by MODAL_ENABLED")
    parser.add_argument("--max-workers", type=int, metavar="N", help="use at most N machines")
    parser.add_argument("--deadline-seconds", type=float, metavar="S", help="end within S seconds")
    parser.add_argument("--max-usd", type=float, metavar="USD", help="cost at most USD dollars")
    resources = parser.add_argument_group("resources on Modal in place of the deployed ones")
    resources.add_argument("--gpu", help="such as L4 or A100-80GB:2")
    resources.add_argument("--cpu", type=float, metavar="CORES", help="reserved cores, 0.125 to 64")
    resources.add_argument("--memory-mb", type=int, metavar="MIB", help="reserved memory in MiB")
    resources.add_argument("--timeout-seconds", type=int, metavar="S", help="maximum duration of one call")
    resources.add_argument("--region", help="such as eu or us-east")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, options: Sequence[str] = ()) -> int:
    """Print the estimate; `options` are those of the function.

    Raises:
        RequestError: An option is not valid, or the request does not fit the clip.
        JobRefusedError: The job is above a limit; the estimate is printed.
    """
    from reel_modal._jobs.estimates import estimate
    from reel_modal._jobs.parallel import Parallel
    from reel_modal.functions.inputs import media_of
    from reel_modal.functions.resources import Resources
    from reel_modal.media import probe
    from reel_modal.settings import Settings

    functions = all_functions()
    function = functions[arguments.function]
    own_options = command_of(function).add_arguments
    parser = argparse.ArgumentParser(prog=f"reel-modal estimate --function {function.name}", usage="options")
    if own_options is not None:
        own_options(parser)
    parser.parse_args(options, arguments)
    arguments.output = Path("out.mp4")
    settings = Settings.from_env(modal_enabled=None if arguments.on is None else arguments.on == "modal")
    request, settings = request_from(function, arguments, settings)
    files = files_of(function, request, arguments.input)
    media = media_of(function.to_request(request), lambda key: probe(files[key], settings=settings))
    resources = _chosen(Resources, arguments, _RESOURCES)
    expected = estimate(request, media, settings=settings, functions=functions, resources=resources)
    parallel = _chosen(Parallel, arguments, _LIMITS)
    try:
        chosen = expected if parallel is None else expected.parallel(parallel, settings.budget_usd)
    except JobRefusedError:
        print(json.dumps(expected.to_dict()) if arguments.json else expected.to_text())
        raise
    print(json.dumps(chosen.to_dict()) if arguments.json else chosen.to_text())
    chosen.check(settings.budget_usd)
    return 0


def _chosen(kind: type[T], arguments: argparse.Namespace, names: Sequence[str]) -> T | None:
    """Return the `kind` of the options that are given; None without any."""
    given: dict[str, Any] = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    try:
        return kind(**given) if given else None
    except ConfigError as error:
        raise RequestError("", str(error)) from error
