"""Files of video and sound: what they are, and the ffmpeg and libav that read and write them.

It must not know what is done with frames; `ffmpeg_pipe` and `rendering` do.
"""

from reel_modal.media.ffmpeg_binary import FFmpeg, find_ffmpeg
from reel_modal.media.headers import AudioStream
from reel_modal.media.probing import MediaInfo, picture_shown_at, probe, rated
from reel_modal.media.scanning import MediaScan, scan_packets

__all__ = [
    "AudioStream",
    "FFmpeg",
    "MediaInfo",
    "MediaScan",
    "find_ffmpeg",
    "picture_shown_at",
    "probe",
    "rated",
    "scan_packets",
]
