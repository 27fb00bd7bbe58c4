"""The public API as text, with one line for each name, parameter list, field and member.

`python -m tests.public_api > tests/unit/public_api.txt` updates the stored text after an intended change.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import get_origin

MODULES = (
    "reel_modal",
    "reel_modal.errors",
    "reel_modal.schema",
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


if __name__ == "__main__":
    print("\n".join(lines()))
