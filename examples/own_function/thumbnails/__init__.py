"""Posters and storyboards of clips: a function of a host, declared beside those of reel_modal."""

from thumbnails.function import ThumbnailRequest, ThumbnailResult, make_thumbnail

__all__ = ["ThumbnailRequest", "ThumbnailResult", "make_thumbnail"]
