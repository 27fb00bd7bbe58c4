"""Show a job's progress: a live bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from reel_modal.progress import ProgressBlender, ProgressEvent, ProgressPlan, ProgressUpdate, describe, time_left

__all__ = ["progress_bar"]

_LINE_SECONDS: Final = 10.0
_LINE_PERCENT: Final = 10


@contextmanager
def progress_bar(
    plan: ProgressPlan | None = None, console: Console | None = None
) -> Iterator[Callable[[ProgressEvent], None]]:
    """Show the events passed to the yielded function, until the block ends.

    A terminal shows one bar with phase, percent, frames per second and remaining time, which also moves between
    events. Otherwise a line is printed at every 10 %, at the start of each phase, at the end of a counted phase, and
    if an event arrives 10 s or more after the last line.

    Args:
        plan: The expected phases and their durations; default `ProgressPlan.default()`.
        console: The console to print to; default stderr.
    """
    target = console or Console(stderr=True)
    watch = _Watch(plan)
    if not target.is_terminal:
        lines = _Lines(target, watch)
        yield lines.show
        lines.print_update(watch.finish())
        return
    with _Bar(target, watch) as bar:
        yield watch.feed
        bar.finish()


class _Watch:
    """The progress of one job; thread-safe, because events arrive in one thread and the bar is drawn in another."""

    def __init__(self, plan: ProgressPlan | None) -> None:
        self._lock = threading.Lock()
        self._blender = ProgressBlender(plan, started_at=time.monotonic())

    def feed(self, event: ProgressEvent) -> None:
        with self._lock:
            self._blender.feed(event, time.monotonic())

    def current(self) -> ProgressUpdate:
        with self._lock:
            return self._blender.update(time.monotonic())

    def finish(self) -> ProgressUpdate:
        with self._lock:
            return self._blender.finish(time.monotonic())


class _Bar(Progress):
    """One bar that reads the current progress each time it is drawn."""

    def __init__(self, console: Console, watch: _Watch) -> None:
        columns = (
            TextColumn("{task.fields[phase]:>10}"),
            BarColumn(),
            TextColumn("{task.fields[percent]} %"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
        )
        self._watch = watch
        super().__init__(*columns, console=console)
        self._bar = self.add_task("", total=100, phase="", percent="", rate="", left="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the renderables, updated to the current progress."""
        if hasattr(self, "_bar"):
            self._show(self._watch.current())
        yield from super().get_renderables()

    def finish(self) -> None:
        """Show that the job is done. If a job fails, this is not called, and the bar stays at its last progress."""
        self._show(self._watch.finish())

    def _show(self, update: ProgressUpdate) -> None:
        self.tasks[0].fields.update(_texts(update))
        self.update(self._bar, completed=update.progress)


def _texts(update: ProgressUpdate) -> dict[str, str]:
    rate = update.work.units_per_second if update.work is not None and update.phase == "render" else None
    if update.stalled_seconds is not None:
        left = f"no update for {update.stalled_seconds:.0f} s"
    elif update.ended:
        left = f"in {_clock(update.elapsed_seconds)}"
    else:
        left = time_left(update)
    return {
        "percent": f"{update.percent:3d}",  # rounded down (rich would round 99.6 to 100)
        "phase": "done" if update.ended else update.phase,
        "rate": "" if rate is None else f"{rate:.1f} fps",
        "left": left,
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Lines:
    """Plain lines for a log, printed if the progress has changed enough."""

    def __init__(self, console: Console, watch: _Watch) -> None:
        self._console = console
        self._watch = watch
        self._printed: tuple[str, int] = ("", 0)
        self._printed_at = 0.0

    def show(self, event: ProgressEvent) -> None:
        """Handle `event`, and print a line if one is due."""
        self._watch.feed(event)
        update = self._watch.current()
        now, waited = (update.phase, update.percent // _LINE_PERCENT), update.elapsed_seconds - self._printed_at
        if now != self._printed or waited >= _LINE_SECONDS or (event.total and event.done >= event.total):
            self._printed, self._printed_at = now, update.elapsed_seconds
            self.print_update(update, f" ({event.done} of {event.total})" if event.total else "")

    def print_update(self, update: ProgressUpdate, counts: str = "") -> None:
        """Print one line."""
        self._console.print(f"{describe(update)}{counts}", highlight=False, markup=False, soft_wrap=True)
