"""Sphinx configuration: ``python3 -m sphinx -W docs results/docs`` builds the site."""

import sys
from importlib import metadata
from pathlib import Path

project = "gammastar"
author = "The gammastar developers"
release = metadata.version("gammastar")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]  # Markdown, notebooks, docstrings
myst_enable_extensions = ["deflist", "dollarmath"]
nb_execution_mode = "off"  # outputs are kept: python docs/notebooks/execute.py, and a test runs every cell
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, shapes and units
napoleon_google_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # fields of the same name in several records
smartquotes = False  # options keep their two dashes
html_theme = "furo"
html_title = f"gammastar {release}"
exclude_patterns = ["_build"]

sys.path.insert(0, str(Path(__file__).parent / "reference"))
import pages  # noqa: E402

pages.write_api(Path(__file__).parent / "reference" / pages.API)


def without_substitutions(_app, _what, _name, _obj, _options, lines):
    """Keep the bars of |t| in docstrings from being read as substitutions."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app):
    """Connect what docstrings need."""
    app.connect("autodoc-process-docstring", without_substitutions, priority=900)
