"""H.264 headers that a splice reads or writes."""
