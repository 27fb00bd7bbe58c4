"""The request of a function from the options of its command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reel_modal.errors import RequestError
from reel_modal.functions.adapters import adapter_of
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.declaration import Command
from reel_modal.settings import Settings

__all__ = ["command_of", "file_help", "files_of", "request_from"]


def command_of(function: AnyFunction) -> Command:
    """Return the command line of a function; by default its request is in a JSON file."""
    return function.command or Command(help=f"run {function.name}")


def file_help(command: Command) -> str:
    """Return the help of the option for the JSON file."""
    return f"JSON: the list `{command.file_list}`, or a whole request" if command.file_list else "JSON: a request"


def request_from(function: AnyFunction, arguments: argparse.Namespace, settings: Settings) -> tuple[Any, Settings]:
    """Return the request that the options describe, and the settings to use.

    Raises:
        RequestError: The file cannot be read, or the request is not valid.
    """
    from reel_modal.cli.render import keys_of

    command, keys = command_of(function), keys_of(arguments.output)
    fields: Mapping[str, object] = {}
    if command.fields is not None:
        fields, settings = command.fields(arguments, settings)
    spec: Path | None = getattr(arguments, "spec", None)
    if command.inputs_in_file:
        spec = arguments.input
        del keys["input_key"]
    if spec is not None:
        fields = {**_read_fields(spec, command.file_list), **fields}
    elif command.file_list:
        fields = {command.file_list: [], **fields}
    replaced = {*keys, "jobId", "userId", "inputKey", "outputKey"}
    request = {key: value for key, value in fields.items() if key not in replaced} | keys
    return adapter_of(function.request).load(request), settings


def files_of(function: AnyFunction, request: object, typed: Path) -> dict[str, Path]:
    """Return the file of each input key of a request.

    Args:
        function: The function.
        request: The request from `request_from`.
        typed: The first argument of the command: the input, or the JSON file that names the inputs.
    """
    submitted = function.to_request(request)
    if not command_of(function).inputs_in_file:
        return {submitted.input_key: typed}
    return {key: typed.parent / key for key in submitted.input_keys().values()}


def _read_fields(path: Path, list_name: str) -> dict[str, object]:
    """Return the fields in a JSON file: those of a whole request, or only its list."""
    from reel_modal.schema._fields import LONGEST_TEXT, decode_json

    what = f"a request, or its list `{list_name}`" if list_name else "a request"
    try:
        with path.open("rb") as file:
            raw = decode_json(file.read(LONGEST_TEXT + 1), f"the file {str(path)!r}")
    except (OSError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("", f"{str(path)!r} cannot be read: {error}") from error
    if isinstance(raw, list) and list_name:
        return {list_name: raw}
    if not isinstance(raw, dict):
        raise RequestError("", f"{str(path)!r} must contain {what}")
    return raw
