"""Which request each function takes, in one table: the registry builds its functions from it, the contract its hash.

Pure: it must not know how a request is sent or done.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from reel_modal.schema import FramingRequest, OverlayRequest, StoreOptions, UpscaleRequest

__all__ = ["REQUESTS", "Request"]


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

    def to_dict(self) -> dict[str, object]:
        """Return the request for JSON."""
        ...

    def request_hash(self) -> str:
        """Return a hash of what is asked for, without the job's name."""
        ...


REQUESTS: Final[Mapping[str, type[Request]]] = MappingProxyType(
    {"render_overlay": OverlayRequest, "process_framing": FramingRequest, "apply_upscale": UpscaleRequest}
)
