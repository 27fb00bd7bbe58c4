"""The bill of the workspace and the receipts in a store, on the loopback plane with a scripted bill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from modal_proto import api_pb2
from tests.integration.command_line import run
from tests.integration.loopback.plane import LoopbackPlane

from reel_modal.backends.modal.billing import billed_between
from reel_modal.cli.bill import Row, compare
from reel_modal.errors import AuthError
from reel_modal.functions.spending import Spent
from reel_modal.schema import Usage

DAY = datetime(2026, 11, 28, tzinfo=UTC)
HOUR = timedelta(hours=1)


def item(app: str, start: datetime, dollars: str, **tags: str) -> api_pb2.WorkspaceBillingReportItem:
    """Return an item of the bill, of which a quarter is for memory."""
    quarter = float(dollars) / 4
    made = api_pb2.WorkspaceBillingReportItem(
        object_id="ap-1", description=app, environment_name="main", cost=dollars, tags=tags
    )
    made.cost_by_resource.update({"Memory": str(quarter), "T4 GPU": str(3 * quarter)})
    made.interval.FromDatetime(start)
    return made


@pytest.fixture
def billing(plane: LoopbackPlane) -> Iterator[LoopbackPlane]:
    plane.bill.extend(
        [
            item("reel-modal-test", DAY, "4.00", tenant="acme"),
            item("reel-modal-test", DAY + timedelta(days=1), "2.00", tenant="acme"),
            item("reel-modal-test", DAY + timedelta(days=2), "64.00", tenant="acme"),
            item("another", DAY, "0.50", tenant="acme"),
            item("another-tenant", DAY, "16.00", tenant="other"),
            item("without-tags", DAY, "32.00"),
        ]
    )
    yield plane
    plane.bill.clear()


def receipt(
    store: Path, name: str, finished_at: datetime, dollars: float, *, function: str, user: str = "ann"
) -> None:
    """Write a receipt as a job on Modal does."""
    folder = store / "users" / user / "reels" / "receipts"
    folder.mkdir(parents=True, exist_ok=True)
    usage = Usage(dollars=dollars, rates_dated="2026-11-01" if dollars else "").to_dict()
    file = folder / f"{name * 64}.json"
    file.write_text(json.dumps({"format": "1", "result": {"function": function, "usage": usage}}))
    os.utime(file, (finished_at.timestamp(), finished_at.timestamp()))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with three receipts of the two days, one of the next day, and one of a local job."""
    receipt(tmp_path, "1", DAY + HOUR, 1.5, function="apply_upscale")
    receipt(tmp_path, "2", DAY + 2 * HOUR, 0.5, function="render_overlay")
    receipt(tmp_path, "3", DAY + timedelta(days=1), 1.0, function="render_overlay", user="bob")
    receipt(tmp_path, "4", DAY + timedelta(days=2), 8.0, function="render_overlay")
    receipt(tmp_path, "5", DAY + HOUR, 0.0, function="render_overlay")
    return tmp_path


def bill(plane: LoopbackPlane, store: Path, *options: str) -> str:
    done = run(
        *("bill", "--since", "2026-11-28", "--until", "2026-11-30", *options),
        **plane.environment(),
        REEL_MODAL_ENVIRONMENT="test",
        REEL_MODAL_STORE_URL=store.as_uri(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_billed_between_returns_period(billing: LoopbackPlane) -> None:
    billed = await billed_between(DAY, DAY + timedelta(days=1))
    assert [(each.app, each.dollars) for each in billed] == [
        ("reel-modal-test", 4.0),
        ("another", 0.5),
        ("another-tenant", 16.0),
        ("without-tags", 32.0),
    ]
    assert (billed[0].start, billed[0].tags) == (DAY, {"tenant": "acme"})
    assert billed[0].dollars_by_resource == {"Memory": 1.0, "T4 GPU": 3.0}
    (request,) = [one.request for one in billing.requests if one.rpc == "WorkspaceBillingReport"]
    assert request.resolution == "d"  # type: ignore[attr-defined]


async def test_billed_between_token_refused_is_named(billing: LoopbackPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-another")
    with pytest.raises(AuthError):
        await billed_between(DAY, DAY + timedelta(days=1))


def test_bill_compares_app_with_receipts_by_day(billing: LoopbackPlane, store: Path) -> None:
    report = json.loads(bill(billing, store, "--json"))
    assert report["rows"] == [
        {"start": "2026-11-28T00:00:00+00:00", "billed_usd": 4.0, "receipts_usd": 2.0, "jobs": 2},
        {"start": "2026-11-29T00:00:00+00:00", "billed_usd": 2.0, "receipts_usd": 1.0, "jobs": 1},
    ]
    assert report["billed_by_resource_usd"] == {"Memory": 1.5, "T4 GPU": 4.5}
    assert report["receipts_by_function"] == {
        "apply_upscale": {"jobs": 1, "receipts_usd": 1.5},
        "render_overlay": {"jobs": 2, "receipts_usd": 1.5},
    }


def test_bill_prints_table_with_total(billing: LoopbackPlane, store: Path) -> None:
    lines = [[cell.strip() for cell in line.split("|")] for line in bill(billing, store).splitlines()]
    assert lines[0] == ["day (UTC)", "billed", "receipts", "not in receipts", "jobs"]
    assert ["2026-11-28", "$4.0000", "$2.0000", "$2.0000", "2"] in lines
    assert ["total", "$6.0000", "$3.0000", "$3.0000", "3"] in lines
    assert ["apply_upscale", "$1.5000", "1"] in lines


def test_bill_by_tag_adds_apps(billing: LoopbackPlane, store: Path) -> None:
    report = json.loads(bill(billing, store, "--tag", "tenant=acme", "--json"))
    assert [row["billed_usd"] for row in report["rows"]] == [4.5, 2.0]


def test_bill_by_user_sums_receipts(billing: LoopbackPlane, store: Path) -> None:
    report = json.loads(bill(billing, store, "--by", "user", "--json"))
    assert report["receipts_by_user"] == {
        "ann": {"jobs": 2, "receipts_usd": 2.0},
        "bob": {"jobs": 1, "receipts_usd": 1.0},
    }


def test_bill_each_hour_asks_for_hours(billing: LoopbackPlane, store: Path) -> None:
    report = json.loads(bill(billing, store, "--each", "hour", "--json"))
    assert [(row["start"][11:13], row["receipts_usd"]) for row in report["rows"]] == [
        ("00", 0.0),
        ("01", 1.5),
        ("02", 0.5),
        ("00", 1.0),
    ]
    (request,) = [one.request for one in billing.requests if one.rpc == "WorkspaceBillingReport"]
    assert request.resolution == "h"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        (("--since", "2026-11-28T08:00", "--until", "2026-11-28T20:00"), 2, "no whole day"),
        (("--since", "yesterday"), 2, "'yesterday' is not a time"),
        (("--tag", "tenant"), 2, "'tenant' is not NAME=VALUE"),
    ],
)
def test_bill_invalid_option_is_refused(
    billing: LoopbackPlane, store: Path, options: tuple[str, ...], status: int, problem: str
) -> None:
    done = run("bill", *options, **billing.environment(), REEL_MODAL_STORE_URL=store.as_uri())
    assert (done.returncode, done.stdout) == (status, "")
    assert problem in done.stderr


def test_compare_bill_without_receipt_has_row() -> None:
    spent = Spent("render_overlay", "ann", DAY + timedelta(hours=23, minutes=59), 0.25)
    assert compare([], [spent], "day") == [Row(DAY, 0.0, 0.25, 1)]
    assert compare([], [spent], "hour") == [Row(DAY + 23 * HOUR, 0.0, 0.25, 1)]
    assert compare([], [], "day") == []
