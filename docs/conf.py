"""Sphinx's settings."""

from __future__ import annotations

from reel_modal import __version__

project = "reel_modal"
author = "the reel_modal authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"reel_modal {__version__}"
html_static_path: list[str] = []
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
nitpicky = False
