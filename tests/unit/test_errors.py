"""Errors survive pickling, and the documented tree equals the class hierarchy."""

from __future__ import annotations

import builtins
import pickle
import re

import pytest

from reel_modal import errors
from reel_modal.errors import (
    DeploymentDriftError,
    DeploymentError,
    FFmpegError,
    ReelModalError,
    RemoteError,
    RequestError,
)

CLASSES = [getattr(errors, name) for name in errors.__all__]
REMOTE = [error for error in CLASSES if issubclass(error, RemoteError)]
ROW = re.compile(r"(?P<lead>[ │├└─]*)(?P<name>[A-Z]\w+Error)\b(?:\s+\(also an? (?P<also>\w+)\))?")


def example(error: type[ReelModalError]) -> ReelModalError:
    """Return an error of the class with every attribute set."""
    if issubclass(error, RequestError):
        return error("regions[2].keyframes[0].radius_x", "0 is not above 0")
    if issubclass(error, FFmpegError):
        return error(
            "ffmpeg failed", command=["ffmpeg", "-i", "in.mp4"], exit_status=-9, frame_index=7, stderr_tail="Killed\n"
        )
    if issubclass(error, DeploymentError):
        return error("auth", "the token is refused", "get another")
    if issubclass(error, DeploymentDriftError):
        return error("differs", function="render_overlay", differences=("gpu: T4 is deployed, L4 is local",))
    if issubclass(error, RemoteError):
        return error("no answer", function="render_overlay", call_id="fc-1")
    return error("frame 3 is too small")


def drawn_tree() -> dict[str, tuple[type[BaseException], ...]]:
    """Parse the module docstring's tree: each name with its bases."""
    assert errors.__doc__ is not None
    bases: dict[str, tuple[type[BaseException], ...]] = {}
    above: list[type[BaseException]] = []
    for row in errors.__doc__.split("::\n", 1)[1].splitlines():
        if not row.strip():
            continue
        match = ROW.match(row)
        assert match, f"a row of the tree names no error: {row!r}"
        depth = len(match["lead"]) // 4 - 1
        parent = above[depth - 1] if depth else Exception
        also = (getattr(builtins, match["also"], None) or getattr(errors, match["also"]),) if match["also"] else ()
        bases[match["name"]] = (parent, *also)
        above[depth:] = [getattr(errors, match["name"])]
    return bases


def test_documented_error_tree_equals_class_hierarchy() -> None:
    assert drawn_tree() == {error.__name__: error.__bases__ for error in CLASSES}


def test_every_error_of_the_module_is_public() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert defined == set(errors.__all__)
    assert all(issubclass(error, ReelModalError) for error in CLASSES)


@pytest.mark.parametrize("error", CLASSES, ids=errors.__all__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickled_error_keeps_message_and_attributes(error: type[ReelModalError], protocol: int) -> None:
    before = example(error)
    before.add_note("the clip was users/7/in.mp4")
    after = pickle.loads(pickle.dumps(before, protocol))  # noqa: S301
    assert type(after) is error
    assert str(after) == str(before)
    assert after.args == before.args
    assert vars(after) == vars(before)
    assert after.__notes__ == ["the clip was users/7/in.mp4"]


@pytest.mark.parametrize("error", CLASSES, ids=errors.__all__)
def test_base_error_catches_every_error(error: type[ReelModalError]) -> None:
    with pytest.raises(ReelModalError) as caught:
        raise example(error)
    assert str(caught.value).strip()


def test_ffmpeg_error_shows_frame_status_and_stderr() -> None:
    shown = str(example(FFmpegError)).splitlines()
    assert shown == [
        "ffmpeg failed",
        "  at frame: 7",
        "  exit status: -9",
        "  command: ffmpeg -i in.mp4",
        "  ffmpeg's last stderr lines:",
        "    Killed",
    ]


def test_ffmpeg_error_shows_zero_frame_and_status() -> None:
    assert str(FFmpegError("too short", frame_index=0, exit_status=0)).splitlines()[1:] == [
        "  at frame: 0",
        "  exit status: 0",
    ]
    assert str(FFmpegError("never started")) == "never started"


def test_request_error_names_the_path_in_the_request() -> None:
    assert str(example(RequestError)) == "regions[2].keyframes[0].radius_x: 0 is not above 0"
    assert str(RequestError("", "not a JSON object")) == "not a JSON object"


def test_remote_error_names_function_and_call() -> None:
    assert str(example(RemoteError)) == "render_overlay (call fc-1): no answer"
    assert str(RemoteError("no answer", function="render_overlay")) == "render_overlay: no answer"


@pytest.mark.parametrize("error", REMOTE, ids=lambda error: error.kind)
def test_remote_error_has_a_plain_user_message(error: type[RemoteError]) -> None:
    assert re.fullmatch(r"[A-Z][^\n]+\.", error.user_message)
    for jargon in ("modal", "gpu", "ffmpeg", "error", "exception", "token", "_"):
        assert jargon not in error.user_message.lower()


@pytest.mark.parametrize("error", [error for error in REMOTE if "try again" in error.user_message.lower()])
def test_user_message_try_again_only_if_retryable(error: type[RemoteError]) -> None:
    assert error.retryable


RETRYABLE = {
    "FFmpegStalledError",
    "JobNotFoundError",
    "JobPreemptedError",
    "JobStalledError",
    "ObjectChangedError",
    "StorageFullError",
    "StorageUnavailableError",
    "UnavailableError",
    "WaitTimeoutError",
    "WorkerCrashedError",
}


def test_every_error_declares_whether_it_is_retryable() -> None:
    assert {error.__name__ for error in CLASSES if example(error).retryable} == RETRYABLE


def test_remote_error_kinds_are_unique_words() -> None:
    kinds = [error.kind for error in REMOTE]
    assert len(set(kinds)) == len(kinds)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) for kind in kinds)
