"""The loopback plane for the integration tests."""

from tests.integration.loopback.fixtures import plane, plane_of_file, shared_plane
from tests.integration.modal_app import app, app_plane, python_of_image, session_plane

__all__ = ["app", "app_plane", "plane", "plane_of_file", "python_of_image", "session_plane", "shared_plane"]
