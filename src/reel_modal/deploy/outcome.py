"""What can go wrong in a deploy: for each kind what to do next, and the exit status.

It must not know how any of it is found out.
"""

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

_LOOK: Final = "`python -m reel_modal.deploy --verify-only` says what serves now"
_LAST: Final = "a deployment is published by its last request, so the former version should serve on"
_UNTOUCHED: Final = "nothing was published, the former version serves on"

_CURES: Final = {
    "auth": "set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`",
    "config": "correct the variable that is named",
    "secret": "make it with `modal secret create NAME REEL_MODAL_STORE_URL=…`, or name another in REEL_MODAL_SECRETS",
    "environment": "see `modal environment list`, and set MODAL_ENVIRONMENT to one of them or unset it",
    "not_deployed": f"{_UNTOUCHED}; make what is missing on Modal",
    "unconfirmed": "add --yes when that is meant; nobody is here to ask",
    "preflight": f"{_UNTOUCHED}; correct it and try again, or leave the trial out with --no-preflight",
    "image": f"{_UNTOUCHED}; correct the image in functions/specs.py",
    "unavailable": f"look at the network and at status.modal.com, then try again; {_LOOK}",
    "timeout": f"{_LAST}; {_LOOK}; a larger --timeout lets a long image build end",
    "unknown": _LOOK,
    "unexpected": f"{_LAST}; {_LOOK}",
    "drift": "deploy this version, or install the one that is deployed",
}
_NOT_SET_UP: Final = frozenset({"auth", "config", "secret", "environment"})


def deployment_error(kind: str, message: str) -> DeploymentError:
    """Return the error of this kind, with what to do next."""
    return DeploymentError(kind, message, _CURES.get(kind, _CURES["unexpected"]))


def explained(error: ReelModalError) -> DeploymentError:
    """Return any error of this package as one that says what to do next; the caller raises it `from error`."""
    if isinstance(error, DeploymentError):
        return error
    if isinstance(error, RemoteError):
        return deployment_error(error.kind, str(error))
    if isinstance(error, (FFmpegError, MissingDependencyError)):
        return deployment_error("preflight", str(error))
    return deployment_error("config" if isinstance(error, ConfigError) else "unexpected", str(error))


def exit_status(error: DeploymentError) -> int:
    """Return the exit status that says so."""
    if error.kind == "unconfirmed":
        return USAGE
    return NOT_CONFIGURED if error.kind in _NOT_SET_UP else FAILED
