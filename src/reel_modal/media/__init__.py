"""Facts about video and audio files: streams, frame rates, timestamps, color, orientation. Starts no process."""

from reel_modal.media.headers import AudioStream
from reel_modal.media.probing import MediaInfo, picture_shown_at, probe, rated
from reel_modal.media.scanning import MediaScan, scan_packets

__all__ = [
    "AudioStream",
    "MediaInfo",
    "MediaScan",
    "picture_shown_at",
    "probe",
    "rated",
    "scan_packets",
]
