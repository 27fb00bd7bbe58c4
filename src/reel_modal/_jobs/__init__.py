"""Jobs on the host: submission, results, events, timings and estimates."""
