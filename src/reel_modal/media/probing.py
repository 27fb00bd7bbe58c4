"""What a video file is: found by looking, with limits for untrusted input.

It must not decode more than one frame, and must not write anything.
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

from reel_modal.config import MediaLimits, Settings
from reel_modal.errors import InvalidMediaError
from reel_modal.frames import BT709, CHROMA_ORIGIN, ColorTags, is_420
from reel_modal.media.color_names import color_tags
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.headers import (
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
from reel_modal.media.interlacing import FieldOrder, look_at_fields, may_have_fields
from reel_modal.media.orientation import Orientation
from reel_modal.media.output_rate import output_rate
from reel_modal.media.parameter_sets import CodedSizeGuard
from reel_modal.media.pyav import fraction, seconds_per_tick
from reel_modal.media.scanning import MediaScan, scan_packets
from reel_modal.media.stated_size import is_cut_off
from reel_modal.media.streams import NOTHING, Contents, contents_of
from reel_modal.media.timestamps import PacketTimes, UntimedStart, choose_rate, last_shown
from reel_modal.media.ts_programs import programs_of
from reel_modal.media.untrusted import (
    WITHOUT_HEADER,
    check_length,
    check_size,
    decoder_pixels,
    opened,
    packets_of,
)
from reel_modal.schema.encoding import Deinterlace

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["MediaInfo", "picture_shown_at", "probe", "rated", "scanned"]

_INDEXED: Final = frozenset({"mov", "mp4", "matroska", "webm"})
_WITHOUT_PRESENTATION_TIMES: Final = frozenset({"avi", "h264", "hevc"})
_MICROSECONDS: Final = 1_000_000
# Enough to see a rhythm; a rate that changes later shows in a scan.
_LOOK_PACKETS: Final = 120
# Matroska keeps times down to 33 s before its zero, of which libav reads none.
_MOST_UNTIMED_PACKETS: Final = 33 * 120
# A recording that was cut out of a stream begins anywhere; x264 sets keyframes at most 250 frames apart.
_FIRST_FRAME_PACKETS: Final = 300
# To learn about a stream, libav decodes about twenty pictures.
_GUARDED_PACKETS: Final = 64


@dataclass(frozen=True, slots=True)
class _Rate:
    """A frame rate, and what it was found by."""

    fps: Fraction
    constant: bool
    by_all: bool


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a video file is; sizes are (width, height) in pixels, times are seconds on the file's clock.

    Attributes:
        path: The file.
        format: ffmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`.
        stream_index: The video stream that is the picture; cover art and second tracks are not.
        codec: ffmpeg's name of its codec, such as `h264` or `av1`, whatever decodes it.
        coded_size: As stored.
        size: Upright: after rotation, before the sample aspect ratio. Frames are read in this size.
        display_size: As a player shows it: upright, with square pixels.
        sample_aspect_ratio: Width / height of one upright pixel.
        orientation: What makes stored frames upright.
        fps: Exact frame rate, checked against the timestamps: headers lie. If the rate varies, the standard rate at
            which the pictures are shown; see `rate_by_all`.
        constant_rate: Whether the frames are evenly spaced.
        pixel_format: ffmpeg's name.
        bit_depth: Bits of a sample.
        color: Tags of the stream.
        interlaced: Whether pictures are two fields, taken one after the other; by decoded pictures, not by headers.
        start_seconds: Time of the first picture that decodes.
        container_start_seconds: Earliest time of any stream, which ffmpeg's seeks count from.
        time_base: Seconds of one tick in which the file counts times of the picture.
        duration_seconds: Of the picture, by the headers; None where they do not say.
        frame_count_header: The container's claim; None where there is none that can be true.
        audio: The audio streams of a codec that is known here.
        scan: What the packets say; None unless it was asked for.
        unmarked_order: Which field of interlaced pictures comes first, if their frames do not say so.
        deinterlace: How pictures are made of fields where frames are read; None reads them as they are stored.
        rate_by_all: Whether rate and even spacing were found by all packets, or by an index of them; otherwise by the
            first ones alone.
        hdr: What an HDR video says of its light.
        hdr_color: The tags of an HDR video where SDR is made of it as it is read; `color` is that of the SDR then.
        contents: All streams, chapters and tags.
        untimed_start: Pictures at the start that have no times in the file; these are counted back.
        breaks_off: Whether the file ends before its headers say so: see `leads_beyond` and `is_cut_off`.
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
        """Return the same video with pictures made of its fields; itself if it is progressive.

        Args:
            deinterlace: `frame` keeps the rate; `field` makes a picture of each field, and `fps` is twice as high.
        """
        if not self.interlaced or self.deinterlace is not None:
            return self
        return replace(self, deinterlace=deinterlace, fps=self.fps * (2 if deinterlace == "field" else 1))

    def tone_mapped(self) -> MediaInfo:
        """Return the same video with SDR made of its HDR pictures, BT.709 in 8 bits; itself if it is SDR."""
        return replace(self, color=BT709, hdr_color=self.color) if self.color.is_hdr else self

    def as_stored(self) -> MediaInfo:
        """Return the same video without what is made of its pictures where frames are read."""
        if self.deinterlace is None and self.hdr_color is None:
            return self
        color = self.hdr_color or self.color
        return replace(self, fps=self.stored_fps, color=color, deinterlace=None, hdr_color=None)

    @property
    def stored_fps(self) -> Fraction:
        """The rate of the pictures as they are stored, whatever is made of their fields."""
        return self.fps / 2 if self.deinterlace == "field" else self.fps

    @property
    def expected_frames(self) -> int | None:
        """Frames at the constant rate `fps`, as far as the headers let us know."""
        return self.frames_at(self.fps)

    def frames_at(self, rate: Fraction) -> int | None:
        """Return how many frames there are at the constant `rate`, as far as the headers let us know."""
        length = self.duration_seconds if self.scan is None else self.scan.duration_seconds
        return None if length is None else max(1, round(length * rate))

    @property
    def expected_pictures(self) -> int | None:
        """Pictures that the file holds, as far as the headers let us know."""
        return self.frame_count_header if self.scan is None else self.scan.frame_count

    @property
    def has_index(self) -> bool:
        """Whether the container has an index of times that can be trusted, for seeks."""
        return self.untimed_start is None and bool(_INDEXED & set(self.format.split(",")))

    @property
    def keeps_presentation_times(self) -> bool:
        """Whether the container says when each picture is shown; of others, each version of libav guesses it."""
        return not _WITHOUT_PRESENTATION_TIMES & set(self.format.split(","))

    @property
    def keeps_decoding_times(self) -> bool:
        """Whether the container says when each picture is decoded; others make libav guess, from pictures."""
        return "mov" in self.format.split(",")

    @property
    def chroma_origin(self) -> tuple[float, float]:
        """Where the first chroma sample lies in the upright picture, read as 4:2:0: luma pixels from left and top.

        Unless a file says otherwise it lies on the left pixels, between two rows: that is (0.5, 1) in most files,
        and something else where the picture was turned.
        """
        if not is_420(self.pixel_format) or self.hdr_color is not None:
            return CHROMA_ORIGIN["left"]  # it is read into that
        stored = CHROMA_ORIGIN.get(self.color.chroma_location or "left", CHROMA_ORIGIN["left"])
        return self.orientation.upright_origin(stored, self.coded_size)

    def to_dict(self) -> dict[str, object]:
        """Return the same for JSON: fractions as `n/d` text, sizes as lists."""
        whole = _plain(self)
        return whole if isinstance(whole, dict) else {}


def probe(
    path: str | Path, *, settings: Settings | None = None, scan: bool = False, data: BinaryIO | None = None
) -> MediaInfo:
    """Say what the video `path` is, by its headers, its first timestamps and one decoded frame.

    Args:
        path: The file.
        settings: Its limits say what is refused.
        scan: Look at every packet as well: exact counts, for the price of reading the whole file.
        data: Where headers and first pictures are read from instead of the file, which need not be whole then: a
            file in a store, fetched where it is read. The caller closes it.

    Raises:
        InvalidMediaError: It is no video that we accept: missing, unreadable, without a picture, beyond the
            limits, or in a format that can name other files.

    Example:
        >>> probe("clip.mp4").fps
        Fraction(30000, 1001)
    """
    path = Path(path)
    limits = (settings or Settings.from_env()).limits
    with opened(path, data, packets_only=True) as container:
        # What the header declares is looked at before any decoder is opened.
        _check_header(container, path, limits)
        known = not _decodes_for_times(container)
        info = _looked_at(container, path, limits, data) if known else None
    if info is None:
        if data is not None:
            data.seek(0)
        with opened(path, data, limits=limits) as container:
            info = _looked_at(container, path, limits, data)
    if info.interlaced:
        if data is not None:
            data.seek(0)
        found = look_at_fields(path, info.stream_index, info.duration_seconds, limits, data)
        info = replace(info, interlaced=found.interlaced, unmarked_order=found.unmarked_order)
    return scanned(info, limits) if scan else info


def rated(media: MediaInfo, limits: MediaLimits) -> MediaInfo:
    """Return `media` with the rate of the whole clip, for which its packets are read unless an index has shown it.

    A clip whose index says that it is evenly spaced is not read.

    Args:
        media: The video; all of the file is here.
        limits: Longer clips are refused.

    Raises:
        InvalidMediaError: It cannot be read, or is longer than the limits allow.
    """
    return media if media.rate_by_all and media.constant_rate else scanned(media, limits)


def scanned(media: MediaInfo, limits: MediaLimits) -> MediaInfo:
    """Return `media` with what all its packets say; see `rated`."""
    if media.scan is not None:
        return media
    scan = scan_packets(media.path, start_seconds=media.start_seconds, to_break=True)
    check_length(scan.duration_seconds, media.path, limits)
    # The first packets have named the rate of evenly spaced ones as well as all of them do.
    fps = media.fps if media.constant_rate and scan.constant_rate else scan.fps * media.fps / media.stored_fps
    return replace(media, scan=scan, fps=fps, constant_rate=scan.constant_rate, rate_by_all=True)


def picture_shown_at(media: MediaInfo, seconds: Fraction) -> Fraction | None:
    """Return the time of the picture that is on the screen at `seconds`, both on the file's clock.

    Nothing is decoded, and where the file has an index, little of it is read. None where no picture comes so early.

    Raises:
        InvalidMediaError: The file cannot be read.
    """
    with opened(media.path, packets_only=media.keeps_decoding_times) as container:
        stream = picture_of(container, media.path)
        time_base = seconds_per_tick(stream)
        if media.has_index:
            container.seek(int(seconds * _MICROSECONDS))
        last = last_shown(packets_of(container, stream), stream, int(seconds / time_base))
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
    """Whether libav has to decode pictures to know when each packet is decoded."""
    formats = set(container.format.name.split(","))
    return "mov" not in formats and not formats & set(WITHOUT_HEADER)


def _looked_at(container: InputContainer, path: Path, limits: MediaLimits, data: BinaryIO | None) -> MediaInfo:
    stream = picture_of(container, path)
    frame, look = _first_look(container, stream, path, limits)
    check_size((frame.width, frame.height), path, limits)
    others = frozenset[int]()
    if container.format.name == "mpegts":
        others = _other_programs(container, stream, path, data)
    return _info(path, container, stream, frame, look, other_programs=others)


def _first_look(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> tuple[VideoFrame, PacketTimes]:
    """Decode one frame, because only frames carry the display matrix, and time the packets around it."""
    stream.codec_context.thread_count = 1  # frame threads would wait for more packets than one frame needs
    stream.codec_context.options = {"max_pixels": str(decoder_pixels(limits))}
    sized = stream.codec_context.width > 0
    guard = CodedSizeGuard(stream, path, limits)
    frames: list[VideoFrame] = []
    most = _MOST_UNTIMED_PACKETS if "matroska" in container.format.name.split(",") else _LOOK_PACKETS
    look = PacketTimes.of(_decoding_first(packets_of(container, stream), frames, guard, most), stream)
    if not frames:
        lack = "none of its first pictures can be decoded" if sized else "it declares no size that can be decoded"
        lack += ", or one larger than Settings.limits accepts"
        raise InvalidMediaError(f"{str(path)!r} has a video stream, but {lack}; give a file that plays")
    return frames[0], look


def _decoding_first(
    packets: Iterator[Packet[VideoStream]], frames: list[VideoFrame], guard: CodedSizeGuard, most: int
) -> Iterator[Packet[VideoStream]]:
    """Pass packets on, adding the first frame that decodes to `frames`, and after that as many as a look takes.

    Up to `most` are passed on after it if some of them have no time.
    """
    from av.error import FFmpegError

    for packet in islice(packets, _FIRST_FRAME_PACKETS):
        guard.check(packet)
        # A broken packet at the start is common in cuts of live streams; the next may do. PyAV 19 has a ValueError
        # for all packets after the first if the decoder could not be opened.
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
        if timed == _LOOK_PACKETS:
            break


def _info(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    look: PacketTimes,
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
    start = look.first_seconds if shown_at is None else shown_at
    times = look.since(start)
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
        frame_count_header=None if look.second_fields else plausible_count(stream.frames, duration, rate.fps),
        audio=tuple(sound for sound in audio_streams(container) if sound.index not in other_programs),
        hdr=HdrMetadata.of_frame(frame),
        contents=contents_of(container, stream.index, frame, other_programs),
        untimed_start=look.untimed_start if shown_at is None else None,
        breaks_off=_breaks_off(container, path),
    )


def _other_programs(
    container: InputContainer, picture: VideoStream, path: Path, data: BinaryIO | None
) -> frozenset[int]:
    """Return the numbers of the streams that are in a program of an MPEG-TS, but in none that has the picture."""
    if data is None:
        with path.open("rb") as file:
            programs = programs_of(file)
    else:
        place = data.seek(0, SEEK_CUR)  # where libav goes on reading
        data.seek(0)
        programs = programs_of(data)
        data.seek(place)
    own = {pid for program in programs if picture.id in program for pid in program}
    listed = {pid for program in programs for pid in program}
    return frozenset(each.index for each in container.streams if own and each.id in listed - own)


def _breaks_off(container: InputContainer, path: Path) -> bool:
    if "mov" in container.format.name.split(","):
        return leads_beyond(container)
    return is_cut_off(path)


def _rate_of(container: InputContainer, stream: VideoStream, look: PacketTimes) -> _Rate:
    """Return the rate by the first packets and, if the file keeps an index of all packets, by that."""
    claims = claimed_rates(stream)
    indexed = "mov" in container.format.name.split(",") and not look.second_fields
    index = index_times(stream) if indexed else None
    if index is None:
        return _Rate(choose_rate(look, claims), look.evenly_spaced, by_all=False)
    if look.evenly_spaced and index.evenly_spaced:
        return _Rate(choose_rate(look, claims), constant=True, by_all=True)
    return _Rate(output_rate(index, claims), constant=False, by_all=True)


def _plain(value: object) -> object:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    return value
