"""What holds for every request."""

from __future__ import annotations

import json

from hypothesis import given
from tests.unit.strategies import overlay_requests

from reel_modal.schema import OverlayRequest


@given(request=overlay_requests())
def test_any_valid_request_survives_json(request: OverlayRequest) -> None:
    said = json.loads(json.dumps(request.to_dict()))
    assert OverlayRequest.parse(said) == request
    assert OverlayRequest.parse(said).to_dict() == said
    # A host looks for the record of an output that a container has written.
    assert OverlayRequest.parse(said).request_hash() == request.request_hash()
