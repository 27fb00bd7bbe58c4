"""`python -m reel_modal` is the command line."""

from __future__ import annotations

import sys

from reel_modal.cli import main

if __name__ == "__main__":
    sys.exit(main())
