"""The base of all requests: ids, keys, encoding, storing, and the hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self, TypedDict, Unpack

from reel_modal.errors import InvalidKeyError, RequestError
from reel_modal.schema._fields import Raw, Record, declared, decode, record
from reel_modal.schema._kinds import JOB_ID, KEY, OUTPUT_RATE, USER_ID, Rate, nested
from reel_modal.schema.containers import container_problem
from reel_modal.schema.encoding import EncodeOptions
from reel_modal.schema.keys import is_below, receipt_key, same_object, store_key
from reel_modal.schema.storing import StoreOptions

__all__ = ["Request", "SetByServer"]


class SetByServer(TypedDict, total=False):
    """Fields of a request that a server sets itself, whatever a browser sends."""

    job_id: str | int
    user_id: str | int
    input_key: str
    output_key: str
    store: StoreOptions


@record
class Request(Record):
    """A request that a host submits; the base of all requests.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.
        rate: `constant` renders a clip whose frame rate varies at the smallest standard rate that keeps its pictures;
            `source` keeps the time of each picture; a number of frames a second is that rate, by repeating and
            dropping. A clip of a constant rate keeps it unless a number is given.
    """

    job_id: str = declared(converter=JOB_ID)
    user_id: str = declared(converter=USER_ID)
    input_key: str = declared(converter=KEY)
    output_key: str = declared(converter=KEY)
    encode: EncodeOptions = declared(converter=nested(EncodeOptions), default=EncodeOptions())
    store: StoreOptions = declared(converter=nested(StoreOptions), default=StoreOptions())
    rate: Rate = declared(converter=OUTPUT_RATE, default="constant", added_later=True)

    @classmethod
    def parse(cls, raw: Raw, **given: Unpack[SetByServer]) -> Self:
        """Read a request as hosts send it: snake_case, camelCase and older names.

        Args:
            raw: JSON, or a mapping.
            **given: Fields that the server sets itself; `raw` may not name them.

        Raises:
            RequestError: A field is wrong, unknown, missing, or given twice with different values; `path` names it.
        """
        return cls.from_mapping(decode(raw, cls._noun), **given)

    @property
    def output_rate(self) -> Rate:
        """The frame rate that is asked for."""
        return self.rate

    def places(self) -> tuple[str, str]:
        """Return the input's and the output's key as the store knows them, below a user's folder or not."""
        return (
            store_key(self.input_key, self.store.input_scope, self.user_id),
            store_key(self.output_key, self.store.output_scope, self.user_id),
        )

    def request_hash(self) -> str:
        """Return a hash of the request without its `job_id` and `store.existing`."""
        import hashlib

        asked = self.to_dict()
        del asked["job_id"]
        # The handling of an existing output does not change the output.
        asked["store"] = {name: value for name, value in self.store.to_dict().items() if name != "existing"}
        text = json.dumps(_numbers_alike(asked), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self) -> None:
        for name, scope in (("input_key", self.store.input_scope), ("output_key", self.store.output_scope)):
            try:
                place = store_key(getattr(self, name), scope, self.user_id)
                receipt_key(place, "0" * 64)
            except InvalidKeyError as error:
                raise RequestError(name, str(error)) from error
        source, output = self.places()
        if same_object(source, output):
            raise RequestError("output_key", f"is the input itself, {self.input_key!r}; name another key")
        if is_below(source, output) or is_below(output, source):
            raise RequestError(
                "output_key", f"and {self.input_key!r} cannot both exist in a folder; name another key"
            )
        if (problem := container_problem(self.output_key, self.encode.encoder)) is not None:
            raise RequestError("output_key", f"is {self.output_key!r}: {problem}")
        self._check_edit()

    def _check_edit(self) -> None:
        """Refuse an edit whose parts do not fit together."""


def _numbers_alike(value: object) -> object:
    """Return the same JSON with one spelling of each number: 3 and 3.0 are equal."""
    if isinstance(value, Mapping):
        return {key: _numbers_alike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
