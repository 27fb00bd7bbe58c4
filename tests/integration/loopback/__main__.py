"""Run the plane in a separate process, for benchmarks: `python -m tests.integration.loopback FOLDER`.

Print the environment that points at the plane as one line of JSON, and run until stdin is closed.
"""

import json
import sys
from pathlib import Path

from tests.integration.loopback.plane import LoopbackPlane

with LoopbackPlane(Path(sys.argv[1])) as plane:
    print(json.dumps(plane.environment()), flush=True)
    sys.stdin.read()
