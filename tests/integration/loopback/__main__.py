"""The plane as a process of its own, for benchmarks: `python -m tests.integration.loopback FOLDER`.

It prints the environment that points at it as one line of JSON, and serves until its standard input ends.
"""

import json
import sys
from pathlib import Path

from tests.integration.loopback.plane import LoopbackPlane

with LoopbackPlane(Path(sys.argv[1])) as plane:
    print(json.dumps(plane.environment()), flush=True)
    sys.stdin.read()
