"""The command `segments`: list the stored segments of long jobs, and remove old ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from reel_modal._segments import KEPT, folders_with_segments, list_segments, remove_old
from reel_modal._support.tables import text_table
from reel_modal.settings import Settings
from reel_modal.storage import ListedObject, Storage
from reel_modal.storage.urls import required_store

__all__ = ["add_arguments", "run"]

_HOUR: Final = timedelta(hours=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    listing = actions.add_parser("list", help="list the objects of all segments in the store")
    prune = actions.add_parser("prune", help="remove segments that have not changed for a day")
    prune.add_argument(
        "--hours", type=_hours, default=KEPT / _HOUR, help="remove segments older than this; default %(default)g"
    )
    for action in (listing, prune):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run `list` or `prune` in the store of REEL_MODAL_STORE_URL.

    Raises:
        ConfigError: No store is set.
        StorageError: The store could not be read or changed.
    """
    storage = Storage.from_url(required_store(Settings.from_env().store_url))
    found = [each for folder in folders_with_segments(storage) for each in list_segments(storage, folder)]
    if arguments.action == "list":
        _show(found, as_json=arguments.json)
        return 0
    removed = remove_old(storage, found, arguments.hours * _HOUR)
    _show(removed, as_json=arguments.json)
    size, kept = sum(each.bytes for each in removed), len(found) - len(removed)
    print(f"{len(removed)} objects removed, {size:,} bytes; {kept} objects remain", file=sys.stderr)
    return 0


def _show(listed: Sequence[ListedObject], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"key": each.key, "bytes": each.bytes, "modified_at": each.modified_at.isoformat()} for each in listed
        ]
        print(json.dumps(rows))
    elif listed:
        now = datetime.now(UTC)
        print(
            text_table(
                (each.key, f"{each.bytes:,} bytes", f"{(now - each.modified_at) / _HOUR:.1f} h") for each in listed
            )
        )


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours < float("inf"):
        raise ValueError(text)
    return hours
