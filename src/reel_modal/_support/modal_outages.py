"""Exceptions of modal's client that mean that Modal is unreachable. The module that imports this one loads modal."""

from __future__ import annotations

from typing import Final

import modal.exception as modal_errors
from grpclib.exceptions import StreamTerminatedError

__all__ = ["OUTAGES"]

OUTAGES: Final[tuple[type[Exception], ...]] = (
    modal_errors.ServiceError,
    modal_errors.InternalError,
    modal_errors.ConnectionError,
    modal_errors.ResourceExhaustedError,
    modal_errors.ClientClosed,
    StreamTerminatedError,
)
