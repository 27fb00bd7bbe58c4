"""Modal's control plane for tests: the real client, command line and container runtime run against it, offline."""

from .faults import Faults
from .plane import LoopbackPlane
from .views import DeployedFunction, RunningContainer

__all__ = ["DeployedFunction", "Faults", "LoopbackPlane", "RunningContainer"]
