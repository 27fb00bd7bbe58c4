"""Fixtures for the media tests."""

from tests.lost import every_loss_is_named

__all__ = ["every_loss_is_named"]
