"""Render functions: one implementation each, used both on Modal and on this machine."""
