"""Helpers for other people's frameworks, one small file each; nothing here loads unless it is imported by name."""
