"""Prices of containers."""
