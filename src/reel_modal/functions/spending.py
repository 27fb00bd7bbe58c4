"""Cost of finished jobs, read from the receipts in the store."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from reel_modal.errors import ObjectNotFoundError, RequestError
from reel_modal.schema.results import Usage
from reel_modal.storage import ListedObject, Storage

__all__ = ["Spent", "spent_between"]

_log = logging.getLogger(__name__)

_RECEIPT: Final = re.compile(r"(?:.*/)?receipts/[0-9a-f]{64}\.json")
_USER: Final = re.compile(r"users/([^/]+)/")


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of one job, by its receipt.

    Attributes:
        function: Name of the function.
        user: User whose folder contains the output; empty if no user's folder does.
        finished_at: Time at which the receipt was written, just before the output was published.
        dollars: Cost in US dollars, by the rates of the deployment; 0 for a local job.
    """

    function: str
    user: str
    finished_at: datetime
    dollars: float


def spent_between(storage: Storage, start: datetime, end: datetime) -> list[Spent]:
    """Return the cost of each job on Modal whose receipt was written from `start` up to `end`, by time.

    All folders of the store are listed. Jobs that failed or were cancelled have no receipt, and the receipt of an
    output that was made again replaces the earlier one.

    Args:
        storage: The store.
        start: Start of the period, inclusive; with a time zone.
        end: End of the period, exclusive; with a time zone.

    Raises:
        StorageError: The store could not be read.
    """
    found = [each for each in _receipts(storage, "") if start <= each.modified_at < end]
    spent = (_spent(storage, each) for each in sorted(found, key=lambda each: each.modified_at))
    return [each for each in spent if each is not None]


def _receipts(storage: Storage, folder: str) -> Iterator[ListedObject]:
    listing = storage.list_folder(folder)
    yield from (each for each in listing.objects if _RECEIPT.fullmatch(each.key))
    for each in listing.folders:
        yield from _receipts(storage, each)


def _spent(storage: Storage, listed: ListedObject) -> Spent | None:
    """Return the cost in a receipt; None if it is not that of a job on Modal."""
    try:
        result = json.loads(storage.read_bytes(listed.key))["result"]
        usage, function = Usage.parse(result["usage"]), str(result["function"])
    except ObjectNotFoundError:
        return None  # removed in the meantime
    except (ValueError, KeyError, TypeError, RequestError) as error:
        _log.warning("%s is not a valid receipt, so it is ignored: %s", listed.key, error)
        return None
    if not usage.rates_dated:
        return None
    user = _USER.match(listed.key)
    return Spent(function, "" if user is None else user[1], listed.modified_at, usage.dollars)
