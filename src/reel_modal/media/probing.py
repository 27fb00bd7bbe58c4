"""Probe a video file: its properties by headers, timestamps and decoded frames, with limits for untrusted input.

Writes nothing, and decodes only a few frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from io import SEEK_CUR
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from reel_modal.errors import InvalidMediaError
from reel_modal.media.coded_size import CodedSizeGuard
from reel_modal.media.color_tags import color_tags
from reel_modal.media.constant_rate import constant_rate_for
from reel_modal.media.frames import BT709, CHROMA_ORIGIN, ColorTags, is_420
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.headers import (
    SEEK_MARGIN_SECONDS,
    AudioStream,
    audio_streams,
    claimed_rates,
    container_length,
    header_duration,
    picture_of,
    plausible_count,
    seconds_of,
)
from reel_modal.media.index import index_times, leads_beyond
from reel_modal.media.interlacing import FieldOrder, detect_fields, may_have_fields
from reel_modal.media.open import WITHOUT_HEADER, check_length, check_size, decoder_pixels, opened, packets_of
from reel_modal.media.orientation import Orientation
from reel_modal.media.pyav import fraction, seconds_per_tick
from reel_modal.media.scanning import MediaScan, scan_packets
from reel_modal.media.stated_size import is_cut_off
from reel_modal.media.streams import NOTHING, Contents, contents_of
from reel_modal.media.timestamps import PacketTimes, UntimedStart, choose_rate, last_shown
from reel_modal.media.ts_programs import programs_of
from reel_modal.schema.options import Deinterlace
from reel_modal.settings import MediaLimits, Settings

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["MediaInfo", "picture_shown_at", "probe", "rated", "scanned"]

_INDEXED: Final = frozenset({"mov", "mp4", "matroska", "webm"})
_WITHOUT_PRESENTATION_TIMES: Final = frozenset({"avi", "h264", "hevc"})
_MICROSECONDS: Final = 1_000_000
# Enough to detect the frame rate; a scan detects a later change.
_PROBE_PACKETS: Final = 120
# Matroska stores timestamps down to 33 s before its zero; libav reads none of them.
_MOST_UNTIMED_PACKETS: Final = 33 * 120
# A recording that was cut from a live stream begins anywhere; x264 sets keyframes at most 250 frames apart.
_FIRST_FRAME_PACKETS: Final = 300
# To analyze a stream, libav decodes about twenty frames.
_GUARDED_PACKETS: Final = 64


@dataclass(frozen=True, slots=True)
class _Rate:
    """A frame rate, and how it was determined."""

    fps: Fraction
    constant: bool
    by_all: bool


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Properties of a video file. Sizes are (width, height) in pixels; times are timestamps in the file, in seconds.

    Attributes:
        path: The file.
        format: ffmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`.
        stream_index: Index of the main video stream; cover art and other video streams are ignored.
        codec: ffmpeg's name of its codec, such as `h264` or `av1`, independent of the decoder.
        coded_size: Size as stored.
        size: Upright size: after rotation, before the sample aspect ratio. Frames are read in this size.
        display_size: Size in a player: upright, with square pixels.
        sample_aspect_ratio: Width / height of one upright pixel.
        orientation: How stored frames become upright.
        fps: Exact frame rate, checked against the timestamps, because headers can be wrong. For a variable rate, the
            standard rate for the output; see `rate_by_all`.
        constant_rate: Whether the frames are evenly spaced.
        pixel_format: ffmpeg's name of the pixel format.
        bit_depth: Bits per sample.
        color: Color tags of the stream.
        interlaced: Whether frames consist of two fields, captured one after the other; determined from decoded
            frames, not from headers.
        start_seconds: Timestamp of the first frame that can be decoded.
        container_start_seconds: Earliest timestamp of any stream; ffmpeg's seeks count from it.
        time_base: Duration of one tick of the video timestamps, in seconds.
        duration_seconds: Duration of the video stream, from the headers; None if they do not state it.
        frame_count_header: Frame count from the header; None if it is missing or implausible.
        audio: The audio streams with a known codec.
        scan: Facts from all packets; None unless requested.
        unmarked_order: The first field of interlaced frames, if the frames do not specify it.
        deinterlace: How frames are deinterlaced during reading; None reads them as stored.
        rate_by_all: Whether the rate and the even spacing were determined from all packets, or from an index of them;
            otherwise only from the first packets.
        hdr: HDR metadata of the video.
        hdr_color: The color tags of an HDR video that is converted to SDR during reading; `color` is then that of the
            SDR.
        contents: All streams, chapters and tags.
        untimed_start: Frames at the start without timestamps in the file; their times were counted back.
        breaks_off: Whether the file is shorter than its headers state: see `leads_beyond` and `is_cut_off`.
    """

    path: Path
    format: str
    stream_index: int
    codec: str
    coded_size: tuple[int, int]
    size: tuple[int, int]
    display_size: tuple[int, int]
    sample_aspect_ratio: Fraction
    orientation: Orientation
    fps: Fraction
    constant_rate: bool
    pixel_format: str
    bit_depth: int
    color: ColorTags
    interlaced: bool
    start_seconds: Fraction
    container_start_seconds: Fraction
    time_base: Fraction
    duration_seconds: Fraction | None
    frame_count_header: int | None
    audio: tuple[AudioStream, ...]
    scan: MediaScan | None = None
    rate_by_all: bool = False
    unmarked_order: FieldOrder | None = None
    deinterlace: Deinterlace | None = None
    hdr: HdrMetadata | None = None
    hdr_color: ColorTags | None = None
    contents: Contents = NOTHING
    untimed_start: UntimedStart | None = None
    breaks_off: bool = False

    def deinterlaced(self, deinterlace: Deinterlace) -> MediaInfo:
        """Return the same video, deinterlaced during reading; unchanged if it is progressive.

        Args:
            deinterlace: `frame` keeps the frame rate; `field` makes a frame of each field and doubles `fps`.
        """
        if not self.interlaced or self.deinterlace is not None:
            return self
        return replace(self, deinterlace=deinterlace, fps=self.fps * (2 if deinterlace == "field" else 1))

    def tone_mapped(self) -> MediaInfo:
        """Return the same video, converted from HDR to SDR (BT.709, 8 bits) during reading; unchanged if SDR."""
        return replace(self, color=BT709, hdr_color=self.color) if self.color.is_hdr else self

    def as_stored(self) -> MediaInfo:
        """Return the same video without deinterlacing and tone mapping."""
        if self.deinterlace is None and self.hdr_color is None:
            return self
        color = self.hdr_color or self.color
        return replace(self, fps=self.stored_fps, color=color, deinterlace=None, hdr_color=None)

    @property
    def stored_fps(self) -> Fraction:
        """The frame rate as stored, before deinterlacing."""
        return self.fps / 2 if self.deinterlace == "field" else self.fps

    @property
    def expected_frames(self) -> int | None:
        """Number of frames at the constant rate `fps`; None if the duration is unknown."""
        return self.frames_at(self.fps)

    def frames_at(self, rate: Fraction) -> int | None:
        """Return the number of frames at the constant `rate`; None if the duration is unknown."""
        length = self.duration_seconds if self.scan is None else self.scan.duration_seconds
        return None if length is None else max(1, round(length * rate))

    @property
    def frame_count(self) -> int | None:
        """Number of frames in the file; None if unknown."""
        return self.frame_count_header if self.scan is None else self.scan.frame_count

    @property
    def has_index(self) -> bool:
        """Whether the container has an index of times that can be trusted, for seeks."""
        return self.untimed_start is None and bool(_INDEXED & set(self.format.split(",")))

    @property
    def keeps_presentation_times(self) -> bool:
        """Whether the container stores presentation times; otherwise libav guesses them, depending on its version."""
        return not _WITHOUT_PRESENTATION_TIMES & set(self.format.split(","))

    @property
    def keeps_decoding_times(self) -> bool:
        """Whether the container stores decoding times; otherwise libav decodes frames to guess them."""
        return "mov" in self.format.split(",")

    @property
    def chroma_origin(self) -> tuple[float, float]:
        """Position of the first chroma sample in the upright frame, read as 4:2:0, in luma pixels from left and top.

        By default it is on the left pixels, between two rows: (0.5, 1) in most files, and another position after a
        rotation.
        """
        if not is_420(self.pixel_format) or self.hdr_color is not None:
            return CHROMA_ORIGIN["left"]  # the reader converts to this position
        stored = CHROMA_ORIGIN.get(self.color.chroma_location or "left", CHROMA_ORIGIN["left"])
        return self.orientation.upright_origin(stored, self.coded_size)

    def to_dict(self) -> dict[str, object]:
        """Return the same for JSON: fractions as `n/d` strings, sizes as lists."""
        whole = _plain(self)
        return whole if isinstance(whole, dict) else {}


def probe(
    path: str | Path, *, settings: Settings | None = None, scan: bool = False, data: BinaryIO | None = None
) -> MediaInfo:
    """Return the properties of the video `path`, from its headers, first timestamps and some decoded frames.

    Args:
        path: The file.
        settings: Its limits decide which files are rejected.
        scan: Whether to read every packet too, which gives exact counts but takes the time to read the whole file.
        data: A stream to read headers and first frames from instead of the file, which may then be incomplete: for
            example a stored object that is fetched in parts. The caller closes it.

    Raises:
        InvalidMediaError: The file is not a supported video: missing, unreadable, without a video stream, beyond the
            limits, or in a format that can name other files.

    Example:
        >>> probe("clip.mp4").fps
        Fraction(30000, 1001)
    """
    path = Path(path)
    limits = (settings or Settings.from_env()).limits
    with opened(path, data, packets_only=True) as container:
        # Check the sizes in the header before a decoder is opened.
        _check_header(container, path, limits)
        packets_suffice = not _decodes_for_times(container)
        info = _read_info(container, path, limits, data) if packets_suffice else None
    if info is None:
        if data is not None:
            data.seek(0)
        with opened(path, data, limits=limits) as container:
            info = _read_info(container, path, limits, data)
    if info.interlaced:
        if data is not None:
            data.seek(0)
        fields_found = detect_fields(path, info.stream_index, info.duration_seconds, limits, data)
        info = replace(info, interlaced=fields_found.interlaced, unmarked_order=fields_found.unmarked_order)
    return scanned(info, limits) if scan else info


def rated(media: MediaInfo, limits: MediaLimits) -> MediaInfo:
    """Return `media` with the frame rate of the whole clip; read its packets unless an index has confirmed the rate.

    A clip that is evenly spaced according to its index is not read.

    Args:
        media: The video; the file must be complete.
        limits: Longer clips are rejected.

    Raises:
        InvalidMediaError: The file cannot be read, or exceeds the maximum length.
    """
    return media if media.rate_by_all and media.constant_rate else scanned(media, limits)


def scanned(media: MediaInfo, limits: MediaLimits) -> MediaInfo:
    """Return `media` with the facts from all its packets; see `rated`."""
    if media.scan is not None:
        return media
    scan = scan_packets(media.path, start_seconds=media.start_seconds, to_break=True)
    check_length(scan.duration_seconds, media.path, limits)
    # For evenly spaced frames, the first packets already gave the same rate.
    fps = media.fps if media.constant_rate and scan.constant_rate else scan.fps * media.fps / media.stored_fps
    return replace(media, scan=scan, fps=fps, constant_rate=scan.constant_rate, rate_by_all=True)


def picture_shown_at(media: MediaInfo, seconds: Fraction) -> Fraction | None:
    """Return the timestamp of the frame that is shown at `seconds`, a timestamp in the file.

    Nothing is decoded, and only a small part of a file with an index is read. None if no frame begins so early.

    Raises:
        InvalidMediaError: The file cannot be read.
    """
    with opened(media.path, packets_only=media.keeps_decoding_times) as container:
        stream = picture_of(container, media.path)
        time_base, last = seconds_per_tick(stream), None
        # libav seeks by decoding time: it may find a keyframe that is decoded before this moment and shown after it.
        for earlier in (0, SEEK_MARGIN_SECONDS):
            if media.has_index:
                container.seek(int((seconds - earlier) * _MICROSECONDS))
            last = last_shown(packets_of(container, stream), stream, seconds // time_base)
            if last is not None or not media.has_index:
                break
    return None if last is None else last * time_base


def _check_header(container: InputContainer, path: Path, limits: MediaLimits) -> None:
    stream = picture_of(container, path)
    check_size((stream.codec_context.width, stream.codec_context.height), path, limits)
    guard = CodedSizeGuard(stream, path, limits)
    start: Fraction | None = None
    if _decodes_for_times(container):
        for packet in islice(packets_of(container, stream), _GUARDED_PACKETS):
            guard.check(packet)
            if start is None and packet.pts is not None:
                start = packet.pts * seconds_per_tick(packet)
    check_length(container_length(container, start), path, limits)


def _decodes_for_times(container: InputContainer) -> bool:
    """Return whether libav has to decode frames to know the decoding time of each packet."""
    formats = set(container.format.name.split(","))
    return "mov" not in formats and not formats & set(WITHOUT_HEADER)


def _read_info(container: InputContainer, path: Path, limits: MediaLimits, data: BinaryIO | None) -> MediaInfo:
    stream = picture_of(container, path)
    frame, times = _first_frame_and_times(container, stream, path, limits)
    check_size((frame.width, frame.height), path, limits)
    other_programs = frozenset[int]()
    if container.format.name == "mpegts":
        other_programs = _other_programs(container, stream, path, data)
    return _info(path, container, stream, frame, times, other_programs=other_programs)


def _first_frame_and_times(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> tuple[VideoFrame, PacketTimes]:
    """Decode one frame, because only frames carry the display matrix, and read the times of the packets around it."""
    stream.codec_context.thread_count = 1  # frame threads would wait for more packets than one frame needs
    stream.codec_context.options = {"max_pixels": str(decoder_pixels(limits))}
    sized = stream.codec_context.width > 0
    guard = CodedSizeGuard(stream, path, limits)
    frames: list[VideoFrame] = []
    most = _MOST_UNTIMED_PACKETS if "matroska" in container.format.name.split(",") else _PROBE_PACKETS
    times = PacketTimes.of(_decoding_first(packets_of(container, stream), frames, guard, most), stream)
    if not frames:
        reason = "none of its first frames can be decoded" if sized else "its declared size cannot be decoded"
        reason += ", or its size exceeds Settings.limits"
        raise InvalidMediaError(f"{str(path)!r} has a video stream, but {reason}; use a file that plays")
    return frames[0], times


def _decoding_first(
    packets: Iterator[Packet[VideoStream]], frames: list[VideoFrame], guard: CodedSizeGuard, most: int
) -> Iterator[Packet[VideoStream]]:
    """Yield packets up to the first one that decodes, whose frame is added to `frames`, and then some more.

    Up to `most` follow it if some of them have no timestamp.
    """
    from av.error import FFmpegError

    for packet in islice(packets, _FIRST_FRAME_PACKETS):
        guard.check(packet)
        # A broken packet at the start is common in cuts of live streams; the next one may decode. PyAV 19 raises
        # ValueError for all packets after the first if the decoder could not be opened.
        with suppress(FFmpegError, ValueError):
            frames.extend(packet.decode()[:1])
        yield packet
        if frames:
            break
    timed = 0
    for packet in islice(packets, most):
        guard.check(packet)
        yield packet
        timed += packet.pts is not None or packet.dts is not None
        if timed == _PROBE_PACKETS:
            break


def _info(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    packet_times: PacketTimes,
    *,
    other_programs: frozenset[int],
) -> MediaInfo:
    coded = (frame.width, frame.height)
    orientation = Orientation.of_frame(frame)
    size = orientation.upright(coded)
    ratio = fraction(stream.sample_aspect_ratio) or Fraction(1)
    if orientation.turned:
        ratio = 1 / ratio
    shown_at = seconds_of(frame.pts, frame)
    start = packet_times.first_seconds if shown_at is None else shown_at
    times = packet_times.since(start)
    rate = _rate_of(container, stream, times)
    duration = header_duration(container, stream, start)
    return MediaInfo(
        path=path,
        format=container.format.name,
        stream_index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        coded_size=coded,
        size=size,
        display_size=(max(1, round(size[0] * ratio)), size[1]),
        sample_aspect_ratio=ratio,
        orientation=orientation,
        fps=rate.fps,
        constant_rate=rate.constant,
        rate_by_all=rate.by_all,
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=color_tags(stream.codec_context, frame.format.name),
        interlaced=may_have_fields(stream, frame),
        start_seconds=start,
        container_start_seconds=Fraction(container.start_time or 0, _MICROSECONDS),
        time_base=seconds_per_tick(stream),
        duration_seconds=duration,
        frame_count_header=None if packet_times.second_fields else plausible_count(stream.frames, duration, rate.fps),
        audio=tuple(sound for sound in audio_streams(container) if sound.index not in other_programs),
        hdr=HdrMetadata.of_frame(frame),
        contents=contents_of(container, stream.index, frame, other_programs),
        untimed_start=packet_times.untimed_start if shown_at is None else None,
        breaks_off=_breaks_off(container, path),
    )


def _other_programs(
    container: InputContainer, picture: VideoStream, path: Path, data: BinaryIO | None
) -> frozenset[int]:
    """Return the indices of the streams that belong only to programs of an MPEG-TS without the video stream."""
    if data is None:
        with path.open("rb") as file:
            programs = programs_of(file)
    else:
        position = data.seek(0, SEEK_CUR)  # libav continues to read here
        data.seek(0)
        programs = programs_of(data)
        data.seek(position)
    own = {pid for program in programs if picture.id in program for pid in program}
    listed = {pid for program in programs for pid in program}
    return frozenset(each.index for each in container.streams if own and each.id in listed - own)


def _breaks_off(container: InputContainer, path: Path) -> bool:
    if "mov" in container.format.name.split(","):
        return leads_beyond(container)
    return is_cut_off(path)


def _rate_of(container: InputContainer, stream: VideoStream, times: PacketTimes) -> _Rate:
    """Return the rate from the first packets and, if the file has an index of all packets, from the index."""
    claims = claimed_rates(stream)
    indexed = "mov" in container.format.name.split(",") and not times.second_fields
    index = index_times(stream) if indexed else None
    if index is None:
        return _Rate(choose_rate(times, claims), times.evenly_spaced, by_all=False)
    if times.evenly_spaced and index.evenly_spaced:
        return _Rate(choose_rate(times, claims), constant=True, by_all=True)
    return _Rate(constant_rate_for(index, claims), constant=False, by_all=True)


def _plain(value: object) -> object:
    """Return `value` converted to JSON types."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    return value
