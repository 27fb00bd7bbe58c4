"""Progress of a job: planned, measured, and both combined in one stream."""
