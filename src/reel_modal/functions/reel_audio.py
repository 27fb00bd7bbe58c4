"""The audio of a reel: that of its clips, the music, and the loudness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reel_modal._ffmpeg.audio import FinishedSound
from reel_modal._ffmpeg.audio_tempo import ChannelLayout
from reel_modal._ffmpeg.reel_sound import ClipSound, music_notes, reel_layout, reel_sound
from reel_modal.functions.context import JobContext
from reel_modal.functions.outputs import output_path
from reel_modal.functions.reel_plan import ReelPlan, plan_music
from reel_modal.schema import Degradation, ReelRequest

__all__ = ["ReelAudio"]


class ReelAudio:
    """The audio of a reel; the music is fetched at once.

    Args:
        request: The request.
        plan: Its plan.
        context: Context of the job.

    Attributes:
        clips: The audio of each clip.
        layout: Channels of the output.

    Raises:
        InvalidMediaError: The music has no audio that plays.
        StorageError: The music could not be fetched.
    """

    def __init__(self, request: ReelRequest, plan: ReelPlan, context: JobContext) -> None:
        self._request = request
        self._context = context
        self._music = plan_music(request, context)
        self._missed: tuple[Degradation, ...] = ()
        self.clips: list[ClipSound] = [ClipSound(clip.placed, clip.plan.media, clip.volume) for clip in plan.clips]
        self.layout: ChannelLayout = reel_layout(self.clips, self._music)

    @contextmanager
    def encoded(self) -> Iterator[FinishedSound | None]:
        """Encode it into a file that is deleted after the block; yield None if the reel is silent."""
        target = self._request.target_lufs
        sound, self._missed = reel_sound(
            self.clips,
            output_path(self._request, self._context),
            music=self._music,
            loudness_lufs=None if target is None else float(target),
            settings=self._context.settings,
            check=self._context.raise_if_cancelled,
        )
        try:
            yield sound
        finally:
            if sound is not None:
                sound.discard()

    def notes(self) -> Iterator[Degradation]:
        """Yield what differs from the music and from the requested loudness, once the audio was encoded."""
        if self._music is not None:
            yield from music_notes(self._music, self.layout)
        yield from self._missed
