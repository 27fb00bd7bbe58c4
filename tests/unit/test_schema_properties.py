"""Properties of every request."""

from __future__ import annotations

import json

from hypothesis import given
from tests.unit.strategies import overlay_requests

from reel_modal.schema import OverlayRequest


@given(request=overlay_requests())
def test_overlay_any_valid_request_survives_json(request: OverlayRequest) -> None:
    decoded = json.loads(json.dumps(request.to_dict()))
    assert OverlayRequest.parse(decoded) == request
    assert OverlayRequest.parse(decoded).to_dict() == decoded
    # The host computes the same hash to find the receipt that a container has written.
    assert OverlayRequest.parse(decoded).request_hash() == request.request_hash()
