"""ffmpeg and libav: reading frames, encoding, audio, filters, muxing."""
