"""Frozen dataclasses and pydantic models as requests and results of functions.

Such a value travels as JSON inside a `PlainRequest` or a `PlainResult`, so that the rest of the package knows only
requests and results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, Generic, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from reel_modal.errors import ConfigError, RequestError
from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import json_object
from reel_modal.schema.options import StoreOptions
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result

__all__ = ["Adapter", "PlainRequest", "PlainResult", "adapter_of"]

T = TypeVar("T")

_ANYONE: Final = "all"


@dataclass(frozen=True, slots=True)
class Adapter(Generic[T]):
    """Conversion of a type to and from JSON.

    Attributes:
        dump: Returns the value as a JSON object.
        load: Returns the value from a JSON object, or raises RequestError.
    """

    dump: Callable[[T], Mapping[str, object]]
    load: Callable[[Mapping[str, object]], T]


@record
class PlainRequest(Request[Any]):
    """A request of a type that is not a `Request`.

    Attributes:
        value: The request as JSON.
    """

    value: Mapping[str, object] = declared(converter=json_object())

    @classmethod
    def of(cls, request: object) -> Self:
        """Return `request` in the form in which it is submitted.

        Without a `user_id`, both keys are global unless the request has a `store`.

        Raises:
            RequestError: `job_id`, `input_key` or `output_key` is missing or not valid.
        """
        missing = [name for name in ("job_id", "input_key", "output_key") if not hasattr(request, name)]
        if missing:
            raise RequestError(missing[0], f"is missing in {type(request).__name__}; every request has it")
        user_id = getattr(request, "user_id", None)
        scope = StoreOptions(input_scope="global", output_scope="global") if user_id is None else StoreOptions()
        return cls(
            job_id=request.job_id,  # type: ignore[attr-defined]
            user_id=_ANYONE if user_id is None else user_id,
            input_key=request.input_key,  # type: ignore[attr-defined]
            output_key=request.output_key,  # type: ignore[attr-defined]
            store=getattr(request, "store", None) or scope,
            value=adapter_of(type(request)).dump(request),
        )

    def request_hash(self) -> str:
        """Return the SHA-256 of the request without its `job_id` and `store.existing`, as `Request.request_hash`."""
        value = {name: each for name, each in self.value.items() if name not in {"job_id", "store"}}
        # Not super(): dataclass(slots=True) creates the class again.
        return Request.request_hash(dataclasses.replace(self, value=value))


@record
class PlainResult(Result):
    """A result of a type that is not a `Result`.

    Attributes:
        value: The result as JSON.
    """

    value: Mapping[str, object] = declared(converter=json_object())


def adapter_of(kind: type[T]) -> Adapter[T]:
    """Return the adapter of a type.

    Raises:
        ConfigError: It is not a record, a frozen dataclass or a pydantic model.
    """
    if issubclass(kind, Record):
        if not issubclass(kind, Request | Result):
            raise ConfigError(f"{kind.__name__} must be a subclass of Request or Result")
        return Adapter(lambda value: value.to_dict(), kind.parse)  # type: ignore[attr-defined]
    if hasattr(kind, "model_validate") and hasattr(kind, "model_dump"):
        return Adapter(lambda value: value.model_dump(mode="json"), lambda raw: _validated(kind, raw))  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return Adapter(_dumped, lambda raw: _constructed(kind, raw))
    raise ConfigError(
        f"{kind.__name__} cannot be a request or a result: use a subclass of Request or Result, a frozen dataclass"
        " or a pydantic model"
    )


def _validated(kind: type[T], raw: Mapping[str, object]) -> T:
    try:
        return kind.model_validate(raw)  # type: ignore[attr-defined,no-any-return]
    except ValueError as error:  # pydantic's ValidationError is one
        raise RequestError("", f"is not a valid {kind.__name__}: {error}") from error


def _constructed(kind: type[T], raw: Mapping[str, object]) -> T:
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _nested(hints.get(name), value) for name, value in raw.items()})
    except (TypeError, ValueError) as error:
        raise RequestError("", f"is not a valid {kind.__name__}: {error}") from error


def _nested(kind: Any, value: object) -> object:
    """Return the value of a field from JSON: tuples, records and dataclasses as its annotation says."""
    for each in get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,):
        origin, parts = get_origin(each), get_args(each)
        if isinstance(value, Mapping) and isinstance(each, type):
            if issubclass(each, Record):
                return each.parse(value)
            if dataclasses.is_dataclass(each):
                return _constructed(each, value)
        if isinstance(value, Mapping) and origin in {dict, Mapping}:
            return {key: _nested(parts[1], part) for key, part in value.items()}
        if isinstance(value, list) and origin is tuple:
            kinds = [parts[0]] * len(value) if parts[-1:] == (...,) else parts
            return tuple(_nested(one, part) for one, part in zip(kinds, value, strict=True))
        if isinstance(value, list) and origin in {list, Sequence}:
            return [_nested(parts[0], part) for part in value]
    return value


def _dumped(value: object) -> Mapping[str, object]:
    return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}  # type: ignore[arg-type]


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dumped(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value
