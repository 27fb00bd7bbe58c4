"""Modal's control plane for tests, offline: the real client, command line and container runtime run against it.

`plane.LoopbackPlane` is what a test holds, `fixtures` gives it to pytest. Nothing here is loaded before it is used:
importing modal takes most of a second.
"""
