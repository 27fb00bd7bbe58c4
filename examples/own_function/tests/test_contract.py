"""What every function must do: the tests that reel_modal ships, for `make_thumbnail`."""

from __future__ import annotations

from collections.abc import Mapping

from reel_modal.testing.contract import FunctionContract
from thumbnails import ThumbnailRequest, make_thumbnail


class TestMakeThumbnail(FunctionContract):
    """The contract of every function."""

    function = make_thumbnail

    def request(self, keys: Mapping[str, str]) -> ThumbnailRequest:
        """Return a request for a small storyboard."""
        return ThumbnailRequest.parse({**keys, "output_key": "posters/7.jpg", "cells": 9})
