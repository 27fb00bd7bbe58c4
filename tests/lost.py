"""What one file has and another lacks, found with libav alone, and whether a result names it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from av.container import InputContainer
from av.stream import Disposition

from reel_modal.functions import apply_upscale, process_framing, render_overlay
from reel_modal.functions.context import JobContext
from reel_modal.media.pyav import open_input
from reel_modal.schema import FramingRequest, RenderResult
from reel_modal.schema.requests import Request
from reel_modal.storage import FolderStorage

BODIES = (render_overlay, process_framing, apply_upscale)
TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "timecode", "reel_modal_request"}
BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails


def opened(path: Path) -> InputContainer:
    return open_input(str(path), options={}, container_options={})


def streams(path: Path) -> Counter[str]:
    """How many streams of each kind a file has, by the codes of their loss."""
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


def words(path: Path) -> tuple[list[tuple[float, float]], set[str]]:
    """The times of the chapters of a file, and the names of its tags."""
    with opened(path) as container:
        chapters = [
            (float(each["start"] * (each["time_base"] or 1)), float(each["end"] * (each["time_base"] or 1)))
            for each in container.chapters()
        ]
        return chapters, {key.lower() for key, value in container.metadata.items() if value} - TECHNICAL


def picture(path: Path) -> tuple[int, bool, bool]:
    """Bits of a sample, whether there is alpha, and whether there are captions, by the first picture."""
    with opened(path) as container:
        stream = next(each for each in container.streams.video if not each.disposition & BESIDE)
        frame = next(container.decode(stream))
        alpha = any(part.is_alpha for part in frame.format.components) and stream.codec_context.name != "gif"
        captions = any("A53_CC" in str(getattr(data, "type", "")) for data in frame.side_data)
        return max(part.bits for part in frame.format.components), alpha, captions


def check_losses(source: Path, output: Path, request: Request, result: RenderResult) -> None:
    """Assert that the result names what the source has and the output lacks, and nothing else."""
    said = Counter(note.code.removesuffix("_dropped") for note in result.degraded)
    missing = streams(source) - streams(output)
    if isinstance(request, FramingRequest) and not request.audio:
        missing.pop("sound", None)
    assert missing == Counter({kind: said[kind] for kind in (*missing, *streams(source)) if said[kind]}), result
    (chapters, tags), (kept, kept_tags) = words(source), words(output)
    whole = not isinstance(request, FramingRequest) or request.trim_end_seconds is None
    begin = float(request.trim_start_seconds) if isinstance(request, FramingRequest) else 0
    if whole:
        lasting = [end for _, end in chapters if end > begin]
        assert ("chapters" in said) == (bool(lasting) and not kept), result
        assert kept == [] or len(kept) == len(lasting), result
    lost = tags - kept_tags
    assert bool(lost) == bool(said["metadata"] or said["metadata_stripped"]), (lost, result)
    (bits, alpha, captions), (bits_now, alpha_now, captions_now) = picture(source), picture(output)
    assert (bits_now < bits) == bool(said["bit_depth_reduced"]), result
    assert (alpha and not alpha_now) <= bool(said["alpha"]), result
    assert (captions and not captions_now) <= bool(said["captions"]), result


def checked(body: Callable[..., RenderResult]) -> Callable[..., RenderResult]:
    """The body of a function, whose every result is compared with its files."""

    @functools.wraps(body)
    def run(request: Any, context: JobContext) -> RenderResult:
        result = body(request, context)
        if isinstance(context.storage, FolderStorage):
            source, output = (context.storage.path(key) for key in context.places_of(request))
            check_losses(source, output, request, result)
        return result

    return run


@pytest.fixture(autouse=True)
def every_loss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the files of every job that a test runs in its own process."""
    for module in BODIES:
        monkeypatch.setattr(module, "run", checked(module.run))
