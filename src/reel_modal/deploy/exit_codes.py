"""The failures of a deployment: the cure and the exit status of each kind."""

from __future__ import annotations

from typing import Final

from reel_modal.errors import (
    ConfigError,
    DeploymentError,
    FFmpegError,
    MissingDependencyError,
    ReelModalError,
    RemoteError,
)

__all__ = ["DONE", "FAILED", "NOT_CONFIGURED", "USAGE", "deployment_error", "exit_status", "explained"]

DONE, FAILED, USAGE, NOT_CONFIGURED = 0, 1, 2, 3

_LOOK: Final = "`python -m reel_modal.deploy --verify-only` shows the deployed version"
_LAST: Final = "a deployment is published by its last request, so the previous version should still be active"
_UNTOUCHED: Final = "nothing was published, the previous version is still active"

_CURES: Final = {
    "auth": "set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`",
    "config": "correct the variable that is named",
    "usage": "correct the option that is named",
    "secret": "create it with `modal secret create NAME REEL_MODAL_STORE_URL=…`, or correct REEL_MODAL_SECRETS",
    "environment": "see `modal environment list`, and set MODAL_ENVIRONMENT to one of them or unset it",
    "not_deployed": f"{_UNTOUCHED}; create the missing object on Modal",
    "unconfirmed": "add --yes to confirm; stdin is not a terminal, so the command cannot ask",
    "preflight": f"{_UNTOUCHED}; correct it and try again, or skip the trial with --no-preflight",
    "image": f"{_UNTOUCHED}; correct the image in functions/specs.py",
    "unavailable": f"check the network and status.modal.com, then try again; {_LOOK}",
    "timeout": f"{_LAST}; {_LOOK}; a larger --timeout allows a longer image build",
    "unknown": _LOOK,
    "unexpected": f"{_LAST}; {_LOOK}",
    "drift": "deploy this version, or install the one that is deployed",
}
_NOT_SET_UP: Final = frozenset({"auth", "config", "secret", "environment"})


def deployment_error(kind: str, message: str) -> DeploymentError:
    """Return the DeploymentError of this kind, with its cure."""
    return DeploymentError(kind, message, _CURES.get(kind, _CURES["unexpected"]))


def explained(error: ReelModalError) -> DeploymentError:
    """Return an error of this package as a DeploymentError with a cure; the caller raises it `from error`."""
    if isinstance(error, DeploymentError):
        return error
    if isinstance(error, RemoteError):
        return deployment_error(error.kind, str(error))
    if isinstance(error, (FFmpegError, MissingDependencyError)):
        return deployment_error("preflight", str(error))
    return deployment_error("config" if isinstance(error, ConfigError) else "unexpected", str(error))


def exit_status(error: DeploymentError) -> int:
    """Return the exit status for `error`."""
    if error.kind in {"unconfirmed", "usage"}:
        return USAGE
    return NOT_CONFIGURED if error.kind in _NOT_SET_UP else FAILED
