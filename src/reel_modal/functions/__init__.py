"""The render functions: one body each, the same on a Modal GPU and on this machine."""
