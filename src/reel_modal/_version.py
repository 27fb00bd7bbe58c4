"""Version of this package, for modules that must not import its public names."""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = "0.1.0"
