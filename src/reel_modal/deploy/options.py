"""The options of the deploy command, for its own parser and for that of `reel-modal`.

Imports nothing slow, because every `reel-modal` command imports this module.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

__all__ = ["add_arguments"]

_TAG: Final = re.compile(r"[A-Za-z0-9._-]{1,50}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--environment", metavar="ENV", help="production, staging, development or test")
    parser.add_argument("--app", metavar="NAME", help="base name of the app, default reel-modal")
    parser.add_argument(
        "--functions", nargs="+", metavar="MODULE", default=[], help="modules that declare further functions"
    )
    parser.add_argument("--only", nargs="+", metavar="FN", help="deploy only these functions; others are removed")
    parser.add_argument("--tag", default="", type=_tag, help="shown with this version in `modal app history`")
    parser.add_argument("--strategy", choices=("rolling", "recreate"), default="rolling", help="default rolling")
    parser.add_argument("--log-file", type=Path, metavar="PATH", help="default in the user's log folder")
    parser.add_argument("--timeout", type=_seconds, default=1800.0, metavar="SECONDS", help="default 1800")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and deploy nothing")
    parser.add_argument("--verify-only", action="store_true", help="verify the deployed version, and deploy nothing")
    parser.add_argument("--no-preflight", action="store_true", help="skip the trial of the functions on this machine")
    parser.add_argument(
        "--preflight-python", type=Path, metavar="PATH", help="a Python with modal and the packages of the image"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--yes", action="store_true", help="do not ask before production, or before a removal")


def _tag(text: str) -> str:
    if text and not _TAG.fullmatch(text):
        raise argparse.ArgumentTypeError("use letters, digits, dots, dashes and underscores, at most 50")
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds
