"""Compare a source with its output by libav, and check that the result names each loss."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from av.container import InputContainer
from av.stream import Disposition

from reel_modal.functions import apply_upscale, process_framing, render_overlay
from reel_modal.functions.context import JobContext
from reel_modal.media.pyav import open_input
from reel_modal.schema import FramingRequest, RenderResult
from reel_modal.schema.requests import Request
from reel_modal.storage import FolderStorage

T = TypeVar("T")

BODIES = (render_overlay, process_framing, apply_upscale)
TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "timecode", "reel_modal_request"}
BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails


def opened(path: Path) -> InputContainer:
    return open_input(str(path), options={}, container_options={})


def of_file(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """Call `read` once for each content of a file, because many tests render the same clips."""

    @functools.lru_cache
    def read_once(path: Path, _changed_ns: int, _bytes: int) -> T:
        return read(path)

    @functools.wraps(read)
    def read_file(path: Path) -> T:
        return read_once(path, path.stat().st_mtime_ns, path.stat().st_size)

    return read_file


@of_file
def streams(path: Path) -> Counter[str]:
    """Return the number of streams of each kind, by the codes of their loss."""
    with opened(path) as container:
        titles = "mov" in container.format.name and bool(container.chapters())
        found: Counter[str] = Counter()
        for stream in container.streams:
            if stream.type == "video":
                found["cover" if stream.disposition & BESIDE else "video"] += 1
            elif stream.type == "data" and "timecode" in stream.metadata:
                continue
            elif not (titles and stream.type == "data" and stream.name == "bin_data"):
                found[{"audio": "sound", "subtitle": "subtitles"}.get(stream.type, stream.type)] += 1
        if any("timecode" in stream.metadata for stream in container.streams):
            found["timecode"] = 1
        return found


@of_file
def chapters_and_tags(path: Path) -> tuple[list[tuple[float, float]], set[str]]:
    """Return the times of the chapters and the names of the tags."""
    with opened(path) as container:
        chapters = [
            (float(each["start"] * (each["time_base"] or 1)), float(each["end"] * (each["time_base"] or 1)))
            for each in container.chapters()
        ]
        return chapters, {key.lower() for key, value in container.metadata.items() if value} - TECHNICAL


@of_file
def picture(path: Path) -> tuple[int, bool, bool]:
    """Return bits per sample, whether there is alpha and whether there are captions, from the first picture."""
    with opened(path) as container:
        stream = next(each for each in container.streams.video if not each.disposition & BESIDE)
        frame = next(container.decode(stream))
        alpha = any(part.is_alpha for part in frame.format.components) and stream.codec_context.name != "gif"
        captions = any("A53_CC" in str(getattr(data, "type", "")) for data in frame.side_data)
        return max(part.bits for part in frame.format.components), alpha, captions


def check_losses(source: Path, output: Path, request: Request, result: RenderResult) -> None:
    """Assert that the result names exactly the losses between source and output."""
    noted = Counter(note.code.removesuffix("_dropped") for note in result.degraded)
    missing = streams(source) - streams(output)
    if isinstance(request, FramingRequest) and not request.audio:
        missing.pop("sound", None)
    assert missing == Counter({kind: noted[kind] for kind in (*missing, *streams(source)) if noted[kind]}), result
    (chapters, tags), (kept, kept_tags) = chapters_and_tags(source), chapters_and_tags(output)
    whole = not isinstance(request, FramingRequest) or request.trim_end_seconds is None
    begin = float(request.trim_start_seconds) if isinstance(request, FramingRequest) else 0
    if whole:
        lasting = [end for _, end in chapters if end > begin]
        assert ("chapters" in noted) == (bool(lasting) and not kept), result
        assert kept == [] or len(kept) == len(lasting), result
    lost = tags - kept_tags
    assert bool(lost) == bool(noted["metadata"] or noted["metadata_stripped"]), (lost, result)
    (bits, alpha, captions), (bits_now, alpha_now, captions_now) = picture(source), picture(output)
    assert (bits_now < bits) == bool(noted["bit_depth_reduced"]), result
    assert (alpha and not alpha_now) <= bool(noted["alpha"]), result
    assert (captions and not captions_now) <= bool(noted["captions"]), result


def checked(body: Callable[..., RenderResult]) -> Callable[..., RenderResult]:
    """Return a function body that checks its result against its files."""

    @functools.wraps(body)
    def run(request: Any, context: JobContext) -> RenderResult:
        result = body(request, context)
        if isinstance(context.storage, FolderStorage):
            source = context.storage.path(context.input_place(request.input_key))
            check_losses(source, context.outputs[context.output_place(request.output_key)], request, result)
        return result

    return run


@pytest.fixture(autouse=True)
def every_loss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the files of every job that a test runs in its own process."""
    for module in BODIES:
        monkeypatch.setattr(module, "run", checked(module.run))
