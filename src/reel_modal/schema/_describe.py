"""JSON Schema, TypeScript types and documentation tables, made from the declarations of fields."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from reel_modal.schema._fields import Field, Record, fields_of
from reel_modal.schema.framing import FramingRequest
from reel_modal.schema.overlay import OverlayRequest
from reel_modal.schema.results import RenderResult
from reel_modal.schema.upscale import UpscaleRequest

__all__ = ["REQUESTS", "RESULTS", "attributes_of", "json_schema", "markdown_table", "records", "typescript"]

REQUESTS: Final[tuple[type[Record], ...]] = (OverlayRequest, FramingRequest, UpscaleRequest)
RESULTS: Final[tuple[type[Record], ...]] = (RenderResult,)
_NULL: Final = {"type": "null"}
_TYPES: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_ENTRY: Final = re.compile(r"    (\w+): (.*)")


def records() -> Iterator[type[Record]]:
    """Yield every record that requests and results are made of, the parts first."""
    seen: dict[type[Record], None] = {}

    def visit(kind: type[Record]) -> None:
        for field in fields_of(kind):
            for part in _parts(field.kind.schema):
                visit(part)
        seen.setdefault(kind)

    for kind in (*REQUESTS, *RESULTS):
        visit(kind)
    yield from seen


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of requests as hosts send them and of results as jobs return them.

    Fields have their canonical names. What concerns several fields at once, such as the order of keyframes, is
    checked by `parse` alone.
    """
    results = {part for kind in RESULTS for field in fields_of(kind) for part in _parts(field.kind.schema)}
    results |= {*RESULTS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Requests and results of reel_modal",
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in (*REQUESTS, *RESULTS)],
        "$defs": {kind.__name__: _object(kind, is_result=kind in results) for kind in records()},
    }


def typescript() -> str:
    """Return the same as types for TypeScript."""
    lines = ["// Requests and results of reel_modal, made by `reel-modal schema --typescript`."]
    for name, schema in _definitions().items():
        lines += ["", f"/** {_first(schema['description'])} */", f"export interface {name} {{"]
        for field, value in schema["properties"].items():
            mark = "" if field in schema["required"] else "?"
            lines += [f"  /** {_first(value['description'])} */", f"  {field}{mark}: {_type(value)};"]
        lines.append("}")
    for name, kinds in (("Request", REQUESTS), ("Result", RESULTS)):
        lines += ["", f"export type {name} = {' | '.join(kind.__name__ for kind in kinds)};"]
    return "\n".join(lines) + "\n"


def markdown_table(kind: type[Record], *, without: type[Record] | None = None) -> str:
    """Return a table of the fields of `kind`, without those that `without` has, too."""
    known = {field.name for field in fields_of(without)} if without is not None else set()
    described = attributes_of(kind)
    lines = ["| field | also accepted | values | default | |", "|---|---|---|---|---|"]
    for field in fields_of(kind):
        if field.name in known:
            continue
        names = field.sides or (field.name,)
        others = [name for name in (field.name, *field.aliases) if name not in names]
        cells = [_code(names), _code(others), field.kind.says, _default(field), described.get(field.name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def attributes_of(kind: type[Record]) -> dict[str, str]:
    """Return the description of each attribute in the docstring of a record."""
    found: dict[str, str] = {}
    lines = iter((inspect.getdoc(kind) or "").splitlines())
    name = ""
    for line in lines:
        if line == "Attributes:":
            break
    for line in lines:
        if (entry := _ENTRY.fullmatch(line)) is not None:
            name, found[entry[1]] = entry[1], entry[2]
        elif name and line.startswith("      "):
            found[name] += f" {line.strip()}"
        else:
            break
    return found


def _definitions() -> Mapping[str, Any]:
    definitions = json_schema()["$defs"]
    return definitions if isinstance(definitions, dict) else {}


def _object(kind: type[Record], *, is_result: bool) -> dict[str, object]:
    """Return the schema of one record. A result has all its fields; of a request those without a default."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    described = attributes_of(kind)
    for field in fields_of(kind):
        text = described.get(field.name, "")
        others = [alias for alias in field.aliases if "." not in alias]
        if others:
            text = f"{text} `parse` also takes {', '.join(others)}."
        text = text.strip().replace("None", "null")
        for name in field.sides or (field.name,):
            properties[name] = {"description": text, **_of_field(field, is_result=is_result)}
            if is_result or field.required:
                required.append(name)
    summary = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return {
        "type": "object",
        "description": summary,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _of_field(field: Field, *, is_result: bool) -> dict[str, Any]:
    """Return the schema of a field's value; of a request, null is the default."""
    schema = dict(field.kind.schema)
    if field.required or is_result:
        return schema
    choices = schema.get("anyOf", [schema])
    choices = choices if _NULL in choices else [*choices, _NULL]
    value = field.default if field.kind.write is None or field.default is None else field.kind.write(field.default)
    return {"anyOf": choices, "default": None if field.sides else value}


def _parts(schema: Mapping[str, Any]) -> Iterator[type[Record]]:
    """Yield the records that a schema refers to."""
    for each in (schema, *schema.get("anyOf", ()), schema.get("items", {})):
        if "$ref" in each:
            name = str(each["$ref"]).rpartition("/")[2]
            yield next(kind for kind in _subclasses(Record) if kind.__name__ == name)


def _subclasses(kind: type[Record]) -> Iterator[type[Record]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _type(schema: Mapping[str, Any]) -> str:
    """Return the TypeScript type of a schema."""
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(json.dumps(word) for word in schema["enum"])
    if schema["type"] == "array":
        return f"Array<{_type(schema['items'])}>"
    if schema["type"] == "object":
        return f"Record<string, {_type(schema['additionalProperties'])}>"
    return _TYPES[schema["type"]]


def _first(text: object) -> str:
    return str(text).replace("*/", "* /")


def _code(names: object) -> str:
    return ", ".join(f"`{name}`" for name in names) if isinstance(names, (tuple, list)) else ""


def _default(field: Field) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, Record):
        return "its defaults"
    if field.default == ():
        return "empty"
    value = field.default if field.kind.write is None else field.kind.write(field.default)
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`" if value else "empty"
