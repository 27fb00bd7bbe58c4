"""Loads the tests and the fixtures that reel_modal has for the functions of a host."""

pytest_plugins = ["reel_modal.testing.contract"]
