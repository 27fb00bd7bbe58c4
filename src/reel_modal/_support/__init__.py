"""Internal utilities: waiting, threads, event loops, temporary folders."""
