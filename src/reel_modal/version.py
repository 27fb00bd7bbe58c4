"""The version of this package, for what must not load the package's public names."""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = "0.1.0"
