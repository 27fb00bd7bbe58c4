"""Trains the upscaler's weights: data, network, loop and export. Never needed to use the library."""
