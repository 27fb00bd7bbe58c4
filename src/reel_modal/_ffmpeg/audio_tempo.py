"""Change the speed of audio, keep its pitch and stay in sync, with chained `atempo` filters of libav."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.filter import Graph

__all__ = ["ChannelLayout", "Samples", "Tempo", "tempo_chain"]

Samples: TypeAlias = npt.NDArray[np.float32]
"""float32, (samples, channels), -1..1, C-contiguous."""

_SLOWEST: Final = Fraction(1, 2)
_FASTEST: Final = Fraction(2)
# atempo derives its window from the sample rate: 1/24 s, rounded up to the next power of two. That blurs a click over
# 40 ms or more. Half of it still contains a period of the lowest voice.
_WINDOWS_A_SECOND: Final = 24
_LAST_DIVISOR: Final = 2
_LARGEST_DIVISOR: Final = 8


def tempo_chain(speed: Fraction) -> list[float]:
    """Return factors from 0.5 to 2 with the product `speed`; with others atempo drops samples or fails."""
    limit = _SLOWEST if speed < 1 else _FASTEST
    left, chain = speed, []
    while not _SLOWEST <= left <= _FASTEST:
        chain.append(float(limit))
        left /= limit
    return [*chain, float(left)]


@dataclass(frozen=True, slots=True)
class ChannelLayout:
    """The speakers that audio is made for.

    Attributes:
        name: ffmpeg's name of the layout, such as `stereo` or `5.1`.
        channels: Number of channels.
    """

    name: str
    channels: int


class Tempo:
    """Speed change for a section of audio, block by block.

    A sample that is pushed at time t comes out at t / speed + `offset_seconds`.

    Args:
        speed: Seconds of input for each second of output.
        sample_rate_hz: Sample rate of the audio.
        layout: Its channel layout.
    """

    def __init__(self, speed: Fraction, *, sample_rate_hz: int, layout: ChannelLayout) -> None:
        self._rate = sample_rate_hz
        self._layout = layout
        chain = tempo_chain(speed)
        # The later filters of a chain stretch the blur of the first one, so the first one has the shortest window.
        divisors = [min(_LARGEST_DIVISOR, _LAST_DIVISOR << (len(chain) - 1 - at)) for at in range(len(chain))]
        self._rates = [sample_rate_hz // divisor for divisor in divisors]
        self._pushed = 0
        self._graph = self._build(chain)
        self.offset_seconds: float = self._offset(chain)

    def push(self, samples: Samples) -> Samples:
        """Push `samples` and return the samples that are ready, possibly none."""
        from av.audio.frame import AudioFrame

        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=self._layout.name)
        frame.sample_rate = self._rates[0]
        frame.time_base = Fraction(1, self._rates[0])
        frame.pts = self._pushed
        self._pushed += len(samples)
        self._graph.push(frame)
        parts = list(self._pull())
        return np.concatenate(parts) if parts else np.empty((0, self._layout.channels), np.float32)

    def _pull(self) -> Iterator[Samples]:
        from av.audio.frame import AudioFrame
        from av.error import BlockingIOError as WantsMore

        while True:
            try:
                frame = self._graph.pull()
            except WantsMore:
                return
            if isinstance(frame, AudioFrame):
                yield frame.to_ndarray().reshape(-1, self._layout.channels).astype(np.float32, copy=False)

    def _build(self, chain: Sequence[float]) -> Graph:
        """Return the filters; a separate `asetrate` before each sets its window size and changes no sample."""
        from av.filter import Graph

        graph = Graph()
        first = self._rates[0]
        nodes = [
            graph.add_abuffer(format="flt", sample_rate=first, layout=self._layout.name, time_base=Fraction(1, first))
        ]
        for factor, rate in zip(chain, self._rates, strict=True):
            nodes += [graph.add("asetrate", str(rate)), graph.add("atempo", repr(factor))]
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()
        return graph

    def _offset(self, chain: Sequence[float]) -> float:
        """Return the delay in seconds between a sample's nominal time and its output; negative if it slows down.

        atempo aligns the start of each window, not its middle. Measured with beeps: correct within 5 ms.
        """
        offset = 0.0
        for factor, rate in zip(chain, self._rates, strict=True):
            window = 1 << (rate // _WINDOWS_A_SECOND - 1).bit_length()
            late = (window / self._rate / 2) * (1 - 1 / factor)
            offset = offset / factor + min(0.0, late)
        return offset
