"""The base classes of all requests: ids, keys, options of the store, and the hash; for videos also the encoding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Generic, Self, TypedDict, TypeVar, Unpack

from reel_modal.errors import InvalidKeyError, RequestError
from reel_modal.schema._fields import Raw, Record, declared, decode, record
from reel_modal.schema._kinds import JOB_ID, KEY, OUTPUT_RATE, USER_ID, Rate, nested
from reel_modal.schema.containers import container_problem
from reel_modal.schema.keys import is_below, receipt_key, same_object, store_key
from reel_modal.schema.options import EncodeOptions, StoreOptions
from reel_modal.schema.results import RenderResult, Result

__all__ = ["Request", "SetByServer", "VideoRequest"]

R = TypeVar("R", bound=Result)


class SetByServer(TypedDict, total=False):
    """Fields of a request that a server sets itself; a browser must not send them."""

    job_id: str | int
    user_id: str | int
    input_key: str
    output_key: str
    store: StoreOptions


@record
class Request(Record, Generic[R]):
    """Base class of the requests that a host submits; `R` is the type of the result.

    A function of a host declares its request as a subclass, a `record` with further fields.

    Attributes:
        job_id: Job id, chosen by the host. One job id identifies one request.
        user_id: Id of the user that the job is for.
        input_key: Storage key of the input, such as a clip.
        output_key: Storage key of the output.
        store: Scopes of the two keys, and handling of an existing output.

    Example:
        >>> @record
        ... class ThumbnailRequest(Request[ThumbnailResult]):
        ...     width_px: int = declared(converter=integer(16, 4096), default=320, aliases=("width",))
    """

    job_id: str = declared(converter=JOB_ID)
    user_id: str = declared(converter=USER_ID)
    input_key: str = declared(converter=KEY)
    output_key: str = declared(converter=KEY)
    store: StoreOptions = declared(converter=nested(StoreOptions), default=StoreOptions())

    @classmethod
    def parse(cls, raw: Raw, **given: Unpack[SetByServer]) -> Self:
        """Return the request parsed from JSON or a mapping; accepts snake_case, camelCase and older names.

        Args:
            raw: JSON text, or a mapping.
            **given: Fields that the server sets itself; `raw` must not contain them.

        Raises:
            RequestError: A field is invalid, unknown, missing, or given twice with different values; `path` names it.
        """
        return cls.from_mapping(decode(raw, cls._noun), **given)

    def stored_input(self, key: str) -> str:
        """Return the key in the store of the input `key`, with the user's prefix if the scope is `user`."""
        return store_key(key, self.store.input_scope, self.user_id)

    def stored_output(self, key: str) -> str:
        """Return the key in the store of the output `key`, with the user's prefix if the scope is `user`."""
        return store_key(key, self.store.output_scope, self.user_id)

    def stored_keys(self) -> tuple[str, str]:
        """Return the keys in the store of the input and of the output; of several inputs, the first."""
        return self.stored_input(self.input_key), self.stored_output(self.output_key)

    def input_keys(self) -> dict[str, str]:
        """Return the keys of all inputs by the path of their field; `input_key` is the first of them."""
        return {"input_key": self.input_key}

    def clip_keys(self) -> dict[str, str]:
        """Return the keys of the inputs that are clips; an estimate needs the headers of these.

        A subclass leaves out inputs that are no videos, such as music.
        """
        return self.input_keys()

    def stored_inputs(self) -> tuple[str, ...]:
        """Return the key in the store of each input, in the order of `input_keys`."""
        return tuple(map(self.stored_input, self.input_keys().values()))

    def request_hash(self) -> str:
        """Return the SHA-256 of the request, in hexadecimal, without its `job_id` and `store.existing`."""
        import hashlib

        hashed = self.to_dict()
        del hashed["job_id"]
        # The handling of an existing output does not change the output.
        hashed["store"] = {name: value for name, value in self.store.to_dict().items() if name != "existing"}
        text = json.dumps(_numbers_alike(hashed), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self) -> None:
        keys = [(path, key, self.store.input_scope) for path, key in self.input_keys().items()]
        for path, key, scope in (*keys, ("output_key", self.output_key, self.store.output_scope)):
            try:
                receipt_key(store_key(key, scope, self.user_id), "0" * 64)
            except InvalidKeyError as error:
                raise RequestError(path, str(error)) from error
        output = self.stored_output(self.output_key)
        for path, key, _ in keys:
            source, name = self.stored_input(key), "the input key" if path == "input_key" else path
            if same_object(source, output):
                raise RequestError("output_key", f"is the same as {name}, {key!r}; use another key")
            if is_below(source, output) or is_below(output, source):
                raise RequestError("output_key", f"and {key!r} cannot both exist in a folder; use another key")
        self._check_edit()

    def _check_edit(self) -> None:
        """Raise RequestError if the fields of a subclass contradict each other."""


@record
class VideoRequest(Request[RenderResult]):
    """Base class of the requests whose output is a video.

    Attributes:
        encode: Encoding options.
        rate: `constant` renders a clip with a variable frame rate at the lowest standard rate that drops at most 1 %
            of its frames; `source` keeps the timestamp of each frame; a number is a constant rate in frames per
            second, reached by repeating and dropping frames. A clip with a constant rate keeps it unless a number is
            given.
    """

    encode: EncodeOptions = declared(converter=nested(EncodeOptions), default=EncodeOptions())
    rate: Rate = declared(converter=OUTPUT_RATE, default="constant", added_later=True)

    @property
    def output_rate(self) -> Rate:
        """Requested frame rate."""
        return self.rate

    def _check(self) -> None:
        if (problem := container_problem(self.output_key, self.encode.encoder)) is not None:
            raise RequestError("output_key", f"is {self.output_key!r}: {problem}")
        # Not super(): dataclass(slots=True) creates the class again.
        Request._check(self)  # noqa: SLF001


def _numbers_alike(value: object) -> object:
    """Return the same JSON value with whole floats as integers, so that 3 and 3.0 have the same hash."""
    if isinstance(value, Mapping):
        return {key: _numbers_alike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
