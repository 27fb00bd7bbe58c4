"""Entry point of the command line: `python -m reel_modal`."""

from __future__ import annotations

import sys

from reel_modal.cli import main

if __name__ == "__main__":
    sys.exit(main())
