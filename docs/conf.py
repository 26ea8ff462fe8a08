"""How the pages become a site: `make docs`. Sphinx reads these names."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

import fluxasync

project = "fluxasync"
author = "the fluxasync authors"
version = release = fluxasync.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings have `names` as Markdown has them
smartquotes = False  # "" and "failed" in a docstring are values
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "fluxasync"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _read_sections)
    app.connect("autodoc-process-signature", _name_defaults)


def _read_sections(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: Any) -> None:
    """Turn `Args:` into a list of parameters. Napoleon itself also takes what stands before a
    colon in an attribute's comment for a type, so attributes are left as they are."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring("\n".join(lines), Config(), app, what, name, obj).lines()


def _name_defaults(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any]:
    """Show defaults as Python that can be read: attrs calls one that is made anew for each object
    NOTHING, and an object without a repr of its own shows its address."""
    if signature is not None:
        signature = signature.replace("= NOTHING", "= ...")
        signature = re.sub(r"<[\w.]+\.(\w+) object[^>]*>", r"\1()", signature)
    return signature, returns
