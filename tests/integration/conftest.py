"""The loopback plane for the integration tests."""

from tests.integration.loopback.fixtures import plane, plane_of_file, shared_plane

__all__ = ["plane", "plane_of_file", "shared_plane"]
