"""Check by trying which features work on this machine, with a cure for each failure. Changes nothing."""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np

from reel_modal._ffmpeg.binary import Binary, binaries, check_binary, find_ffmpeg, first_reason
from reel_modal._ffmpeg.encoders import KNOWN_ENCODERS, is_hardware, try_encoder
from reel_modal._ffmpeg.hardware_decoding import nvdec_ffmpeg
from reel_modal._ffmpeg.libav_decoder import InProcessDecoder
from reel_modal._rendering.opencv import CURE as OPENCV_CURE
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._support.scratch import scratch_dir
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import Provider, UpscaleSession, available_providers, load_onnxruntime
from reel_modal.errors import (
    ConfigError,
    FFmpegError,
    InvalidModelError,
    MissingDependencyError,
    ProviderUnavailableError,
    StorageError,
)
from reel_modal.functions.inputs import seek_strategy
from reel_modal.functions.specs import app_name
from reel_modal.media import probe
from reel_modal.media.frames import ColorTags
from reel_modal.schema import HighlightKeyframe, HighlightRegion, OverlayRequest
from reel_modal.settings import Settings
from reel_modal.storage import Storage
from reel_modal.testing import make_clip

__all__ = ["Finding", "examine"]

_PACKAGES = ("reel-modal", "numpy", "imageio-ffmpeg", "modal", "obstore", "rich", "stamina")
_CLIP_FRAMES = 5
_TOKEN = ("token_id", "token_secret")
_SIGN_IN = (
    "run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; then `reel-modal deploy --verify-only` asks"
    " Modal whether it accepts them"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: Name of the check.
        ok: Whether the checked feature works.
        detail: Version, location, or reason of the failure.
        cure: How to fix a failure; empty if there is nothing to do.
        required: Whether the library needs the feature.
    """

    name: str
    ok: bool
    detail: str
    cure: str = ""
    required: bool = True

    def to_dict(self) -> dict[str, object]:
        """Return the finding for JSON."""
        return asdict(self)


def examine(settings: Settings | None = None) -> list[Finding]:
    """Check everything that the library uses on this machine.

    Args:
        settings: The settings; default `Settings.from_env()`.

    Raises:
        ConfigError: An environment variable is not valid.
    """
    settings = settings or Settings.from_env()
    return [
        _python(),
        *_packages(),
        _pyav(settings),
        _opencv(),
        *_networks(settings),
        *_ffmpeg(settings),
        _storage(settings),
        modal_token(settings, os.environ),
    ]


def modal_token(settings: Settings, env: Mapping[str, str]) -> Finding:
    """Report where modal finds its token, without a network request; the token itself is never included."""
    required = settings.modal_enabled
    try:
        app = app_name(settings)
        profile, fields = _profile(env)
    except (ConfigError, OSError, ValueError) as error:
        cure = "correct the named value, or run `modal token new`"
        return Finding("modal token", ok=False, detail=str(error), cure=cure, required=required)
    # Each variable overrides its own field of the file.
    places = {name: f"MODAL_{name.upper()}" for name in _TOKEN if env.get(f"MODAL_{name.upper()}")}
    places |= {name: profile for name in _TOKEN if name not in places and fields.get(name)}
    missing = [name for name in _TOKEN if name not in places]
    if missing:
        detail = f"{' and '.join(missing)} not found in the environment or in {profile}"
        return Finding("modal token", ok=False, detail=detail, cure=_SIGN_IN, required=required)
    detail = f"found in {' and '.join(dict.fromkeys(places.values()))}, not verified; jobs go to the app {app}"
    return Finding("modal token", ok=True, detail=detail, required=required)


def _profile(env: Mapping[str, str]) -> tuple[str, Mapping[str, object]]:
    """Return a description of the active profile of modal's configuration, and its values."""
    path = Path(env.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml")
    profiles: dict[str, dict[str, object]] = {}
    if path.exists():
        try:
            profiles = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
    active = [name for name, values in profiles.items() if isinstance(values, dict) and values.get("active") is True]
    name = env.get("MODAL_PROFILE") or next(iter(active), "default")
    values = profiles.get(name, {})
    return f"profile {name!r} of {path}", values if isinstance(values, dict) else {}


def _python() -> Finding:
    return Finding("python", ok=True, detail=f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, ok=True, detail=metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, ok=False, detail="not installed", cure=f"pip install {name}")


def _pyav(settings: Settings) -> Finding:
    """Write a clip with PyAV, and read it in the same way as the library."""
    expected = [Fraction(number, 25) for number in range(_CLIP_FRAMES)]
    try:
        import av

        times = _times_of_own_clip(settings)
        problem = "" if times == expected else f"read {len(times)} of {_CLIP_FRAMES} frames, or with wrong timestamps"
    except Exception as error:  # noqa: BLE001 - another version of PyAV may fail in any way
        problem = f"{type(error).__name__}: {error}"
    if problem:
        detail = f"PyAV {_version('av')} does not read a clip: {problem}"
        return Finding("pyav", ok=False, detail=detail, cure=f"pip install '{_requirement('av')}'")
    return Finding("pyav", ok=True, detail=f"{av.__version__} with FFmpeg {av.ffmpeg_version_info}, reads a clip")


def _times_of_own_clip(settings: Settings) -> list[Fraction]:
    import av

    with scratch_dir() as folder:
        path = folder / "clip.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(_CLIP_FRAMES):
                gray = np.full((48, 64), 40 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="gray8")))
            container.mux(stream.encode(None))
        media = probe(path, scan=True, settings=settings)
        seek_strategy(media, None)  # reads the index, which PyAV 16 does not offer
        decoder = InProcessDecoder(media, ("hflip",), seek_seconds=None, settings=settings)
        return [seconds for _, seconds in decoder.frames()]


def _opencv() -> Finding:
    """Draw a highlight on a frame in the same way as the library."""
    try:
        cv2 = load_cv2()
        inside, outside = _samples_of_own_highlight()
        problem = "" if inside > outside else "the frame outside of a highlight is not darker"
    except MissingDependencyError as error:
        return Finding("opencv", ok=False, detail=str(error), cure=OPENCV_CURE)
    except Exception as error:  # noqa: BLE001 - another version of OpenCV may fail in any way
        problem = f"{type(error).__name__}: {error}"
    if problem:
        detail = f"OpenCV does not draw on a frame: {problem}"
        return Finding("opencv", ok=False, detail=detail, cure=f"pip install '{_requirement('opencv-python')}'")
    return Finding("opencv", ok=True, detail=f"{cv2.__version__}, draws on a frame")


def _samples_of_own_highlight() -> tuple[int, int]:
    """Return the luma at the centre of a highlight and far outside it, drawn on a uniform frame of luma 128."""
    keyframe = HighlightKeyframe(time_seconds=Fraction(0), x=32, y=24, radius_x=12, radius_y=8)
    region = HighlightRegion(id="doctor", start_seconds=Fraction(0), end_seconds=Fraction(1), keyframes=(keyframe,))
    request = OverlayRequest(
        job_id="doctor", user_id="doctor", input_key="in.mp4", output_key="out.mp4", regions=(region,)
    )
    planes = tuple(np.full(shape, 128, np.uint8) for shape in ((48, 64), (24, 32), (24, 32)))
    OverlayRenderer(request, (64, 48), ColorTags()).render(planes, Fraction(1, 2))
    return int(planes[0][24, 32]), int(planes[0][0, 0])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _requirement(package: str) -> str:
    """Return reel-modal's requirement for `package`, in pip's syntax."""
    required = metadata.requires("reel-modal") or []
    return next((text for text in required if text.startswith(package)), package)


def _networks(settings: Settings) -> Iterator[Finding]:
    """Run the smallest network on each device."""
    try:
        built = available_providers()
    except MissingDependencyError as error:
        yield Finding("onnxruntime", ok=False, detail=str(error), cure="pip install onnxruntime")
        return
    version = load_onnxruntime().__version__
    yield Finding("onnxruntime", ok=True, detail=f"{version}, built for {' and '.join(built)}")
    for provider in get_args(Provider):
        required = provider == settings.upscale_provider
        try:
            session = UpscaleSession(UpscaleModel.load("small-x2"), provider=provider, threads=settings.cores)
            session.run(np.zeros((1, 1, 16, 16), np.uint8))
        except (ProviderUnavailableError, InvalidModelError) as error:
            yield Finding(f"upscale on {provider}", ok=False, detail=str(error), cure=_CUDA_CURE, required=required)
        else:
            yield Finding(f"upscale on {provider}", ok=True, detail=session.engine, required=required)


def _ffmpeg(settings: Settings) -> Iterator[Finding]:
    try:
        ffmpeg = find_ffmpeg(settings)
    except FFmpegError as error:
        detail, _, cure = error.message.rpartition("; ")
        yield Finding("ffmpeg", ok=False, detail=detail, cure=cure)
        return
    pinned = ffmpeg.origin == "imageio-ffmpeg"
    other = "" if pinned else "; containers use the ffmpeg of imageio-ffmpeg, so outputs may differ"
    yield Finding("ffmpeg", ok=True, detail=f"{ffmpeg}: {ffmpeg.path}{other}")
    for binary in binaries(settings)[1:]:
        yield _second_ffmpeg(binary)
    for name in KNOWN_ENCODERS:
        yield _encoder(name, settings)
    yield _nvdec(settings)


def _second_ffmpeg(binary: Binary) -> Finding:
    """Check an ffmpeg that is used only for hardware encoding and decoding."""
    name = f"ffmpeg of {binary.origin}"
    try:
        detail = f"{check_binary(binary)}: {binary.path}, for hardware encoding and decoding only"
        return Finding(name, ok=True, detail=detail, required=False)
    except FFmpegError as error:
        detail, _, cure = error.message.rpartition("; ")
        return Finding(name, ok=False, detail=detail, cure=cure, required=False)


def _encoder(name: str, settings: Settings) -> Finding:
    required = name == "libx264"
    try:
        ffmpeg = try_encoder(settings, name)
    except FFmpegError as error:
        reason = first_reason(error.stderr_tail) if error.stderr_tail else error.message
        cure = _GPU_CURE if is_hardware(name) else "use an ffmpeg that was built with it (REEL_MODAL_FFMPEG)"
        return Finding(f"encoder {name}", ok=False, detail=reason, cure=cure, required=required)
    detail = f"encodes, in ffmpeg {ffmpeg}" if is_hardware(name) else "encodes"
    return Finding(f"encoder {name}", ok=True, detail=detail, required=required)


def _nvdec(settings: Settings) -> Finding:
    """Decode a clip on a GPU."""
    with scratch_dir() as folder:
        try:
            clip = make_clip(folder / "clip.mp4", seconds=0.2, settings=settings)
            ffmpeg = nvdec_ffmpeg(probe(clip, settings=settings), settings)
        except FFmpegError as error:
            return Finding("decoder nvdec", ok=False, detail=error.message, required=False)
    if ffmpeg is None:
        cure = "needs an NVIDIA GPU and its driver, and an ffmpeg that supports that driver"
        detail = "no ffmpeg on this machine decodes on a GPU"
        return Finding("decoder nvdec", ok=False, detail=detail, cure=cure, required=False)
    return Finding("decoder nvdec", ok=True, detail=f"decodes, in ffmpeg {ffmpeg}", required=False)


def _storage(settings: Settings) -> Finding:
    if settings.store_url is None:
        cure = "set REEL_MODAL_STORE_URL, such as file:///srv/media, if jobs use keys"
        return Finding("storage", ok=False, detail="no store is set", cure=cure, required=False)
    try:
        store = Storage.from_url(settings.store_url)
        return Finding("storage", ok=True, detail=store.check())
    except MissingDependencyError as error:
        return Finding("storage", ok=False, detail=str(error), cure="pip install obstore")
    except ConfigError as error:
        return Finding("storage", ok=False, detail=str(error), cure="correct REEL_MODAL_STORE_URL")
    except StorageError as error:
        # The last part of the message is the cure.
        detail, _, cure = str(error).rpartition("; ")
        return Finding("storage", ok=False, detail=detail, cure=cure)


_CUDA_CURE = (
    "needs an NVIDIA GPU with its driver, and pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
_GPU_CURE = (
    "needs an NVIDIA GPU with NVENC (T4, L4 and A10G have it, A100 and H100 do not), its driver, and an ffmpeg that"
    " supports that driver: an older ffmpeg on PATH supports an older driver"
)
