"""Runs a network with ONNX Runtime on the device that was asked for, and on no other one.

It must not know frames, nor what the network makes of its samples.
"""

from __future__ import annotations

import os
import time
from types import ModuleType
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal.config import usable_cores
from reel_modal.errors import FrameError, InvalidModelError, MissingDependencyError, ProviderUnavailableError
from reel_modal.interruption import hold_interruptions
from reel_modal.rendering.tiles import Samples
from reel_modal.upscaling.graph import INPUT, MEANS, OUTPUT, Precision
from reel_modal.upscaling.model import UpscaleModel

__all__ = ["Provider", "UpscaleSession", "available_providers", "load_onnxruntime"]

Provider: TypeAlias = Literal["cpu", "cuda"]
"""What runs the network: this machine's CPU, or an NVIDIA GPU."""

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
_ERRORS_ONLY: Final = 3
# TF32 would round what is called single precision to ten bits.
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE", "enable_cuda_graph": "1"}


def load_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`, with the CUDA libraries of Python packages where there are any.

    Its telemetry is off unless ORT_DISABLE_TELEMETRY is set to something else: since 1.29 it writes a device id into
    the user's cache and connects to Microsoft. It reads the variable once, when it is loaded.

    Raises:
        MissingDependencyError: It does not load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with hold_interruptions():  # its initialisation turns a Ctrl-C into an ImportError
            import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX Runtime does not load here ({error}): pip install onnxruntime, or onnxruntime-gpu[cuda,cudnn] for"
            " an NVIDIA GPU, but not both"
        ) from error
    module: ModuleType = onnxruntime
    return module


def available_providers() -> tuple[Provider, ...]:
    """Return what the installed ONNX Runtime was built for; whether a GPU is there shows when a session starts."""
    built = load_onnxruntime().get_available_providers()
    return ("cpu", "cuda") if _CUDA in built else ("cpu",)


class UpscaleSession:
    """A network, ready to run.

    Args:
        model: The network.
        provider: The device. It runs there, or the constructor raises.
        bits: Of a sample, see `upscale_graph.deployed`.
        precision: Of the computation; None is `fp16` for 8 bits on a GPU, whose tensor cores want it, else `fp32`:
            the ten bits of half precision would be the ten bits of the picture.
        threads: Of the CPU, which change no sample; None is one for each core that this process may use.

    Raises:
        MissingDependencyError: ONNX Runtime does not load.
        ProviderUnavailableError: The device cannot run it.
        InvalidModelError: ONNX Runtime refuses the network; with its words.

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
        """What does the work, for the result of a job: `onnxruntime-cpu fp32 small-x2`."""
        return f"onnxruntime-{self.provider} {self.precision} {self.model.manifest.name}"

    def run(self, samples: Samples) -> Samples:
        """Return pictures enlarged.

        What half precision overflows on is computed again in single precision, and counted in `redone`.

        Args:
            samples: (N, C, H, W), uint8 for 8 bits, else uint16. On a GPU all calls have the shape of the
                first, or fewer pictures.

        Raises:
            InvalidModelError: The network gives NaN or infinity in single precision as well, makes pictures of
                another size than its manifest says, or fails.
            FrameError: Another shape on a GPU.
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
                        f"the model {self.model.manifest.name!r} gives NaN or infinity for these pictures, in single"
                        " precision as well"
                    )
        finally:
            self.busy_seconds += time.perf_counter() - started
        self._check_shape(upscaled.shape, samples.shape)
        return upscaled

    def _check_shape(self, made: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raise InvalidModelError unless the pictures are as large as the manifest says."""
        count, channels, height, width = given
        scale = self.model.manifest.scale
        if made != (wanted := (count, channels, height * scale, width * scale)):
            raise InvalidModelError(
                f"the model {self.model.manifest.name!r} makes pictures of shape {made} of {given}; its manifest says"
                f" {wanted}. Its convolutions must be padded"
            )

    def _start(self, precision: Precision) -> _Runner:
        ort = load_onnxruntime()
        if self.provider == "cuda":
            if _CUDA not in ort.get_available_providers():
                raise ProviderUnavailableError(
                    "the GPU was asked for, but the installed ONNX Runtime has no CUDA provider: pip uninstall"
                    " onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]', or ask for the CPU"
                )
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._threads
        # Threads that spin while they wait would take the cores from the encoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [(_CUDA, _CUDA_OPTIONS)] if self.provider == "cuda" else [_CPU]
        file = self.model.deployed(bits=self._bits, precision=precision)
        try:
            session = ort.InferenceSession(file, options, providers=providers)
        except Exception as error:
            if self.provider == "cuda":
                raise ProviderUnavailableError(f"the GPU does not run the network: {error}") from error
            raise InvalidModelError(
                f"ONNX Runtime refuses the model {self.model.manifest.name!r}: {error}"
            ) from error
        if self.provider == "cuda" and session.get_providers()[0] != _CUDA:
            # ONNX Runtime itself goes on with the CPU, and says so in a log alone.
            raise ProviderUnavailableError(
                "the GPU was asked for, but ONNX Runtime could not start on it: a driver, CUDA or cuDNN is missing or"
                " too old (`python -m reel_modal doctor` says more)"
            )
        if self.provider == "cuda":
            return _CudaRunner(ort, session, self.model.manifest.scale)
        return _CpuRunner(session)


class _Runner(Protocol):
    def run(self, samples: Samples) -> tuple[Samples, npt.NDArray[np.float32]]: ...


class _CpuRunner:
    """Memory in, memory out."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, samples: Samples) -> tuple[Samples, npt.NDArray[np.float32]]:
        upscaled, means = _checked(self._session.run, [OUTPUT, MEANS], {INPUT: np.ascontiguousarray(samples)})
        return upscaled, means


class _CudaRunner:
    """Keeps one input and one output on the device, at the same address, so that one launch replays the network.

    The shape is that of the first call: CUDA graphs hold addresses and sizes. Only bytes cross the bus.
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
        if count < self._shape[0]:  # the last ones of a clip: what is missing is computed for nothing
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
    """Call ONNX Runtime; whatever it raises becomes ours."""
    try:
        return call(*arguments)
    except Exception as error:
        raise InvalidModelError(f"the network failed: {error}") from error
