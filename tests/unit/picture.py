"""A real picture."""

from __future__ import annotations

from functools import cache

import av
import numpy as np
import numpy.typing as npt
from tests.clips import real


@cache
def picture() -> npt.NDArray[np.uint8]:
    """Return the luma of a real frame, 272 x 640."""
    with av.open(str(real("bikes.mp4"))) as container:
        frame = next(container.decode(video=0))
        return frame.to_ndarray(format="gray8").copy()
