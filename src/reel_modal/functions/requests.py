"""Which request each function takes, in one table: the registry builds its functions from it, the contract its hash.

Pure: it must not know how a request is sent or done.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol, Self

from reel_modal.errors import RequestError
from reel_modal.parsing import Raw
from reel_modal.schema import FramingRequest, OverlayRequest, StoreOptions, UpscaleRequest

__all__ = ["REQUESTS", "Request", "function_of"]


class Request(Protocol):
    """What a host submits."""

    @property
    def job_id(self) -> str:
        """The host's own name of the job."""
        ...

    @property
    def user_id(self) -> str:
        """Whom it is for."""
        ...

    @property
    def input_key(self) -> str:
        """Where the source is, within its scope."""
        ...

    @property
    def output_key(self) -> str:
        """Where the result goes, within its scope."""
        ...

    @property
    def store(self) -> StoreOptions:
        """Whose the two keys are, and what becomes of an output that is there."""
        ...

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a request as hosts send it."""
        ...

    def to_dict(self) -> dict[str, object]:
        """Return the request for JSON."""
        ...

    def request_hash(self) -> str:
        """Return a hash of what is asked for, without the job's name."""
        ...


REQUESTS: Final[Mapping[str, type[Request]]] = MappingProxyType(
    {"render_overlay": OverlayRequest, "process_framing": FramingRequest, "apply_upscale": UpscaleRequest}
)


def function_of(request: object) -> str:
    """Return the name of the function that takes `request`.

    Raises:
        RequestError: There is none.
    """
    for name, request_type in REQUESTS.items():
        if isinstance(request, request_type):
            return name
    raise RequestError("", f"no function takes a {type(request).__name__}")
