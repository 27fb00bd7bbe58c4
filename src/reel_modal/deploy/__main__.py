"""`python -m reel_modal.deploy`."""

import sys

from reel_modal.deploy.command import main

if __name__ == "__main__":
    sys.exit(main())
