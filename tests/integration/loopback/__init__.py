"""Modal's control plane for offline tests; the entry points are `plane.LoopbackPlane` and the pytest `fixtures`.

Modules are imported lazily, because importing modal takes most of a second.
"""
