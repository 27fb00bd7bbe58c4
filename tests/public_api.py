"""The public API as text, with one line for each name, parameter list, field and member.

`python -m tests.public_api > tests/unit/public_api.txt` updates the stored text after an intended change.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import get_args, get_origin

REFERENCE = Path(__file__).parents[1] / "docs/reference.md"

MODULES = (
    "reel_modal",
    "reel_modal.errors",
    "reel_modal.schema",
    "reel_modal.schema.fields",
    "reel_modal.storage",
    "reel_modal.progress",
    "reel_modal.media",
    "reel_modal.testing",
)


def lines() -> Iterator[str]:
    """Yield the API of every public module; an object that two modules export is described once."""
    described: dict[int, str] = {}
    for module_name in MODULES:
        module = import_module(module_name)
        for name in sorted(module.__all__):
            path, value = f"{module_name}.{name}", getattr(module, name)
            if id(value) in described:
                yield f"{path} is {described[id(value)]}"
            else:
                described[id(value)] = path
                yield from _described(path, value)


def _described(path: str, value: object) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"{path}{_signature(value)}" if inspect.isroutine(value) else f"{path}: {_alias(value)}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__)
    yield f"class {path}({bases})"
    if is_dataclass(value):
        yield from (f"{path}.{field.name}: {field.type}" for field in fields(value) if field.name[0] != "_")
    else:
        yield f"{path}{_signature(value)}"
    for name in sorted(vars(value)):
        member = inspect.getattr_static(value, name)
        if name.startswith("_") or name in getattr(value, "__dataclass_fields__", {}):
            continue
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        yield f"{path}.{name}{_signature(member)}"


def _alias(value: object) -> str:
    """Return a type alias or a constant without module names."""
    return re.sub(r"\breel_modal\.(?:\w+\.)*", "", repr(value) if get_origin(value) else type(value).__name__)


def _signature(value: object) -> str:
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    # A default that is an object: its name, without its module and address.
    return re.sub(r"<(?:function )?(?:[\w.]+\.)?(\w+)(?: object)? at 0x\w+>", r"\1", text)


def documented(reference: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each object of the reference: its path, its written parameters and its members, each None if not given."""
    for block in re.findall(r"^\.\. auto(?:class|function|data):: .*\n(?:   .*\n)*", reference, re.MULTILINE):
        path, parameters = re.findall(r":: ([\w.]+)(\(.*\))?$", block, re.MULTILINE)[0]
        members = re.findall(r":members:(.*)", block)
        yield path, parameters or None, members[0].strip() if members else None


def undocumented_types(reference: str) -> set[tuple[str, str]]:
    """Return (object, class) for each class of this package that a documented signature shows and `reference` lacks."""
    entries = {path: (_imported(path), parameters, members) for path, parameters, members in documented(reference)}
    known = {id(value) for value, _, _ in entries.values()}
    found: set[tuple[str, str]] = set()
    for path, (value, parameters, members) in entries.items():
        shown = {} if parameters else {path: value}
        if inspect.isclass(value):
            names = [name for name in vars(value) if name[0] != "_"] if members == "" else (members or "").split(", ")
            shown |= {f"{path}.{name}": inspect.getattr_static(value, name) for name in names if name in dir(value)}
        for place, one in shown.items():
            for kind in _classes_of(one):
                if id(kind) not in known and not issubclass(kind, BaseException):
                    found.add((place, f"{kind.__module__}.{kind.__qualname__}"))
    return found


def _imported(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _classes_of(value: object) -> Iterator[type]:
    """Yield the classes of this package in the annotations of a function, a property or a constructor."""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    annotations += [signature.return_annotation, *getattr(function, "__annotations__", {}).values()]
    scope = vars(sys.modules[function.__module__])  # type: ignore[attr-defined]
    for annotation in annotations:
        if isinstance(annotation, str):
            for name in re.findall(r"[A-Za-z_][\w.]*", re.sub(r"'[^']*'|\"[^\"]*\"", "", annotation)):
                yield from _classes_in(_named(name, scope))
        else:
            yield from _classes_in(annotation)


def _named(name: str, scope: dict[str, object]) -> object:
    """Return the object with this name; a class that is imported for type checkers only is found by its name."""
    first, *rest = name.split(".")
    if first in scope:
        return reduce(lambda owner, attribute: getattr(owner, attribute, None), rest, scope[first])
    return next((vars(module)[first] for module in _package() if first in vars(module)), None)


def _package() -> list[object]:
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("reel_modal.")]


def _classes_in(value: object) -> Iterator[type]:
    if inspect.isclass(value) and value.__module__.startswith("reel_modal"):
        yield value
    for part in get_args(value):
        yield from _classes_in(part)


if __name__ == "__main__":
    print("\n".join(lines()))
