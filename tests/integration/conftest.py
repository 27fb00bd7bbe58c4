"""The loopback plane, for the tests that need it."""

from tests.integration.loopback.fixtures import plane, shared_plane

__all__ = ["plane", "shared_plane"]
