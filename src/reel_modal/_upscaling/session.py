"""Run a network with ONNX Runtime on the requested device, without falling back to another one."""

from __future__ import annotations

import os
import time
from types import ModuleType
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.tiles import Samples
from reel_modal._support.interruption import hold_interruptions
from reel_modal._upscaling.manifest import INPUT, MEANS, OUTPUT, Precision
from reel_modal._upscaling.model import UpscaleModel
from reel_modal.errors import FrameError, InvalidModelError, MissingDependencyError, ProviderUnavailableError
from reel_modal.settings import usable_cores

__all__ = ["Provider", "UpscaleSession", "available_providers", "load_onnxruntime"]

Provider: TypeAlias = Literal["cpu", "cuda"]
"""Device that runs the network: the local CPU, or an NVIDIA GPU."""

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3
# TF32 would reduce single precision to a mantissa of ten bits.
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE", "enable_cuda_graph": "1"}


def load_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`.

    Telemetry is disabled unless the environment variable ORT_DISABLE_TELEMETRY has another value: since version 1.29,
    ONNX Runtime writes a device id into the user's cache and connects to Microsoft. It reads the variable once, on
    import.

    Raises:
        MissingDependencyError: ONNX Runtime cannot be imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with hold_interruptions():  # its initialization turns a Ctrl-C into an ImportError
            import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX Runtime cannot be imported ({error}): pip install onnxruntime, or onnxruntime-gpu[cuda,cudnn] for"
            " an NVIDIA GPU, but not both"
        ) from error
    module: ModuleType = onnxruntime
    return module


def available_providers() -> tuple[Provider, ...]:
    """Return the providers of the installed ONNX Runtime; whether a GPU is available is known at session start."""
    built = load_onnxruntime().get_available_providers()
    return ("cpu", "cuda") if _CUDA in built else ("cpu",)


class UpscaleSession:
    """Inference session of a network.

    Args:
        model: The network.
        provider: The device. The session does not fall back to another one.
        bits: Bits per sample: 8 for uint8 input and output; 10 for uint16 with the sample in the low bits. Networks
            that are not bundled support 8 to 16.
        precision: Precision of the computation; None means `fp16` for 8 bits on a GPU, for its tensor cores, else
            `fp32`: with 10-bit samples, the ten-bit mantissa of half precision would leave no margin.
        threads: Number of CPU threads; does not change the result. None means one per core that this process may use.

    Raises:
        MissingDependencyError: ONNX Runtime cannot be imported.
        ProviderUnavailableError: The device cannot run the network.
        InvalidModelError: ONNX Runtime refuses the network; the message contains its reason.

    Example:
        >>> session = UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu")
        >>> session.run(np.full((1, 1, 90, 160), 128, np.uint8)).shape
        (1, 1, 180, 320)
    """

    def __init__(
        self,
        model: UpscaleModel,
        *,
        provider: Provider,
        bits: int = 8,
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.provider: Provider = provider
        self.precision: Precision = precision or ("fp16" if provider == "cuda" and bits == 8 else "fp32")
        self.busy_seconds: float = 0.0
        self.redone: int = 0
        self._bits = bits
        self._threads = threads or usable_cores()
        self._runner: _Runner = self._start(self.precision)
        self._exact: _Runner | None = None

    @property
    def engine(self) -> str:
        """Engine name for the result of a job, such as `onnxruntime-cpu fp32 small-x2`."""
        return f"onnxruntime-{self.provider} {self.precision} {self.model.manifest.name}"

    def run(self, samples: Samples) -> Samples:
        """Return upscaled frames.

        If half precision overflows, the call is repeated in single precision; `redone` counts these calls.

        Args:
            samples: (N, C, H, W), uint8 for 8 bits, else uint16. On a GPU, all calls must have the shape of the first
                call; N may be smaller.

        Raises:
            InvalidModelError: The network returns NaN or infinity in single precision too, its output size does not
                match its manifest, or it fails.
            FrameError: On a GPU, the shape does not match the first call.
        """
        started = time.perf_counter()
        try:
            upscaled, means = self._runner.run(samples)
            if not np.isfinite(means).all():
                self.redone += 1
                if self._exact is None:
                    self._exact = self._runner if self.precision == "fp32" else self._start("fp32")
                upscaled, means = self._exact.run(samples)
                if not np.isfinite(means).all():
                    raise InvalidModelError(
                        f"the model {self.model.manifest.name!r} returns NaN or infinity for these frames, in single"
                        " precision too"
                    )
        finally:
            self.busy_seconds += time.perf_counter() - started
        self._check_shape(upscaled.shape, samples.shape)
        return upscaled

    def _check_shape(self, output: tuple[int, ...], samples: tuple[int, ...]) -> None:
        """Raise InvalidModelError unless the output size matches the manifest."""
        count, channels, height, width = samples
        scale = self.model.manifest.scale
        if output != (expected := (count, channels, height * scale, width * scale)):
            raise InvalidModelError(
                f"the model {self.model.manifest.name!r} returns the shape {output} for {samples}; its manifest"
                f" requires {expected}. Its convolutions must be padded"
            )

    def _start(self, precision: Precision) -> _Runner:
        ort = load_onnxruntime()
        if self.provider == "cuda":
            if _CUDA not in ort.get_available_providers():
                raise ProviderUnavailableError(
                    "the GPU was requested, but the installed ONNX Runtime has no CUDA provider: pip uninstall"
                    " onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]', or request the CPU"
                )
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._threads
        # Spinning threads would take CPU time from the encoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [(_CUDA, _CUDA_OPTIONS)] if self.provider == "cuda" else [_CPU]
        file = self.model.network.runtime_model(bits=self._bits, precision=precision)
        try:
            session = ort.InferenceSession(file, options, providers=providers)
        except Exception as error:
            if self.provider == "cuda":
                raise ProviderUnavailableError(f"the GPU cannot run the network: {error}") from error
            raise InvalidModelError(
                f"ONNX Runtime refuses the model {self.model.manifest.name!r}: {error}"
            ) from error
        if self.provider == "cuda" and session.get_providers()[0] != _CUDA:
            # ONNX Runtime falls back to the CPU and only logs it.
            raise ProviderUnavailableError(
                "the GPU was requested, but ONNX Runtime could not start on it: a driver, CUDA or cuDNN is missing or"
                " too old (see `python -m reel_modal doctor`)"
            )
        if self.provider == "cuda":
            return _CudaRunner(ort, session, self.model.manifest.scale)
        return _CpuRunner(session)


class _Runner(Protocol):
    def run(self, samples: Samples) -> tuple[Samples, npt.NDArray[np.float32]]: ...


class _CpuRunner:
    """Runner of a session on the CPU, with numpy arrays."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, samples: Samples) -> tuple[Samples, npt.NDArray[np.float32]]:
        upscaled, means = _checked(self._session.run, [OUTPUT, MEANS], {INPUT: np.ascontiguousarray(samples)})
        return upscaled, means


class _CudaRunner:
    """Runner of a session on a GPU; device buffers at fixed addresses let one CUDA graph launch run the network.

    CUDA graphs contain addresses and sizes, so the first call fixes the shape. Only integer samples and means are
    copied between host and device.
    """

    def __init__(self, ort: ModuleType, session: Any, scale: int) -> None:
        self._ort = ort
        self._scale = scale
        self._session = session
        self._binding: Any = None
        self._values: dict[str, Any] = {}
        self._shape: tuple[int, ...] = ()

    def run(self, samples: Samples) -> tuple[Samples, npt.NDArray[np.float32]]:
        samples = np.ascontiguousarray(samples)
        if self._binding is None:
            self._bind(samples)
        count = len(samples)
        if samples.shape[1:] != self._shape[1:] or count > self._shape[0]:
            raise FrameError(f"samples have shape {samples.shape}; this session runs {self._shape}")
        if count < self._shape[0]:  # last batch of a clip: pad it to the shape of the CUDA graph
            samples = np.concatenate([samples, np.repeat(samples[-1:], self._shape[0] - count, axis=0)])
        self._values[INPUT].update_inplace(samples)
        _checked(self._session.run_with_iobinding, self._binding)
        return self._values[OUTPUT].numpy()[:count], self._values[MEANS].numpy()[:count]

    def _bind(self, samples: Samples) -> None:
        of_numpy = self._ort.OrtValue.ortvalue_from_numpy
        reserve = self._ort.OrtValue.ortvalue_from_shape_and_type
        count, channels, height, width = samples.shape
        large = (count, channels, self._scale * height, self._scale * width)
        self._values = {
            INPUT: of_numpy(samples, "cuda", 0),
            OUTPUT: reserve(large, samples.dtype, "cuda", 0),
            MEANS: reserve((count,), np.float32, "cuda", 0),
        }
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._values[INPUT])
        for name in (OUTPUT, MEANS):
            self._binding.bind_ortvalue_output(name, self._values[name])
        self._shape = samples.shape


def _checked(call: Any, *arguments: Any) -> Any:
    """Call ONNX Runtime and convert its exceptions to InvalidModelError."""
    try:
        return call(*arguments)
    except Exception as error:
        raise InvalidModelError(f"the network failed: {error}") from error
