"""Helpers for third-party frameworks, one module each. None of them is imported by default."""
