"""An app of a host whose function is not declared, and reports its progress in two lines."""

import modal

app = modal.App("reporting")
image = modal.Image.debian_slim().add_local_python_source("reel_modal")


@app.function(image=image, timeout=60)
def count(total: int) -> int:
    from reel_modal.functions.reporting import report_progress

    with report_progress() as reporter, reporter.phase("count", total) as advance:
        for number in range(total):
            advance(number + 1)
    return total
