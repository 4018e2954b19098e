"""Sphinx configuration: ``sphinx-build -W docs results/docs``."""

from importlib import metadata

project = "gammastar"
author = "The gammastar developers"
release = metadata.version("gammastar")
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"gammastar {release}"
exclude_patterns = ["_build"]
