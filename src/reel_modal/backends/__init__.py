"""Backends that run jobs: on Modal, on this machine, or in memory for tests."""
