"""Find the declared functions: those of this package, those of installed packages, and those of named modules.

An installed package names its module in the entry point group `reel_modal.functions`; REEL_MODAL_FUNCTION_MODULES
names further modules, separated by commas.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeAlias

from reel_modal.errors import ConfigError, RequestError
from reel_modal.functions.declaration import RenderFunction

__all__ = ["MODULES_VARIABLE", "AnyFunction", "all_functions", "find_function", "function_of", "functions_in"]

AnyFunction: TypeAlias = RenderFunction[Any, Any]

MODULES_VARIABLE: Final = "REEL_MODAL_FUNCTION_MODULES"
_GROUP: Final = "reel_modal.functions"
_OWN_MODULE: Final = "reel_modal.functions.builtin"


def all_functions(
    functions: Iterable[AnyFunction] = (), *, env: Mapping[str, str] | None = None
) -> dict[str, AnyFunction]:
    """Return the functions by name: those of this package, of installed packages, of REEL_MODAL_FUNCTION_MODULES.

    Args:
        functions: Further functions of the caller.
        env: Default: this process's environment.

    Raises:
        ConfigError: Two functions have the same name, a module cannot be imported, or a function of the caller is not
            at the top level of a module that other processes can import.
    """
    named = (os.environ if env is None else env).get(MODULES_VARIABLE, "")
    modules = [_OWN_MODULE, *_installed_modules(), *filter(None, map(str.strip, named.split(",")))]
    found: dict[str, AnyFunction] = {}
    for function in (each for module in dict.fromkeys(modules) for each in functions_in(module)):
        _add(found, function)
    for function in functions:
        _add(found, _importable(function))
    return found


def functions_in(module: str) -> list[AnyFunction]:
    """Return the functions at the top level of a module, in the order of their declaration.

    Raises:
        ConfigError: The module cannot be imported, or declares no function.
    """
    try:
        names = vars(import_module(module))
    except Exception as error:  # the module is the host's: its code may raise anything
        raise ConfigError(f"the functions of {module!r} cannot be loaded: {type(error).__name__}: {error}") from error
    functions = {id(value): value for value in names.values() if isinstance(value, RenderFunction)}
    if not functions:
        raise ConfigError(f"the module {module!r} declares no function; see render_function")
    return list(functions.values())


def find_function(module: str, name: str) -> AnyFunction:
    """Return the function `name` that `module` declares.

    Raises:
        ConfigError: The module cannot be imported, or does not declare it.
    """
    for function in functions_in(module):
        if function.name == name:
            return function
    raise ConfigError(f"the module {module!r} declares no function {name!r}")


def function_of(request: object, functions: Mapping[str, AnyFunction]) -> AnyFunction:
    """Return the function that takes `request`.

    Raises:
        RequestError: No function, or more than one, takes this type.
    """
    fitting = [each for each in functions.values() if type(request) is each.request]
    fitting = fitting or [each for each in functions.values() if isinstance(request, each.request)]
    if len(fitting) == 1:
        return fitting[0]
    kind = type(request).__name__
    if not fitting:
        raise RequestError("", f"no function accepts a {kind}")
    names = " and ".join(each.name for each in fitting)
    raise RequestError("", f"{names} accept a {kind}; use registry[name].submit(request)")


def _importable(function: AnyFunction) -> AnyFunction:
    """Return `function` if another process finds it in its module."""
    cure = "declare it at the top level of a module that worker processes can import, beside its body"
    if function.module == "__main__":
        raise ConfigError(f"{function.name} is declared in the script that was started; {cure}")
    if not any(each is function for each in functions_in(function.module)):
        raise ConfigError(f"{function.name} is not found in {function.module!r}, the module of its body; {cure}")
    return function


def _add(found: dict[str, AnyFunction], function: AnyFunction) -> None:
    other = found.setdefault(function.name, function)
    if other is not function:
        raise ConfigError(f"{other.module} and {function.module} both declare a function {function.name!r}")


@cache
def _installed_modules() -> tuple[str, ...]:
    from importlib.metadata import entry_points

    return tuple(sorted(point.module for point in entry_points(group=_GROUP)))
