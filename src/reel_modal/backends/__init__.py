"""Where a job runs: on Modal, on this machine, or in a test's memory."""
