"""The command line interface `reel-modal`."""

from reel_modal.cli.command import main

__all__ = ["main"]
