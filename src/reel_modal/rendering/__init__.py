"""Pure per-frame work: arrays in, arrays out, no files, no processes, no clocks."""
