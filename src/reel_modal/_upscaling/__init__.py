"""Upscaling networks: model files, receptive fields, and inference sessions; `_rendering.upscale` uses them."""
