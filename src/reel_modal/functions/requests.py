"""Table of the request type of each function, for the registry and the contract."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from reel_modal.errors import RequestError
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest
from reel_modal.schema.requests import Request

__all__ = ["REQUESTS", "Request", "function_of"]

REQUESTS: Final[Mapping[str, type[Request]]] = MappingProxyType(
    {"render_overlay": OverlayRequest, "process_framing": FramingRequest, "apply_upscale": UpscaleRequest}
)


def function_of(request: object) -> str:
    """Return the name of the function that takes `request`.

    Raises:
        RequestError: No function takes this type.
    """
    for name, request_type in REQUESTS.items():
        if isinstance(request, request_type):
            return name
    raise RequestError("", f"no function accepts a {type(request).__name__}")
