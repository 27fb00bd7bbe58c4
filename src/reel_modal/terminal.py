"""A live bar on a terminal, plain lines in a pipe: what a person sees of a job's progress.

It must know events only, never jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from reel_modal.progress import ProgressEvent

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[ProgressEvent], None]]:
    """Show the events that are given to the yielded function, on stderr, until the block ends.

    On a terminal it is one bar a phase with units, rate and time left; elsewhere a line at the end of each phase.

    Args:
        console: Where to show; default stderr.
    """
    target = console or Console(stderr=True)
    if target.is_terminal:
        with _bars(target) as show:
            yield show
    else:
        yield _lines(target)


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[ProgressEvent], None]]:
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {}

        def show(event: ProgressEvent) -> None:
            if event.phase not in tasks:
                tasks[event.phase] = progress.add_task(event.phase, total=event.total)
            # A phase without a known total is one unit of work.
            total = event.total if event.total is not None else max(event.done, 1)
            progress.update(tasks[event.phase], completed=event.done if event.total else total, total=total)

        yield show


def _lines(console: Console) -> Callable[[ProgressEvent], None]:
    def show(event: ProgressEvent) -> None:
        if event.total is not None and event.done >= event.total:
            console.print(
                f"{event.phase}: {event.done} of {event.total}, {event.elapsed_seconds:.1f} s", highlight=False
            )

    return show


class _Rate(ProgressColumn):
    """Units a second, called fps since the units are frames wherever it takes long enough to read."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed or not task.total or task.total < 2 else f"{task.speed:6.1f} fps")
