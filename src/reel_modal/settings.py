"""Settings: an argument overrides the environment variable, which overrides the default.

Pure: accesses no file and no network. All values are validated on construction.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from reel_modal.errors import ConfigError
from reel_modal.schema.model_source import ModelSource

__all__ = [
    "BUNDLED_MODELS",
    "ENVIRONMENTS",
    "JOB_VARIABLES",
    "MODEL_FAMILIES",
    "MediaLimits",
    "ModelSource",
    "OnDrift",
    "Settings",
    "limit_problem",
    "usable_cores",
]

OnDrift: TypeAlias = Literal["warn", "error", "off"]
"""Reaction to a deployment of another version: log a warning, refuse to submit, or skip the check."""

_Provider: TypeAlias = Literal["cpu", "cuda"]

ENVIRONMENTS: Final = ("production", "staging", "development", "test")
"""Deployments of one app; None means production."""

MODEL_FAMILIES: Final = ("small", "large")
"""Networks in this package, each for two scales: `small` for a CPU, `large` for quality; see `training/`."""

BUNDLED_MODELS: Final = tuple(f"{family}-x{scale}" for family in MODEL_FAMILIES for scale in (2, 4))
"""Names of the networks in this package."""

_MOST_CORES: Final = 1024
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
# Modal accepts 64 characters; "-development" may be appended.
_APP: Final = re.compile(r"[A-Za-z0-9._-]{1,52}")
_APP_ID: Final = re.compile(r"ap-[A-Za-z0-9]{22}")
_STORE: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\x00-\x20\x7f]*", re.IGNORECASE)
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_MODELS: Final = 1000
# libav refuses larger frames: av_image_check_size() requires that width * height * 8 fits in an int.
_MOST_PIXELS: Final = 1 << 28
_DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Rule:
    """Parser and validator of one setting.

    Attributes:
        variable: Its environment variable.
        read: Parses the text of the variable, or raises ValueError with the problem.
        problem: Returns the problem of a value and the valid form; None if the value is valid.
        secret: Whether the value may contain a credential, so that no message repeats it.
    """

    variable: str
    read: Callable[[str], object]
    problem: Callable[[Any], str | None]
    secret: bool = False

    def check(self, value: object, name: str, shown: str) -> None:
        """Raise ConfigError if `value` is not valid; `name` is the field or variable, `shown` the value as text."""
        if (problem := self.problem(value)) is not None:
            raise ConfigError(f"{name} {problem}" if self.secret else f"{name}={shown} {problem}")


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Limits for the headers of untrusted input files; a file that exceeds them is refused before it is decoded.

    Attributes:
        max_width_px: Maximum frame width. 8192 covers 8K UHD. `REEL_MODAL_MAX_WIDTH_PX`.
        max_height_px: Maximum frame height. `REEL_MODAL_MAX_HEIGHT_PX`.
        max_frame_pixels: Maximum width x height; a frame of the default size needs 106 MB as BGR.
            `REEL_MODAL_MAX_FRAME_PIXELS`.
        max_duration_seconds: Maximum clip duration according to the header; `math.inf` disables the limit. Four
            hours cover a match with its breaks. `REEL_MODAL_MAX_DURATION_SECONDS`.

    Raises:
        ConfigError: A value has the wrong type or is out of range; the message names the field.
    """

    max_width_px: int = 8192
    max_height_px: int = 8192
    max_frame_pixels: int = 8192 * 4320
    max_duration_seconds: float = 4 * 3600.0

    def __post_init__(self) -> None:
        _check_fields(self, _LIMITS, "limits.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All options that a host can set without changing code.

    Attributes:
        modal_enabled: Run jobs on Modal (True) or on this machine (False). `MODAL_ENABLED`.
        app: Base name of the Modal app. `REEL_MODAL_APP`.
        environment: Deployment to use: production (same as None), staging, development or test. Each is a separate
            app. Modal environments are a different concept; `MODAL_ENVIRONMENT` selects them.
            `REEL_MODAL_ENVIRONMENT`.
        store_url: URL of the media store, such as `file:///srv/media`. `REEL_MODAL_STORE_URL`.
        ffmpeg: Path of the ffmpeg to use; None uses the one in the imageio-ffmpeg package, or the one on PATH if the
            package has none for this machine. `REEL_MODAL_FFMPEG`.
        budget_usd: Maximum estimated cost of one job in US dollars; None disables the limit.
            `REEL_MODAL_BUDGET_USD`.
        timings: File for the timings of finished jobs, or `off` to write none; None is a file in the user's data
            directory. `REEL_MODAL_TIMINGS`.
        on_drift: Reaction when a function is first used and its deployment is of another version than this host.
            `REEL_MODAL_ON_DRIFT`.
        upscale_provider: Device for networks if the request does not name one: `cpu`, or `cuda` for an NVIDIA GPU.
            `REEL_MODAL_UPSCALE_PROVIDER`.
        cpu: Cores reserved for this process; determines the threads of decoders and networks. None counts the cores
            that the system lets the process use. A deployment sets it in its containers, which see all cores of
            their host. Results do not depend on it. `REEL_MODAL_CPU`.
        stall_seconds: Maximum time without data to or from ffmpeg, above 0, at most a day. The default is generous,
            because a slow disk is not an error. `REEL_MODAL_STALL_SECONDS`.
        models: Networks that requests may name besides those of this package. `REEL_MODAL_MODELS`, as JSON:
            `{"face": {"source": "https://…/face.onnx", "sha256": "…"}}`.
        limits: Limits for the headers of untrusted input files.

    Raises:
        ConfigError: A value has the wrong type or is out of range; the message names the field and the valid values.
    """

    modal_enabled: bool = False
    app: str = "reel-modal"
    environment: str | None = None
    store_url: str | None = None
    ffmpeg: str | None = None
    budget_usd: float | None = None
    timings: str | None = None
    on_drift: OnDrift = "warn"
    upscale_provider: _Provider = "cpu"
    cpu: float | None = None
    stall_seconds: float = 60.0
    models: Mapping[str, ModelSource] = field(default_factory=dict, hash=False)
    limits: MediaLimits = field(default_factory=MediaLimits)

    def __post_init__(self) -> None:
        _check_fields(self, _SETTINGS)
        if not isinstance(self.limits, MediaLimits):
            raise ConfigError(f"limits={self.limits!r} must be a MediaLimits")
        # A copy, so that later changes to the caller's mapping do not affect running jobs.
        object.__setattr__(self, "models", dict(self.models))

    @property
    def cores(self) -> int:
        """Number of cores that this process may use, rounded up; at least 1."""
        return usable_cores() if self.cpu is None else math.ceil(self.cpu)

    @property
    def decoder_threads(self) -> int:
        """Threads of one decoder: cores + 1, as in libav, since one thread often waits; 1 on a single core."""
        return self.cores + 1 if self.cores > 1 else 1

    def __repr__(self) -> str:
        """Return the settings that differ from the default; the store URL without credentials and options."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = {name: repr(value) for name, value in values.items() if value != getattr(_DEFAULTS, name)}
        if self.store_url is not None:
            shown["store_url"] = _without_secrets(self.store_url)
        return f"Settings({', '.join(f'{name}={text}' for name, text in shown.items())})"

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
        upscale_provider: _Provider | None = None,
        cpu: float | None = None,
        stall_seconds: float | None = None,
        models: Mapping[str, ModelSource] | None = None,
        limits: MediaLimits | None = None,
    ) -> Settings:
        """Read the settings from `env` (default: this process's environment).

        An argument overrides its variable, which is then not read; None uses the variable. An empty variable counts
        as unset.

        Raises:
            ConfigError: A variable or an argument has the wrong type or is out of range; the message names it.

        Example:
            >>> Settings.from_env({"MODAL_ENABLED": "true"}).modal_enabled
            True
        """
        source = os.environ if env is None else env
        arguments = {
            "modal_enabled": modal_enabled,
            "app": app,
            "environment": environment,
            "store_url": store_url,
            "ffmpeg": ffmpeg,
            "budget_usd": budget_usd,
            "timings": timings,
            "on_drift": on_drift,
            "upscale_provider": upscale_provider,
            "cpu": cpu,
            "stall_seconds": stall_seconds,
            "models": models,
        }
        if limits is None:
            limits = MediaLimits(**_from_env(source, _LIMITS, dict.fromkeys(_LIMITS)))
        return cls(**_from_env(source, _SETTINGS, arguments), limits=limits)


def usable_cores() -> int:
    """Return the number of cores that the system lets this process use; it may be less than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _check_fields(value: object, rules: Mapping[str, _Rule], prefix: str = "") -> None:
    for name, rule in rules.items():
        field_value = getattr(value, name)
        rule.check(field_value, prefix + name, repr(field_value))


def _from_env(env: Mapping[str, str], rules: Mapping[str, _Rule], arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields that an argument or a variable sets."""
    values = {name: value for name, value in arguments.items() if value is not None}
    for name, rule in rules.items():
        text = env.get(rule.variable, "").strip()
        if name in values or not text:
            continue
        try:
            values[name] = rule.read(text)
        except ValueError as error:
            shown = rule.variable if rule.secret else f"{rule.variable}={text!r}"
            raise ConfigError(f"{shown} {error}") from error
        rule.check(values[name], rule.variable, repr(text))
    return values


def _without_secrets(url: str) -> str:
    """Return `repr(url)` for messages, without credentials and query."""
    scheme, colon, rest = url.partition("://")
    place, question_mark, _ = rest.partition("?")
    authority = place.partition("/")[0]
    if not colon or ":" in authority or "@" in authority:
        return repr(f"{scheme}://…" if colon else "…")
    return repr(f"{scheme}://{place}{'?…' if question_mark else ''}")


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("is not a valid boolean; use true, false, 1, 0, yes, no, on or off")


def _number_of(noun: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"is not a number of {noun}") from None

    return read


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError("is not a whole number, such as 8192")
    return int(text)


def _models(text: str) -> dict[str, ModelSource]:
    example = '{"face": {"source": "https://…/face.onnx", "sha256": "…"}}'
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"is not valid JSON; use {example}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"is not a JSON object of names; use {example}")  # noqa: TRY004 - an invalid value
    return {name: _model(name, entry) for name, entry in raw.items()}


def _model(name: str, entry: object) -> ModelSource:
    fields = {"source", "sha256", "allow_private_addresses"}
    if not isinstance(entry, dict) or not {"source", "sha256"} <= set(entry) <= fields:
        raise ValueError(f'[{name[:64]!r}] must be an object with "source" and "sha256"')
    try:
        return ModelSource(**entry)
    except ConfigError as error:
        raise ValueError(f"[{name[:64]!r}]: {error}") from error


def _is_number(value: object) -> bool:
    """Return whether `value` is a float other than NaN, or an int that a float represents exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isnan(value) if isinstance(value, float) else abs(value) <= 1 << 53


def _boolean_problem(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _app_problem(value: object) -> str | None:
    if isinstance(value, str) and _APP.fullmatch(value) and not _APP_ID.fullmatch(value):
        return None
    return "is not a valid name of a Modal app (1 to 52 letters, digits, dots, dashes and underscores)"


def _one_of(*choices: str | None) -> Callable[[object], str | None]:
    known = ", ".join(word for word in choices if word is not None)

    def problem(value: object) -> str | None:
        return None if value in choices else f"is unknown; use one of {known}"

    return problem


def _store_problem(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _STORE.fullmatch(value):
        return "is not a valid storage URL; use file:///folder, s3://bucket/prefix or memory://name"
    return None


def _text_problem(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and "\0" not in value):
        return None
    return "must be a path as a string; None selects the default"


def _dollars_problem(value: object) -> str | None:
    if value is None or (_is_number(value) and 0 < cast("float", value) < math.inf):
        return None
    return "must be a positive, finite number of US dollars, such as 0.25; None sets no limit"


def _cores_problem(value: object) -> str | None:
    if value is None or (_is_number(value) and 0 < cast("float", value) <= _MOST_CORES):
        return None
    return f"is not a number of cores; it must be above 0, at most {_MOST_CORES}"


def _seconds_problem(value: object) -> str | None:
    if _is_number(value) and 0 < cast("float", value) <= _DAY_SECONDS:
        return None
    return f"must be a number of seconds above 0, at most {_DAY_SECONDS:.0f} (a day)"


def limit_problem(value: object) -> str | None:
    """Return the problem of a limit in seconds that can be disabled; None if it is valid."""
    if _is_number(value) and cast("float", value) > 0:
        return None
    return "must be a number of seconds above 0; math.inf disables the limit"


def _pixels_problem(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_PIXELS:
        return None
    return f"must be a whole number, 1 to {_MOST_PIXELS}, the maximum that ffmpeg decodes"


def _models_problem(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return "must be a mapping of names to ModelSource"
    if len(value) > _MOST_MODELS:
        return f"has {len(value)} entries; at most {_MOST_MODELS} are accepted"
    for name, source in value.items():
        if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
            return f"[{str(name)[:64]!r}]: the name must be 1 to 64 letters, digits, dots, dashes and underscores"
        if name in {*MODEL_FAMILIES, *BUNDLED_MODELS}:
            return f"[{name!r}]: the name is that of a network of this package; use another name"
        if not isinstance(source, ModelSource):
            return f"[{name!r}] must be a ModelSource(source, sha256)"
    return None


_LIMITS: Final[Mapping[str, _Rule]] = {
    "max_width_px": _Rule("REEL_MODAL_MAX_WIDTH_PX", _whole_number, _pixels_problem),
    "max_height_px": _Rule("REEL_MODAL_MAX_HEIGHT_PX", _whole_number, _pixels_problem),
    "max_frame_pixels": _Rule("REEL_MODAL_MAX_FRAME_PIXELS", _whole_number, _pixels_problem),
    "max_duration_seconds": _Rule("REEL_MODAL_MAX_DURATION_SECONDS", _number_of("seconds"), limit_problem),
}

_SETTINGS: Final[Mapping[str, _Rule]] = {
    "modal_enabled": _Rule("MODAL_ENABLED", _boolean, _boolean_problem),
    "app": _Rule("REEL_MODAL_APP", str, _app_problem),
    "environment": _Rule("REEL_MODAL_ENVIRONMENT", str, _one_of(None, *ENVIRONMENTS)),
    "store_url": _Rule("REEL_MODAL_STORE_URL", str, _store_problem, secret=True),
    "ffmpeg": _Rule("REEL_MODAL_FFMPEG", str, _text_problem),
    "budget_usd": _Rule("REEL_MODAL_BUDGET_USD", _number_of("US dollars, such as 0.25"), _dollars_problem),
    "timings": _Rule("REEL_MODAL_TIMINGS", str, _text_problem),
    "on_drift": _Rule("REEL_MODAL_ON_DRIFT", str.lower, _one_of(*get_args(OnDrift))),
    "upscale_provider": _Rule("REEL_MODAL_UPSCALE_PROVIDER", str.lower, _one_of(*get_args(_Provider))),
    "cpu": _Rule("REEL_MODAL_CPU", _number_of("cores"), _cores_problem),
    "stall_seconds": _Rule("REEL_MODAL_STALL_SECONDS", _number_of("seconds"), _seconds_problem),
    "models": _Rule("REEL_MODAL_MODELS", _models, _models_problem, secret=True),
}

JOB_VARIABLES: Final = (
    *(_SETTINGS[name].variable for name in ("stall_seconds", "models")),
    *(rule.variable for rule in _LIMITS.values()),
)
"""Environment variables that affect jobs; a deployment passes them on to its containers."""

_DEFAULTS: Final = Settings()
