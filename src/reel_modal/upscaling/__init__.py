"""Networks that enlarge pictures: their files, what their graphs reach, and the devices that run them.

It must not know frames or jobs; `rendering.upscale` does the pictures.
"""
