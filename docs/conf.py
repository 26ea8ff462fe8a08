"""How the pages become a site: `make docs`. Sphinx reads these names."""

from __future__ import annotations

import fluxasync

project = "fluxasync"
author = "the fluxasync authors"
version = release = fluxasync.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings have `names` as Markdown has them
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_preserve_defaults = True  # `lag: float = 0.04`, as it is written
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True

html_theme = "furo"
html_title = "fluxasync"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
