"""Run the body of a function that encodes a video: its encoder is tried first, and errors of it are explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from reel_modal._ffmpeg.encoders import try_encoder
from reel_modal._rendering.opencv import load_cv2
from reel_modal.errors import EncoderUnavailableError, RequestError
from reel_modal.schema import EncodeOptions
from reel_modal.settings import Settings

__all__ = ["check_encoder", "encoding_video"]

# `auto` falls back by itself; libx264 is in every ffmpeg that this package bundles.
_ALWAYS_AVAILABLE: Final = frozenset({"auto", "libx264"})


@contextmanager
def encoding_video(encode: EncodeOptions, settings: Settings) -> Iterator[None]:
    """Run the block, which encodes a video with `encode`, in a process that runs one job at a time.

    Raises:
        RequestError: The encoder that the request names does not start here; checked before the input is fetched.
        MissingDependencyError: OpenCV cannot be loaded.
    """
    check_encoder(encode, settings)
    # The encoder's threads use all cores; more threads for a few milliseconds of drawing per frame only add overhead.
    load_cv2().setNumThreads(1)
    with _encoder_named(encode):
        yield


def check_encoder(encode: EncodeOptions, settings: Settings) -> None:
    """Check that the encoder of a request starts.

    Raises:
        RequestError: The encoder does not start here.
        FFmpegNotFoundError: ffmpeg was not found.
    """
    if encode.encoder not in _ALWAYS_AVAILABLE:
        with _encoder_named(encode):
            try_encoder(settings, encode.encoder)


@contextmanager
def _encoder_named(encode: EncodeOptions) -> Iterator[None]:
    """Convert EncoderUnavailableError to RequestError if the request names the encoder."""
    try:
        yield
    except EncoderUnavailableError as error:
        if encode.encoder == "auto":
            raise
        raise RequestError("encode.encoder", error.message) from error
