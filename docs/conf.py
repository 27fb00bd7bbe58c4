"""Sphinx's settings."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

from reel_modal import __version__

project = "reel_modal"
author = project_copyright = "the reel_modal authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = f"reel_modal {__version__}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]

autodoc_typehints = "signature"
default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes as a list

# Vendored, and only the parts that the reference links to: a build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable", "inventories/numpy.inv"),
}

copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

maximum_signature_line_length = 88
nitpicky = True
_LITERALS = "Device|Effect|Fit|Interpolation|Loudness|OnDrift|Outside|Rate|SlowMotion"
nitpick_ignore_regex = [
    # Type variables, and aliases of literals, which signatures show by name.
    (r"py:.*", r"(.*[.~])?(P|P2|Q|R|R2|S|T)(\.args|\.kwargs)?"),
    (r"py:.*", rf"(.*\.)?({_LITERALS})"),
    # Packages without an inventory here.
    (
        r"py:.*",
        r"(_asyncio|argparse|hypothesis|modal|starlette|typing_extensions)\..*|ObjectStore",
    ),
]

_parse = GoogleDocstring._parse  # noqa: SLF001 - Napoleon has no hook for types
_consume_to_next_section = GoogleDocstring._consume_to_next_section  # noqa: SLF001


def _parse_sentences(self: GoogleDocstring) -> None:
    """Read a property like a method: a colon in its first sentence ends no type."""
    if self._what in {"attribute", "data", "property"}:
        self._what = "method"
    _parse(self)


def _consume_sentences(
    self: GoogleDocstring, *_: object
) -> list[tuple[str, str, list[str]]]:
    """Read *Returns* and *Yields* without types, which are in the annotations."""
    lines = self._dedent(_consume_to_next_section(self))
    return [("", "", lines)] if lines else []


GoogleDocstring._parse = _parse_sentences  # noqa: SLF001
GoogleDocstring._consume_returns_section = _consume_sentences  # noqa: SLF001


def _parseable(
    _app: Sphinx,
    _what: str,
    _name: str,
    _object: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write `<factory>` and `*args: P.args` so that Sphinx can parse the signature."""
    if signature:
        signature = re.sub(r"<[^<>]*>", "...", signature)
        signature = re.sub(
            r"(?<=\*)(args|kwargs): ~[\w.]*~(P2?)\b", r"\1: \2.\1", signature
        )
        options = r"(\w+(?:Options|Style))\((?:[^()]|\([^()]*\))*\)"
        signature = re.sub(rf"= {options}", r"= \1()", signature)
    return signature, returns


def _resolve_names(_app: Sphinx, doctree: nodes.document) -> None:
    """Resolve names in annotations that Sphinx does not find, and shorten others."""
    for node in doctree.findall(pending_xref):
        if node.get("reftarget") == "Fraction":
            node["reftarget"] = "fractions.Fraction"
        if (
            re.fullmatch(r"reel_modal\.[\w.]+", node.astext())
            and node.get("refdomain") == "py"
        ):
            name = node.astext().rpartition(".")[2]
            node.clear()
            node.append(nodes.literal(name, name))


def setup(app: Sphinx) -> None:
    """Connect the handlers."""
    app.connect("autodoc-process-signature", _parseable)
    app.connect("doctree-read", _resolve_names)
