"""Per-frame rendering as pure functions on arrays: no files, no processes, no clocks."""
