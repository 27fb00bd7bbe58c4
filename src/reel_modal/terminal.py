"""A live bar on a terminal, plain lines in a pipe: what a person sees of a job's progress.

It must know events and plans only, never jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from reel_modal.progress import ProgressBlender, ProgressEvent, ProgressPlan, ProgressUpdate, describe

__all__ = ["progress_bar"]

_LINE_SECONDS: Final = 10.0
_LINE_PERCENT: Final = 10


@contextmanager
def progress_bar(
    plan: ProgressPlan | None = None, console: Console | None = None
) -> Iterator[Callable[[ProgressEvent], None]]:
    """Show the events that are given to the yielded function, on stderr, until the block ends.

    On a terminal it is one bar with phase, percent, frames a second and time left, alive between events; elsewhere a
    line for each tenth, the begin of each phase and the end of a counted one, and after ten seconds without any.

    Args:
        plan: What is expected; default the table of the first apps on Modal.
        console: Where to show; default stderr.
    """
    target = console or Console(stderr=True)
    watch = _Watch(plan)
    if not target.is_terminal:
        lines = _Lines(target, watch)
        yield lines.show
        lines.say(watch.finish())
        return
    with _Bar(target, watch) as bar:
        yield watch.hear
        bar.finish()


class _Watch:
    """The progress of one job, told in one thread and looked at in another."""

    def __init__(self, plan: ProgressPlan | None) -> None:
        self._lock = threading.Lock()
        self._blender = ProgressBlender(plan, started_at=time.monotonic())

    def hear(self, event: ProgressEvent) -> None:
        with self._lock:
            self._blender.feed(event, time.monotonic())

    def look(self) -> ProgressUpdate:
        with self._lock:
            return self._blender.update(time.monotonic())

    def finish(self) -> ProgressUpdate:
        with self._lock:
            return self._blender.finish(time.monotonic())


class _Bar(Progress):
    """One bar that looks at the watch whenever it is drawn."""

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
        """Return what to draw, as of now."""
        if hasattr(self, "_bar"):
            self._show(self._watch.look())
        yield from super().get_renderables()

    def finish(self) -> None:
        """Show that all is done; without this, the bar stays where the job failed."""
        self._show(self._watch.finish())

    def _show(self, update: ProgressUpdate) -> None:
        self.tasks[0].fields.update(_texts(update))
        self.update(self._bar, completed=update.progress)


def _texts(update: ProgressUpdate) -> dict[str, str]:
    rate = update.work.units_per_second if update.work is not None and update.phase == "render" else None
    if update.stalled_seconds is not None:
        left = f"no news for {update.stalled_seconds:.0f} s"
    elif update.ended:
        left = f"in {_clock(update.elapsed_seconds)}"
    else:
        left = "" if update.eta_seconds is None else f"{_clock(update.eta_seconds)} left"
    return {
        "percent": f"{update.percent:3d}",  # rounded down, as rich does not: 99.6 is not 100
        "phase": "done" if update.ended else update.phase,
        "rate": "" if rate is None else f"{rate:.1f} fps",
        "left": left,
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Lines:
    """What a log gets: a line where there is something new to say."""

    def __init__(self, console: Console, watch: _Watch) -> None:
        self._console = console
        self._watch = watch
        self._said: tuple[str, int] = ("", 0)
        self._said_at = 0.0

    def show(self, event: ProgressEvent) -> None:
        """Take `event`, and say how far the job is, if that is worth a line."""
        self._watch.hear(event)
        update = self._watch.look()
        now, waited = (update.phase, update.percent // _LINE_PERCENT), update.elapsed_seconds - self._said_at
        if now != self._said or waited >= _LINE_SECONDS or (event.total and event.done >= event.total):
            self._said, self._said_at = now, update.elapsed_seconds
            self.say(update, f" ({event.done} of {event.total})" if event.total else "")

    def say(self, update: ProgressUpdate, counts: str = "") -> None:
        """Print one line."""
        self._console.print(f"{describe(update)}{counts}", highlight=False, markup=False, soft_wrap=True)
