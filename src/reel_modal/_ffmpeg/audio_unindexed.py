"""Audio of files without an index of times: broadcasts, and recordings in FLV and AVI.

In such a file ffmpeg seeks to a video keyframe and misses audio that is stored before it. If audio changes its sample
rate or channels, ffmpeg copies it under a single header. So this module reads the packets from the start of the file.
Packets that another container cannot describe, such as those of Windows Media, are decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from reel_modal.errors import InvalidMediaError
from reel_modal.media import MediaInfo
from reel_modal.media.open import WITHOUT_HEADER, file_url, opened, packets_of
from reel_modal.media.pyav import open_output, seconds_per_tick

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.codec.context import CodecContext
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

__all__ = ["SoundFormat", "copy_sound", "sound_formats"]

_log = logging.getLogger(__name__)

# Sampling frequencies and channels by their numbers in an ADTS header: ISO/IEC 14496-3, 1.6.3.3 and 1.6.3.4.
_ADTS_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_ADTS_CHANNELS: Final = (0, 1, 2, 3, 4, 5, 6, 8)
_ADTS_BYTES: Final = 7

SoundFormat: TypeAlias = tuple[int, int]
"""Sample rate in Hz and number of channels."""


def sound_formats(media: MediaInfo) -> Mapping[int, tuple[SoundFormat, ...]]:
    """Return the formats, in file order, of each audio stream that changes its format, by stream index.

    Args:
        media: The file. All of its packets are read if its container has no header, because only then can the format
            change. Other containers describe a stream once for all packets, and nothing is read.

    Raises:
        InvalidMediaError: The file cannot be read.
    """
    if not media.audio or not set(WITHOUT_HEADER) & set(media.format.split(",")):
        return {}
    with opened(media.path, packets_only=True) as container:
        streams = _streams(container, media)
        return _changed(streams, packets_of(container, *streams))


def copy_sound(
    media: MediaInfo, target: Path, *, start_seconds: Fraction
) -> tuple[MediaInfo, Mapping[int, tuple[SoundFormat, ...]]]:
    """Write the audio streams of `media` to `target`, beginning at `start_seconds`, which becomes time 0.

    Args:
        media: A file without an index.
        target: The NUT file to write; NUT stores exact timestamps.
        start_seconds: A timestamp in `media`.

    Returns:
        `media`, with the audio in the new file; and its formats like those of `sound_formats`, with an empty tuple
        for a stream that had to be decoded.

    Raises:
        InvalidMediaError: The file cannot be read or written.
    """
    with (
        opened(media.path, packets_only=True) as source,
        open_output(file_url(target), container_format="nut", options={"fflags": "+bitexact"}) as output,
    ):
        streams = _streams(source, media)
        numbers = {stream.index: number for number, stream in enumerate(streams)}
        copies: dict[int, AudioStream] = {}
        decoded: dict[int, _Decoded] = {}
        for stream in streams:
            if (copy := _copy_of(stream, output)) is None:
                decoded[stream.index] = _Decoded(stream, output)
            else:
                copies[stream.index] = copy
        next_ticks = dict.fromkeys(numbers, 0)

        def copied() -> Iterator[Packet[AudioStream]]:
            for packet in packets_of(source, *streams):
                if packet.stream_index in decoded:
                    decoded[packet.stream_index].add(packet, start_seconds)
                    continue
                yield packet
                if not packet.size:
                    continue
                if packet.pts is None:
                    raise InvalidMediaError(
                        f"{str(media.path)!r} has audio without timestamps; convert it to MP4 or MKV"
                    )
                index = packet.stream_index
                ticks = packet.pts - round(start_seconds / seconds_per_tick(packet.stream))
                if ticks < 0:
                    continue
                # Timestamps may repeat or go back in joined recordings. Half a packet is more than any rounding
                # error.
                packet.pts = packet.dts = max(ticks, next_ticks[index])
                next_ticks[index] = packet.pts + 1 + (packet.duration or 0) // 2
                packet.stream = copies[index]
                output.mux_one(packet)

        formats = _changed(streams, copied())
    audio = tuple(
        replace(
            stream, index=numbers[stream.index], start_seconds=max(Fraction(0), stream.start_seconds - start_seconds)
        )
        for stream in media.audio
    )
    zero = Fraction(0)
    result = replace(media, path=target, format="nut", audio=audio, start_seconds=zero, container_start_seconds=zero)
    return result, {numbers[index]: changes for index, changes in (formats | dict.fromkeys(decoded, ())).items()}


class _Decoded:
    """A stream that is written as PCM."""

    def __init__(self, stream: AudioStream, output: OutputContainer) -> None:
        from av.audio.resampler import AudioResampler

        self._output = output
        # If a layout has no name, libav assumes the default one for the number of channels.
        layout = f"{stream.channels}c" if stream.layout.name.endswith(" channels") else stream.layout.name
        self._copy = output.add_stream("pcm_f32le", rate=stream.sample_rate, layout=layout)
        self._tick_seconds = Fraction(1, stream.sample_rate)
        self._copy.time_base = self._tick_seconds
        self._resampler = AudioResampler(format="flt", layout=layout, rate=stream.sample_rate)
        self._next_ticks = 0

    def add(self, packet: Packet[AudioStream], start_seconds: Fraction) -> None:
        """Decode a packet (the empty last one flushes the decoder) and write the frames from the start on."""
        from av.error import FFmpegError

        try:
            frames = packet.decode()
        except FFmpegError as error:  # silence replaces it
            _log.debug("an audio packet cannot be decoded: %s", error)
            return
        for frame in frames:
            if frame.pts is None:
                continue
            ticks = round((frame.pts * seconds_per_tick(frame) - start_seconds) / self._tick_seconds)
            if ticks < 0:
                continue
            for resampled in self._resampler.resample(frame):
                resampled.pts, resampled.time_base = max(ticks, self._next_ticks), self._tick_seconds
                self._next_ticks = resampled.pts + resampled.samples
                self._output.mux(self._copy.encode(resampled))


def _copy_of(stream: AudioStream, output: OutputContainer) -> AudioStream | None:
    """Return a stream of `output` for the packets of `stream`; None if NUT cannot describe them.

    NUT stores no block size. Without it, only PCM and packets with their own headers can be decoded.
    """
    codec = stream.codec_context.name
    if not codec.startswith("pcm_") and _parser(codec) is None:
        return None
    try:
        return output.add_stream_from_template(stream, opaque=True)
    except ValueError:
        return None


def _streams(container: InputContainer, media: MediaInfo) -> list[AudioStream]:
    indices = {stream.index for stream in media.audio}
    return [stream for stream in container.streams.audio if stream.index in indices]


def _changed(
    streams: Iterable[AudioStream], packets: Iterator[Packet[AudioStream]]
) -> dict[int, tuple[SoundFormat, ...]]:
    """Read all packets and return the formats of the streams that have more than one."""
    parsers = {stream.index: _parser(stream.codec_context.name) for stream in streams}
    formats: dict[int, list[SoundFormat]] = {index: [] for index in parsers}
    for packet in packets:
        if not packet.size:  # the end
            continue
        format_ = _format(bytes(packet), parsers[packet.stream_index])
        seen = formats[packet.stream_index]
        if format_ is not None and format_ not in seen[-1:]:
            seen.append(format_)
    return {index: tuple(seen) for index, seen in formats.items() if len(seen) > 1}


def _parser(codec: str) -> CodecContext | None:
    """Return a context whose parser reads packet headers; its decoder is never opened.

    None if the packets have no headers, such as those of PCM and Windows Media.
    """
    from av import CodecContext

    try:
        CodecContext.create(codec, "r").parse(b"")  # an empty packet ends this parser
    except ValueError:
        return None
    return CodecContext.create(codec, "r")


def _format(data: bytes, parser: CodecContext | None) -> SoundFormat | None:
    """Return the format in the header of a packet, or None if it has none."""
    if parser is None:
        return None
    if parser.name == "aac":  # its parser does not store the format
        return _adts_format(data)
    parser.parse(data)
    rate, channels = getattr(parser, "sample_rate", 0), getattr(parser, "channels", 0)
    return (rate, channels) if rate and channels else None


def _adts_format(data: bytes) -> SoundFormat | None:
    # ISO/IEC 13818-7, 6.2: a sync word of twelve bits, then the frequency in bits 18 to 21, the channels in 23 to 25.
    if len(data) < _ADTS_BYTES or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    rate, channels = data[2] >> 2 & 0xF, (data[2] & 1) << 2 | data[3] >> 6
    if rate >= len(_ADTS_RATES) or not channels:
        return None
    return _ADTS_RATES[rate], _ADTS_CHANNELS[channels]
