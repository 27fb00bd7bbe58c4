"""Settings: an argument beats the environment, the environment beats the default.

Pure: it reads the mapping that it is given and must not touch files, the network or modal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from reel_modal.errors import ConfigError

__all__ = ["MediaLimits", "OnDrift", "Settings"]

OnDrift: TypeAlias = Literal["warn", "error", "off"]
"""What a host does when the deployment is not of its own version: log it, refuse to submit, or not look."""

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off", ""})


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What an untrusted input file may declare before it is refused unread.

    Attributes:
        max_width_px: Widest accepted frame. 8192 covers 8K UHD.
        max_height_px: Tallest accepted frame.
        max_frame_pixels: Largest accepted width x height; a frame of the default needs 106 MB as BGR.
        max_duration_seconds: Longest accepted clip, by its header. Four hours cover a match with its breaks.
    """

    max_width_px: int = 8192
    max_height_px: int = 8192
    max_frame_pixels: int = 8192 * 4320
    max_duration_seconds: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a host can choose without changing code.

    Attributes:
        modal_enabled: Run jobs on Modal (True) or on this machine (False). `MODAL_ENABLED`.
        app: Base name of the Modal app. `REEL_MODAL_APP`.
        environment: Which deployment: production (as None), staging, development or test, each an app of its own.
            Modal's own environments are another thing, chosen by `MODAL_ENVIRONMENT`. `REEL_MODAL_ENVIRONMENT`.
        store_url: Where media lie, such as `file:///srv/media`. `REEL_MODAL_STORE_URL`.
        ffmpeg: Path of the ffmpeg to use; None looks on PATH, then in imageio-ffmpeg. `REEL_MODAL_FFMPEG`.
        budget_usd: Most that one job may cost by estimate; None sets no bound. `REEL_MODAL_BUDGET_USD`.
        timings: File that remembers what finished jobs took, or `off` to write none; None is a file in the user's
            data directory. `REEL_MODAL_TIMINGS`.
        on_drift: What to do at first use of a function whose deployment is not of this host's version.
            `REEL_MODAL_ON_DRIFT`.
        upscale_provider: What runs networks where a request does not say: `cpu`, or `cuda` for an NVIDIA GPU.
            `REEL_MODAL_UPSCALE_PROVIDER`.
        stall_seconds: Longest that ffmpeg may neither take nor give data. Generous: a slow disk is no fault.
        limits: What an untrusted input may declare.
    """

    modal_enabled: bool = False
    app: str = "reel-modal"
    environment: str | None = None
    store_url: str | None = None
    ffmpeg: str | None = None
    budget_usd: float | None = None
    timings: str | None = None
    on_drift: OnDrift = "warn"
    upscale_provider: Literal["cpu", "cuda"] = "cpu"
    stall_seconds: float = 60.0
    limits: MediaLimits = MediaLimits()

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        modal_enabled: bool | None = None,
        app: str | None = None,
        environment: str | None = None,
        store_url: str | None = None,
        ffmpeg: str | None = None,
        budget_usd: float | None = None,
        timings: str | None = None,
        on_drift: OnDrift | None = None,
    ) -> Settings:
        """Read the settings from `env` (default: this process's environment); an argument wins over it.

        Raises:
            ConfigError: A variable has a value that is not of its type or not known, or the budget is no positive
                number; the message names it.

        Example:
            >>> Settings.from_env({"MODAL_ENABLED": "true"}).modal_enabled
            True
        """
        source = os.environ if env is None else env
        if modal_enabled is None:
            modal_enabled = _boolean(source, "MODAL_ENABLED", default=False)
        if budget_usd is None:
            budget_usd = _dollars(source, "REEL_MODAL_BUDGET_USD")
        else:
            _check_dollars(budget_usd, f"budget_usd={budget_usd!r}")
        return cls(
            modal_enabled=modal_enabled,
            app=app or source.get("REEL_MODAL_APP") or "reel-modal",
            environment=environment or source.get("REEL_MODAL_ENVIRONMENT") or None,
            store_url=store_url or source.get("REEL_MODAL_STORE_URL") or None,
            ffmpeg=ffmpeg or source.get("REEL_MODAL_FFMPEG") or None,
            budget_usd=budget_usd,
            timings=timings or source.get("REEL_MODAL_TIMINGS") or None,
            on_drift=on_drift or _on_drift(source),
            upscale_provider=_provider(source, "REEL_MODAL_UPSCALE_PROVIDER"),
        )


def _boolean(source: Mapping[str, str], name: str, *, default: bool) -> bool:
    raw = source.get(name)
    if raw is None:
        return default
    word = raw.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigError(f"{name}={raw!r} is neither true nor false; write true, false, 1, 0, yes, no, on or off")


def _on_drift(source: Mapping[str, str]) -> OnDrift:
    raw = source.get("REEL_MODAL_ON_DRIFT", "").strip().lower() or "warn"
    for known in get_args(OnDrift):
        if raw == known:
            return known  # type: ignore[no-any-return] # get_args forgets which words it gave
    raise ConfigError(f"REEL_MODAL_ON_DRIFT={raw!r} is not known; write {', '.join(get_args(OnDrift))}")


def _provider(source: Mapping[str, str], name: str) -> Literal["cpu", "cuda"]:
    word = source.get(name, "").strip().lower()
    if word in {"", "cpu"}:
        return "cpu"
    if word == "cuda":
        return "cuda"
    raise ConfigError(f"{name}={source[name]!r} is no device that networks run on; write cpu or cuda")


def _dollars(source: Mapping[str, str], name: str) -> float | None:
    raw = source.get(name)
    if raw is None or not raw.strip():
        return None
    try:
        dollars = float(raw)
    except ValueError as error:
        raise ConfigError(f"{name}={raw!r} is not a number of US dollars, such as 0.25") from error
    _check_dollars(dollars, f"{name}={raw!r}")
    return dollars


def _check_dollars(dollars: float, said: str) -> None:
    if not 0 < dollars < float("inf"):
        raise ConfigError(f"{said} must be a positive, finite number of US dollars")
