"""The wire format and hashes of requests, which hosts' receipts and job ids depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reel_modal import schema

GOLDEN = json.loads(Path(__file__).with_name("golden_requests.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_request_as_sent_keeps_its_wire_format_and_hash(number: int) -> None:
    row = GOLDEN[number]
    request = getattr(schema, row["kind"]).parse(row["sent"])
    assert json.loads(json.dumps(request.to_dict())) == row["wire"]
    assert request.request_hash() == row["hash"]


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_request_from_the_wire_keeps_its_hash(number: int) -> None:
    row = GOLDEN[number]
    assert getattr(schema, row["kind"]).parse(row["wire"]).request_hash() == row["hash"]
