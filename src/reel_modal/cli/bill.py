"""The command `bill`: compare what Modal has billed for the app with the receipts of its jobs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from reel_modal._support.tables import text_table
from reel_modal.errors import RequestError

if TYPE_CHECKING:
    from reel_modal.backends.modal.billing import Billed
    from reel_modal.functions.spending import Spent

__all__ = ["Row", "add_arguments", "compare", "run"]

_DAYS: Final = 7
_FORMATS: Final = {"day": "%Y-%m-%d", "hour": "%Y-%m-%d %H:00"}
_GROUPS: Final[Mapping[str, Callable[[Spent], str]]] = {
    "function": lambda each: each.function,
    "user": lambda each: each.user or "(none)",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One day or hour of a comparison.

    Attributes:
        start: Its start, in UTC.
        billed: What Modal has billed, in US dollars.
        receipts: Sum of the receipts that were written in it, in US dollars.
        jobs: Number of these receipts.
    """

    start: datetime
    billed: float
    receipts: float
    jobs: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument(
        "--since", type=_date, metavar="TIME", help=f"in UTC, such as 2026-11-01; default {_DAYS} days ago"
    )
    parser.add_argument("--until", type=_date, metavar="TIME", help="in UTC, exclusive; default now")
    parser.add_argument("--each", choices=tuple(_FORMATS), default="day", help="length of a row; default %(default)s")
    parser.add_argument(
        "--by", choices=tuple(_GROUPS), default="function", help="sum the receipts; default %(default)s"
    )
    parser.add_argument(
        "--tag",
        type=_tag,
        action="append",
        metavar="NAME=VALUE",
        help="bill of all apps with this tag, instead of the app of the settings; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison.

    Raises:
        ConfigError: No store is set.
        RequestError: The period contains no whole day or hour.
        RemoteError: The token is missing, refused or lacks the permission, or Modal is unreachable.
        StorageError: The store could not be read.
    """
    from reel_modal.backends.modal.billing import billed_between
    from reel_modal.functions.specs import app_name
    from reel_modal.functions.spending import spent_between
    from reel_modal.settings import Settings
    from reel_modal.storage import Storage
    from reel_modal.storage.urls import required_store

    settings = Settings.from_env()
    storage = Storage.from_url(required_store(settings.store_url))
    now = datetime.now(UTC)
    until = _floor(arguments.until or now, arguments.each)
    since = _floor(arguments.since or now - timedelta(days=_DAYS), arguments.each)
    if since >= until:
        raise RequestError(
            "--until", f"there is no whole {arguments.each} from {since:%F %H:%M} to {until:%F %H:%M} UTC"
        )
    tags = dict(arguments.tag or ())
    app = app_name(settings)
    report = asyncio.run(billed_between(since, until, hourly=arguments.each == "hour"))
    billed = [each for each in report if (tags.items() <= each.tags.items() if tags else each.app == app)]
    spent = spent_between(storage, since, until)
    rows = compare(billed, spent, arguments.each)
    groups = _grouped(spent, _GROUPS[arguments.by])
    if arguments.json:
        print(json.dumps(_to_dict(arguments, rows, groups, billed)))
    else:
        _show(arguments, rows, groups)
    chosen = " and ".join(f"{name}={value}" for name, value in tags.items()) or f"app {app}"
    print(f"bill: {chosen}; receipts: {storage!r}", file=sys.stderr)
    print("not in receipts: idle and starting containers, and jobs that failed or were cancelled", file=sys.stderr)
    return 0


def compare(billed: Iterable[Billed], spent: Iterable[Spent], each: str) -> list[Row]:
    """Return one row for each day or hour with a bill or a receipt, by time.

    Args:
        billed: The bill, by day or hour.
        spent: The receipts.
        each: `day` or `hour`.
    """
    bills: dict[datetime, float] = {}
    receipts: dict[datetime, list[float]] = {}
    for item in billed:
        start = _floor(item.start, each)
        bills[start] = bills.get(start, 0.0) + item.dollars
    for job in spent:
        receipts.setdefault(_floor(job.finished_at, each), []).append(job.dollars)
    return [
        Row(start, bills.get(start, 0.0), sum(receipts.get(start, [])), len(receipts.get(start, [])))
        for start in sorted({*bills, *receipts})
    ]


def _grouped(spent: Iterable[Spent], name_of: Callable[[Spent], str]) -> dict[str, tuple[int, float]]:
    """Return the number of receipts and their sum, by name."""
    groups: dict[str, tuple[int, float]] = {}
    for each in spent:
        jobs, dollars = groups.get(name_of(each), (0, 0.0))
        groups[name_of(each)] = (jobs + 1, dollars + each.dollars)
    return dict(sorted(groups.items()))


def _to_dict(
    arguments: argparse.Namespace,
    rows: Sequence[Row],
    groups: Mapping[str, tuple[int, float]],
    billed: Sequence[Billed],
) -> dict[str, object]:
    resources: dict[str, float] = {}
    for item in billed:
        for name, dollars in item.dollars_by_resource.items():
            resources[name] = resources.get(name, 0.0) + dollars
    return {
        "rows": [
            {"start": row.start.isoformat(), "billed_usd": row.billed, "receipts_usd": row.receipts, "jobs": row.jobs}
            for row in rows
        ],
        "billed_by_resource_usd": resources,
        f"receipts_by_{arguments.by}": {
            name: {"jobs": jobs, "receipts_usd": dollars} for name, (jobs, dollars) in groups.items()
        },
    }


def _show(arguments: argparse.Namespace, rows: Sequence[Row], groups: Mapping[str, tuple[int, float]]) -> None:
    lines = [_line(f"{row.start:{_FORMATS[arguments.each]}}", row.billed, row.receipts, row.jobs) for row in rows]
    header = (f"{arguments.each} (UTC)", "billed", "receipts", "not in receipts", "jobs")
    billed, receipts = sum(row.billed for row in rows), sum(row.receipts for row in rows)
    lines.append(_line("total", billed, receipts, sum(row.jobs for row in rows)))
    print(text_table(lines, header=header))
    print()
    shown = ((name, f"${dollars:.4f}", str(jobs)) for name, (jobs, dollars) in groups.items())
    print(text_table(shown, header=(arguments.by, "receipts", "jobs")))


def _line(name: str, billed: float, receipts: float, jobs: int) -> tuple[str, ...]:
    return (name, f"${billed:.4f}", f"${receipts:.4f}", f"${billed - receipts:.4f}", str(jobs))


def _floor(time: datetime, each: str) -> datetime:
    """Return the start of the day or hour."""
    start = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return start.replace(hour=0) if each == "day" else start


def _date(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 2026-11-01 or 2026-11-01T08:00") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
